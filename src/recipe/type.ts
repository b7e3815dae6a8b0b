/**
 * The types a setting may have: each reads a value from text (`--set`, mkosi.conf) and checks one from TypeScript.
 *
 * Both refuse with a Fault whose message reads `expected …, got …`; the loader puts the setting and its place before it.
 */
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { basename, isAbsolute, join, normalize, resolve } from 'node:path'
import { Fault } from '../base/fault.ts'
import { nearest } from '../base/nearest.ts'
import { alignUp, parseSize } from '../base/size.ts'
import { wildcard } from '../base/wildcard.ts'
import { parseIni } from './mkosi/ini.ts'

/** What reading a value may depend on. */
export interface Place {
  /** Relative paths count from here. */
  directory: string
  /** Environment variables that `Environment=NAME` passes through. */
  env: Readonly<Record<string, string | undefined>>
}

/** T: the value after loading; Absent: what an unset one is; Input: what TypeScript may write. */
export interface Type<T, Absent = undefined, Input = T> {
  /** Completes "expected …". */
  readonly expected: string
  /** How several assignments combine. */
  readonly merge: 'replace' | 'append' | 'update'
  readonly absent: Absent
  parse(text: string, place: Place): T
  check(value: unknown, place: Place): T
  /** Text that stands for a whole list and drops what came before, where others add to it. */
  replaces?(text: string): boolean
  /** How one text holds several elements. */
  readonly separator?: Separator
  /** mkosi's values that are known and refused so far. */
  readonly later?: readonly string[]
  /** Order of a list's elements where it is not that of the assignments. */
  order?(a: unknown, b: unknown): number
  /** Why a value that is well-formed cannot be built, so that other recipes' conditions and summaries can still name it. */
  unsupported?(value: unknown): string | undefined
  readonly _input?: Input
}

/** The same, of whose values some cannot be built; `reason` says which and what to do instead. */
export const refusing = <T, A, I>(of: Type<T, A, I>, reason: (value: T) => string | undefined): Type<T, A, I> => ({
  ...of,
  unsupported: reason as (value: unknown) => string | undefined,
})

/** A setting that has no value where its default is none. */
export const optional = <T, I>(of: Type<T, undefined, I>): Type<T | undefined, undefined, I> => of

export const refuse = (expected: string, got: unknown): never => {
  throw new Fault('recipe', `expected ${expected}, got ${shown(got)}`)
}

/** A value as people write it, cut to a line's length. */
export function shown(value: unknown): string {
  if (typeof value === 'function') return 'a function'
  if (value === undefined) return 'undefined'
  let text: string | undefined
  try {
    text = typeof value === 'bigint' ? `${value}n` : JSON.stringify(value)
  } catch {}
  text ??= String(value)
  return text.length > 60 ? `${text.slice(0, 57)}…` : text
}

function scalar<T, Input = T>(
  expected: string,
  read: (value: unknown, place: Place) => T | undefined,
): Type<T, undefined, Input> {
  const check = (value: unknown, place: Place): T => read(value, place) ?? refuse(expected, value)
  return { expected, merge: 'replace', absent: undefined, parse: check, check }
}

export const string = scalar('a string', (value) => (typeof value === 'string' ? value : undefined))

/** One line that matches a pattern in full. */
export const matching = (expected: string, pattern: RegExp): Type<string> =>
  scalar(expected, (value) => (typeof value === 'string' && pattern.test(value) ? value : undefined))

export const filename = matching('a file name without slashes', /^(?!\.\.?$)[^/\0\n]+$/)

const YES = ['yes', 'true', 'on', '1', 'y', 't', 'always']
const NO = ['no', 'false', 'off', '0', 'n', 'f', 'never']
const asBoolean = (text: string): boolean | undefined =>
  YES.includes(text.toLowerCase()) ? true : NO.includes(text.toLowerCase()) ? false : undefined

export const boolean: Type<boolean> = {
  ...scalar('true or false', (value) => (typeof value === 'boolean' ? value : undefined)),
  parse: (text) => asBoolean(text) ?? refuse('yes or no', text),
}

/** mkosi's three-way switch. */
export const feature: Type<boolean | 'auto'> = {
  ...scalar('true, false or "auto"', (value) => (typeof value === 'boolean' || value === 'auto' ? value : undefined)),
  parse(text) {
    if (text === 'auto') return text
    return text === 'enabled' ? true : text === 'disabled' ? false : (asBoolean(text) ?? refuse('yes, no or auto', text))
  },
}

/** A boolean of which only one value is possible here; the other is refused with the reason. */
export const always = (only: boolean, reason: string): Type<boolean> => {
  const insist = (value: boolean): boolean => {
    if (value !== only) throw new Fault('recipe', `${only ? 'cannot be switched off' : 'cannot be switched on'}: ${reason}`)
    return value
  }
  return {
    ...boolean,
    parse: (text, place) => insist(boolean.parse(text, place)),
    check: (value, place) => insist(boolean.check(value, place)),
  }
}

export function integer(minimum = 0, maximum: number = Number.MAX_SAFE_INTEGER): Type<number> {
  const expected =
    maximum === Number.MAX_SAFE_INTEGER ? `a whole number from ${minimum}` : `a whole number from ${minimum} to ${maximum}`
  const check = (value: unknown, got = value): number =>
    Number.isSafeInteger(value) && (value as number) >= minimum && (value as number) <= maximum
      ? (value as number)
      : refuse(expected, got)
  return {
    expected,
    merge: 'replace',
    absent: undefined,
    parse: (text) => check(/^-?\d+$/.test(text) ? Number(text) : Number.NaN, text),
    check: (value) => check(value),
  }
}

/** One of a few numbers. */
export const oneOf = <const N extends number>(...values: readonly N[]): Type<N> =>
  scalar(`one of ${values.join(', ')}`, (value) => values.find((n) => n === value || String(n) === value))

/** Bytes: a number, or text such as `512M`, which counts whole blocks of 4096 bytes. */
export const size: Type<number, undefined, number | string> = scalar('a size such as "512M"', (value) => {
  if (typeof value === 'number') return Number.isSafeInteger(value) && value >= 0 ? value : undefined
  try {
    return typeof value === 'string' ? alignUp(parseSize(value), 4096) || undefined : undefined
  } catch {
    return undefined
  }
})

export const guid: Type<string> = scalar('a GUID', (value) => {
  const digits = typeof value === 'string' ? value.toLowerCase().replaceAll('-', '') : ''
  return /^[0-9a-f]{32}$/.test(digits) ? digits.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5') : undefined
})

/** A GUID that is the same for every build. */
export const seed: Type<string> = scalar('a GUID', (value, place) => {
  if (value !== 'random') return guid.check(value, place)
  throw new Fault('recipe', '"random" makes every build another; leave it out, and the seed follows from the image’s id')
})

/** Where a key or certificate is kept: in a file; engines and providers are known. */
export const keySource: Type<string> = {
  ...matching('a source of keys such as "file"', /^(file|engine|provider)(:.*)?$/),
  unsupported: (value) =>
    value === 'file' ? undefined : `${shown(value)} is known but not supported yet: signatures are made in-process; use a file`,
}

/** An octal file mode: `"0644"` in both syntaxes, or a number in TypeScript. */
export const mode: Type<number, undefined, number | string> = scalar('an octal mode such as "0644"', (value) => {
  const number = typeof value === 'string' && /^0?[0-7]{1,4}$/.test(value) ? Number.parseInt(value, 8) : value
  return Number.isInteger(number) && (number as number) >= 0 && (number as number) <= 0o1777 ? (number as number) : undefined
})

export interface Choices<C extends string> {
  /** What yes and no mean, where mkosi takes a boolean as well. */
  yes?: string
  no?: string
  /** Other spellings of the same. */
  also?: Readonly<Record<string, C>>
  /** mkosi's values that Bisque knows and does not support yet. */
  later?: readonly string[]
}

export function choice<const C extends string>(values: readonly C[], more?: Choices<NoInfer<C>> & { yes?: never }): Type<C>
export function choice<const C extends string>(values: readonly C[], more: Choices<NoInfer<C>>): Type<C, undefined, C | boolean>
export function choice<const C extends string>(values: readonly C[], more: Choices<NoInfer<C>> = {}): Type<C, undefined, any> {
  const { also = {}, later = [] } = more
  const known = [...values, ...Object.keys(also), ...later]
  const expected = values.length === 1 ? `"${values[0]}"` : `one of ${values.join(', ')}`
  const check = (value: unknown): C => {
    const on = typeof value === 'boolean' ? value : typeof value === 'string' ? asBoolean(value) : undefined
    const text = known.includes(value as string) ? (value as string) : on === true ? more.yes : on === false ? more.no : undefined
    if (text !== undefined) return Object.hasOwn(also, text) ? also[text]! : (text as C)
    const near = typeof value === 'string' ? nearest(value, known) : undefined
    throw new Fault('recipe', `expected ${expected}, got ${shown(value)}${near ? `; did you mean "${near}"?` : ''}`)
  }
  const unsupported = (value: unknown): string | undefined =>
    later.includes(value as string) ? `"${value}" is known but not supported yet; supported: ${values.join(', ')}` : undefined
  return { expected, merge: 'replace', absent: undefined, parse: check, check, unsupported, later }
}

/** Exactly one of the host's paths, absolute after loading. In text `~` and `$NAME` stand for folders of the caller's. */
export const path: Type<string> = {
  ...scalar('a path', (value, place) =>
    typeof value === 'string' && value !== '' && !value.includes('\0') ? resolve(place.directory, value) : undefined,
  ),
  parse: (text, place) => path.check(expandPath(text, place), place),
}

const expandVariables = (text: string, { env }: Place): string =>
  text.replace(/\$(?:(\w+)|\{([^}]*)\})/g, (whole, bare, braced) => env[bare ?? braced] ?? whole)

function expandPath(text: string, place: Place): string {
  const { env } = place
  const expanded = expandVariables(text, place)
  return /^~(?=\/|$)/.test(expanded) && env['HOME'] ? env['HOME'] + expanded.slice(1) : expanded
}

/** Of a type whose values are paths or trees: in text only such as are there. A recipe.ts may name what a script makes later. */
export function present<T extends string | TreeSource, I>(of: Type<T, undefined, I>, kind?: 'folder'): Type<T, undefined, I> {
  const parse = (text: string, place: Place): T => {
    const value = of.parse(text, place)
    const file = typeof value === 'string' ? value : value.source
    const stat = statSync(file, { throwIfNoEntry: false })
    if (stat && (kind === undefined || stat.isDirectory())) return value
    throw new Fault('recipe', stat ? `${file} is not a folder` : `${file} does not exist`)
  }
  return { ...of, parse }
}

/** A path, or one of a few words. */
export function pathOr(...constants: readonly string[]): Type<string> {
  const read = (from: Type<string>['parse']) => (value: string, place: Place) =>
    constants.includes(value) ? value : from(value, place)
  const expected = `a path, or ${constants.map((word) => `"${word}"`).join(' or ')}`
  return { ...path, expected, parse: read(path.parse), check: read(path.check as Type<string>['parse']) as Type<string>['check'] }
}

/** Paths, in text also wildcards, which stand for what is there in order of names. What is not there counts for nothing. */
export const globs: Type<readonly string[], readonly string[], readonly string[]> = {
  expected: 'a list (each element a path)',
  merge: 'append',
  absent: [],
  separator: 'comma or space',
  parse: (text, place) => words(text, 'comma or space').flatMap((word) => matches(word, place)),
  check: (value, place) => list(path).check(value, place),
}

/** Folder by folder, so that nothing is walked that the pattern does not name. Hidden files match only a name that begins so. */
function matches(text: string, place: Place): string[] {
  let found = [text.startsWith('/') ? '/' : place.directory]
  for (const part of text.split('/').filter((name) => name !== '')) {
    const pattern = /[*?[]/.test(part) ? wildcard(part) : undefined
    found = found.flatMap((folder) =>
      (pattern === undefined ? [part] : namesIn(folder).filter((name) => isSeen(name, part) && pattern(name)))
        .map((name) => join(folder, name))
        .filter((file) => existsSync(file)),
    )
  }
  return found.sort()
}

const isSeen = (name: string, pattern: string): boolean => pattern.startsWith('.') || !name.startsWith('.')
const namesIn = (folder: string): string[] => (statSync(folder).isDirectory() ? readdirSync(folder) : [])

/** A path inside the image. */
export const imagePath: Type<string> = scalar('an absolute path in the image', (value) =>
  typeof value === 'string' && isAbsolute(value) && !value.includes('\0') ? normalize(value) : undefined,
)

/** A wildcard for paths inside the image; it counts from its root with and without a slash in front. */
export const imageGlob: Type<string> = scalar('a path in the image, with wildcards', (value) =>
  typeof value === 'string' && value !== '' && !value.includes('\0') ? `/${value.replace(/^\/+/, '')}` : undefined,
)

/** A regular expression, kept as `re:…` as the lists of globs take it. */
export const regularExpression: Type<string> = scalar('a regular expression', (value) =>
  typeof value === 'string' && value !== '' ? (['default', 'host'].includes(value) ? value : `re:${value}`) : undefined,
)

export interface TreeSource {
  /** A folder or archive of the host. */
  source: string
  /** Where its content goes in the image; of build sources, where scripts see it, which may be nowhere in particular. */
  target: string
}

/** `source` or `source:target`. */
export const treeSource: Type<TreeSource, undefined, string | { source: string; target?: string }> = {
  ...scalar('a path, or "source:/target"', (value, place) => {
    const text = typeof value === 'string' ? value : undefined
    const colon = text?.lastIndexOf(':/') ?? -1
    const parts =
      text !== undefined
        ? { source: colon > 0 ? text.slice(0, colon) : text, target: colon > 0 ? text.slice(colon + 1) : '/' }
        : { target: '/', ...(value as Partial<TreeSource> | null) }
    if (typeof parts.source !== 'string' || parts.source === '' || typeof parts.target !== 'string') return undefined
    return isAbsolute(parts.target)
      ? { source: resolve(place.directory, parts.source), target: normalize(parts.target) }
      : undefined
  }),
  parse(text, place) {
    const { source, target = '/' } = splitTree(text)
    return isAbsolute(target) && source !== ''
      ? { source: path.parse(source, place), target: normalize(expandVariables(target, place)) }
      : refuse('a path, or "source:/target"', text)
  },
}

/** `source` or `source:target`, whose target may be relative to where scripts run. */
export const sourceTree: Type<TreeSource, undefined, string | { source: string; target?: string }> = {
  ...scalar('a path, or "source:target"', (value, place) => {
    const parts = typeof value === 'string' ? splitTree(value) : { ...(value as Partial<TreeSource> | null) }
    if (typeof parts.source !== 'string' || parts.source === '' || typeof (parts.target ?? '') !== 'string') return undefined
    return { source: resolve(place.directory, parts.source), target: parts.target ?? '' }
  }),
  parse(text, place) {
    const { source, target = '' } = splitTree(text)
    return source === '' ? refuse('a path, or "source:target"', text) : { source: path.parse(source, place), target }
  },
}

function splitTree(text: string): { source: string; target?: string } {
  const colon = text.indexOf(':')
  return colon < 0 ? { source: text } : { source: text.slice(0, colon), target: text.slice(colon + 1) }
}

export interface Password {
  value: string
  hashed: boolean
}

/** Plain, or with mkosi's `hashed:` prefix the crypt(3) form. */
export const password: Type<Password, undefined, string> = scalar('a password, or "hashed:" and its crypt(3) form', (value) => {
  if (typeof value !== 'string' || /[\n:]/.test(value.replace(/^hashed:/, ''))) return undefined
  const hashed = value.startsWith('hashed:')
  return { value: (hashed ? value.slice(7) : value).trim(), hashed }
})

/** How mkosi separates a list's elements within one value. */
export type Separator = 'comma or space' | 'space' | 'quoted space'

/** Several of a type. Assignments append; an empty element first drops what came before, as an empty value does in mkosi. */
export function list<T, I>(
  of: Type<T, unknown, I>,
  separator: Separator = 'comma or space',
  more: { sort?: (a: T, b: T) => number } = {},
): Type<readonly T[], readonly T[], readonly I[]> {
  const wanted = of === (string as unknown) ? 'a list of strings' : `a list (each element ${of.expected})`
  return {
    expected: wanted,
    merge: 'append',
    absent: [],
    separator,
    ...(of.later ? { later: of.later } : {}),
    parse: (text, place) => words(text, separator).flatMap((word) => (word === '' ? [] : [of.parse(word, place)])),
    check(value, place) {
      if (!Array.isArray(value)) return refuse(wanted, value)
      return value.map((element) => {
        if (typeof element !== 'string' && of === (string as unknown)) refuse('strings in the list', element)
        return of.check(element, place)
      })
    },
    unsupported: (value) => (value as T[]).map((element) => of.unsupported?.(element)).find((reason) => reason !== undefined),
    ...(more.sort ? { order: more.sort as (a: unknown, b: unknown) => number } : {}),
  }
}

/** Names of packages first, then files, then conditions, each by name. */
export function packageOrder(a: string, b: string): number {
  const rank = (name: string): number => (name.startsWith('(') ? 2 : name.startsWith('/') ? 1 : 0)
  return rank(a) - rank(b) || (a < b ? -1 : a > b ? 1 : 0)
}

/** A list that yes and no stand for as well. */
export function listOr<T, I>(
  of: Type<T, unknown, I>,
  yes: readonly T[],
  no: readonly T[],
): Type<readonly T[], readonly T[], readonly I[] | boolean> {
  const plain = list(of)
  return {
    ...plain,
    expected: `${plain.expected}, or true or false`,
    parse(text, place) {
      const on = asBoolean(text)
      return on === undefined ? plain.parse(text, place) : on ? yes : no
    },
    check: (value, place) => (value === true ? yes : value === false ? no : plain.check(value, place)),
    replaces: (text) => asBoolean(text) !== undefined,
  }
}

/** A credential of the running image: its text, or the file that holds it (or prints it, where it is executable). */
export type Credential = { name: string; value: string } | { name: string; path: string }

/** In text `NAME=VALUE …`, or a file or a folder of files named as the credentials; in TypeScript an object. */
export const credentials: Type<readonly Credential[], readonly Credential[], Pairs | readonly Credential[]> = {
  expected: 'an object of strings',
  merge: 'append',
  absent: [],
  separator: 'quoted space',
  parse(text, place) {
    if (text === '' || text.includes('=')) {
      const cut = (word: string): number => (word.includes('=') ? word.indexOf('=') : word.length)
      return words(text, 'quoted space').flatMap((word) =>
        word === '' ? [] : [{ name: word.slice(0, cut(word)).trim(), value: word.slice(cut(word) + 1).trim() }],
      )
    }
    const file = resolve(place.directory, text)
    if (!existsSync(file)) return refuse('NAME=VALUE, or a file or folder that is there', text)
    if (!statSync(file).isDirectory()) return [{ name: basename(file), path: file }]
    const files = readdirSync(file).filter((name) => !statSync(join(file, name), { throwIfNoEntry: false })?.isDirectory())
    return files.sort().map((name) => ({ name, path: join(file, name) }))
  },
  check(value, place) {
    if (!Array.isArray(value)) {
      return Object.entries(pairs().check(value, place)).map(([name, element]) => ({ name, value: element }))
    }
    return value.map((element: Partial<{ name: string; value: string; path: string }> | null) => {
      const { name, value: text, path: file } = element ?? {}
      if (typeof name !== 'string' || (typeof text !== 'string' && typeof file !== 'string'))
        return refuse('a credential', element)
      return typeof file === 'string' ? { name, path: resolve(place.directory, file) } : { name, value: text! }
    })
  },
}

/** A further boot entry inside a unified kernel image. */
export interface UkiProfile {
  /** What boot loaders show: `ID`, `TITLE`. */
  profile: Readonly<Record<string, string>>
  /** Arguments of its own, behind those of all entries. */
  cmdline: readonly string[]
  /** Whether its PCR values are signed, so that what is sealed to a signed policy opens for it. */
  signExpectedPcr: boolean
  /** The file it was read from. */
  source?: string
}

export type UkiProfileInput = Partial<Omit<UkiProfile, 'source'>> & Pick<UkiProfile, 'profile'>

/** In text the path of a file with a section [UKIProfile]; in TypeScript also the profile itself. */
export const ukiProfile: Type<UkiProfile, undefined, string | UkiProfileInput> = {
  ...scalar('a path, or an object with profile, cmdline and signExpectedPcr', (value, place) => {
    if (typeof value === 'string') return readUkiProfile(path.check(value, place), place)
    const { profile, cmdline = [], signExpectedPcr = true, source } = (value ?? {}) as Partial<UkiProfile>
    if (profile === undefined || typeof signExpectedPcr !== 'boolean') return undefined
    const checked = { profile: pairs().check(profile, place), cmdline: list(string).check(cmdline, place), signExpectedPcr }
    return source === undefined ? checked : { ...checked, source }
  }),
  parse: (text, place) => readUkiProfile(path.parse(text, place), place),
}

function readUkiProfile(file: string, place: Place): UkiProfile {
  const stat = statSync(file, { throwIfNoEntry: false })
  if (!stat?.isFile() || stat.size > 1 << 20) refuse('a file that is there, of at most 1M', file)
  const read: { -readonly [K in keyof UkiProfile]: UkiProfile[K] } = {
    profile: {},
    cmdline: [],
    signExpectedPcr: true,
    source: file,
  }
  const problems: string[] = []
  const sections = parseIni(readFileSync(file, 'utf8'), ({ line, column, message }) => {
    problems.push(`${file}:${line}:${column}: ${message}`)
  })
  for (const section of sections) {
    if (section.name === 'UKIProfile' || section.name.startsWith('X-') || section.name === '') continue
    problems.push(`${file}:${section.line}:${section.column}: unknown section [${section.name}]; expected [UKIProfile]`)
  }
  for (const entry of sections.filter((section) => section.name === 'UKIProfile').flatMap((s) => s.entries)) {
    const { name, value, line, column } = entry
    if (name === 'Profile') read.profile = value === '' ? {} : { ...read.profile, ...profileLines(value) }
    else if (name === 'Cmdline') read.cmdline = value === '' ? [] : [...read.cmdline, ...words(value, 'space')]
    else if (name === 'SignExpectedPcr') {
      try {
        read.signExpectedPcr = value === '' ? true : boolean.parse(value, place)
      } catch (error) {
        problems.push(`${file}:${line}:${column}: ${name}: ${(error as Error).message}`)
      }
    } else {
      const near = nearest(name, ['Profile', 'Cmdline', 'SignExpectedPcr'])
      problems.push(`${file}:${line}:${column}: unknown setting "${name}"${near ? `; did you mean "${near}"?` : ''}`)
    }
  }
  if (problems.length > 0) throw new Fault('recipe', problems.join('; '))
  return read
}

const profileLines = (text: string): Pairs =>
  Object.fromEntries(
    text.split('\n').flatMap((line) => {
      const equals = line.includes('=') ? line.indexOf('=') : line.length
      return line === '' ? [] : [[line.slice(0, equals).trim(), line.slice(equals + 1).trim()]]
    }),
  )

export type Pairs = Readonly<Record<string, string>>

/** KEY=value pairs; later assignments of a key win. A bare KEY is empty, or with `inherit` has the caller's value. */
export function pairs(inherit = false): Type<Pairs, Pairs> {
  const expected = 'an object of strings'
  return {
    expected,
    merge: 'update',
    absent: {},
    separator: 'quoted space',
    parse(text, place) {
      const entries = words(text, 'quoted space').flatMap((word) => {
        const equals = word.indexOf('=')
        if (word === '') return []
        if (equals > 0) return [[word.slice(0, equals).trim(), word.slice(equals + 1).trim()] as const]
        if (equals === 0) return refuse('KEY=value', word)
        return [[word.trim(), inherit ? (place.env[word.trim()] ?? '') : ''] as const]
      })
      return Object.fromEntries(entries)
    },
    check(value) {
      if (value === null || typeof value !== 'object' || Array.isArray(value)) return refuse(expected, value)
      for (const [key, element] of Object.entries(value)) {
        if (typeof element !== 'string') throw new Fault('recipe', `expected ${expected}, got ${key}: ${shown(element)}`)
      }
      return { ...(value as Pairs) }
    },
  }
}

/** Splits one value into elements as mkosi does for a setting of that separator. */
export function words(text: string, separator: Separator): string[] {
  if (separator === 'comma or space') return text.split(/[\s,]+/).filter((word) => word !== '')
  if (separator === 'space') return text.split(/[ \n]+/).filter((word) => word !== '')
  const found: string[] = []
  const word = /[ \n]*((?:"(?:\\.|[^"\\])*"|'[^']*'|\\.|[^ \n"'\\])+)/gsy
  let end = 0
  for (let match = word.exec(text); match; match = word.exec(text)) {
    found.push(match[1]!.replace(/"((?:\\.|[^"\\])*)"|'([^']*)'|\\(.)/gs, unquote))
    end = word.lastIndex
  }
  if (text.slice(end).trim() !== '') refuse('balanced quotes', text)
  return found
}

function unquote(_: string, double: string | undefined, single: string | undefined, escaped: string | undefined): string {
  return double?.replace(/\\(["\\])/g, '$1') ?? single ?? escaped ?? ''
}
