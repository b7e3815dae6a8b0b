/**
 * Writing a recipe.ts that makes what another recipe makes: a folder in mkosi's format becomes one typed file.
 *
 * What is written is what was read, with profiles and `--set` applied: conditions, specifiers and includes have done their work.
 * Trees, scripts and keys stay where they are and are named by their paths from the new file.
 */
import { relative } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import { Fault } from '../base/fault.ts'
import type { TreeSource } from './file-type.ts'
import { imagesOf } from './images.ts'
import type { ImageRecipe, Recipe } from './recipe.ts'
import { KEYS, type Key, ROWS, type Row } from './schema.ts'
import type { Password } from './type.ts'
import type { UkiProfile } from './uki-profile.ts'

export interface Written {
  text: string
  /** What the new recipe does not say, or says in the clear. */
  notes: string[]
}

/** The text of a recipe.ts for the folder `directory`. */
export function writeRecipe(recipe: Recipe, directory: string): Written {
  const main = ownOf(recipe, directory, (key) => defaultOf(key, recipe, directory))
  const subimages = recipe.subimages.filter(({ name }) => name !== DEFAULT_INITRD)
  const images = subimages.map(
    (image) => [image.name, ownOf(image, directory, (key) => inherited(key, image, recipe, directory))] as const,
  )
  const initrd = recipe.subimages.find(({ name }) => name === DEFAULT_INITRD)
  const own = initrd === undefined ? [] : ownOfInitrd(initrd, recipe, directory)
  const body = [
    ...sections(main),
    ...(images.length > 0 ? [`  images: {\n${images.map(([name, own]) => block(name, own)).join('\n')}\n  },`] : []),
    ...(own.length > 0 ? [`  initrd: {\n${entries(own, 4).join('\n')}\n  },`] : []),
  ].join('\n\n')
  const text = `${HEADER}\nexport default defineRecipe({\n${body}\n})\n`
  const notes = [recipe, ...recipe.subimages].flatMap(notesOf)
  return { text, notes: [...new Set([...notes, ...profileNotes(recipe)])] }
}

const HEADER = `import { defineRecipe } from 'bisque'\n`
const DEFAULT_INITRD = 'default-initrd'

/** Settings that say how a recipe is read, which is over by now. */
export const NOT_WRITTEN: readonly Key[] = ['profiles', 'minimumVersion', 'configureScripts']

type Own = [Key, unknown][]

const valuesOf = (image: ImageRecipe): Readonly<Record<string, unknown>> => image.settings as unknown as Record<string, unknown>

/** The settings of an image that are not what they would be anyway, in the form that TypeScript has. */
function ownOf(image: ImageRecipe, directory: string, otherwise: (key: Key) => unknown): Own {
  const values = valuesOf(image)
  return KEYS.filter((key) => key in values && !NOT_WRITTEN.includes(key)).flatMap((key): Own => {
    const value = values[key]
    if (isDeepStrictEqual(value, otherwise(key))) return []
    return [[key, value === undefined ? null : inputOf(key, value, directory)]]
  })
}

/** The value of a setting that a recipe.ts does not mention, when the image's others are what they are. */
function defaultOf(key: Key, image: ImageRecipe, directory: string): unknown {
  const row = ROWS[key]!
  const values = valuesOf(image)
  const get = (other: string): unknown => (other === 'directory' ? directory : other === 'image' ? image.name : values[other])
  if (row.required) return NOTHING
  if (row.defaultFrom) return row.defaultFrom(get)
  return row.default ?? row.type.absent
}

/** Equals no value. */
const NOTHING = Symbol('nothing')

function inherited(key: Key, image: ImageRecipe, main: ImageRecipe, directory: string): unknown {
  const { scope } = ROWS[key]!
  if (scope === 'universal' || scope === 'multiversal') return valuesOf(image)[key]
  if (scope === 'inherit') return valuesOf(main)[key]
  if (scope !== 'local' && scope !== 'initrd-inherit') return valuesOf(image)[key]
  if (key !== 'environment') return defaultOf(key, image, directory)
  const { environment, passEnvironment } = main.settings
  return Object.fromEntries(Object.entries(environment).filter(([name]) => passEnvironment.includes(name)))
}

/** What the initrd has beyond what it has by itself. */
function ownOfInitrd(initrd: ImageRecipe, main: Recipe, directory: string): Own {
  const origins = new Map(main.origins)
  const explicit = ownOf(main, directory, (key) => defaultOf(key, main, directory)).map(([key]) => key)
  for (const key of KEYS) origins.set(key, explicit.includes(key) ? 'recipe.ts' : 'default')
  const around = { directory, fileDirectory: directory, mainDirectory: directory, image: 'main', env: {}, anyValue: true }
  const source = { images: new Map(), initrd: [] }
  const plain = imagesOf(
    {
      main: { ...main, origins, settings: { ...main.settings, dependencies: [], initrds: ['default'] } },
      source,
      set: [],
      around,
    },
    [],
  )
  const [base, values] = [valuesOf(plain[0]!), valuesOf(initrd)]
  return KEYS.flatMap((key): Own => {
    if (!(key in values) || NOT_WRITTEN.includes(key) || isSame(ROWS[key]!, values[key], base[key])) return []
    const added = addedTo(ROWS[key]!, base[key], values[key])
    return [[key, added === undefined ? null : inputOf(key, added, directory)]]
  })
}

/** The order of lists that have one of their own decides nothing. */
function isSame(row: Row, a: unknown, b: unknown): boolean {
  const { order } = row.type
  const some = (value: unknown): unknown => (order && Array.isArray(value) ? value.toSorted(order) : value)
  return isDeepStrictEqual(some(a), some(b))
}

/** What must come between for the one to become the other. */
function addedTo(row: Row, base: unknown, wanted: unknown): unknown {
  if (row.type.merge === 'update') {
    return Object.fromEntries(
      Object.entries(wanted as object).filter(([name, value]) => (base as Record<string, unknown>)[name] !== value),
    )
  }
  if (row.type.merge === 'replace') return wanted
  const [before, after] = [base as readonly unknown[], wanted as readonly unknown[]]
  if (row.type.order) return withoutThose(after, before)
  const length = after.length - before.length
  const at = before.findIndex((value, i) => !isDeepStrictEqual(value, after[i]))
  const start = at < 0 ? before.length : at
  return after.slice(start, start + length)
}

function withoutThose(all: readonly unknown[], some: readonly unknown[]): unknown[] {
  const left = [...some]
  return all.filter((value) => {
    const at = left.findIndex((other) => isDeepStrictEqual(value, other))
    if (at >= 0) left.splice(at, 1)
    return at < 0
  })
}

const PROBE = { directory: '/bisque-probe', env: {} }

/** The value as a recipe.ts writes it: paths from its folder, `%` doubled. It reads back as the same. */
function inputOf(key: Key, value: unknown, directory: string): unknown {
  const row = ROWS[key]!
  const place = { directory, env: {} }
  for (const input of candidates(row, value, directory)) {
    try {
      if (isDeepStrictEqual(row.type.check(input, place), value)) return row.secret ? input : escaped(input)
    } catch (error) {
      if (!(error instanceof Fault)) throw error
    }
  }
  throw new Fault('recipe', `Cannot write recipe: there is no way to write ${key} in TypeScript`)
}

/** Ways in which the value might be written; the first that reads back as the same is the one. */
function candidates(row: Row, value: unknown, directory: string): unknown[] {
  const near = (path: string): string => {
    const found = relative(directory, path) || '.'
    return found.startsWith('.') ? found : `./${found}`
  }
  const each = (convert: (one: unknown) => unknown): unknown => (Array.isArray(value) ? value.map(convert) : convert(value))
  const paths = holdsPaths(row, Array.isArray(value))
  const fromFolder = (one: unknown): unknown => {
    if (typeof one === 'string') return paths && one.startsWith('/') ? near(one) : one
    const { source, target, profile, path } = (one ?? {}) as Partial<TreeSource & UkiProfile & { path: string }>
    if (typeof source === 'string' && profile !== undefined) return near(source)
    if (typeof source === 'string') return target === '/' || target === '' ? near(source) : { source: near(source), target }
    return typeof path === 'string' ? { ...(one as object), path: near(path) } : one
  }
  const withoutPrefix = (one: unknown): unknown => (typeof one === 'string' ? one.replace(/^re:/, '') : one)
  const { value: text, hashed } = (value ?? {}) as Partial<Password>
  return [...sizesOf(value), each(fromFolder), each(withoutPrefix), value, hashed ? `hashed:${text}` : text]
}

/** Bytes in the largest unit that has them whole. */
function sizesOf(value: unknown): string[] {
  const unit = (['G', 'M'] as const).find((name) => typeof value === 'number' && value > 0 && value % UNITS[name] === 0)
  return unit === undefined ? [] : [`${(value as number) / UNITS[unit]}${unit}`]
}

const UNITS = { G: 2 ** 30, M: 2 ** 20 }

/** Does the type take a path of the host, or a list of such? Paths inside the image do not count from anywhere. */
function holdsPaths(row: Row, asList: boolean): boolean {
  try {
    return isDeepStrictEqual(row.type.check(asList ? ['a'] : 'a', PROBE), asList ? ['/bisque-probe/a'] : '/bisque-probe/a')
  } catch (error) {
    if (!(error instanceof Fault)) throw error
    return false
  }
}

function escaped(input: unknown): unknown {
  if (typeof input === 'string') return input.replaceAll('%', '%%')
  if (Array.isArray(input)) return input.map(escaped)
  if (input === null || typeof input !== 'object') return input
  return Object.fromEntries(Object.entries(input).map(([key, value]) => [key, escaped(value)]))
}

function sections(own: Own): string[] {
  const bySection = Map.groupBy(own, ([key]) => ROWS[key]!.section)
  return [...bySection.values()].map((some) => entries(some, 2).join('\n'))
}

const block = (name: string, own: Own): string => `    ${keyOf(name)}: {\n${entries(own, 6).join('\n')}\n    },`
const entries = (own: Own, indent: number): string[] =>
  own.map(([key, value]) => `${' '.repeat(indent)}${key}: ${literal(key === 'outputMode' ? mode(value) : value, indent)},`)

const mode = (value: unknown): unknown => (typeof value === 'number' ? `0${value.toString(8)}` : value)
const keyOf = (name: string): string => (/^[A-Za-z_$][\w$]*$/.test(name) ? name : quoted(name))
const quoted = (text: string): string => `'${JSON.stringify(text).slice(1, -1).replaceAll('\\"', '"').replaceAll("'", "\\'")}'`

const WIDTH = 120

/** A value as code, on one line when it fits. */
function literal(value: unknown, indent: number): string {
  if (typeof value === 'string') return quoted(value)
  if (value === null || typeof value !== 'object') return String(value)
  const array = Array.isArray(value)
  const parts = array
    ? value.map((one) => literal(one, indent + 2))
    : Object.entries(value).map(([key, one]) => `${keyOf(key)}: ${literal(one, indent + 2)}`)
  const [open, close] = array ? ['[', ']'] : ['{ ', ' }']
  const line = `${open}${parts.join(', ')}${close}`
  if (parts.length === 0) return array ? '[]' : '{}'
  if (line.length + indent < WIDTH && !line.includes('\n')) return line
  const margin = ' '.repeat(indent + 2)
  const filled =
    array && value.every((one) => typeof one === 'string') ? fill(parts, WIDTH - indent - 2) : parts.map((part) => `${part},`)
  return `${open.trim()}\n${filled.map((part) => margin + part).join('\n')}\n${' '.repeat(indent)}${close.trim()}`
}

/** As many on a line as fit. */
function fill(parts: readonly string[], width: number): string[] {
  const lines: string[] = []
  for (const part of parts) {
    const last = lines.at(-1)
    if (last !== undefined && last.length + part.length + 2 <= width) lines[lines.length - 1] = `${last} ${part},`
    else lines.push(`${part},`)
  }
  return lines
}

function notesOf({ name, settings, profiles }: ImageRecipe): string[] {
  const secrets = (settings.rootPassword ? ['rootPassword'] : []).concat(
    settings.credentials.some((one) => 'value' in one) ? ['credentials'] : [],
  )
  const scripts = (['prepareScripts', 'buildScripts', 'postInstallationScripts', 'finalizeScripts'] as const).some(
    (key) => settings[key].length > 0,
  )
  return [
    ...(name === 'main' ? secrets.map((key) => `${key} stands in recipe.ts as it is`) : []),
    ...(name === 'main' && profiles.length > 0 && scripts
      ? ['scripts that ask for $PROFILES find none: the profiles are part of the recipe']
      : []),
    ...(settings.configureScripts.length > 0 ? ['configure scripts have had their say; they do not run again'] : []),
  ]
}

const profileNotes = ({ profiles, knownProfiles }: Recipe): string[] => {
  const left = knownProfiles.filter((name) => !profiles.includes(name))
  return [
    ...(profiles.length > 0 ? [`profile ${profiles.join(', ')}: part of the recipe now`] : []),
    ...(left.length > 0 ? [`not in the recipe: profile ${left.join(', ')}`] : []),
  ]
}
