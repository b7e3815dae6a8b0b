import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { EPOCH, testKeys } from '../../test/keys.ts'
import { sha256 } from '../base/digest.ts'
import { Report } from '../base/report.ts'
import type { Manifest } from '../image/manifest.ts'
import type { Package } from '../packages/package.ts'
import { type ImageRecipe, loadRecipe } from '../recipe/recipe.ts'
import { writeArtifacts } from './artifacts.ts'
import type { Signing } from './keys.ts'
import type { MadeImage } from './output.ts'

const packageOf = (name: string): Package => ({
  ...{ name, version: '1.0', architecture: 'amd64', repository: 'test', sizeBytes: 1 },
  filename: `${name}.deb`,
  sha256: sha256(name),
})

test('writeArtifacts() says in the manifest which image an artifact is of, and which packages build scripts made', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'bisque-artifacts-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  const files = {
    'mkosi.conf':
      '[Distribution]\nDistribution=debian\nRelease=trixie\n[Output]\nFormat=tar\nImageId=whole\n[Content]\nBootable=no\n',
    'mkosi.images/part/mkosi.conf': '[Output]\nFormat=tar\n[Content]\nBootable=no\n',
    'out/whole.tar': 'whole',
    'out/part.tar': 'part',
  }
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, path)), { recursive: true })
    writeFileSync(join(folder, path), text)
  }
  const recipe = await loadRecipe(folder)
  const built = { name: 'soup', version: '2.0', architecture: 'amd64', sha256: sha256('built') }
  const made = (image: ImageRecipe, name: string): MadeImage => ({
    ...{ image, folders: [], links: [] },
    files: [{ name, type: 'tar' }],
    built: image === recipe ? [built] : [],
  })
  const request = sha256('')
  const groups = new Map([
    ['image', { request, packages: [packageOf('bread'), packageOf('soup')] }],
    ['image:part', { request, packages: [packageOf('soup')] }],
  ])
  const output = join(folder, 'out')
  const images = [made(recipe.subimages[0]!, 'part.tar'), made(recipe, 'whole.tar')]
  const signing = (await testKeys()) as Pick<Signing, 'signers'> as Signing
  const input = { recipe, lock: { repositories: [], groups }, signing, epoch: EPOCH, images, output }
  const { manifestName } = await writeArtifacts(input, new Report(() => {}))
  const manifest: Manifest = JSON.parse(readFileSync(join(output, manifestName), 'utf8'))
  assert.deepEqual(
    manifest.artifacts.map(({ name, image, sha256 }) => [name, image, sha256]),
    [
      ['whole.tar', undefined, sha256('whole')],
      ['part.tar', 'part', sha256('part')],
    ],
  )
  assert.deepEqual(manifest.built, { image: [built] })
  const names = Object.entries(manifest.packages).map(([group, all]) => [group, ...all.map(({ name }) => name)])
  assert.deepEqual(names, [
    ['image', 'bread'],
    ['image:part', 'soup'],
  ])
})
