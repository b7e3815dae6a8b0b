import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import fc from 'fast-check'
import { oracle } from '../../test/oracle.ts'
import { Fault } from '../base/fault.ts'
import {
  contextTag,
  derNull,
  derReader,
  derTime,
  encodeDer,
  formatOid,
  integer,
  octetString,
  oid,
  parseDerTime,
  sequence,
  setOf,
  TAG,
} from './der.ts'

const refuses = (why: RegExp) => (e: unknown) => e instanceof Fault && e.code === 'format' && why.test(e.message)

test('derReader() gives back what encodeDer() took, at every length of length', () => {
  for (const size of [0, 1, 127, 128, 255, 256, 65535, 65536]) {
    const content = Buffer.alloc(size, 7)
    const reader = derReader(sequence(octetString(content), derNull), 'x')
    const inside = reader.enter('outer', TAG.sequence)
    reader.end()
    assert.deepEqual(Buffer.from(inside.take('bytes', TAG.octetString).content), content)
    inside.take('null', TAG.null)
    inside.end()
  }
})

test('oid(), integer() and derTime() write the known encodings', () => {
  assert.equal(Buffer.from(oid('1.2.840.113549.1.7.2')).toString('hex'), '06092a864886f70d010702')
  assert.equal(Buffer.from(oid('2.16.840.1.101.3.4.2.1')).toString('hex'), '0609608648016503040201')
  assert.equal(Buffer.from(integer(0)).toString('hex'), '020100')
  assert.equal(Buffer.from(integer(128)).toString('hex'), '02020080')
  assert.equal(Buffer.from(derTime(0).subarray(2)).toString(), '700101000000Z')
  assert.equal(Buffer.from(derTime(Date.UTC(2049, 11, 31, 23, 59, 59) / 1000).subarray(2)).toString(), '491231235959Z')
  assert.equal(Buffer.from(derTime(Date.UTC(2050, 0, 1) / 1000).subarray(2)).toString(), '20500101000000Z')
})

test('formatOid() and parseDerTime() read back what was written', () => {
  const arcs = fc.array(fc.nat(), { minLength: 1, maxLength: 8 })
  fc.assert(
    fc.property(fc.constantFrom('0.9', '1.2', '1.39', '2.5', '2.16'), arcs, (head, tail) => {
      const text = [head, ...tail].join('.')
      assert.equal(formatOid(derReader(oid(text), 'x').take('oid').content), text)
    }),
  )
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 4e9 }), (seconds) => {
      assert.equal(parseDerTime(derReader(derTime(seconds), 'x').take('time')), seconds)
    }),
  )
})

test('setOf() sorts its elements by their encoding', () => {
  assert.deepEqual(
    setOf(octetString(Buffer.from('b')), integer(1), octetString(Buffer.from('a'))).toString(),
    setOf(integer(1), octetString(Buffer.from('a')), octetString(Buffer.from('b'))).toString(),
  )
})

// biome-ignore format: table
const REFUSED: [string, string, RegExp][] = [
  ['an indefinite length',              '3080020100' + '0000', /x\.outer at offset 0: its length is indefinite/],
  ['a length in more bytes than needed','3081020500',          /longer than needed/],
  ['a length with a leading zero',      '3082008005',          /longer than needed/],
  ['a length of five bytes',            '30850000000001' + '00', /its length has 5 bytes/],
  ['a length that is cut off',          '308201',              /its length is cut off/],
  ['a tag without a length',            '30',                  /its length is cut off/],
  ['an element larger than its parent', '3005020100',          /it has 5 bytes, its parent 3/],
  ['a tag of more than one byte',       '3f810100',            /more than one byte/],
  ['nothing at all',                    '',                    /nothing is left/],
]
for (const [what, hex, why] of REFUSED)
  test(`derReader() refuses ${what}`, () => {
    assert.throws(() => derReader(Buffer.from(hex, 'hex'), 'x').take('outer'), refuses(why))
  })

test('derReader() refuses another tag, naming the place', () => {
  const inside = derReader(sequence(integer(1), derNull), 'x').enter('outer', TAG.sequence)
  inside.take('version', TAG.integer)
  assert.throws(
    () => inside.take('content', contextTag(0)),
    refuses(/Cannot read x\.outer\.content at offset 5: expected tag 0xa0, got 0x05/),
  )
})

test('derReader() refuses bytes left over', () => {
  const reader = derReader(Buffer.concat([derNull, derNull]), 'x')
  reader.take('null')
  assert.throws(() => reader.end(), refuses(/2 bytes too many/))
})

test('derReader() never throws anything but a Fault, whatever the bytes', () => {
  const walk = (bytes: Uint8Array, depth: number): void => {
    const reader = derReader(bytes, 'x')
    while (reader.peek() !== undefined) {
      const { tag, content } = reader.take('element')
      if (tag === TAG.oid) formatOid(content)
      if (tag & 0x20 && depth < 50) walk(content, depth + 1)
    }
  }
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      try {
        walk(bytes, 0)
      } catch (e) {
        assert.ok(e instanceof Fault)
      }
    }),
    { numRuns: 2000 },
  )
})

oracle('openssl', 'openssl reads the DER we wrote', async (_t, judge) => {
  const path = join(judge.dir, 'x.der')
  writeFileSync(
    path,
    sequence(
      oid('1.2.840.113549.1.7.2'),
      integer(300),
      derTime(1795392000),
      encodeDer(contextTag(0), octetString(Buffer.alloc(200))),
    ),
  )
  const { stdout } = await judge.run(['openssl', 'asn1parse', '-inform', 'der', '-in', path])
  assert.match(
    stdout,
    /OBJECT\s+:pkcs7-signedData[\s\S]*INTEGER\s+:012C[\s\S]*UTCTIME\s+:261123000000Z[\s\S]*l= 200 prim: +OCTET STRING/,
  )
})
