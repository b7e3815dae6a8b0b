/** Artifacts: the files a build leaves behind, made beside each other and put in place together. */
import { copyFile, rename, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { digestOf, type Sha256, sha256 } from '../base/digest.ts'
import type { Report } from '../base/report.ts'
import { type DiskPlan, type Partition, planDisk, splitName, verityGuids, writeDisk } from '../image/disk.ts'
import { formatManifest, type Manifest, type ManifestArtifact } from '../image/manifest.ts'
import { formatLock, type Lock, packagesIn } from '../packages/lock.ts'
import type { Package } from '../packages/package.ts'
import type { Recipe } from '../recipe/recipe.ts'
import { HASH_FILE } from '../run/hash-file.ts'
import { type Workers, withWorkers } from '../run/workers.ts'
import { KEY_ROLES } from '../signing/signer.ts'
import type { Content } from '../tree/tree.ts'
import type { ImageParts } from './image.ts'
import type { Signing } from './keys.ts'

export interface ArtifactsInput {
  recipe: Recipe
  lock: Lock
  signing: Signing
  epoch: number
  parts: ImageParts
  /** Folder they are made in. */
  output: string
}

export interface Artifacts {
  manifest: Manifest
  /** Folder they are in. */
  folder: string
  /** File names in it, the manifest's among them. */
  image: string
  manifestName: string
  /** Space the disk image takes. */
  usedBytes: number
}

export async function writeArtifacts(input: ArtifactsInput, report: Report): Promise<Artifacts> {
  const { recipe, output } = input
  const name = recipe.settings.output
  const planned = await artifactsOf(input)
  const artifacts = await withWorkers(undefined, (workers) => Promise.all(planned.map((one) => finished(one, output, workers))))
  for (const { name, sizeBytes, sha256 } of artifacts) report.tell({ type: 'artifact', name, size: sizeBytes, digest: sha256 })
  const manifest = manifestOf(input, artifacts)
  const manifestName = `${name}.manifest.json`
  await writeFile(join(output, manifestName), formatManifest(manifest))
  const image = `${name}.raw`
  const { blocks } = await stat(join(output, image))
  return { manifest, folder: output, image, manifestName, usedBytes: blocks * 512 }
}

/** Gives artifacts their final names in `target`, which is on the same file system. */
export async function putInPlace({ manifest, folder, manifestName }: Artifacts, target: string): Promise<void> {
  // The manifest names all the others: it goes last.
  for (const file of [...manifest.artifacts.map((artifact) => artifact.name), manifestName])
    await rename(join(folder, file), join(target, file))
}

type Planned = Pick<ManifestArtifact, 'name' | 'type' | 'partition'> & { content?: Content }

async function artifactsOf({ recipe, output, parts }: ArtifactsInput): Promise<Planned[]> {
  const { settings } = recipe
  const name = settings.output
  const { plan, sources } = planImage(recipe, parts)
  await writeDisk(join(output, `${name}.raw`), plan, sources)
  const split = new Set<string>(settings.splitArtifacts)
  const planned: Planned[] = [{ name: `${name}.raw`, type: 'disk' }]
  const text = (value: string): Content => ({ bytes: Buffer.from(value) })
  if (split.has('uki')) planned.push({ name: `${name}.efi`, type: 'uki', content: { bytes: parts.uki.bytes } })
  if (split.has('kernel')) planned.push({ name: `${name}.vmlinuz`, type: 'kernel', content: parts.vmlinuz })
  if (split.has('initrd')) planned.push({ name: `${name}.initrd`, type: 'initrd', content: { bytes: parts.initrds.base } })
  if (split.has('os-release')) planned.push({ name: `${name}.osrelease`, type: 'os-release', content: text(parts.osRelease) })
  if (split.has('roothash')) planned.push({ name: `${name}.usrhash`, type: 'roothash', content: text(parts.usr.rootHash) })
  if (split.has('pcrs'))
    planned.push({ name: `${name}.pcrs`, type: 'pcrs', content: text(`${JSON.stringify(parts.uki.pcr11)}\n`) })
  if (split.has('partitions')) {
    for (const [i, partition] of plan.partitions.entries()) {
      if (partition.type === 'esp') continue
      const { guid, typeName, label } = partition
      const described = { guid, type: typeName, label }
      planned.push({ name: splitName(name, partition), type: 'partition', partition: described, content: trimmed(sources[i]!) })
    }
  }
  return planned
}

/** A signature partition is padded with NUL bytes, which no one needs to download. */
function trimmed(content: Content): Content {
  if (!('bytes' in content)) return content
  const end = content.bytes.findLastIndex((byte) => byte !== 0) + 1
  return { bytes: content.bytes.subarray(0, end) }
}

function planImage(recipe: Recipe, { usr, esp }: ImageParts): { plan: DiskPlan; sources: Content[] } {
  const { settings } = recipe
  const { data, hash } = verityGuids(usr.rootHash)
  const label = [settings.imageId, settings.imageVersion].filter((part) => part !== undefined).join('_')
  const partitions: (Partition & { source: Content })[] = [
    { type: 'esp', sizeBytes: esp.sizeBytes, source: { path: esp.path } },
    { type: 'usr-verity-sig', label: `${label}_verity_sig`, sizeBytes: usr.signature.length, source: { bytes: usr.signature } },
    { type: 'usr-verity', label: `${label}_verity`, guid: hash, sizeBytes: usr.hashBytes, source: { path: usr.hash } },
    {
      type: 'usr',
      label,
      guid: data,
      sizeBytes: usr.dataBytes,
      readOnly: true,
      growFileSystem: false,
      source: { path: usr.data },
    },
  ]
  const { seed, architecture, sectorSize } = settings
  return {
    plan: planDisk(partitions, { seed, architecture, sectorSize }),
    sources: partitions.map((partition) => partition.source),
  }
}

async function finished({ content, ...artifact }: Planned, folder: string, workers: Workers): Promise<ManifestArtifact> {
  const path = join(folder, artifact.name)
  if (content !== undefined) await copyTo(path, content)
  return { ...artifact, sizeBytes: (await stat(path)).size, sha256: await workers.run(HASH_FILE, path) }
}

async function copyTo(path: string, content: Content): Promise<void> {
  if ('bytes' in content) await writeFile(path, content.bytes)
  else await copyFile(content.path, path)
}

/** Digest of the settings that decide about an image. Files of the recipe count by their place in it, wherever it lies. */
export function recipeDigest({ settings, directory }: Pick<Recipe, 'settings' | 'directory'>): Sha256 {
  const { outputDirectory: _, ...deciding } = settings
  const prefix = `${directory}/`
  const placed = (_key: string, value: unknown) =>
    typeof value === 'string' && value.startsWith(prefix) ? `./${value.slice(prefix.length)}` : value
  return digestOf(JSON.parse(JSON.stringify(deciding, placed)))
}

function manifestOf({ recipe, lock, signing, epoch, parts }: ArtifactsInput, artifacts: ManifestArtifact[]): Manifest {
  const { settings } = recipe
  const packages = (all: readonly Package[]) =>
    all.map(({ name, version, architecture, sha256 }) => ({ name, version, architecture, sha256 }))
  const certificates = Object.fromEntries(
    KEY_ROLES.map((role): [string, Sha256] => [role, sha256(signing.signers[role].certificate)]),
  )
  return {
    manifestVersion: 1,
    image: {
      id: settings.imageId ?? 'image',
      ...(settings.imageVersion === undefined ? {} : { version: settings.imageVersion }),
      architecture: settings.architecture,
      distribution: settings.distribution,
      release: settings.release,
    },
    recipe: recipeDigest(recipe),
    lock: sha256(formatLock(lock)),
    epoch,
    packages: { image: packages(packagesIn(lock, 'image')), initrd: packages(packagesIn(lock, 'initrd')) },
    kernel: parts.kernel,
    commandLine: parts.commandLine,
    rootHash: parts.usr.rootHash,
    pcr11: parts.uki.pcr11,
    authenticode: { uki: parts.uki.authenticodeSha256 },
    certificates,
    artifacts,
  }
}
