/** Artifacts: the files a build leaves behind, made beside each other and put in place together. */
import { rename, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type Sha256, sha256 } from '../base/digest.ts'
import type { Report } from '../base/report.ts'
import { formatManifest, type Manifest, type ManifestArtifact, type ManifestPackage } from '../image/manifest.ts'
import type { PcrPredictions } from '../image/measured.ts'
import { formatChecksums } from '../image/output/checksums.ts'
import { besideNames } from '../image/output/names.ts'
import { formatLock, type Lock } from '../packages/lock.ts'
import type { Package } from '../packages/package.ts'
import type { Recipe } from '../recipe/recipe.ts'
import { HASH_FILE } from '../run/hash-file.ts'
import { type Workers, withWorkers } from '../run/workers.ts'
import { KEY_ROLES } from '../signing/signer.ts'
import { groupOf } from './groups.ts'
import type { Signing } from './keys.ts'
import { type MadeImage, nameOf, type OutputFile } from './output.ts'
import { predictionsOf } from './predictions.ts'
import { recipeDigest } from './recipe-digest.ts'

export interface ArtifactsInput {
  recipe: Recipe
  lock: Lock
  signing: Signing
  epoch: number
  /** In the order they were made; the main one is the last. */
  images: readonly MadeImage[]
  /** Folder their files are in. */
  output: string
}

export interface Artifacts {
  manifest: Manifest
  /** Folder they are in. */
  folder: string
  manifestName: string
  /** Names of artifacts that are folders. */
  folders: string[]
  /** Space the main image takes. */
  usedBytes: number
}

/** Digests what the images left, writes checksums where the recipe wants them, and the manifest. */
export async function writeArtifacts(input: ArtifactsInput, report: Report): Promise<Artifacts> {
  const { recipe, output, images } = input
  const main = images.at(-1)!
  // The main image is what the manifest is about: its files come first.
  const others = images.slice(0, -1).flatMap(({ image, files }) => files.map((file) => ({ ...file, image: image.name })))
  const files = [...main.files, ...others]
  const artifacts = await withWorkers(undefined, (workers) => Promise.all(files.map((file) => digested(file, output, workers))))
  if (recipe.settings.checksum) artifacts.push(await writeChecksums(recipe, artifacts, output))
  for (const { name, sizeBytes, sha256 } of artifacts) report.tell({ type: 'artifact', name, size: sizeBytes, digest: sha256 })
  const folders = images.flatMap((image) => image.folders)
  const pcrs = main.disk && (await predictionsOf(main.disk.boot))
  const manifest = { ...manifestOf(input, main, artifacts, pcrs), ...(folders.length > 0 ? { folders } : {}) }
  const manifestName = `${recipe.settings.output}.manifest.json`
  await writeFile(join(output, manifestName), formatManifest(manifest))
  const image = join(output, nameOf(main.image))
  const { blocks } = await stat(image).catch(() => ({ blocks: 0 }))
  return { manifest, folder: output, manifestName, folders, usedBytes: blocks * 512 }
}

/** Gives artifacts their final names in `target`, which is on the same file system. */
export async function putInPlace({ manifest, folder, folders, manifestName }: Artifacts, target: string): Promise<void> {
  for (const name of folders) {
    await rm(join(target, name), { recursive: true, force: true })
    await rename(join(folder, name), join(target, name))
  }
  // The manifest names all the others: it goes last.
  for (const file of [...manifest.artifacts.map((artifact) => artifact.name), manifestName])
    await rename(join(folder, file), join(target, file))
}

async function digested(file: OutputFile & { image?: string }, folder: string, workers: Workers): Promise<ManifestArtifact> {
  const path = join(folder, file.name)
  return { ...file, sizeBytes: (await stat(path)).size, sha256: await workers.run(HASH_FILE, path) }
}

async function writeChecksums(
  { settings }: Recipe,
  artifacts: readonly ManifestArtifact[],
  folder: string,
): Promise<ManifestArtifact> {
  const text = formatChecksums(new Map(artifacts.map(({ name, sha256 }) => [name, sha256])))
  const name = besideNames(settings.output).checksums
  await writeFile(join(folder, name), text, { flag: 'wx' })
  return { name, type: 'checksums', sizeBytes: Buffer.byteLength(text), sha256: sha256(Buffer.from(text)) }
}

function manifestOf(
  { recipe, lock, signing, epoch, images }: ArtifactsInput,
  { disk }: MadeImage,
  artifacts: ManifestArtifact[],
  pcrs: PcrPredictions | undefined,
): Manifest {
  const { settings } = recipe
  const packages = (all: readonly Package[]) =>
    all.map(({ name, version, architecture, sha256 }) => ({ name, version, architecture, sha256 }))
  const certificates = Object.fromEntries(
    KEY_ROLES.map((role): [string, Sha256] => [role, sha256(signing.signers[role].certificate)]),
  )
  const kernel = disk?.boot.kernel
  const built = builtIn(images)
  return {
    manifestVersion: 1,
    image: {
      id: settings.imageId ?? settings.output,
      ...(settings.imageVersion === undefined ? {} : { version: settings.imageVersion }),
      architecture: settings.architecture,
      distribution: settings.distribution,
      release: settings.release,
    },
    recipe: recipeDigest(recipe),
    lock: sha256(formatLock(lock)),
    epoch,
    packages: Object.fromEntries(
      [...lock.groups].map(([group, all]) => [group, packages(withoutBuilt(all.packages, built[group]))]),
    ),
    ...(Object.keys(built).length > 0 ? { built } : {}),
    ...(kernel ? { kernel: kernel.version, commandLine: kernel.commandLine } : {}),
    ...(disk?.rootHash ? { rootHash: disk.rootHash.value } : {}),
    ...(kernel?.uki ? { pcr11: kernel.uki.pcr11, authenticode: { uki: kernel.uki.authenticodeSha256 } } : {}),
    ...(pcrs ? { pcrs } : {}),
    certificates,
    artifacts,
  }
}

/** Packages that build scripts made, by the group of their image. */
const builtIn = (images: readonly MadeImage[]): Record<string, ManifestPackage[]> =>
  Object.fromEntries(images.flatMap(({ image, built }) => (built.length > 0 ? [[groupOf(image.name), [...built]]] : [])))

const withoutBuilt = (packages: readonly Package[], built: readonly ManifestPackage[] = []): readonly Package[] =>
  packages.filter(({ name }) => !built.some((one) => one.name === name))
