/**
 * EROFS, the read-only file system of the image: its tables, and the metadata of one we write.
 *
 * Spec:   Linux `Documentation/filesystems/erofs.rst`, `fs/erofs/erofs_fs.h`, `fs/erofs/zmap.c` (6.12)
 * Oracle: `fsck.erofs --extract`, `dump.erofs`, `mount -t erofs`
 * Limits: writes 4096-byte blocks, 64-byte inodes, flat files with inline tails, and zstd in chunks of equal
 *         input with one 8-byte index per block. Whole-second times. No fragments, no partial deduplication,
 *         no long xattr prefixes. A kernel needs 6.10 for zstd, 5.4 without. Reading is in `erofs-decode.ts`.
 *
 * On disk, as we write it: superblock · file data · inodes, with xattrs, tails and indexes beside them ·
 * shared xattrs · blocks of large directories. Data comes first, so that it is written while it is compressed,
 * before anybody knows how many blocks it needs.
 */
import { Fault } from '../base/fault.ts'
import { guidBytes } from '../base/guid.ts'
import { alignUp } from '../base/size.ts'
import { bytes, constant, type Field, reserved, struct, u8, u16le, u32le, u64le } from './struct.ts'

export const BLOCK = 4096
export const SUPERBLOCK_OFFSET = 1024
/** Unit in which inodes are addressed. */
export const SLOT = 32
/** Most blocks of one compressed chunk, and the largest window of its frame. */
export const MAX_CHUNK = 1 << 20

const s64le: Field<number> = {
  size: 8,
  read(v, at) {
    const n = v.getBigInt64(at, true)
    if (BigInt.asIntN(54, n) !== n) throw new Error(`value ${n} is outside ±2^53`)
    return Number(n)
  },
  write: (v, at, n) => v.setBigInt64(at, BigInt(n), true),
}

// biome-ignore format: table
export const superblock = struct('EROFS superblock', {
  magic:             constant(Uint8Array.of(0xe2, 0xe1, 0xf5, 0xe0)),
  checksum:          u32le, // CRC-32C of the block from here on, this field as zero
  compatible:        u32le,
  blockBits:         u8,
  extraSlots:        u8,    // of 16 bytes each, after this struct
  rootNid:           u16le,
  inodes:            u64le,
  epoch:             u64le, // what times of compact inodes are relative to
  epochNsec:         u32le,
  blocks:            u32le,
  metaBlock:         u32le, // where inode number 0 would be
  xattrBlock:        u32le, // where shared xattr number 0 would be
  uuid:              bytes(16),
  label:             bytes(16),
  incompatible:      u32le,
  algorithms:        u16le, // a bit for each; 1 << 3 is zstd
  extraDevices:      u16le,
  deviceSlot:        u16le,
  directoryBits:     u8,
  xattrPrefixes:     u8,
  xattrPrefixStart:  u32le,
  packedNid:         u64le,
  xattrFilter:       u8,
  _reserved:         reserved(3),
  buildTime:         u32le,
  _reserved2:        reserved(16),
})

// biome-ignore format: table
export const extendedInode = struct('EROFS inode', {
  format:      u16le, // bit 0: 64 bytes long; bits 1–3: layout
  xattrCount:  u16le, // (bytes of xattrs - 12) / 4 + 1, or 0
  mode:        u16le,
  _high:       reserved(2),
  sizeBytes:   u64le,
  where:       u32le, // start block, number of compressed blocks, or device number
  serial:      u32le,
  uid:         u32le,
  gid:         u32le,
  mtime:       s64le,
  mtimeNsec:   u32le,
  links:       u32le,
  _reserved:   reserved(16),
})

// biome-ignore format: table
export const compactInode = struct('EROFS compact inode', {
  format:      u16le,
  xattrCount:  u16le,
  mode:        u16le,
  links:       u16le,
  sizeBytes:   u32le,
  mtime:       u32le, // after the superblock's epoch
  where:       u32le,
  serial:      u32le,
  uid:         u16le,
  gid:         u16le,
  _reserved:   reserved(4),
})

// biome-ignore format: table
export const mapHeader = struct('EROFS compression header', {
  fragment:    u32le,
  advise:      u16le,
  algorithms:  u8,    // low half for HEAD1, high half for HEAD2
  clusterBits: u8,
})

export const LAYOUT = { plain: 0, compressedFull: 1, inline: 2, compressedCompact: 3, chunked: 4 } as const
export const LCLUSTER = { plain: 0, head1: 1, nonhead: 2, head2: 3 } as const
/** In the first index after a head: the rest is the number of compressed blocks. */
export const BLOCK_COUNT = 0x800
export const ADVISE = { compact2B: 1, bigCluster1: 2, bigCluster2: 4, inlineTail: 8, interlaced: 16, fragment: 32 } as const
export const COMPATIBLE = { checksum: 1, mtime: 2 } as const
export const INCOMPATIBLE = { zeroPadding: 1, compressionConfigs: 2, chunkedFile: 4 } as const
export const ALGORITHM = { lz4: 0, lzma: 1, deflate: 2, zstd: 3 } as const
export const XATTR_HEADER = 12
export const DIRENT = 12

/** Names in bytes are shortened by what their index stands for. An exact name leaves nothing. */
// biome-ignore format: table
export const XATTR_PREFIXES: readonly { index: number; prefix: string; exact?: true }[] = [
  { index: 1, prefix: 'user.' },
  { index: 2, prefix: 'system.posix_acl_access', exact: true },
  { index: 3, prefix: 'system.posix_acl_default', exact: true },
  { index: 4, prefix: 'trusted.' },
  { index: 6, prefix: 'security.' },
]

/** File type bits of `mode`, and the type byte of a directory entry. */
// biome-ignore format: table
export const TYPES = {
  file:      { mode: 0o100000, entry: 1 },
  directory: { mode: 0o040000, entry: 2 },
  character: { mode: 0o020000, entry: 3 },
  block:     { mode: 0o060000, entry: 4 },
  fifo:      { mode: 0o010000, entry: 5 },
  socket:    { mode: 0o140000, entry: 6 },
  symlink:   { mode: 0o120000, entry: 7 },
} as const
export type ErofsType = keyof typeof TYPES

/** One inode to be written. The root comes first; directories name the others by their place in the list. */
export interface ErofsNode {
  readonly mode: number
  readonly uid: number
  readonly gid: number
  readonly mtime: number
  readonly xattrs?: ReadonlyMap<string, Uint8Array> | undefined
  readonly kind:
    | { type: 'file'; sizeBytes: number; data: ErofsData }
    | { type: 'directory'; parent: number; entries: { name: string; node: number }[] }
    | { type: 'symlink'; target: string }
    | { type: 'character' | 'block'; major: number; minor: number }
    | { type: 'fifo' | 'socket' }
}

/** Where a file's bytes are. `inlineTail`: the last, partial block lies beside the inode instead. */
export type ErofsData =
  | { layout: 'flat'; startBlock: number; inlineTail: boolean }
  /** One chunk after the other. A chunk that takes as many blocks as its input is stored as it is. */
  | { layout: 'chunks'; startBlock: number; chunkBytes: number; chunkBlocks: Uint16Array }

/** What is known before any data is written. */
export interface ErofsPlan {
  readonly nodes: readonly ErofsNode[]
  readonly links: Uint32Array
  /** Bytes of xattrs beside each inode. */
  readonly xattrBytes: Uint32Array
  readonly shared: SharedXattrs
}

export interface ErofsLayout {
  readonly plan: ErofsPlan
  readonly metaBlock: number
  /** Byte offset of each inode within the metadata. */
  readonly offsets: Float64Array
  /** Bytes of each inode with what lies beside it. */
  readonly sizes: Float64Array
  /** Nodes in order of offset. */
  readonly order: Uint32Array
  readonly xattrBlock: number
  /** First block of each directory's or symlink's own data. */
  readonly dataBlocks: Float64Array
  readonly endBlock: number
}

/** Checks every node and settles which xattrs are shared. Nodes' `data` may still change afterwards. */
export function planErofs(nodes: readonly ErofsNode[]): ErofsPlan {
  if (nodes[0]?.kind.type !== 'directory')
    throw new Fault('format', 'Cannot make EROFS: the first node must be the root directory')
  const shared = shareXattrs(nodes)
  const links = new Uint32Array(nodes.length)
  const xattrBytes = new Uint32Array(nodes.length)
  links[0] = 1
  nodes.forEach((node, i) => {
    checkNode(node)
    xattrBytes[i] = xattrSize(node.xattrs, shared)
    if (node.kind.type !== 'directory') return
    links[i]! += 1
    for (const entry of node.kind.entries) {
      links[entry.node]! += 1
      if (nodes[entry.node]!.kind.type === 'directory') links[i]! += 1
    }
  })
  return { nodes, links, xattrBytes, shared }
}

/** Bytes of a file's last block that can lie beside its inode; 0 when there are none or they do not fit. */
export function inlineTailBytes(plan: ErofsPlan, node: number, sizeBytes: number): number {
  const tail = sizeBytes % BLOCK
  return extendedInode.size + plan.xattrBytes[node]! + tail <= BLOCK ? tail : 0
}

/** Gives every inode its place, once the data of all files is written and ends before `metaBlock`. */
export function layOutErofs(plan: ErofsPlan, metaBlock: number): ErofsLayout {
  const count = plan.nodes.length
  const sizes = new Float64Array(count)
  const blocksOfOwn = new Float64Array(count)
  for (let i = 0; i < count; i++) {
    const own = ownDataBytes(plan.nodes[i]!)
    const tail = own === 0 ? 0 : inlineTailBytes(plan, i, own)
    sizes[i] = own === 0 ? fixedBytes(plan, i) : extendedInode.size + plan.xattrBytes[i]! + tail
    blocksOfOwn[i] = Math.ceil((own - tail) / BLOCK)
  }
  const { offsets, blocks } = pack(sizes)
  const order = Uint32Array.from({ length: count }, (_, i) => i).sort((a, b) => offsets[a]! - offsets[b]!)

  const xattrBlock = metaBlock + blocks
  let endBlock = xattrBlock + Math.ceil(plan.shared.sizeBytes / BLOCK)
  const dataBlocks = new Float64Array(count)
  for (let i = 0; i < count; i++) {
    dataBlocks[i] = endBlock
    endBlock += blocksOfOwn[i]!
  }
  if (endBlock > 0xffff_ffff) throw new Fault('format', `Cannot make EROFS of ${endBlock} blocks: at most ${0xffff_ffff} fit`)
  return { plan, metaBlock, offsets, sizes, order, xattrBlock, dataBlocks, endBlock }
}

/** Writes an inode and what lies beside it into zeroed bytes. `tail` is a file's last block, where it is inline. */
export function encodeInode(layout: ErofsLayout, i: number, into: Uint8Array, at: number, tail?: Uint8Array): void {
  const { plan } = layout
  const node = plan.nodes[i]!
  const { kind } = node
  const xattrBytes = plan.xattrBytes[i]!
  const own = encodeOwnData(layout, i)
  const sizeBytes = kind.type === 'file' ? kind.sizeBytes : own.length
  const inline = kind.type === 'file' ? (tail ?? NOTHING) : own.subarray(own.length - inlineTailBytes(plan, i, own.length))
  const chunks = kind.type === 'file' && kind.data.layout === 'chunks' ? kind.data : undefined
  const format = chunks ? LAYOUT.compressedFull : inline.length > 0 ? LAYOUT.inline : LAYOUT.plain
  const base = at + extendedInode.size + xattrBytes
  into.set(
    extendedInode.encode({
      format: 1 | (format << 1),
      xattrCount: xattrBytes === 0 ? 0 : (xattrBytes - XATTR_HEADER) / 4 + 1,
      mode: TYPES[kind.type].mode | node.mode,
      sizeBytes,
      where: whereOf(layout, i, sizeBytes - inline.length),
      serial: i + 1,
      uid: node.uid,
      gid: node.gid,
      mtime: node.mtime,
      mtimeNsec: 0,
      links: plan.links[i]!,
    }),
    at,
  )
  if (xattrBytes > 0) encodeXattrs(node.xattrs!, plan.shared, into, at + extendedInode.size)
  if (chunks) encodeIndex(chunks, sizeBytes, into, at + alignUp(base - at, 8))
  else into.set(inline, base)
}

/** The blocks after the inodes: shared xattrs, then whole blocks of directories and long symlinks, in order. */
export function* encodeRest(layout: ErofsLayout): Generator<Uint8Array> {
  const { plan } = layout
  if (plan.shared.sizeBytes > 0) yield encodeShared(plan.shared)
  for (let i = 0; i < plan.nodes.length; i++) {
    const own = ownDataBytes(plan.nodes[i]!)
    const outside = own - (own === 0 ? 0 : inlineTailBytes(plan, i, own))
    if (outside > 0) yield padded(encodeOwnData(layout, i).subarray(0, outside))
  }
}

/** Block 0 of the image. */
export function encodeSuperblock(
  layout: ErofsLayout,
  options: { uuid: string; label?: string; compressed: boolean },
): Uint8Array {
  const label = Buffer.from(options.label ?? '')
  if (label.length > 15 || label.includes(0))
    throw new Fault('format', `Cannot label EROFS "${options.label}": ${label.length} bytes, at most 15 without NUL fit`)
  const uuid = guidBytes(options.uuid)
  if (uuid.length !== 16) throw new Fault('format', `Cannot use "${options.uuid}" as EROFS UUID: expected 32 hexadecimal digits`)
  const { plan } = layout
  const block = new Uint8Array(BLOCK)
  const fields = {
    checksum: 0,
    compatible: COMPATIBLE.checksum | COMPATIBLE.mtime,
    blockBits: 12,
    extraSlots: 0,
    rootNid: nidOf(layout, 0),
    inodes: plan.nodes.length,
    epoch: Math.max(0, plan.nodes[0]!.mtime),
    epochNsec: 0,
    blocks: layout.endBlock,
    metaBlock: layout.metaBlock - 1,
    xattrBlock: layout.xattrBlock,
    uuid,
    label: Buffer.concat([label], 16),
    incompatible: options.compressed ? INCOMPATIBLE.zeroPadding | INCOMPATIBLE.compressionConfigs : 0,
    algorithms: options.compressed ? 1 << ALGORITHM.zstd : 0,
    extraDevices: 0,
    deviceSlot: 0,
    directoryBits: 0,
    xattrPrefixes: 0,
    xattrPrefixStart: 0,
    packedNid: 0,
    xattrFilter: 0,
    buildTime: 0,
  }
  block.set(superblock.encode(fields), SUPERBLOCK_OFFSET)
  if (options.compressed) block.set(ZSTD_CONFIG, SUPERBLOCK_OFFSET + superblock.size)
  block.set(superblock.encode({ ...fields, checksum: superblockChecksum(block) }), SUPERBLOCK_OFFSET)
  return block
}

/** CRC-32C without the final inversion, from the superblock to the end of its block, its own field as zero. */
export function superblockChecksum(block: Uint8Array): number {
  const covered = Uint8Array.from(block.subarray(SUPERBLOCK_OFFSET, BLOCK))
  const at = superblock.offset('checksum')
  covered.fill(0, at, at + 4)
  let crc = 0xffff_ffff
  for (const byte of covered) crc = CRC32C[(crc ^ byte) & 0xff]! ^ (crc >>> 8)
  return crc >>> 0
}

/** Length and payload: format 0, window of 1 MiB. */
const ZSTD_CONFIG = Uint8Array.of(6, 0, 0, 10, 0, 0, 0, 0)
const NOTHING = new Uint8Array(0)

const CRC32C = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let bit = 0; bit < 8; bit++) n = n & 1 ? (n >>> 1) ^ 0x82f63b78 : n >>> 1
  return n
})

/** Inode number. The superblock's `metaBlock` is one block before the first inode, so that none is number 0. */
const nidOf = (layout: ErofsLayout, i: number): number => (BLOCK + layout.offsets[i]!) / SLOT

function whereOf(layout: ErofsLayout, i: number, outsideBytes: number): number {
  const { kind } = layout.plan.nodes[i]!
  switch (kind.type) {
    case 'file':
      if (kind.data.layout === 'chunks') return kind.data.chunkBlocks.reduce((sum, n) => sum + n, 0)
      return outsideBytes > 0 ? kind.data.startBlock : kind.sizeBytes > 0 ? 0xffff_ffff : 0
    case 'directory':
    case 'symlink':
      return outsideBytes > 0 ? layout.dataBlocks[i]! : 0xffff_ffff
    case 'character':
    case 'block':
      return ((kind.minor & 0xff) | (kind.major << 8) | ((kind.minor & ~0xff) << 12)) >>> 0
    default:
      return 0
  }
}

/** Bytes of an inode with its xattrs and what a file keeps beside it. */
function fixedBytes(plan: ErofsPlan, i: number): number {
  const { kind } = plan.nodes[i]!
  const base = extendedInode.size + plan.xattrBytes[i]!
  if (kind.type !== 'file') return base
  if (kind.data.layout === 'chunks') return alignUp(base, 8) + 16 + 8 * Math.ceil(kind.sizeBytes / BLOCK)
  return base + (kind.data.inlineTail ? kind.sizeBytes % BLOCK : 0)
}

/**
 * Places items one after the other in blocks. One that fits a block never crosses into the next, and goes where
 * the least space is left over.
 */
function pack(sizes: Float64Array): { offsets: Float64Array; blocks: number } {
  const perBlock = BLOCK / SLOT
  const offsets = new Float64Array(sizes.length)
  /** Blocks by how many slots at their end are free. */
  const open: number[][] = Array.from({ length: perBlock }, () => [])
  let blocks = 0
  for (let i = 0; i < sizes.length; i++) {
    const slots = Math.ceil(sizes[i]! / SLOT)
    let free = slots
    while (free < perBlock && open[free]!.length === 0) free++
    if (free < perBlock) {
      const block = open[free]!.pop()!
      offsets[i] = block * BLOCK + (perBlock - free) * SLOT
      if (free > slots) open[free - slots]!.push(block)
    } else {
      offsets[i] = blocks * BLOCK
      blocks += Math.ceil(slots / perBlock)
      const left = (perBlock - (slots % perBlock)) % perBlock
      if (left > 0) open[left]!.push(blocks - 1)
    }
  }
  return { offsets, blocks }
}

/** One index of 8 bytes for each 4096 bytes of the file. */
function encodeIndex(data: ErofsData & { layout: 'chunks' }, sizeBytes: number, into: Uint8Array, at: number): void {
  const header = { fragment: 0, advise: ADVISE.bigCluster1, algorithms: ALGORITHM.zstd, clusterBits: 0 }
  into.set(mapHeader.encode(header), at)
  const view = new DataView(into.buffer, into.byteOffset + at + 2 * mapHeader.size)
  let block = data.startBlock
  let entry = 0
  data.chunkBlocks.forEach((blocks, chunk) => {
    const clusters = Math.ceil(Math.min(data.chunkBytes, sizeBytes - chunk * data.chunkBytes) / BLOCK)
    const plain = blocks === clusters
    for (let n = 0; n < clusters; n++, entry += 8) {
      if (plain || n === 0) {
        view.setUint16(entry, plain ? LCLUSTER.plain : LCLUSTER.head1, true)
        view.setUint32(entry + 4, block + n, true)
        continue
      }
      view.setUint16(entry, LCLUSTER.nonhead, true)
      view.setUint16(entry + 4, n === 1 ? BLOCK_COUNT | blocks : n, true)
      view.setUint16(entry + 6, clusters - n, true)
    }
    block += blocks
  })
}

// ——— Directories and symlinks ———

/** Bytes of a directory's or symlink's own data. */
function ownDataBytes({ kind }: ErofsNode): number {
  if (kind.type === 'symlink') return Buffer.byteLength(kind.target)
  if (kind.type !== 'directory') return 0
  const blocks = directoryBlocks(sortedNames(kind.entries, 0, 0))
  return (blocks.length - 1) * BLOCK + blocks.at(-1)!.used
}

function encodeOwnData(layout: ErofsLayout, i: number): Uint8Array {
  const { kind } = layout.plan.nodes[i]!
  if (kind.type === 'symlink') return Buffer.from(kind.target)
  if (kind.type !== 'directory') return NOTHING
  const names = sortedNames(kind.entries, i, kind.parent)
  const blocks = directoryBlocks(names)
  const out = Buffer.alloc((blocks.length - 1) * BLOCK + blocks.at(-1)!.used)
  blocks.forEach(({ first, end }, b) => {
    let at = b * BLOCK
    let nameAt = at + (end - first) * DIRENT
    for (let n = first; n < end; n++, at += DIRENT) {
      const { name, node } = names[n]!
      out.writeUInt32LE(nidOf(layout, node) >>> 0, at)
      out.writeUInt32LE(Math.floor(nidOf(layout, node) / 2 ** 32), at + 4)
      out.writeUInt16LE(nameAt - b * BLOCK, at + 8)
      out[at + 10] = TYPES[layout.plan.nodes[node]!.kind.type].entry
      nameAt += out.write(name, nameAt, 'latin1')
    }
  })
  return out
}

/** Names as one character per byte, in byte order, with `.` and `..` where they belong. */
function sortedNames(entries: readonly { name: string; node: number }[], self: number, parent: number) {
  const names = entries.map(({ name, node }) => ({ name: Buffer.from(name).toString('latin1'), node }))
  names.push({ name: '.', node: self }, { name: '..', node: parent })
  return names.sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0))
}

/** Which names share a block: as many as fit. */
function directoryBlocks(names: readonly { name: string }[]): { first: number; end: number; used: number }[] {
  const blocks = [{ first: 0, end: 0, used: 0 }]
  for (const { name } of names) {
    const last = blocks.at(-1)!
    const need = DIRENT + name.length
    if (last.used + need > BLOCK) blocks.push({ first: last.end, end: last.end + 1, used: need })
    else {
      last.end++
      last.used += need
    }
  }
  return blocks
}

// ——— Extended attributes ———

interface SharedXattrs {
  /** Number of each shared pair: its offset in the shared area, divided by 4. */
  readonly ids: ReadonlyMap<string, number>
  readonly entries: readonly { name: string; value: Uint8Array }[]
  readonly sizeBytes: number
}

/** A pair is shared when more than this many inodes have it, as mkfs.erofs does. */
const SHARING_TOLERANCE = 2

const pairKey = (name: string, value: Uint8Array): string => `${name}\0${Buffer.from(value).toString('latin1')}`

function shareXattrs(nodes: readonly ErofsNode[]): SharedXattrs {
  const uses = new Map<string, { name: string; value: Uint8Array; count: number }>()
  for (const node of nodes) {
    for (const [name, value] of node.xattrs ?? []) {
      const key = pairKey(name, value)
      const use = uses.get(key)
      if (use) use.count++
      else uses.set(key, { name, value, count: 1 })
    }
  }
  const ids = new Map<string, number>()
  const entries: { name: string; value: Uint8Array }[] = []
  let sizeBytes = 0
  for (const [key, { name, value, count }] of uses) {
    if (count <= SHARING_TOLERANCE) continue
    ids.set(key, sizeBytes / 4)
    entries.push({ name, value })
    sizeBytes += xattrEntryBytes(name, value)
  }
  return { ids, entries, sizeBytes }
}

/** Splits an inode's xattrs, in order of name, into numbers of shared ones and what lies beside the inode. */
function splitXattrs(xattrs: ReadonlyMap<string, Uint8Array>, shared: SharedXattrs) {
  const ids: number[] = []
  const inline: [string, Uint8Array][] = []
  for (const [name, value] of [...xattrs].sort(([a], [b]) => Buffer.compare(Buffer.from(a), Buffer.from(b)))) {
    const id = shared.ids.size === 0 ? undefined : shared.ids.get(pairKey(name, value))
    if (id !== undefined && ids.length < 255) ids.push(id)
    else inline.push([name, value])
  }
  return { ids, inline }
}

function xattrSize(xattrs: ReadonlyMap<string, Uint8Array> | undefined, shared: SharedXattrs): number {
  if (xattrs === undefined || xattrs.size === 0) return 0
  const { ids, inline } = splitXattrs(xattrs, shared)
  let size = XATTR_HEADER + 4 * ids.length
  for (const [name, value] of inline) size += xattrEntryBytes(name, value)
  const limit = 0xfffe * 4 + XATTR_HEADER
  if (size > limit)
    throw new Fault('format', `Cannot store extended attributes of ${size} bytes in EROFS: at most ${limit} fit an inode`)
  return size
}

function encodeXattrs(xattrs: ReadonlyMap<string, Uint8Array>, shared: SharedXattrs, into: Uint8Array, at: number): void {
  const { ids, inline } = splitXattrs(xattrs, shared)
  into[at + 4] = ids.length
  const view = new DataView(into.buffer, into.byteOffset)
  ids.forEach((id, n) => view.setUint32(at + XATTR_HEADER + 4 * n, id, true))
  let next = at + XATTR_HEADER + 4 * ids.length
  for (const [name, value] of inline) next += encodeXattr(name, value, into, next)
}

function encodeShared(shared: SharedXattrs): Uint8Array {
  const out = new Uint8Array(alignUp(shared.sizeBytes, BLOCK))
  let at = 0
  for (const { name, value } of shared.entries) at += encodeXattr(name, value, out, at)
  return out
}

function encodeXattr(name: string, value: Uint8Array, into: Uint8Array, at: number): number {
  const { index, suffix } = xattrName(name)
  into[at] = suffix.length
  into[at + 1] = index
  into[at + 2] = value.length & 0xff
  into[at + 3] = value.length >>> 8
  into.set(suffix, at + 4)
  into.set(value, at + 4 + suffix.length)
  return alignUp(4 + suffix.length + value.length, 4)
}

const xattrEntryBytes = (name: string, value: Uint8Array): number => alignUp(4 + xattrName(name).suffix.length + value.length, 4)

function xattrName(name: string): { index: number; suffix: Buffer } {
  for (const { index, prefix, exact } of XATTR_PREFIXES) {
    if (exact ? name === prefix : name.startsWith(prefix) && name.length > prefix.length)
      return { index, suffix: Buffer.from(name.slice(prefix.length)) }
  }
  const known = XATTR_PREFIXES.map((p) => (p.exact ? p.prefix : `${p.prefix}*`)).join(', ')
  throw new Fault('format', `Cannot store extended attribute "${name}" in EROFS: expected one of ${known}`)
}

// ——— Checks ———

/** Refuses what the format has no room for, naming the field. */
function checkNode(node: ErofsNode): void {
  const { kind } = node
  const range = (what: string, value: number, max: number, min = 0) => {
    if (!Number.isInteger(value) || value < min || value > max)
      throw new Fault('format', `Cannot store ${kind.type} in EROFS: ${what} is ${value}, expected ${min} to ${max}`)
  }
  range('mode', node.mode, 0o7777)
  range('uid', node.uid, 0xffff_ffff)
  range('gid', node.gid, 0xffff_ffff)
  range('mtime', node.mtime, 2 ** 52, -(2 ** 52))
  if (kind.type === 'file') range('size', kind.sizeBytes, 2 ** 44)
  if (kind.type === 'character' || kind.type === 'block') {
    range('major', kind.major, 0xfff)
    range('minor', kind.minor, 0xfffff)
  }
  if (kind.type === 'symlink') {
    range('length of its target', Buffer.byteLength(kind.target), 4095, 1)
    if (kind.target.includes('\0')) throw new Fault('format', `Cannot store symlink in EROFS: its target holds a NUL byte`)
  }
  if (kind.type === 'directory') for (const entry of kind.entries) checkName(entry.name)
  for (const [name, value] of node.xattrs ?? []) {
    range(`length of ${name}`, value.length, 0xffff)
    range(`length of the name ${name.slice(0, 40)}`, Buffer.byteLength(name), 255)
  }
}

function checkName(name: string): void {
  const length = Buffer.byteLength(name)
  if (length < 1 || length > 255)
    throw new Fault('format', `Cannot store name "${name.slice(0, 40)}" in EROFS: it has ${length} bytes, expected 1 to 255`)
  if (name === '.' || name === '..' || /[/\0]/.test(name))
    throw new Fault('format', `Cannot store name ${JSON.stringify(name)} in EROFS: "/", NUL, "." and ".." are not names`)
}

function padded(bytes: Uint8Array): Uint8Array {
  if (bytes.length % BLOCK === 0) return bytes
  const out = new Uint8Array(alignUp(bytes.length, BLOCK))
  out.set(bytes)
  return out
}
