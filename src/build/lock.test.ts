import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { type ArchiveOptions, type ArchivePackage, makeArchive, makeKey, NOW } from '../../test/archive.ts'
import { debOf } from '../../test/deb.ts'
import { oracle } from '../../test/oracle.ts'
import { serve } from '../../test/server.ts'
import { Fault } from '../base/fault.ts'
import { type Event, Report } from '../base/report.ts'
import { formatLockChange, type Lock, packagesIn } from '../packages/lock.ts'
import { loadRecipe } from '../recipe/recipe.ts'
import { openStore } from '../store/store.ts'
import type { Env } from './env.ts'
import { kernelless, refuseKernelless } from './kernelless.ts'
import { lockRecipe, requireLock } from './lock.ts'
import { fetchLocked, lockFor, packagesOf } from './locked.ts'

const key = await makeKey()

const BASE: readonly ArchivePackage[] = [
  { name: 'base-files', fields: { Essential: 'yes', 'Pre-Depends': 'awk' } },
  { name: 'mawk', fields: { Provides: 'awk', Priority: 'required' } },
  { name: 'gawk', fields: { Provides: 'awk' } },
]
const app = (version: string): ArchivePackage => ({ name: 'app', version, fields: { Depends: 'libapp' } })
const PACKAGES: readonly ArchivePackage[] = [
  ...BASE,
  app('1.0'),
  { name: 'libapp' },
  { name: 'gcc', fields: { Depends: 'libapp, libc-dev' } },
  { name: 'libc-dev' },
]

interface Kitchen {
  folder: string
  env: Env
  notes: string[]
  /** Its key and URL, as a stanza of `.sources`. */
  stanza: string
  load(): ReturnType<typeof loadRecipe>
}

/** A folder in mkosi's format whose one repository is an archive made here. */
async function kitchen(
  t: TestContext,
  files: Record<string, string | Buffer>,
  options: Partial<ArchiveOptions> = {},
): Promise<Kitchen> {
  const folder = mkdtempSync(join(tmpdir(), 'bisque-lock-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  const server = await serve(t, await makeArchive({ keys: [key], packages: PACKAGES, ...options }))
  const stanza = stanzaOf(server.url, Buffer.from(key.certificate).toString())
  write(folder, { 'mkosi.sandbox/etc/apt/sources.list.d/mkosi.sources': stanza, ...files })
  const notes: string[] = []
  const report = new Report((event: Event) => void (event.type === 'note' && notes.push(event.message)))
  const cache = join(folder, 'cache')
  const env: Env = {
    cache,
    store: await openStore(cache),
    report,
    now: NOW,
    offline: false,
    network: { retries: 0, backoffMs: 1 },
  }
  return { folder, env, notes, stanza, load: () => loadRecipe(folder) }
}

const stanzaOf = (url: string, certificate: string, place = 'Suites: test\nComponents: main') =>
  `Types: deb\nURIs: ${url}\n${place}\nSigned-By:\n${certificate.trim().replace(/^\s*$/gm, '.').replace(/^/gm, ' ')}\n`

function write(folder: string, files: Record<string, string | Buffer>): void {
  for (const [path, content] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, path)), { recursive: true })
    writeFileSync(join(folder, path), content, { mode: /mkosi\.(build|finalize)/.test(path) ? 0o755 : 0o644 })
  }
}

const CONF = '[Distribution]\nDistribution=debian\nRelease=test\n[Output]\nFormat=directory\n[Content]\nBootable=no\n'

const pins = (lock: Lock, group: string) =>
  packagesIn(lock, group)
    .map((p) => `${p.name} ${p.version}`)
    .sort()
    .join(', ')

async function refusal(promise: Promise<unknown>): Promise<Fault> {
  const error = await promise.then(
    () => undefined,
    (error) => error,
  )
  assert.ok(error instanceof Fault, String(error))
  return error
}

test('lockRecipe() locks every image by itself: the base first, as mkosi does, then what is asked for, then build packages', async (t) => {
  const { load, env } = await kitchen(t, {
    'mkosi.conf': `${CONF}Packages=gawk\nBuildPackages=gcc\n`,
    'mkosi.build': '#!/bin/sh\n',
    'mkosi.images/base/mkosi.conf': '[Output]\nFormat=directory\n[Content]\nBootable=no\nPackages=libapp\n',
    'mkosi.images/top/mkosi.conf':
      '[Config]\nDependencies=base\n[Output]\nFormat=directory\n[Content]\nBootable=no\nBaseTrees=%O/base\nPackages=app\n',
    'mkosi.images/none/mkosi.conf': '[Output]\nFormat=none\n[Content]\nBootable=no\n',
  })
  const recipe = await load()
  const { lock, written } = await lockRecipe(recipe, {}, env)
  assert.ok(written)
  assert.equal(pins(lock, 'image'), 'base-files 1.0, gawk 1.0, mawk 1.0')
  assert.equal(pins(lock, 'build'), 'gcc 1.0, libapp 1.0, libc-dev 1.0')
  assert.equal(pins(lock, 'image:base'), 'base-files 1.0, libapp 1.0, mawk 1.0')
  assert.equal(pins(lock, 'image:top'), 'app 1.0')
  assert.equal(pins(lock, 'image:none'), 'base-files 1.0, mawk 1.0')
  const order = ['image', 'build', 'image:base', 'image:none', 'image:top']
  assert.deepEqual([...lock.groups.keys()], order, 'as it will be once it was written and read')
  assert.equal(pins(lock, 'initrd'), '')

  assert.equal((await lockRecipe(recipe, {}, env)).written, false)
  const { packages } = await fetchLocked(recipe, await requireLock(recipe), { relock: false }, env)
  assert.equal(readFileSync(packagesOf(packages, 'top')[0]!.file, 'utf8'), 'the bytes of app 1.0')
})

const IMAGES = {
  'mkosi.conf': `${CONF}Packages=app\n`,
  'mkosi.images/sub/mkosi.conf': '[Output]\nFormat=directory\n[Content]\nBootable=no\n',
  'mkosi.profiles/more.conf': '[Content]\nPackages=gcc\n',
  'mkosi.profiles/tar.conf': '[Output]\nFormat=tar\n',
}

test('lockRecipe() keeps a lock for each set of profiles that asks for other packages, each renewed by itself', async (t) => {
  const { folder, load, env } = await kitchen(t, IMAGES)
  const path = join(folder, 'bisque.lock')
  await lockRecipe(await load(), {}, env)
  const plain = readFileSync(path, 'utf8')
  const more = await loadRecipe(folder, { profiles: ['more'] })
  const fault = await refusal(requireLock(more))
  assert.match(fault.message, /bisque\.lock has no packages for profile more$/)
  assert.equal(fault.hint, `bisque lock ${folder} --profile more`)

  const { lock, changes } = await lockRecipe(more, {}, env)
  assert.deepEqual(changes.map(formatLockChange), ['+ gcc 1.0', '+ libc-dev 1.0'])
  const both = readFileSync(path, 'utf8')
  assert.ok(both.startsWith(plain), 'the lock without profiles stays as it is')
  assert.match(both.slice(plain.length), /^profiles more\nrepository /)
  assert.deepEqual(await requireLock(more), lock)
  assert.equal(pins(await requireLock(await load()), 'image'), 'app 1.0, base-files 1.0, libapp 1.0, mawk 1.0')

  write(folder, { 'mkosi.profiles/more.conf': '[Content]\nPackages=gawk\n' })
  const changed = await loadRecipe(folder, { profiles: ['more'] })
  assert.match((await refusal(requireLock(changed))).message, /than the recipe asks for now in \[image\]$/)
  await requireLock(await load())
  await lockRecipe(changed, {}, env)
  assert.ok(readFileSync(path, 'utf8').startsWith(plain))
  assert.equal(pins(await requireLock(changed), 'image'), 'app 1.0, base-files 1.0, gawk 1.0, libapp 1.0, mawk 1.0')

  rmSync(join(folder, 'mkosi.profiles/more.conf'))
  assert.equal((await lockRecipe(await load(), {}, env)).written, false)
  await lockRecipe(await load(), { update: 'all' }, env)
  assert.equal(readFileSync(path, 'utf8'), plain, 'an update drops the lock of a profile that is gone')
})

test('requireLock() takes the lock of other profiles where it answers all the same, and only the groups asked for', async (t) => {
  const { folder, load, env } = await kitchen(t, IMAGES)
  await lockRecipe(await load(), {}, env)
  const tar = await loadRecipe(folder, { profiles: ['tar'] })
  assert.deepEqual([...(await requireLock(tar)).groups.keys()], ['image', 'image:sub'])
  assert.equal((await lockRecipe(tar, {}, env)).written, false)
  rmSync(join(folder, 'mkosi.images'), { recursive: true })
  assert.deepEqual([...(await requireLock(await load())).groups.keys()], ['image'])
  assert.equal((await lockRecipe(await load(), {}, env)).written, false)
})

test('a group answers its own request: a change to one image leaves the locks of the others standing', async (t) => {
  const { folder, load, env } = await kitchen(t, IMAGES)
  await lockRecipe(await load(), {}, env)
  write(folder, { 'mkosi.conf': `${CONF}Packages=app,gawk\n` })
  assert.match((await refusal(requireLock(await load()))).message, /asks for now in \[image\]$/)
  write(folder, { 'mkosi.conf': CONF.replace('debian', 'debian\nRepositories=contrib') })
  assert.match((await refusal(requireLock(await load()))).message, /asks for now in \[image:sub\], \[image\]$/)
})

test('lockFor() locks profiles with packages of their own on their first build, from the versions of the others', async (t) => {
  const { folder, load, env, notes } = await kitchen(t, IMAGES)
  await lockFor(await load(), env)
  const path = join(folder, 'bisque.lock')
  writeFileSync(path, readFileSync(path, 'utf8').replace(/^app 1\.0 /m, 'app 0.9 '))
  const more = await loadRecipe(folder, { profiles: ['more'] })
  assert.equal(pins(await lockFor(more, env), 'image'), 'app 1.0, base-files 1.0, gcc 1.0, libapp 1.0, libc-dev 1.0, mawk 1.0')
  assert.equal(notes.filter((note) => /^wrote .*bisque\.lock/.test(note)).length, 2)
  assert.match(readFileSync(path, 'utf8'), /^app 0\.9 [\s\S]*^profiles more$/m)
})

test('an image that must boot has a kernel among its packages, or at least something that may bring one', async (t) => {
  const conf = CONF.replace('directory', 'disk').replace('Bootable=no', 'Bootable=yes\nInitrds=x')
  const { folder, load, env, notes } = await kitchen(t, { 'mkosi.conf': conf, x: '' })
  const recipe = await load()
  const { lock } = await lockRecipe(recipe, {}, env)
  assert.deepEqual(notes, ['no package of [image] is a kernel, which the image needs to boot: add one such as linux-image-amd64'])
  const found = async (change: (lock: Lock) => Lock = (same) => same) => kernelless(await load(), change(lock))
  assert.deepEqual(await found(), [{ image: 'main', group: 'image', isCertain: false }], 'the archive may name kernels otherwise')
  const ofDebian = (lock: Lock): Lock => ({
    ...lock,
    repositories: lock.repositories.map((r) => ({ ...r, url: 'http://deb.debian.org/debian' })),
  })
  assert.deepEqual(await found(ofDebian), [{ image: 'main', group: 'image', isCertain: true }])
  assert.throws(() => refuseKernelless(recipe, ofDebian(lock)), /Cannot make the image bootable: the image has no kernel/)
  const kernel = { ...packagesIn(lock, 'image')[0]!, name: 'linux-image-6.12.0-amd64' }
  const image = { ...lock.groups.get('image')!, packages: [kernel] }
  assert.deepEqual(await found(() => ({ ...lock, groups: new Map([['image', image]]) })), [])

  write(folder, { 'mkosi.extra/usr/lib/modules/6.1/vmlinuz': '' })
  assert.equal((await found(ofDebian))[0]!.isCertain, false, 'a tree may bring one')
  rmSync(join(folder, 'mkosi.extra'), { recursive: true })
  write(folder, { 'mkosi.finalize': '#!/bin/sh\n' })
  assert.equal((await found(ofDebian))[0]!.isCertain, false, 'a script may bring one')
  write(folder, { 'mkosi.conf': conf.replace('Bootable=yes', 'Bootable=auto') })
  assert.deepEqual(await found(ofDebian), [], 'it need not boot')
  write(folder, { 'mkosi.conf': CONF.replace('Bootable=no', 'Bootable=auto') })
  assert.deepEqual(await found(ofDebian), [], 'a folder is not booted')
})

test('lockRecipe() counts what a base tree’s own database says is there', async (t) => {
  const installed = (name: string, version: string) =>
    `Package: ${name}\nStatus: install ok installed\nVersion: ${version}\nArchitecture: amd64\n`
  const { folder, load, env } = await kitchen(t, {
    'mkosi.conf': `${CONF}BaseTrees=tree\nPackages=app,gawk\n`,
    'tree/var/lib/dpkg/status': [installed('libapp', '0.5'), installed('base-files', '0.5'), installed('mawk', '1.0')].join('\n'),
  })
  assert.equal(pins((await lockRecipe(await load(), {}, env)).lock, 'image'), 'app 1.0, gawk 1.0')
  await requireLock(await load())
  write(folder, { 'tree/var/lib/dpkg/status': installed('base-files', '0.5') })
  assert.match((await refusal(requireLock(await load()))).message, /was made for other packages/)
  assert.equal(pins((await lockRecipe(await load(), {}, env)).lock, 'image'), 'app 1.0, gawk 1.0, libapp 1.0')
})

test('lockRecipe() goes on without tools of a folder that are not there, and says so', async (t) => {
  const { load, env, notes } = await kitchen(t, { 'mkosi.conf': `${CONF}Packages=app\n[Build]\nToolsTreePackages=dnf\n` })
  assert.equal(pins((await lockRecipe(await load(), {}, env)).lock, 'tools'), '')
  assert.match(notes.join(), /^\[tools\] is left empty: Cannot resolve packages: there is no package dnf/)
})

test('lockRecipe() leaves removed packages in the set of a folder: they are purged once all is installed', async (t) => {
  const { load, env } = await kitchen(t, { 'mkosi.conf': `${CONF}Packages=app\nRemovePackages=libapp\n` })
  assert.equal(pins((await lockRecipe(await load(), {}, env)).lock, 'image'), 'app 1.0, base-files 1.0, libapp 1.0, mawk 1.0')
})

test('lockRecipe() gives extensions no base, and packages only upon a base tree', async (t) => {
  const sub = (format: string, more = '') => `[Output]\nFormat=${format}\n[Content]\nBootable=no\n${more}`
  const { folder, load, env } = await kitchen(t, {
    'mkosi.conf': CONF,
    'mkosi.images/plain/mkosi.conf': sub('sysext'),
    'mkosi.images/portable/mkosi.conf': sub('portable'),
  })
  const { lock } = await lockRecipe(await load(), {}, env)
  assert.equal(pins(lock, 'image:plain'), '')
  assert.equal(pins(lock, 'image:portable'), 'base-files 1.0, mawk 1.0')
  write(folder, { 'mkosi.images/plain/mkosi.conf': sub('sysext', 'Packages=app\n') })
  const fault = await refusal(load().then((recipe) => lockRecipe(recipe, {}, env)))
  assert.match(fault.message, /Cannot install app in image plain: an extension has no packages without a base tree/)
})

test('lockRecipe() leaves volatile packages that no repository has to build scripts, where there are any', async (t) => {
  const { folder, load, env, notes } = await kitchen(t, { 'mkosi.conf': `${CONF}VolatilePackages=app,own\n` })
  assert.match((await refusal(lockRecipe(await load(), {}, env))).message, /there is no package own/)
  write(folder, { 'mkosi.build': '#!/bin/sh\n' })
  assert.equal(pins((await lockRecipe(await load(), {}, env)).lock, 'image'), 'app 1.0, base-files 1.0, libapp 1.0, mawk 1.0')
  assert.deepEqual(notes, ['[image] leaves own to build scripts: no repository has it'])
})

test('lockRecipe() says in which image a conflict is', async (t) => {
  const { load, env } = await kitchen(t, {
    'mkosi.conf': `${CONF}Packages=app\n`,
    'mkosi.images/sub/mkosi.conf': '[Output]\nFormat=directory\n[Content]\nBootable=no\nPackages=nonesuch\n',
  })
  assert.match(
    (await refusal(lockRecipe(await load(), {}, env))).message,
    /^In \[image:sub\]: Cannot resolve packages: there is no package nonesuch/,
  )
})

test('lockRecipe() takes packages of the recipe’s folder whatever their version; another file there asks for a new lock', async (t) => {
  const { folder, load, env } = await kitchen(t, {
    'mkosi.conf': `${CONF}Packages=app\nPackageDirectories=packages\n`,
    'packages/app_0.9_all.deb': debOf('app', '0.9', { Depends: 'own' }),
    'packages/own_1_all.deb': debOf('own', '1'),
    'packages/README': 'no package',
  })
  const recipe = await load()
  const { lock, path } = await lockRecipe(recipe, {}, env)
  assert.equal(pins(lock, 'image'), 'app 0.9, base-files 1.0, mawk 1.0, own 1')
  assert.match(readFileSync(path, 'utf8'), /^repository packages deb amd64 file:packages \/ - 19700101T000000Z [0-9a-f]{64}$/m)
  const { packages } = await fetchLocked(recipe, await requireLock(recipe), { relock: false }, env)
  const own = packagesOf(packages, 'main').find((p) => p.name === 'own')!
  assert.deepEqual(readFileSync(own.file), debOf('own', '1'))

  write(folder, { 'packages/own_1_all.deb': debOf('own', '1', { Section: 'misc' }) })
  const fault = await refusal(requireLock(recipe))
  assert.match(fault.message, /was made for other packages in .*\/packages: own_1_all\.deb changed$/)
  assert.match(fault.hint!, /^bisque lock /)
  const relocked = await lockRecipe(recipe, {}, env)
  assert.deepEqual(
    relocked.changes.map((change) => change.name),
    ['own'],
  )
  rmSync(join(folder, 'packages/own_1_all.deb'))
  assert.match((await refusal(requireLock(recipe))).message, /own_1_all\.deb is gone$/)
  write(folder, { 'packages/own_1_all.deb': debOf('own', '1', { Section: 'misc' }), 'packages/new_1_all.deb': debOf('new', '1') })
  assert.match((await refusal(requireLock(recipe))).message, /files came, went or changed of which it pins none$/)
})

test('lockFor() renews the pins of volatile packages and no others, and says so', async (t) => {
  const { folder, load, env, notes } = await kitchen(t, {
    'mkosi.conf': `${CONF}Packages=gawk\nVolatilePackages=app\nVolatilePackageDirectories=fresh\n`,
    'fresh/app_2.0_all.deb': debOf('app', '2.0'),
  })
  const recipe = await load()
  assert.equal(pins(await lockFor(recipe, env), 'image'), 'app 2.0, base-files 1.0, gawk 1.0, mawk 1.0')
  rmSync(join(folder, 'fresh/app_2.0_all.deb'))
  write(folder, { 'fresh/app_2.1_all.deb': debOf('app', '2.1') })
  notes.length = 0
  assert.equal(pins(await lockFor(recipe, env), 'image'), 'app 2.1, base-files 1.0, gawk 1.0, mawk 1.0')
  assert.equal(notes.length, 1)
  assert.match(notes[0]!, /fresh changed; updated .*bisque\.lock: app 2\.0 → 2\.1$/)
  notes.length = 0
  await lockFor(recipe, env)
  assert.deepEqual(notes, [])
})

test('lockRecipe() refuses files that are no packages', async (t) => {
  const { folder, load, env } = await kitchen(t, {
    'mkosi.conf': `${CONF}PackageDirectories=packages\n`,
    'packages/x.deb': 'not at all',
  })
  const recipe = await load()
  assert.match((await refusal(lockRecipe(recipe, {}, env))).message, /Cannot use .*packages\/x\.deb: Cannot read/)
  rmSync(join(folder, 'packages/x.deb'))
  write(folder, { 'packages/a b\n.deb': debOf('a', '1') })
  assert.match((await refusal(lockRecipe(recipe, {}, env))).message, /"a b\\n\.deb" is not named like a package/)
  rmSync(join(folder, 'packages/a b\n.deb'))
  write(folder, { 'packages/big_1_all.deb': '' })
  truncateSync(join(folder, 'packages/big_1_all.deb'), 2 ** 31 + 1)
  assert.match((await refusal(lockRecipe(recipe, {}, env))).message, /big_1_all\.deb: .*, expected at most 2/)
  rmSync(join(folder, 'packages/big_1_all.deb'))
  mkdirSync(join(folder, 'packages/d.deb'))
  assert.match((await refusal(lockRecipe(recipe, {}, env))).message, /d\.deb: it is no file/)
})

test('fetchLocked() takes no package from a folder whose bytes are others than those pinned', async (t) => {
  const { folder, load, env } = await kitchen(t, {
    'mkosi.conf': `${CONF}Packages=own\nPackageDirectories=packages\n`,
    'packages/own_1_all.deb': debOf('own', '1'),
  })
  const recipe = await load()
  const { lock } = await lockRecipe(recipe, {}, env)
  write(folder, { 'packages/own_1_all.deb': debOf('own', '1', { Section: 'evil' }) })
  const elsewhere = { ...env, store: await openStore(join(folder, 'other')) }
  const fault = await refusal(fetchLocked(recipe, lock, { relock: false }, elsewhere))
  assert.match(fault.message, /Cannot use .*own_1_all\.deb: its SHA-256 is [0-9a-f]{64}, expected [0-9a-f]{64}/)
  assert.equal(fault.code, 'integrity')
})

test('lockRecipe() refuses expired metadata, names the setting that allows it, and takes apt’s word for it too', async (t) => {
  const late = { now: new Date('2026-12-24T00:00:00Z') }
  const { folder, load, env, notes } = await kitchen(t, { 'mkosi.conf': `${CONF}Packages=app\n` })
  const fault = await refusal(lockRecipe(await load(), {}, { ...env, ...late }))
  assert.match(fault.message, /it was valid until 2026-11-30T06:00:00Z, now is 2026-12-24/)
  assert.match(fault.hint!, /AllowExpired=yes/)
  assert.ok((await lockRecipe(await loadRecipe(folder, { set: ['AllowExpired=yes'] }), {}, { ...env, ...late })).written)
  rmSync(join(folder, 'bisque.lock'))
  write(folder, {
    'mkosi.sandbox/etc/apt/apt.conf.d/99x': 'Acquire::Check-Valid-Until "false";\nAPT::Install-Recommends "true";\n',
  })
  assert.ok((await lockRecipe(await load(), {}, { ...env, ...late })).written)
  assert.match(
    notes.join('\n'),
    /99x: metadata past its Valid-Until is accepted\n.*99x: APT::Install-Recommends without effect: WithRecommends= decides/,
  )
})

test('lockRecipe() reads sources beside the distribution’s, their keys and pins from sandbox trees', async (t) => {
  const other = await makeKey('Other')
  const server = await serve(t, await makeArchive({ keys: [other], packages: [app('3.0'), { name: 'extra', version: '3.0' }] }))
  const { folder, load, env } = await kitchen(t, { 'mkosi.conf': `${CONF}Packages=app,extra\n` })
  const list = `deb [signed-by=/etc/apt/keyrings/other.asc] ${server.url} test main\n`
  write(folder, { 'mkosi.sandbox/etc/apt/sources.list.d/other.list': list })
  const fault = await refusal(load().then((recipe) => lockRecipe(recipe, {}, env)))
  assert.match(fault.message, /other\.list:1: its keyring \/etc\/apt\/keyrings\/other\.asc is not in the sandbox trees/)
  assert.match(fault.hint!, /copy the keyring to mkosi\.sandbox\/etc\/apt\/keyrings\/other\.asc/)

  write(folder, { 'mkosi.sandbox/etc/apt/keyrings/other.asc': Buffer.from(key.certificate) })
  assert.match((await refusal(lockRecipe(await load(), {}, env))).message, /no signature is good/)

  write(folder, { 'mkosi.sandbox/etc/apt/keyrings/other.asc': Buffer.from(other.certificate) })
  assert.match(pins((await lockRecipe(await load(), {}, env)).lock, 'image'), /^app 3\.0, .*extra 3\.0/)

  write(folder, { 'mkosi.sandbox/etc/apt/preferences.d/x': 'Package: app\nPin: version 1.*\nPin-Priority: 900\n' })
  const pinned = await lockRecipe(await load(), {}, env)
  assert.ok(pinned.written, 'another preference asks for another lock')
  assert.match(pins((await lockRecipe(await load(), { update: 'all' }, env)).lock, 'image'), /^app 1\.0, .*extra 3\.0/)
})

test('lockRecipe() takes nothing from backports by itself, as their Release says', async (t) => {
  const release = { Suite: 'test-backports', Codename: 'test', NotAutomatic: 'yes', ButAutomaticUpgrades: 'yes' }
  const server = await serve(
    t,
    await makeArchive({ keys: [key], packages: [app('3.0'), { name: 'extra', version: '3.0' }], release }),
  )
  const { folder, load, env, stanza } = await kitchen(t, { 'mkosi.conf': `${CONF}Packages=app,extra\n` })
  const backports = stanza.replace(/^URIs:.*/m, `URIs: ${server.url}`)
  write(folder, { 'mkosi.sandbox/etc/apt/sources.list.d/backports.sources': backports })
  assert.match(pins((await lockRecipe(await load(), {}, env)).lock, 'image'), /^app 1\.0, .*extra 3\.0/)
  write(folder, { 'mkosi.conf': `${CONF}Packages=app/backports\n` })
  assert.match(pins((await lockRecipe(await load(), { update: 'all' }, env)).lock, 'image'), /^app 3\.0/)
})

oracle(
  'dpkg-scanpackages',
  'lockRecipe() takes packages of flat repositories that Debian’s tools make and gpg signs',
  async (t, judge) => {
    const served = new Map<string, Buffer>()
    const server = await serve(t, served)
    mkdirSync(join(judge.dir, 'repo/sub'), { recursive: true })
    writeFileSync(join(judge.dir, 'repo/flat_1_all.deb'), debOf('flat', '1', { Depends: 'deep' }))
    writeFileSync(join(judge.dir, 'repo/sub/deep_1_all.deb'), debOf('deep', '1'))
    const script = `
    export GNUPGHOME=$PWD/home; mkdir -m 700 $GNUPGHOME
    gpg --batch --pinentry-mode loopback --passphrase '' --faked-system-time 20261101T000000 --quick-generate-key flat@example.org ed25519 sign 0
    gpg --armor --export > key.asc
    cd repo
    dpkg-scanpackages --multiversion . > Packages; gzip -k9 Packages
    apt-ftparchive release . > ../Release; mv ../Release .
    sed -i 's/^Date:.*/Date: Sun, 22 Nov 2026 06:00:00 UTC/' Release
    gpg --batch --pinentry-mode loopback --passphrase '' --faked-system-time 20261122T060000 $1 Release`
    const publish = async (sign: string) => {
      rmSync(join(judge.dir, 'home'), { recursive: true, force: true })
      for (const name of ['Packages', 'Packages.gz', 'Release', 'Release.gpg', 'InRelease'])
        rmSync(join(judge.dir, 'repo', name), { force: true })
      await judge.run(['sh', '-ec', script, 'sh', sign])
      served.clear()
      for (const entry of readdirSync(join(judge.dir, 'repo'), { recursive: true, withFileTypes: true })) {
        const path = join(entry.parentPath, entry.name)
        if (entry.isFile()) served.set(`obs/${path.slice(judge.dir.length + '/repo/'.length)}`, readFileSync(path))
      }
      return stanzaOf(`${server.url}/obs/`, readFileSync(join(judge.dir, 'key.asc'), 'utf8'), 'Suites: /')
    }
    const { folder, load, env } = await kitchen(t, {
      'mkosi.conf': `${CONF}Packages=flat\n[Build]\nSandboxTrees=x.sources:/etc/apt/sources.list.d/y.sources\n`,
      'x.sources': `# a comment\n${await publish('--detach-sign --armor -o Release.gpg')}`,
    })
    const recipe = await load()
    const { lock, path } = await lockRecipe(recipe, {}, env)
    assert.equal(pins(lock, 'image'), 'base-files 1.0, deep 1, flat 1, mawk 1.0')
    assert.match(readFileSync(path, 'utf8'), /^deep 1 all y \d+ [0-9a-f]{64} sub\/deep_1_all\.deb$/m)
    const { packages } = await fetchLocked(recipe, await requireLock(recipe), { relock: false }, env)
    assert.equal(packagesOf(packages, 'main').length, 4)

    write(folder, { 'x.sources': await publish('--clear-sign -o InRelease') })
    assert.ok(await lockRecipe(await load(), { update: 'all' }, env))
    served.set('obs/Packages', Buffer.from('changed'))
    served.set('obs/Packages.gz', Buffer.from('changed'))
    const elsewhere = { ...env, store: await openStore(join(folder, 'other')) }
    assert.equal((await refusal(lockRecipe(await load(), { update: 'all' }, elsewhere))).code, 'integrity')
  },
)
