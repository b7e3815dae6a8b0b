/** A folder in mkosi's format as a recipe. */
import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { Fault } from '../../base/fault.ts'
import { nearest } from '../../base/nearest.ts'
import type { ImageRecipe, LoadOptions, Recipe } from '../recipe.ts'
import type { Assignment } from '../values.ts'
import { assign, readValue } from './assign.ts'
import { finish, imageOf, inOrder, readDefaultInitrd, readSubimages } from './images.ts'
import { parseConfiguration } from './parse.ts'
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

export async function loadMkosi({ directory, configDirectory, options, set, problems }: LoadMkosi): Promise<Recipe> {
  const folder: Folder = {
    directory,
    configDirectory,
    env: options.env ?? {},
    problems,
    anyValue: options.anyValue ?? false,
    notes: new Set(),
    knownProfiles: new Set(),
    printed: new Map(),
  }
  const main = newReading(folder, 'main')
  fromCommandLine(main, options.profiles ?? [], set)
  parseConfiguration(main, configDirectory, configDirectory, { profiles: true, local: true })
  const finished = finish(main)
  const before = copyOf(main)
  const subimages = readSubimages(main, finished).map(imageOf)
  const recipe = imageOf(main)
  const dependencies =
    main.cli.has('dependencies') || main.config.has('dependencies')
      ? recipe.settings.dependencies
      : subimages.map(({ name }) => name)
  const wantsInitrd = (image: ImageRecipe) => image.settings.initrds.includes('default')
  if ([recipe, ...subimages].some(wantsInitrd)) subimages.push(imageOf(readDefaultInitrd(before, finished)))
  checkProfiles(main, recipe)
  if (problems.length > 0) return { ...recipe, ...rest(folder, []) }
  const images = inOrder(subimages, [...dependencies, ...(wantsInitrd(recipe) ? ['default-initrd'] : [])], (image) => [
    ...(image.settings.dependencies ?? []),
    ...(wantsInitrd(image) && image.name !== 'default-initrd' ? ['default-initrd'] : []),
  ])
  return { ...recipe, ...rest(folder, images) }
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
