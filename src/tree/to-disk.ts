/** Writes trees to a directory: skeleton and extra files of a recipe on their way into an image. */
import { constants } from 'node:fs'
import { chmod, copyFile, lchown, link, lstat, mkdir, rm, symlink, utimes, writeFile } from 'node:fs/promises'
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
      const isThere = await isDirectory(`${root}/${resolveInside(root, path, { followLast: true })}`, path)
      const target = path === '' ? root : makeDirectoryInside(root, path)
      if (!(isThere && options.keepDirectories)) directories.push([target, inode])
      continue
    }
    const target = `${root}/${resolveInside(root, path)}`
    await mkdir(dirname(target), { recursive: true })
    await makeRoom(target, path)
    const first = linked.get(inode)
    if (first === undefined) {
      await writeInode(target, path, inode)
      linked.set(inode, target)
    } else await link(first, target)
  }
  for (const [target, inode] of directories.reverse()) await setAttributes(target, inode)
}

async function isDirectory(target: string, path: string): Promise<boolean> {
  const there = await lstat(target).catch(() => undefined)
  if (there === undefined || there.isDirectory()) return there !== undefined
  throw new Fault('recipe', `Cannot write /${path}: a file is there, and it is a directory in the tree`)
}

async function makeRoom(target: string, path: string): Promise<void> {
  const there = await lstat(target).catch(() => undefined)
  if (there?.isDirectory())
    throw new Fault('recipe', `Cannot write /${path}: a directory is there, and it is no directory in the tree`)
  if (there !== undefined) await rm(target)
}

async function writeInode(target: string, path: string, inode: Inode): Promise<void> {
  if (inode.type === 'symlink') {
    await symlink(inode.target, target)
    await lchown(target, inode.uid, inode.gid)
    return
  }
  if (inode.type !== 'file')
    throw new Fault('recipe', `Cannot write /${path}: a ${inode.type} device or pipe cannot be part of a tree`)
  if ('path' in inode.content) await copyFile(inode.content.path, target, constants.COPYFILE_FICLONE)
  else await writeFile(target, inode.content.bytes)
  await setAttributes(target, inode)
}

async function setAttributes(target: string, inode: Inode): Promise<void> {
  await lchown(target, inode.uid, inode.gid)
  await chmod(target, inode.mode)
  for (const [name, value] of inode.xattrs ?? []) setXattr(target, name, value)
  await utimes(target, inode.mtime, inode.mtime)
}
