/** A tree as files on disk, for the programs that take nothing else. */
import { constants } from 'node:fs'
import { chmod, copyFile, lchown, link, lstat, lutimes, mkdir, symlink, writeFile } from 'node:fs/promises'
import { Fault } from '../base/fault.ts'
import { makeFifo } from '../run/libc.ts'
import { readXattrs, setXattr } from '../run/xattr.ts'
import type { Inode, Tree } from '../tree/tree.ts'

export interface StagingOptions {
  /** Times later than this become it. */
  epoch: number
  /**
   * Takes files from where they lie by hard link where they are on the same file system and as the tree has them.
   * Only for a folder that nobody writes to.
   */
  share?: boolean
}

/** Writes a tree into the empty folder `root`. Sockets are left out; device nodes, which not even a build's root may make, are refused. */
export async function stageTree(tree: Tree, root: string, options: StagingOptions): Promise<void> {
  const linked = new Map<Inode, string>()
  const directories: [string, Inode][] = []
  for (const [path, inode] of tree) {
    const at = path === '' ? root : `${root}/${path}`
    if (inode.type === 'directory') {
      if (path !== '') await mkdir(at, { mode: 0o700 })
      directories.push([at, inode])
      continue
    }
    const first = linked.get(inode)
    if (first !== undefined) await link(first, at)
    else await stageInode(at, path, inode, options)
    linked.set(inode, at)
  }
  for (const [at, inode] of directories.reverse()) await setAttributes(at, inode, options.epoch)
}

/** Puts the content of a file at `at`: by hard link or reflink where it can be, else by copy. */
export async function stageContent(at: string, path: string, inode: Inode & { type: 'file' }, share: boolean): Promise<boolean> {
  const { content, sizeBytes } = inode
  if ('bytes' in content) await writeFile(at, content.bytes, { flag: 'wx' })
  else if (share && (await tryLink(content.path, at))) return true
  else await copyFile(content.path, at, constants.COPYFILE_FICLONE | constants.COPYFILE_EXCL)
  const { size } = await lstat(at)
  if (size !== sizeBytes)
    throw new Fault('integrity', `Cannot stage /${path}: it had ${sizeBytes} bytes when listed, now ${size}`)
  return false
}

async function stageInode(at: string, path: string, inode: Inode, { epoch, share }: StagingOptions): Promise<void> {
  if (inode.type === 'socket') return
  if (inode.type === 'symlink') await symlink(inode.target, at)
  else if (inode.type === 'fifo') makeFifo(at)
  else if (inode.type === 'file') {
    if (await stageContent(at, path, inode, share === true && (await isAlike(inode, epoch)))) return
  } else
    throw new Fault('recipe', `Cannot write /${path} to disk: it is a ${inode.type} device, which takes rights a build has not`)
  await setAttributes(at, inode, epoch)
}

/** Whether a file lies on disk with all that the tree says of it. */
async function isAlike(inode: Inode & { type: 'file' }, epoch: number): Promise<boolean> {
  if (!('path' in inode.content) || (inode.xattrs?.size ?? 0) > 0) return false
  const { path } = inode.content
  const stat = await lstat(path)
  return (
    stat.isFile() &&
    stat.size === inode.sizeBytes &&
    (stat.mode & 0o7777) === inode.mode &&
    stat.uid === inode.uid &&
    stat.gid === inode.gid &&
    stat.mtimeMs === Math.min(inode.mtime, epoch) * 1000 &&
    readXattrs(path).size === 0
  )
}

async function tryLink(from: string, to: string): Promise<boolean> {
  try {
    await link(from, to)
    return true
  } catch (error) {
    if (['EXDEV', 'EMLINK', 'EPERM', 'ENOTSUP'].includes((error as NodeJS.ErrnoException).code ?? '')) return false
    throw error
  }
}

async function setAttributes(at: string, inode: Inode, epoch: number): Promise<void> {
  await lchown(at, inode.uid, inode.gid)
  if (inode.type !== 'symlink') await chmod(at, inode.mode)
  for (const [name, value] of inode.xattrs ?? []) setXattr(at, name, value)
  const time = Math.min(inode.mtime, epoch)
  await lutimes(at, time, time)
}
