import assert from 'node:assert/strict'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { test } from 'node:test'
import { oracle } from '../../test/oracle.ts'
import { decodeAr, encodeAr } from './ar.ts'

const members = [
  { name: 'debian-binary', data: Buffer.from('2.0\n') },
  { name: 'odd', data: Buffer.from('abc') },
  { name: 'empty', data: Buffer.alloc(0) },
]
const plain = (found: ReturnType<typeof decodeAr>) => found.map(({ name, data }) => ({ name, data: Buffer.from(data) }))

test('decodeAr() returns what encodeAr() wrote, and the same members give the same bytes', () => {
  const bytes = encodeAr(members)
  assert.deepEqual(plain(decodeAr(bytes)), members)
  assert.deepEqual(encodeAr(members), bytes)
})

/** One byte after another of a valid archive, changed to be refused. */
const changed = (at: number, text: string) => {
  const bytes = Buffer.from(encodeAr(members))
  bytes.write(text, at, 'latin1')
  return bytes
}
// biome-ignore format: table
const REFUSED: [why: string, bytes: Uint8Array, message: RegExp][] = [
  ['a wrong magic',             changed(0, '!<arsh>\n'),        /does not begin/],
  ['a header without its mark', changed(8 + 58, 'xx'),          /end with the mark/],
  ['a negative size',           changed(8 + 48, '-5        '),  /"-5" is not a number/],
  ['a size that is no number',  changed(8 + 48, '0x10      '),  /not a number/],
  ['a member beyond the end',   changed(8 + 48, '9999999999'),  /has 9999999999 bytes/],
  ['a name with control bytes', changed(8, '\x1b]0;x'),         /not printable/],
  ['half a header',             encodeAr(members).subarray(0, 8 + 30), /need 60 bytes, have 30/],
  ['endless members',           encodeAr(Array.from({ length: 100 }, () => members[2]!)), /more than 64 members/],
]
for (const [why, bytes, message] of REFUSED)
  test(`decodeAr() refuses ${why}`, () => void assert.throws(() => decodeAr(bytes), { code: 'format', message }))

oracle('ar', 'ar reads what encodeAr() wrote', async (_t, judge) => {
  writeFileSync(`${judge.dir}/a.ar`, encodeAr(members))
  assert.equal((await judge.run(['ar', 't', 'a.ar'])).stdout, 'debian-binary\nodd\nempty\n')
  assert.equal((await judge.run(['ar', 'p', 'a.ar', 'odd'])).stdout, 'abc')
})

oracle('ar', 'decodeAr() reads what ar wrote', async (_t, judge) => {
  mkdirSync(`${judge.dir}/in`)
  for (const { name, data } of members) writeFileSync(`${judge.dir}/in/${name}`, data)
  await judge.run(['sh', '-c', 'cd in && ar rcD ../a.ar debian-binary odd empty'])
  assert.deepEqual(plain(decodeAr(readFileSync(`${judge.dir}/a.ar`))), members)
})
