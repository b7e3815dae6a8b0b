/** Partition definitions of images whose recipe has none: the ones mkosi takes, as repart.d files. */
import { mkdir, writeFile } from 'node:fs/promises'
import type { Tree } from '../../tree/tree.ts'
import type { DefinitionSource } from '../repart/definition.ts'

/** What protects the file system of an extension: nothing, hashes, or hashes whose root is signed. */
export type Protection = 'none' | 'hash' | 'signed'

/** A protection by the recipe's `Verity=`, and whether there is a key to sign with. */
export function protectionOf(verity: 'signed' | 'hash' | 'defer' | 'disabled' | 'auto', hasKey: boolean): Protection {
  if (verity === 'disabled' || (verity === 'auto' && !hasKey)) return 'none'
  return verity === 'hash' ? 'hash' : 'signed'
}

/** What an extension takes of the tree. */
const COPIED = { sysext: ['/opt/', '/usr/'], confext: ['/etc/'], portable: ['/'] } as const

/** A root file system that fits what is copied, and beside it what protects it. */
export function extensionDefinitions(format: keyof typeof COPIED, protection: Protection): DefinitionSource[] {
  const verity = (member: string) => [`Verity=${member}`, 'VerityMatchKey=root']
  const root = ['Type=root', 'Format=erofs', ...COPIED[format].map((path) => `CopyFiles=${path}`)]
  const best = ['Minimize=best']
  if (protection === 'none') return [definition('10-root', [...root, ...best])]
  return [
    definition('10-root', [...root, ...verity('data'), ...best]),
    definition('20-root-verity', ['Type=root-verity', ...verity('hash'), ...best]),
    ...(protection === 'signed' ? [definition('30-root-verity-sig', ['Type=root-verity-sig', ...verity('signature')])] : []),
  ]
}

const MIB = 1 << 20

/** An ESP with what is in /boot and /efi, and room for what a file system takes. Firmware starts nothing from less than FAT32. */
export function espDefinitions(tree: Tree, sectorSize: number): DefinitionSource[] {
  const least = sectorSize === 512 ? 36 : 260
  let content = 0
  for (const [path, inode] of tree) if (/^(?:boot|efi)\//.test(path) && inode.type === 'file') content += inode.sizeBytes
  const sizeBytes = Math.max(content, (least - 10) * MIB) + 10 * MIB
  return [definition('00-esp', [...ESP, `SizeMinBytes=${sizeBytes}`, `SizeMaxBytes=${sizeBytes + 4096}`])]
}

const ESP = ['Type=esp', 'Format=vfat', 'CopyFiles=/boot:/', 'CopyFiles=/efi:/']

/** A disk with all of the tree in one file system, and an ESP where it is to boot. */
export const diskDefinitions = (options: { bootable: boolean; rootFormat: string }): DefinitionSource[] => [
  ...(options.bootable ? [definition('00-esp', [...ESP, 'SizeMinBytes=512M', 'SizeMaxBytes=512M'])] : []),
  definition('10-root', ['Type=root', `Format=${options.rootFormat}`, 'CopyFiles=/', 'Minimize=guess']),
]

const definition = (name: string, lines: readonly string[]): DefinitionSource => ({
  file: `${name}.conf`,
  text: `[Partition]\n${lines.join('\n')}\n`,
})

/** Writes definitions into a new folder, for systemd-repart to read. */
export async function writeDefinitions(folder: string, definitions: readonly DefinitionSource[]): Promise<void> {
  await mkdir(folder)
  for (const { file, text, dropIns = [] } of definitions) {
    const name = file.slice(file.lastIndexOf('/') + 1)
    await writeFile(`${folder}/${name}`, text, { flag: 'wx' })
    if (dropIns.length > 0) await mkdir(`${folder}/${name}.d`)
    for (const one of dropIns) await writeFile(`${folder}/${name}.d/${one.file.slice(one.file.lastIndexOf('/') + 1)}`, one.text)
  }
}
