/** `bisque sign prepare|attach`: digests out, signatures in, until the image is there. */
import { resolve } from 'node:path'
import { FAULTS } from '../base/fault.ts'
import { shellWords } from '../base/shell-words.ts'
import type { Built } from '../build/build.ts'
import { attachSignatures, prepareSigning, type SignOptions } from '../build/sign.ts'
import { loadRecipe, type Recipe } from '../recipe/recipe.ts'
import type { SigningRound } from '../signing/offline-folder.ts'
import { roundLines, roundResult } from './round.ts'
import { type Outcome, openEnv, type Session } from './session.ts'
import { program, shownPath } from './shown.ts'
import { builtText } from './verbs/build.ts'
import type { SignVerbOptions } from './verbs/sign.ts'

export async function signPrepare(options: SignVerbOptions, session: Session): Promise<Outcome> {
  const recipe = await recipeOf(options, session)
  const round = await prepareSigning(recipe, signOptions(recipe, options), await openEnv(session, options))
  return outcomeOf(round, options, session)
}

export async function signAttach(options: SignVerbOptions, session: Session): Promise<Outcome> {
  const recipe = await recipeOf(options, session)
  const made = await attachSignatures(recipe, signOptions(recipe, options), await openEnv(session, options))
  const outcome = outcomeOf(made, options, session)
  return 'image' in made ? outcome : { ...outcome, exitCode: FAULTS.missing.exit }
}

function outcomeOf(made: SigningRound | Built, options: SignVerbOptions, { color }: Session): Outcome {
  if ('image' in made) return { result: { finished: true, ...made }, text: builtText(made) }
  const attach = commandOf(['sign', 'attach'], options, ['--from', made.folder])
  return { result: { finished: false, ...roundResult(made) }, text: ['', ...roundLines(made, attach, color)].join('\n') }
}

const recipeOf = ({ recipe, profiles, set }: SignVerbOptions, { environment }: Session): Promise<Recipe> =>
  loadRecipe(recipe, { profiles, set, env: environment })

function signOptions(recipe: Recipe, options: SignVerbOptions): SignOptions {
  const folder = shownPath(resolve(options.folder))
  return {
    folder,
    output: options.output ?? recipe.settings.outputDirectory,
    keys: options.keys,
    commands: {
      build: commandOf(['build'], options),
      prepareElsewhere: commandOf(['sign', 'prepare'], options, ['--to', 'ANOTHER_DIR']),
    },
  }
}

/** A command line for the same recipe, as it would be typed. */
function commandOf(verb: readonly string[], options: SignVerbOptions, more: readonly string[] = []): string {
  const { recipe, profiles, set, keys, output, offline } = options
  const words = [
    ...(recipe === '.' ? [] : [shownPath(recipe)]),
    ...more,
    ...profiles.flatMap((name) => ['--profile', name]),
    ...set.flatMap((assignment) => ['--set', assignment]),
    ...(keys === undefined ? [] : ['--keys', shownPath(keys)]),
    ...(output === undefined ? [] : ['-o', shownPath(output)]),
    ...(offline ? ['--offline'] : []),
  ]
  return shellWords([program(), ...verb, ...words])
}
