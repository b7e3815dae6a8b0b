/**
 * systemd-boot in a tree: what firmware finds in `efi/`, which becomes the ESP, and what boot entries need in `boot/`.
 *
 * Made as `bootctl install` does for an image. Nothing that is there already is replaced, so that a recipe may bring a
 * `loader.conf` of its own, but for the programs.
 */
import { Fault } from '../base/fault.ts'
import type { Architecture } from '../formats/dps.ts'
import type { SecureBootVariable } from '../formats/esl.ts'
import type { Signer } from '../signing/signer.ts'
import { madeDirectory, madeFile, readContent } from '../tree/content.ts'
import { byPath, type Inode, nameOf, parentOf, type Tree } from '../tree/tree.ts'
import { signPe } from './efi-program.ts'
import { entryToken } from './kernels.ts'

export type Bootloader = 'none' | 'systemd-boot' | 'systemd-boot-signed' | 'uki' | 'uki-signed'

export interface BootLoaderInput {
  /** `systemd-boot-signed`: the programs bear somebody else's signatures. Others than systemd-boot need no files. */
  bootloader: Bootloader
  /** Signs the programs; without one they stay as they are. */
  signer?: Signer | undefined
  /** Whether a tree without boot loader is refused, or gets none. */
  required: boolean
  /** Signed variable updates with which systemd-boot can enrol Secure Boot keys. */
  keys?: Readonly<Partial<Record<SecureBootVariable, Uint8Array>>> | undefined
  /** Contents of loader.conf; nothing is set in it by default. */
  loaderConf?: string | undefined
  /** Whether the name that boot entries begin with is kept in /etc/kernel; it is by default. */
  keepsToken?: boolean
  epoch: number
}

const PROGRAMS = 'usr/lib/systemd/boot/efi'

/** Names as systemd has them in its file names, and firmware in capitals. */
const EFI_NAMES = { 'x86-64': 'x64', arm64: 'aa64' } as const

/** Where firmware looks for a program that no variable names. */
export const fallbackPath = (architecture: Architecture): string =>
  `efi/EFI/BOOT/BOOT${EFI_NAMES[architecture].toUpperCase()}.EFI`

/** The stub that UKIs are made of, or addons and profiles. */
export const stubPath = (architecture: Architecture, kind: 'linux' | 'addon' = 'linux'): string =>
  `${PROGRAMS}/${kind}${EFI_NAMES[architecture]}.efi.stub`

/** What systemd-boot adds to a tree; signed programs stay beside the ones they were made of, for updates to take. */
export async function bootLoaderFiles(tree: Tree, input: BootLoaderInput): Promise<Map<string, Inode>> {
  const files = new Map<string, Inode>()
  if (!input.bootloader.startsWith('systemd-boot')) return files
  const programs = await signedPrograms(tree, input)
  if (programs.size === 0) return files

  const { epoch, keys } = input
  for (const [path, program] of programs) {
    if (path.endsWith('.signed') && tree.get(path) !== program) files.set(path, program)
    const name = nameOf(path).replace(/\.signed$/i, '')
    files.set(`efi/EFI/systemd/${name}`, program)
    const [, efiName] = /^systemd-boot(.*\.efi)$/i.exec(name) ?? []
    if (efiName !== undefined) files.set(`efi/EFI/BOOT/BOOT${efiName.toUpperCase()}`, program)
  }
  const made: [string, Inode][] = [
    ['efi/loader/loader.conf', madeFile(input.loaderConf ?? LOADER_CONF, epoch)],
    ['boot/loader/entries.srel', madeFile('type1\n', epoch)],
  ]
  if (input.keepsToken ?? true) made.push(['etc/kernel/entry-token', madeFile(`${await entryToken(tree)}\n`, epoch)])
  for (const [path, inode] of made) if (!tree.has(path)) files.set(path, inode)
  for (const [name, bytes] of Object.entries(keys ?? {}))
    files.set(`efi/loader/keys/auto/${name}.auth`, madeFile(bytes, epoch, 0o600))
  const folders = ['efi/loader/keys', 'boot/loader/entries', 'boot/EFI/Linux']
  for (const path of folders) if (!tree.has(path)) files.set(path, madeDirectory(epoch, 0o700))
  return withFolders(tree, files, epoch)
}

const LOADER_CONF = `#timeout 3
#console-mode keep
`

/** systemd's EFI programs by path: with our signature, with another's, or as they are. */
async function signedPrograms(tree: Tree, input: BootLoaderInput): Promise<Map<string, Inode & { type: 'file' }>> {
  const others = input.bootloader === 'systemd-boot-signed'
  const found = new Map<string, Inode & { type: 'file' }>()
  for (const [path, inode] of tree) {
    if (parentOf(path) === PROGRAMS && inode.type === 'file' && /\.efi(?:\.signed)?$/i.test(path)) found.set(path, inode)
  }
  const suffix = others ? /\.efi\.signed$/i : /\.efi$/i
  if (![...found.keys()].some((path) => suffix.test(path))) {
    if (!input.required) return new Map()
    throw new Fault(
      'recipe',
      `Cannot make the image bootable: there is no ${others ? 'signed ' : ''}systemd-boot in /${PROGRAMS}`,
      {
        hint: `add ${others ? 'systemd-boot-efi-amd64-signed' : 'systemd-boot-efi'} to the packages`,
      },
    )
  }
  const { signer, epoch } = input
  if (signer && !others) {
    for (const [path, { content, mode }] of [...found]) {
      if (!/\.efi$/i.test(path)) continue
      const bytes = await signPe(await readContent(content), signer, { purpose: 'boot loader' })
      found.set(`${path}.signed`, madeFile(bytes, epoch, mode))
    }
  }
  // A signed program stands for the one it was made of.
  return new Map([...found].filter(([path]) => !found.has(`${path}.signed`)))
}

/** `files` with the directories that neither they nor the tree have, readable by root alone as everything on an ESP is. */
export function withFolders(tree: Tree, files: ReadonlyMap<string, Inode>, epoch: number): Map<string, Inode> {
  const whole = new Map(files)
  for (const path of files.keys()) {
    for (let at = parentOf(path); at !== '' && !whole.has(at) && !tree.has(at); at = parentOf(at))
      whole.set(at, madeDirectory(epoch, /^(?:efi|boot)\//.test(at) ? 0o700 : 0o755))
  }
  return new Map([...whole].sort(([a], [b]) => byPath(a, b)))
}

/** A tree with more files; they replace what is there under their paths. */
export const withFiles = (tree: Tree, files: ReadonlyMap<string, Inode>): Tree =>
  files.size === 0 ? tree : new Map([...tree, ...files].sort(([a], [b]) => byPath(a, b)))
