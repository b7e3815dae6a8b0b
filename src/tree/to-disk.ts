/** Writes trees to a directory: skeleton and extra files of a recipe on their way into an image. */
import {
  chmodSync,
  constants,
  copyFileSync,
  lchownSync,
  linkSync,
  lstatSync,
  mkdirSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { dirname } from 'node:path'
import { Fault } from '../base/fault.ts'
import { makeDirectoryInside, resolveInside } from '../run/inside.ts'
import { setXattr } from '../run/xattr.ts'
import type { Inode, Tree } from './tree.ts'

export interface WriteOptions {
  /** Directories that are there stay as they are: only new ones take mode, owner and time from the tree. */
  keepDirectories?: boolean
}

/**
 * Writes every inode of `tree` below `root`, over what is there: files are replaced, directories merged. A symlink of
 * `root` on the way (`lib` → `usr/lib`) is followed inside `root` and never out of it.
 */
export async function writeTree(tree: Tree, root: string, options: WriteOptions = {}): Promise<void> {
  const linked = new Map<Inode, string>()
  const directories: [string, Inode][] = []
  for (const [path, inode] of tree) {
    if (inode.type === 'directory') {
      const isThere = isDirectory(`${root}/${resolveInside(root, path, { followLast: true })}`, path)
      const target = path === '' ? root : makeDirectoryInside(root, path)
      if (!(isThere && options.keepDirectories)) directories.push([target, inode])
      continue
    }
    const target = `${root}/${resolveInside(root, path)}`
    mkdirSync(dirname(target), { recursive: true })
    makeRoom(target, path)
    const first = linked.get(inode)
    if (first === undefined) {
      writeInode(target, path, inode)
      linked.set(inode, target)
    } else linkSync(first, target)
  }
  for (const [target, inode] of directories.reverse()) setAttributes(target, inode)
}

function isDirectory(target: string, path: string): boolean {
  const there = lstatSync(target, { throwIfNoEntry: false })
  if (there === undefined || there.isDirectory()) return there !== undefined
  throw new Fault('recipe', `Cannot write /${path}: a file is there, and it is a directory in the tree`)
}

function makeRoom(target: string, path: string): void {
  const there = lstatSync(target, { throwIfNoEntry: false })
  if (there?.isDirectory())
    throw new Fault('recipe', `Cannot write /${path}: a directory is there, and it is no directory in the tree`)
  if (there !== undefined) rmSync(target)
}

function writeInode(target: string, path: string, inode: Inode): void {
  if (inode.type === 'symlink') {
    symlinkSync(inode.target, target)
    lchownSync(target, inode.uid, inode.gid)
    return
  }
  if (inode.type !== 'file')
    throw new Fault('recipe', `Cannot write /${path}: a ${inode.type} device or pipe cannot be part of a tree`)
  if ('path' in inode.content) copyFileSync(inode.content.path, target, constants.COPYFILE_FICLONE)
  else writeFileSync(target, inode.content.bytes)
  setAttributes(target, inode)
}

function setAttributes(target: string, inode: Inode): void {
  lchownSync(target, inode.uid, inode.gid)
  chmodSync(target, inode.mode)
  for (const [name, value] of inode.xattrs ?? []) setXattr(target, name, value)
  utimesSync(target, inode.mtime, inode.mtime)
}
