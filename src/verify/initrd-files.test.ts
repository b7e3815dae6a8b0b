import assert from 'node:assert/strict'
import { test } from 'node:test'
import { gzipSync, zstdCompressSync } from 'node:zlib'
import { cpioPadding, cpioTrailer, encodeCpioHeader } from '../formats/cpio.ts'
import { readInitrd } from './initrd-files.ts'

const entry = { ino: 1, mode: 0o100644, uid: 0, gid: 0, nlink: 1, mtime: 0, rdevMajor: 0, rdevMinor: 0 }
const member = (name: string, content: string | Buffer, change: Partial<typeof entry> = {}) => {
  const bytes = Buffer.from(content)
  return Buffer.concat([
    encodeCpioHeader({ ...entry, ...change, name, sizeBytes: bytes.length }),
    ...[bytes, cpioPadding(bytes.length)],
  ])
}
const archiveOf = (...members: Buffer[]) => Buffer.concat([...members, cpioTrailer()])

test('readInitrd() lays archives over each other, plain and compressed', async () => {
  const plain = archiveOf(member('a', 'one'), member('b', 'one'))
  const { files, members } = await readInitrd(
    Buffer.concat([plain, zstdCompressSync(archiveOf(member('b', 'two'))), gzipSync(archiveOf(member('./c/d', 'three')))]),
  )
  assert.equal(members, 3)
  const textOf = (path: string) => Buffer.from(files.bytes(path) ?? []).toString()
  assert.deepEqual(['a', 'b', 'c/d'].map(textOf), ['one', 'two', 'three'])
})

test('readInitrd() follows links, hard and symbolic, and lets no name lead out', async () => {
  const { files } = await readInitrd(
    archiveOf(
      member('first', '', { ino: 7, nlink: 2 }),
      member('second', 'shared', { ino: 7, nlink: 2 }),
      member('link', 'second', { mode: 0o120777 }),
      member('../outside', 'x'),
    ),
  )
  for (const path of ['first', 'second', 'link']) assert.equal(Buffer.from(files.bytes(path)!).toString(), 'shared', path)
  assert.deepEqual([...files.entries.keys()], ['first', 'second', 'link'])
})

test('readInitrd() unpacks no more than it may, and holds no large file', async () => {
  const bomb = zstdCompressSync(archiveOf(member('large', Buffer.alloc(64 << 20))))
  await assert.rejects(readInitrd(bomb, { unpackedBytes: 16 << 20 }), /it has more than/)
  const { files } = await readInitrd(bomb)
  assert.equal(files.entries.get('large')!.sizeBytes, 64 << 20)
  assert.equal(files.bytes('large', 1 << 30), undefined)
})

test('readInitrd() refuses archives that have no end, and what is packed beside them', async () => {
  const cut = zstdCompressSync(archiveOf(member('a', 'one')).subarray(0, 130))
  await assert.rejects(readInitrd(cut), /the archive in the member at offset 0 has no end/)
  await assert.rejects(
    readInitrd(zstdCompressSync(Buffer.concat([archiveOf(), Buffer.from('junk')]))),
    /something other than archives/,
  )
  const broken = Buffer.from(gzipSync(archiveOf(member('a', 'one'))))
  broken[20]! ^= 0xff
  await assert.rejects(readInitrd(broken), /Cannot (?:unpack gzip member|read cpio)/)
})
