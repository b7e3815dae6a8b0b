/**
 * Recipe: what to bake, as one value with every setting known and every value's origin remembered.
 */
import { existsSync, readFileSync, statSync } from 'node:fs'
import { basename, dirname, join, resolve } from 'node:path'
import { digestOf, type Sha256 } from '../base/digest.ts'
import { Fault } from '../base/fault.ts'
import { nearest } from '../base/nearest.ts'
import { importDefault } from './import.ts'
import { anyKey, keyPositions } from './position.ts'
import { KEYS, type Key, mkosiName, type RecipeSettings, ROWS, type Settings, settingNamed } from './schema.ts'
import { shown } from './type.ts'
import { type Assignment, evaluate, type Problem } from './values.ts'

/** What `recipe.ts` exports. */
export interface RecipeInput extends RecipeSettings {
  /** Overlays by name, applied in the order in which `--profile` names them: lists grow, other values are replaced. */
  profiles?: Readonly<Record<string, RecipeSettings>>
}

export interface Recipe {
  /** Folder that relative paths count from; `bisque.lock`, `keys/` and `out/` lie in it. */
  directory: string
  /** Absolute path of `recipe.ts`. */
  file: string
  settings: Settings
  /** Where each value came from: `recipe.ts:12:3`, `profile desktop (recipe.ts:30:5)`, `--set`, `default`. */
  origins: ReadonlyMap<Key, string>
  /** Names of the profiles that were applied, in order. */
  profiles: readonly string[]
  /** Names of all profiles that the recipe has. */
  knownProfiles: readonly string[]
  /** What is not wrong but without effect, for the report. */
  notes: readonly string[]
}

export interface LoadOptions {
  profiles?: readonly string[]
  /** `KernelCommandLine=quiet` or `kernelCommandLine=quiet`, applied last. */
  set?: readonly string[]
  /** The environment that `SOURCE_DATE_EPOCH` and `environment` without a value are taken from. */
  env?: Readonly<Record<string, string | undefined>>
}

const BRAND = Symbol.for('bisque.recipe')

/** Marks a value as a recipe; typed, so that an editor completes and checks its settings. */
export function defineRecipe(recipe: RecipeInput): RecipeInput {
  return Object.defineProperty({ ...recipe }, BRAND, { value: true })
}

/** Reads a recipe: a folder with `recipe.ts`, or such a file under any name. All problems are reported at once. */
export async function loadRecipe(path: string, options: LoadOptions = {}): Promise<Recipe> {
  const file = recipeFile(path)
  const exported = await importDefault(file)
  if (exported === null || typeof exported !== 'object' || Array.isArray(exported)) {
    throw new Fault('recipe', `Cannot read recipe: ${basename(file)} must export an object, it exports ${shown(exported)}`, {
      hint: 'write: export default defineRecipe({ … })',
    })
  }
  const problems: Problem[] = []
  const source = readSource(file, exported as Record<string, unknown>)
  const env = options.env ?? {}
  const assignments = [...fromEnvironment(env), ...source.assignments('', problems)]
  const set = fromSet(options.set ?? [], problems)
  const profiles = selectedProfiles(options.profiles ?? [], set)
  for (const name of profiles) assignments.push(...source.profile(name, problems))
  assignments.push(...set, { key: 'profiles', syntax: 'value', value: ['', ...profiles], where: '--profile' })

  const directory = dirname(file)
  const around = { directory, fileDirectory: directory, mainDirectory: directory, image: 'main', env }
  const { settings, origins } = evaluate(assignments, around, problems)
  if (profiles.length === 0) origins.set('profiles', 'default')
  if (problems.length > 0) throw recipeFault(problems, basename(file))
  return { directory, file, settings, origins, profiles, knownProfiles: source.profileNames, notes: notes(assignments) }
}

/** The digest of what decides which packages are chosen; the lock is for one such request. */
export function requestDigest(recipe: Pick<Recipe, 'settings'>): Sha256 {
  const resolving = KEYS.filter((key) => ROWS[key]!.resolves && ROWS[key]!.status.is === 'supported')
  return digestOf(Object.fromEntries(resolving.map((key) => [key, asSet(recipe.settings[key as keyof Settings])])))
}

/** Order and repetition in a list of packages or repositories decide nothing. */
const asSet = (value: unknown): unknown => (Array.isArray(value) ? [...new Set(value)].sort() : (value ?? null))

function recipeFile(path: string): string {
  const absolute = resolve(path)
  if (!existsSync(absolute))
    throw new Fault('missing', `Cannot read recipe: ${path} does not exist`, { hint: `bisque init ${path}` })
  if (!statSync(absolute).isDirectory()) return absolute
  const file = join(absolute, 'recipe.ts')
  if (existsSync(file)) return file
  if (existsSync(join(absolute, 'mkosi.conf')))
    throw new Fault('recipe', `Cannot read recipe: ${join(path, 'mkosi.conf')} is in mkosi's format, which is not supported yet`)
  throw new Fault('missing', `Cannot read recipe: there is no recipe.ts in ${path}`, { hint: `bisque init ${path}` })
}

interface Source {
  profileNames: string[]
  assignments(prefix: string, problems: Problem[]): Assignment[]
  profile(name: string, problems: Problem[]): Assignment[]
}

/** Assignments of a recipe's object, each with its position in the text. */
function readSource(file: string, exported: Record<string, unknown>): Source {
  const text = readFileSync(file, 'utf8')
  const positions = keyPositions(text)
  const at = (path: string): string => {
    const p = positions.get(path) ?? anyKey(text, path.slice(path.lastIndexOf('.') + 1))
    return p ? `${basename(file)}:${p.line}:${p.column}` : basename(file)
  }
  const profiles = exported['profiles'] ?? {}
  const overlays = isObject(profiles) ? (profiles as Record<string, unknown>) : {}

  const read = (object: Record<string, unknown>, prefix: string, label: string, problems: Problem[]): Assignment[] =>
    Object.entries(object).flatMap(([name, value]): Assignment[] => {
      if (value === undefined || (prefix === '' && name === 'profiles')) return []
      const key = settingNamed(name)
      const place = at(prefix + name)
      const where = label ? `${label} (${place})` : place
      if (key === name && key !== 'profiles') return [{ key, syntax: 'value', value, where }]
      problems.push({
        where: place,
        message: key === 'profiles' ? 'profiles: only the recipe itself has profiles' : unknown(name, key),
      })
      return []
    })

  return {
    profileNames: Object.keys(overlays),
    assignments(prefix, problems) {
      if (!isObject(profiles)) {
        problems.push({
          where: at('profiles'),
          message: `profiles: expected an object of profiles by name, got ${shown(profiles)}`,
        })
      }
      checkOverlays(overlays, read, at, problems)
      return read(exported, prefix, '', problems)
    },
    profile(name, problems) {
      const overlay = Object.hasOwn(overlays, name) ? overlays[name] : undefined
      if (isObject(overlay)) return read(overlay as Record<string, unknown>, `profiles.${name}.`, `profile ${name}`, [])
      if (overlay === undefined) problems.push({ where: '', message: unknownProfile(name, Object.keys(overlays)) })
      return []
    },
  }
}

/** Profiles that are not applied are checked all the same: names, and that values are of their type. */
function checkOverlays(
  overlays: Record<string, unknown>,
  read: (object: Record<string, unknown>, prefix: string, label: string, problems: Problem[]) => Assignment[],
  at: (path: string) => string,
  problems: Problem[],
): void {
  for (const [name, overlay] of Object.entries(overlays)) {
    if (isObject(overlay)) read(overlay as Record<string, unknown>, `profiles.${name}.`, '', problems)
    else
      problems.push({
        where: at(`profiles.${name}`),
        message: `profile ${name}: expected an object of settings, got ${shown(overlay)}`,
      })
  }
}

const isObject = (value: unknown): boolean => value !== null && typeof value === 'object' && !Array.isArray(value)

function unknown(name: string, key: Key | undefined): string {
  if (key !== undefined) return `${name}: in recipe.ts settings are in camelCase; write "${key}"`
  const near = nearest(name, KEYS)
  return `unknown setting "${name}"${near ? `; did you mean "${near}"?` : ''}`
}

function unknownProfile(name: string, known: readonly string[]): string {
  const near = nearest(name, known)
  const all = known.length === 0 ? 'the recipe has none' : `known: ${known.join(', ')}`
  return `unknown profile "${name}"${near ? `; did you mean "${near}"?` : ''} (${all})`
}

function fromSet(set: readonly string[], problems: Problem[]): Assignment[] {
  return set.flatMap((text): Assignment[] => {
    const equals = text.indexOf('=')
    const name = equals < 0 ? text : text.slice(0, equals).trim()
    const key = settingNamed(name)
    const where = `--set ${shownAssignment(text, key)}`
    if (key !== undefined && equals >= 0) return [{ key, syntax: 'text', value: text.slice(equals + 1).trim(), where }]
    const near = nearest(name, [...KEYS, ...KEYS.map(mkosiName)])
    const message =
      key !== undefined ? 'expected KEY=VALUE' : `unknown setting "${name}"${near ? `; did you mean "${near}"?` : ''}`
    problems.push({ where, message })
    return []
  })
}

const shownAssignment = (text: string, key: Key | undefined): string =>
  key !== undefined && ROWS[key]!.secret ? `${text.slice(0, text.indexOf('='))}=…` : text

/** `--profile` first, then `--set Profiles=`, whose empty value drops the ones before, each once. */
function selectedProfiles(options: readonly string[], set: readonly Assignment[]): string[] {
  let selected = [...options]
  for (const { key, value } of set) {
    if (key !== 'profiles') continue
    const names = String(value)
      .split(/[\s,]+/)
      .filter((name) => name !== '')
    selected = names.length === 0 ? [] : [...selected, ...names]
  }
  return [...new Set(selected)]
}

/** https://reproducible-builds.org/specs/source-date-epoch/ */
function fromEnvironment(env: Readonly<Record<string, string | undefined>>): Assignment[] {
  const value = env['SOURCE_DATE_EPOCH']
  return value ? [{ key: 'sourceDateEpoch', syntax: 'text', value, where: 'environment SOURCE_DATE_EPOCH' }] : []
}

function notes(assignments: readonly Assignment[]): string[] {
  return assignments.flatMap(({ key, where }) => {
    const status = ROWS[key]!.status
    return status.is === 'without-effect' ? [`${where}: ${key} is without effect: ${status.reason}`] : []
  })
}

function recipeFault(problems: readonly Problem[], file: string): Fault {
  const lines = problems.map(({ where, message }) => `${where || file}: ${message}`)
  if (lines.length === 1) return new Fault('recipe', `Cannot read recipe: ${lines[0]}`)
  return new Fault('recipe', `Cannot read recipe, ${lines.length} problems:\n${lines.map((line) => `  ${line}`).join('\n')}`)
}
