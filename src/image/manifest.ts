/**
 * Manifest: what an image is and what it was made of, for machines: digests of recipe and lock, every package, every
 * artifact, the root hash, and what the TPM's PCR 11 will be in each phase of the boot.
 */
import type { Sha256 } from '../base/digest.ts'
import type { PcrPredictions } from './measured.ts'
import type { PcrTable } from './uki.ts'

export interface ManifestPackage {
  name: string
  version: string
  architecture: string
  sha256: Sha256
}

export type ArtifactType =
  | 'disk'
  | 'cpio'
  | 'tar'
  | 'uki'
  | 'addon'
  | 'kernel'
  | 'initrd'
  | 'kernel-modules-initrd'
  | 'partition'
  | 'os-release'
  | 'roothash'
  | 'pcrs'
  | 'checksums'
  /** mkosi's own manifest. */
  | 'mkosi-manifest'
  /** What a script added. */
  | 'other'

export interface ManifestArtifact {
  name: string
  type: ArtifactType
  /** The sub-image it is of, where it is not the main image's. */
  image?: string
  sizeBytes: number
  sha256: Sha256
  /** Of a partition: its GUID and type in the table. */
  partition?: { guid: string; type: string; label: string }
}

export interface Manifest {
  manifestVersion: 1
  image: { id: string; version?: string; architecture: string; distribution: string; release: string }
  /** Digest of every setting; of the lock's text. */
  recipe: Sha256
  lock: Sha256
  /** Seconds since 1970; nothing in the image is newer. */
  epoch: number
  /** By group of the lock: `image`, `initrd`, `image:NAME` of a sub-image. */
  packages: Record<string, ManifestPackage[]>
  /** By group, packages that build scripts made: not of the lock, and in place of those of their names that are. */
  built?: Record<string, ManifestPackage[]>
  /** Of the kernel that is booted by default, where there is one. */
  kernel?: string
  commandLine?: string
  /** Of the file system under verity, where there is one. */
  rootHash?: Sha256
  /** PCR 11 by phase path and bank, when the UKI's default profile is booted. */
  pcr11?: PcrTable
  /** What the TPM will hold: PCRs 4, 7, 9, 11 and 12, by state of the firmware and profile of the UKI. */
  pcrs?: PcrPredictions
  /** What firmware measures into PCR 4. */
  authenticode?: { uki: Sha256 }
  /** SHA-256 of each certificate's DER. */
  certificates: Record<string, Sha256>
  artifacts: ManifestArtifact[]
  /** Names of artifacts that are folders, and so have no digest. */
  folders?: string[]
}

export const formatManifest = (manifest: Manifest): string => `${JSON.stringify(manifest, null, 2)}\n`
