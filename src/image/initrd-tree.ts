/** A finished tree as an initrd: with what kernel and systemd look for there. */
import { madeDirectory, madeSymlink } from '../tree/content.ts'
import { type Inode, type Tree, treeOf } from '../tree/tree.ts'

/**
 * What makes a finished tree an initrd, where it has not got it yet: the kernel starts `/init`, and by `/etc/initrd-release`
 * systemd knows where it is. Nothing else is added to what recipe and scripts made of the tree, but for `overlay`.
 */
export function asInitrd(tree: Tree, options: { epoch: number; overlay?: Tree }): Tree {
  const { epoch, overlay } = options
  const files = new Map<string, Inode>(tree)
  const made: [string, string][] = [
    ...(files.has('usr/lib/systemd/systemd') ? [['init', 'usr/lib/systemd/systemd'] satisfies [string, string]] : []),
    ['etc/initrd-release', '../usr/lib/os-release'],
  ]
  for (const [path, target] of made) if (!files.has(path)) files.set(path, madeSymlink(target, epoch))
  for (const [path, inode] of overlay ?? []) {
    const keep = inode.type === 'directory' && files.get(path)?.type === 'directory'
    if (!keep) files.set(path, inode)
  }
  return treeOf(files, madeDirectory(epoch))
}
