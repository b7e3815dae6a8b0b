/**
 * The table of contents: a recipe becomes an image.
 *
 * Take a recipe and its lock; fetch the packages; make its images one after the other, the initrd beside them: install a
 * system, fill the partitions from it, sign the root hash, make the UKI that pins that hash, put it on an ESP, write the
 * disk, and verify it from its bytes alone (images.ts, disk.ts, boot.ts); then write down what came of it.
 * Every stage is a function of values; nothing here appears under its final name before all of it is there and verified.
 */
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { Sha256 } from '../base/digest.ts'
import { Fault } from '../base/fault.ts'
import { type Lock, snapshotsOf } from '../packages/lock.ts'
import type { Recipe } from '../recipe/recipe.ts'
import type { Settings } from '../recipe/schema.ts'
import type { OfflineSigners } from '../signing/offline.ts'
import { type Artifacts, putInPlace, writeArtifacts } from './artifacts.ts'
import type { Env } from './env.ts'
import { makeImages } from './images.ts'
import { refuseKernelless } from './kernelless.ts'
import { keysFor, type Signing } from './keys.ts'
import { fetchLocked, lockFor } from './locked.ts'
import { type OnlyScript, ScriptRan } from './one-script.ts'
import { type MadeImage, nameOf, verifyDisks } from './output.ts'
import { needsScriptTools } from './scripts.ts'
import { toolsTree } from './tools.ts'
import { onDisk, type Place, withWorkFolder } from './work.ts'

export interface BuildOptions {
  /** Folder for the artifacts. */
  output: string
  /** Folder of keys; where none is given, `keys/` beside the recipe, made on first use. */
  keys?: string | undefined
  /** Lock anew when the mirror no longer has a pinned package. */
  relock: boolean
  /** The command line that asks for this build, as a Fault may repeat it. */
  command?: string | undefined
}

export interface Built {
  /** Path of the image. */
  image: string
  format: Settings['format']
  manifest: string
  sizeBytes: number
  /** Space it takes on disk. */
  usedBytes: number
  /** Of the verity partition that the image boots from. */
  rootHash: Sha256 | undefined
  /** Links of the chain of trust that were checked. */
  verified: number
  artifacts: string[]
}

export async function build(recipe: Recipe, options: BuildOptions, env: Env): Promise<Built> {
  return bake(await gather(await beginBuild(recipe, options, env), options, env), options, env)
}

/** Makes all images out of their ingredients, and puts them in place. */
export async function bake(ingredients: Ingredients, options: BuildOptions, env: Env): Promise<Built> {
  const { report } = env
  const scratch = scratchIn(env)
  const results: Place = { parent: options.output, what: 'artifacts', option: '--output DIR' }
  return withWorkFolder(results, (output) =>
    withWorkFolder(scratch, async (work) => {
      const input = { ...ingredients, work, output }
      const images = await onDisk(scratch, () => onDisk(results, () => makeImages(input, env)))
      return onDisk(results, async () => {
        const artifacts = await report.step('Write manifest', (report) =>
          writeArtifacts({ ...ingredients, images, output }, report),
        )
        await verifyDisks(images, output, ingredients.signing, report)
        await putInPlace(artifacts, options.output)
        return builtOf(artifacts, images, options.output)
      })
    }),
  )
}

/** Makes what one script needs, runs it, and answers with its exit status. All that was made is gone afterwards. */
export async function buildUpTo(only: OnlyScript, recipe: Recipe, options: BuildOptions, env: Env): Promise<number> {
  const ingredients = await gather(await beginBuild(recipe, options, env), options, env)
  const scratch = scratchIn(env)
  return withWorkFolder(scratch, async (work) => {
    const output = join(work, 'output')
    await mkdir(output)
    try {
      await onDisk(scratch, () => makeImages({ ...ingredients, work, output, only }, env))
    } catch (error) {
      if (error instanceof ScriptRan) return error.exitCode
      throw error
    }
    throw new Fault('recipe', `Cannot run ${only.path}: nothing in this recipe comes to run it`)
  })
}

const scratchIn = ({ cache }: Env): Place => ({ parent: `${cache}/work`, what: 'the build', option: '--cache DIR' })

/** What decides about every byte of a build, and takes no time to know. */
export interface Begun {
  recipe: Recipe
  signing: Signing
  lock: Lock
  epoch: number
}

export async function beginBuild(recipe: Recipe, { keys }: BuildOptions, env: Env, offline?: OfflineSigners): Promise<Begun> {
  const signing = await keysFor(recipe, keys, env, offline)
  const lock = await lockFor(recipe, env)
  return { recipe, signing, lock, epoch: epochIn(recipe, lock) }
}

export type Ingredients = Awaited<ReturnType<typeof gather>>

/** Keys, packages and tools: what a build starts from. */
export async function gather({ recipe, signing, lock: locked }: Begun, options: BuildOptions, env: Env) {
  refuseKernelless(recipe, locked)
  const { lock, packages } = await fetchLocked(recipe, locked, options, env)
  const tools = [recipe, ...recipe.subimages].some(needsScriptTools)
    ? await toolsTree('scripts', env, packages.get('tools'))
    : undefined
  return { recipe, signing, lock, packages, tools, epoch: epochIn(recipe, lock), command: options.command }
}

const epochIn = ({ settings }: Recipe, lock: Lock): number => settings.sourceDateEpoch ?? epochOf([...snapshotsOf(lock).values()])

function builtOf({ manifest, manifestName, usedBytes }: Artifacts, images: readonly MadeImage[], output: string): Built {
  const main = images.at(-1)!
  const name = nameOf(main.image)
  return {
    image: join(output, name),
    format: main.image.settings.format,
    manifest: join(output, manifestName),
    sizeBytes: manifest.artifacts.find((artifact) => artifact.name === name)?.sizeBytes ?? 0,
    usedBytes,
    rootHash: manifest.rootHash,
    verified: images.flatMap(({ links }) => links).length,
    artifacts: [...manifest.artifacts.map((artifact) => artifact.name), ...images.flatMap(({ folders }) => folders)],
  }
}

/** The newest of the moments the repositories were locked at, in seconds since 1970. */
export function epochOf(snapshots: readonly string[]): number {
  const iso = (s: string) => s.replace(/^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/, '$1-$2-$3T$4:$5:$6Z')
  return Math.max(...snapshots.map((snapshot) => Math.floor(Date.parse(iso(snapshot)) / 1000)))
}
