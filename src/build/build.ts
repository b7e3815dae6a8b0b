/**
 * The table of contents: a recipe becomes an image.
 *
 * Take a recipe and its lock; fetch the packages; install the system and the initrd; lay out /usr; write it as EROFS
 * under dm-verity and sign its root hash; make the UKI that pins that hash; put it on an ESP; write the disk; verify
 * it from its bytes alone.
 * Every stage is a function of values; nothing here appears under its final name before all of it is there and verified.
 */
import { join } from 'node:path'
import type { Sha256 } from '../base/digest.ts'
import { snapshotsOf } from '../packages/lock.ts'
import type { Recipe } from '../recipe/recipe.ts'
import { verifyImage } from '../verify/image.ts'
import { putInPlace, writeArtifacts } from './artifacts.ts'
import type { Env } from './env.ts'
import { makeImage } from './image.ts'
import { keysFor, trustOf } from './keys.ts'
import { fetchLocked, lockFor, packagesOf } from './locked.ts'
import { needsScriptTools } from './scripts.ts'
import { makeInitrdSystem, makeSystem } from './system.ts'
import { toolsTree } from './tools.ts'
import { onDisk, type Place, withWorkFolder } from './work.ts'

export interface BuildOptions {
  /** Folder for the artifacts. */
  output: string
  /** Folder of keys; where none is given, `keys/` beside the recipe, made on first use. */
  keys?: string | undefined
  /** Lock anew when the mirror no longer has a pinned package. */
  relock: boolean
}

export interface Built {
  /** Path of the disk image. */
  image: string
  manifest: string
  sizeBytes: number
  /** Space it takes on disk. */
  usedBytes: number
  rootHash: Sha256
  /** Links of the chain of trust that were checked. */
  verified: number
  artifacts: string[]
}

export async function build(recipe: Recipe, options: BuildOptions, env: Env): Promise<Built> {
  const { report } = env
  const signing = await keysFor(recipe, options.keys, env)
  const { lock, packages } = await fetchLocked(recipe, await lockFor(recipe, env), options, env)
  const tools = needsScriptTools(recipe) ? await toolsTree('scripts', env) : undefined
  const epoch = recipe.settings.sourceDateEpoch ?? epochOf([...snapshotsOf(lock).values()])

  const scratch: Place = { parent: `${env.cache}/work`, what: 'the build', option: '--cache DIR' }
  const results: Place = { parent: options.output, what: 'artifacts', option: '--output DIR' }
  const artifacts = await withWorkFolder(results, (output) =>
    withWorkFolder(scratch, async (work) => {
      const parts = await onDisk(scratch, async () => {
        const [system, initrd] = await Promise.all([
          report.step('Make system', (report) =>
            makeSystem(
              { recipe, packages: packagesOf(packages, 'main'), tools, secrets: signing.secrets, work: `${work}/image`, epoch },
              report,
            ).then(({ tree }) => tree),
          ),
          report.step('Make initrd', (report) =>
            makeInitrdSystem({ packages: packagesOf(packages, 'default-initrd'), work: `${work}/initrd`, epoch }, report),
          ),
        ])
        return makeImage({ recipe, signing, system, initrd, epoch, work }, report)
      })
      return onDisk(results, async () => {
        const artifacts = await report.step('Write artifacts', (report) =>
          writeArtifacts({ recipe, lock, signing, epoch, parts, output }, report),
        )
        const links = await report.step('Verify image', (report) =>
          verifyImage(join(output, artifacts.image), trustOf(signing), report),
        )
        await putInPlace(artifacts, options.output)
        return { ...artifacts, verified: links.length }
      })
    }),
  )
  const { manifest, usedBytes, verified } = artifacts
  const { sizeBytes } = manifest.artifacts[0]!
  const names = manifest.artifacts.map((artifact) => artifact.name)
  const [image, manifestPath] = [join(options.output, artifacts.image), join(options.output, artifacts.manifestName)]
  return { image, manifest: manifestPath, sizeBytes, usedBytes, rootHash: manifest.rootHash, verified, artifacts: names }
}

/** The newest of the moments the repositories were locked at, in seconds since 1970. */
export function epochOf(snapshots: readonly string[]): number {
  const iso = (s: string) => s.replace(/^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/, '$1-$2-$3T$4:$5:$6Z')
  return Math.max(...snapshots.map((snapshot) => Math.floor(Date.parse(iso(snapshot)) / 1000)))
}
