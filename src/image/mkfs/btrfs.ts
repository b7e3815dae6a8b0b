/**
 * btrfs by mkfs.btrfs, from files staged on disk.
 *
 * The content is that of the tree; the bytes are not the same each time: mkfs.btrfs makes up identities of its own and takes
 * files in the order in which the host's file system lists them.
 */
import { mkdir, stat } from 'node:fs/promises'
import { alignUp } from '../../base/size.ts'
import { parentOf, type Tree } from '../../tree/tree.ts'
import type { FileSystemRequest } from '../repart/file-system.ts'
import { stageTree } from '../staging.ts'
import { cutLabel, makeSparse, type Place, refuse, runTool, tooSmall } from './tool.ts'

const LABEL_BYTES = 255
/** As systemd-repart has it. */
const LEAST_BYTES = 109 << 20

export async function makeBtrfs(request: FileSystemRequest, place: Place): Promise<void> {
  const { tree, sizeBytes, minimize } = request
  const arguments_ = argumentsOf(request)
  const root = `${place.work}/root`
  await mkdir(root)
  await stageTree(withSubvolumes(tree, request), root, { epoch: request.epoch, share: true })
  const fill = async (sizeBytes: number, shrink: boolean) => {
    await makeSparse(place.image, sizeBytes)
    const argv = ['mkfs.btrfs', '-q', '-f', ...arguments_, '--rootdir', root, ...(shrink ? ['--shrink'] : []), place.image]
    return runTool(place, argv, { allowFailure: sizeBytes === request.sizeBytes })
  }
  if (sizeBytes !== undefined) {
    const { exitCode, stderr } = await fill(sizeBytes, false)
    if (exitCode !== 0) throw tooSmall(request, stderr.trim().split('\n').at(-1) ?? '')
    return
  }
  await fill(alignUp(roomFor(tree), 1 << 20), true)
  if (minimize === 'best') return
  const { size } = await stat(place.image)
  await fill(Math.max(LEAST_BYTES, alignUp(Math.ceil(size * 1.5), 1 << 20)), false)
}

/** About what the tree takes: mkfs.btrfs makes a file larger where it must be, and the larger it is, the more it keeps free. */
function roomFor(tree: Tree): number {
  let bytes = LEAST_BYTES
  for (const inode of tree.values()) bytes += 1024 + (inode.type === 'file' ? inode.sizeBytes : 0)
  return bytes
}

function argumentsOf(request: FileSystemRequest): string[] {
  const { uuid, label, subvolumes, defaultSubvolume, compression, compressionLevel, tree, sectorSize } = request
  if (compression !== undefined && !['zstd', 'lzo', 'zlib'].includes(compression))
    throw refuse(request, `compression ${compression} must be one of zstd, lzo, zlib`)
  if (compressionLevel !== undefined && compression === undefined)
    throw refuse(request, 'a compression level takes a compression')
  if (defaultSubvolume !== undefined && !subvolumes.some(({ path }) => path === defaultSubvolume))
    throw refuse(request, `its default subvolume ${defaultSubvolume} is none of its subvolumes`)
  for (const { path, noDataCow } of subvolumes) {
    if (noDataCow) throw refuse(request, `mkfs.btrfs of this distribution cannot turn off copy on write in ${path}`)
    const inode = tree.get(path.slice(1))
    if (path === '/' || (inode !== undefined && inode.type !== 'directory'))
      throw refuse(request, `${path} cannot be a subvolume`)
  }
  if (sectorSize > 4096) throw refuse(request, `its sectors have at most 4096 bytes`)
  const flags = ({ path, readOnly }: FileSystemRequest['subvolumes'][number]) =>
    defaultSubvolume === path ? (readOnly ? 'default-ro' : 'default') : readOnly ? 'ro' : 'rw'
  return [
    ...['-L', cutLabel(label, LABEL_BYTES), '-U', uuid, '--sectorsize', '4096'],
    ...(compression ? ['--compress', compressionLevel ? `${compression}:${compressionLevel}` : compression] : []),
    ...subvolumes.flatMap((subvolume) => ['--subvol', `${flags(subvolume)}:${subvolume.path.slice(1)}`]),
  ]
}

/** A subvolume is where a folder is; one that the tree does not have is made. */
function withSubvolumes(tree: Tree, { subvolumes, epoch }: FileSystemRequest): Tree {
  const all = new Map(tree)
  for (const { path } of subvolumes) {
    const missing: string[] = []
    for (let at = path.slice(1); at !== '' && !all.has(at); at = parentOf(at)) missing.unshift(at)
    for (const at of missing) all.set(at, { type: 'directory', mode: 0o755, uid: 0, gid: 0, mtime: epoch })
  }
  return all
}
