import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { gunzipSync, gzipSync, zstdCompressSync, zstdDecompressSync } from 'node:zlib'
import { xzSync } from 'node-liblzma'
import { oracle } from '../../test/oracle.ts'
import { cpioPadding, cpioTrailer, encodeCpioHeader } from './cpio.ts'
import { initrdMemberAt } from './initrd.ts'

const content = Buffer.from('what an initrd holds\n'.repeat(500))
const entry = { ino: 1, mode: 0o100644, uid: 0, gid: 0, nlink: 1, mtime: 0, rdevMajor: 0, rdevMinor: 0 }
const archive = Buffer.concat([
  encodeCpioHeader({ ...entry, name: 'file', sizeBytes: content.length }),
  ...[content, cpioPadding(content.length), cpioTrailer()],
])

test('initrdMemberAt() finds where members of each compression begin and end, zeros between them', () => {
  const zstd = zstdCompressSync(archive)
  const xz = xzSync(archive)
  const gzip = gzipSync(archive)
  const bytes = Buffer.concat([zstd, Buffer.alloc(7), xz, Buffer.alloc(3), gzip])
  const first = initrdMemberAt(bytes, 0)!
  assert.deepEqual(first, { compression: 'zstd', offset: 0, sizeBytes: zstd.length })
  const second = initrdMemberAt(bytes, first.sizeBytes)!
  assert.deepEqual(second, { compression: 'xz', offset: zstd.length + 7, sizeBytes: xz.length })
  const third = initrdMemberAt(bytes, second.offset + second.sizeBytes)!
  assert.equal(third.compression, 'gzip')
  assert.deepEqual(gunzipSync(bytes.subarray(third.offset)), archive)
  assert.equal(initrdMemberAt(Buffer.alloc(9), 0), undefined)
  assert.deepEqual(initrdMemberAt(archive, 0), { compression: 'none', offset: 0, sizeBytes: archive.length })
})

test('initrdMemberAt() refuses what the kernel would not unpack', () => {
  const refused = (bytes: Uint8Array, why: RegExp) => assert.throws(() => initrdMemberAt(bytes, 0), why)
  refused(Buffer.from('#!/bin/sh'), /at offset 0: no archive and no compression/)
  refused(Buffer.concat([Buffer.alloc(2), archive]), /at offset 2: an archive begins at a multiple of 4/)
  refused(Buffer.from('02214c1800', 'hex'), /lz4 is not read/)
  refused(zstdCompressSync(archive).subarray(0, -1), /its zstd frame ends behind/)
  refused(Buffer.from('28b52ffd2000', 'hex'), /its zstd frame ends behind/)
  refused(Buffer.from('28b52ffd200006ffff', 'hex'), /reserved type/)
  refused(xzSync(archive).subarray(0, -1), /its xz stream has no end/)
})

oracle('zstd', 'initrdMemberAt() finds the frames that zstd wrote, with and without checksums', async (_t, judge) => {
  const path = join(judge.dir, 'archive')
  writeFileSync(path, archive)
  for (const option of ['--check', '--no-check']) {
    await judge.run(['zstd', '-q', '-f', option, '-19', path, '-o', `${path}.zst`])
    const frame = readFileSync(`${path}.zst`)
    const both = Buffer.concat([frame, frame])
    const { sizeBytes } = initrdMemberAt(both, 0)!
    assert.equal(sizeBytes, frame.length)
    assert.deepEqual(zstdDecompressSync(both.subarray(sizeBytes)), archive)
  }
})
