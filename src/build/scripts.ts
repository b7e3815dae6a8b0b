/**
 * A recipe's scripts: run in the sandbox, in the order and with the environment mkosi documents.
 *
 * Scripts whose name ends in `.chroot` see the image as `/`. The others see it at `$BUILDROOT` and run with the image's
 * own programs, because nothing of the host is there. No network, no keys, no path of the host but the recipe's folder.
 */
import { existsSync } from 'node:fs'
import { mkdir, rmdir } from 'node:fs/promises'
import { basename, join, relative } from 'node:path'
import { Fault } from '../base/fault.ts'
import type { Report } from '../base/report.ts'
import type { Recipe } from '../recipe/recipe.ts'
import { runInSandbox } from '../run/sandbox.ts'

export type Phase = 'prepare' | 'postinst' | 'finalize' | 'postoutput'

export interface ScriptPlaces {
  recipe: Recipe
  /** The image being made. */
  root: string
  /** Where artifacts will go; scripts may add their own. */
  output: string
  /** Writable folder that scripts share. */
  build: string
  /** The keys: scripts see an empty folder where the recipe's folder holds them. */
  keys: string
  /** A folder with nothing in it. */
  empty: string
  epoch: number
}

const ARGUMENTS: Record<Phase, string> = { prepare: 'final', postinst: 'final', finalize: 'final', postoutput: '' }

export async function runScripts(phase: Phase, scripts: readonly string[], places: ScriptPlaces, report: Report): Promise<void> {
  for (const script of scripts) {
    if (!existsSync(script)) throw new Fault('missing', `Cannot run ${phase} script: ${script} does not exist`)
    await report.step(`Run ${basename(script)}`, () => runScript(phase, script, places))
  }
}

async function runScript(phase: Phase, script: string, places: ScriptPlaces): Promise<void> {
  const { recipe, root } = places
  const inside = script.endsWith('.chroot')
  const buildRoot = inside ? '/' : '/buildroot'
  const target = `/work/${basename(script)}`
  const outcome = await runInSandbox(
    {
      root,
      writable: true,
      tmpfs: ['/tmp', '/run', '/var/tmp', '/work'],
      workdir: '/work/src',
      env: environment(phase, places, buildRoot),
      binds: [
        { source: recipe.directory, target: '/work/src' },
        ...hidden(places),
        { source: places.build, target: '/work/build', writable: true },
        { source: places.output, target: '/work/out', writable: true },
        { source: script, target },
        ...(inside ? [] : [{ source: root, target: '/buildroot', writable: true }]),
      ],
    },
    ARGUMENTS[phase] === '' ? [target] : [target, ARGUMENTS[phase]],
    { allowFailure: true },
  )
  await removeMountPoints(root, inside ? [] : ['buildroot'])
  if (outcome.exitCode === 0) return
  const said = `${outcome.stdout}${outcome.stderr}`.trim().split('\n').slice(-20).join('\n')
  throw new Fault('tool', `Cannot run ${phase} script ${script}: it exited with ${outcome.exitCode}\n${said}`)
}

/** Covers the keys with an empty folder, where they lie below what is bound. */
function hidden({ recipe, keys, empty }: ScriptPlaces): { source: string; target: string }[] {
  const below = relative(recipe.directory, keys)
  return below === '' || below.startsWith('..') ? [] : [{ source: empty, target: join('/work/src', below) }]
}

/** Source: mkosi(1), "Environment variables set for scripts". */
function environment(phase: Phase, places: ScriptPlaces, buildRoot: string): Record<string, string> {
  const { settings, profiles } = places.recipe
  return {
    ARCHITECTURE: settings.architecture,
    QEMU_ARCHITECTURE: 'x86_64',
    DISTRIBUTION: settings.distribution,
    DISTRIBUTION_ARCHITECTURE: 'amd64',
    RELEASE: settings.release,
    ...(settings.imageId === undefined ? {} : { IMAGE_ID: settings.imageId }),
    ...(settings.imageVersion === undefined ? {} : { IMAGE_VERSION: settings.imageVersion }),
    PROFILES: profiles.join(' '),
    SRCDIR: '/work/src',
    BUILDDIR: '/work/build',
    OUTPUTDIR: '/work/out',
    ...(phase === 'postoutput' ? {} : { BUILDROOT: buildRoot, CHROOT_SCRIPT: `/work/${phase}` }),
    WITH_DOCS: settings.withDocs ? '1' : '0',
    WITH_NETWORK: '0',
    SOURCE_DATE_EPOCH: String(places.epoch),
    ...settings.environment,
  }
}

async function removeMountPoints(root: string, names: readonly string[]): Promise<void> {
  for (const name of [...names, 'work']) await rmdir(join(root, name)).catch(() => {})
}

/** Makes the folders scripts expect. */
export async function prepareScriptFolders(places: Pick<ScriptPlaces, 'build' | 'output' | 'empty'>): Promise<void> {
  for (const folder of [places.build, places.output, places.empty]) await mkdir(folder, { recursive: true })
}
