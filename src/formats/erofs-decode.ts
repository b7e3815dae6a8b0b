/**
 * EROFS, read: every inode with its attributes, and the bytes of every file.
 *
 * Spec:   Linux `Documentation/filesystems/erofs.rst`, `fs/erofs/erofs_fs.h`, `fs/erofs/zmap.c` (6.12)
 * Oracle: `mkfs.erofs` writes, this reads
 * Limits: 4096-byte blocks and clusters; flat, chunked and compressed files (full and compact indexes) with zstd
 *         or deflate. Refuses LZ4 and LZMA data, inline compressed tails, fragments, deduplicated parts, several
 *         devices and long xattr prefixes. All metadata is held; bytes of files stream.
 *
 * An image may come from anywhere: every address, count and length is checked before it is used, a directory is
 * entered once, and names and xattrs may take no more memory than the image is long (or 64 MiB).
 */
import { constants, inflateRawSync, zstdDecompressSync } from 'node:zlib'
import { Fault } from '../base/fault.ts'
import { guidFrom } from '../base/guid.ts'
import { alignUp } from '../base/size.ts'
import {
  ADVISE,
  ALGORITHM,
  BLOCK,
  BLOCK_COUNT,
  COMPATIBLE,
  compactInode,
  DIRENT,
  type ErofsType,
  extendedInode,
  INCOMPATIBLE,
  LAYOUT,
  LCLUSTER,
  MAX_CHUNK,
  mapHeader,
  SLOT,
  SUPERBLOCK_OFFSET,
  superblock,
  superblockChecksum,
  TYPES,
  XATTR_HEADER,
  XATTR_PREFIXES,
} from './erofs.ts'
import type { Of, ReadAt } from './struct.ts'

export interface Erofs {
  uuid: string
  label: string
  sizeBytes: number
  /** Paths without a leading slash, the root as `''`, parents before children. Hard links are one object. */
  inodes: ReadonlyMap<string, ErofsInode>
  /** The bytes of a file, in pieces of at most 12 MiB. A hole of a chunked file is given as zeros. */
  contents(file: ErofsInode): Generator<Uint8Array>
}

export interface ErofsInode {
  readonly type: ErofsType
  readonly nid: number
  readonly mode: number
  readonly uid: number
  readonly gid: number
  readonly mtime: number
  readonly mtimeNsec: number
  readonly links: number
  /** Bytes of a file, a directory's entries or a symlink's target. */
  readonly sizeBytes: number
  readonly xattrs: ReadonlyMap<string, Uint8Array>
  /** Of a symlink. */
  readonly target?: string
  /** Of a device. */
  readonly major?: number
  readonly minor?: number
  /** How the bytes are kept; for `contents()`. */
  readonly layout: number
  readonly where: number
  /** Offset in the image of what follows inode and xattrs. */
  readonly besideAt: number
}

/** Reads all metadata of an image of `sizeBytes` bytes. */
export function decodeErofs(read: ReadAt, sizeBytes: number): Erofs {
  const image = openImage(read, sizeBytes)
  const inodes = new Map<string, ErofsInode>()
  const byNid = new Map<number, ErofsInode>()
  const root = decodeInode(image, image.sb.rootNid, '')
  if (root.type !== 'directory') throw wrong('root inode', 'type', root.type, 'directory')
  inodes.set('', root)
  const queue: { path: string; inode: ErofsInode }[] = [{ path: '', inode: root }]
  const entered = new Set([root.nid])
  for (let directory = queue.pop(); directory !== undefined; directory = queue.pop()) {
    for (const { name, nid, type } of decodeDirectory(image, directory.inode, directory.path)) {
      const path = directory.path === '' ? name : `${directory.path}/${name}`
      if (path.length > MAX_PATH) throw wrong(`/${path.slice(0, 60)}…`, 'length of path', path.length, `at most ${MAX_PATH}`)
      const inode = byNid.get(nid) ?? decodeInode(image, nid, path)
      byNid.set(nid, inode)
      if (TYPES[inode.type].entry !== type) throw wrong(`/${path}`, 'type in its directory', type, TYPES[inode.type].entry)
      inodes.set(path, inode)
      if (inode.type !== 'directory') continue
      if (entered.has(nid)) throw wrong(`/${path}`, 'inode', nid, 'a directory that is entered once')
      entered.add(nid)
      queue.push({ path, inode })
    }
  }
  return {
    uuid: guidFrom(image.sb.uuid),
    label: text(image.sb.label).replace(/\0.*$/s, ''),
    sizeBytes: image.sb.blocks * BLOCK,
    inodes,
    contents: (file) => contents(image, file),
  }
}

const MAX_PATH = 4095
/** Decoded bytes of one extent, as the kernel limits them. */
const MAX_EXTENT = 12 << 20
const PIECE = 1 << 20
const FIXED_BUDGET = 64 << 20
const KNOWN_INCOMPATIBLE = INCOMPATIBLE.zeroPadding | INCOMPATIBLE.compressionConfigs | INCOMPATIBLE.chunkedFile

interface Image {
  sb: Of<typeof superblock>
  /** Exactly these bytes, or a Fault that says what was being read. */
  read(offset: number, sizeBytes: number, what: string): Uint8Array
  /** Notes memory taken by names and xattrs; a Fault when it is more than an honest image needs. */
  spend(sizeBytes: number, what: string): void
  shared: Map<number, [string, Uint8Array]>
}

function wrong(where: string, field: string, got: unknown, expected: unknown): Fault {
  return new Fault('format', `Cannot read EROFS ${where}: ${field} is ${got}, expected ${expected}`)
}

const text = (bytes: Uint8Array): string => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('utf8')

function openImage(read: ReadAt, sizeBytes: number): Image {
  let left = FIXED_BUDGET + sizeBytes
  const exactly = (offset: number, length: number, what: string): Uint8Array => {
    if (offset < 0 || length < 0 || offset + length > sizeBytes)
      throw new Fault(
        'format',
        `Cannot read EROFS ${what}: bytes ${offset} to ${offset + length} are outside the image of ${sizeBytes}`,
      )
    const bytes = read(offset, length)
    if (bytes.length !== length) throw wrong(what, 'length read', bytes.length, length)
    return bytes
  }
  const first = exactly(0, BLOCK, 'superblock')
  const sb = superblock.decode(first, SUPERBLOCK_OFFSET)
  const computed = superblockChecksum(first)
  if (sb.compatible & COMPATIBLE.checksum && computed !== sb.checksum)
    throw wrong('superblock', 'checksum', sb.checksum, `${computed} as computed`)
  if (sb.blockBits !== 12) throw wrong('superblock', 'blockBits', sb.blockBits, 12)
  if (sb.directoryBits !== 0) throw wrong('superblock', 'directoryBits', sb.directoryBits, 0)
  if (sb.extraDevices !== 0) throw wrong('superblock', 'extraDevices', sb.extraDevices, 0)
  const unknown = sb.incompatible & ~KNOWN_INCOMPATIBLE
  if (unknown !== 0) throw wrong('superblock', 'unknown incompatible feature', `0x${unknown.toString(16)}`, 'none')
  if (sb.blocks * BLOCK > sizeBytes) throw wrong('superblock', 'blocks', sb.blocks, `at most ${Math.floor(sizeBytes / BLOCK)}`)
  return {
    sb,
    read: exactly,
    spend(bytes, what) {
      left -= bytes
      if (left < 0) throw new Fault('format', `Cannot read EROFS ${what}: names and attributes take more memory than the image`)
    },
    shared: new Map(),
  }
}

const DATA_LAYOUTS: readonly number[] = Object.values(LAYOUT)

function decodeInode(image: Image, nid: number, path: string): ErofsInode {
  const what = `inode ${nid} (/${path})`
  const at = image.sb.metaBlock * BLOCK + nid * SLOT
  const start = image.read(at, 2, what)
  const format = start[0]! | (start[1]! << 8)
  if (format > 0xf) throw wrong(what, 'format', format, 'at most 15')
  const layout = format >> 1
  if (!DATA_LAYOUTS.includes(layout)) throw wrong(what, 'layout', layout, 'at most 4')
  const fields = format & 1 ? extendedInode.decode(image.read(at, extendedInode.size, what)) : decodeCompact(image, at, what)
  const size = format & 1 ? extendedInode.size : compactInode.size
  const type = typeOf(fields.mode)
  if (type === undefined) throw wrong(what, 'mode', `0o${fields.mode.toString(8)}`, 'a known file type')
  const xattrBytes = fields.xattrCount === 0 ? 0 : XATTR_HEADER + (fields.xattrCount - 1) * 4
  const { mode, where, uid, gid, mtime, mtimeNsec, links, sizeBytes } = fields
  const inode: ErofsInode = {
    type,
    nid,
    mode: mode & 0o7777,
    uid,
    gid,
    mtime,
    mtimeNsec,
    links,
    sizeBytes,
    xattrs: xattrBytes === 0 ? NO_XATTRS : decodeXattrs(image, at + size, xattrBytes, what),
    layout,
    where,
    besideAt: at + size + xattrBytes,
  }
  if (type === 'symlink') return { ...inode, target: targetOf(image, inode, what) }
  if (type !== 'character' && type !== 'block') return inode
  return { ...inode, major: (where >>> 8) & 0xfff, minor: (where & 0xff) | ((where >>> 12) & 0xfff00) }
}

const NO_XATTRS: ReadonlyMap<string, Uint8Array> = new Map()

function decodeCompact(image: Image, at: number, what: string) {
  const fields = compactInode.decode(image.read(at, compactInode.size, what))
  return { ...fields, mtime: image.sb.epoch + fields.mtime, mtimeNsec: image.sb.epochNsec }
}

function typeOf(mode: number): ErofsType | undefined {
  for (const type of Object.keys(TYPES) as ErofsType[]) if (TYPES[type].mode === (mode & 0o170000)) return type
  return undefined
}

function targetOf(image: Image, inode: ErofsInode, what: string): string {
  if (inode.sizeBytes < 1 || inode.sizeBytes > MAX_PATH)
    throw wrong(what, 'length of target', inode.sizeBytes, `1 to ${MAX_PATH}`)
  const target = text(whole(image, inode))
  if (target.includes('\0')) throw wrong(what, 'target', 'a string with NUL', 'none')
  return target
}

function whole(image: Image, inode: ErofsInode): Uint8Array {
  const pieces = [...contents(image, inode)]
  return pieces.length === 1 ? pieces[0]! : Buffer.concat(pieces)
}

// ——— Directories ———

function* decodeDirectory(image: Image, inode: ErofsInode, path: string): Generator<{ name: string; nid: number; type: number }> {
  const what = `directory /${path}`
  image.spend(inode.sizeBytes, what)
  const data = whole(image, inode)
  const seen = new Set<string>()
  for (let at = 0; at < data.length; at += BLOCK) {
    for (const entry of decodeDirectoryBlock(data.subarray(at, at + BLOCK), what)) {
      if (seen.has(entry.name)) throw wrong(what, 'name', JSON.stringify(entry.name), 'one entry of that name')
      seen.add(entry.name)
      if (entry.name !== '.' && entry.name !== '..') yield entry
    }
  }
}

function* decodeDirectoryBlock(block: Uint8Array, what: string): Generator<{ name: string; nid: number; type: number }> {
  const view = new DataView(block.buffer, block.byteOffset, block.length)
  const first = block.length < DIRENT ? 0 : view.getUint16(8, true)
  if (first === 0 || first % DIRENT !== 0 || first >= block.length)
    throw wrong(what, 'offset of the first name', first, `a multiple of ${DIRENT} inside its block`)
  for (let at = 0; at < first; at += DIRENT) {
    const start = view.getUint16(at + 8, true)
    let end = at + DIRENT < first ? view.getUint16(at + DIRENT + 8, true) : block.length
    if (start < first || end < start || end > block.length)
      throw wrong(what, 'extent of a name', `${start} to ${end}`, 'inside its block')
    if (at + DIRENT === first) {
      const nul = block.indexOf(0, start)
      if (nul >= 0) end = nul
    }
    const name = text(block.subarray(start, end))
    if (end - start < 1 || end - start > 255 || /[/\0]/.test(name))
      throw wrong(what, 'name', JSON.stringify(name), '1 to 255 bytes, no "/"')
    const nid = view.getBigUint64(at, true)
    if (nid > Number.MAX_SAFE_INTEGER) throw wrong(what, 'inode number', nid, 'below 2^53')
    yield { name, nid: Number(nid), type: block[at + 10]! }
  }
}

// ——— Extended attributes ———

function decodeXattrs(image: Image, at: number, sizeBytes: number, what: string): ReadonlyMap<string, Uint8Array> {
  image.spend(sizeBytes, what)
  const area = image.read(at, sizeBytes, `xattrs of ${what}`)
  const view = new DataView(area.buffer, area.byteOffset, area.length)
  const found: [string, Uint8Array][] = []
  const sharedCount = area[4]!
  let next = XATTR_HEADER + 4 * sharedCount
  if (next > sizeBytes)
    throw wrong(`xattrs of ${what}`, 'number shared', sharedCount, `at most ${(sizeBytes - XATTR_HEADER) / 4}`)
  for (let n = 0; n < sharedCount; n++) found.push(sharedXattr(image, view.getUint32(XATTR_HEADER + 4 * n, true), what))
  while (next < sizeBytes) {
    const length = xattrLength(area.subarray(next), what)
    if (next + length > sizeBytes) throw wrong(`xattrs of ${what}`, 'end of an entry', next + length, `at most ${sizeBytes}`)
    found.push(decodeXattr(area.subarray(next, next + length), what))
    next += alignUp(length, 4)
  }
  const xattrs = new Map(found.sort(([a], [b]) => (a < b ? -1 : 1)))
  if (xattrs.size !== found.length) throw wrong(`xattrs of ${what}`, 'number of names', xattrs.size, found.length)
  return xattrs
}

function sharedXattr(image: Image, id: number, what: string): [string, Uint8Array] {
  const known = image.shared.get(id)
  if (known) return known
  const at = image.sb.xattrBlock * BLOCK + id * 4
  const length = xattrLength(image.read(at, 4, `shared xattr of ${what}`), what)
  image.spend(length, what)
  const xattr = decodeXattr(image.read(at, length, `shared xattr of ${what}`), what)
  image.shared.set(id, xattr)
  return xattr
}

/** Bytes of the entry that begins here, before padding. */
function xattrLength(entry: Uint8Array, what: string): number {
  if (entry.length < 4) throw wrong(`xattrs of ${what}`, 'bytes left for an entry', entry.length, 'at least 4')
  return 4 + entry[0]! + (entry[2]! | (entry[3]! << 8))
}

function decodeXattr(entry: Uint8Array, what: string): [string, Uint8Array] {
  const known = XATTR_PREFIXES.find((p) => p.index === entry[1])
  if (!known || (known.exact === true) !== (entry[0] === 0))
    throw wrong(`xattrs of ${what}`, 'name index', entry[1], 'a known prefix')
  const name = known.prefix + text(entry.subarray(4, 4 + entry[0]!))
  if (name.includes('\0')) throw wrong(`xattrs of ${what}`, 'name', JSON.stringify(name), 'no NUL')
  return [name, entry.slice(4 + entry[0]!)]
}

// ——— Contents ———

function* contents(image: Image, inode: ErofsInode): Generator<Uint8Array> {
  const what = `data of inode ${inode.nid}`
  const { sizeBytes, layout } = inode
  if (sizeBytes === 0) return
  if (layout === LAYOUT.compressedFull || layout === LAYOUT.compressedCompact) return yield* compressed(image, inode, what)
  if (layout === LAYOUT.chunked) return yield* chunked(image, inode, what)
  const tail = layout === LAYOUT.inline ? sizeBytes - (Math.ceil(sizeBytes / BLOCK) - 1) * BLOCK : 0
  const start = inode.where * BLOCK
  const outside = sizeBytes - tail
  if (start + outside > image.sb.blocks * BLOCK && outside > 0)
    throw wrong(what, 'end', start + outside, `at most ${image.sb.blocks * BLOCK}`)
  yield* pieces(image, start, outside, what)
  if (tail === 0) return
  if ((inode.besideAt % BLOCK) + tail > BLOCK)
    throw wrong(what, 'inline tail', `${tail} bytes at ${inode.besideAt}`, 'within one block')
  yield image.read(inode.besideAt, tail, what)
}

function* pieces(image: Image, start: number, sizeBytes: number, what: string): Generator<Uint8Array> {
  for (let at = 0; at < sizeBytes; at += PIECE) yield image.read(start + at, Math.min(PIECE, sizeBytes - at), what)
}

/** Blocks by table: one address for each 2^bits bytes. */
function* chunked(image: Image, inode: ErofsInode, what: string): Generator<Uint8Array> {
  const format = inode.where
  if ((format & ~0x3f) !== 0) throw wrong(what, 'chunk format', `0x${format.toString(16)}`, 'at most 0x3f')
  const chunkBytes = BLOCK * 2 ** (format & 0x1f)
  const entryBytes = format & 0x20 ? 8 : 4
  const table = alignUp(inode.besideAt, entryBytes)
  for (let chunk = 0; chunk * chunkBytes < inode.sizeBytes; chunk++) {
    const entry = image.read(table + chunk * entryBytes, entryBytes, what)
    const view = new DataView(entry.buffer, entry.byteOffset, entryBytes)
    if (entryBytes === 8 && view.getUint32(0, true) !== 0) throw wrong(what, 'device of a chunk', view.getUint32(0, true), 0)
    const block = view.getUint32(entryBytes - 4, true)
    const length = Math.min(chunkBytes, inode.sizeBytes - chunk * chunkBytes)
    if (block !== 0xffff_ffff) yield* pieces(image, block * BLOCK, length, what)
    else for (let at = 0; at < length; at += PIECE) yield new Uint8Array(Math.min(PIECE, length - at))
  }
}

/** What the index says of one block of a file. */
interface Cluster {
  type: number
  /** Where in this block an extent begins. */
  offset: number
  /** First physical block of the extent. */
  block: number
  /** In the block after a head: physical blocks of the extent; else 0. */
  count: number
}

type Index = (cluster: number) => Cluster

function* compressed(image: Image, inode: ErofsInode, what: string): Generator<Uint8Array> {
  const headerAt = alignUp(inode.besideAt, 8)
  const header = mapHeader.decode(image.read(headerAt, mapHeader.size, what))
  const unknown = header.advise & ~(ADVISE.compact2B | ADVISE.bigCluster1 | ADVISE.bigCluster2)
  if (unknown !== 0 || header.clusterBits !== 0)
    throw wrong(
      what,
      'compression',
      `advise 0x${header.advise.toString(16)}, cluster bits ${header.clusterBits}`,
      'neither inline tails nor fragments',
    )
  const total = Math.ceil(inode.sizeBytes / BLOCK)
  const index =
    inode.layout === LAYOUT.compressedFull
      ? fullIndex(image, headerAt + 2 * mapHeader.size, total, what)
      : compactIndex(image, headerAt + mapHeader.size, total, header.advise, what)

  let head: (Cluster & { at: number; count: number }) | undefined
  for (let n = 0; n <= total; n++) {
    const cluster = n < total ? index(n) : undefined
    if (cluster?.type === LCLUSTER.nonhead) {
      if (!head) throw wrong(what, 'first cluster', 'not the head of an extent', 'a head')
      if (cluster.count > 0) head.count = cluster.count
      continue
    }
    const at = cluster ? n * BLOCK + cluster.offset : inode.sizeBytes
    if (head && head.at < inode.sizeBytes)
      yield extent(image, head, Math.min(at, inode.sizeBytes) - head.at, header.algorithms, what)
    else if (!head && at !== 0) throw wrong(what, 'start of the first extent', at, 0)
    if (cluster) head = { ...cluster, at, count: 1 }
  }
}

/** One extent: `count` physical blocks, decoded to `length` bytes. */
function extent(image: Image, head: Cluster & { count: number }, length: number, algorithms: number, what: string): Uint8Array {
  const sizeBytes = head.count * BLOCK
  if (length <= 0 || length > MAX_EXTENT) throw wrong(what, 'length of an extent', length, `1 to ${MAX_EXTENT}`)
  if (sizeBytes > MAX_CHUNK) throw wrong(what, 'compressed length', sizeBytes, `at most ${MAX_CHUNK}`)
  const stored = image.read(head.block * BLOCK, sizeBytes, what)
  if (head.type === LCLUSTER.plain) {
    if (length > sizeBytes) throw wrong(what, 'length of an uncompressed extent', length, `at most ${sizeBytes}`)
    return stored.subarray(0, length)
  }
  const algorithm = head.type === LCLUSTER.head1 ? algorithms & 0xf : algorithms >> 4
  let start = 0
  while (start < BLOCK && stored[start] === 0) start++
  const decoded = decompress(algorithm, stored.subarray(start), length, what)
  if (decoded.length !== length) throw wrong(what, 'decompressed length', decoded.length, length)
  return decoded
}

function decompress(algorithm: number, stored: Uint8Array, length: number, what: string): Uint8Array {
  if (algorithm !== ALGORITHM.zstd && algorithm !== ALGORITHM.deflate) {
    const name = Object.entries(ALGORITHM).find(([, id]) => id === algorithm)?.[0] ?? algorithm
    throw wrong(what, 'compression algorithm', name, 'zstd or deflate')
  }
  try {
    if (algorithm === ALGORITHM.deflate) return inflateRawSync(stored, { maxOutputLength: length })
    return zstdDecompressSync(stored, { maxOutputLength: length, params: { [constants.ZSTD_d_windowLogMax]: 20 } })
  } catch (cause) {
    throw new Fault('format', `Cannot read EROFS ${what}: ${(cause as Error).message}`, { cause })
  }
}

/** One index of 8 bytes for each block. */
function fullIndex(image: Image, at: number, total: number, what: string): Index {
  const read = windowed(image, at, total * 8, what)
  return (n) => {
    const view = read(n * 8, 8)
    const type = view.getUint16(0, true)
    if (type > LCLUSTER.head2) throw wrong(what, 'index type', type, 'at most 3')
    if (type === LCLUSTER.nonhead) {
      const delta = view.getUint16(4, true)
      return { type, offset: 0, block: 0, count: delta & BLOCK_COUNT ? delta & ~BLOCK_COUNT : 0 }
    }
    return { type, offset: clusterOffset(view.getUint16(2, true), what), block: view.getUint32(4, true), count: 0 }
  }
}

function clusterOffset(offset: number, what: string): number {
  if (offset >= BLOCK) throw wrong(what, 'offset in a cluster', offset, `below ${BLOCK}`)
  return offset
}

/**
 * Packs of 2 indexes in 8 bytes, or 16 in 32 bytes, each ending with a block address from which those of its
 * heads are counted. (Linux `fs/erofs/zmap.c`, `z_erofs_load_compact_lcluster`.)
 */
function compactIndex(image: Image, at: number, total: number, advise: number, what: string): Index {
  const big = (advise & ADVISE.bigCluster1) !== 0
  const initial = ((SLOT - (at % SLOT)) / 4) & 7
  const dense = advise & ADVISE.compact2B && initial < total ? Math.floor((total - initial) / 16) * 16 : 0
  const rest = total - initial - dense
  const read = windowed(image, at, (Math.min(initial, total) + Math.max(0, rest)) * 4 + 4 + dense * 2, what)
  return (n) => {
    const isDense = n >= initial && n < initial + dense
    const perPack = isDense ? 16 : 2
    const area = n < initial ? 0 : isDense ? initial : initial + dense
    const areaAt = area === 0 ? 0 : isDense ? initial * 4 : initial * 4 + dense * 2
    const slot = (n - area) % perPack
    const packBytes = isDense ? 32 : 8
    const view = read(areaAt + Math.floor((n - area) / perPack) * packBytes, packBytes)
    const bits = (packBytes * 8 - 32) / perPack
    const entry = (i: number) => {
      const value = bitsAt(view, i * bits)
      return { type: (value >>> 12) & 3, low: value & 0xfff }
    }
    const { type, low } = entry(slot)
    if (type === LCLUSTER.nonhead) return { type, offset: 0, block: 0, count: low & BLOCK_COUNT ? low & ~BLOCK_COUNT : 0 }
    const before = big ? blocksBefore(entry, slot, what) : headsBefore(entry, slot)
    return { type, offset: low, block: view.getUint32(packBytes - 4, true) + before, count: 0 }
  }
}

type PackEntry = (i: number) => { type: number; low: number }

/** Sixteen bits from any bit on; a pack's fields never reach into its last byte. */
const bitsAt = (view: DataView, bit: number): number => (view.getUint32(bit >> 3, true) >>> (bit & 7)) & 0xffff

function headsBefore(entry: PackEntry, slot: number): number {
  let blocks = 1
  for (let i = slot; i > 0; ) {
    const { type, low } = entry(--i)
    if (type === LCLUSTER.nonhead) i -= low
    if (i >= 0) blocks++
  }
  return blocks
}

function blocksBefore(entry: PackEntry, slot: number, what: string): number {
  let blocks = 0
  for (let i = slot; i > 0; ) {
    const { type, low } = entry(--i)
    if (type !== LCLUSTER.nonhead) blocks++
    else if (low & BLOCK_COUNT) {
      i--
      blocks += low & ~BLOCK_COUNT
    } else {
      if (low <= 1) throw wrong(what, 'distance to the head of an extent', low, 'at least 2')
      i -= low - 2
    }
  }
  return blocks
}

/** Small reads from a long table by way of larger ones. */
function windowed(image: Image, start: number, sizeBytes: number, what: string): (at: number, length: number) => DataView {
  let from = 0
  let held: DataView = new DataView(new ArrayBuffer(0))
  return (at, length) => {
    if (at < from || at + length > from + held.byteLength) {
      const bytes = image.read(start + at, Math.max(length, Math.min(BLOCK, sizeBytes - at)), what)
      held = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
      from = at
    }
    return new DataView(held.buffer, held.byteOffset + at - from, length)
  }
}
