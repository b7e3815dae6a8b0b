/**
 * Adds what a recipe brings to a root on disk: a folder, a single file, or a tar archive.
 *
 * As mkosi does it: folders are merged, files replaced; an archive without a place of its own is unpacked, any other file
 * copied. What a recipe's author owns becomes root's; a base tree and an archive keep the owners they name.
 */
import { createReadStream, lstatSync, realpathSync } from 'node:fs'
import { chmod, lchown, link, mkdir, open, rm, symlink, utimes } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import type { Readable } from 'node:stream'
import { createGunzip, createZstdDecompress } from 'node:zlib'
import { createUnxz } from 'node-liblzma'
import { Fault } from '../base/fault.ts'
import { decodeTar, type TarFile } from '../formats/tar.ts'
import { makeDirectoryInside, resolveInside } from '../run/inside.ts'
import { setXattr } from '../run/xattr.ts'
import { readTree } from './from-disk.ts'
import { writeTree } from './to-disk.ts'
import type { Inode } from './tree.ts'

export interface Addition {
  /** A folder, an archive or a file of the host. */
  source: string
  /** Where it goes in the image; `/` for a file means: no place of its own. */
  target: string
  /** Keep owners, times and attributes, as of a base tree. Otherwise all becomes root's. */
  keep?: boolean
}

/** Adds to `root`; times that are not kept become `epoch`. */
export async function addTree(root: string, { source, target, keep = false }: Addition, epoch: number): Promise<void> {
  const real = realSource(source)
  const stat = lstatSync(real)
  const place = target.replace(/^\/+|\/+$/g, '')
  if (stat.isDirectory()) {
    const found = new Map<string, Inode>()
    for (const [path, inode] of readTree(real)) found.set(joined(place, path), keep ? inode : owned(inode, epoch))
    if (place !== '') makeDirectoryInside(root, dirname(`/${place}`))
    if (place === '' && !keep) found.delete('')
    await writeTree(found, root, { keepDirectories: !keep })
  } else if (place === '' && isArchive(real)) await extractTar(real, root)
  else if (/\.raw$/.test(real)) {
    throw new Fault('recipe', `Cannot add ${source}: disk images are not supported as trees`, {
      hint: 'let the image be made with Format=directory or Format=tar',
    })
  } else {
    const inode = readTree(real).get('')!
    const at = place === '' || isFolder(root, place) ? joined(place, basename(source)) : place
    await writeTree(new Map([[at, keep ? inode : owned(inode, epoch)]]), root)
  }
}

function realSource(source: string): string {
  try {
    return realpathSync(source)
  } catch (cause) {
    throw new Fault('missing', `Cannot add ${source} to the image: it does not exist`, { cause })
  }
}

const joined = (...parts: readonly string[]): string => parts.filter((part) => part !== '').join('/')

function owned(inode: Inode, mtime: number): Inode {
  const { xattrs: _, ...rest } = inode
  return { ...rest, uid: 0, gid: 0, mtime }
}

const isFolder = (root: string, path: string): boolean =>
  lstatSync(`${root}/${resolveInside(root, path, { followLast: true })}`, { throwIfNoEntry: false })?.isDirectory() === true

/** As mkosi tells them: `.tar` is one of the last two extensions. */
const isArchive = (path: string): boolean => /\.tar(\.[^./]+)?$/.test(basename(path))

/** What belongs to the running system is left out. */
const EXCLUDED = /^(?:dev|proc|sys|tmp|run|var\/tmp)\/./

/** Unpacks an archive over what is there. Directories that are there stay as they are. */
async function extractTar(archive: string, root: string): Promise<void> {
  const times: [string, number][] = []
  for await (const entry of decodeTar(decompressed(archive))) {
    const path = joined(...entry.path.split('/').filter((part) => part !== '.'))
    if (EXCLUDED.test(path)) continue
    if (path.split('/').includes('..'))
      throw new Fault('format', `Cannot unpack ${archive}: the path ${JSON.stringify(entry.path)} leads out of it`)
    if (entry.type === 'directory') {
      if (isFolder(root, path)) continue
      const at = makeDirectoryInside(root, path)
      await settle(at, entry)
      times.push([at, entry.mtime])
    } else await extractEntry(archive, entry, path, root)
  }
  for (const [path, mtime] of times.reverse()) await utimes(path, mtime, mtime)
}

async function extractEntry(archive: string, entry: TarFile, path: string, root: string): Promise<void> {
  const at = `${root}/${resolveInside(root, path)}`
  await mkdir(dirname(at), { recursive: true })
  if (lstatSync(at, { throwIfNoEntry: false })?.isDirectory())
    throw new Fault('recipe', `Cannot write /${path}: a directory is there, and it is none in ${archive}`)
  await rm(at, { force: true })
  if (entry.type === 'symlink') {
    await symlink(entry.target, at)
    await lchown(at, entry.uid, entry.gid)
  } else if (entry.type === 'hardlink') await link(`${root}/${resolveInside(root, entry.target)}`, at)
  else if (entry.type === 'file') {
    const file = await open(at, 'wx')
    try {
      for await (const { offset, bytes } of entry.content()) await file.write(bytes, 0, bytes.length, offset)
      await file.truncate(entry.sizeBytes)
    } finally {
      await file.close()
    }
    await settle(at, entry)
    await utimes(at, entry.mtime, entry.mtime)
  } else throw new Fault('recipe', `Cannot write /${path}: a ${entry.type} device or pipe cannot be part of a tree`)
}

async function settle(at: string, { uid, gid, mode, xattrs }: TarFile): Promise<void> {
  await lchown(at, uid, gid)
  await chmod(at, mode & 0o7777)
  for (const [name, value] of xattrs) setXattr(at, name, value)
}

async function* decompressed(path: string): AsyncGenerator<Uint8Array> {
  const file = createReadStream(path, { highWaterMark: 1 << 20 })
  const filter = filterOf(path)
  let from: Readable = file
  if (filter !== undefined) {
    file.on('error', (error) => filter.destroy(error))
    from = file.pipe(filter) as unknown as Readable
  }
  try {
    for await (const chunk of from) yield chunk as Uint8Array
  } catch (error) {
    if (error instanceof Fault) throw error
    throw new Fault('format', `Cannot unpack ${path}: ${(error as Error).message}`, { cause: error })
  } finally {
    file.destroy()
  }
}

function filterOf(path: string) {
  const extension = /\.([^./]+)$/.exec(basename(path))?.[1]
  if (extension === 'tar') return undefined
  if (extension === 'gz') return createGunzip()
  if (extension === 'zst' || extension === 'zstd') return createZstdDecompress()
  if (extension === 'xz') return createUnxz({ memlimit: 256 << 20 })
  throw new Fault('recipe', `Cannot unpack ${join(path)}: archives are read as .tar, .tar.gz, .tar.xz and .tar.zst`)
}
