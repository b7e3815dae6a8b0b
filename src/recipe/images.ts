/** The images of a recipe.ts beside the main one, from what it says of them and what they get from the main image. */
import { Fault } from '../base/fault.ts'
import { assign } from './mkosi/assign.ts'
import { imageOf, inOrder, needsOf, readDefaultInitrd, wantsInitrd } from './mkosi/images.ts'
import { current, type Folder, newReading, type Reading, scopeProblem, type Value } from './mkosi/state.ts'
import type { ImageRecipe } from './recipe.ts'
import { KEYS, type Key, ROWS } from './schema.ts'
import type { Source } from './source.ts'
import { expandSpecifiers } from './specifiers.ts'
import { type Around, type Assignment, evaluate, expandAll, originOf, type Problem, problemAt } from './values.ts'

export interface ImagesOf {
  main: ImageRecipe
  source: Pick<Source, 'images' | 'initrd'>
  /** Settings of the command line. */
  set: readonly Assignment[]
  around: Around
}

/** Every image that the main one is made of, each after those it is made of itself. */
export function imagesOf(of: ImagesOf, problems: Problem[]): ImageRecipe[] {
  const { main, source } = of
  const images = [...source.images].map(([name, own]) => subimageOf(of, name, own, problems))
  if ([main, ...images].some(wantsInitrd)) images.push(defaultInitrd(of, problems))
  const explicit = main.origins.get('dependencies') !== 'default'
  const dependencies = explicit ? main.settings.dependencies : [...source.images.keys()]
  return problems.length > 0 ? [] : inOrder(images, needsOf(main, dependencies))
}

const valuesOf = (image: ImageRecipe): Readonly<Record<string, unknown>> => image.settings as unknown as Record<string, unknown>
const scopeIs = (key: Key, ...scopes: readonly string[]): boolean => scopes.includes(ROWS[key]!.scope)

function subimageOf(of: ImagesOf, name: string, own: readonly Assignment[], problems: Problem[]): ImageRecipe {
  const { main, around } = of
  const final = (key: Key, value: unknown = valuesOf(main)[key]): Assignment => {
    return { key, syntax: 'final', value, where: main.origins.get(key) ?? 'default' }
  }
  const keys = KEYS.filter((key) => key in main.settings)
  const assignments = [
    ...keys.filter((key) => scopeIs(key, 'inherit', 'universal', 'multiversal')).map((key) => final(key)),
    final('environment', passed(main)),
    ...permitted(name, own, problems),
  ]
  const { settings, origins } = evaluate(assignments, { ...around, image: name }, problems)
  return { name, settings, origins, profiles: main.profiles }
}

const passed = ({ settings }: ImageRecipe): Readonly<Record<string, string>> =>
  Object.fromEntries(Object.entries(settings.environment).filter(([name]) => settings.passEnvironment.includes(name)))

function permitted(image: string, own: readonly Assignment[], problems: Problem[]): Assignment[] {
  return own.filter((assignment) => {
    const misplaced = scopeProblem({ image }, assignment.key)
    if (misplaced) problems.push(problemAt(assignment, `${assignment.key}: ${misplaced}`))
    return !misplaced
  })
}

/** As mkosi reads it: the built-in configuration comes after what the recipe says of it. */
function defaultInitrd({ main, source, set, around }: ImagesOf, problems: Problem[]): ImageRecipe {
  const { directory, env, anyValue = false } = around
  const folder: Folder = {
    ...{ directory, configDirectory: directory, env, problems, anyValue },
    ...{ notes: new Set(), knownProfiles: new Set(), printed: new Map(), asked: new Set(), count: 0 },
  }
  const reading = newReading(folder, 'main')
  const values = valuesOf(main)
  const finished = new Map(
    KEYS.map((key): [Key, Value] => {
      const value = key in values ? values[key] : ROWS[key]!.type.absent
      return [key, { value, where: [main.origins.get(key) ?? 'default'] }]
    }),
  )
  for (const key of KEYS) {
    if (set.some((assignment) => assignment.key === key)) reading.cli.set(key, finished.get(key)!)
    else if ((main.origins.get(key) ?? 'default') !== 'default') reading.config.set(key, finished.get(key)!)
  }
  return imageOf(readDefaultInitrd(reading, finished, (initrd) => assignOwn(initrd, source.initrd, around, problems)))
}

function assignOwn(initrd: Reading, own: readonly Assignment[], around: Around, problems: Problem[]): void {
  for (const assignment of permitted(initrd.image, own, problems)) {
    const { key, value } = assignment
    const expand = (text: string): string =>
      expandSpecifiers(text, (other) => current(initrd, other).value, { ...around, image: initrd.image })
    try {
      const read =
        value === null ? undefined : ROWS[key]!.type.check(ROWS[key]!.secret ? value : expandAll(value, expand), around)
      assign(initrd.config, key, '', read, originOf(assignment))
    } catch (error) {
      if (!(error instanceof Fault)) throw error
      problems.push(problemAt(assignment, `${key}: ${error.message}`))
    }
  }
}
