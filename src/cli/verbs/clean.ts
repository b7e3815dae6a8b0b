import { merge, object } from '@optique/core/constructs'
import { message } from '@optique/core/message'
import { command, constant } from '@optique/core/primitives'
import { formatSize } from '../../base/size.ts'
import { examples, offlineOption, outputOption, recipeOptions } from '../options.ts'
import { openEnv, type Run } from '../session.ts'
import { shownPath } from '../shown.ts'

export const parser = command(
  'clean',
  merge(object({ verb: constant('clean') }), recipeOptions, object({ output: outputOption, offline: offlineOption })),
  {
    brief: message`Remove what builds left`,
    description: message`Remove the artifacts that builds of the recipe wrote into its output folder, of every version, and run its clean scripts. Whatever else lies there stays, and so do keys, lock and cache.`,
    footer: examples(
      ['bisque clean', 'remove the artifacts of the recipe in this folder'],
      ['bisque clean examples/minimal -o /tmp/image', 'those that were written somewhere else'],
    ),
  },
)

export interface CleanOptions {
  recipe: string
  profiles: readonly string[]
  set: readonly string[]
  output: string | undefined
  offline: boolean
}

export const run: Run<CleanOptions> = async (options, session) => {
  const { resolve } = await import('node:path')
  const { loadRecipe } = await import('../../recipe/recipe.ts')
  const { clean } = await import('../../build/clean.ts')
  const { profiles, set } = options
  const recipe = await loadRecipe(options.recipe, { profiles, set, env: session.environment })
  const output = resolve(options.output ?? recipe.settings.outputDirectory)
  const cleaned = await clean(recipe, output, await openEnv(session, options))
  const { removed, removedBytes } = cleaned
  const folder = shownPath(output)
  const lines =
    removed.length === 0
      ? [`There is nothing of this recipe in ${folder}`]
      : [`Removed from ${folder}:`, ...removed.map((name) => `  ${name}`), `${formatSize(removedBytes)} are free again`]
  return { result: { ...cleaned }, text: lines.join('\n') }
}
