/**
 * A directory on disk as a Tree. The caller sees its files with their owners: it is root, or in a build's namespace.
 */
import { lstatSync, readdirSync, readlinkSync, type Stats } from 'node:fs'
import { Fault } from '../base/fault.ts'
import { listXattrs, readXattrs } from '../run/xattr.ts'
import { byPath, type Inode, type Tree } from './tree.ts'

export interface ReadOptions {
  /** Leaves out a path, and what is below it. */
  exclude?: (path: string) => boolean
  /** Inodes to put in place of, or beside, what is on disk: the device nodes an installation could not make. */
  extra?: ReadonlyMap<string, Inode>
}

/** Reads everything below `root`. Hard links become one Inode under several paths; sockets are left out, as they mean nothing. */
export function readTree(root: string, options: ReadOptions = {}): Tree {
  const found = new Map<string, Inode>()
  const links = new Map<string, Inode>()
  const visit = (path: string) => {
    if (path !== '' && options.exclude?.(path)) return
    const at = path === '' ? root : `${root}/${path}`
    const stat = lstatSync(at)
    if (stat.isSocket()) return
    const key = stat.nlink > 1 && !stat.isDirectory() ? `${stat.dev}:${stat.ino}` : ''
    let inode = key === '' ? undefined : links.get(key)
    inode ??= inodeOf(at, stat)
    if (key !== '') links.set(key, inode)
    found.set(path, inode)
    if (inode.type !== 'directory') return
    for (const name of readdirSync(at, { encoding: 'buffer' }))
      visit(path === '' ? nameOf(at, name) : `${path}/${nameOf(at, name)}`)
  }
  visit('')
  for (const [path, inode] of options.extra ?? []) found.set(path, inode)
  return new Map([...found].sort(([a], [b]) => byPath(a, b)))
}

const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

function nameOf(directory: string, bytes: Buffer): string {
  try {
    return decoder.decode(bytes)
  } catch {
    throw new Fault('format', `Cannot read ${directory}: the name ${JSON.stringify(bytes.toString('latin1'))} in it is not UTF-8`)
  }
}

function inodeOf(at: string, stat: Stats): Inode {
  const xattrs = listXattrs(at).length > 0 ? readXattrs(at) : undefined
  const common = {
    mode: stat.mode & 0o7777,
    uid: stat.uid,
    gid: stat.gid,
    mtime: Math.floor(stat.mtimeMs / 1000),
    ...(xattrs && xattrs.size > 0 ? { xattrs } : {}),
  }
  if (stat.isFile()) return { ...common, type: 'file', sizeBytes: stat.size, content: { path: at } }
  if (stat.isDirectory()) return { ...common, type: 'directory' }
  if (stat.isSymbolicLink()) return { ...common, type: 'symlink', target: readlinkSync(at) }
  if (stat.isFIFO()) return { ...common, type: 'fifo' }
  if (!stat.isCharacterDevice() && !stat.isBlockDevice()) throw new Fault('format', `Cannot read ${at}: unknown type of file`)
  return { ...common, type: stat.isCharacterDevice() ? 'character' : 'block', major: major(stat.rdev), minor: minor(stat.rdev) }
}

/** Linux's 64-bit device number: minor in bits 0–7 and 20–31, major in bits 8–19. */
const major = (device: number) => (device >>> 8) & 0xfff
const minor = (device: number) => (device & 0xff) | ((device >>> 12) & 0xfff00)
