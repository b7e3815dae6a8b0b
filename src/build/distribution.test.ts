import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { DEBIAN_MIRROR, DEBIAN_SECURITY_MIRROR } from '../packages/deb/debian.ts'
import { loadRecipe } from '../recipe/recipe.ts'
import { archivesOf } from './distribution.ts'

async function archives(t: TestContext, files: Record<string, string>, set: readonly string[] = []) {
  const folder = mkdtempSync(join(tmpdir(), 'bisque-distribution-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, path)), { recursive: true })
    writeFileSync(join(folder, path), text)
  }
  return archivesOf(await loadRecipe(folder, { set }))
}

const conf = (text: string) => ({ 'mkosi.conf': `[Distribution]\nDistribution=debian\n${text}` })

async function places(t: TestContext, text: string, set: readonly string[] = []): Promise<string[]> {
  const { repositories } = await archives(t, conf(text), set)
  return repositories.map((r) => `${r.url} ${r.suite} ${r.components.join(',')}${r.allowExpired ? ' expired' : ''}`)
}

test('archivesOf() has the suites of a release, in mkosi’s words and order, without debugging symbols', async (t) => {
  assert.deepEqual(await places(t, 'Release=trixie\nRepositories=non-free-firmware,contrib,main\n'), [
    `${DEBIAN_MIRROR} trixie main,non-free-firmware,contrib`,
    `${DEBIAN_MIRROR} trixie-updates main,non-free-firmware,contrib`,
    `${DEBIAN_SECURITY_MIRROR} trixie-security main,non-free-firmware,contrib`,
  ])
  assert.deepEqual(await places(t, 'Release=testing\n'), [
    `${DEBIAN_MIRROR} testing main`,
    `${DEBIAN_MIRROR} testing-updates main`,
    `${DEBIAN_SECURITY_MIRROR} testing-security main`,
  ])
  for (const release of ['sid', 'unstable'])
    assert.deepEqual(await places(t, `Release=${release}\n`), [`${DEBIAN_MIRROR} ${release} main`])
})

test('archivesOf() takes a folder’s mirror as a server with all archives, a recipe.ts’s as the archive', async (t) => {
  assert.deepEqual(await places(t, 'Release=trixie\nMirror=http://mirror.example/\n'), [
    'http://mirror.example/debian trixie main',
    'http://mirror.example/debian trixie-updates main',
    'http://mirror.example/debian-security trixie-security main',
  ])
  const recipe = "export default { release: 'sid', packages: [], mirror: 'http://mirror.example/debian' }\n"
  const { repositories } = await archives(t, { 'recipe.ts': recipe })
  assert.deepEqual(
    repositories.map((r) => r.url),
    ['http://mirror.example/debian'],
  )
})

test('archivesOf() goes back to a moment, whose metadata may have expired since', async (t) => {
  const moment = '20261101T000000Z'
  assert.deepEqual(await places(t, `Release=trixie\nSnapshot=${moment}\n`), [
    `https://snapshot.debian.org/archive/debian/${moment} trixie main expired`,
    `https://snapshot.debian.org/archive/debian-security/${moment} trixie-security main expired`,
  ])
  assert.deepEqual(await places(t, `Release=sid\nSnapshot=${moment}\nMirror=http://mirror.example\n`), [
    `http://mirror.example/archive/debian/${moment} sid main expired`,
  ])
})

test('archivesOf() accepts expired metadata where the recipe says so, and of single sources that say so', async (t) => {
  assert.deepEqual(await places(t, 'Release=sid\n', ['AllowExpired=yes']), [`${DEBIAN_MIRROR} sid main expired`])
  const source = 'deb [check-valid-until=no] http://a.example/x ./\ndeb [arch=arm64] http://b.example/x ./\n'
  const { repositories } = await archives(t, {
    ...conf('Release=sid\n'),
    'mkosi.sandbox/etc/apt/sources.list.d/sid.list': source,
    'mkosi.sandbox/etc/apt/sources.list.d/not%.list': 'deb http://c.example x main\n',
  })
  assert.deepEqual(
    repositories.map((r) => [r.id, r.url, r.allowExpired ?? false]),
    [
      ['sid', DEBIAN_MIRROR, false],
      ['sid-2', 'http://a.example/x', true],
    ],
  )
})

test('archivesOf() has the recipe’s folders of packages last, at the priority of mkosi, under paths that are the same everywhere', async (t) => {
  const { repositories } = await archives(t, {
    ...conf('Release=sid\n[Content]\nPackageDirectories=a+b\nVolatilePackageDirectories=sub/a+b,sub\n'),
    'a+b/x': '',
    'sub/a+b/x': '',
  })
  assert.deepEqual(
    repositories.slice(1).map((r) => [r.id, r.url, r.priority]),
    [
      ['a-b', 'file:sub/a+b', 1100],
      ['sub', 'file:sub', 1100],
      ['a-b-2', 'file:a+b', 1100],
    ],
  )
})
