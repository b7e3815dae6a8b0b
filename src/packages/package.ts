/** Package: one binary package as a repository offers it, with all that resolving, fetching and installing need. */
import type { Sha256 } from '../base/digest.ts'

export interface Package {
  name: string
  version: string
  architecture: string
  /** `Repository.id` of the repository that offers it. */
  repository: string
  /** Path of the package file below the repository's URL. */
  filename: string
  sizeBytes: number
  sha256: Sha256
}

/** A package whose verified file is at hand. */
export interface FetchedPackage extends Package {
  /** Absolute path of the package file in the store. */
  file: string
}

/** `name version architecture`, the way packages are named to people. */
export const packageId = (p: Pick<Package, 'name' | 'version' | 'architecture'>): string =>
  `${p.name} ${p.version} ${p.architecture}`
