/** What an image is written as: its format decides which files there are. */
import { existsSync } from 'node:fs'
import { chmod, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Report } from '../base/report.ts'
import { encodeVeritySignature } from '../formats/verity.ts'
import { stubPath, withFiles } from '../image/boot-loader.ts'
import { writeDisk } from '../image/disk.ts'
import { kernelsOf } from '../image/kernels.ts'
import type { ManifestArtifact } from '../image/manifest.ts'
import { writeTar } from '../image/output/archive.ts'
import { compressFile } from '../image/output/compress.ts'
import { writeCpio } from '../image/output/cpio.ts'
import { protectionOf } from '../image/output/definitions.ts'
import { makeExtension } from '../image/output/extension.ts'
import { writeFolder } from '../image/output/folder.ts'
import { besideNames, imageName, plainName } from '../image/output/names.ts'
import { writeOci } from '../image/output/oci.ts'
import { makeTreeAddon, makeTreeUki } from '../image/output/programs.ts'
import { clampTimes } from '../image/usr.ts'
import type { ImageRecipe } from '../recipe/recipe.ts'
import type { Settings } from '../recipe/schema.ts'
import { signRootHash } from '../signing/root-hash.ts'
import { type Link, verifyImage } from '../verify/image.ts'
import { contentOf, microcodeOf, type NamedInitrd, noKernel, osReleaseOf, ukiInput } from './boot.ts'
import { bootableTree } from './boot-tree.ts'
import { type MadeDisk, makeDisk } from './disk.ts'
import type { Env } from './env.ts'
import type { ImagesInput } from './images.ts'
import { type Signing, trustOf } from './keys.ts'
import { writeMkosiManifest } from './mkosi-manifest.ts'
import { writeSplit, writeSplitTar } from './split.ts'
import type { System } from './system.ts'

export interface OutputInput extends ImagesInput {
  image: ImageRecipe
  system: System
  /** The initrds that the image names; waits for the default one to be made. */
  initrds: () => Promise<NamedInitrd[]>
}

/** A file in the output folder, and what it is. */
export type OutputFile = Pick<ManifestArtifact, 'name' | 'type' | 'partition'>

export interface MadeImage {
  image: ImageRecipe
  /** The image first, then what was split from it. */
  files: OutputFile[]
  /** Folders, which have no digest. */
  folders: string[]
  disk?: MadeDisk
  /** Links of the chain of trust that were checked. */
  links: Link[]
  /** Packages that build scripts made, which took the place of locked ones. */
  built: System['built']
}

/** Writes an image into the output folder, in its format. */
export async function makeOutput(input: OutputInput, env: Env): Promise<MadeImage> {
  const made: MadeImage = { image: input.image, files: [], folders: [], links: [], built: input.system.built }
  await WRITERS[input.image.settings.format](input, made, env)
  await writeSplitTar(input, made)
  const manifest = await writeMkosiManifest(input)
  if (manifest !== undefined) made.files.push({ name: manifest, type: 'mkosi-manifest' })
  const { outputMode } = input.image.settings
  if (outputMode !== undefined) for (const { name } of made.files) await chmod(join(input.output, name), outputMode)
  return made
}

type Writer = (input: OutputInput, made: MadeImage, env: Env) => Promise<void>

const WRITERS: Readonly<Record<Settings['format'], Writer>> = {
  none: async () => {},
  disk: writeDiskImage,
  esp: writeDiskImage,
  sysext: writeExtension,
  confext: writeExtension,
  portable: writeExtension,
  uki: writeUki,
  addon: writeAddon,
  cpio: async (input, made, env) => {
    const { path, name } = placeOf(input)
    await writeCpio(await bootableTree(input, made, env), path, { ...compressionOf(input), epoch: input.epoch })
    made.files.unshift({ name, type: 'cpio' })
  },
  tar: async (input, made, env) => {
    const { path, name } = placeOf(input)
    await writeTar(await bootableTree(input, made, env), path, { ...compressionOf(input), epoch: input.epoch })
    made.files.unshift({ name, type: 'tar' })
  },
  directory: async (input, made, env) => {
    const { path, name } = placeOf(input)
    await writeFolder(await bootableTree(input, made, env), path, { epoch: input.epoch })
    made.folders.push(name)
  },
  oci: async (input, made, env) => {
    const { path, name } = placeOf(input)
    const { imageId, imageVersion, kernelCommandLine, ociLabels, ociAnnotations } = input.image.settings
    const what = { imageId, imageVersion, kernelCommandLine, labels: ociLabels, annotations: ociAnnotations }
    await writeOci(await bootableTree(input, made, env), path, {
      architecture: 'x86-64',
      epoch: input.epoch,
      ...what,
      ...compressionOf(input),
    })
    made.folders.push(name)
  },
}

const placeOf = ({ image, output }: OutputInput) => ({ name: nameOf(image), path: join(output, nameOf(image)) })

const compressionOf = ({ image: { settings } }: OutputInput) => ({
  compression: settings.compressOutput,
  level: settings.compressLevel,
})

const namingOf = ({ settings }: ImageRecipe) => ({
  output: settings.output,
  extension: settings.outputExtension,
  format: settings.format,
  compression: settings.compressOutput,
})

export const nameOf = (image: ImageRecipe): string => imageName(namingOf(image))

async function writeDiskImage(input: OutputInput, made: MadeImage, env: Env): Promise<void> {
  const { image, output, signing } = input
  const { report } = env
  const disk = await makeDisk(input, env)
  const naming = namingOf(image)
  const plain = join(output, plainName(naming))
  await report.step('Write disk', () => writeDisk(plain, disk.plan, disk.sources))
  made.disk = disk
  made.files.push({ name: imageName(naming), type: 'disk' })
  await report.step('Split artifacts', () => writeSplit(input, disk, made))
  // What is compressed cannot be read afterwards; any other disk is verified when nothing is to come that could change it.
  if (imageName(naming) === plainName(naming)) return
  if (!signing.offline?.missing().length) made.links = await verifyDisk(made, plain, signing, report)
  await compressWhole(input, plain, report)
}

/** Checks every link that a disk's recipe promises. */
const verifyDisk = ({ disk, image }: MadeImage, path: string, signing: Signing, report: Report): Promise<Link[]> =>
  report.step(image.name === 'main' ? 'Verify image' : `Verify ${image.name}`, (report) =>
    verifyImage(path, { ...trustOf(signing), chain: disk!.chain }, report),
  )

/** Verifies the disks that have not been yet; one that a script took away is left alone. */
export async function verifyDisks(images: readonly MadeImage[], output: string, signing: Signing, report: Report): Promise<void> {
  for (const made of images) {
    const path = join(output, nameOf(made.image))
    if (made.disk && made.links.length === 0 && existsSync(path)) made.links = await verifyDisk(made, path, signing, report)
  }
}

/** Compresses a finished image as a whole, where the recipe wants that. */
async function compressWhole(input: OutputInput, plain: string, report: Report): Promise<void> {
  const naming = namingOf(input.image)
  if (imageName(naming) === plainName(naming)) return
  await report.step('Compress image', () => compressFile(plain, compressionOf(input)))
  await rm(plain)
}

async function writeExtension(input: OutputInput, made: MadeImage, env: Env): Promise<void> {
  const { image, system, signing, epoch, work, output } = input
  const { format, verity, seed, sectorSize } = image.settings
  const sign = async (hash: string) => encodeVeritySignature(await signRootHash(hash, signing.signers.verity))
  const { plan, sources } = await env.report.step(`Write ${format}`, (report) =>
    makeExtension(
      clampTimes(system.tree, epoch),
      {
        kind: format as 'sysext' | 'confext' | 'portable',
        output: image.settings.output,
        architecture: 'x86-64',
        verity: protectionOf(verity, true),
        ...{ seed, sectorSize, epoch, work: join(work, image.name) },
        ...(verity === 'defer' ? {} : { signRootHash: sign }),
      },
      report,
    ),
  )
  const naming = namingOf(image)
  const plain = join(output, plainName(naming))
  await writeDisk(plain, plan, sources)
  await compressWhole(input, plain, env.report)
  made.files.push({ name: imageName(naming), type: 'disk' })
}

/** A UKI that is a system by itself: the tree is its initrd. */
async function writeUki(input: OutputInput, made: MadeImage): Promise<void> {
  const { image, signing, system, epoch } = input
  const { settings } = image
  const [kernel] = await kernelsOf(system.boot)
  if (!kernel) throw noKernel('Cannot make a UKI')
  const own = { modules: new Map(), microcode: await microcodeOf({ system: system.boot, artifacts: system.artifacts, epoch }) }
  const osRelease = await osReleaseOf(system.tree)
  const programs = withFiles(system.tree, system.boot)
  const all = ukiInput({ image, signing, system: programs, own, osRelease }, kernel, settings.kernelCommandLine)
  const uki = await makeTreeUki(system.tree, all, { ...compressionOf(input), epoch })
  const put = async (name: string, type: OutputFile['type'], bytes: Uint8Array) => {
    await writeFile(join(input.output, name), bytes, { flag: 'wx' })
    made.files.push({ name, type })
  }
  await put(nameOf(image), 'uki', uki.bytes)
  const split = new Set<string>(settings.splitArtifacts)
  const names = besideNames(settings.output)
  if (split.has('kernel')) await put(names.kernel, 'kernel', uki.kernel)
  if (split.has('initrd')) await put(names.initrd, 'initrd', uki.initrd)
  if (split.has('pcrs')) await put(names.pcrs, 'pcrs', Buffer.from(`${JSON.stringify(uki.pcr11)}\n`))
}

async function writeAddon(input: OutputInput, made: MadeImage): Promise<void> {
  const { image, system, signing, epoch } = input
  const { path, name } = placeOf(input)
  const { secureBoot, kernelCommandLine } = image.settings
  const addon = {
    stub: contentOf(system.boot, stubPath('x86-64', 'addon'), 'systemd-boot-efi'),
    cmdline: kernelCommandLine.join(' '),
    ...(secureBoot ? { signer: signing.signers.db } : {}),
  }
  const bytes = await makeTreeAddon(system.tree, addon, { ...compressionOf(input), epoch })
  await writeFile(path, bytes, { flag: 'wx' })
  made.files.push({ name, type: 'addon' })
}
