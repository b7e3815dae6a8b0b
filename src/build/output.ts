/** What an image is written as: its format decides which files there are. */
import { constants, copyFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Fault } from '../base/fault.ts'
import type { Report } from '../base/report.ts'
import { writeDisk } from '../image/disk.ts'
import type { ManifestArtifact } from '../image/manifest.ts'
import { compressFile, writeCompressed } from '../image/output/compress.ts'
import { writeCpio } from '../image/output/cpio.ts'
import { writeFolder } from '../image/output/folder.ts'
import { besideNames, imageName, plainName } from '../image/output/names.ts'
import { writeOci } from '../image/output/oci.ts'
import { tarOf } from '../image/output/tar.ts'
import { specifiersOf } from '../image/repart/specifiers.ts'
import { splitNames, writeSplitFile } from '../image/repart/split.ts'
import type { ImageRecipe } from '../recipe/recipe.ts'
import type { Content } from '../tree/tree.ts'
import { type Link, verifyImage } from '../verify/image.ts'
import type { NamedInitrd } from './boot.ts'
import { type MadeDisk, makeDisk } from './disk.ts'
import type { Env } from './env.ts'
import type { ImagesInput } from './images.ts'
import { trustOf } from './keys.ts'
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
}

/** Writes an image into the output folder, in its format. */
export async function makeOutput(input: OutputInput, env: Env): Promise<MadeImage> {
  const { image, output } = input
  const { settings } = image
  const made: MadeImage = { image, files: [], folders: [], links: [] }
  const name = nameOf(image)
  const path = join(output, name)
  const { tree } = input.system
  const { compressOutput: compression, compressLevel: level } = settings
  switch (settings.format) {
    case 'none':
      break
    case 'disk':
    case 'esp':
      await writeDiskImage(input, made, env)
      break
    case 'cpio':
      await writeCpio(tree, path, { epoch: input.epoch, compression, level })
      made.files.push({ name, type: 'cpio' })
      break
    case 'tar':
      await writeCompressed(tarOf(tree), path, { compression, level })
      made.files.push({ name, type: 'tar' })
      break
    case 'directory':
      await writeFolder(tree, path, { epoch: input.epoch })
      made.folders.push(name)
      break
    case 'oci':
      await writeOci(tree, path, {
        architecture: 'x86-64',
        epoch: input.epoch,
        imageId: settings.imageId,
        imageVersion: settings.imageVersion,
        kernelCommandLine: settings.kernelCommandLine,
        labels: settings.ociLabels,
        annotations: settings.ociAnnotations,
        compression,
        level,
      })
      made.folders.push(name)
      break
    default:
      throw new Fault('recipe', `Cannot write an image in format ${settings.format}: not supported yet`)
  }
  return made
}

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
  made.links = await report.step('Verify image', (report: Report) =>
    verifyImage(plain, { ...trustOf(signing), chain: disk.chain }, report),
  )
  if (imageName(naming) !== plainName(naming)) {
    const { compressOutput: compression, compressLevel: level } = image.settings
    await report.step('Compress image', () => compressFile(plain, { compression, level }))
    await rm(plain)
  }
}

async function writeSplit({ image, output }: OutputInput, disk: MadeDisk, made: MadeImage): Promise<void> {
  const { settings } = image
  const wanted = new Set<string>(settings.splitArtifacts)
  const names = besideNames(settings.output)
  const { kernel } = disk.boot
  const put = async (name: string, type: OutputFile['type'], content: Content, more: Partial<OutputFile> = {}) => {
    await copyTo(join(output, name), content)
    made.files.push({ name, type, ...more })
  }
  const text = (value: string): Content => ({ bytes: Buffer.from(value) })
  if (kernel?.uki && wanted.has('uki')) await put(names.uki, 'uki', { bytes: kernel.uki.bytes })
  // Out of the UKI, where there is one: the kernel is signed in there, and the initrd has the kernel's modules.
  if (kernel && wanted.has('kernel'))
    await put(names.kernel, 'kernel', kernel.uki ? { bytes: kernel.uki.kernel } : kernel.vmlinuz)
  const [initrd] = disk.initrds
  const initrds = kernel?.uki ? { bytes: kernel.uki.initrd } : initrd?.content
  if (initrd && initrds && wanted.has('initrd')) await put(names.initrd, 'initrd', initrds)
  const modules = kernel && disk.modules.get(kernel.version)
  if (modules && wanted.has('kernel-modules-initrd'))
    await put(names.kernelModulesInitrd, 'kernel-modules-initrd', { bytes: modules })
  if (wanted.has('os-release')) await put(names.osRelease, 'os-release', text(disk.osRelease))
  if (disk.rootHash && wanted.has('roothash')) {
    // The hash of /usr has the name that updates match; mkosi has one name for both.
    const name = settings.hermeticUsr ? `${settings.output}.usrhash` : names.rootHash
    await put(name, 'roothash', text(disk.rootHash.value))
  }
  if (kernel?.uki && wanted.has('pcrs')) await put(names.pcrs, 'pcrs', text(`${JSON.stringify(kernel.uki.pcr11)}\n`))
  if (wanted.has('partitions')) await writePartitions(image, output, disk, made)
}

async function writePartitions({ settings }: ImageRecipe, output: string, disk: MadeDisk, made: MadeImage): Promise<void> {
  const { compressOutput: compression, compressLevel: level } = settings
  const names = splitNames(disk.plan, `${settings.output}.raw`, specifiersOf(disk.osRelease, 'x86-64'))
  for (const [i, partition] of disk.plan.partitions.entries()) {
    const [name, source] = [names[i], disk.sources[i]]
    if (name === undefined || source === undefined) continue
    const { guid, typeName, label } = partition
    const path = join(output, name)
    await writeSplitFile(path, partition, source)
    const written = await compressFile(path, { compression, level })
    if (written !== path) await rm(path)
    made.files.push({ name: written.slice(output.length + 1), type: 'partition', partition: { guid, type: typeName, label } })
  }
}

async function copyTo(path: string, content: Content): Promise<void> {
  if ('bytes' in content) await writeFile(path, content.bytes, { flag: 'wx' })
  else await copyFile(content.path, path, constants.COPYFILE_FICLONE | constants.COPYFILE_EXCL)
}
