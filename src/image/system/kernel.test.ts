import assert from 'node:assert/strict'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { installedKernels, placeKernels } from './kernel.ts'

function rootWith(t: TestContext, modules: readonly string[], boot: Readonly<Record<string, string>>): (path: string) => string {
  const root = mkdtempSync(join(tmpdir(), 'bisque-kernel-'))
  t.after(() => rmSync(root, { recursive: true, force: true }))
  mkdirSync(join(root, 'boot'))
  for (const version of modules) mkdirSync(join(root, 'usr/lib/modules', version, 'kernel'), { recursive: true })
  for (const [name, text] of Object.entries(boot)) writeFileSync(join(root, 'boot', name), text)
  return (path) => join(root, path)
}

test('placeKernels() copies each kernel beside its modules', async (t) => {
  const at = rootWith(t, ['6.12.1-amd64', '6.13.0'], { 'vmlinuz-6.12.1-amd64': 'twelve', 'vmlinuz-6.13.0': 'thirteen' })
  await placeKernels(at(''))
  assert.equal(readFileSync(at('usr/lib/modules/6.12.1-amd64/vmlinuz'), 'utf8'), 'twelve')
  assert.equal(readFileSync(at('usr/lib/modules/6.13.0/vmlinuz'), 'utf8'), 'thirteen')
})

test('placeKernels() replaces a link into /boot, and leaves a kernel that is there and links in /boot alone', async (t) => {
  const at = rootWith(t, ['6.1', '6.2'], { 'vmlinuz-6.1': 'one', 'vmlinuz-6.2': 'two' })
  symlinkSync('/boot/vmlinuz-6.1', at('usr/lib/modules/6.1/vmlinuz'))
  writeFileSync(at('usr/lib/modules/6.2/vmlinuz'), 'own')
  symlinkSync('vmlinuz-6.1', at('boot/vmlinuz-6.3'))
  mkdirSync(at('usr/lib/modules/6.3'))
  await placeKernels(at(''))
  assert.equal(readFileSync(at('usr/lib/modules/6.1/vmlinuz'), 'utf8'), 'one')
  assert.equal(readFileSync(at('usr/lib/modules/6.2/vmlinuz'), 'utf8'), 'own')
  assert.equal(existsSync(at('usr/lib/modules/6.3/vmlinuz')), false)
})

test('placeKernels() takes a kernel without a version for the only one there is', async (t) => {
  const at = rootWith(t, ['6.1'], { 'vmlinuz-custom': 'x' })
  await placeKernels(at(''))
  assert.equal(readFileSync(at('usr/lib/modules/6.1/vmlinuz'), 'utf8'), 'x')
})

test('installedKernels() leaves out folders that hold updates alone', (t) => {
  const at = rootWith(t, ['6.1'], {})
  mkdirSync(at('usr/lib/modules/6.2/updates'), { recursive: true })
  mkdirSync(at('usr/lib/modules/6.3'), { recursive: true })
  assert.deepEqual(installedKernels(at('')), ['6.1'])
})
