import assert from 'node:assert/strict'
import { readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { oracle } from '../../test/oracle.ts'
import { decodeSwap, encodeSwap } from './swap.ts'

const SWAP = { uuid: 'c2ac6ea6-44a2-4698-8fcc-618408c770f4', label: 'particle-swap', sizeBytes: 1 << 20 }

test('decodeSwap() reads back what encodeSwap() wrote, the label cut between characters', () => {
  assert.deepEqual(decodeSwap(encodeSwap(SWAP)), SWAP)
  assert.equal(decodeSwap(encodeSwap({ ...SWAP, label: 'fourteen bytesä' })).label, 'fourteen bytes')
  assert.equal(decodeSwap(encodeSwap({ ...SWAP, sizeBytes: SWAP.sizeBytes + 4095 })).sizeBytes, SWAP.sizeBytes)
})

test('encodeSwap() refuses a space too small for the kernel, decodeSwap() what is no swap space', () => {
  assert.throws(() => encodeSwap({ ...SWAP, sizeBytes: 36864 }), /Cannot make swap space of 36864 bytes: it needs at least 40960/)
  assert.throws(() => decodeSwap(new Uint8Array(4096)), /Cannot read swap header.signature/)
  assert.throws(() => decodeSwap(encodeSwap(SWAP).subarray(0, 4000)), /need 4096 bytes, have 4000/)
  const old = encodeSwap(SWAP)
  old[1024] = 0
  assert.throws(() => decodeSwap(old), /Cannot read swap space of version 0/)
})

oracle('mkswap', 'encodeSwap() writes the page mkswap writes, and swaplabel and blkid read it', async (_t, judge) => {
  const [theirs, ours] = ['theirs', 'ours'].map((name) => join(judge.dir, name)) as [string, string]
  for (const path of [theirs, ours]) writeFileSync(path, '')
  truncateSync(theirs, SWAP.sizeBytes)
  await judge.run(['mkswap', '-U', SWAP.uuid, '-L', SWAP.label, theirs])
  writeFileSync(ours, encodeSwap(SWAP))
  truncateSync(ours, SWAP.sizeBytes)
  assert.ok(readFileSync(ours).equals(readFileSync(theirs)))
  assert.match((await judge.run(['swaplabel', ours])).stdout, new RegExp(`LABEL: ${SWAP.label}\\nUUID: *${SWAP.uuid}`))
  assert.match((await judge.run(['blkid', ours])).stdout, /TYPE="swap"/)
  assert.deepEqual(decodeSwap(readFileSync(theirs)), SWAP)
})
