/**
 * Our reading of a folder in mkosi's format against mkosi's own, setting by setting.
 *
 * PARTICLEOS names a checkout of ParticleOS, MKOSI one of mkosi, whose code is the peer; SYSTEMD may name one of systemd.
 */
import assert from 'node:assert/strict'
import { chmodSync, cpSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { isDeepStrictEqual } from 'node:util'
import { loadRecipe, type Recipe } from '../src/recipe/recipe.ts'
import { mkosiName, ROWS, settingNamed } from '../src/recipe/schema.ts'
import { byName, summaryOf } from '../src/recipe/summary.ts'
import { JUDGES, type Judge, judgeIn } from './oracle.ts'

type Json = Record<string, any>

/** One way of calling both. */
interface Case {
  profiles?: readonly string[]
  /** As after `--set`. */
  set?: readonly string[]
}

const PARTICLEOS_CASES: readonly Case[] = [
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

/** Where the two may differ, and why. Both values are made the same before they are compared. */
const EXPLAINED: Readonly<Record<string, { why: string; alike: (value: any, side: 'ours' | 'theirs', image: Json) => unknown }>> =
  {
    Seed: { why: 'mkosi draws it at random, ours follows from the image’s id', alike: () => 'a GUID' },
    SectorSize: { why: 'without one mkosi leaves it to systemd-repart, which takes 512', alike: (value) => value ?? 512 },
    RemoveFiles: {
      why: 'patterns count from the root with and without a slash in front; our built-in initrd has an order of its own',
      alike: (value: string[], _, { Image }) => {
        const patterns = value.map((pattern) => pattern.replace(/^\/*/, '/'))
        return Image === 'default-initrd' ? patterns.sort() : patterns
      },
    },
    KernelModules: {
      why: 'our built-in initrd names the same modules in an order of its own; what is left out comes after what it is left out of',
      alike: (value: string[], _, { Image }) => (Image === 'default-initrd' ? [...value].sort() : value),
    },
    Credentials: {
      why: 'their values are secret',
      alike: (value: Json[]) => value.map(({ Name, Path }) => ({ Name, Path })),
    },
    OutputDirectory: {
      why: 'mkosi writes among the recipe’s own files unless mkosi.output/ is there or it is told otherwise',
      alike: (value: string | null) => (value ?? 'mkosi.output').replace(/^.*\/(?=mkosi\.output$)/, ''),
    },
    RootPassword: { why: 'it is secret', alike: (value) => value?.[1] ?? null },
    ExtraTrees: {
      why: 'a target cannot leave the image: `..` is resolved when it is read',
      alike: (value: Json[]) => value.map(({ Source, Target }) => ({ Source, Target: Target && normalize(Target) })),
    },
    Initrds: {
      why: 'ours names the default initrd, mkosi the file it will be in',
      alike: (value: string[]) => value.map((file) => (/(^|\/)initrd$/.test(file) ? 'default' : file)),
    },
    Dependencies: {
      why: 'which images are made, and in which order, is compared by itself',
      alike: () => [],
    },
  }

/** What mkosi tells of an image beside its settings. */
const NOT_SETTINGS = ['Image', 'Directory', 'Files', 'BuildSubdirectory']

const missing = (name: string): string | false => {
  const wanted = [...new Set([name, 'MKOSI'])].filter((variable) => !process.env[variable] || !existsSync(process.env[variable]!))
  if (wanted.length > 0) return `${wanted.join(' and ')} must name a checkout`
  return JUDGES === undefined ? 'npm test prepares the tools' : false
}

test('ParticleOS reads as mkosi reads it, with every profile and distribution', { skip: missing('PARTICLEOS') }, async () => {
  using judge = judgeIn()
  const folder = copyTo(judge, process.env['PARTICLEOS']!)
  assert.deepEqual(await differencesIn(judge, folder, PARTICLEOS_CASES), [])
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
  const cases: Case[] = [
    {},
    { profiles: ['netesp'] },
    { set: ['Release=sid', 'Hostname=cli', 'RAM=1G', 'Packages=joe', 'ImageVersion=1'] },
  ]
  assert.deepEqual(await differencesIn(judge, folder, cases), [])
})

test('systemd’s own folder reads as mkosi reads it', { skip: missing('SYSTEMD') }, async () => {
  using judge = judgeIn()
  const folder = copyTo(judge, process.env['SYSTEMD']!)
  withoutNewer(join(folder, 'mkosi'))
  chmodSync(join(folder, 'mkosi/mkosi.key'), 0o600)
  assert.deepEqual(await differencesIn(judge, folder, everyDistribution(readdirSync(join(folder, 'mkosi/mkosi.profiles')))), [])
})

test('mkosi’s own folder reads as mkosi reads it', { skip: missing('MKOSI') }, async () => {
  using judge = judgeIn()
  const folder = copyTo(judge, process.env['MKOSI']!)
  assert.deepEqual(await differencesIn(judge, folder, everyDistribution(readdirSync(join(folder, 'mkosi.profiles')))), [])
})

test('corners of the syntax read as mkosi reads them', { skip: missing('MKOSI') }, async () => {
  using judge = judgeIn()
  const folder = copyTo(judge, fileURLToPath(new URL('mkosi-corners', import.meta.url)))
  const cases: Case[] = [
    {},
    { profiles: ['one'] },
    { profiles: ['two', 'one'] },
    { set: ['Packages=', 'Packages=only', 'Environment=A=cli', 'KernelCommandLine=cli'] },
    { set: ['Format=directory'] },
    { set: ['Format=tar', 'ImageVersion=2.1'] },
    { set: ['ImageId=other', 'SplitArtifacts=tar', 'Bootable=no'] },
    { set: ['Distribution=fedora', 'Architecture=arm64', 'Environment='] },
  ]
  assert.deepEqual(await differencesIn(judge, folder, cases), [])
})

test('the table of settings has mkosi’s sections, scopes, files, conditions and former names', {
  skip: missing('MKOSI'),
}, async () => {
  using judge = judgeIn()
  cpSync(process.env['MKOSI']!, join(judge.dir, 'mkosi'), { recursive: true })
  const { stdout } = await judge.run(['env', `PYTHONPATH=${join(judge.dir, 'mkosi')}`, 'python3', '-c', PRINT_SETTINGS])
  const differences = (JSON.parse(stdout) as Json[]).flatMap(({ name, ...theirs }) => {
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
const everyDistribution = (profiles: readonly string[]): Case[] => [
  ...['debian', 'ubuntu', 'fedora', 'centos', 'arch', 'opensuse', 'postmarketos'].map((d) => ({ set: [`Distribution=${d}`] })),
  ...profiles.map((name) => ({ profiles: [name.replace(/\.conf$/, '')], set: ['Distribution=debian', 'Release=trixie'] })),
]

async function differencesIn(judge: Judge, folder: string, cases: readonly Case[]): Promise<string[]> {
  const differences: string[] = []
  for (const one of cases) differences.push(...(await compare(judge, folder, one)))
  return differences
}

/** Copies of the folder and of mkosi that both sides see under the same paths. */
function copyTo(judge: Judge, from: string): string {
  cpSync(process.env['MKOSI']!, join(judge.dir, 'mkosi'), { recursive: true })
  const folder = join(judge.dir, 'folder')
  cpSync(from, folder, { recursive: true, verbatimSymlinks: true })
  return folder
}

/** Drops what mkosi's checkout may be too old for, or has no history to judge by. */
function withoutNewer(folder: string): void {
  for (const file of readdirSync(folder, { recursive: true, encoding: 'utf8' })) {
    if (!file.endsWith('mkosi.conf')) continue
    const text = readFileSync(join(folder, file), 'utf8')
    writeFileSync(join(folder, file), text.replace(/^(?:MinimumVersion=commit:.*|Incremental=relaxed)\n/gm, ''))
  }
}

/** Every difference that is not explained. */
async function compare(judge: Judge, folder: string, one: Case): Promise<string[]> {
  const { profiles = [], set = [] } = one
  const title = [profiles.join(','), ...set].join(' ') || 'no profile'
  const theirs = await mkosiImages(judge, folder, one)
  const ours = await loadRecipe(folder, { profiles, set, anyValue: true, env: {} }).catch((error: Error) => error)
  if (theirs instanceof Error || ours instanceof Error) return refusals(ours, theirs).map((told) => `${title}: ${told}`)
  const images = [...ours.subimages, ours]
  // Both put dependencies first; which of two that do not know each other comes first is nobody's business.
  const byImage = new Map(theirs.map((image) => [String(image['Image']), image]))
  const [ourNames, theirNames] = [images.map(({ name }) => name), [...byImage.keys()]].map((names) => names.toSorted().join())
  if (ourNames !== theirNames) return [`${title}: images: ours ${ourNames}, mkosi’s ${theirNames}`]
  return images.flatMap((image) => differencesOf(image, byImage.get(image.name)!)).map((difference) => `${title}: ${difference}`)
}

/** What one of the two refuses is wrong when the other takes it, or when it says another thing is missing. */
function refusals(ours: Recipe | Error, theirs: Json[] | Error): string[] {
  const missingFile = (told: unknown): string | undefined => /([^\s/]+) does not exist/.exec(String(told))?.[1]
  if (ours instanceof Error && theirs instanceof Error && missingFile(ours) === missingFile(theirs)) return []
  const told = (result: unknown): string => (result instanceof Error ? `refused: ${result.message}` : 'taken')
  return [`ours ${told(ours)}, mkosi’s ${told(theirs)}`]
}

async function mkosiImages(judge: Judge, folder: string, { profiles = [], set = [] }: Case): Promise<Json[] | Error> {
  const options = [...profiles.map((name) => `--profile=${name}`), ...set.map(optionOf)]
  const python = ['env', `PYTHONPATH=${join(judge.dir, 'mkosi')}`, 'python3', '-m', 'mkosi']
  const argv = [...python, `--directory=${folder}`, '--json', ...options, 'summary']
  const { exitCode, stdout, stderr } = await judge.run(argv, { allowFailure: true })
  if (exitCode !== 0) return new Error(stderr.trim().split('\n').at(-1))
  return (JSON.parse(stdout) as { Images: Json[] }).Images
}

/** `ImageVersion=7` as mkosi's command line has it. */
function optionOf(text: string): string {
  const [name, ...value] = text.split('=')
  const long = SPECIAL_OPTIONS[name!] ?? name!.replace(/(?<=[a-z])(?=[A-Z])/g, '-').toLowerCase()
  return `--${long}=${value.join('=')}`
}

const SPECIAL_OPTIONS: Readonly<Record<string, string>> = {
  Packages: 'package',
  InitrdProfiles: 'initrd-profile',
  InitrdPackages: 'initrd-package',
  Credentials: 'credential',
}

function differencesOf(image: Pick<Recipe, 'settings' | 'origins' | 'name'>, theirs: Json): string[] {
  const ours: Json = byName(summaryOf(image))
  return Object.entries(theirs).flatMap(([name, value]) => {
    const key = settingNamed(name)
    if (NOT_SETTINGS.includes(name)) return []
    if (key === undefined) return [`${image.name}: ${name} is no setting of ours`]
    if (ROWS[key]!.status.is !== 'supported') return []
    const alike = EXPLAINED[name]?.alike ?? ((same: unknown) => same)
    const left = JSON.stringify(alike(withoutBuiltin(ours[mkosiName(key)].value), 'ours', theirs))
    const right = JSON.stringify(alike(withoutBuiltin(value), 'theirs', theirs))
    return sorted(left) === sorted(right) ? [] : [`${image.name}: ${name}: ours ${left}, mkosi’s ${right}`]
  })
}

/** Objects say the same in any order of keys. */
const sorted = (json: string): string =>
  JSON.stringify(JSON.parse(json), (_, value) =>
    value !== null && typeof value === 'object' && !Array.isArray(value)
      ? Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)))
      : value,
  )

const BUILTIN = fileURLToPath(new URL('../src/recipe/builtin', import.meta.url))

/** Files of the built-in configurations lie in different places. */
const withoutBuiltin = (value: unknown): unknown =>
  JSON.parse(
    JSON.stringify(value)
      .replaceAll(BUILTIN, '(built-in)')
      .replaceAll(/"[^"]*\/resources\/mkosi-/g, '"(built-in)/mkosi-'),
  )
