/** squashfs by mksquashfs, which takes the tree as a tar stream. */
import { tarOf } from '../output/tar.ts'
import type { FileSystemRequest } from '../repart/file-system.ts'
import { checkPlain, type Place, refuse, rootOf, runTool } from './tool.ts'

const SQUASHFS_COMPRESSIONS = ['gzip', 'lz4', 'lzo', 'xz', 'zstd', 'lzma']
const SQUASHFS_LEVELS = ['gzip', 'lzo', 'zstd']

export async function makeSquashfs(request: FileSystemRequest, place: Place): Promise<void> {
  checkPlain(request)
  const { tree, epoch, compression, compressionLevel } = request
  if (compression !== undefined && !SQUASHFS_COMPRESSIONS.includes(compression))
    throw refuse(request, `compression ${compression} must be one of ${SQUASHFS_COMPRESSIONS.join(', ')}`)
  if (compressionLevel !== undefined && !SQUASHFS_LEVELS.includes(compression ?? 'gzip'))
    throw refuse(request, `compression ${compression} has no levels`)
  const root = rootOf(tree)
  const time = `${Math.min(root.mtime, epoch)}`
  const argv = [
    ...['mksquashfs', '-', place.image, '-tar', '-noappend', '-no-progress', '-quiet', '-no-recovery', '-xattrs'],
    ...['-mkfs-time', `${epoch}`, '-root-mode', root.mode.toString(8), '-root-uid', `${root.uid}`, '-root-gid', `${root.gid}`],
    ...['-root-time', time],
    ...(compression === undefined ? [] : ['-comp', compression]),
    ...(compressionLevel === undefined ? [] : ['-Xcompression-level', compressionLevel]),
    ...[...(root.xattrs ?? [])].flatMap(([name, value]) => ['-p', `/ x ${name}=${octal(value)}`]),
  ]
  await runTool(place, argv, { input: tarOf(tree, { epoch }) })
}

/** A value as text of octal numbers: where mksquashfs decodes hexadecimal ones, it writes beyond its memory. */
const octal = (value: Uint8Array): string => `0t${[...value].map((byte) => `\\${byte.toString(8).padStart(3, '0')}`).join('')}`
