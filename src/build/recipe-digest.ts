/**
 * The digest of a recipe: every setting that decides about one of its images, so that two manifests say whether the same
 * was asked for. What files of the recipe hold is not part of it: it shows in the digests of the artifacts.
 */
import { digestOf, type Sha256 } from '../base/digest.ts'
import { builtinName } from '../recipe/mkosi/builtin.ts'
import type { ImageRecipe, Recipe } from '../recipe/recipe.ts'
import { type Key, ROWS } from '../recipe/schema.ts'

/** Where things are for the machine that builds: its folders, and private keys. Certificates tell which keys they are. */
const PLACES: ReadonlySet<string> = new Set<Key>([
  'outputDirectory',
  'buildDirectory',
  'secureBootKey',
  'secureBootKeySource',
  'verityKey',
  'verityKeySource',
  'signExpectedPcrKey',
  'signExpectedPcrKeySource',
])

/** Files of the recipe, of its output and of Bisque's own configurations count by their place there, wherever that lies. */
export function recipeDigest({ directory, subimages, ...main }: Recipe): Sha256 {
  return digestOf([...subimages, main].map((image) => ({ name: image.name, settings: deciding(image, directory) })))
}

function deciding({ settings }: ImageRecipe, directory: string): unknown {
  const places = [
    [settings.outputDirectory, '%O'],
    [directory, '.'],
  ] as const
  const portable = (_key: string, value: unknown): unknown => {
    if (typeof value !== 'string' || !value.startsWith('/')) return value
    const builtin = builtinName(value)
    if (builtin !== undefined) return `builtin:${builtin}`
    for (const [place, name] of places) {
      if (value === place) return name
      if (value.startsWith(`${place}/`)) return `${name}${value.slice(place.length)}`
    }
    return value
  }
  const entries = Object.entries(settings).filter(([key]) => !PLACES.has(key) && ROWS[key]?.section !== 'Runtime')
  return JSON.parse(JSON.stringify(Object.fromEntries(entries), portable))
}
