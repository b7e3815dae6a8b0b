/** How a file system that this program does not write itself is made: by a function the caller gives. */
import type { Tree } from '../../tree/tree.ts'

export interface Subvolume {
  /** Absolute, from the root of the file system: `/var`. */
  path: string
  readOnly: boolean
  /** Data in it is not copied on write. */
  noDataCow: boolean
}

export interface FileSystemRequest {
  /** `ext4`, `btrfs`, `xfs`, `f2fs`, `squashfs` … */
  format: string
  /** What the file system holds; its root is `''`. */
  tree: Tree
  /** Exact size of the file system. Absent where it takes the size it needs: see `minimize`. */
  sizeBytes?: number | undefined
  /** `best`: the smallest that is possible. `guess`: what the content took in a large sparse file, and half as much again. */
  minimize?: 'best' | 'guess' | undefined
  uuid: string
  /** The partition's label; the maker cuts it to what the file system takes. */
  label: string
  subvolumes: readonly Subvolume[]
  /** One of the subvolumes' paths. */
  defaultSubvolume?: string | undefined
  compression?: string | undefined
  /** As it was written: what it means depends on the file system. */
  compressionLevel?: string | undefined
  sectorSize: 512 | 1024 | 2048 | 4096
  /** Seconds since 1970, for every time that the tree does not say. */
  epoch: number
  /** Path of the file to make. It is not there before, and not after a failure. */
  out: string
}

export interface MadeFileSystem {
  /** The file's, a multiple of 4096. */
  sizeBytes: number
  /** What the file system could not hold, in words. */
  notes?: readonly string[]
}

/** Makes a file system in the file `out`. */
export type MakeFileSystem = (request: FileSystemRequest) => Promise<MadeFileSystem>
