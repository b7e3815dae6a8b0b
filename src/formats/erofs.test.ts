import assert from 'node:assert/strict'
import { test } from 'node:test'
import { zstdCompressSync } from 'node:zlib'
import { Fault } from '../base/fault.ts'
import {
  BLOCK,
  type ErofsNode,
  encodeInode,
  encodeRest,
  encodeSuperblock,
  extendedInode,
  layOutErofs,
  planErofs,
  SUPERBLOCK_OFFSET,
  superblock,
  superblockChecksum,
} from './erofs.ts'
import { decodeErofs } from './erofs-decode.ts'

const UUID = '11111111-2222-3333-4444-555566667777'
const common = { mode: 0o755, uid: 0, gid: 0, mtime: 1_700_000_000 }
type Kind = ErofsNode['kind']

const directory = (entries: [string, number][], parent = 0): ErofsNode => ({
  ...common,
  kind: { type: 'directory', parent, entries: entries.map(([name, node]) => ({ name, node })) },
})
const node = (kind: Kind, more: Partial<ErofsNode> = {}): ErofsNode => ({ ...common, ...more, kind })
const inlineFile = (sizeBytes: number): ErofsNode =>
  node({ type: 'file', sizeBytes, data: { layout: 'flat', startBlock: 0, inlineTail: sizeBytes > 0 } })

/** A whole image in memory: data blocks, then the metadata of `nodes`. Tails hold the letter t. */
function imageOf(nodes: readonly ErofsNode[], data: Uint8Array = new Uint8Array(0)): Uint8Array {
  const layout = layOutErofs(planErofs(nodes), 1 + data.length / BLOCK)
  const image = new Uint8Array(layout.endBlock * BLOCK)
  image.set(encodeSuperblock(layout, { uuid: UUID, label: 'usr', compressed: true }))
  image.set(data, BLOCK)
  for (const i of layout.order) {
    const { kind } = nodes[i]!
    const tail = kind.type === 'file' && kind.data.layout === 'flat' && kind.data.inlineTail ? kind.sizeBytes % BLOCK : 0
    const at = layout.metaBlock * BLOCK + layout.offsets[i]!
    encodeInode(layout, i, image, at, tail > 0 ? new Uint8Array(tail).fill(0x74) : undefined)
  }
  let at = layout.xattrBlock * BLOCK
  for (const block of encodeRest(layout)) {
    image.set(block, at)
    at += block.length
  }
  return image
}

const decode = (image: Uint8Array) => decodeErofs((at, n) => image.subarray(at, at + n), image.length)

/** The image with one superblock field changed, and a checksum that fits again. */
function withField(image: Uint8Array, field: Parameters<typeof superblock.offset>[0], bytes: number[]): Uint8Array {
  const changed = image.slice()
  changed.set(bytes, SUPERBLOCK_OFFSET + superblock.offset(field))
  new DataView(changed.buffer).setUint32(
    SUPERBLOCK_OFFSET + superblock.offset('checksum'),
    superblockChecksum(changed.subarray(0, BLOCK)),
    true,
  )
  return changed
}

const SMALL = imageOf([
  directory([
    ['dir', 1],
    ['file', 2],
    ['link', 3],
  ]),
  directory([['hard', 2]], 0),
  inlineFile(100),
  node({ type: 'symlink', target: 'file' }),
])

/** Byte offset of the n-th inode of SMALL, whose inodes all lie in its first metadata block. */
const inodeAt = (image: Uint8Array, path: string) => decode(image).inodes.get(path)!.nid * 32

test('decodeErofs() gives back every attribute that was encoded', () => {
  const xattrs = new Map([
    ['security.capability', Uint8Array.of(1, 0, 0, 2, 0xff)],
    ['user.empty', new Uint8Array(0)],
  ])
  const image = imageOf([
    directory([
      ['blk', 1],
      ['chr', 2],
      ['fifo', 3],
      ['sock', 4],
      ['ünï', 5],
      ['link', 6],
    ]),
    node({ type: 'block', major: 4095, minor: 0xfffff }),
    node({ type: 'character', major: 1, minor: 3 }, { mode: 0o666, uid: 0xffff_fffe, gid: 0xffff_ffff }),
    node({ type: 'fifo' }, { mtime: -5 }),
    node({ type: 'socket' }),
    node({ type: 'file', sizeBytes: 3, data: { layout: 'flat', startBlock: 0, inlineTail: true } }, { mode: 0o4755, xattrs }),
    node({ type: 'symlink', target: 'x'.repeat(4095) }),
  ])
  const erofs = decode(image)
  const get = (path: string) => erofs.inodes.get(path)!
  assert.deepEqual([erofs.uuid, erofs.label, erofs.sizeBytes], [UUID, 'usr', image.length])
  assert.deepEqual([get('blk').major, get('blk').minor], [4095, 0xfffff])
  assert.deepEqual([get('chr').mode, get('chr').uid, get('chr').gid], [0o666, 0xffff_fffe, 0xffff_ffff])
  assert.deepEqual([get('fifo').type, get('fifo').mtime, get('sock').type], ['fifo', -5, 'socket'])
  assert.deepEqual([get('ünï').mode, get('ünï').xattrs], [0o4755, xattrs])
  assert.equal(Buffer.concat([...erofs.contents(get('ünï'))]).toString(), 'ttt')
  assert.equal(get('link').target, 'x'.repeat(4095))
  assert.equal(get('').links, 2)
})

test('decodeErofs() finds hard links as one inode, with their number', () => {
  const { inodes } = decode(SMALL)
  assert.equal(inodes.get('file'), inodes.get('dir/hard'))
  assert.equal(inodes.get('file')!.links, 2)
  assert.equal(inodes.get('')!.links, 3)
})

test('encodeRest() shares an xattr that more than two inodes have', () => {
  const label = new Map([['security.selinux', Buffer.from('system_u:object_r:usr_t:s0')]])
  const files = Array.from({ length: 40 }, () => node({ type: 'fifo' }, { xattrs: label }))
  const shared = planErofs([directory(files.map((_, i) => [`f${i}`, i + 1])), ...files])
  assert.deepEqual([...new Set(shared.xattrBytes)], [0, 16])
  const { inodes } = decode(imageOf(shared.nodes))
  for (let i = 0; i < 40; i++)
    assert.deepEqual(inodes.get(`f${i}`)!.xattrs.get('security.selinux'), new Uint8Array(label.get('security.selinux')!))
})

test('a directory of thousands of names keeps them in byte order, "." and ".." among them', () => {
  const names = Array.from({ length: 5000 }, (_, i) => `${'!-.a~'[i % 5]}${i}`)
  const image = imageOf([directory(names.map((name, i) => [name, i + 1])), ...names.map(() => inlineFile(0))])
  assert.deepEqual([...decode(image).inodes.keys()].filter(Boolean), names.toSorted())
})

test('names of 255 bytes and deep paths come back', () => {
  const name = `${'ä'.repeat(127)}x`
  const deep = Array.from({ length: 15 }, (_, i) => directory(i < 14 ? [[name, i + 1]] : [], Math.max(0, i - 1)))
  assert.ok(decode(imageOf(deep)).inodes.has(Array(14).fill(name).join('/')))
})

test('encodeSuperblock() gives the same bytes for the same nodes', () => {
  assert.deepEqual(imageOf([directory([['a', 1]]), inlineFile(9)]), imageOf([directory([['a', 1]]), inlineFile(9)]))
})

// biome-ignore format: table
const REFUSED: [string, ErofsNode, RegExp][] = [
  ['a mode above 07777',       node({ type: 'fifo' }, { mode: 0o10000 }), /mode is 4096, expected 0 to 4095/],
  ['a negative uid',           node({ type: 'fifo' }, { uid: -1 }), /uid is -1/],
  ['a gid above 32 bits',      node({ type: 'fifo' }, { gid: 2 ** 32 }), /gid is 4294967296/],
  ['a time that is no integer', node({ type: 'fifo' }, { mtime: 1.5 }), /mtime is 1.5/],
  ['a size that is negative',  inlineFile(-1), /size is -1/],
  ['a major above 12 bits',    node({ type: 'block', major: 4096, minor: 0 }), /major is 4096/],
  ['a minor above 20 bits',    node({ type: 'character', major: 0, minor: 1 << 20 }), /minor is 1048576/],
  ['an empty symlink',         node({ type: 'symlink', target: '' }), /length of its target is 0/],
  ['a symlink of 4096 bytes',  node({ type: 'symlink', target: 'x'.repeat(4096) }), /length of its target is 4096/],
  ['a symlink with NUL',       node({ type: 'symlink', target: 'a\0b' }), /NUL/],
  ['an xattr of 64 KiB',       node({ type: 'fifo' }, { xattrs: new Map([['user.x', new Uint8Array(65536)]]) }), /length of user.x is 65536/],
  ['an xattr name of 256 bytes', node({ type: 'fifo' }, { xattrs: new Map([[`user.${'x'.repeat(251)}`, new Uint8Array(0)]]) }), /is 256/],
  ['an unknown xattr prefix',  node({ type: 'fifo' }, { xattrs: new Map([['btrfs.x', new Uint8Array(0)]]) }), /"btrfs.x".*expected one of user\.\*/],
  ['an empty xattr suffix',    node({ type: 'fifo' }, { xattrs: new Map([['user.', new Uint8Array(0)]]) }), /"user\."/],
  ['xattrs above 256 KiB',     node({ type: 'fifo' }, { xattrs: new Map(Array.from({ length: 5 }, (_, i) => [`user.${i}`, new Uint8Array(60000)])) }), /300\d\d\d bytes/],
]
for (const [what, bad, message] of REFUSED) {
  test(`planErofs() refuses ${what}`, () => {
    assert.throws(
      () => planErofs([directory([['x', 1]]), bad]),
      (e) => e instanceof Fault && message.test(e.message),
    )
  })
}
for (const name of ['', '.', '..', 'a/b', 'a\0', 'x'.repeat(256)]) {
  test(`planErofs() refuses the name ${JSON.stringify(name.slice(0, 10))} of ${name.length} bytes`, () => {
    assert.throws(() => planErofs([directory([[name, 1]]), inlineFile(0)]), /Cannot store name/)
  })
}
test('planErofs() refuses a root that is no directory', () => {
  assert.throws(() => planErofs([inlineFile(0)]), /root directory/)
})
test('encodeSuperblock() refuses a label of 16 bytes and a UUID that is none', () => {
  const layout = layOutErofs(planErofs([directory([])]), 1)
  assert.throws(() => encodeSuperblock(layout, { uuid: UUID, label: 'x'.repeat(16), compressed: false }), /at most 15/)
  assert.throws(() => encodeSuperblock(layout, { uuid: '1234', compressed: false }), /expected 32 hexadecimal digits/)
})

test('decodeErofs() leaves bytes alone that are held in memory', () => {
  const image = Buffer.from(SMALL)
  for (const _ of [1, 2]) decodeErofs((at, n) => image.subarray(at, at + n), image.length)
  assert.ok(image.equals(SMALL))
})

test('decodeErofs() refuses a superblock whose bytes changed', () => {
  const image = SMALL.slice()
  image[SUPERBLOCK_OFFSET + superblock.offset('inodes')]! ^= 1
  assert.throws(
    () => decode(image),
    (e) => e instanceof Fault && e.code === 'format' && /checksum/.test(e.message),
  )
})
// biome-ignore format: table
const BAD_FIELDS: [Parameters<typeof superblock.offset>[0], number[], RegExp][] = [
  ['magic',         [0], /superblock.magic at offset 1024/],
  ['blockBits',     [9], /blockBits is 9, expected 12/],
  ['directoryBits', [1], /directoryBits is 1/],
  ['extraDevices',  [1], /extraDevices is 1/],
  ['incompatible',  [0x20], /incompatible feature is 0x20/],
  ['blocks',        [0xff, 0xff], /blocks is 65535/],
  ['rootNid',       [0xff, 0xff], /outside the image/],
  ['metaBlock',     [0xff, 0xff, 0xff, 0xff], /outside the image/],
]
for (const [field, bytes, message] of BAD_FIELDS) {
  test(`decodeErofs() refuses a superblock with a bad ${String(field)}`, () => {
    assert.throws(
      () => decode(withField(SMALL, field, bytes)),
      (e) => e instanceof Fault && message.test(e.message),
    )
  })
}

// biome-ignore format: table
const BAD_INODES: [string, string, (view: DataView, at: number) => void, RegExp][] = [
  ['an unknown format bit',        'file', (v, at) => v.setUint16(at, 0x21, true), /format is 33/],
  ['an unknown layout',            'file', (v, at) => v.setUint16(at, 0xb, true), /layout is 5/],
  ['an unknown file type',         'file', (v, at) => v.setUint16(at + 4, 0o30000, true), /mode is 0o30000/],
  ['a type its directory denies',  'file', (v, at) => v.setUint16(at + 4, 0o010644, true), /type in its directory is 1, expected 5/],
  ['xattrs outside the image',     'file', (v, at) => v.setUint16(at + 2, 0xffff, true), /outside the image/],
  ['a symlink longer than a path', 'link', (v, at) => v.setUint32(at + 8, 0x7fff_ffff, true), /length of target/],
  ['a directory larger than memory', 'dir', (v, at) => v.setUint32(at + 12, 0xffff, true), /more memory than the image/],
  ['an empty directory block',     'dir', (v, at) => v.setUint32(at + 8, 3, true), /offset of the first name/],
]
for (const [what, path, change, message] of BAD_INODES) {
  test(`decodeErofs() refuses an inode with ${what}`, () => {
    const image = SMALL.slice()
    change(new DataView(image.buffer), inodeAt(SMALL, path))
    assert.throws(
      () => decode(image),
      (e) => e instanceof Fault && e.code === 'format' && message.test(e.message),
    )
  })
}

test('decodeErofs() refuses a directory that holds itself', () => {
  assert.throws(() => decode(imageOf([directory([['a', 1]]), directory([['b', 1]], 0)])), /entered once/)
})
test('decodeErofs() refuses names with a slash and names twice', () => {
  const at = SMALL.lastIndexOf(0x66, SMALL.lastIndexOf(0x65)) // the "f" of "file" in the root
  const find = Buffer.from(SMALL.buffer).indexOf('dirfilelink')
  assert.ok(find > 0 && at > 0)
  const slash = SMALL.slice()
  slash[find + 4] = 0x2f
  assert.throws(() => decode(slash), /name is "f\/le"/)
  const twice = SMALL.slice()
  twice.set(Buffer.from('link'), find + 3)
  assert.throws(() => decode(twice), /name is "link"/)
})
test('decodeErofs() refuses a truncated image', () => {
  for (const length of [0, 1024, BLOCK, SMALL.length - 1]) assert.throws(() => decode(SMALL.subarray(0, length)), Fault)
})
test('decodeErofs() meets only Faults in images with any byte changed', () => {
  const image = imageOf([
    directory([
      ['a', 1],
      ['b', 2],
    ]),
    inlineFile(50),
    node({ type: 'symlink', target: 'a' }, { xattrs: new Map([['user.a', Uint8Array.of(1)]]) }),
  ])
  for (let at = BLOCK; at < image.length; at++) {
    if (image[at] === 0 && at % 7 !== 0) continue
    for (const value of [0xff, image[at]! ^ 0x10]) {
      const changed = image.slice()
      changed[at] = value
      try {
        const erofs = decode(changed)
        for (const inode of erofs.inodes.values())
          if (inode.type === 'file' && inode.sizeBytes < 1 << 20) for (const _ of erofs.contents(inode));
      } catch (error) {
        assert.ok(error instanceof Fault, `byte ${at} as ${value}: ${error}`)
      }
    }
  }
})

/** An image of one file whose single chunk is `stored`, said to decode to `sizeBytes`. */
function compressedImage(stored: Uint8Array, sizeBytes: number): Uint8Array {
  const blocks = Math.ceil(stored.length / BLOCK)
  const data = new Uint8Array(blocks * BLOCK)
  data.set(stored, data.length - stored.length)
  const chunks = { layout: 'chunks', startBlock: 1, chunkBytes: 1 << 20, chunkBlocks: Uint16Array.of(blocks) } as const
  return imageOf([directory([['z', 1]]), node({ type: 'file', sizeBytes, data: chunks })], data)
}
const readZ = (image: Uint8Array) => {
  const erofs = decode(image)
  return Buffer.concat([...erofs.contents(erofs.inodes.get('z')!)])
}

test('contents() decompresses a chunk', () => {
  const bytes = Buffer.alloc(100_000, 'all work and no play ')
  assert.deepEqual(readZ(compressedImage(zstdCompressSync(bytes), bytes.length)), bytes)
})
test('contents() refuses a chunk that decodes to more than its extent (decompression bomb)', () => {
  for (const [sizeBytes, message] of [
    [1 << 20, /larger than 100000/],
    [64 << 20, /too much memory/],
  ] as const) {
    const image = compressedImage(zstdCompressSync(Buffer.alloc(sizeBytes)), 100_000)
    assert.throws(
      () => readZ(image),
      (e) => e instanceof Fault && message.test(e.message),
    )
  }
})
test('contents() refuses a chunk that decodes to less than its extent', () => {
  assert.throws(
    () => readZ(compressedImage(zstdCompressSync(Buffer.alloc(50_000)), 100_000)),
    /decompressed length is 50000, expected 100000/,
  )
})
test('contents() refuses data that is no zstd frame', () => {
  assert.throws(
    () => readZ(compressedImage(Buffer.alloc(4000, 'x'), 100_000)),
    (e) => e instanceof Fault && e.code === 'format',
  )
})
test('contents() refuses blocks outside the image', () => {
  const image = imageOf([
    directory([['z', 1]]),
    node({ type: 'file', sizeBytes: 3 * BLOCK, data: { layout: 'flat', startBlock: 9999, inlineTail: false } }),
  ])
  assert.throws(
    () => readZ(image),
    (e) => e instanceof Fault && /end is/.test(e.message),
  )
})
test('an inode takes 64 bytes', () => {
  assert.equal(extendedInode.size, 64)
  assert.equal(superblock.size, 128)
})
