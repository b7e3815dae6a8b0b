/** `bisque sign prepare|attach`: digests out, signatures in, until the image is there. */
import { resolve } from 'node:path'
import { FAULTS } from '../base/fault.ts'
import { shellWords } from '../base/shell-words.ts'
import type { Built } from '../build/build.ts'
import { attachSignatures, prepareSigning, type SigningRound, type SignOptions } from '../build/sign.ts'
import { loadRecipe, type Recipe } from '../recipe/recipe.ts'
import { describe, digestName, keyName, type SigningRequest, signatureName } from '../signing/offline-requests.ts'
import { opensslCommand, signCommand } from '../signing/offline-script.ts'
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
  return { result: resultOf(made), text: roundText(made, options, color) }
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

function resultOf({ folder, round, requests, open }: SigningRound): Record<string, unknown> {
  const isOpen = new Set(open)
  const shown = requests.map((request) => ({
    ...request,
    file: `${folder}/${digestName(request)}`,
    signature: `${folder}/${signatureName(request)}`,
    signed: !isOpen.has(request),
    command: opensslCommand(request, `${folder}/`),
  }))
  return { finished: false, folder, round, requests: shown }
}

/** A round for people: what is to be signed, by which key, and how. */
function roundText({ folder, round, open }: SigningRound, options: SignVerbOptions, color: boolean): string {
  const attach = commandOf(['sign', 'attach'], options, ['--from', folder])
  const dim = (text: string) => (color ? `\x1b[2m${text}\x1b[0m` : text)
  if (open.length === 0) return `\nRound ${round} in ${folder}/ is signed.\n\nNext:  ${attach}`
  const keys = [...Map.groupBy(open, keyName)]
  const width = Math.max(...keys.map(([name]) => name.length))
  const rows = keys.flatMap(([name, requests]) =>
    requests.map((request, i) => `  ${(i === 0 ? name : '').padEnd(width)}  ${line(request, dim)}`),
  )
  const scripts = keys.map(([name]) => `  ${signCommand(folder, name)}`)
  return [
    '',
    `Round ${round}: ${open.length === 1 ? 'one digest' : `${open.length} digests`} to sign, in ${folder}/`,
    '',
    ...rows,
    '',
    'Sign them here or anywhere, each with the key on its left:',
    '',
    ...scripts,
    '',
    'or one by one, such as',
    '',
    `  ${opensslCommand(open[0]!, `${folder}/`)}`,
    '',
    `Then:  ${attach}`,
  ].join('\n')
}

/** A line of all columns fits into 80. */
const ABOUT_WIDTH = 46

function line(request: SigningRequest, dim: (text: string) => string): string {
  const about = describe(request)
  const cut = about.length > ABOUT_WIDTH ? `${about.slice(0, ABOUT_WIDTH - 1)}…` : about
  return `${cut.padEnd(ABOUT_WIDTH)}  ${dim(`${request.digest.slice(0, 16)}…`)}`
}
