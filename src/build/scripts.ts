/**
 * A recipe's scripts: run in the sandbox, in the order and with the environment mkosi documents.
 *
 * Scripts whose name ends in `.chroot` see the image as `/`. The others see it at `$BUILDROOT` and run with the programs of
 * a locked tools tree, because an image may hold next to none. No path of the host but the recipe's sources, no keys, and
 * no network unless the recipe says `WithNetwork=yes`.
 */
import { lstatSync } from 'node:fs'
import { access, chmod, constants, mkdir, rm, stat, writeFile } from 'node:fs/promises'
import { basename, join, relative } from 'node:path'
import { Fault } from '../base/fault.ts'
import type { Report } from '../base/report.ts'
import { shellWords } from '../base/shell-words.ts'
import { withoutNewFolders } from '../image/system/programs.ts'
import type { ImageRecipe, Recipe } from '../recipe/recipe.ts'
import { runInSandbox, runInSandboxTerminal, type Sandbox } from '../run/sandbox.ts'
import { isOnly, type OnlyScript, ScriptRan, scriptName } from './one-script.ts'
import { BUILD_ROOT, CHROOT, commandsOf, configJson, environmentOf, type Phase, scriptPath } from './script-environment.ts'

export type { Phase } from './script-environment.ts'

export interface ScriptPlaces {
  recipe: Recipe
  image: ImageRecipe
  /** The image being made; phases outside of it need none. */
  root?: string | undefined
  /** The programs that plain scripts run with: a tools tree. The image's own where none is given. */
  tools?: string | undefined
  /** `$OUTPUTDIR`: where artifacts will go; scripts may add their own. */
  output: string
  /** `$BUILDDIR`: kept between builds where the recipe names a folder. */
  build?: string | undefined
  /** `$DESTDIR` */
  dest: string
  /** `$ARTIFACTDIR` and `$PACKAGEDIR` */
  artifacts: string
  packages: string
  /** Files and folders with keys: scripts see nothing where the sources hold them. */
  secrets: readonly string[]
  /** A folder for what this module puts in place for scripts. */
  scratch: string
  epoch: number
  /** The command that began this build, for whoever wants to run one script of it again. */
  command?: string | undefined
  /** The one script that all this is for. */
  only?: OnlyScript | undefined
}

/** Whether a script runs outside the image, and so wants a tools tree. */
export const isPlain = (script: string): boolean => !script.endsWith('.chroot')

/** Whether any script of an image runs outside of it. */
export function needsScriptTools({ settings }: ImageRecipe): boolean {
  const { syncScripts, prepareScripts, buildScripts, postInstallationScripts } = settings
  const { finalizeScripts, postOutputScripts, cleanScripts } = settings
  const inside = [...prepareScripts, ...buildScripts, ...postInstallationScripts, ...finalizeScripts]
  const outside = [...syncScripts, ...postOutputScripts, ...cleanScripts]
  return outside.length > 0 || inside.some(isPlain)
}

/** Scripts that run outside of any image, and where the recipe names them. */
const OUTSIDE = { sync: 'syncScripts', postoutput: 'postOutputScripts', clean: 'cleanScripts' } as const

export interface OutsideInput {
  recipe: Recipe
  image: ImageRecipe
  /** The tools tree `scripts`; see `needsScriptTools()`. */
  tools: string | undefined
  secrets: readonly string[]
  /** `$OUTPUTDIR`: finished artifacts, before they get their places (postoutput), or those of earlier builds (clean). */
  output: string
  /** Scratch folder. */
  work: string
  epoch: number
  command?: string | undefined
  only?: OnlyScript | undefined
}

/** Runs an image's sync, postoutput or clean scripts. */
export async function runOutside(phase: keyof typeof OUTSIDE, input: OutsideInput, report: Report): Promise<void> {
  const { work, ...rest } = input
  const below = (name: string) => join(work, name)
  const places = {
    ...rest,
    dest: below('dest'),
    artifacts: below('artifacts'),
    packages: below('packages'),
    scratch: below('scratch'),
  }
  await runScripts(phase, input.image.settings[OUTSIDE[phase]], places, report)
}

const ARGUMENTS: Partial<Record<Phase, readonly string[]>> = { sync: ['final'], prepare: ['final'], postinst: ['final'] }

/** Runs the scripts of a phase, one after the other. */
export async function runScripts(
  phase: Phase,
  scripts: readonly string[],
  places: ScriptPlaces,
  report: Report,
  args: readonly string[] = ARGUMENTS[phase] ?? [],
): Promise<void> {
  if (scripts.length === 0) return
  await rm(join(places.scratch, 'overlays'), { recursive: true, force: true })
  for (const script of scripts) {
    await checkScript(phase, script, places)
    if (isOnly(places.only, { image: places.image.name, phase, path: script })) await runAlone(script, args, places, report)
    else await report.step(`Run ${basename(script)}`, (report) => runScript(phase, script, args, places, report))
  }
}

async function checkScript(phase: Phase, script: string, { image }: ScriptPlaces): Promise<void> {
  const there = await stat(script).catch(() => undefined)
  if (!there?.isFile()) throw new Fault('missing', `Cannot run ${phase} script: ${script} does not exist`)
  if (await access(script, constants.X_OK).then(...YES_NO)) return
  if (!image.settings.makeScriptsExecutable)
    throw new Fault('recipe', `Cannot run ${phase} script: ${script} is not executable`, { hint: `chmod +x ${script}` })
  await chmod(script, there.mode | 0o100)
}
const YES_NO = [() => true, () => false] as const

async function runScript(
  phase: Phase,
  script: string,
  args: readonly string[],
  places: ScriptPlaces,
  report: Report,
): Promise<void> {
  const log: Buffer[] = []
  const lines = lineTeller(report)
  const { exitCode } = await withSandbox(phase, script, places, (sandbox) =>
    runInSandbox(sandbox, [...UNDER_A_SHELL, scriptPath(phase), ...args], {
      allowFailure: true,
      onOutput(bytes) {
        log.push(bytes)
        lines(bytes)
      },
    }),
  )
  if (exitCode === 0) return
  throw scriptFault(phase, script, exitCode, Buffer.concat(log).toString(), places)
}

async function withSandbox<T>(
  phase: Phase,
  script: string,
  places: ScriptPlaces,
  body: (sandbox: Sandbox) => Promise<T>,
): Promise<T> {
  const { root } = places
  const sandbox = await sandboxOf(phase, script, places)
  const run = () => body(sandbox)
  const result = await (root === undefined ? run() : withoutNewFolders(root, run, ['/work', '/var/tmp', '/etc/resolv.conf']))
  // what overlayfs leaves there only root may look into
  for (const { work } of sandbox.overlays ?? []) await rm(work, { recursive: true, force: true })
  return result
}

/**
 * Runs the script that the build is for, with its output going to the caller as it is, and ends the build. A prepare script
 * is run once more for build scripts: then that is the end.
 */
async function runAlone(script: string, args: readonly string[], places: ScriptPlaces, report: Report): Promise<void> {
  const { only, image } = places
  if (only === undefined) return
  const { phase, shell, sinks } = only
  only.begin()
  const argv = [scriptPath(phase), ...args]
  const isLast = phase !== 'prepare' || args.includes('build') || image.settings.buildScripts.length === 0
  const exitCode = await withSandbox(phase, script, places, async (sandbox) => {
    if (shell === undefined)
      return (await runInSandbox(sandbox, [...UNDER_A_SHELL, ...argv], { allowFailure: true, sinks })).exitCode
    const env = { ...sandbox.env, TERM: shell, PS1: `[${image.name} ${phase}] \\w # ` }
    return runInSandboxTerminal({ ...sandbox, env }, [
      '/bin/sh',
      '-c',
      THEN_A_SHELL,
      'sh',
      basename(script),
      isLast ? 'always' : 'failed',
      ...argv,
    ])
  })
  if (isLast || exitCode !== 0) throw new ScriptRan(only, exitCode)
  report.tell({ type: 'note', level: 'info', message: `${basename(script)} exited with 0; now as it is run for build scripts` })
}

/** Runs the script and, when it has ended, a shell where it ran; ends as the script did. */
const THEN_A_SHELL = `name=$1; when=$2; shift 2
"$@" </dev/null
status=$?
[ $when = failed ] && [ $status = 0 ] && exit 0
echo "$name exited with $status. This is the place it ran in; exit leaves it."
if command -v bash >/dev/null; then bash --noprofile --norc -i; else sh -i; fi
exit $status`

/** The first process of a namespace ignores signals and inherits orphans: no place for a script. */
const UNDER_A_SHELL = ['/bin/sh', '-c', '"$@"; exit $?', 'sh']

/** What a script prints goes to the report as it comes, line by line. */
function lineTeller(report: Report): (bytes: Buffer) => void {
  let rest = ''
  return (bytes) => {
    const lines = (rest + bytes.toString()).split('\n')
    rest = lines.pop()!.slice(0, 1000)
    for (const line of lines) if (line.trim() !== '') report.tell({ type: 'note', level: 'info', message: printable(line) })
  }
}

/** The exit status of a script, in words. */
export const howItEnded = (code: number): string =>
  code > 128 && code < 193 ? `signal ${code - 128} ended it` : `it exited with ${code}`

const printable = (line: string): string => line.replace(/\t/g, ' ').replace(/\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x1f\x7f-\x9f]/g, '')

function scriptFault(phase: Phase, script: string, code: number, output: string, places: ScriptPlaces): Fault {
  const { recipe, image, command = `bisque build ${recipe.directory}` } = places
  const tail = output.trim().split('\n').slice(-20).map(printable).join('\n')
  const how = howItEnded(code)
  const network = /resolve host|Name or service not known|network is unreachable|name resolution/i.test(output)
  const again =
    phase === 'clean'
      ? []
      : [`${command} ${shellWords(['--script', scriptName({ image: image.name, phase, path: script }, recipe)])}`]
  const hints = [...(network && !image.settings.withNetwork ? [`${command} --set WithNetwork=yes`] : []), ...again]
  return new Fault(
    'tool',
    `Cannot run ${phase} script ${script}: ${how}\n${tail}`,
    hints.length === 0 ? {} : { hint: hints.join('\n') },
  )
}

async function sandboxOf(phase: Phase, script: string, places: ScriptPlaces): Promise<Sandbox> {
  const { image, root, tools, build, artifacts, packages, output, dest, epoch } = places
  const inImage = root !== undefined && !(phase in OUTSIDE)
  const inside = inImage && !isPlain(script)
  const world = inside ? root : (tools ?? root)
  if (world === undefined) throw new Error(`a ${phase} script needs a tools tree`)
  const chroots = inImage && !inside && world !== root
  const own = await putInPlace(places, chroots)
  const env = await environmentOf(phase, {
    image,
    profiles: places.recipe.profiles,
    epoch,
    hasBuildFolder: build !== undefined,
    inside,
  })
  const bind = (source: string, target: string, writable = false) => ({ source, target, writable })
  const sources = await sourceMounts(phase, places)
  const { withNetwork } = image.settings
  return {
    root: world,
    writable: world === root,
    tmpfs: ['/tmp', '/run', '/var/tmp', '/work'],
    workdir: '/work/src',
    network: withNetwork,
    env,
    overlays: sources.overlays,
    binds: [
      ...sources.binds,
      bind(own.config, '/work/config.json'),
      bind(own.commands, '/work/bin'),
      ...(build !== undefined ? [bind(build, '/work/build', phase === 'build' || image.settings.hermeticUsr)] : []),
      ...(phase === 'build' ? [bind(dest, '/work/dest', true)] : []),
      ...(phase === 'sync' ? [] : [bind(output, '/work/out', true)]),
      ...(inImage ? [bind(artifacts, '/work/artifacts', true), bind(packages, '/work/packages', true)] : []),
      bind(script, scriptPath(phase)),
      ...(withNetwork ? [bind('/etc/resolv.conf', '/etc/resolv.conf')] : []),
      ...(inImage && !inside ? [bind(root, BUILD_ROOT, true)] : []),
    ],
    chroots: chroots ? [{ root, target: CHROOT, shared: ['/work', '/var/tmp'] }] : [],
  }
}

/** The files that scripts find below /work, made anew. */
async function putInPlace(places: ScriptPlaces, chroots: boolean): Promise<{ config: string; commands: string }> {
  const { scratch } = places
  const config = join(scratch, 'config.json')
  const commands = join(scratch, chroots ? 'commands' : 'commands-inside')
  await mkdir(commands, { recursive: true })
  await writeFile(config, configJson(places.image))
  for (const [name, text] of Object.entries(commandsOf({ chroots }))) await writeFile(join(commands, name), text, { mode: 0o755 })
  return { config, commands }
}

/**
 * Where scripts see the sources. What a script changes there is dropped, or, in a recipe.ts that does not ask for it,
 * refused; only sync and clean scripts, which are there to change sources, do so for good.
 */
async function sourceMounts(phase: Phase, places: ScriptPlaces): Promise<Required<Pick<Sandbox, 'binds' | 'overlays'>>> {
  const { recipe, image, scratch, build } = places
  const { buildSources, buildSourcesEphemeral, hermeticUsr } = image.settings
  const given = buildSources.length > 0 || !hermeticUsr ? buildSources : [{ source: recipe.directory, target: '/' }]
  const sources = given.map(({ source, target }) => ({ source, target: join('/work/src', target).replace(/\/$/, '') }))
  const isOutside = phase === 'sync' || phase === 'clean'
  const isFixed = isOutside || (hermeticUsr && buildSourcesEphemeral === 'no')
  const binds: { source: string; target: string; writable?: boolean }[] = []
  if (!sources.some(({ target }) => target === '/work/src')) {
    const source = join(scratch, 'src')
    await mkdir(source, { recursive: true })
    binds.push({ source, target: '/work/src', writable: true })
  }
  const overlays: { source: string; target: string; upper: string; work: string }[] = []
  for (const [i, { source, target }] of sources.entries()) {
    if (!lstatSync(source, { throwIfNoEntry: false }))
      throw new Fault('missing', `Cannot run ${phase} scripts: ${source} of BuildSources= does not exist`)
    if (isFixed) binds.push({ source, target, writable: isOutside })
    else {
      const keep = buildSourcesEphemeral === 'buildcache' ? build : undefined
      const upper = keep === undefined ? join(scratch, 'overlays', `${i}`) : join(keep, `mkosi.buildovl.${basename(source)}`)
      const work = `${upper}-workdir`
      await rm(work, { recursive: true, force: true })
      for (const folder of [upper, work]) await mkdir(folder, { recursive: true })
      overlays.push({ source, target, upper, work })
    }
  }
  return { overlays, binds: [...binds, ...(await hiddenKeys(sources, places))] }
}

/** Covers keys with nothing, where they lie in what scripts see. */
async function hiddenKeys(
  sources: readonly { source: string; target: string }[],
  { recipe, image, secrets, scratch }: ScriptPlaces,
): Promise<{ source: string; target: string }[]> {
  const { secureBootKey, verityKey, signExpectedPcrKey } = image.settings
  const usual = ['keys', 'mkosi.key'].map((name) => join(recipe.directory, name))
  const all = new Set([...secrets, ...usual, secureBootKey, verityKey, signExpectedPcrKey])
  const [folder, file] = [join(scratch, 'empty'), join(scratch, 'nothing')]
  await mkdir(folder, { recursive: true })
  await writeFile(file, '')
  return [...all].flatMap((secret) => {
    const found = secret === undefined ? undefined : lstatSync(secret, { throwIfNoEntry: false })
    if (secret === undefined || found === undefined) return []
    return sources.flatMap(({ source, target }) => {
      const below = relative(source, secret)
      if (below === '' || below.startsWith('..')) return []
      return [{ source: found.isDirectory() ? folder : file, target: join(target, below) }]
    })
  })
}
