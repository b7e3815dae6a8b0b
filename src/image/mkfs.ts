/**
 * File systems that Bisque does not write itself, made by the distribution's own programs in the sandbox.
 *
 * ext4 and squashfs take the tree as a tar stream: owners, attributes, hard links and device nodes travel in it, so that
 * nothing is staged on disk and no right is needed. btrfs and xfs want files, which are staged.
 * Times and identities are arguments, so the same tree gives the same bytes; btrfs alone keeps chance in them.
 */
import { mkdtemp, rename, rm, stat, truncate } from 'node:fs/promises'
import { basename, dirname } from 'node:path'
import { Fault } from '../base/fault.ts'
import { alignUp, formatSize } from '../base/size.ts'
import { makeBtrfs } from './mkfs/btrfs.ts'
import { makeExt } from './mkfs/ext.ts'
import { makeF2fs } from './mkfs/f2fs.ts'
import { makeSquashfs } from './mkfs/squashfs.ts'
import { type Place, tooSmall, withoutAcls } from './mkfs/tool.ts'
import { makeXfs } from './mkfs/xfs.ts'
import type { FileSystemRequest, MadeFileSystem, MakeFileSystem } from './repart/file-system.ts'

/** The formats there are programs for. */
export const MKFS_FORMATS = ['ext2', 'ext3', 'ext4', 'squashfs', 'btrfs', 'xfs', 'f2fs'] as const

/** Makes file systems with the programs of a tools tree (`toolsTree('mkfs', …)`). */
export const fileSystemMaker =
  (tools: string): MakeFileSystem =>
  (request) =>
    makeFileSystem(request, tools)

/** Makes a file system at `request.out`, which is complete or absent. Its size is a multiple of 4096. */
export async function makeFileSystem(request: FileSystemRequest, tools: string): Promise<MadeFileSystem> {
  const make = Object.hasOwn(MAKERS, request.format) ? MAKERS[request.format] : undefined
  if (!make) throw new Fault('recipe', `Cannot make a ${request.format} file system: the formats are ${MKFS_FORMATS.join(', ')}`)
  if (request.sizeBytes !== undefined && (request.sizeBytes <= 0 || request.sizeBytes % 4096 !== 0))
    throw new Fault('usage', `Cannot make a file system of ${request.sizeBytes} bytes: expected a multiple of 4096`)
  const work = await mkdtemp(`${dirname(request.out)}/.mkfs-`)
  try {
    const image = `${work}/${basename(request.out)}`
    const { tree, notes } = WITHOUT_ACLS.has(request.format) ? withoutAcls(request.tree) : { tree: request.tree, notes: [] }
    await make({ ...request, tree }, { tools, work, image })
    const { size } = await stat(image)
    const sizeBytes = request.sizeBytes ?? alignUp(size, 4096)
    if (size > sizeBytes) throw tooSmall(request, `it takes ${formatSize(size)}`)
    if (size < sizeBytes) await truncate(image, sizeBytes)
    await rename(image, request.out)
    return { sizeBytes, notes }
  } finally {
    await rm(work, { recursive: true, force: true })
  }
}

/** squashfs has no access control lists, and the programs for xfs cannot set them. */
const WITHOUT_ACLS: ReadonlySet<string> = new Set(['squashfs', 'xfs'])

type Maker = (request: FileSystemRequest, place: Place) => Promise<void>

const MAKERS: Record<string, Maker> = {
  ext2: makeExt,
  ext3: makeExt,
  ext4: makeExt,
  squashfs: makeSquashfs,
  btrfs: makeBtrfs,
  f2fs: makeF2fs,
  xfs: makeXfs,
}
