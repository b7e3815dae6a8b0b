import { merge, object } from '@optique/core/constructs'
import { message } from '@optique/core/message'
import { command, constant } from '@optique/core/primitives'
import { string } from '@optique/core/valueparser'
import { shellWords } from '../../base/shell-words.ts'
import { formatSize } from '../../base/size.ts'
import type { Built } from '../../build/build.ts'
import type { Recipe } from '../../recipe/recipe.ts'
import { examples, keysOption, offlineOption, outputOption, recipeOptions, toggle, valued } from '../options.ts'
import { openEnv, type Run, type Session } from '../session.ts'
import { program, shownPath } from '../shown.ts'

export const parser = command(
  'build',
  merge(
    object({ verb: constant('build') }),
    recipeOptions,
    object({
      output: outputOption,
      keys: keysOption,
      offline: offlineOption,
      relock: toggle('--relock', message`Replace pinned packages that the mirror no longer has, saying which.`),
      bump: toggle('--bump', message`First write the next version into mkosi.version, as bisque bump does.`),
      script: valued(
        '--script',
        string({ metavar: 'NAME' }),
        message`Make only what this script of the recipe needs, and run it with its output here; nothing is kept.`,
      ),
      shell: toggle('--shell', message`With --script: open a shell in the place the script ran in.`),
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
      ['bisque build --script mkosi.postinst --shell', 'run one script, and look around where it ran'],
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
  bump: boolean
  script: string | undefined
  shell: boolean
}

export const run: Run<BuildVerbOptions> = async (options, session) => {
  const { Fault } = await import('../../base/fault.ts')
  if (options.shell && options.script === undefined)
    throw new Fault('usage', 'Cannot open a shell: --shell goes with --script', {
      hint: `${commandOf(options)} --script NAME --shell`,
    })
  if (options.bump && options.script !== undefined)
    throw new Fault('usage', 'Cannot bump the version for a script alone: --bump goes without --script')
  if (options.bump) {
    const { bumpRecipe } = await import('./bump.ts')
    const { text } = await bumpRecipe(options.recipe)
    session.report.tell({ type: 'note', level: 'info', message: `${text}; it stays so if this build fails` })
  }
  const { loadRecipe } = await import('../../recipe/recipe.ts')
  const recipe = await loadRecipe(options.recipe, { profiles: options.profiles, set: options.set, env: session.environment })
  if (options.script !== undefined) return runOneScript(options.script, recipe, options, session)
  tellNotes(recipe, options, session)
  const { build } = await import('../../build/build.ts')
  const built = await build(recipe, buildOptions(recipe, options), await openEnv(session, options))
  return { result: { ...built }, text: builtText(built) }
}

const buildOptions = (recipe: Recipe, options: BuildVerbOptions) => ({
  output: options.output ?? recipe.settings.outputDirectory,
  keys: options.keys,
  relock: options.relock,
  command: commandOf(options),
})

/** The command line, as it would be typed again. */
function commandOf({ recipe, profiles, set, keys, offline }: BuildVerbOptions): string {
  const words = [
    ...(recipe === '.' ? [] : [shownPath(recipe)]),
    ...profiles.flatMap((name) => ['--profile', name]),
    ...set.flatMap((assignment) => ['--set', assignment]),
    ...(keys === undefined ? [] : ['--keys', keys]),
    ...(offline ? ['--offline'] : []),
  ]
  return shellWords([program(), 'build', ...words])
}

/** Settings without effect are counted: they are the same at every build, and `bisque summary` has them. */
function tellNotes({ notes }: Recipe, { recipe }: BuildVerbOptions, { report }: Session): void {
  const idle = notes.filter((note) => IDLE.test(note))
  for (const note of notes) if (!IDLE.test(note)) report.tell({ type: 'note', level: 'warning', message: note })
  if (idle.length === 0) return
  const settings = idle.length === 1 ? 'setting of mkosi is' : 'settings of mkosi are'
  const summary = shellWords([program(), 'summary', ...(recipe === '.' ? [] : [shownPath(recipe)])])
  const message = `${idle.length} ${settings} without effect here: ${summary} says which and why`
  report.tell({ type: 'note', level: 'info', message })
}
const IDLE = /^.+: \w+ is without effect: /

/** What a person reads at the end: what is true of every format, and of this one. */
export function builtText(built: Built): string {
  const image = shownPath(built.image)
  const isFolder = built.format === 'directory' || built.format === 'oci'
  const isDisk = built.format === 'disk' || built.format === 'esp'
  const size = built.usedBytes > 0 && built.usedBytes < built.sizeBytes ? `, ${formatSize(built.usedBytes)} on disk` : ''
  const facts = [
    ...(built.sizeBytes > 0 && !isFolder ? [`  size       ${formatSize(built.sizeBytes)}${size}`] : []),
    ...(built.rootHash === undefined ? [] : [`  root hash  ${built.rootHash}`]),
    ...(built.verified > 0 ? [`  verified   ${built.verified} links of the chain of trust`] : []),
  ]
  const title = built.format === 'none' ? [] : ['', isFolder ? `${image}/` : image, ...facts]
  const boot = isDisk ? [`Boot it:     ${program()} vm ${image}`] : []
  return [...title, '', ...boot, `Look at it:  ${shownPath(built.manifest)}`].join('\n')
}

async function runOneScript(name: string, recipe: Recipe, options: BuildVerbOptions, session: Session) {
  const { Fault } = await import('../../base/fault.ts')
  const { fstatSync } = await import('node:fs')
  const { findScript, scriptName } = await import('../../build/one-script.ts')
  const { howItEnded } = await import('../../build/scripts.ts')
  const { buildUpTo } = await import('../../build/build.ts')
  const { stdin, stdout, stderr } = process
  const found = findScript(name, recipe, commandOf(options))
  if (options.shell && (session.json || !stdin.isTTY || !stdout.isTTY))
    throw new Fault('usage', 'Cannot open a shell here: standard input or output is no terminal', {
      hint: `${commandOf(options)} ${shellWords(['--script', name])}`,
    })
  // A socket has no name that a script could open as /dev/stderr.
  const sinkOf = (stream: NodeJS.WriteStream, fd: number) =>
    fstatSync(fd).isSocket() ? (bytes: Buffer) => void stream.write(bytes) : fd
  const sinks = { stdout: session.json ? sinkOf(stderr, 2) : sinkOf(stdout, 1), stderr: sinkOf(stderr, 2) }
  const shell = options.shell ? (session.environment['TERM'] ?? 'linux') : undefined
  const only = { ...found, begin: session.leaveTerminal, sinks, shell }
  const exitCode = await buildUpTo(only, recipe, buildOptions(recipe, options), await openEnv(session, options))
  const shown = scriptName(found, recipe)
  if (exitCode !== 0) {
    const again = `${commandOf(options)} ${shellWords(['--script', shown])} --shell`
    throw new Fault('tool', `Cannot run ${found.phase} script ${found.path}: ${howItEnded(exitCode)}`, {
      ...(options.shell ? {} : { hint: again }),
    })
  }
  return { result: { ...found, exitCode }, text: `${shown} exited with 0` }
}
