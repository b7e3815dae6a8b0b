/** The settings of a partition definition: how the text of each becomes its value. */
import { nearest } from '../../base/nearest.ts'
import { partitionTypeNamed, partitionTypeNames } from '../../formats/dps.ts'
import type { DefinitionOptions, Draft } from './definition.ts'
import { expandSpecifiers } from './specifiers.ts'
import { splitFields, splitWords } from './syntax.ts'

/** Puts a value into the draft, or says what is wrong with it. */
type Setting = (draft: Draft, value: string, options: DefinitionOptions) => string | undefined

/** Every setting systemd-repart 261 knows. Those that matter on the device alone are checked and left to it. */
// biome-ignore format: table
export const SETTINGS: Readonly<Record<string, Setting>> = {
  Type:                     (d, v, o) => one(partitionType(v, o), (type) => { d.type = type }),
  Label:                    (d, v, o) => one(label(v, o), (text) => { d.label = text }),
  VolumeLabel:              (d, v, o) => one(label(v, o), (text) => { d.volumeLabel = text }),
  UUID:                     (d, v) => one(guid(v), (text) => { assign(d, 'guid', text || undefined) }),
  Priority:                 (d, v) => one(integer(v, -(2 ** 31), 2 ** 31 - 1), (n) => { d.priority = n }),
  Weight:                   (d, v) => one(integer(v, 0, 1_000_000), (n) => { d.weight = n }),
  PaddingWeight:            (d, v) => one(integer(v, 0, 1_000_000), (n) => { d.paddingWeight = n }),
  SizeMinBytes:             (d, v) => one(size(v), (n) => { d.sizeMinBytes = down(n) }),
  SizeMaxBytes:             (d, v) => one(size(v), (n) => { d.sizeMaxBytes = up(n) }),
  PaddingMinBytes:          (d, v) => one(size(v), (n) => { d.paddingMinBytes = down(n) }),
  PaddingMaxBytes:          (d, v) => one(size(v), (n) => { d.paddingMaxBytes = up(n) }),
  FactoryReset:             (d, v) => one(boolean(v), (yes) => { d.factoryReset = yes }),
  CopyBlocks:               (d, v, o) => one(v === '' || v === 'auto' ? ok(v) : path(v, o), (text) => { assign(d, 'copyBlocks', text || undefined) }),
  Format:                   (d, v) => one(fileName(v), (text) => { d.format = text }),
  CopyFiles:                (d, v, o) => copyFiles(d, v, o),
  ExcludeFiles:             (d, v, o) => paths(v, o, 'slash', (all) => { d.excludeFiles = all.length === 0 ? [] : [...d.excludeFiles, ...all] }),
  ExcludeFilesTarget:       (d, v, o) => paths(v, o, 'slash', (all) => { d.excludeFilesTarget = all.length === 0 ? [] : [...d.excludeFilesTarget, ...all] }),
  MakeDirectories:          (d, v, o) => paths(v, o, 'simple', (all) => { d.makeDirectories = [...new Set([...d.makeDirectories, ...all])] }),
  MakeSymlinks:             (d, v, o) => makeSymlinks(d, v, o),
  Subvolumes:               (d, v, o) => subvolumes(d, v, o),
  DefaultSubvolume:         (d, v, o) => one(v === '' ? ok('') : path(v, o), (text) => { assign(d, 'defaultSubvolume', text || undefined) }),
  Compression:              (d, v) => one(ascii(v), (text) => { assign(d, 'compression', text || undefined) }),
  CompressionLevel:         (d, v) => one(ascii(v), (text) => { assign(d, 'compressionLevel', text || undefined) }),
  FileSystemSectorSize:     (d, v) => one(blockSize(v), (n) => { d.fileSystemSectorSize = n }),
  Minimize:                 (d, v) => one(booleanOr(v, { yes: 'best', no: 'off' }, ['off', 'best', 'guess']), (mode) => { d.minimize = mode }),
  AddValidateFS:            (d, v) => one(tristate(v), (yes) => { assign(d, 'addValidateFs', yes) }),
  Encrypt:                  (d, v) => one(booleanOr(v, { yes: 'key-file', no: 'off' }, ['off', 'key-file', 'tpm2', 'key-file+tpm2']), (mode) => { d.encrypt = mode }),
  EncryptedVolume:          (d, v) => encryptedVolume(d, v),
  EncryptKDF:               (_, v) => one(oneOf(v, ['argon2id', 'pbkdf2', 'minimal']), () => {}),
  Integrity:                (_, v) => one(booleanOr(v, { yes: 'inline', no: 'off' }, ['off', 'inline']), () => {}),
  IntegrityAlgorithm:       (_, v) => one(oneOf(v, ['hmac-sha1', 'hmac-sha256', 'hmac-sha512']), () => {}),
  TPM2PCRs:                 (_, v) => one(matching(v, /^[\w=:+]*$/, 'expected PCRs such as 7+11:sha256'), () => {}),
  KeyFile:                  (_, v) => one(matching(v, /^(?:\/.*)?$/, 'expected an absolute path'), () => {}),
  Discard:                  (_, v) => one(tristate(v), () => {}),
  BlockDeviceReplace:       (_, v) => one(tristate(v), () => {}),
  VolumeName:               (_, v) => one(fileName(v), () => {}),
  Verity:                   (d, v) => one(oneOf(v, ['off', 'data', 'hash', 'signature']), (mode) => { d.verity = mode }),
  VerityMatchKey:           (d, v) => one(ok(v), (text) => { assign(d, 'verityMatchKey', text || undefined) }),
  VerityDataBlockSizeBytes: (d, v) => one(blockSize(v), (n) => { d.verityDataBlockSizeBytes = n }),
  VerityHashBlockSizeBytes: (d, v) => one(blockSize(v), (n) => { d.verityHashBlockSizeBytes = n }),
  Flags:                    (d, v) => one(flags(v), (bits) => { d.flags = bits }),
  ReadOnly:                 (d, v) => one(tristate(v), (yes) => { assign(d, 'readOnly', yes) }),
  NoAuto:                   (d, v) => one(tristate(v), (yes) => { assign(d, 'noAuto', yes) }),
  GrowFileSystem:           (d, v) => one(tristate(v), (yes) => { assign(d, 'growFileSystem', yes) }),
  SplitName:                (d, v) => one(ok(v), (text) => { assign(d, 'splitName', text || undefined) }),
  SupplementFor:            (d, v) => one(fileName(v), (text) => { d.supplementFor = text }),
  MountPoint:               (d, v) => mountPoint(d, v),
}

export const MAX_LABEL_UNITS = 36

type Got<T> = { value: T } | { problem: string }

const ok = <T>(value: T): Got<T> => ({ value })
const wrong = (problem: string): { problem: string } => ({ problem })

function one<T>(got: Got<T>, take: (value: T) => void): string | undefined {
  if ('problem' in got) return got.problem
  take(got.value)
  return undefined
}

/** An optional field, or none. */
function assign<K extends keyof Draft>(draft: Draft, key: K, value: Draft[K] | undefined): void {
  if (value === undefined) delete draft[key]
  else draft[key] = value
}

function partitionType(value: string, { architecture }: DefinitionOptions) {
  const type = partitionTypeNamed(value, architecture)
  if (type) return ok(type)
  const close = nearest(value, partitionTypeNames())
  return wrong(
    `no such partition type${close ? `; did you mean ${close}?` : '; write a GUID, or a name such as root, usr-verity or esp'}`,
  )
}

function label(value: string, { specifiers }: DefinitionOptions): Got<string> {
  const expanded = expandSpecifiers(value, specifiers)
  if ('problem' in expanded) return expanded
  const { text } = expanded
  if (!text.isWellFormed()) return wrong('it is no well-formed text')
  if (text.length > MAX_LABEL_UNITS)
    return wrong(`the label "${text}" has ${text.length} UTF-16 units, at most ${MAX_LABEL_UNITS} fit into a partition table`)
  return ok(text)
}

function guid(value: string): Got<string> {
  if (value === '') return ok('')
  if (value === 'null') return ok('00000000-0000-0000-0000-000000000000')
  const digits = value.replaceAll('-', '').toLowerCase()
  if (!/^[0-9a-f]{32}$/.test(digits)) return wrong('expected "null" or a UUID of 32 hexadecimal digits')
  return ok(digits.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5'))
}

function integer(value: string, least: number, most: number): Got<number> {
  const n = Number(value)
  if (!/^[+-]?\d+$/.test(value) || n < least || n > most) return wrong(`expected a whole number from ${least} to ${most}`)
  return ok(n)
}

const UNITS = 'BKMGTPE'

function size(value: string): Got<number> {
  const match = /^(\d+)(?:\.(\d+))?\s*([KMGTPE]?B?)$/.exec(value)
  if (!match) return wrong('expected a number of bytes, or one with K, M, G or T (powers of 1024)')
  const factor = 1024 ** Math.max(0, UNITS.indexOf(match[3]![0] ?? 'B'))
  const bytes = Math.floor(Number(`${match[1]}.${match[2] ?? 0}`) * factor)
  return Number.isSafeInteger(bytes) ? ok(bytes) : wrong('it is larger than any disk')
}

/** systemd-repart rounds what is at least down, and what is at most up, before it rounds to whole grains. */
const down = (bytes: number): number => Math.floor(bytes / 4096) * 4096
const up = (bytes: number): number => Math.ceil(bytes / 4096) * 4096

function boolean(value: string): Got<boolean> {
  if (/^(?:1|y|yes|t|true|on)$/i.test(value)) return ok(true)
  return /^(?:0|n|no|f|false|off)$/i.test(value) ? ok(false) : wrong('expected yes or no')
}

const tristate = (value: string): Got<boolean | undefined> => (value === '' ? ok(undefined) : boolean(value))

function oneOf<const T extends string>(value: string, known: readonly T[]): Got<T> {
  const found = known.find((word) => word === value)
  return found === undefined ? wrong(`expected ${known.slice(0, -1).join(', ')} or ${known.at(-1)}`) : ok(found)
}

function booleanOr<const T extends string>(value: string, meaning: { yes: T; no: T }, known: readonly T[]): Got<T> {
  const yes = boolean(value)
  return 'value' in yes ? ok(yes.value ? meaning.yes : meaning.no) : oneOf(value, known)
}

const matching = (value: string, pattern: RegExp, problem: string): Got<string> =>
  pattern.test(value) ? ok(value) : wrong(problem)
const ascii = (value: string): Got<string> => matching(value, /^[\x20-\x7e]*$/, 'expected plain ASCII')
const fileName = (value: string): Got<string> => matching(value, /^(?!\.{1,2}$)[^/\0]{1,255}$/, 'expected a name without slashes')

function blockSize(value: string): Got<512 | 1024 | 2048 | 4096> {
  const bytes = size(value)
  if ('problem' in bytes) return bytes
  const known = ([512, 1024, 2048, 4096] as const).find((n) => n === bytes.value)
  return known === undefined ? wrong('expected 512, 1024, 2048 or 4096') : ok(known)
}

function flags(value: string): Got<bigint> {
  if (!/^(?:0x[0-9a-f]+|0b[01]+|0o[0-7]+|\d+)$/i.test(value)) return wrong('expected a number such as 0x1000000000000000')
  const bits = BigInt(value)
  return bits < 1n << 64n ? ok(bits) : wrong('it has more than 64 bits')
}

/** An absolute path, its specifiers expanded and then simplified. */
function path(value: string, { specifiers }: DefinitionOptions, trailing: 'simple' | 'slash' = 'simple'): Got<string> {
  const expanded = expandSpecifiers(value, specifiers)
  return 'problem' in expanded ? expanded : simplified(expanded.text, trailing)
}

/** An absolute path without doubled slashes, `.` and, unless it is kept, a trailing slash. One with `..` is refused. */
function simplified(text: string, trailing: 'simple' | 'slash' = 'simple'): Got<string> {
  if (!text.startsWith('/')) return wrong(`the path ${JSON.stringify(text)} is not absolute`)
  if (text.includes('\0') || !text.isWellFormed()) return wrong('it is no path')
  const names = text.split('/').filter((name) => name !== '' && name !== '.')
  if (names.includes('..')) return wrong(`the path ${text} has a component ".."`)
  const simple = `/${names.join('/')}`
  return ok(trailing === 'slash' && simple !== '/' && text.endsWith('/') ? `${simple}/` : simple)
}

function paths(
  value: string,
  options: DefinitionOptions,
  trailing: 'simple' | 'slash',
  take: (all: string[]) => void,
): string | undefined {
  const words = splitWords(value)
  if (words === undefined) return 'a quote is left open'
  const all: string[] = []
  for (const word of words) {
    const problem = one(path(word, options, trailing), (text) => all.push(text))
    if (problem !== undefined) return problem
  }
  take(all)
  return undefined
}

function copyFiles(draft: Draft, value: string, options: DefinitionOptions): string | undefined {
  const fields = splitFields(value)
  if (fields === undefined) return 'it has a wrong escape'
  const [source = '', target = source, flags = '', ...more] = fields
  if (source === '') return 'expected SOURCE, SOURCE:TARGET or SOURCE:TARGET:FLAGS'
  if (more.length > 0) return 'expected at most three fields, SOURCE:TARGET:FLAGS; write "\\:" for a colon in a path'
  let fsverity: 'copy' | 'off' = 'off'
  for (const flag of flags.split(',').filter((word) => word !== '')) {
    if (flag !== 'fsverity=copy' && flag !== 'fsverity=off')
      return `unknown flag "${flag}"; expected fsverity=copy or fsverity=off`
    fsverity = flag === 'fsverity=copy' ? 'copy' : 'off'
  }
  const from = path(source, options)
  if ('problem' in from) return from.problem
  const to = path(target, options)
  if ('problem' in to) return to.problem
  draft.copyFiles = [...draft.copyFiles, { source: from.value, target: to.value, fsverity }]
  return undefined
}

function makeSymlinks(draft: Draft, value: string, options: DefinitionOptions): string | undefined {
  for (const word of splitWords(value) ?? ['']) {
    const fields = splitFields(word)
    if (fields?.length !== 2 || fields.includes('')) return 'expected words of the form PATH:TARGET'
    const at = path(fields[0]!, options)
    if ('problem' in at) return at.problem
    if (at.value === '/') return 'the root of a file system cannot be a symlink'
    const target = expandSpecifiers(fields[1]!, options.specifiers)
    if ('problem' in target) return target.problem
    draft.makeSymlinks = [...draft.makeSymlinks, { path: at.value, target: target.text }]
  }
  return undefined
}

function subvolumes(draft: Draft, value: string, options: DefinitionOptions): string | undefined {
  for (const word of splitWords(value) ?? ['']) {
    const [text = '', flags = '', ...more] = splitFields(word) ?? []
    if (text === '' || more.length > 0) return 'expected words of the form PATH or PATH:FLAGS'
    const at = path(text, options)
    if ('problem' in at) return at.problem
    const names = flags.split(',').filter((flag) => flag !== '')
    const unknown = names.find((flag) => flag !== 'ro' && flag !== 'nodatacow')
    if (unknown !== undefined) return `unknown flag "${unknown}"; expected ro or nodatacow`
    const made = { path: at.value, readOnly: names.includes('ro'), noDataCow: names.includes('nodatacow') }
    draft.subvolumes = [...draft.subvolumes.filter((known) => known.path !== made.path), made]
  }
  return undefined
}

function mountPoint(draft: Draft, value: string): string | undefined {
  if (value === '') {
    draft.mountPoints = []
    return undefined
  }
  const [where = '', options, ...more] = splitFields(value, { quotes: true }) ?? []
  if (more.length > 0) return 'expected PATH or PATH:OPTIONS; quote a field that holds a colon'
  const at = simplified(where)
  if ('problem' in at) return at.problem
  draft.mountPoints = [...draft.mountPoints, { where: at.value, ...(options ? { options } : {}) }]
  return undefined
}

function encryptedVolume(draft: Draft, value: string): string | undefined {
  if (value === '') {
    delete draft.encryptedVolume
    return undefined
  }
  const [name = '', keyFile, options, extra = '', ...more] = splitFields(value, { quotes: true }) ?? []
  if (more.length > 0) return 'expected at most four fields, NAME:KEYFILE:OPTIONS:FLAGS'
  const known = fileName(name)
  if ('problem' in known) return known.problem
  const unknown = extra.split(',').find((flag) => flag !== '' && flag !== 'fixate-volume-key')
  if (unknown !== undefined) return `unknown flag "${unknown}"; expected fixate-volume-key`
  draft.encryptedVolume = { name, ...(keyFile ? { keyFile } : {}), ...(options ? { options } : {}) }
  return undefined
}
