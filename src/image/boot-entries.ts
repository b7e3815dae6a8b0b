/** How a kernel gets onto the ESP: as a UKI, or as a file of its own beside its initrds and an entry that names them. */
import { Fault } from '../base/fault.ts'
import type { Architecture } from '../formats/dps.ts'
import { madeFile } from '../tree/content.ts'
import { type Inode, nameOf, parentOf, type Tree } from '../tree/tree.ts'
import { type Bootloader, fallbackPath, withFolders } from './boot-loader.ts'

/** Where the UKI called `name` goes: for the boot menu, or to where firmware starts it itself. */
export const ukiPath = (bootloader: Bootloader, architecture: Architecture, name: string): string =>
  bootloader === 'uki' || bootloader === 'uki-signed' ? fallbackPath(architecture) : `boot/EFI/Linux/${name}.efi`

/** A UKI in its place. */
export const ukiFiles = (tree: Tree, path: string, uki: Uint8Array, epoch: number): Map<string, Inode> =>
  withFolders(tree, new Map([[path, madeFile(uki, epoch, 0o755)]]), epoch)

/** The UKI that a distribution made and signed, which lies beside the kernel's modules. */
export function prebuiltUki(tree: Tree, kernel: string): Inode & { type: 'file' } {
  const directory = `usr/lib/modules/${kernel}`
  for (const [path, inode] of tree) {
    if (inode.type === 'file' && parentOf(path) === directory && nameOf(path).endsWith('.efi')) return inode
  }
  throw new Fault('recipe', `Cannot install a signed UKI: there is none in /${directory}`, {
    hint: 'set UnifiedKernelImages=unsigned to have one made',
  })
}

export interface Type1Input {
  token: string
  kernel: string
  /** Signed, where it is to be. */
  vmlinuz: Uint8Array
  /** By file name, in the order in which the kernel gets them, after the microcode and before the modules. */
  initrds: readonly { name: string; bytes: Uint8Array }[]
  /** The initrd with this kernel's modules. */
  modules: Uint8Array | undefined
  cmdline: readonly string[]
  epoch: number
}

/** A boot entry of type #1 with the files it names. Initrds are shared by all kernels, modules are each kernel's own. */
export function type1Files(tree: Tree, input: Type1Input): Map<string, Inode> {
  const { token, kernel, epoch } = input
  const directory = `${token}/${kernel}`
  const initrds = [
    ...input.initrds.map(({ name, bytes }) => ({ path: `${token}/${name}`, bytes })),
    ...(input.modules ? [{ path: `${directory}/kernel-modules.initrd`, bytes: input.modules }] : []),
  ]
  const twice = initrds.find(({ path }, i) => initrds.findIndex((other) => other.path === path) !== i)
  if (twice) throw new Fault('recipe', `Cannot make a boot entry: two initrds are called ${nameOf(twice.path)}`)
  const entry = [
    `title ${token} ${kernel}`,
    `version ${kernel}`,
    `linux /${directory}/vmlinuz`,
    `options ${input.cmdline.join(' ')}`,
    ...initrds.map(({ path }) => `initrd /${path}`),
  ]
  const files = new Map<string, Inode>([
    [`boot/${directory}/vmlinuz`, madeFile(input.vmlinuz, epoch, 0o600)],
    ...initrds.map(({ path, bytes }): [string, Inode] => [`boot/${path}`, madeFile(bytes, epoch, 0o600)]),
    [`boot/loader/entries/${token}-${kernel}.conf`, madeFile(`${entry.join('\n')}\n`, epoch, 0o600)],
  ])
  return withFolders(tree, files, epoch)
}
