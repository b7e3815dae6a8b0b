import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { KEYS, mkosiName, ROWS, settingNamed } from './schema.ts'

test('every setting has mkosi’s name, is found by both spellings, and no two share one', () => {
  const names = KEYS.map(mkosiName)
  assert.equal(new Set(names).size, KEYS.length)
  for (const key of KEYS) {
    assert.match(key, /^[a-z][A-Za-z0-9]*$/)
    assert.equal(settingNamed(key), key)
    assert.equal(settingNamed(mkosiName(key)), key)
  }
  assert.equal(mkosiName('kernelCommandLine'), 'KernelCommandLine')
  assert.deepEqual(['cpus', 'kvm', 'selinuxRelabel', 'vsockCid'].map(mkosiName), ['CPUs', 'KVM', 'SELinuxRelabel', 'VSockCID'])
  assert.equal(settingNamed('toString'), undefined)
})

test('every setting is documented by the comment before it', () => {
  const source = readFileSync(new URL('schema.ts', import.meta.url), 'utf8')
  const undocumented = KEYS.filter((key) => !new RegExp(`\\*/\\n  ${key}:`).test(source))
  assert.deepEqual(undocumented, [])
})

test('every default is a value of its setting’s type', () => {
  const place = { directory: '/recipe', env: {} }
  for (const key of KEYS) {
    const row = ROWS[key]!
    if (row.default !== undefined) assert.deepEqual(row.type.check(row.default, place), row.default, key)
  }
})

/** Conditions of [Match], and settings of UKI profiles. */
const ELSEWHERE = ['PathExists', 'SystemdVersion', 'HostArchitecture', 'Image', 'Profile', 'Cmdline']

test('every setting that mkosi’s manual documents has a row', {
  skip: process.env['MKOSI_MANUAL'] ? false : 'MKOSI_MANUAL is not set',
}, () => {
  const manual = readFileSync(process.env['MKOSI_MANUAL']!, 'utf8')
  const body = manual.slice(manual.indexOf('### [Distribution] Section'), manual.indexOf('## Specifiers'))
  const documented = [...body.matchAll(/^`[A-Z].*$/gm)].flatMap(([line]) => [...line.matchAll(/`([A-Z]\w+)=/g)].map((m) => m[1]!))
  assert.ok(documented.length > 150)
  assert.deepEqual(
    [...new Set(documented)].filter((name) => settingNamed(name) === undefined && !ELSEWHERE.includes(name)),
    [],
  )
})
