import assert from 'node:assert/strict'
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { loadRecipe } from '../recipe.ts'
import { bumpVersion, writeVersion } from './bump.ts'

/** A folder of files, gone after the test; those that begin with `#!` can be run. */
function folder(t: TestContext, files: Record<string, string>): string {
  const directory = mkdtempSync(join(tmpdir(), 'bisque-execute-'))
  t.after(() => rmSync(directory, { recursive: true, force: true }))
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(dirname(join(directory, name)), { recursive: true })
    writeFileSync(join(directory, name), text)
    if (text.startsWith('#!')) chmodSync(join(directory, name), 0o755)
  }
  return directory
}

const BASE = '[Distribution]\nRelease=sid\n'

test('mkosi.version may be a program, whose output conditions and specifiers see', async (t) => {
  const directory = folder(t, {
    'mkosi.conf': `${BASE}[Output]\nOutput=os_%v\n`,
    'mkosi.version': '#!/bin/sh\necho 3.$(cat minor)\necho told >&2\n',
    minor: '14\n',
    // Found only once the version is known
    'mkosi.conf.d/x/mkosi.conf': '[Match]\nImageVersion=>3\n[Content]\nPackages=x\n',
    'mkosi.conf.d/x/mkosi.machine-id': '#!/bin/sh\necho 0123456789abcdef0123456789abcdef\n',
  })
  const { settings, origins } = await loadRecipe(directory)
  assert.equal(settings.imageVersion, '3.14')
  assert.equal(settings.output, 'os_3.14')
  assert.deepEqual(settings.packages, ['x'])
  assert.equal(settings.machineId, '01234567-89ab-cdef-0123-456789abcdef')
  assert.equal(origins.get('imageVersion'), 'mkosi.version')
})

test('programs of a recipe see neither home folders, nor the environment, nor a network, and change nothing', async (t) => {
  const outside = folder(t, { secret: 'x' })
  const directory = folder(t, {
    'mkosi.conf': BASE,
    'mkosi.version': `#!/bin/sh
[ -e ${outside} ] || [ -e /root/.profile ] || [ -e /home ] || [ -e /var ] || printf 1
[ -n "$SECRET" ] || printf .1
touch "$PWD/new" 2>/dev/null || printf .1
touch /usr/new 2>/dev/null || printf .1
[ "$(grep -c : /proc/net/dev)" = 1 ] && printf .1
`,
  })
  process.env['SECRET'] = 'x'
  t.after(() => delete process.env['SECRET'])
  assert.equal((await loadRecipe(directory, { env: { SECRET: 'x' } })).settings.imageVersion, '1.1.1.1.1')
  assert.equal(existsSync(join(directory, 'new')), false)
})

test('a program of a recipe that fails is a Fault with what it said', async (t) => {
  const directory = folder(t, { 'mkosi.conf': BASE, 'mkosi.version': '#!/bin/sh\necho no git here >&2\nexit 3\n' })
  await assert.rejects(loadRecipe(directory), { name: 'Fault', message: /mkosi\.version[\s\S]*exit code 3[\s\S]*no git here/ })
})

test('bumpVersion() counts up the last number, or asks mkosi.bump', async (t) => {
  const next = async (files: Record<string, string>) => (await bumpVersion(folder(t, files))).version
  assert.equal(await next({}), '1')
  assert.equal(await next({ 'mkosi.version': '7\n' }), '8')
  assert.equal(await next({ 'mkosi.version': '1.9' }), '1.10')
  assert.equal(await next({ 'mkosi.version': '1.rc' }), '1.rc.2')
  assert.equal(await next({ 'mkosi.version': '1', 'mkosi.bump': '#!/bin/sh\necho 2026\n' }), '2026')
  await assert.rejects(next({ 'mkosi.bump': '#!/bin/sh\necho a b\n' }), { name: 'Fault', message: /got "a b"/ })
  await assert.rejects(next({ 'mkosi.version': '#!/bin/sh\necho 1\n' }), { name: 'Fault', message: /is a program/ })
  await assert.rejects(next({ 'mkosi.bump': 'echo 1\n' }), { name: 'Fault', message: /not executable/ })
  const bump = await bumpVersion(folder(t, { 'mkosi.version': '4' }))
  assert.equal(bump.previous, '4')
  writeVersion(bump)
  assert.equal(readFileSync(bump.file, 'utf8'), '5\n')
})

const CONFIGURE = `#!/usr/bin/env perl
use strict; local $/; $_ = <STDIN>;
die "no image" unless /"Image":"(main|one)"/;
my $image = $1;
die "env" unless $ENV{RELEASE} eq 'sid';
s/"Packages":\\[/"Packages":["from-$image",/;
s/"Bootable":"auto"/"Bootable":"disabled"/;
s/"Hostname":null/"Hostname":"named"/;
s/"SkeletonTrees":\\[\\]/"SkeletonTrees":[{"Source":"mkosi.conf","Target":"\\/x"}]/;
print;
`

test('configure scripts change settings of the image they are for', async (t) => {
  const directory = folder(t, {
    'mkosi.conf': `${BASE}[Content]\nPackages=a\nRootPassword=hunter2\n`,
    'mkosi.configure': CONFIGURE,
    'mkosi.images/one/mkosi.conf': '[Content]\nPackages=z\n',
    'mkosi.images/one/mkosi.configure': CONFIGURE,
    'mkosi.images/two/mkosi.conf': '[Content]\nPackages=b\n',
  })
  const recipe = await loadRecipe(directory)
  const { settings, origins, subimages } = recipe
  assert.deepEqual(settings.packages, ['from-main', 'a'])
  assert.deepEqual([settings.bootable, settings.hostname], [false, 'named'])
  assert.deepEqual(settings.skeletonTrees, [{ source: join(directory, 'mkosi.conf'), target: '/x' }])
  assert.equal(origins.get('packages'), 'mkosi.configure')
  assert.equal(origins.get('release'), 'mkosi.conf:2')
  assert.deepEqual(settings.rootPassword, { value: 'hunter2', hashed: false })
  assert.deepEqual(
    subimages.map(({ name, settings }) => [name, settings.packages]),
    [
      ['one', ['from-one', 'z']],
      ['two', ['b']],
    ],
  )
})

test('a configure script that prints what no setting takes is refused', async (t) => {
  const refused = async (script: string, message: RegExp) =>
    assert.rejects(loadRecipe(folder(t, { 'mkosi.conf': BASE, 'mkosi.configure': `#!/bin/sh\n${script}\n` })), {
      name: 'Fault',
      message,
    })
  await refused('echo nothing', /mkosi\.configure printed no JSON/)
  await refused('echo []', /printed JSON that is no object/)
  await refused(`echo '{"Bootable": "perhaps"}'`, /mkosi\.configure set Bootable: expected true, false or "auto", got "perhaps"/)
  await refused(`echo '{"Nonsense": 1}'`, /set Nonsense, which is no setting/)
  await refused(`echo '{"Distribution": "fedora"}'`, /set Distribution: "fedora" is known but not supported yet/)
  await refused('exit 1', /exit code 1/)
})
