import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { loadRecipe } from './recipe.ts'
import { byName, summaryOf } from './summary.ts'

async function load(t: TestContext, files: Record<string, string>) {
  const directory = mkdtempSync(join(tmpdir(), 'bisque-summary-'))
  t.after(() => rmSync(directory, { recursive: true, force: true }))
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(dirname(join(directory, name)), { recursive: true })
    writeFileSync(join(directory, name), text)
  }
  const recipe = await loadRecipe(directory, { anyValue: true })
  return { recipe, directory, settings: byName(summaryOf(recipe)) }
}

const value = (settings: Awaited<ReturnType<typeof load>>['settings'], name: string): unknown => settings[name]!.value

test('summaryOf() tells values as mkosi’s JSON has them, and where they came from', async (t) => {
  const conf = `[Distribution]
Distribution=debian
Release=trixie
[Content]
Bootable=yes
ExtraTrees=a:/usr/share
           b
InitrdProfiles=lvm
[Validation]
SignExpectedPcr=no
[Build]
Environment=A=1
[Runtime]
Credentials=one=1
RAM=1G
`
  const { settings, directory } = await load(t, {
    'mkosi.conf': conf,
    'mkosi.uki-profiles/x.conf': '[UKIProfile]\nProfile=ID=x\n',
  })
  assert.equal(value(settings, 'Bootable'), 'enabled')
  assert.equal(value(settings, 'SignExpectedPcr'), 'disabled')
  assert.equal(value(settings, 'CleanPackageMetadata'), 'auto')
  assert.deepEqual(value(settings, 'ExtraTrees'), [
    { Source: join(directory, 'a'), Target: '/usr/share' },
    { Source: join(directory, 'b'), Target: null },
  ])
  assert.deepEqual(value(settings, 'BuildSources'), [{ Source: directory, Target: null }])
  assert.deepEqual(value(settings, 'UnifiedKernelImageProfiles'), [{ Profile: { ID: 'x' }, Cmdline: [], SignExpectedPcr: true }])
  assert.deepEqual(value(settings, 'SecureBootKeySource'), { Type: 'file', Source: '' })
  assert.deepEqual(value(settings, 'Environment'), { A: '1' })
  assert.equal(value(settings, 'RAM'), 1024 ** 3)
  assert.equal(value(settings, 'Locale'), null)
  assert.equal(settings['Bootable']!.origin, 'mkosi.conf:5')
  assert.equal(settings['Locale']!.origin, 'default')
})

test('summaryOf() tells no secret', async (t) => {
  const conf = "export default { release: 'trixie', rootPassword: 'soup', credentials: { token: 'soup' } }"
  const { settings } = await load(t, { 'recipe.ts': conf })
  assert.deepEqual(value(settings, 'RootPassword'), ['(secret)', false])
  assert.deepEqual(value(settings, 'Credentials'), [{ Name: 'token', Value: '(secret)', Path: null }])
  assert.doesNotMatch(JSON.stringify(settings), /soup/)
})

test('a summary takes what cannot be built, and a bake says why not', async (t) => {
  const conf = '[Distribution]\nDistribution=fedora\nArchitecture=arm64\n[Output]\nCompressOutput=lz4\n'
  const { settings, directory } = await load(t, { 'mkosi.conf': conf })
  assert.deepEqual(
    ['Distribution', 'Release', 'Architecture', 'CompressOutput'].map((name) => value(settings, name)),
    ['fedora', 'rawhide', 'arm64', 'lz4'],
  )
  await assert.rejects(
    loadRecipe(directory),
    /"fedora" is known but not supported yet; supported: debian[\s\S]*"arm64"[\s\S]*"lz4"/,
  )
})
