import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { findGlob } from './globs.ts'

function rootWith(t: TestContext, files: readonly string[]): string {
  const root = mkdtempSync(join(tmpdir(), 'bisque-globs-'))
  t.after(() => rmSync(root, { recursive: true, force: true }))
  for (const file of files) {
    mkdirSync(join(root, dirname(file)), { recursive: true })
    writeFileSync(join(root, file), '')
  }
  return root
}

const FILES = ['usr/lib/a.service', 'usr/lib/b.service', 'usr/lib/.hidden', 'usr/lib/deep/er/c.service', 'usr/lib/[x]', 'etc/a']

test('findGlob() finds names by star, question mark and bracket within one folder', (t) => {
  const root = rootWith(t, FILES)
  assert.deepEqual(findGlob(root, '/usr/lib/*.service'), ['usr/lib/a.service', 'usr/lib/b.service'])
  assert.deepEqual(findGlob(root, 'usr/lib/?.service'), ['usr/lib/a.service', 'usr/lib/b.service'])
  assert.deepEqual(findGlob(root, '/usr/lib/[!a].service'), ['usr/lib/b.service'])
  assert.deepEqual(findGlob(root, '/usr/lib/[[]x]'), ['usr/lib/[x]'])
  assert.deepEqual(findGlob(root, '/usr/lib/.h*'), ['usr/lib/.hidden'])
})

test('findGlob() lets two stars stand for any folders, none among them', (t) => {
  const root = rootWith(t, FILES)
  assert.deepEqual(findGlob(root, '/usr/**/*.service'), ['usr/lib/a.service', 'usr/lib/b.service', 'usr/lib/deep/er/c.service'])
  assert.deepEqual(findGlob(root, '/**/a'), ['etc/a'])
})

test('findGlob() follows links of the literal part inside the root, and never out of it', (t) => {
  const root = rootWith(t, FILES)
  symlinkSync('usr/lib', join(root, 'lib'))
  symlinkSync('/etc', join(root, 'absolute'))
  symlinkSync('../../../../../../../../etc', join(root, 'climbs'))
  assert.deepEqual(findGlob(root, '/lib/a.*'), ['usr/lib/a.service'])
  assert.deepEqual(findGlob(root, '/absolute/*'), ['etc/a'])
  assert.deepEqual(findGlob(root, '/climbs/*'), ['etc/a'])
  assert.deepEqual(findGlob(root, '/lib'), ['lib'], 'a link that is named itself')
  assert.deepEqual(findGlob(root, '/../etc/*'), [])
})

test('findGlob() finds nothing where nothing is, and never the root', (t) => {
  const root = rootWith(t, FILES)
  for (const glob of ['/', '', '.', '/nowhere/*', '/usr/lib/a.service/x']) assert.deepEqual(findGlob(root, glob), [], glob)
})
