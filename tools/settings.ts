// Writes docs/recipe.md anew from the table of settings: `node tools/settings.ts`.
import { readFileSync, writeFileSync } from 'node:fs'
import { SYSTEMD_VERSION } from '../src/recipe/mkosi/host.ts'
import { KEYS, type Key, mkosiName, ROWS, type Row, type Scope, type Section } from '../src/recipe/schema.ts'
import { SETTING_SPECIFIERS } from '../src/recipe/specifiers.ts'
import { boolean, feature, type Separator } from '../src/recipe/type.ts'

export const PAGE = new URL('../docs/recipe.md', import.meta.url)

/** The whole page. */
export function recipePage(): string {
  return readFileSync(new URL('recipe.template.md', import.meta.url), 'utf8').replace(/^\{\{(\w+)\}\}$/gm, (_, name: string) => {
    const part = PARTS[name]
    if (!part) throw new Error(`recipe.template.md asks for {{${name}}}, which tools/settings.ts does not know`)
    return part()
  })
}

const PARTS: Readonly<Record<string, () => string>> = {
  files: () => table(['beside `mkosi.conf`', 'sets'], neighbours()),
  conditions: () => table(['condition', 'holds when'], conditions()),
  scopes: () => table(['settings', 'in sub-images'], scopes()),
  specifiers: () => table(['', 'stands for'], specifiers()),
  lists: () => lists(),
  settings: () => SECTIONS.map(section).join('\n\n'),
  older: () => table(['setting', 'is written'], older()),
  idle: () => table(['setting', 'why it changes nothing'], grouped('without-effect')),
  refused: () => table(['setting', 'instead'], grouped('refused')),
  values: () => table(['setting', 'refused so far', 'works'], refusedValues()),
}

const SECTIONS: readonly Section[] = ['Config', 'Distribution', 'Output', 'Content', 'Validation', 'Build', 'Runtime', 'Bisque']
const row = (key: Key): Row => ROWS[key]!
const code = (text: string): string => `\`${text}\``
const name = (key: Key): string => code(mkosiName(key))
const SOURCE = readFileSync(new URL('../src/recipe/schema.ts', import.meta.url), 'utf8')

/** What the comment before the row says. */
function documentation(key: Key): string {
  const comment = new RegExp(`/\\*\\*((?:(?!\\*/)[\\s\\S])*)\\*/\\n  ${key}:`).exec(SOURCE)![1]!
  return comment.replace(/\s*\n\s*\*\s*/g, ' ').trim()
}

function table(heads: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string => `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`
  return [line(heads), `|${heads.map(() => '---').join('|')}|`, ...rows.map(line)].join('\n')
}

function section(title: Section): string {
  const keys = KEYS.filter((key) => row(key).section === title && row(key).status.is === 'supported')
  const rows = keys.map((key) => [`${name(key)}<br>${code(key)}`, takes(row(key)), defaults(key), documentation(key)])
  return `### [${title}]\n\n${table(['setting', 'takes', 'default', ''], rows)}`
}

/** The type in a few words. */
function takes({ type }: Row): string {
  if (type === boolean) return 'yes or no'
  if (type === feature) return 'yes, no or `auto`'
  return inWords(type.expected)
}

function inWords(expected: string): string {
  const list = /^a list \(each element (.*)\)(, or true or false)?$/.exec(expected)
  if (list) return `list: ${inWords(list[1]!)}${list[2] ? '; yes or no' : ''}`
  if (expected === 'a list of strings') return 'list'
  if (expected === 'an object of strings') return '`KEY=value` …'
  if (expected === 'true or false') return 'yes or no'
  if (expected === 'true, false or "auto"') return 'yes, no or `auto`'
  const choice = /^one of (.*)$/.exec(expected)
  if (choice) return choice[1]!.split(', ').map(code).join(' ')
  return expected.replace(/^an? /, '').replace(/"([^"]*)"/g, '`$1`')
}

/** Of recipe.ts and, where it is another, of mkosi folders. */
function defaults(key: Key): string {
  const { required, mkosi } = row(key)
  const words = FOLLOWS[key] ?? {}
  const own = words.own ?? (required ? '**required**' : shown(row(key).default ?? row(key).type.absent))
  if (!('mkosi' in row(key))) return own
  return `${own}<br>mkosi folder: ${words.mkosi ?? shown(mkosi)}`
}

/** Defaults that follow from something, in words. */
const FOLLOWS: { readonly [K in Key]?: { own?: string; mkosi?: string } } = {
  release: { mkosi: 'the distribution’s moving one: `testing`' },
  output: { own: '`%i_%v_%a`', mkosi: '`%i_%v`, or the sub-image’s name' },
  outputExtension: { own: 'by `Format`: `raw` `tar` `cpio` `efi`' },
  compressOutput: { own: 'by `Format`: archives, UKIs and ESPs `zstd`, OCI `gz`, else `none`' },
  outputDirectory: { own: '`out/`', mkosi: '`mkosi.output/`' },
  seed: { own: 'follows from `ImageId`' },
  initrds: { own: '`default`, for disks', mkosi: '`default` where the image boots and holds a kernel' },
  hermeticUsr: { own: 'yes, for disks' },
  buildSources: { mkosi: 'the folder itself' },
  sourceDateEpoch: { own: 'time of the lock’s newest repository' },
  ram: { own: '`bisque vm`’s', mkosi: '`2G`' },
  cpus: { own: '`bisque vm`’s' },
  secureBootKey: { own: '`keys/`; `mkosi.key`' },
  secureBootCertificate: { own: '`keys/`; `mkosi.crt`' },
  verityKey: { own: '`keys/`; `mkosi.key`' },
  verityCertificate: { own: '`keys/`; `mkosi.crt`' },
  signExpectedPcrKey: { own: '`keys/`; `mkosi.key`' },
  signExpectedPcrCertificate: { own: '`keys/`; `mkosi.crt`' },
}

function shown(value: unknown): string {
  if (typeof value === 'function') throw new Error('a default that follows from something needs words in FOLLOWS')
  if (value === undefined) return '–'
  if (typeof value === 'boolean') return value ? 'yes' : 'no'
  if (Array.isArray(value)) return value.length === 0 ? '–' : value.map((element) => code(String(element))).join(' ')
  if (typeof value === 'object') return '–'
  return code(String(value))
}

function neighbours(): string[][] {
  const byFile = new Map<string, Key[]>()
  for (const key of KEYS) for (const file of row(key).files ?? []) byFile.set(file, [...(byFile.get(file) ?? []), key])
  const bySettings = Map.groupBy(byFile, ([, keys]) => keys.join())
  return [...bySettings.values()].map((entries) => {
    const keys = entries[0]![1]
    const supported = keys.filter((key) => row(key).status.is === 'supported')
    const files = entries.map(([file]) => code(`mkosi.${file}`)).join(' ')
    const settings = (supported.length > 0 ? supported : keys).map(name).join(' ')
    const idle = supported.length === 0 ? ', without effect' : ''
    return [files, `${settings}${row(keys[0]!).fileText ? ', with what the file holds or, where it is executable, prints' : ''}${idle}`]
  })
}

const HOLDS: Readonly<Record<NonNullable<Row['match']>, string>> = {
  equal: 'it is that value',
  architecture: 'it is that value; `uefi` is every one that has UEFI',
  glob: 'it matches; `*`, `?` and `[…]` are wildcards',
  version: 'it compares so: `>=1.2`, `<3`, `1.5`',
  element: 'it is one of the list; empty: the list is',
  pair: '`NAME` is set, or is `NAME=value`',
  target: 'a tree has that target',
}

function conditions(): string[][] {
  const keys = KEYS.filter((key) => row(key).match !== undefined)
  const byKind = Map.groupBy(keys, (key) => row(key).match!)
  const own = [
    ['`PathExists`', 'there is something at the path'],
    ['`Image`', 'this is the image of that name: `main`, `default-initrd`, a sub-image'],
    ['`HostArchitecture`', 'the machine that builds has it'],
    ['`SystemdVersion`', `it compares so with ${SYSTEMD_VERSION}, whatever the machine runs`],
  ]
  return [...[...byKind].map(([kind, of]) => [of.map(name).join(' '), HOLDS[kind]]), ...own]
}

const SCOPES: Readonly<Record<Exclude<Scope, 'local' | 'tools'>, string>> = {
  inherit: 'as in the main image, unless the sub-image sets them',
  universal: 'always as in the main image; only it may set them',
  multiversal: 'always as in the main image, and in the tools; only it may set them',
  main: 'not at all; only the main image may set them',
  initrd: 'become the default initrd’s `Profiles`, `Packages` and `VolatilePackages`',
  'initrd-inherit': 'as in the main image in the default initrd only',
}

function scopes(): string[][] {
  const keys = KEYS.filter((key) => row(key).status.is === 'supported')
  return Object.entries(SCOPES).map(([scope, words]) => [keys.filter((key) => row(key).scope === scope).map(name).join(' '), words])
}

const specifiers = (): string[][] => [
  ...Object.entries(SETTING_SPECIFIERS).map(([letter, key]) => [code(`%${letter}`), name(key)]),
  ['`%I`', 'name of the image: `main`, or the sub-image’s'],
  ['`%D` `%P` `%C`', 'folder of the recipe, of the configuration that is read, of the file that is read'],
  ['`%F`', 'the distribution’s usual file system'],
  ['`%%`', 'a percent sign'],
]

const SEPARATED: Readonly<Record<Separator, string>> = {
  'comma or space': 'blanks, commas and new lines',
  space: 'blanks and new lines, so that an element may hold a comma',
  'quoted space': 'blanks and new lines; quotes and backslashes keep a blank within an element',
}

function lists(): string {
  const keys = KEYS.filter((key) => row(key).type.separator !== undefined)
  const bySeparator = Map.groupBy(keys, (key) => row(key).type.separator!)
  const rest = (['space', 'quoted space'] as const).map((kind) => [bySeparator.get(kind)!.map(name).join(' '), SEPARATED[kind]])
  return table(['lists', 'are split at'], [['all others', SEPARATED['comma or space']], ...rest])
}

const older = (): string[][] =>
  KEYS.flatMap((key): string[][] => {
    const { formerly = [], into } = row(key)
    return [...formerly.map((old) => [code(old), name(key)]), ...(into ? [[name(key), `${name(into as Key)}, as \`re:…\``]] : [])]
  })

/** Settings that share a reason stand in one line. */
function grouped(status: 'without-effect' | 'refused'): string[][] {
  const keys = KEYS.filter((key) => row(key).status.is === status)
  const byReason = Map.groupBy(keys, (key) => (row(key).status as { reason: string }).reason)
  return [...byReason].map(([reason, of]) => [of.map(name).join(' '), reason])
}

function refusedValues(): string[][] {
  const keys = KEYS.filter((key) => row(key).status.is === 'supported' && (row(key).type.later ?? []).length > 0)
  const choices = keys.map((key) => [name(key), row(key).type.later!.map(code).join(' '), inWords(row(key).type.expected)])
  const sources = KEYS.filter((key) => /Source$/.test(key)).map(name)
  return [
    ...choices,
    [sources.join(' '), '`engine:…` and `provider:…` of others than `pkcs11`', '`file` `provider:pkcs11`'],
    ['`ElTorito` `SELinuxRelabel` `Sign`', 'yes', 'no'],
    ['`MicrocodeHost` `KernelModulesIncludeHost` `KernelModulesInitrdIncludeHost`', 'yes: the image would depend on the machine', 'no'],
    ['`RepositoryKeyCheck` `RepartOffline`', 'no', 'yes'],
    ['`Seed`', '`random`', 'a GUID, or none'],
  ]
}

if (import.meta.main) writeFileSync(PAGE, recipePage())
