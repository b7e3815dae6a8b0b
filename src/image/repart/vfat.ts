/** Files and label of a FAT, as mkfs.vfat and mcopy take them from a tree. */
import type { Content, Tree } from '../../tree/tree.ts'
import type { EspFiles } from '../esp.ts'

/** Files and directories of a tree as FAT has them, and the paths of all else. */
export function fatFiles(tree: Tree): { files: EspFiles; left: string[] } {
  const files = new Map<string, Content & { sizeBytes: number }>()
  const left: string[] = []
  for (const [path, inode] of tree) {
    if (inode.type === 'file') files.set(path, { ...inode.content, sizeBytes: inode.sizeBytes })
    else if (inode.type !== 'directory') left.push(`/${path}`)
    else if (path !== '') files.set(`${path}/`, { bytes: new Uint8Array(), sizeBytes: 0 })
  }
  return { files, left }
}

/** At most 11 characters, in upper case, without those that FAT gives a meaning. */
export const fatLabel = (label: string): string =>
  [...label]
    .slice(0, 11)
    .map((c) => (/[^\x20-\x7e]|["*+,./:;<=>?[\\\]|]/.test(c) ? '_' : c.toUpperCase()))
    .join('')
