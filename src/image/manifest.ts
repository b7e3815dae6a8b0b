/**
 * Manifest: what an image is and what it was made of, for machines: digests of recipe and lock, every package, every
 * artifact, the root hash, and what the TPM's PCR 11 will be in each phase of the boot.
 */
import type { Sha256 } from '../base/digest.ts'
import type { PcrTable } from './uki.ts'

export interface ManifestPackage {
  name: string
  version: string
  architecture: string
  sha256: Sha256
}

export interface ManifestArtifact {
  name: string
  type: 'disk' | 'uki' | 'kernel' | 'initrd' | 'partition' | 'os-release' | 'roothash' | 'pcrs'
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
  packages: { image: ManifestPackage[]; initrd: ManifestPackage[] }
  kernel: string
  commandLine: string
  rootHash: Sha256
  /** PCR 11 by phase path and bank. */
  pcr11: PcrTable
  /** What firmware measures into PCR 4. */
  authenticode: { uki: Sha256 }
  /** SHA-256 of each certificate's DER. */
  certificates: Record<string, Sha256>
  artifacts: ManifestArtifact[]
}

export const formatManifest = (manifest: Manifest): string => `${JSON.stringify(manifest, null, 2)}\n`
