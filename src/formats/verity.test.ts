import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { Fault } from '../base/fault.ts'
import {
  decodeVerity,
  decodeVeritySignature,
  encodeVerity,
  encodeVeritySignature,
  HASHES_PER_BLOCK,
  VERITY_SIGNATURE_BYTES,
  verityPartitionUuids,
  veritySizeBytes,
  verityTree,
} from './verity.ts'

const UUID = '11111111-2222-3333-4444-555566667777'
const VERITY = { uuid: UUID, salt: new Uint8Array(32).fill(0xaa), dataBlocks: 30000 }
const HASH = '0123456789abcdef'.repeat(4)
const SIGNATURE = { rootHash: HASH, certificateFingerprint: 'f'.repeat(64), signature: Uint8Array.of(0x30, 0x82, 1, 2, 3) }

test('decodeVerity() gives back what encodeVerity() took', () => {
  assert.deepEqual(decodeVerity(encodeVerity(VERITY)), VERITY)
  const unsalted = { ...VERITY, salt: new Uint8Array(0) }
  assert.deepEqual(decodeVerity(encodeVerity(unsalted)), unsalted)
})

test('encodeVerity() gives one block, the same each time', () => {
  assert.equal(encodeVerity(VERITY).length, 4096)
  assert.deepEqual(encodeVerity(VERITY), encodeVerity(VERITY))
})

// biome-ignore format: table
const BAD: [string, number, number, RegExp][] = [
  ['signature',     0,   0x56, /superblock.signature at offset 0/],
  ['version',       8,   2,    /superblock.version at offset 8: expected 1, got 2/],
  ['hashType',      12,  0,    /superblock.hashType at offset 12: expected 1, got 0/],
  ['algorithm',     35,  0x35, /superblock.algorithm at offset 32: expected sha256, got sha556/],
  ['dataBlockSize', 65,  3,    /superblock.dataBlockSize at offset 64: expected 4096, got 768/],
  ['hashBlockSize', 69,  32,   /superblock.hashBlockSize at offset 68: expected 4096, got 8192/],
  ['dataBlocks',    79,  0xff, /superblock.dataBlocks at offset 72: .*larger than 2\^53/],
  ['saltBytes',     81,  2,    /superblock.saltBytes at offset 80: expected at most 256, got 544/],
]
for (const [field, at, byte, message] of BAD) {
  test(`decodeVerity() refuses a bad ${field}`, () => {
    const block = encodeVerity(VERITY)
    block[at] = byte
    assert.throws(
      () => decodeVerity(block),
      (e) => e instanceof Fault && e.code === 'format' && message.test(e.message),
    )
  })
}
test('decodeVerity() refuses no data blocks and a superblock cut short', () => {
  assert.throws(() => decodeVerity(encodeVerity({ ...VERITY, dataBlocks: 0 })), /dataBlocks at offset 72: expected at least 1/)
  assert.throws(() => decodeVerity(encodeVerity(VERITY).subarray(0, 511)), /need 512 bytes, have 511/)
})
test('encodeVerity() refuses a salt of 257 bytes and a UUID that is none', () => {
  assert.throws(() => encodeVerity({ ...VERITY, salt: new Uint8Array(257) }), /at most 256 fit/)
  assert.throws(() => encodeVerity({ ...VERITY, uuid: 'x' }), /expected 32 hexadecimal digits/)
})

test('verityTree() puts the top level first and the lowest last', () => {
  assert.deepEqual(verityTree(1), { levels: [], blocks: 1 })
  assert.deepEqual(verityTree(128), { levels: [{ startBlock: 1, blocks: 1 }], blocks: 2 })
  assert.deepEqual(verityTree(129).levels, [
    { startBlock: 2, blocks: 2 },
    { startBlock: 1, blocks: 1 },
  ])
  assert.equal(veritySizeBytes(668 << 10), 16 << 10)
})

test('verityTree() has room for every hash, no gap, and one block at the top', () => {
  fc.assert(
    fc.property(fc.integer({ min: 2, max: 2 ** 40 }), (dataBlocks) => {
      const { levels, blocks } = verityTree(dataBlocks)
      let below = dataBlocks
      for (const level of levels) {
        assert.equal(level.blocks, Math.ceil(below / HASHES_PER_BLOCK))
        below = level.blocks
      }
      assert.equal(below, 1)
      const ends = levels.map((level) => level.startBlock + level.blocks)
      assert.deepEqual(ends, [blocks, ...levels.slice(0, -1).map((level) => level.startBlock)])
    }),
  )
})

test('verityPartitionUuids() are the halves of the root hash', () => {
  const { data, hash } = verityPartitionUuids(HASH)
  assert.equal((data + hash).replaceAll('-', ''), HASH)
  assert.throws(() => verityPartitionUuids('abc'), /expected 64 lower-case hexadecimal digits/)
})

test('decodeVeritySignature() gives back what encodeVeritySignature() took, padded or trimmed', () => {
  const partition = encodeVeritySignature(SIGNATURE)
  assert.equal(partition.length, VERITY_SIGNATURE_BYTES)
  assert.deepEqual(decodeVeritySignature(partition), SIGNATURE)
  assert.deepEqual(decodeVeritySignature(partition.subarray(0, partition.indexOf(0))), SIGNATURE)
  const { certificateFingerprint: _, ...without } = SIGNATURE
  assert.deepEqual(decodeVeritySignature(encodeVeritySignature(without)), without)
})

test('encodeVeritySignature() writes the JSON of systemd-repart, byte for byte', () => {
  const text = Buffer.from(encodeVeritySignature(SIGNATURE)).toString('latin1').replace(/\0+$/, '')
  assert.equal(text, `{"rootHash":"${HASH}","certificateFingerprint":"${'f'.repeat(64)}","signature":"MIIBAgM="}`)
})

test('encodeVeritySignature() refuses a root hash in capitals and a signature that does not fit', () => {
  assert.throws(() => encodeVeritySignature({ ...SIGNATURE, rootHash: HASH.toUpperCase() }), /as root hash/)
  assert.throws(() => encodeVeritySignature({ ...SIGNATURE, certificateFingerprint: 'ff' }), /as certificate fingerprint/)
  assert.throws(() => encodeVeritySignature({ ...SIGNATURE, signature: new Uint8Array(16000) }), /at most 16384 fit/)
})

// biome-ignore format: table
const BAD_JSON: [string, string, RegExp][] = [
  ['no JSON',                  'verity', /Cannot read verity signature partition: /],
  ['nothing',                  '', /JSON/],
  ['a list',                   '[]', /rootHash/],
  ['null',                     'null', /no JSON object/],
  ['no root hash',             '{"signature":"AAAA"}', /rootHash/],
  ['a short root hash',        `{"rootHash":"ab","signature":"AAAA"}`, /rootHash/],
  ['no signature',             `{"rootHash":"${HASH}"}`, /signature is not base64/],
  ['an empty signature',       `{"rootHash":"${HASH}","signature":""}`, /signature is not base64/],
  ['a signature in hex:colon', `{"rootHash":"${HASH}","signature":"30:82"}`, /signature is not base64/],
  ['a bad fingerprint',        `{"rootHash":"${HASH}","signature":"AAAA","certificateFingerprint":1}`, /certificateFingerprint/],
  ['bytes after the padding',  `{"rootHash":"${HASH}","signature":"AAAA"}\0\0x`, /bytes other than NUL/],
]
for (const [what, text, message] of BAD_JSON) {
  test(`decodeVeritySignature() refuses ${what}`, () => {
    assert.throws(
      () => decodeVeritySignature(Buffer.from(text)),
      (e) => e instanceof Fault && e.code === 'format' && message.test(e.message),
    )
  })
}
test('decodeVeritySignature() refuses a partition of gigabytes before reading it', () => {
  assert.throws(() => decodeVeritySignature(new Uint8Array(5 << 20)), /at most 4 MiB/)
})
