/** One script of a recipe, by the name that a person gives it; and the end of a build that was for this script alone. */
import { basename, relative, resolve } from 'node:path'
import { Fault } from '../base/fault.ts'
import { nearest } from '../base/nearest.ts'
import { shellWords } from '../base/shell-words.ts'
import { needsOf } from '../recipe/mkosi/images.ts'
import type { ImageRecipe, Recipe } from '../recipe/recipe.ts'
import type { Sink } from '../run/process.ts'
import type { Phase } from './script-environment.ts'

/** The phases of a build with the setting that names their scripts, in their order. */
export const PHASES = {
  sync: 'syncScripts',
  prepare: 'prepareScripts',
  build: 'buildScripts',
  postinst: 'postInstallationScripts',
  finalize: 'finalizeScripts',
  postoutput: 'postOutputScripts',
} as const satisfies Partial<Record<Phase, keyof ImageRecipe['settings']>>

export interface RecipeScript {
  /** Of the image it belongs to. */
  image: string
  phase: Phase
  /** Absolute path. */
  path: string
}

/** The script a build is for: it ends with `ScriptRan` once that has run. */
export interface OnlyScript extends RecipeScript {
  /** Called before the script prints. */
  begin(): void
  sinks: { stdout: Sink; stderr: Sink }
  /** The kind of terminal to open a shell in once the script has run. */
  shell: string | undefined
}

/** How a build ends that was for one script: no error, but the way out of all that is around it. */
export class ScriptRan extends Error {
  readonly exitCode: number
  constructor({ path }: RecipeScript, exitCode: number) {
    super(`ended after ${path}, as asked`)
    this.exitCode = exitCode
  }
}

/** Whether a script is the one that a build is for. */
export const isOnly = (only: RecipeScript | undefined, { image, phase, path }: RecipeScript): boolean =>
  only !== undefined && only.image === image && only.phase === phase && only.path === path

/** All scripts of a build: images in the order they are made, phases in theirs. */
export function scriptsOf(recipe: Recipe): RecipeScript[] {
  return [...recipe.subimages, recipe].flatMap(({ name, settings }) =>
    Object.entries(PHASES).flatMap(([phase, key]) =>
      [...new Set(settings[key])].map((path): RecipeScript => ({ image: name, phase: phase as Phase, path })),
    ),
  )
}

/** What a script is called: the shortest name that no other has. */
export function scriptName(script: RecipeScript, recipe: Recipe): string {
  const all = scriptsOf(recipe)
  const { image, phase, path } = script
  const [file, below] = [basename(path), relative(recipe.directory, path)]
  const names = [file, below, `${image}/${file}`, `${image}/${below}`, `${image}/${phase}/${below}`]
  const isUnique = (name: string) => isSame(matching(name, all, recipe), [script])
  return names.find(isUnique) ?? names.at(-1)!
}

/** The script of that name. Without one, or with several, a Fault says which there are; its hint repeats the command. */
export function findScript(name: string, recipe: Recipe, command = 'bisque build'): RecipeScript {
  const all = scriptsOf(recipe)
  const [found, ...more] = matching(name, all, recipe)
  if (found && more.length === 0) return found
  const cannot = `Cannot run script "${name}"`
  const again = (name: string) => `${command} ${shellWords(['--script', name])}`
  if (found) {
    const names = [found, ...more].map((script) => scriptName(script, recipe))
    throw new Fault('usage', `${cannot}: several have that name:${list(names)}`, { hint: again(names[0]!) })
  }
  if (all.length === 0) throw new Fault('missing', `${cannot}: the recipe has no scripts`)
  const names = all.map((script) => scriptName(script, recipe))
  const near = nearest(name, names) ?? nearest(basename(name), names)
  throw new Fault('missing', `${cannot}: the recipe has no such script; there are:${list(names)}`, {
    ...(near === undefined ? {} : { hint: again(near) }),
  })
}

const list = (names: readonly string[]): string => names.map((name) => `\n  ${name}`).join('')

const isSame = (a: readonly RecipeScript[], b: readonly RecipeScript[]): boolean =>
  a.length === b.length && a.every((one, i) => isOnly(one, b[i]!))

/** What a name means: a path before a mere file name; either may stand behind the image's name, the phase's, or both. */
function matching(name: string, all: readonly RecipeScript[], recipe: Recipe): RecipeScript[] {
  const by = (own: (script: RecipeScript) => readonly string[]) =>
    all.filter((script) => {
      const { image, phase } = script
      return own(script).some((own) => [own, `${image}/${own}`, `${phase}/${own}`, `${image}/${phase}/${own}`].includes(name))
    })
  const exact = all.filter(({ path }) => path === resolve(name) || path === resolve(recipe.directory, name))
  if (exact.length > 0) return exact
  const below = by(({ path }) => [relative(recipe.directory, path)])
  return below.length > 0 ? below : by(({ path }) => [basename(path)])
}

/** The images that are made before one, and that one: what it depends on, in the recipe's order. */
export function imagesUpTo(name: string, recipe: Recipe): ImageRecipe[] {
  const all = [...recipe.subimages, recipe]
  const wanted = new Set<string>()
  const visit = (image: ImageRecipe): void => {
    if (wanted.has(image.name)) return
    wanted.add(image.name)
    const needs = image === recipe ? recipe.subimages.map(({ name }) => name) : needsOf(image)
    for (const need of all) if (needs.includes(need.name)) visit(need)
  }
  for (const image of all) if (image.name === name) visit(image)
  return all.filter((image) => wanted.has(image.name))
}
