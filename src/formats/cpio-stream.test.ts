import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { Fault } from '../base/fault.ts'
import { type CpioEntry, cpioPadding, cpioTrailer, decodeCpio, encodeCpioHeader } from './cpio.ts'
import { readCpioStream } from './cpio-stream.ts'

const entry = { ino: 1, mode: 0o100644, uid: 0, gid: 0, nlink: 1, mtime: 0, rdevMajor: 0, rdevMinor: 0 }
const archiveOf = (files: Record<string, string>) =>
  Buffer.concat([
    ...Object.entries(files).flatMap(([name, text]) => {
      const content = Buffer.from(text)
      return [encodeCpioHeader({ ...entry, name, sizeBytes: content.length }), content, cpioPadding(content.length)]
    }),
    cpioTrailer(),
  ])
const two = Buffer.concat([archiveOf({ a: 'x'.repeat(1001), 'b/c': '' }), Buffer.alloc(12), archiveOf({ d: 'last' })])

/** What a stream gives when the bytes come in pieces of these sizes. */
function read(bytes: Uint8Array, sizes: readonly number[], wants: (entry: CpioEntry) => boolean = () => true) {
  const found: [string, string | undefined][] = []
  const stream = readCpioStream({
    wants,
    entry: ({ name }, content) => found.push([name, content && Buffer.from(content).toString()]),
  })
  let at = 0
  for (let i = 0; at < bytes.length; i++) {
    const piece = bytes.subarray(at, at + sizes[i % sizes.length]!)
    const took = stream.push(piece)
    at += took
    if (took < piece.length) break
  }
  return { found, at, open: stream.open }
}

test('readCpioStream() finds what decodeCpio() finds, however the bytes come', () => {
  const expected = decodeCpio(two).map(({ name, content }) => [name, Buffer.from(content).toString()])
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 1, max: 600 }), { minLength: 1, maxLength: 5 }), (sizes) => {
      assert.deepEqual(read(two, sizes), { found: expected, at: two.length, open: false })
    }),
    { seed: 3 },
  )
})

test('readCpioStream() keeps no content that nobody wants', () => {
  const { found } = read(two, [64], ({ name }) => name === 'd')
  assert.deepEqual(found, [
    ['a', undefined],
    ['b/c', undefined],
    ['d', 'last'],
  ])
})

test('readCpioStream() stops at what is no archive, and tells one that has not ended', () => {
  assert.equal(read(Buffer.concat([two, Buffer.from('(zstd')]), [4096]).at, two.length)
  assert.equal(read(two.subarray(0, 300), [7]).open, true)
})

test('readCpioStream() refuses headers that are none', () => {
  const damaged = (at: number, text: string) => {
    const bytes = Buffer.from(two)
    bytes.write(text, at, 'latin1')
    return () => read(bytes, [50])
  }
  for (const [run, why] of [
    [damaged(0, '070705'), /expected 070701/],
    [damaged(14, 'zz'), /other than hexadecimal digits/],
    [damaged(94, '00000001'), /the name has 1 bytes/],
    [damaged(94, 'ffffffff'), /the name has 4294967295 bytes/],
    [damaged(111, 'x'), /does not end at its 0/],
  ] as const)
    assert.throws(run, (error) => error instanceof Fault && why.test(error.message))
})
