import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Fault } from '../base/fault.ts'
import { checkUkiTexts, composeSbat, measuredSections, splitProfiles, UKI_FILE_ORDER, UKI_SBAT, UKI_SECTIONS } from './uki.ts'

const part = (name: string, sizeBytes = 1, from = '') => ({ name, sizeBytes, from })

test('measuredSections() puts sections into the order of the stub, without what it does not measure', () => {
  const measured = measuredSections([
    part('.text'),
    part('.sbat'),
    part('.pcrsig'),
    part('.initrd'),
    part('.cmdline', 1, 'first'),
    part('.cmdline', 1, 'second'),
    part('.splash', 0),
    part('.linux'),
  ])
  assert.deepEqual(
    measured.map(({ name, from }) => name + from),
    ['.linux', '.cmdlinefirst', '.initrd', '.sbat'],
  )
})

test('splitProfiles() lets a profile override the base, section by section', () => {
  const all = [
    part('.linux'),
    part('.cmdline', 1, 'base'),
    part('.profile', 1, '0'),
    part('.pcrsig', 1, '0'),
    part('.profile', 1, '1'),
    part('.cmdline', 1, '1'),
    part('.pcrsig', 1, '1'),
  ]
  assert.deepEqual(
    splitProfiles(all).map((sections) => sections.map(({ name, from }) => name + from)),
    [
      ['.profile0', '.pcrsig0', '.linux', '.cmdlinebase'],
      ['.profile1', '.cmdline1', '.pcrsig1', '.linux'],
    ],
  )
  assert.deepEqual(splitProfiles(all.slice(0, 2)), [all.slice(0, 2)])
  assert.throws(() => splitProfiles(Array.from({ length: 257 }, () => part('.profile'))), Fault)
})

test('composeSbat() has the version line once and every other line in order', () => {
  const text = composeSbat(['sbat,1,a\nstub,1\nstub.debian,1\n', 'sbat,1,b\r\nkernel,1\n\0\0', UKI_SBAT])
  assert.deepEqual(
    text.split('\n').map((line) => line.split(',')[0]),
    ['sbat', 'stub', 'stub.debian', 'kernel', 'uki', ''],
  )
  assert.throws(() => composeSbat(['stub,1\n']), /begins with "stub,1", not "sbat,"/)
  assert.throws(() => composeSbat(['']), Fault)
})

test('checkUkiTexts() refuses control characters', () => {
  checkUkiTexts({ cmdline: 'quiet\tsplash Ä', uname: '6.12' })
  assert.throws(() => checkUkiTexts({ cmdline: 'a\0b', uname: '' }), /cmdline has control character 0x0 at 1/)
  assert.throws(() => checkUkiTexts({ cmdline: '', uname: '6\n' }), /uname has control character 0xa at 1/)
})

test('every section that is written has a place in the measurement', () => {
  assert.deepEqual(
    UKI_FILE_ORDER.filter((name) => !UKI_SECTIONS.includes(name)),
    [],
  )
})
