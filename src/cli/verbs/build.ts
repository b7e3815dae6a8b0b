import { merge, object } from '@optique/core/constructs'
import { message } from '@optique/core/message'
import { optional } from '@optique/core/modifiers'
import { command, constant, option } from '@optique/core/primitives'
import { formatSize } from '../../base/size.ts'
import { examples, folder, keysOption, offlineOption, recipeOptions, toggle } from '../options.ts'
import { openEnv, type Run } from '../session.ts'
import { program, shownPath } from '../shown.ts'

export const parser = command(
  'build',
  merge(
    object({ verb: constant('build') }),
    recipeOptions,
    object({
      output: optional(
        option('-o', '--output', folder(), { description: message`Folder for the artifacts; out beside the recipe by default.` }),
      ),
      keys: keysOption,
      offline: offlineOption,
      relock: toggle('--relock', message`Replace pinned packages that the mirror no longer has, saying which.`),
    }),
  ),
  {
    brief: message`Bake an image`,
    description: message`Bake the recipe into a signed image. Packages are those of bisque.lock; where there is no lock yet, one is written.`,
    footer: examples(
      ['bisque build', 'bake the recipe in this folder into ./out'],
      ['bisque build examples/minimal -o /tmp/image', 'write the artifacts somewhere else'],
      ['bisque build --profile desktop', 'with a profile of the recipe'],
      ['bisque build --set KernelCommandLine=quiet', 'with one setting changed'],
    ),
  },
)

export interface BuildVerbOptions {
  recipe: string
  profiles: readonly string[]
  set: readonly string[]
  output: string | undefined
  keys: string | undefined
  offline: boolean
  relock: boolean
}

export const run: Run<BuildVerbOptions> = async (options, session) => {
  const { loadRecipe } = await import('../../recipe/recipe.ts')
  const recipe = await loadRecipe(options.recipe, { profiles: options.profiles, set: options.set, env: session.environment })
  for (const note of recipe.notes) session.report.tell({ type: 'note', level: 'warning', message: note })
  const { build } = await import('../../build/build.ts')
  const built = await build(
    recipe,
    {
      output: options.output ?? recipe.settings.outputDirectory,
      keys: options.keys,
      relock: options.relock,
    },
    await openEnv(session, options),
  )
  const image = shownPath(built.image)
  const lines = [
    '',
    image,
    `  size       ${formatSize(built.sizeBytes)}, ${formatSize(built.usedBytes)} on disk`,
    `  root hash  ${built.rootHash}`,
    `  verified   ${built.verified} links of the chain of trust`,
    '',
    `Boot it:     ${program()} vm ${image}`,
    `Look at it:  ${shownPath(built.manifest)}`,
  ]
  return { result: { ...built }, text: lines.join('\n') }
}
