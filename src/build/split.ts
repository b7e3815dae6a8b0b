/** Split artifacts: parts of an image as files of their own, named as mkosi names them. */
import { constants, copyFile, cp, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { writeTar } from '../image/output/archive.ts'
import { compressFile } from '../image/output/compress.ts'
import { writeDefinitions } from '../image/output/definitions.ts'
import { besideNames, tarName } from '../image/output/names.ts'
import { specifiersOf } from '../image/repart/specifiers.ts'
import { splitNames, writeSplitFile } from '../image/repart/split.ts'
import type { ImageRecipe } from '../recipe/recipe.ts'
import type { Settings } from '../recipe/schema.ts'
import type { Content } from '../tree/tree.ts'
import type { MadeDisk } from './disk.ts'
import type { MadeImage, OutputFile, OutputInput } from './output.ts'
import { builtInSources } from './partitions.ts'
import type { System } from './system.ts'

/** Whatever of a disk the recipe wants split off. */
export async function writeSplit(input: OutputInput, disk: MadeDisk, made: MadeImage): Promise<void> {
  const { image, output, system } = input
  const { settings } = image
  const wanted = new Set<string>(settings.splitArtifacts)
  const names = besideNames(settings.output)
  await writeBootSplit(input, disk, made)
  if (wanted.has('os-release')) await put(input, made, { name: names.osRelease, type: 'os-release' }, text(disk.osRelease))
  if (disk.rootHash && wanted.has('roothash')) {
    // The hash of /usr has the name that updates match; mkosi has one name for both.
    const name = settings.hermeticUsr ? `${settings.output}.usrhash` : names.rootHash
    await put(input, made, { name, type: 'roothash' }, text(disk.rootHash.value))
  }
  if (wanted.has('partitions')) await writePartitions(image, output, disk, made)
  if (wanted.has('repart-definitions')) {
    await writeRepart(settings, system, join(output, names.repartDefinitions))
    made.folders.push(names.repartDefinitions)
  }
}

/** What boots an image, of whatever format, as far as the recipe wants it split off. */
export async function writeBootSplit(
  input: Pick<OutputInput, 'image' | 'output'>,
  { boot: { kernel }, modules, initrds }: Pick<MadeDisk, 'boot' | 'modules' | 'initrds'>,
  made: MadeImage,
): Promise<void> {
  if (!kernel) return
  const { settings } = input.image
  const names = besideNames(settings.output)
  const [initrd] = initrds
  const own = modules.get(kernel.version)
  // Out of the UKI, where there is one: the kernel is signed in there, and the initrd has the kernel's modules.
  const { uki } = kernel
  const parts: [wanted: Settings['splitArtifacts'][number], name: string, content: Content | undefined][] = [
    ['uki', names.uki, uki && { bytes: uki.bytes }],
    ['kernel', names.kernel, uki ? { bytes: uki.kernel } : kernel.vmlinuz],
    ['initrd', names.initrd, uki ? initrd && { bytes: uki.initrd } : initrd?.content],
    ['kernel-modules-initrd', names.kernelModulesInitrd, own && { bytes: own }],
    ['pcrs', names.pcrs, uki && text(`${JSON.stringify(uki.pcr11)}\n`)],
  ]
  for (const [type, name, content] of parts) {
    if (content && settings.splitArtifacts.includes(type))
      await put(input, made, { name, type: type as OutputFile['type'] }, content)
  }
}

const text = (value: string): Content => ({ bytes: Buffer.from(value) })

async function put({ output }: Pick<OutputInput, 'output'>, made: MadeImage, file: OutputFile, content: Content): Promise<void> {
  await copyTo(join(output, file.name), content)
  made.files.push(file)
}

/** The tree of an image of another format as an archive. */
export async function writeSplitTar({ image: { settings }, output, system, epoch }: OutputInput, made: MadeImage): Promise<void> {
  if (!settings.splitArtifacts.includes('tar') || settings.format === 'tar') return
  const { compressOutput: compression, compressLevel: level } = settings
  const name = tarName(settings.output, compression)
  await writeTar(system.tree, join(output, name), { compression, level, epoch })
  made.files.push({ name, type: 'tar' })
}

async function writeRepart(settings: Settings, system: System, folder: string): Promise<void> {
  const { repartDirectories } = settings
  if (repartDirectories.length === 0) return writeDefinitions(folder, builtInSources(settings, system.tree))
  for (const directory of repartDirectories) await cp(directory, folder, { recursive: true })
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
