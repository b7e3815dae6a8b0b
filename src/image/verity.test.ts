import assert from 'node:assert/strict'
import { copyFileSync, existsSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { oracle } from '../../test/oracle.ts'
import { sha256 } from '../base/digest.ts'
import { Fault } from '../base/fault.ts'
import { verifyVerity, writeVerity } from './verity.ts'

const UUID = '11111111-2222-3333-4444-555566667777'
const SALT = Buffer.from(`${'aa'.repeat(31)}01`, 'hex')
const BLOCK = 4096

/** A file of so many blocks, each different. */
function dataFile(path: string, blocks: number): void {
  const data = new Uint32Array((blocks * BLOCK) / 4)
  for (let i = 0; i < data.length; i++) data[i] = Math.imul(i, 2654435761)
  writeFileSync(path, data)
}

async function made(t: TestContext, blocks: number) {
  const dir = mkdtempSync(join(tmpdir(), 'bisque-verity-'))
  t.after(() => rmSync(dir, { recursive: true, force: true }))
  const [data, hash] = [join(dir, 'data'), join(dir, 'hash')]
  dataFile(data, blocks)
  return { dir, data, hash, ...(await writeVerity(data, hash, { salt: SALT, uuid: UUID })) }
}

/** Changes one byte of a file. */
function flip(path: string, at: number): void {
  const bytes = readFileSync(path)
  bytes[at]! ^= 1
  writeFileSync(path, bytes)
}

for (const blocks of [1, 2, 128, 129, 16384, 16385]) {
  test(`verifyVerity() accepts what writeVerity() wrote for ${blocks} blocks`, async (t) => {
    const { data, hash, rootHash, sizeBytes } = await made(t, blocks)
    assert.equal(readFileSync(hash).length, sizeBytes)
    await verifyVerity(data, hash, rootHash)
  })
}

test('writeVerity() of one block gives the digest of salt and block', async (t) => {
  const { data, rootHash } = await made(t, 1)
  assert.equal(rootHash, sha256(Buffer.concat([SALT, readFileSync(data)])))
})

test('writeVerity() gives the same bytes with one thread as with three', async (t) => {
  const { dir, data } = await made(t, 5000)
  const one = await writeVerity(data, join(dir, 'one'), { salt: SALT, uuid: UUID, workers: 1 })
  const three = await writeVerity(data, join(dir, 'three'), { salt: SALT, uuid: UUID, workers: 3 })
  assert.deepEqual(one, three)
  assert.ok(readFileSync(join(dir, 'one')).equals(readFileSync(join(dir, 'three'))))
})

test('verifyVerity() names the data blocks that changed', async (t) => {
  const { data, hash, rootHash } = await made(t, 3000)
  flip(data, 7 * BLOCK + 5)
  flip(data, 2999 * BLOCK)
  await assert.rejects(verifyVerity(data, hash, rootHash), (e) => {
    assert.ok(e instanceof Fault && e.code === 'integrity')
    assert.match(e.message, /its blocks do not match their digests \(2 of 3000 blocks: 7, 2999\)/)
    return true
  })
})

test('verifyVerity() refuses a change in any level of the tree, in its padding, and in the salt', async (t) => {
  const { data, hash, rootHash } = await made(t, 300) // top level: block 1; lowest: blocks 2 to 4
  for (const [at, message] of [
    [1 * BLOCK, /root hash .* does not match/],
    [1 * BLOCK + 4000, /root hash .* does not match/],
    [2 * BLOCK + 9, /level 0 of its hash tree is wrong/],
    [4 * BLOCK + 4095, /level 0 of its hash tree is wrong/],
    [88, /root hash .* does not match/],
  ] as const) {
    flip(hash, at)
    await assert.rejects(verifyVerity(data, hash, rootHash), message)
    flip(hash, at)
  }
  await verifyVerity(data, hash, rootHash)
})

test('verifyVerity() reads devices that lie in parts, out of order', async (t) => {
  const { dir, data, hash, rootHash } = await made(t, 600)
  const path = join(dir, 'disk')
  const [tree, blocks] = [readFileSync(hash), readFileSync(data)]
  const cuts = [0, 1000, 1500, 1_300_000, blocks.length]
  const order = [2, 0, 3, 1]
  const places = new Map<number, { offset: number; sizeBytes: number }>()
  let disk = Buffer.concat([Buffer.alloc(777, 1), tree])
  for (const i of order) {
    places.set(i, { offset: disk.length, sizeBytes: cuts[i + 1]! - cuts[i]! })
    disk = Buffer.concat([disk, blocks.subarray(cuts[i], cuts[i + 1])])
  }
  writeFileSync(path, disk)
  const device = { path, extents: [0, 1, 2, 3].map((i) => places.get(i)!) }
  const hashes = { path, extents: [{ offset: 777, sizeBytes: tree.length }] }
  await verifyVerity(device, hashes, rootHash)
  flip(path, places.get(1)!.offset + 7)
  await assert.rejects(verifyVerity(device, hashes, rootHash), /its blocks do not match their digests \(1 of 600 blocks: 0\)/)
  const short = { path, extents: device.extents.slice(0, 3) }
  await assert.rejects(verifyVerity(short, hashes, rootHash), /it has 1300000 bytes, its verity superblock says 2457600/)
})

test('verifyVerity() refuses another root hash, and one that is no hash', async (t) => {
  const { data, hash, rootHash } = await made(t, 300)
  await assert.rejects(verifyVerity(data, hash, '00'.repeat(32)), /root hash 0000.* does not match/)
  await assert.rejects(verifyVerity(data, hash, rootHash.slice(2)), /expected 64 lower-case hexadecimal digits/)
  await assert.rejects(verifyVerity(data, hash, ''), /expected 64 lower-case hexadecimal digits/)
})

test('verifyVerity() refuses data and trees that are cut short', async (t) => {
  const { dir, data, hash, rootHash } = await made(t, 300)
  copyFileSync(data, join(dir, 'short'))
  truncateSync(join(dir, 'short'), 299 * BLOCK)
  await assert.rejects(verifyVerity(join(dir, 'short'), hash, rootHash), /its verity superblock says 1228800/)
  truncateSync(hash, 4 * BLOCK)
  await assert.rejects(verifyVerity(data, hash, rootHash), /its tree needs 20480/)
  truncateSync(hash, 100)
  await assert.rejects(verifyVerity(data, hash, rootHash), Fault)
})

test('verifyVerity() refuses a superblock that claims a gigantic device without reading for it', async (t) => {
  const { data, hash, rootHash } = await made(t, 300)
  const bytes = readFileSync(hash)
  bytes.writeBigUInt64LE(2n ** 50n, 72)
  writeFileSync(hash, bytes)
  await assert.rejects(verifyVerity(data, hash, rootHash), /its verity superblock says/)
})

test('writeVerity() refuses data that is not whole blocks, empty or absent, and leaves nothing', async (t) => {
  const { dir } = await made(t, 1)
  const [data, hash] = [join(dir, 'odd'), join(dir, 'odd-hash')]
  for (const sizeBytes of [0, 1, 4097]) {
    writeFileSync(data, new Uint8Array(sizeBytes))
    await assert.rejects(writeVerity(data, hash, { salt: SALT, uuid: UUID }), /expected a multiple of 4096/)
  }
  await assert.rejects(writeVerity(join(dir, 'absent'), hash, { salt: SALT, uuid: UUID }), /Cannot read .*ENOENT/)
  assert.ok(!existsSync(hash))
})

for (const blocks of [1, 2, 129, 16400]) {
  oracle('veritysetup', `veritysetup makes the same hash device for ${blocks} blocks, and verifies ours`, async (_t, judge) => {
    const [data, hash] = [join(judge.dir, 'data'), join(judge.dir, 'hash')]
    dataFile(data, blocks)
    const { rootHash } = await writeVerity(data, hash, { salt: SALT, uuid: UUID })
    await judge.run(['veritysetup', 'verify', 'data', 'hash', rootHash])
    const format = ['veritysetup', 'format', `--salt=${SALT.toString('hex')}`, `--uuid=${UUID}`, 'data', 'theirs']
    const { stdout } = await judge.run(format)
    assert.equal(/Root hash:\s+(\w+)/.exec(stdout)![1], rootHash)
    assert.ok(readFileSync(hash).equals(readFileSync(join(judge.dir, 'theirs')).subarray(0, readFileSync(hash).length)))
    await verifyVerity(data, join(judge.dir, 'theirs'), rootHash)
  })
}

oracle('veritysetup', 'verifyVerity() accepts a tree veritysetup made without a salt', async (_t, judge) => {
  dataFile(join(judge.dir, 'data'), 200)
  const { stdout } = await judge.run(['veritysetup', 'format', '--salt=-', 'data', 'hash'])
  await verifyVerity(join(judge.dir, 'data'), join(judge.dir, 'hash'), /Root hash:\s+(\w+)/.exec(stdout)![1]!)
})

oracle('veritysetup', 'verifyVerity() accepts trees of other block sizes, and tells what differs', async (_t, judge) => {
  const [data, hash] = [join(judge.dir, 'data'), join(judge.dir, 'hash')]
  for (const [dataBytes, hashBytes] of [
    [512, 4096],
    [512, 512],
    [1024, 2048],
  ]) {
    dataFile(data, 40)
    rmSync(hash, { force: true })
    const sizes = [`--data-block-size=${dataBytes}`, `--hash-block-size=${hashBytes}`]
    const { stdout } = await judge.run(['veritysetup', 'format', ...sizes, 'data', 'hash'])
    const rootHash = /Root hash:\s+(\w+)/.exec(stdout)![1]!
    await verifyVerity(data, hash, rootHash)
    flip(data, 5 * dataBytes! + 1)
    await assert.rejects(verifyVerity(data, hash, rootHash), /its blocks do not match their digests \(1 of \d+ blocks: 5\)/)
  }
})
