/** A folder in mkosi's format as a recipe. */
import { existsSync, readdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { Fault } from '../../base/fault.ts'
import { nearest } from '../../base/nearest.ts'
import type { ImageRecipe, LoadOptions, Recipe } from '../recipe.ts'
import type { Assignment } from '../values.ts'
import { assign, faultOf, readValue } from './assign.ts'
import { configured } from './configure.ts'
import { execute } from './execute.ts'
import { finish, imageOf, inOrder, needsOf, readDefaultInitrd, readSubimages, wantsInitrd } from './images.ts'
import { parseConfiguration, profilesIn } from './parse.ts'
import { copyOf, type Folder, newReading, type Reading } from './state.ts'

/**
 * The folder that holds a folder's configuration: itself, or `mkosi/` in it; itself as well when it holds other files of
 * mkosi's, such as `mkosi.extra/`. Nothing when there is none.
 */
export function configFolder(directory: string): string | undefined {
  const has = (folder: string, name: string): boolean => existsSync(join(folder, name))
  if (has(directory, 'mkosi.conf') || has(directory, 'mkosi.tools.conf')) return directory
  if (has(directory, 'mkosi/mkosi.conf') || has(directory, 'mkosi/mkosi.tools.conf')) return join(directory, 'mkosi')
  return readdirSync(directory).some((name) => /^mkosi\.[a-z]/.test(name)) ? directory : undefined
}

export interface LoadMkosi {
  /** The folder that the recipe is said to lie in. */
  directory: string
  configDirectory: string
  options: LoadOptions
  /** `--set` as assignments, in order. */
  set: readonly Assignment[]
  problems: Folder['problems']
}

export async function loadMkosi(what: LoadMkosi): Promise<Recipe> {
  const { problems } = what
  const ofCommandLine = [...problems]
  const printed = new Map<string, string>()
  // What executable files print may make others be asked for: read again until all is known.
  for (let round = 0; ; round++) {
    problems.splice(0, Number.POSITIVE_INFINITY, ...ofCommandLine)
    const folder = folderOf(what, printed)
    const { recipe, readings } = readAll(folder, what)
    if (folder.asked.size === 0 || round === MOST_ROUNDS) return problems.length > 0 ? recipe : configured(recipe, readings)
    for (const file of folder.asked) printed.set(file, await printedBy(file, folder))
  }
}

/** Each round knows what one more layer of files prints; no recipe has this many. */
const MOST_ROUNDS = 8

const folderOf = ({ directory, configDirectory, options, problems }: LoadMkosi, printed: Folder['printed']): Folder => ({
  directory,
  configDirectory,
  env: options.env ?? {},
  problems,
  anyValue: options.anyValue ?? false,
  notes: new Set(),
  knownProfiles: new Set(),
  printed,
  asked: new Set(),
  count: 0,
})

const printedBy = (file: string, { directory }: Folder): Promise<string> => execute({ file, workdir: dirname(file), directory })

/** What the system says of files that cannot be read becomes a Fault. */
function readAll(folder: Folder, what: LoadMkosi): Images {
  try {
    return readImages(folder, what)
  } catch (error) {
    const fault = faultOf(error)
    if (!fault || fault === error) throw error
    throw new Fault('recipe', `Cannot read recipe: ${fault.message}`, { cause: error })
  }
}

interface Images {
  recipe: Recipe
  /** What each image was read from, by its name. */
  readings: ReadonlyMap<string, Reading>
}

function readImages(folder: Folder, { options, set, problems }: LoadMkosi): Images {
  const main = newReading(folder, 'main')
  fromCommandLine(main, options.profiles ?? [], set)
  for (const name of profilesIn(folder.configDirectory)) folder.knownProfiles.add(name)
  const applies = parseConfiguration(main, folder.configDirectory, folder.configDirectory, { profiles: true, local: true })
  if (!applies) folder.notes.add('mkosi.conf: its [Match] does not hold, so nothing that the folder says applies')
  if (existsSync(join(folder.configDirectory, 'mkosi.tools.conf'))) {
    folder.notes.add('mkosi.tools.conf is without effect: the tools that Bisque needs are its own; see ToolsTreePackages=')
  }
  const finished = finish(main)
  const before = copyOf(main)
  const readings = readSubimages(main, finished)
  const subimages = readings.map(imageOf)
  const recipe = imageOf(main)
  const explicit = main.cli.has('dependencies') || main.config.has('dependencies')
  const dependencies = explicit ? recipe.settings.dependencies : subimages.map(({ name }) => name)
  if ([recipe, ...subimages].some(wantsInitrd)) {
    const initrd = readDefaultInitrd(before, finished)
    readings.push(initrd)
    subimages.push(imageOf(initrd))
  }
  checkProfiles(main, recipe)
  const images = problems.length > 0 ? [] : inOrder(subimages, needsOf(recipe, dependencies))
  return {
    recipe: { ...recipe, ...rest(folder, images) },
    readings: new Map([main, ...readings].map((reading) => [reading.image, reading])),
  }
}

const rest = (folder: Folder, subimages: readonly ImageRecipe[]) => ({
  directory: folder.directory,
  file: join(folder.configDirectory, 'mkosi.conf'),
  subimages,
  knownProfiles: [...folder.knownProfiles].sort(),
  notes: [...folder.notes],
})

function fromCommandLine(main: Reading, profiles: readonly string[], set: readonly Assignment[]): void {
  if (profiles.length > 0) main.cli.set('profiles', { value: [...new Set(profiles)], where: ['--profile'] })
  for (const { key, value, where } of set) {
    try {
      const read = readValue(main, key, String(value), main.folder.directory)
      if (read === undefined) main.cliEmptied.add(key)
      assign(main.cli, key, String(value), read, where)
    } catch (error) {
      if (!(error instanceof Fault)) throw error
      main.folder.problems.push({ where, message: `${key}: ${error.message}` })
    }
  }
}

/** A profile that no file is for and no condition asks about is a mistake. */
function checkProfiles(main: Reading, recipe: ImageRecipe): void {
  const known = [...main.folder.knownProfiles].sort()
  for (const name of recipe.profiles) {
    if (known.includes(name)) continue
    const near = nearest(name, known)
    const all = known.length === 0 ? 'the recipe has none' : `the recipe has ${known.join(', ')}`
    const where = recipe.origins.get('profiles') ?? '--profile'
    main.folder.problems.push({ where, message: `unknown profile "${name}"${near ? `; did you mean "${near}"?` : ` (${all})`}` })
  }
}
