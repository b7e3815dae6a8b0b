/**
 * Recipe: what to bake, as one value with every setting known and every value's origin remembered.
 */
import { existsSync, statSync } from 'node:fs'
import { basename, dirname, join, relative, resolve } from 'node:path'
import { digestOf, type Sha256 } from '../base/digest.ts'
import { Fault } from '../base/fault.ts'
import { nearest } from '../base/nearest.ts'
import { imagesOf } from './images.ts'
import { importDefault } from './import.ts'
import { configFolder, loadMkosi } from './mkosi/load.ts'
import { KEYS, type Key, mkosiName, type RecipeSettings, ROWS, type Settings, settingNamed } from './schema.ts'
import { readSource, type Source } from './source.ts'
import { shown } from './type.ts'
import { type Assignment, evaluate, type Problem } from './values.ts'

/** What `recipe.ts` exports. */
export interface RecipeInput extends RecipeSettings {
  /** Overlays by name, applied in the order in which `--profile` names them: lists grow, other values are replaced. */
  profiles?: Readonly<Record<string, RecipeSettings>>
  /** Sub-images by name, made before the main one. What holds for all images they get from it. */
  images?: Readonly<Record<string, RecipeSettings>>
  /** What the initrd that is built from packages gets beside what it always has. */
  initrd?: RecipeSettings
}

/** One image that a recipe makes: the main one, a sub-image, or the initrd. */
export interface ImageRecipe {
  /** `main`, `default-initrd`, or the sub-image's name in `mkosi.images/`. */
  name: string
  settings: Settings
  /** Where each value came from: `recipe.ts:12:3`, `profile desktop (recipe.ts:30:5)`, `--set`, `default`. */
  origins: ReadonlyMap<Key, string>
  /** Names of the profiles that were applied, in order. */
  profiles: readonly string[]
}

export interface Recipe extends ImageRecipe {
  /** Folder that relative paths count from; `bisque.lock`, `keys/` and `out/` lie in it. */
  directory: string
  /** Absolute path of `recipe.ts` or `mkosi.conf`. */
  file: string
  /** Images that are made before the main one, dependencies first. The default initrd is one of them where it is wanted. */
  subimages: readonly ImageRecipe[]
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
  /** Take values that cannot be built, such as another distribution: for a summary. */
  anyValue?: boolean
}

const BRAND = Symbol.for('bisque.recipe')

/** Marks a value as a recipe; typed, so that an editor completes and checks its settings. */
export function defineRecipe(recipe: RecipeInput): RecipeInput {
  return Object.defineProperty({ ...recipe }, BRAND, { value: true })
}

/** Reads a recipe: a folder with `recipe.ts`, or such a file under any name. All problems are reported at once. */
export async function loadRecipe(path: string, options: LoadOptions = {}): Promise<Recipe> {
  const file = recipeFile(path)
  const recipe = await (basename(file) === 'mkosi.conf' ? loadFolder(path, file, options) : loadTypeScript(file, options))
  const problems = [recipe, ...recipe.subimages].flatMap((image) => [...hermeticProblems(image), ...ipeProblems(image)])
  if (problems.length > 0 && !options.anyValue) throw recipeFault(problems, basename(file))
  return recipe
}

/** Settings that finish a root of mkosi's kind: where /usr is made complete in itself, nothing would come of them. */
const OF_A_ROOT = ['overlay', 'kernelModules', 'kernelModulesExclude', 'localeMessages', 'machineId', 'autologin', 'ssh'] as const

/** What a hermetic /usr leaves no place for. */
function hermeticProblems({ settings, origins }: ImageRecipe): Problem[] {
  const sealed = settings.root === 'tpm2' ? sealedRootProblems({ settings, origins }) : []
  if (!settings.hermeticUsr) return sealed
  const isSet = (value: unknown) =>
    Array.isArray(value) ? value.length > 0 : ![undefined, false, 'never'].includes(value as never)
  const unused = OF_A_ROOT.filter((key) => origins.get(key) !== 'default' && isSet(settings[key]))
  const tell = (key: Key, why: string): Problem => ({ where: origins.get(key) ?? '', message: `${key}: ${why}` })
  return [
    ...sealed,
    ...(settings.format === 'disk' ? [] : [tell('hermeticUsr', `it is for disks, and the format is ${settings.format}`)]),
    ...unused.map((key) =>
      tell(key, 'without effect where /usr is complete in itself; hermeticUsr: false gives an ordinary root'),
    ),
  ]
}

/** What a root needs whose key is sealed to what was booted. */
function sealedRootProblems({ settings, origins }: Pick<ImageRecipe, 'settings' | 'origins'>): Problem[] {
  const { hermeticUsr, secureBoot, signExpectedPcr, kernelCommandLine, initrds } = settings
  const because = [
    ...(hermeticUsr ? [] : ['hermeticUsr: true']),
    ...(secureBoot ? [] : ['secureBoot: true']),
    ...(signExpectedPcr === true ? [] : ['signExpectedPcr: true']),
    ...(initrds.includes('default') ? [] : ["'default' among initrds"]),
    ...(kernelCommandLine.some((word) => word.startsWith('root=')) ? ['a kernelCommandLine without root='] : []),
  ]
  if (because.length === 0) return []
  return [{ where: origins.get('root') ?? '', message: `root: tpm2 needs ${because.join(', ')}` }]
}

/** What would leave a policy without effect, or the kernel without a key to check it by. */
function ipeProblems({ settings, origins }: ImageRecipe): Problem[] {
  const { ipe, ipePolicy, format, secureBoot, verity, kernelCommandLine } = settings
  const tell = (key: Key, message: string): Problem => ({ where: origins.get(key) ?? '', message: `${key}: ${message}` })
  if (ipe === 'off') return ipePolicy ? [tell('ipePolicy', 'without effect where ipe is "off"')] : []
  const wanted = `ipe.enforce=${ipe === 'enforce' ? 1 : 0}`
  const switched = kernelCommandLine.find(
    (word) => (word.startsWith('ipe.enforce=') && word !== wanted) || /^(security=|lsm=(?!(.*,)?ipe(,|$)))/.test(word),
  )
  return [
    ...(format === 'disk' ? [] : [tell('ipe', `it is for disks, and the format is ${format}; set ipe: 'off'`)]),
    ...(secureBoot ? [] : [tell('ipe', "the kernel trusts the policy by a key of Secure Boot, which is off; set ipe: 'off'")]),
    ...(verity === 'signed' || verity === 'auto'
      ? []
      : [tell('ipe', `nothing could be executed but the initrd, as verity is "${verity}"; set ipe: 'off'`)]),
    ...(switched ? [tell('kernelCommandLine', `"${switched}" would undo what ipe: '${ipe}' says; leave it out`)] : []),
  ]
}

async function loadFolder(path: string, file: string, options: LoadOptions): Promise<Recipe> {
  const problems: Problem[] = []
  const set = fromSet(options.set ?? [], problems)
  const configDirectory = dirname(file)
  const directory = existsSync(resolve(path)) && statSync(resolve(path)).isDirectory() ? resolve(path) : configDirectory
  const recipe = await loadMkosi({ directory, configDirectory, options, set, problems })
  if (problems.length > 0) throw recipeFault(problems, 'mkosi.conf')
  return recipe
}

async function loadTypeScript(file: string, options: LoadOptions): Promise<Recipe> {
  const exported = await importDefault(file)
  if (exported === null || typeof exported !== 'object' || Array.isArray(exported)) {
    throw new Fault('recipe', `Cannot read recipe: ${basename(file)} must export an object, it exports ${shown(exported)}`, {
      hint: 'write: export default defineRecipe({ … })',
    })
  }
  const problems: Problem[] = []
  const source = readSource(file, exported as Record<string, unknown>, problems)
  const env = options.env ?? {}
  const base = [...fromEnvironment(env), ...source.base]
  const set = fromSet(options.set ?? [], problems)
  const profiles = selectedProfiles(options.profiles ?? [], set)
  const overlays = profiles.flatMap((name) => overlayOf(source, name, problems))
  const chosen: Assignment = { key: 'profiles', syntax: 'value', value: ['', ...profiles], where: '--profile' }
  const assignments = [...base, ...overlays, ...set, chosen]

  const directory = dirname(file)
  const around = {
    directory,
    fileDirectory: directory,
    mainDirectory: directory,
    image: 'main',
    env,
    anyValue: options.anyValue ?? false,
  }
  const { settings, origins } = evaluate(assignments, around, problems)
  if (profiles.length === 0) origins.set('profiles', 'default')
  for (const [name, overlay] of source.profiles) {
    // Profiles that are not applied are checked all the same: each alone upon the recipe.
    if (profiles.includes(name)) continue
    const own: Problem[] = []
    evaluate([...base, ...overlay], around, own)
    problems.push(...own.filter(({ message }) => message.startsWith(`profile ${name}: `)))
  }
  const main: ImageRecipe = { name: 'main', settings, origins, profiles }
  const subimages = imagesOf({ main, source, set, around }, problems)
  if (problems.length > 0) throw recipeFault(problems, basename(file))
  const knownProfiles = [...source.profiles.keys()]
  const all = [...assignments, ...[...source.images.values()].flat(), ...source.initrd]
  return { ...main, directory, file, subimages, knownProfiles, notes: notes(all) }
}

/** The digest of what decides which packages are chosen; the lock is for one such request. */
export function requestDigest(recipe: Pick<Recipe, 'settings'>): Sha256 {
  const resolving = KEYS.filter((key) => ROWS[key]!.resolves && ROWS[key]!.status.is === 'supported')
  return digestOf(Object.fromEntries(resolving.map((key) => [key, asSet(recipe.settings[key as keyof Settings])])))
}

/** Order and repetition in a list of packages or repositories decide nothing. */
const asSet = (value: unknown): unknown => (Array.isArray(value) ? [...new Set(value)].sort() : (value ?? null))

/** The absolute path of the `recipe.ts` or `mkosi.conf`; the latter need not exist. */
function recipeFile(path: string): string {
  const absolute = resolve(path)
  if (!existsSync(absolute))
    throw new Fault('missing', `Cannot read recipe: ${path} does not exist`, { hint: `bisque init ${path}` })
  if (!statSync(absolute).isDirectory()) return absolute
  const file = join(absolute, 'recipe.ts')
  const folder = configFolder(absolute)
  if (folder === undefined && existsSync(file)) return file
  if (folder === undefined)
    throw new Fault('missing', `Cannot read recipe: there is no recipe.ts or mkosi.conf in ${path}`, {
      hint: `bisque init ${path}`,
    })
  const conf = join(folder, 'mkosi.conf')
  if (!existsSync(file)) return conf
  // Without a mkosi.conf, files named as mkosi has them are the recipe.ts's own.
  if (!existsSync(conf)) return file
  const both = [file, conf].map((name) => join(path, relative(absolute, name)))
  throw new Fault('recipe', `Cannot read recipe: there are two, ${both.join(' and ')}; name the one that is meant`, {
    hint: `bisque build ${both[0]}`,
  })
}

function overlayOf(source: Source, name: string, problems: Problem[]): readonly Assignment[] {
  const overlay = source.profiles.get(name)
  if (overlay) return overlay
  const known = [...source.profiles.keys()]
  const near = nearest(name, known)
  const all = known.length === 0 ? 'the recipe has none' : `the recipe has ${known.join(', ')}`
  problems.push({ where: '--profile', message: `unknown profile "${name}"${near ? `; did you mean "${near}"?` : ` (${all})`}` })
  return []
}

function fromSet(set: readonly string[], problems: Problem[]): Assignment[] {
  return set.flatMap((text): Assignment[] => {
    const equals = text.indexOf('=')
    const name = equals < 0 ? text : text.slice(0, equals).trim()
    const key = settingNamed(name)
    const where = `--set ${shownAssignment(text, key)}`
    if (key !== undefined && equals >= 0) return [{ key, syntax: 'text', value: text.slice(equals + 1).trim(), where }]
    const near = nearest(name, /^[A-Z]/.test(name) ? KEYS.map(mkosiName) : KEYS)
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

function recipeFault(all: readonly Problem[], file: string): Fault {
  const problems = [...new Map(all.map((problem) => [`${problem.where}\0${problem.message}`, problem])).values()]
  const files = [...new Set(problems.map(({ where }) => fileOf(where)))]
  const sorted = problems.toSorted((a, b) => inOrder(a.where, b.where, files))
  const lines = sorted.map(({ where, message }) => `${where || file}: ${message}`)
  if (lines.length === 1) return new Fault('recipe', `Cannot read recipe: ${lines[0]}`)
  return new Fault('recipe', `Cannot read recipe, ${lines.length} problems:\n${lines.map((line) => `  ${line}`).join('\n')}`)
}

const fileOf = (where: string): string => where.replace(/(:\d+)*$/, '')

/** File by file as they were read, each from top to bottom, and at last those of the command line. */
function inOrder(a: string, b: string, files: readonly string[]): number {
  const rank = (where: string): readonly number[] => {
    const position = /(\d+):(\d+)$/.exec(where)?.slice(1).map(Number) ?? [0, 0]
    return where.startsWith('--') ? [1e9, 0, 0] : [where === '' ? -1 : files.indexOf(fileOf(where)), ...position]
  }
  const [x, y] = [rank(a), rank(b)]
  return x[0]! - y[0]! || x[1]! - y[1]! || x[2]! - y[2]!
}
