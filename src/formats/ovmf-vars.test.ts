import assert from 'node:assert/strict'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import fc from 'fast-check'
import { emptyVariables } from '../../test/firmware-volume.ts'
import { JUDGES, oracle } from '../../test/oracle.ts'
import {
  BOOT_SERVICE,
  decodeVariables,
  encodeVariables,
  GLOBAL_VARIABLE,
  IMAGE_SECURITY_DATABASE,
  NON_VOLATILE,
  RUNTIME,
  SECURE_BOOT_ENABLE,
  TIME_AUTHENTICATED,
  type Variable,
} from './ovmf-vars.ts'

const KEY = NON_VOLATILE | BOOT_SERVICE | RUNTIME | TIME_AUTHENTICATED
const TIME = new Date(Date.UTC(2026, 10, 23, 1, 2, 3))
const OVMF = join(JUDGES ?? '', 'usr/share/OVMF')

test('decodeVariables() reads what encodeVariables() wrote', () => {
  const variable: fc.Arbitrary<Variable> = fc.record(
    {
      name: fc.stringMatching(/^[A-Za-z0-9]{1,20}$/),
      vendor: fc.constantFrom(GLOBAL_VARIABLE, IMAGE_SECURITY_DATABASE),
      attributes: fc.nat(0x7f),
      time: fc.constant(TIME),
      data: fc.uint8Array({ maxLength: 40 }),
    },
    { noNullPrototype: true },
  )
  const distinct = fc.uniqueArray(variable, { maxLength: 8, selector: (v) => `${v.vendor} ${v.name}` })
  fc.assert(
    fc.property(distinct, (variables) =>
      assert.deepEqual(decodeVariables(encodeVariables(emptyVariables(), variables)), variables),
    ),
  )
})

test('encodeVariables() replaces what its template held and touches nothing outside the store', () => {
  const first = encodeVariables(emptyVariables(), [{ name: 'A', vendor: GLOBAL_VARIABLE, attributes: 3, data: Uint8Array.of(1) }])
  const second = encodeVariables(first, [])
  assert.deepEqual(second, emptyVariables())
  assert.deepEqual(first.subarray(0x1000), emptyVariables().subarray(0x1000))
})

test('decodeVariables() prefers the new copy of an interrupted update and skips deleted ones', () => {
  const value = (n: number): Variable => ({ name: `V${n}`, vendor: GLOBAL_VARIABLE, attributes: 3, data: Uint8Array.of(n) })
  const flash = encodeVariables(emptyVariables(), [value(1), value(2), value(3)])
  const states = recordOffsets(flash).map((at) => at + 2)
  flash[states[0]!] = 0x3e // in deletion, no successor: still in force
  flash[states[1]!] = 0x3d // deleted
  assert.deepEqual(
    decodeVariables(flash).map((v) => v.name),
    ['V1', 'V3'],
  )

  const twice = encodeVariables(emptyVariables(), [value(1), { ...value(1), data: Uint8Array.of(9) }])
  twice[recordOffsets(twice)[0]! + 2] = 0x3e
  assert.deepEqual(
    decodeVariables(twice).map((v) => v.data[0]),
    [9],
  )
})

const refusals: [string, (flash: Uint8Array) => Uint8Array, RegExp][] = [
  ['a file cut short', (f) => f.subarray(0, 0x800), /volume of 8192 bytes in a file of 2048/],
  ['a header whose bytes changed', (f) => f.with(0x37, 1), /header adds up to/],
  ['another file system', (f) => f.with(16, 0), /file system/],
  ['another kind of store', (f) => f.with(0x48, 0), /variable store: type/],
  ['a store larger than its volume', (f) => f.with(0x48 + 18, 1), /bytes in a volume of 8192/],
  ['a name longer than the store', (f) => f.with(0x64 + 39, 0x7f), /Cannot read variable at offset 100: name of/],
  ['an odd name size', (f) => f.with(0x64 + 36, 3), /name of 3/],
  ['data longer than the store', (f) => f.with(0x64 + 42, 0xff), /Cannot read variable at offset 100/],
  ['garbage where a record should start', (f) => f.with(0x64, 1), /starts with 0x5501/],
]
for (const [what, damage, message] of refusals)
  test(`decodeVariables() refuses ${what}`, () => {
    const flash = encodeVariables(emptyVariables(), [
      { name: 'A', vendor: GLOBAL_VARIABLE, attributes: 3, data: Uint8Array.of(1) },
    ])
    assert.throws(() => decodeVariables(damage(flash)), { name: 'Fault', code: 'format', message })
  })

test('encodeVariables() refuses more than fits, and a variable without a name', () => {
  const big: Variable = { name: 'A', vendor: GLOBAL_VARIABLE, attributes: 3, data: new Uint8Array(4000) }
  assert.throws(() => encodeVariables(emptyVariables(), [big]), /Cannot store variable "A": it needs 4064 bytes, 3996 are free/)
  assert.throws(
    () => encodeVariables(emptyVariables(), [{ ...big, name: '', data: new Uint8Array() }]),
    /Cannot store variable ""/,
  )
})

oracle('virt-fw-vars', 'prints the variables encodeVariables() wrote into the distribution’s store', async (_t, judge) => {
  const template = readFileSync(join(OVMF, 'OVMF_VARS_4M.fd'))
  const data = Buffer.from('01', 'hex')
  const flash = encodeVariables(template, [
    { name: 'Timezone', vendor: GLOBAL_VARIABLE, attributes: KEY, time: TIME, data: Buffer.from('some bytes') },
    { name: 'SecureBootEnable', vendor: SECURE_BOOT_ENABLE, attributes: NON_VOLATILE | BOOT_SERVICE, data },
  ])
  const file = join(judge.dir, 'vars.fd')
  writeFileSync(file, flash)
  const json = join(judge.dir, 'vars.json')
  await judge.run(['virt-fw-vars', '--input', file, '--output-json', json])
  const told = JSON.parse(readFileSync(json, 'utf8')) as {
    variables: { name: string; guid: string; attr: number; data: string }[]
  }
  const got = told.variables.map(({ name, guid, attr, data }) => ({ name, guid, attr, data }))
  assert.deepEqual(got, [
    { name: 'Timezone', guid: GLOBAL_VARIABLE, attr: KEY, data: Buffer.from('some bytes').toString('hex') },
    { name: 'SecureBootEnable', guid: SECURE_BOOT_ENABLE, attr: 3, data: '01' },
  ])
})

oracle('virt-fw-vars', 'writes a store whose keys decodeVariables() reads', async (_t, judge) => {
  const file = join(judge.dir, 'vars.fd')
  await judge.run([
    'virt-fw-vars',
    '--input',
    '/usr/share/OVMF/OVMF_VARS_4M.fd',
    '--output',
    file,
    '--enroll-redhat',
    '--secure-boot',
  ])
  const variables = decodeVariables(readFileSync(file))
  const keys = variables.filter((v) => ['PK', 'KEK', 'db'].includes(v.name))
  assert.deepEqual(keys.map((v) => [v.name, v.vendor, v.attributes]).sort(), [
    ['KEK', GLOBAL_VARIABLE, KEY],
    ['PK', GLOBAL_VARIABLE, KEY],
    ['db', IMAGE_SECURITY_DATABASE, KEY],
  ])
  assert.deepEqual([...variables.find((v) => v.name === 'SecureBootEnable')!.data], [1])
})

test('decodeVariables() reads the stores of the distribution', { skip: !existsSync(OVMF) && 'ovmf is not installed' }, () => {
  const namesIn = (file: string) => decodeVariables(readFileSync(join(OVMF, file))).map((v) => v.name)
  assert.deepEqual(namesIn('OVMF_VARS_4M.fd'), [])
  assert.ok(namesIn('OVMF_VARS_4M.ms.fd').includes('PK'))
  assert.ok(namesIn('OVMF_VARS_4M.snakeoil.fd').includes('db'))
})

function recordOffsets(flash: Uint8Array): number[] {
  const found: number[] = []
  for (let at = 0x64; at + 1 < flash.length; at += 4) if (flash[at] === 0xaa && flash[at + 1] === 0x55) found.push(at)
  return found
}
