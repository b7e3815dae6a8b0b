import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { placesIn } from './extent.ts'

test('placesIn() finds bytes across parts, and none beyond the end', () => {
  const places = placesIn([
    { offset: 100, sizeBytes: 4 },
    { offset: 50, sizeBytes: 0 },
    { offset: 10, sizeBytes: 6 },
  ])
  assert.deepEqual(places(0, 4), [{ offset: 100, sizeBytes: 4 }])
  assert.deepEqual(places(3, 3), [
    { offset: 103, sizeBytes: 1 },
    { offset: 10, sizeBytes: 2 },
  ])
  assert.deepEqual(places(9, 9), [{ offset: 15, sizeBytes: 1 }])
  for (const [offset, sizeBytes] of [
    [10, 1],
    [-1, 4],
    [11, 4],
    [2, 0],
  ] as const)
    assert.deepEqual(places(offset, sizeBytes), [])
  assert.deepEqual(placesIn([])(0, 1), [])
})

test('placesIn() gives the bytes that joining the parts would give', () => {
  const disk = Buffer.from(Array.from({ length: 200 }, (_, i) => i))
  const part = fc.record({ offset: fc.nat(150), sizeBytes: fc.nat(50) })
  fc.assert(
    fc.property(fc.array(part), fc.nat(300), fc.nat(300), (parts, offset, sizeBytes) => {
      const read = (of: typeof parts) => Buffer.concat(of.map((one) => disk.subarray(one.offset, one.offset + one.sizeBytes)))
      assert.deepEqual(read(placesIn(parts)(offset, sizeBytes)), read(parts).subarray(offset, offset + sizeBytes))
    }),
  )
})
