/** Partition definitions for images that come without their own. */
import type { Architecture } from '../../formats/dps.ts'
import { type Definition, type DefinitionSource, parseDefinitions } from './definition.ts'
import { specifiersOf } from './specifiers.ts'

export interface HermeticOptions {
  architecture: Architecture
  imageId: string
  imageVersion?: string | undefined
}

/**
 * The disk of an image that is its /usr: an ESP with room for UKIs to come, and /usr with its hashes and their signature,
 * by names that an update to another version can tell apart.
 */
export const hermeticDefinitions = (options: HermeticOptions): Definition[] =>
  define(options.architecture, hermeticSources(options))

/** The same as text. */
export function hermeticSources({ imageId, imageVersion }: Omit<HermeticOptions, 'architecture'>): DefinitionSource[] {
  const label = [imageId, imageVersion]
    .filter((part) => part !== undefined)
    .join('_')
    .replaceAll('%', '%%')
  const verity = (role: string) => `Verity=${role}\nVerityMatchKey=usr\nSplitName=%t.%U\n`
  return sources({
    '00-esp': `Type=esp\nFormat=vfat\nCopyFiles=/boot:/\nCopyFiles=/efi:/\nSizeMinBytes=512M\nSplitName=-\n`,
    '10-usr-verity-sig': `Type=usr-verity-sig\nLabel=${label}_verity_sig\n${verity('signature')}`,
    '11-usr-verity': `Type=usr-verity\nLabel=${label}_verity\nMinimize=best\n${verity('hash')}`,
    '12-usr': `Type=usr\nLabel=${label}\nFormat=erofs\nCompression=zstd\nCopyFiles=/usr:/\nMinimize=best\nAddValidateFS=no\n${verity('data')}`,
  })
}

export interface RootOptions {
  architecture: Architecture
  /** Whether there is a boot loader to put on an ESP. */
  bootable: boolean
  /** Of the root: `ext4` for Debian, `btrfs` for Fedora … */
  fileSystem: string
}

/** The disk mkosi makes: an ESP where the image boots, and a root file system with everything. */
export const rootDefinitions = (options: RootOptions): Definition[] => define(options.architecture, rootSources(options))

/** The same as text. */
export const rootSources = ({ bootable, fileSystem }: Omit<RootOptions, 'architecture'>): DefinitionSource[] =>
  sources({
    ...(bootable
      ? { '00-esp': 'Type=esp\nFormat=vfat\nCopyFiles=/boot:/\nCopyFiles=/efi:/\nSizeMinBytes=512M\nSizeMaxBytes=512M\n' }
      : {}),
    '10-root': `Type=root\nFormat=${fileSystem}\nCopyFiles=/\nMinimize=guess\n`,
  })

export interface ExtensionOptions {
  architecture: Architecture
  kind: 'sysext' | 'confext' | 'portable'
  /** `unprotected`: without hashes. `hash`: with them and without a signature. */
  verity: 'signed' | 'hash' | 'unprotected'
}

/** The disk of a system extension, configuration extension or portable service. */
export const extensionDefinitions = (options: ExtensionOptions): Definition[] =>
  define(options.architecture, extensionSources(options))

/** The same as text. */
export function extensionSources({ kind, verity }: Omit<ExtensionOptions, 'architecture'>): DefinitionSource[] {
  const copied = { sysext: ['/opt/', '/usr/'], confext: ['/etc/'], portable: ['/'] }[kind]
  const root = `Type=root\nFormat=erofs\n${copied.map((path) => `CopyFiles=${path}\n`).join('')}Minimize=best\n`
  const member = (role: string) => `Verity=${role}\nVerityMatchKey=root\n`
  if (verity === 'unprotected') return sources({ '10-root': root })
  return sources({
    '10-root': `${root}${member('data')}`,
    '20-root-verity': `Type=root-verity\nMinimize=best\n${member('hash')}`,
    ...(verity === 'signed' ? { '30-root-verity-sig': `Type=root-verity-sig\n${member('signature')}` } : {}),
  })
}

const sources = (texts: Readonly<Record<string, string>>): DefinitionSource[] =>
  Object.entries(texts).map(([name, text]) => ({ file: `built-in/${name}.conf`, text: `[Partition]\n${text}` }))

const define = (architecture: Architecture, given: readonly DefinitionSource[]): Definition[] =>
  parseDefinitions(given, { architecture, specifiers: specifiersOf('', architecture) })
