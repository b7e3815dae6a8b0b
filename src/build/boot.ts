/**
 * What makes a disk boot: the boot loader, and for every kernel of the image a UKI or a boot entry, as files of the tree
 * that the ESP is filled from.
 */
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { Fault } from '../base/fault.ts'
import type { Report } from '../base/report.ts'
import { prebuiltUki, type Type1Input, type1Files, ukiFiles, ukiPath } from '../image/boot-entries.ts'
import { bootLoaderFiles, stubPath, withFiles } from '../image/boot-loader.ts'
import { signPe } from '../image/efi-program.ts'
import { formatLoaderConf } from '../image/esp.ts'
import { makeModulesInitrd } from '../image/initrd.ts'
import { selectModules } from '../image/kernel-modules.ts'
import { entryName, entryToken, type Kernel, kernelCommandLine, kernelsOf } from '../image/kernels.ts'
import { makeMicrocode } from '../image/microcode.ts'
import { makeTreeUki } from '../image/output/programs.ts'
import { makeUki, type Uki, type UkiInput } from '../image/uki.ts'
import { ukiProfiles } from '../image/uki-profiles.ts'
import { clampTimes } from '../image/usr.ts'
import type { ImageRecipe } from '../recipe/recipe.ts'
import type { Settings } from '../recipe/schema.ts'
import type { Workers } from '../run/workers.ts'
import { makeEnrolment } from '../signing/secure-boot.ts'
import { readContent, readText } from '../tree/content.ts'
import type { Content, Inode, Tree } from '../tree/tree.ts'
import { ipeProfiles } from './ipe.ts'
import type { Signing } from './keys.ts'

/** An initrd that every kernel of the image gets. */
export interface NamedInitrd {
  name: string
  content: Content
}

/** What kernels get beside the initrds that the recipe names. */
export interface KernelInitrds {
  /** For the kernel to load before anything else. */
  microcode: readonly NamedInitrd[]
  /** The initrd with a kernel's modules, by its version. */
  modules: ReadonlyMap<string, Uint8Array>
}

export interface BootInput {
  image: ImageRecipe
  signing: Signing
  /** The finished system, its kernels beside their modules. */
  system: Tree
  /** The boot loader's files, which are in the system already. */
  loader: ReadonlyMap<string, Inode>
  /** Kernels and stubs as they were before anything was removed. */
  kernels: Tree
  /** Text of the image's os-release. */
  osRelease: string
  initrds: readonly NamedInitrd[]
  own: KernelInitrds
  rootHash: { name: 'roothash' | 'usrhash'; value: string } | undefined
  /** Words of the command line before the recipe's own. */
  words: readonly string[]
  partitions: readonly { type: string; uuid: string }[]
  epoch: number
}

export interface Boot {
  /** Files below `efi/` and `boot/`, and folders. */
  files: Map<string, Inode>
  /** The kernel that is booted by default. */
  kernel?: BootedKernel | undefined
}

export interface BootedKernel {
  version: string
  commandLine: string
  vmlinuz: Content
  uki?: Uki | undefined
}

/** Whether a kernel is to be put where something boots it. */
export function wantsKernel({ bootable, format, overlay }: Settings): boolean {
  if (bootable === false || format === 'uki' || format === 'esp') return false
  return bootable === true || !(overlay || ['cpio', 'sysext', 'confext', 'portable'].includes(format))
}

/** Whether EFI firmware is to find a boot loader. */
export const wantsBootLoader = (settings: Settings): boolean => wantsKernel(settings) || settings.format === 'esp'

export interface KernelInitrdsInput {
  image: ImageRecipe
  system: Tree
  kernels: readonly Kernel[]
  /** Folder in which scripts may have left microcode to use instead of the system's. */
  artifacts: string
  epoch: number
}

/** Kernels' own initrds: they follow from the tree alone, so they can be packed while partitions are filled. */
export async function packKernelInitrds(input: KernelInitrdsInput, workers: Workers): Promise<KernelInitrds> {
  const { system, kernels, epoch } = input
  const { settings } = input.image
  const modules = new Map<string, Uint8Array>()
  if (settings.kernelModulesInitrd) {
    for (const { version } of kernels) {
      const { tree } = await selectModules(system, {
        kernel: version,
        architecture: 'x86-64',
        modules: settings.kernelInitrdModules,
        modulesExclude: settings.kernelModulesInitrdExclude,
        firmware: settings.firmwareFiles,
        firmwareExclude: settings.firmwareExclude,
      })
      modules.set(version, await makeModulesInitrd(clampTimes(tree, epoch), { workers }))
    }
  }
  return { modules, microcode: kernels.length > 0 ? await microcodeOf(input) : [] }
}

/** Early microcode: what scripts left, or else what the system has. */
export async function microcodeOf({
  system,
  artifacts,
  epoch,
}: Pick<KernelInitrdsInput, 'system' | 'artifacts' | 'epoch'>): Promise<NamedInitrd[]> {
  const left = await filesLeft(artifacts, 'io.mkosi.microcode')
  if (left.length > 0) return left
  const made = await makeMicrocode(system, epoch)
  return made ? [{ name: 'microcode.initrd', content: { bytes: made } }] : []
}

/** What scripts left in a folder of the artifacts, by name. */
export async function filesLeft(artifacts: string, folder: string): Promise<NamedInitrd[]> {
  const path = join(artifacts, folder)
  const names = await readdir(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return []
    throw error
  })
  return names.sort().map((name) => ({ name, content: { path: join(path, name) } }))
}

export async function makeBoot(input: BootInput, report: Report): Promise<Boot> {
  const { image, system } = input
  const { settings } = image
  const files = new Map(input.loader)
  const add = (more: ReadonlyMap<string, Inode>) => {
    for (const [path, inode] of more) files.set(path, inode)
  }
  if (settings.format === 'esp') {
    add(await espUkiFiles(input, withFiles(system, files)))
    return { files }
  }
  if (!wantsKernel(settings)) return { files }

  const kernels = await kernelsOf(system)
  if (kernels.length === 0) {
    if (settings.bootable === 'auto' && !settings.hermeticUsr) return { files }
    throw noKernel('Cannot make the image bootable')
  }
  let booted: BootedKernel | undefined
  for (const kernel of kernels) {
    const made = await report.step(`Make boot entry of ${kernel.version}`, () =>
      kernelFiles(input, withFiles(system, files), kernel),
    )
    add(made.files)
    booted ??= made.kernel
    if (settings.bootloader === 'uki' || settings.bootloader === 'uki-signed') break
  }
  return { files, kernel: booted }
}

/** An ESP by itself holds a UKI whose initrd is all of the tree, where the tree has a kernel. */
async function espUkiFiles(input: BootInput, system: Tree): Promise<Map<string, Inode>> {
  const { image, rootHash, epoch } = input
  const { settings } = image
  if (settings.bootable === false) return new Map()
  const [kernel] = await kernelsOf(input.kernels)
  if (!kernel && settings.bootable === 'auto') return new Map()
  if (!kernel) throw noKernel('Cannot make the ESP bootable')
  const programs = withFiles(input.system, input.kernels)
  const uki = await makeTreeUki(input.system, ukiInput({ ...input, system: programs }, kernel, settings.kernelCommandLine), {
    compression: settings.compressOutput,
    level: settings.compressLevel,
    epoch,
  })
  const naming = { format: settings.unifiedKernelImageFormat, token: await entryToken(system), kernel: kernel.version }
  const path = ukiPath(settings.bootloader, 'x86-64', entryName({ ...naming, rootHash: rootHash?.value }))
  return ukiFiles(system, path, uki.bytes, epoch)
}

export const noKernel = (what: string): Fault =>
  new Fault('recipe', `${what}: the image has no kernel`, { hint: 'add a kernel such as linux-image-amd64 to the packages' })

/** The boot loader, signed, with its settings and keys; nothing where the image is not to be booted. */
export async function loaderFiles({
  image: { settings },
  signing,
  system,
  epoch,
}: Pick<BootInput, 'image' | 'signing' | 'system' | 'epoch'>): Promise<Map<string, Inode>> {
  if (!wantsBootLoader(settings)) return new Map()
  const maybe = settings.bootable === 'auto' && !settings.hermeticUsr
  if (maybe && (await kernelsOf(system)).length === 0) return new Map()
  const { signers, owner, revoked } = signing
  const enrols = settings.secureBoot && settings.secureBootAutoEnroll
  const { microsoftCertificates: microsoft } = settings
  const enrolment = enrols ? await makeEnrolment(signers, { owner, time: epoch, microsoft, revoked }) : undefined
  const secureBootEnroll = enrols ? 'force' : 'off'
  return bootLoaderFiles(system, {
    bootloader: settings.bootloader,
    signer: settings.secureBoot ? signers.db : undefined,
    required: settings.bootable === true || settings.hermeticUsr,
    keys: enrolment && Object.fromEntries(Object.entries(enrolment).map(([name, { auth }]) => [name, auth])),
    keepsToken: !settings.hermeticUsr,
    // A folder in mkosi's format brings a loader.conf of its own, or none.
    loaderConf: settings.hermeticUsr ? formatLoaderConf({ timeout: 3, secureBootEnroll, editor: false }) : undefined,
    epoch,
  })
}

/** One kernel, its initrds and command line, as the recipe wants them on the ESP. */
async function kernelFiles(
  input: BootInput,
  system: Tree,
  kernel: Kernel,
): Promise<{ files: Map<string, Inode>; kernel: BootedKernel }> {
  const { image, signing, initrds, own, rootHash, partitions, epoch } = input
  const { settings } = image
  const token = await entryToken(system)
  const words = await kernelCommandLine(system, {
    rootHash,
    words: [...input.words, ...settings.kernelCommandLine],
    partitions,
  })
  const booted = { version: kernel.version, commandLine: words.join(' '), vmlinuz: kernel.content }
  const modules = own.modules.get(kernel.version)

  if (!wantsUki(settings, system)) {
    const vmlinuz = await readContent(kernel.content)
    const entry: Type1Input = {
      token,
      kernel: kernel.version,
      vmlinuz: settings.secureBoot && !isSignedByOthers(settings) ? await signPe(vmlinuz, signing.signers.db) : vmlinuz,
      initrds: await Promise.all(
        [...own.microcode, ...initrds].map(async ({ name, content }) => ({ name, bytes: await readContent(content) })),
      ),
      modules,
      cmdline: words,
      epoch,
    }
    return { files: type1Files(system, entry), kernel: booted }
  }
  const format = settings.unifiedKernelImageFormat ?? (settings.hermeticUsr ? settings.output : undefined)
  const name = entryName({ format, token, kernel: kernel.version, rootHash: rootHash?.value })
  const path = ukiPath(settings.bootloader, 'x86-64', name)
  const { unifiedKernelImages } = settings
  if (unifiedKernelImages === 'signed' || (unifiedKernelImages === 'auto' && isSignedByOthers(settings))) {
    const prebuilt = await readContent(prebuiltUki(system, kernel.version).content)
    return { files: ukiFiles(system, path, prebuilt, epoch), kernel: booted }
  }
  const uki = await makeKernelUki(input, kernel, words, modules)
  return { files: ukiFiles(system, path, uki.bytes, epoch), kernel: { ...booted, uki } }
}

/** Left to itself, an image has UKIs where it has what they are made of. */
function wantsUki({ bootloader, unifiedKernelImages, hermeticUsr }: Settings, system: Tree): boolean {
  if (bootloader === 'uki' || bootloader === 'uki-signed') return true
  if (unifiedKernelImages !== 'auto') return unifiedKernelImages !== 'none'
  return hermeticUsr || system.has(stubPath('x86-64'))
}

/** Whether the recipe wants what the distribution signed, where it has it. */
const isSignedByOthers = ({ bootloader }: Settings): boolean => bootloader.endsWith('-signed')

function makeKernelUki(
  input: BootInput,
  kernel: Kernel,
  words: readonly string[],
  modules: Uint8Array | undefined,
): Promise<Uki> {
  const initrds = [...input.initrds.map(({ content }) => content), ...(modules ? [{ bytes: modules }] : [])]
  return makeUki({ ...ukiInput(input, kernel, words), initrds })
}

/** All of a UKI but its initrds, as the settings want it, out of the programs that `system` has. */
export function ukiInput(
  { image: { settings }, signing, system, own, osRelease }: Pick<BootInput, 'image' | 'signing' | 'system' | 'own' | 'osRelease'>,
  kernel: Kernel,
  words: readonly string[],
): Omit<UkiInput, 'initrds'> {
  return {
    stub: contentOf(system, stubPath('x86-64'), 'systemd-boot-efi'),
    kernel: kernel.content,
    microcode: own.microcode.map(({ content }) => content),
    ...(settings.splash ? { splash: contentOf(system, settings.splash.replace(/^\/+/, ''), 'what has the splash') } : {}),
    osRelease,
    cmdline: words.join(' '),
    uname: kernel.version,
    profiles: ukiProfiles([...settings.unifiedKernelImageProfiles, ...ipeProfiles(settings)], words),
    signers: {
      ...(settings.secureBoot ? { db: signing.signers.db } : {}),
      ...(wantsPolicies(settings) ? { pcr: signing.signers.pcr } : {}),
    },
    signKernel: settings.secureBoot && !settings.hermeticUsr,
    banks: ['sha256'],
  }
}

/** Left to itself, policies are signed where the recipe names a key for them. */
export const wantsPolicies = ({ signExpectedPcr, signExpectedPcrKey }: Settings): boolean =>
  signExpectedPcr === true || (signExpectedPcr === 'auto' && signExpectedPcrKey !== undefined)

export function contentOf(system: Tree, path: string, from: string): Content {
  const inode = system.get(path)
  if (inode?.type === 'file') return inode.content
  throw new Fault('recipe', `Cannot make a bootable image: it has no /${path}`, { hint: `add ${from} to packages` })
}

/** The text of a tree's os-release. */
export const osReleaseOf = async (tree: Tree): Promise<string> =>
  (await readText(tree, 'usr/lib/os-release')) ?? (await readText(tree, 'etc/os-release')) ?? ''
