/**
 * Configure scripts: each reads an image's settings as JSON, in the form of `mkosi --json summary`, and prints them changed.
 *
 * Spec: mkosi(1), "SCRIPTS". They run as `execute()` has it: mkosi's sandbox without what is not the recipe's. Secrets stay here.
 */
import { relative } from 'node:path'
import { Fault } from '../../base/fault.ts'
import type { ImageRecipe, Recipe } from '../recipe.ts'
import { KEYS, type Key, ROWS, type Settings, settingNamed } from '../schema.ts'
import { byName, summaryOf } from '../summary.ts'
import { execute, isExecutable } from './execute.ts'
import { finish } from './images.ts'
import type { Reading } from './state.ts'

type Json = Record<string, unknown>

/** The recipe as its configure scripts want it. */
export async function configured(recipe: Recipe, readings: ReadonlyMap<string, Reading>): Promise<Recipe> {
  const subimages: ImageRecipe[] = []
  for (const image of recipe.subimages) subimages.push(await configuredImage(image, readings.get(image.name)!))
  return { ...recipe, ...(await configuredImage(recipe, readings.get('main')!)), subimages }
}

async function configuredImage(image: ImageRecipe, reading: Reading): Promise<ImageRecipe> {
  let [settings, origins] = [image.settings, image.origins]
  for (const file of image.settings.configureScripts) {
    const shown = relative(reading.folder.directory, file)
    if (!isExecutable(file))
      throw new Fault('recipe', `Cannot read recipe: ${shown} is not executable`, { hint: `chmod +x ${file}` })
    const given = jsonOf({ ...image, settings, origins }, reading)
    const { directory } = reading.folder
    const env = environmentOf({ ...image, settings }, directory)
    const text = await execute({ file, workdir: directory, directory, input: JSON.stringify(given), env })
    const changed = changesOf(given, text, shown, reading)
    settings = { ...settings, ...Object.fromEntries(changed) }
    origins = new Map([...origins, ...changed.map(([key]) => [key, shown] as const)])
  }
  return { ...image, settings, origins }
}

/** All settings, also those without effect, whose values scripts may look at. */
function jsonOf(image: ImageRecipe, reading: Reading): Json {
  const all = Object.fromEntries([...finish(reading)].map(([key, { value }]) => [key, value]))
  const settings = { ...all, ...image.settings } as Settings
  const shown = Object.entries(byName(summaryOf({ settings, origins: image.origins })))
  return { Image: image.name, ...Object.fromEntries(shown.map(([name, { value }]) => [name, value])), Files: reading.files }
}

function environmentOf({ name, settings }: ImageRecipe, directory: string): Record<string, string> {
  const { distribution, release, architecture, imageId, imageVersion, sourceDateEpoch, profiles } = settings
  return {
    DISTRIBUTION: distribution,
    RELEASE: release,
    ARCHITECTURE: architecture,
    SRCDIR: directory,
    ...(profiles.length > 0 ? { PROFILES: profiles.join(' ') } : {}),
    ...(name === 'main' ? {} : { SUBIMAGE: name }),
    ...(imageId === undefined ? {} : { IMAGE_ID: imageId }),
    ...(imageVersion === undefined ? {} : { IMAGE_VERSION: imageVersion }),
    ...(sourceDateEpoch === undefined ? {} : { SOURCE_DATE_EPOCH: String(sourceDateEpoch) }),
    ...settings.environment,
  }
}

/** The settings of which the script printed another value than it was given. */
function changesOf(given: Json, text: string, script: string, reading: Reading): [Key, unknown][] {
  const refuse = (why: string): never => {
    throw new Fault('recipe', `Cannot read recipe: ${script} ${why}`)
  }
  let printed: Json
  try {
    printed = JSON.parse(text) as Json
  } catch {
    return refuse('printed no JSON')
  }
  if (printed === null || typeof printed !== 'object' || Array.isArray(printed)) return refuse('printed JSON that is no object')
  return Object.entries(printed).flatMap(([name, value]): [Key, unknown][] => {
    if (JSON.stringify(value) === JSON.stringify(given[name])) return []
    const key = settingNamed(name)
    if (key === undefined || !KEYS.includes(key)) return refuse(`set ${name}, which is no setting`)
    const row = ROWS[key]!
    if (row.status.is !== 'supported') return []
    try {
      const place = { directory: reading.folder.directory, env: reading.folder.env }
      const read = value === null ? row.type.absent : row.type.check(fromJson(value), place)
      const reason = read === undefined ? undefined : row.type.unsupported?.(read)
      return reason === undefined ? [[key, read]] : refuse(`set ${name}: ${reason}`)
    } catch (error) {
      if (!(error instanceof Fault) || error.message.startsWith('Cannot read')) throw error
      return refuse(`set ${name}: ${error.message}`)
    }
  })
}

/** From mkosi's form to that of recipe.ts. */
function fromJson(value: unknown): unknown {
  if (value === 'enabled' || value === 'disabled') return value === 'enabled'
  if (Array.isArray(value)) return value.map(fromJson)
  if (value === null || typeof value !== 'object') return value
  const { Source, Target, Profile, Cmdline, SignExpectedPcr, Name, Value, Path } = value as Record<string, unknown>
  if (typeof Source === 'string') return { source: Source, ...(typeof Target === 'string' ? { target: Target } : {}) }
  if (Profile !== undefined) return { profile: Profile, cmdline: Cmdline, signExpectedPcr: SignExpectedPcr }
  if (Name !== undefined) return typeof Path === 'string' ? { name: Name, path: Path } : { name: Name, value: Value }
  return value
}
