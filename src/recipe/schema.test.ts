import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
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

test('every default of mkosi’s is a value of its setting’s type', () => {
  const place = { directory: '/recipe', env: {} }
  const get = (key: string): unknown =>
    ({ image: 'main', directory: '/recipe' })[key] ?? (ROWS[key]!.default as unknown) ?? ROWS[key]!.type.absent
  for (const key of KEYS) {
    const { mkosi, type } = ROWS[key]!
    const value = typeof mkosi === 'function' ? mkosi(get) : mkosi
    if (value !== undefined) assert.deepEqual(type.check(value, place), value, key)
  }
})

test('mkosi’s image has the default initrd where it boots and holds a kernel', () => {
  const initrds = (settings: Record<string, unknown>): unknown => {
    const all = { distribution: 'debian', format: 'disk', bootable: 'auto', overlay: false, packages: [], volatilePackages: [] }
    return (ROWS['initrds']!.mkosi as (get: (key: string) => unknown) => unknown)((key) => ({ ...all, ...settings })[key])
  }
  const kernel = { packages: ['systemd', 'linux-image-amd64'] }
  assert.deepEqual(initrds(kernel), ['default'])
  assert.deepEqual(initrds({ volatilePackages: ['linux-image-amd64'] }), ['default'])
  assert.deepEqual(initrds({}), [])
  assert.deepEqual(initrds({ bootable: true }), ['default'])
  assert.deepEqual(initrds({ ...kernel, bootable: false }), [])
  assert.deepEqual(initrds({ ...kernel, bootable: true, format: 'esp' }), [])
  for (const format of ['cpio', 'directory', 'sysext', 'confext', 'portable', 'addon']) {
    assert.deepEqual(initrds({ ...kernel, format }), [], format)
    assert.deepEqual(initrds({ format, bootable: true }), ['default'], format)
  }
  assert.deepEqual(initrds({ ...kernel, overlay: true }), [])
  assert.deepEqual(initrds({ distribution: 'fedora', packages: ['kernel-core'] }), ['default'])
  assert.deepEqual(initrds({ distribution: 'ubuntu', packages: ['linux-tools-generic'] }), [])
})

test('the older ways of writing a setting lead to a supported one of the same kind', () => {
  for (const key of KEYS) {
    const { into, status, type } = ROWS[key]!
    assert.equal(status.is === 'older', into !== undefined, key)
    if (into === undefined) continue
    assert.equal(ROWS[into]!.status.is, 'supported', key)
    assert.equal(ROWS[into]!.type.merge, type.merge, key)
  }
  assert.equal(settingNamed('PackageManagerTrees'), 'sandboxTrees')
  assert.equal(settingNamed('QemuMem'), 'ram')
})

/** Conditions of [Match], and settings of UKI profiles. */
const ELSEWHERE = ['PathExists', 'SystemdVersion', 'HostArchitecture', 'Image', 'Profile', 'Cmdline']

const { MKOSI, MKOSI_MANUAL } = process.env
const MANUAL = MKOSI_MANUAL ?? (MKOSI && `${MKOSI}/mkosi/resources/man/mkosi.1.md`)

test('every setting that mkosi’s manual documents has a row', {
  skip: MANUAL && existsSync(MANUAL) ? false : 'MKOSI must name a checkout, or MKOSI_MANUAL its manual',
}, () => {
  const manual = readFileSync(MANUAL!, 'utf8')
  const body = manual.slice(manual.indexOf('### [Distribution] Section'), manual.indexOf('## Specifiers'))
  const documented = [...body.matchAll(/^`[A-Z].*$/gm)].flatMap(([line]) => [...line.matchAll(/`([A-Z]\w+)=/g)].map((m) => m[1]!))
  assert.ok(documented.length > 150)
  assert.deepEqual(
    [...new Set(documented)].filter((name) => settingNamed(name) === undefined && !ELSEWHERE.includes(name)),
    [],
  )
})
