/**
 * An initrd as the kernel takes it apart: cpio archives one behind the other, each plain or compressed, zeros between them.
 *
 * Spec:   https://docs.kernel.org/driver-api/early-userspace/buffer-format.html, Linux `init/initramfs.c`
 * Oracle: `lsinitramfs`, `zstd -l`
 * Limits: zstd, gzip and xz, which the kernels of distributions can decompress and whose ends are found without doing so
 *         (gzip's by decompressing); lz4, lzma, lzo and bzip2 are named and refused.
 */
import { crc32 } from 'node:zlib'
import { Fault } from '../base/fault.ts'
import { isCpio } from './cpio.ts'

export type InitrdCompression = 'none' | 'zstd' | 'gzip' | 'xz'

/** A stretch of the initrd: plain archives, or one compressed member. */
export interface InitrdMember {
  compression: InitrdCompression
  offset: number
  /** What it takes at most; a gzip member may end earlier and say so only when it is decompressed. */
  sizeBytes: number
}

// biome-ignore format: table
const MAGICS: readonly [name: string, bytes: readonly number[]][] = [
  ['zstd',  [0x28, 0xb5, 0x2f, 0xfd]],
  ['gzip',  [0x1f, 0x8b]],
  ['xz',    [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00]],
  ['lz4',   [0x02, 0x21, 0x4c, 0x18]],
  ['bzip2', [0x42, 0x5a, 0x68]],
  ['lzma',  [0x5d, 0x00, 0x00]],
  ['lzo',   [0x89, 0x4c, 0x5a]],
]

/** The member at `at`, zeros before it left out; undefined where only zeros are left. A plain one goes on to the end of `bytes`. */
export function initrdMemberAt(bytes: Uint8Array, at: number): InitrdMember | undefined {
  let offset = at
  while (offset < bytes.length && bytes[offset] === 0) offset++
  if (offset === bytes.length) return undefined
  const rest = bytes.length - offset
  if (isCpio(bytes, offset)) {
    if (offset % 4 !== 0) throw refuse(offset, 'an archive begins at a multiple of 4')
    return { compression: 'none', offset, sizeBytes: rest }
  }
  const name = MAGICS.find(([, magic]) => magic.every((byte, i) => bytes[offset + i] === byte))?.[0]
  if (name === 'zstd') return { compression: 'zstd', offset, sizeBytes: zstdFrameSize(bytes, offset) }
  if (name === 'xz') return { compression: 'xz', offset, sizeBytes: xzStreamSize(bytes, offset) }
  if (name === 'gzip') return { compression: 'gzip', offset, sizeBytes: rest }
  throw refuse(offset, name === undefined ? 'no archive and no compression the kernel knows begins there' : `${name} is not read`)
}

const refuse = (offset: number, why: string) => new Fault('format', `Cannot read initrd at offset ${offset}: ${why}`)

/** RFC 8878: header, blocks that say their sizes, checksum. */
function zstdFrameSize(bytes: Uint8Array, start: number): number {
  const need = (end: number) => {
    if (end > bytes.length) throw refuse(start, `its zstd frame ends behind the ${bytes.length} bytes that are there`)
    return end
  }
  need(start + 6)
  const descriptor = bytes[start + 4]!
  const singleSegment = (descriptor & 0x20) !== 0
  const contentSize = [singleSegment ? 1 : 0, 2, 4, 8][descriptor >> 6]!
  let at = start + 5 + (singleSegment ? 0 : 1) + [0, 1, 2, 4][descriptor & 3]! + contentSize
  for (let last = false; !last; ) {
    need(at + 3)
    const header = bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16)
    const type = (header >> 1) & 3
    if (type === 3) throw refuse(at, 'its zstd block is of a reserved type')
    last = (header & 1) !== 0
    at = need(at + 3 + (type === 1 ? 1 : header >> 3))
  }
  return need(at + ((descriptor & 4) !== 0 ? 4 : 0)) - start
}

const XZ_HEADER = 12

/** A stream ends with a footer that repeats the header's flags, under a checksum of its own. */
function xzStreamSize(bytes: Uint8Array, start: number): number {
  const all = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
  const flags = all.subarray(start + 6, start + 8)
  for (let at = all.indexOf('YZ', start + XZ_HEADER + 10); at >= 0; at = all.indexOf('YZ', at + 1)) {
    const footer = all.subarray(at - 10, at)
    if ((at + 2 - start) % 4 !== 0 || !footer.subarray(8, 10).equals(flags)) continue
    if (crc32(footer.subarray(4)) === footer.readUInt32LE()) return at + 2 - start
  }
  throw refuse(start, 'its xz stream has no end')
}
