/**
 * Clean: takes away what builds of a recipe wrote into its output folder, and nothing else.
 *
 * What belongs to a build is what its manifest lists, of this version of the image or of another; beside that, the names
 * that the next build would give its images, as it would replace them.
 */
import { lstatSync } from 'node:fs'
import { mkdir, readdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { Manifest } from '../image/manifest.ts'
import type { Recipe } from '../recipe/recipe.ts'
import type { Env } from './env.ts'
import { DEFAULT_INITRD } from './images.ts'
import { nameOf } from './output.ts'
import { runOutside } from './scripts.ts'
import { toolsTree } from './tools.ts'
import { type Place, withWorkFolder } from './work.ts'

export interface Cleaned {
  output: string
  /** Names in the output folder. */
  removed: string[]
  /** Space that the files among them took on disk. */
  removedBytes: number
  /** How many clean scripts ran. */
  scripts: number
}

/** Removes the artifacts of a recipe's builds, and then runs its clean scripts. */
export async function clean(recipe: Recipe, output: string, env: Env): Promise<Cleaned> {
  const removed: string[] = []
  let removedBytes = 0
  // A folder where a file was made is somebody else's, and the other way round.
  const remove = async (name: unknown, isFolder: boolean): Promise<void> => {
    const found = isName(name) ? lstatSync(join(output, name), { throwIfNoEntry: false }) : undefined
    if (!isName(name) || found === undefined || found.isFile() === isFolder) return
    await rm(join(output, name), { recursive: isFolder, force: true })
    removed.push(name)
    if (found.isFile()) removedBytes += found.blocks * 512
  }
  for (const { name, manifest } of await manifestsIn(output, recipe)) {
    for (const artifact of manifest.artifacts) await remove(artifact?.name, false)
    for (const folder of manifest.folders ?? []) await remove(folder, true)
    // it says what else there is, so it goes last
    await remove(name, false)
  }
  for (const image of [...recipe.subimages, recipe]) {
    const { format } = image.settings
    if (image.name === DEFAULT_INITRD || format === 'none') continue
    await remove(nameOf(image), format === 'directory' || format === 'oci')
  }
  return { output, removed, removedBytes, scripts: await runCleanScripts(recipe, output, env) }
}

/** A name in a folder, not a path that leads elsewhere. */
const isName = (name: unknown): name is string =>
  typeof name === 'string' && !['', '.', '..'].includes(name) && !/[/\0]/.test(name)

/** The manifests that builds of this recipe left, whatever version of the image they made. */
async function manifestsIn(output: string, { settings }: Recipe): Promise<{ name: string; manifest: Manifest }[]> {
  const id = settings.imageId ?? settings.output
  const found: { name: string; manifest: Manifest }[] = []
  const names = await readdir(output).catch((): string[] => [])
  for (const name of names.filter((name) => name.endsWith(MANIFEST)).sort()) {
    const manifest = await readManifest(join(output, name))
    if (manifest === undefined) continue
    const { image } = manifest
    const isSame = name === `${settings.output}${MANIFEST}`
    const isOther = settings.imageId !== undefined && image.id === id && namesFor(settings, image.version).includes(name)
    if (isSame || isOther) found.push({ name, manifest })
  }
  return found
}

const MANIFEST = '.manifest.json'

/** What the manifest may be called for another version: as now, with that one wherever this version may stand. */
function namesFor({ output, imageVersion }: Recipe['settings'], version: string | undefined): string[] {
  if (imageVersion === undefined || version === undefined) return []
  const parts = output.split(imageVersion)
  return parts.slice(1).map((_, i) => {
    const [before, after] = [parts.slice(0, i + 1), parts.slice(i + 1)].map((some) => some.join(imageVersion))
    return `${before}${version}${after}${MANIFEST}`
  })
}

async function readManifest(path: string): Promise<Manifest | undefined> {
  try {
    const manifest = JSON.parse(await readFile(path, 'utf8'))
    const isOurs = manifest?.manifestVersion === 1 && typeof manifest.image?.id === 'string'
    return isOurs && Array.isArray(manifest.artifacts) && Array.isArray(manifest.folders ?? []) ? manifest : undefined
  } catch {
    return undefined
  }
}

async function runCleanScripts(recipe: Recipe, output: string, env: Env): Promise<number> {
  const images = [...recipe.subimages, recipe].filter(({ settings }) => settings.cleanScripts.length > 0)
  if (images.length === 0) return 0
  const tools = await toolsTree('scripts', env)
  const epoch = recipe.settings.sourceDateEpoch ?? Math.floor(env.now.getTime() / 1000)
  const scratch: Place = { parent: `${env.cache}/work`, what: 'the clean scripts', option: '--cache DIR' }
  return withWorkFolder(scratch, async (work) => {
    // scripts find a folder there, even where nothing was ever built
    const folder = lstatSync(output, { throwIfNoEntry: false }) ? output : join(work, 'output')
    if (folder !== output) await mkdir(folder)
    for (const image of images) {
      const around = { recipe, image, tools, secrets: [], output: folder, epoch }
      await runOutside('clean', { ...around, work: join(work, image.name) }, env.report)
    }
    return images.flatMap(({ settings }) => settings.cleanScripts).length
  })
}
