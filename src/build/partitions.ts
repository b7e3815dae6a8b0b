/** The partition definitions of an image: its recipe's, or the ones its kind of image comes with. */
import type { Architecture } from '../formats/dps.ts'
import { fallbackPath } from '../image/boot-loader.ts'
import { espDefinitions } from '../image/output/definitions.ts'
import { hermeticSources, rootSources } from '../image/repart/builtin.ts'
import { type Definition, type DefinitionSource, loadDefinitions, parseDefinitions } from '../image/repart/definition.ts'
import { specifiersOf } from '../image/repart/specifiers.ts'
import type { Settings } from '../recipe/schema.ts'
import type { Tree } from '../tree/tree.ts'

const ARCHITECTURE: Architecture = 'x86-64'

/** The root file system that mkosi gives each distribution. */
const ROOT_FORMATS: Readonly<Record<string, string>> = { fedora: 'btrfs', opensuse: 'btrfs' }

export function definitionsOf(settings: Settings, osRelease: string, system: Tree): Definition[] {
  const options = { architecture: ARCHITECTURE, specifiers: specifiersOf(osRelease, ARCHITECTURE) }
  const { repartDirectories } = settings
  if (repartDirectories.length > 0) return loadDefinitions(repartDirectories, options)
  return parseDefinitions(builtInSources(settings, system), options)
}

/** What holds where a recipe has no definitions of its own. */
export function builtInSources(settings: Settings, system: Tree): DefinitionSource[] {
  const { format, sectorSize, hermeticUsr, imageId, imageVersion, output, bootable } = settings
  if (format === 'esp') return espDefinitions(system, sectorSize)
  if (hermeticUsr) return hermeticSources({ imageId: imageId ?? output, imageVersion })
  const boots = bootable === true || (bootable === 'auto' && system.has(fallbackPath(ARCHITECTURE)))
  return rootSources({ bootable: boots, fileSystem: ROOT_FORMATS[settings.distribution] ?? 'ext4' })
}
