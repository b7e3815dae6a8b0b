/** The images of a folder: the main one, those of `mkosi.images/`, and the default initrd; and in which order they are made. */
import { existsSync, readdirSync, statSync } from 'node:fs'
import { extname, join } from 'node:path'
import { Fault } from '../../base/fault.ts'
import type { ImageRecipe } from '../recipe.ts'
import { KEYS, type Key, mkosiName, ROWS, type Settings, settingNamed } from '../schema.ts'
import { builtinFolder } from './builtin.ts'
import { parseConfiguration } from './parse.ts'
import { copyOf, current, newReading, type Reading, type Value } from './state.ts'

/** The name of the initrd that is built from packages. */
export const DEFAULT_INITRD = 'default-initrd'

export type Finished = Map<Key, Value>

/** Every setting's value at the end of reading. */
export const finish = (reading: Reading): Finished => new Map(KEYS.map((key) => [key, current(reading, key)]))

const scopeIs = (key: Key, ...scopes: readonly string[]): boolean => scopes.includes(ROWS[key]!.scope)

/** Reads every sub-image whose conditions hold. */
export function readSubimages(main: Reading, finished: Finished): Reading[] {
  const folder = join(main.folder.configDirectory, 'mkosi.images')
  if (!existsSync(folder)) return []
  const cli = new Map(KEYS.filter((key) => scopeIs(key, 'universal', 'multiversal')).map((key) => [key, finished.get(key)!]))
  const readings: Reading[] = []
  for (const file of readdirSync(folder).sort((a, b) => (a < b ? -1 : 1))) {
    const path = join(folder, file)
    const isFolder = statSync(path).isDirectory()
    if (!isFolder && extname(file) !== '.conf') continue
    const reading: Reading = { ...newReading(main.folder, file.replace(/\.conf$/, '')), cliEmptied: main.cliEmptied }
    // One layer for all of them, as in mkosi: what a sub-image's mkosi.local.conf says holds for those after it.
    reading.cli = cli
    for (const key of KEYS) if (scopeIs(key, 'inherit')) reading.config.set(key, finished.get(key)!)
    passEnvironment(reading, finished)
    if (parseConfiguration(reading, path, main.folder.directory, { profiles: isFolder, local: true }))
      readings.push(copyOf(reading))
  }
  return readings
}

/**
 * The initrd that is built from packages, read from the built-in configuration upon what the main image says of it and what
 * `own` adds.
 */
export function readDefaultInitrd(main: Reading, finished: Finished, own: (reading: Reading) => void = readOwnInitrd): Reading {
  const reading = newReading(main.folder, DEFAULT_INITRD)
  for (const key of KEYS) {
    const value = finished.get(key)!
    if (scopeIs(key, 'universal', 'multiversal')) reading.cli.set(key, value)
    else if (scopeIs(key, 'inherit', 'initrd-inherit')) reading.config.set(key, value)
    else if (scopeIs(key, 'initrd')) {
      const target = settingNamed(mkosiName(key).replace(/^Initrd/, ''))!
      const layer = main.cli.has(key) ? reading.cli : main.config.has(key) ? reading.config : reading.defaults
      if (main.cli.has(key) && main.cliEmptied.has(key)) reading.cliEmptied.add(target)
      layer.set(target, value)
    }
  }
  passEnvironment(reading, finished)
  own(reading)
  const builtin = builtinFolder('mkosi-initrd')
  parseConfiguration(reading, builtin, builtin, { profiles: true })
  return reading
}

function readOwnInitrd(reading: Reading): void {
  const { configDirectory, directory } = reading.folder
  const path = join(configDirectory, 'mkosi.initrd.conf')
  if (!existsSync(path)) return
  const isFolder = statSync(path).isDirectory()
  parseConfiguration(reading, path, directory, { profiles: isFolder, local: isFolder })
}

/** Of the variables for scripts, other images see those that `PassEnvironment=` names. */
function passEnvironment(reading: Reading, finished: Finished): void {
  const environment = finished.get('environment')!
  const names = (finished.get('passEnvironment')!.value as readonly string[] | undefined) ?? []
  const passed = Object.entries((environment.value ?? {}) as Record<string, string>).filter(([name]) => names.includes(name))
  reading.config.set('environment', { value: Object.fromEntries(passed), where: environment.where })
}

export const wantsInitrd = (image: ImageRecipe): boolean => image.settings.initrds.includes('default')

/** The images that one is made of. */
export const needsOf = (image: ImageRecipe, dependencies: readonly string[] = image.settings.dependencies): string[] => [
  ...dependencies,
  ...(wantsInitrd(image) && image.name !== DEFAULT_INITRD ? [DEFAULT_INITRD] : []),
]

/** What is wanted, each after what it depends on; otherwise in the order in which they are wanted. */
export function inOrder(images: readonly ImageRecipe[], wanted: readonly string[]): ImageRecipe[] {
  const byName = new Map(images.map((image) => [image.name, image]))
  const done: ImageRecipe[] = []
  const visit = (name: string, path: readonly string[]): void => {
    const image = byName.get(name)
    if (!image) {
      const by = path.length === 0 ? 'main' : path.at(-1)
      const known =
        images.length === 0
          ? 'the recipe has none'
          : `there ${images.length === 1 ? 'is' : 'are'} ${[...byName.keys()].join(', ')}`
      throw new Fault(
        'recipe',
        `Cannot read recipe: the image ${by} depends on "${name}", and no sub-image of that name applies (${known})`,
      )
    }
    if (path.includes(name)) {
      const cycle = [...path.slice(path.indexOf(name)), name].join(' → ')
      throw new Fault('recipe', `Cannot read recipe: images depend on each other in a circle: ${cycle}`)
    }
    if (done.includes(image)) return
    for (const dependency of needsOf(image)) visit(dependency, [...path, name])
    done.push(image)
  }
  for (const name of wanted) visit(name, [])
  return done
}

/** An image's recipe from what was read; what it asks for in vain is told as problems. */
export function imageOf(reading: Reading): ImageRecipe {
  const values = finish(reading)
  const supported = KEYS.filter((key) => ROWS[key]!.status.is === 'supported')
  for (const key of supported) {
    const { value, where } = values.get(key)!
    const reason = value === undefined || reading.folder.anyValue ? undefined : ROWS[key]!.type.unsupported?.(value)
    const message = `${mkosiName(key)}: ${reason}`
    if (reason !== undefined && !reading.folder.problems.some((p) => p.message === message)) {
      reading.folder.problems.push({ where: where.join(', '), message })
    }
  }
  const settings = Object.fromEntries(supported.map((key) => [key, values.get(key)!.value])) as unknown as Settings
  const origins = new Map(supported.map((key) => [key, values.get(key)!.where.join(', ')]))
  return { name: reading.image, settings, origins, profiles: settings.profiles }
}
