import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { oracle } from '../../test/oracle.ts'
import { encodeEmptyOverlay } from './qcow2.ts'

test('encodeEmptyOverlay() gives the same bytes for the same size, and notes the size', () => {
  const overlay = encodeEmptyOverlay(8 << 20)
  assert.deepEqual(overlay, encodeEmptyOverlay(8 << 20))
  assert.equal(Buffer.from(overlay).readBigUInt64BE(24), BigInt(8 << 20))
})

for (const size of [0, -512, 513, 2 ** 53, Number.NaN])
  test(`encodeEmptyOverlay() refuses a disk of ${size} bytes`, () => {
    assert.throws(() => encodeEmptyOverlay(size), { name: 'Fault', code: 'format', message: /multiple of 512/ })
  })

for (const gib of [1, 8, 600])
  oracle('qemu-img', `finds no error in an overlay of ${gib} GiB`, async (_t, judge) => {
    const file = join(judge.dir, 'disk.qcow2')
    writeFileSync(file, encodeEmptyOverlay(gib * 2 ** 30))
    await judge.run(['qemu-img', 'check', file])
    const info = JSON.parse((await judge.run(['qemu-img', 'info', '--output=json', file])).stdout)
    assert.equal(info['virtual-size'], gib * 2 ** 30)
    assert.equal(info.format, 'qcow2')
  })
