/**
 * The types a setting may have: each reads a value from text (`--set`, mkosi.conf) and checks one from TypeScript.
 *
 * Both refuse with a Fault whose message reads `expected …, got …`; the loader puts the setting and its place before it.
 */
import { Fault } from '../base/fault.ts'
import { nearest } from '../base/nearest.ts'
import { alignUp, parseSize } from '../base/size.ts'

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

/** A type of one value; `read` gives nothing for what is not of it. */
export function scalar<T, Input = T>(
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

/** Where a key or certificate is kept: in a file, or a PKCS#11 token; other engines and providers are known. */
export const keySource: Type<string> = {
  ...matching('a source of keys such as "file"', /^(file|engine|provider)(:.*)?$/),
  unsupported: (value) =>
    value === 'file' || value === 'engine:pkcs11' || value === 'provider:pkcs11'
      ? undefined
      : `${shown(value)} is known but not supported: signatures are made in-process; use file or provider:pkcs11`,
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

/** A regular expression, kept as `re:…` as the lists of globs take it. */
export const regularExpression: Type<string> = scalar('a regular expression', (value) =>
  typeof value === 'string' && value !== '' ? (['default', 'host'].includes(value) ? value : `re:${value}`) : undefined,
)

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
