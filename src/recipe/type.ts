/**
 * The types a setting may have: each reads a value from text (`--set`, mkosi.conf) and checks one from TypeScript.
 *
 * Both refuse with a Fault whose message reads `expected …, got …`; the loader puts the setting and its place before it.
 */
import { isAbsolute, normalize, resolve } from 'node:path'
import { Fault } from '../base/fault.ts'
import { nearest } from '../base/nearest.ts'
import { parseSize } from '../base/size.ts'

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
  readonly _input?: Input
}

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

const YES = ['yes', 'true', 'on', '1', 'y', 't']
const NO = ['no', 'false', 'off', '0', 'n', 'f']
const asBoolean = (text: string): boolean | undefined =>
  YES.includes(text.toLowerCase()) ? true : NO.includes(text.toLowerCase()) ? false : undefined

export const boolean: Type<boolean> = {
  ...scalar('true or false', (value) => (typeof value === 'boolean' ? value : undefined)),
  parse: (text) => asBoolean(text) ?? refuse('yes or no', text),
}

/** mkosi's three-way switch. */
export const feature: Type<boolean | 'auto'> = {
  ...scalar('true, false or "auto"', (value) => (typeof value === 'boolean' || value === 'auto' ? value : undefined)),
  parse: (text) => (text === 'auto' ? text : (asBoolean(text) ?? refuse('yes, no or auto', text))),
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

/** Bytes: a number, or text such as `512M`. */
export const size: Type<number, undefined, number | string> = scalar('a size such as "512M"', (value) => {
  if (typeof value === 'number') return Number.isSafeInteger(value) && value >= 0 ? value : undefined
  try {
    return typeof value === 'string' ? parseSize(value) : undefined
  } catch {
    return undefined
  }
})

export const guid: Type<string> = scalar('a GUID', (value) => {
  const digits = typeof value === 'string' ? value.toLowerCase().replaceAll('-', '') : ''
  return /^[0-9a-f]{32}$/.test(digits) ? digits.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5') : undefined
})

/** An octal file mode: `"0644"` in both syntaxes, or a number in TypeScript. */
export const mode: Type<number, undefined, number | string> = scalar('an octal mode such as "0644"', (value) => {
  const number = typeof value === 'string' && /^0?[0-7]{1,4}$/.test(value) ? Number.parseInt(value, 8) : value
  return Number.isInteger(number) && (number as number) >= 0 && (number as number) <= 0o7777 ? (number as number) : undefined
})

export interface Choices<C extends string> {
  /** What yes and no mean, where mkosi takes a boolean as well. */
  yes?: C
  no?: C
  /** Other spellings of the same. */
  also?: Readonly<Record<string, C>>
  /** mkosi's values that Bisque knows and does not support yet. */
  later?: readonly string[]
}

export function choice<const C extends string>(values: readonly C[], more?: Choices<NoInfer<C>> & { yes?: never }): Type<C>
export function choice<const C extends string>(values: readonly C[], more: Choices<NoInfer<C>>): Type<C, undefined, C | boolean>
export function choice<const C extends string>(values: readonly C[], more: Choices<NoInfer<C>> = {}): Type<C, undefined, any> {
  const all = [...values, ...Object.keys(more.also ?? {})]
  const expected = values.length === 1 ? `"${values[0]}"` : `one of ${values.join(', ')}`
  const check = (value: unknown): C => {
    const on = typeof value === 'boolean' ? value : typeof value === 'string' ? asBoolean(value) : undefined
    const text = all.includes(value as string) ? (value as string) : on === true ? more.yes : on === false ? more.no : undefined
    if (text !== undefined) return more.also?.[text] ?? (text as C)
    if (more.later?.includes(value as string))
      throw new Fault('recipe', `"${value}" is known but not supported yet; supported: ${values.join(', ')}`)
    const near = typeof value === 'string' ? nearest(value, all) : undefined
    throw new Fault('recipe', `expected ${expected}, got ${shown(value)}${near ? `; did you mean "${near}"?` : ''}`)
  }
  return { expected, merge: 'replace', absent: undefined, parse: check, check }
}

/** Exactly one of the host's paths, absolute after loading. */
export const path: Type<string> = scalar('a path', (value, place) =>
  typeof value === 'string' && value !== '' && !value.includes('\0') ? resolve(place.directory, value) : undefined,
)

/** A path inside the image. */
export const imagePath: Type<string> = scalar('an absolute path in the image', (value) =>
  typeof value === 'string' && isAbsolute(value) && !value.includes('\0') ? normalize(value) : undefined,
)

export interface TreeSource {
  /** A folder or archive of the host. */
  source: string
  /** Where its content goes in the image. */
  target: string
}

/** `source` or `source:target`. */
export const treeSource: Type<TreeSource, undefined, string | { source: string; target?: string }> = scalar(
  'a path, or "source:/target"',
  (value, place) => {
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
  },
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
): Type<readonly T[], readonly T[], readonly I[]> {
  const wanted = of === (string as unknown) ? 'a list of strings' : `a list (each element ${of.expected})`
  return {
    expected: wanted,
    merge: 'append',
    absent: [],
    parse: (text, place) => words(text, separator).map((word) => of.parse(word, place)),
    check(value, place) {
      if (!Array.isArray(value)) return refuse(wanted, value)
      return value.map((element) => {
        if (typeof element !== 'string' && of === (string as unknown)) refuse('strings in the list', element)
        return of.check(element, place)
      })
    },
  }
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
  }
}

export type Pairs = Readonly<Record<string, string>>

/** KEY=value pairs; later assignments of a key win. `inherit` lets a bare KEY take the host's value. */
export function pairs(inherit = false): Type<Pairs, Pairs> {
  const expected = 'an object of strings'
  return {
    expected,
    merge: 'update',
    absent: {},
    parse(text, place) {
      const entries = words(text, 'quoted space').map((word) => {
        const equals = word.indexOf('=')
        if (equals > 0) return [word.slice(0, equals), word.slice(equals + 1)] as const
        if (equals === 0 || !inherit) return refuse('KEY=value', word)
        return [word, place.env[word] ?? ''] as const
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
  const word = /\s*((?:"(?:\\.|[^"\\])*"|'[^']*'|\\.|[^\s"'\\])+)/gsy
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
