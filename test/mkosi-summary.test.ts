/**
 * Our reading of folders in mkosi's format against mkosi's own, setting by setting.
 *
 * PARTICLEOS names a checkout of ParticleOS, MKOSI one of mkosi, whose code is the peer; SYSTEMD may name one of systemd.
 */
import assert from 'node:assert/strict'
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { isDeepStrictEqual } from 'node:util'
import { ROWS, settingNamed } from '../src/recipe/schema.ts'
import { type Case, copyTo, differencesIn, type Json, missing, runMkosi } from './mkosi-peer.ts'
import { judgeIn } from './oracle.ts'

type Call = Omit<Case, 'folder'>

const among = (folder: string, calls: readonly Call[]): Case[] => calls.map((call) => ({ folder, ...call }))

const PARTICLEOS_CASES: readonly Call[] = [
  {},
  { profiles: ['desktop', 'gnome'] },
  { profiles: ['desktop', 'kde'] },
  { profiles: ['desktop', 'sway'] },
  { profiles: ['obs-repos'] },
  { profiles: ['obs-repos-stable'] },
  { profiles: ['netesp'] },
  { profiles: ['netesp', 'obs-repos', 'desktop', 'gnome'], set: ['ImageVersion=7'] },
  ...['sid', 'testing', 'bookworm'].flatMap((release) =>
    [[], ['desktop', 'gnome'], ['obs-repos', 'netesp']].map((profiles) => ({ profiles, set: [`Release=${release}`] })),
  ),
  ...['fedora', 'arch', 'opensuse', 'ubuntu', 'centos'].flatMap((distribution) =>
    [[], ['desktop', 'gnome'], ['obs-repos', 'netesp'], ['desktop', 'kde']].map((profiles) => ({
      profiles,
      set: [`Distribution=${distribution}`],
    })),
  ),
  { set: ['Architecture=arm64'], profiles: ['desktop', 'gnome', 'netesp'] },
  { set: ['Format=uki'] },
  { set: ['Format=directory', 'Bootable=no'] },
  { set: ['Packages=zsh', 'KernelCommandLine=', 'KernelCommandLine=quiet', 'Hostname='] },
  { set: ['SplitArtifacts=yes', 'InitrdProfiles=lvm', 'InitrdProfiles=raid', 'InitrdPackages=vim'] },
  { set: ['RAM=1500M', 'RuntimeSize=5000', 'CPUs=0', 'Environment=A=1 B="x y"', 'Credentials=a=b', 'Seed='] },
]

test('ParticleOS reads as mkosi reads it, with every profile and distribution', { skip: missing('PARTICLEOS') }, async () => {
  using judge = judgeIn()
  const folder = copyTo(judge, process.env['PARTICLEOS']!)
  assert.deepEqual(await differencesIn(judge, among(folder, PARTICLEOS_CASES)), [])
})

test('ParticleOS reads as mkosi reads it with a machine’s keys, version and local settings', {
  skip: missing('PARTICLEOS'),
}, async () => {
  using judge = judgeIn()
  const folder = copyTo(judge, process.env['PARTICLEOS']!)
  const own: Record<string, string> = {
    'mkosi.key': 'key',
    'mkosi.crt': 'certificate',
    'mkosi.rootpw': 'hashed:x\n',
    'mkosi.passphrase': 'passphrase',
    'mkosi.version': '26.1~rc2\n',
    'mkosi.env': 'A=1\n',
    'mkosi.local.conf':
      '[Distribution]\nRelease=testing\n[Config]\nProfiles=desktop\n[Content]\nPackages=vim\nHostname=local\nInitrdPackages=nano\n',
    'mkosi.local/mkosi.conf': '[Content]\nPackages=emacs\nHostname=folder\nKernelCommandLine=local\n[Runtime]\nRAM=8G\n',
    'mkosi.initrd.conf': '[Content]\nPackages=strace\nKernelModules=-dm-crypt\n',
    'mkosi.packages/readme': '',
    'mkosi.skeleton/etc/skeleton': '',
    'mkosi.sandbox/etc/apt/sources.list.d/x.sources': '',
    'mkosi.images/extra.conf': '[Output]\nFormat=confext\n[Content]\nBaseTrees=base\nPackages=b\n         a\n',
  }
  for (const [name, text] of Object.entries(own)) {
    mkdirSync(dirname(join(folder, name)), { recursive: true })
    writeFileSync(join(folder, name), text, { mode: 0o600 })
  }
  const cases: Call[] = [
    {},
    { profiles: ['netesp'] },
    { set: ['Release=sid', 'Hostname=cli', 'RAM=1G', 'Packages=joe', 'ImageVersion=1'] },
  ]
  assert.deepEqual(await differencesIn(judge, among(folder, cases)), [])
})

test('systemd’s own folder reads as mkosi reads it', { skip: missing('SYSTEMD') }, async () => {
  using judge = judgeIn()
  const folder = copyTo(judge, process.env['SYSTEMD']!)
  withoutNewer(join(folder, 'mkosi'))
  assert.deepEqual(
    await differencesIn(judge, among(folder, everyDistribution(readdirSync(join(folder, 'mkosi/mkosi.profiles'))))),
    [],
  )
})

test('mkosi’s own folder reads as mkosi reads it', { skip: missing() }, async () => {
  using judge = judgeIn()
  const folder = copyTo(judge, process.env['MKOSI']!)
  assert.deepEqual(await differencesIn(judge, among(folder, everyDistribution(readdirSync(join(folder, 'mkosi.profiles'))))), [])
})

test('corners of the syntax read as mkosi reads them', { skip: missing() }, async () => {
  using judge = judgeIn()
  const folder = copyTo(judge, fileURLToPath(new URL('mkosi-corners', import.meta.url)))
  const cases: Call[] = [
    {},
    { profiles: ['one'] },
    { profiles: ['two', 'one'] },
    { set: ['Packages=', 'Packages=only', 'Environment=A=cli', 'KernelCommandLine=cli'] },
    { set: ['Format=directory'] },
    { set: ['Format=tar', 'ImageVersion=2.1'] },
    { set: ['ImageId=other', 'SplitArtifacts=tar', 'Bootable=no'] },
    { set: ['Distribution=fedora', 'Architecture=arm64', 'Environment='] },
  ]
  assert.deepEqual(await differencesIn(judge, among(folder, cases)), [])
})

test('the table of settings has mkosi’s sections, scopes, files, conditions and former names', {
  skip: missing(),
}, async () => {
  using judge = judgeIn()
  const differences = ((await runMkosi(judge, PRINT_SETTINGS)) as Json[]).flatMap(({ name, ...theirs }) => {
    const row = ROWS[settingNamed(name) ?? '']
    if (name === 'Incremental' || row === undefined) return row ? [] : [`${name} is no setting of ours`]
    const { section, scope, files = [], formerly = [], fileText = false, match } = row
    const ours = { section, scope, files, formerly, fileText, match: match !== undefined }
    return isDeepStrictEqual(ours, theirs) ? [] : [`${name}: ours ${JSON.stringify(ours)}, mkosi’s ${JSON.stringify(theirs)}`]
  })
  assert.deepEqual(differences, [])
})

const PRINT_SETTINGS = `
import json
from mkosi.config import SETTINGS
print(json.dumps([{
    'name': s.name, 'section': s.section, 'scope': str(s.scope).replace('_', '-'),
    'files': [*s.path_suffixes, *s.recursive_path_suffixes], 'fileText': s.path_read_text,
    'formerly': list(s.compat_names), 'match': s.match is not None,
} for s in SETTINGS]))
`

/** No profile with every distribution, and every profile with one. */
const everyDistribution = (profiles: readonly string[]): Call[] => [
  ...['debian', 'ubuntu', 'fedora', 'centos', 'arch', 'opensuse', 'postmarketos'].map((d) => ({ set: [`Distribution=${d}`] })),
  ...profiles.map((name) => ({ profiles: [name.replace(/\.conf$/, '')], set: ['Distribution=debian', 'Release=trixie'] })),
]

/** Drops what mkosi's checkout may be too old for, or has no history to judge by. */
function withoutNewer(folder: string): void {
  for (const file of readdirSync(folder, { recursive: true, encoding: 'utf8' })) {
    if (!file.endsWith('mkosi.conf')) continue
    const text = readFileSync(join(folder, file), 'utf8')
    writeFileSync(join(folder, file), text.replace(/^(?:MinimumVersion=commit:.*|Incremental=relaxed)\n/gm, ''))
  }
}
