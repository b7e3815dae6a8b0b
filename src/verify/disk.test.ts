import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { diskOfFile, openDisk, readWithin } from './disk.ts'

test('diskOfFile() reads a file where its clusters lie, and nothing behind its end', (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'bisque-disk-'))
  t.after(() => rmSync(dir, { recursive: true, force: true }))
  const path = join(dir, 'disk')
  writeFileSync(path, Buffer.from(Array.from({ length: 256 }, (_, i) => i)))
  using disk = openDisk(path)
  const extents = [40, 16, 80].map((offset) => ({ offset, sizeBytes: 8 }))
  const file = diskOfFile(disk, { offset: 100 }, { path: 'a.raw', type: 'file', sizeBytes: 20, mtime: 0, extents })
  const bytes = (offset: number, sizeBytes: number) => [...file.read(offset, sizeBytes)]
  assert.equal(file.sizeBytes, 20)
  assert.deepEqual(bytes(0, 9), [140, 141, 142, 143, 144, 145, 146, 147, 116])
  assert.deepEqual(bytes(15, 100), [123, 180, 181, 182, 183])
  assert.deepEqual(bytes(20, 1), [])
  assert.deepEqual(bytes(-1, 1), [])
  assert.deepEqual(file.places(14, 9), [
    { offset: 122, sizeBytes: 2 },
    { offset: 180, sizeBytes: 4 },
  ])
  assert.deepEqual([...readWithin(file, { offset: 6, sizeBytes: 3 })(1, 9)], [147, 116])
})
