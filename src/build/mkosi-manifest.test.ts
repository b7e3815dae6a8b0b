import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { oracle } from '../../test/oracle.ts'
import { loadRecipe } from '../recipe/recipe.ts'
import { madeFile } from '../tree/content.ts'
import { installedPackages, withoutThose, writeMkosiManifest } from './mkosi-manifest.ts'

function scratch(t: TestContext, files: Record<string, string>): string {
  const folder = mkdtempSync(join(tmpdir(), 'bisque-manifest-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, path)), { recursive: true })
    writeFileSync(join(folder, path), text)
  }
  return folder
}

const stanza = (name: string, more = '', status = 'install ok installed') =>
  `Package: ${name}\nStatus: ${status}\nVersion: 1:2-3\nArchitecture: amd64\n${more}\n`

const STATUS = [
  stanza('soup', 'Installed-Size: 12\nSource: kitchen (1:2-1)\n'),
  stanza('bread'),
  stanza('gone', '', 'deinstall ok config-files'),
].join('')

test('installedPackages() reads what is installed, and what it takes', (t) => {
  const root = scratch(t, { 'var/lib/dpkg/status': STATUS })
  const all = installedPackages(root)
  const common = { version: '1:2-3', architecture: 'amd64' }
  assert.deepEqual(all, [
    { name: 'soup', source: 'kitchen', sizeBytes: 12 * 1024, ...common },
    { name: 'bread', source: 'bread', sizeBytes: 0, ...common },
  ])
  assert.deepEqual(withoutThose(all, [{ ...all[0]!, version: '1:2-2' }, all[1]!]), [all[0]])
  assert.deepEqual(installedPackages(scratch(t, {})), [])
})

oracle('dpkg-query', 'installedPackages() says what dpkg-query says, where mkosi asks it', async (t, judge) => {
  const root = scratch(t, { 'var/lib/dpkg/status': STATUS })
  writeFileSync(join(judge.dir, 'status'), readFileSync(join(root, 'var/lib/dpkg/status')))
  // biome-ignore lint/suspicious/noTemplateCurlyInString: dpkg's own
  const format = '${Package} ${source:Package} ${Version} ${Architecture} ${Installed-Size} ${db:Status-Status}\n'
  const { stdout } = await judge.run(['dpkg-query', `--admindir=${judge.dir}`, '--show', `--showformat=${format}`])
  const said = stdout.split('\n').filter((line) => line.endsWith(' installed'))
  const ours = installedPackages(root).map((p) => {
    const size = p.sizeBytes === 0 ? '' : String(p.sizeBytes / 1024)
    return `${p.name} ${p.source} ${p.version} ${p.architecture} ${size} installed`
  })
  assert.deepEqual(ours.sort(), said.sort())
})

test('writeMkosiManifest() writes NAME.manifest for folders that ask for it, where there is something to tell', async (t) => {
  const conf = (format: string, more = '') =>
    `[Distribution]\nDistribution=debian\nRelease=trixie\n[Output]\nFormat=${format}\nImageId=soup\n${more}[Content]\nBootable=no\n`
  const installed = installedPackages(scratch(t, { 'var/lib/dpkg/status': STATUS }))
  const write = async (text: string, system: Parameters<typeof writeMkosiManifest>[0]['system']) => {
    const output = scratch(t, { 'mkosi.conf': text })
    const recipe = await loadRecipe(output)
    const name = await writeMkosiManifest({ recipe, image: recipe, system, output })
    return name === undefined ? undefined : JSON.parse(readFileSync(join(output, name), 'utf8'))
  }
  const asked = 'ManifestFormat=json\n'
  const whole = await write(conf('disk', asked), { tree: new Map(), installed })
  const { name, output_format, release } = whole.config
  assert.deepEqual({ name, output_format, release }, { name: 'soup', output_format: 'disk', release: 'trixie' })
  assert.deepEqual(
    whole.packages.map((p: { name: string; size: number }) => `${p.name} ${p.size}`),
    ['bread 0', 'soup 12288'],
  )
  assert.equal(await write(conf('disk'), { tree: new Map(), installed }), undefined)
  assert.equal(await write(conf('disk', asked), { tree: new Map(), installed: [] }), undefined)

  const tree = new Map([['usr/lib/extension-release.d/extension-release.soup', madeFile('ID=debian\nSYSEXT_LEVEL="2"\n', 0)]])
  const extension = await write(conf('sysext', asked), { tree, installed: [] })
  assert.deepEqual(extension.extension, { ID: 'debian', SYSEXT_LEVEL: '2' })
})
