import { dirname, join, relative, resolve } from 'node:path'
import { object } from '@optique/core/constructs'
import { message } from '@optique/core/message'
import { command, constant } from '@optique/core/primitives'
import { examples, recipeArgument } from '../options.ts'
import type { Outcome, Run } from '../session.ts'

export const parser = command('bump', object({ verb: constant('bump'), recipe: recipeArgument }), {
  brief: message`Write the next version into mkosi.version`,
  description: message`Count up the last number of the version in mkosi.version, or write what the recipe's mkosi.bump prints. The next build bakes it.`,
  footer: examples(['bisque bump', '7 becomes 8, and 1.9 becomes 1.10'], ['bisque bump particleos', 'what its mkosi.bump says']),
})

export interface BumpOptions {
  recipe: string
}

export const run: Run<BumpOptions> = ({ recipe }) => bumpRecipe(recipe)

/** Writes the next version of a recipe, and says which. */
export async function bumpRecipe(recipe: string): Promise<Outcome> {
  const { Fault } = await import('../../base/fault.ts')
  const { statSync } = await import('node:fs')
  const { configFolder } = await import('../../recipe/mkosi/load.ts')
  const { bumpVersion, writeVersion } = await import('../../recipe/mkosi/bump.ts')
  const stat = statSync(recipe, { throwIfNoEntry: false })
  if (!stat) throw new Fault('missing', `Cannot bump the version: ${recipe} does not exist`)
  const folder = configFolder(stat.isDirectory() ? resolve(recipe) : dirname(resolve(recipe)))
  if (folder === undefined) {
    throw new Fault('usage', `Cannot bump the version: there is no mkosi.conf in ${recipe}; in recipe.ts it is imageVersion`)
  }
  const bump = await bumpVersion(folder)
  writeVersion(bump)
  const { previous, version } = bump
  const file = join(recipe, relative(resolve(recipe), bump.file))
  const text = `Wrote ${file}: ${previous === undefined ? version : `${previous} → ${version}`}`
  return { result: { file, previous: previous ?? null, version }, text }
}
