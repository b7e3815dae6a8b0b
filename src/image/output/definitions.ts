/** Partition definitions of images whose recipe has none: what protects an extension, an ESP alone; and all as a folder of files. */
import { mkdir, writeFile } from 'node:fs/promises'
import type { Tree } from '../../tree/tree.ts'
import type { ExtensionOptions } from '../repart/builtin.ts'
import type { DefinitionSource } from '../repart/definition.ts'

/** What protects an extension, by the recipe's `Verity=` and whether there is a key to sign with. */
export function protectionOf(
  verity: 'signed' | 'hash' | 'defer' | 'disabled' | 'auto',
  hasKey: boolean,
): ExtensionOptions['verity'] {
  if (verity === 'disabled' || (verity === 'auto' && !hasKey)) return 'unprotected'
  return verity === 'hash' ? 'hash' : 'signed'
}

const MIB = 1 << 20

/**
 * An ESP with what is in /boot and /efi, and room for what a file system takes. Firmware starts nothing from less than FAT32.
 * On a disk that is as large as it must be, it takes no more; one whose UKI is still to come may take more.
 */
export function espDefinitions(tree: Tree, sectorSize: 512 | 4096): DefinitionSource[] {
  const least = sectorSize === 512 ? 36 : 260
  let content = 0
  for (const [path, inode] of tree) if (/^(?:boot|efi)\//.test(path) && inode.type === 'file') content += inode.sizeBytes
  const sizeBytes = Math.max(content, (least - 10) * MIB) + 10 * MIB
  const lines = ['Type=esp', 'Format=vfat', 'CopyFiles=/boot:/', 'CopyFiles=/efi:/', `SizeMinBytes=${sizeBytes}`]
  return [{ file: 'built-in/00-esp.conf', text: `[Partition]\n${lines.join('\n')}\n` }]
}

/** Writes definitions into a new folder, for systemd-repart to read. */
export async function writeDefinitions(folder: string, definitions: readonly DefinitionSource[]): Promise<void> {
  await mkdir(folder)
  for (const { file, text, dropIns = [] } of definitions) {
    const path = `${folder}/${nameOf(file)}`
    await writeFile(path, text, { flag: 'wx' })
    if (dropIns.length > 0) await mkdir(`${path}.d`)
    for (const dropIn of dropIns) await writeFile(`${path}.d/${nameOf(dropIn.file)}`, dropIn.text, { flag: 'wx' })
  }
}

const nameOf = (path: string): string => path.slice(path.lastIndexOf('/') + 1)
