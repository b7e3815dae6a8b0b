/** mkosi's manifest of an image, for mkosi folders that ask for one (`ManifestFormat=json`). */
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { field } from '../formats/deb822.ts'
import { formatMkosiManifest, type InstalledPackage } from '../image/output/mkosi-manifest.ts'
import { besideNames } from '../image/output/names.ts'
import { parseFields } from '../image/system/os-release.ts'
import { installedStanzas } from '../packages/deb/database.ts'
import type { ImageRecipe, Recipe } from '../recipe/recipe.ts'
import { readText } from '../tree/content.ts'
import type { Tree } from '../tree/tree.ts'
import { isFolder } from './distribution.ts'

/** What the package database of a root says is installed. */
export function installedPackages(root: string): InstalledPackage[] {
  return installedStanzas(root).map((stanza): InstalledPackage => {
    const [name, version, architecture] = ['Package', 'Version', 'Architecture'].map((key) => field(stanza, key) ?? '')
    const source = (field(stanza, 'Source') ?? name!).replace(/ .*/, '')
    const kibibytes = Number(field(stanza, 'Installed-Size') ?? 0)
    const sizeBytes = Number.isSafeInteger(kibibytes) && kibibytes > 0 ? kibibytes * 1024 : 0
    return { name: name!, version: version!, architecture: architecture!, source, sizeBytes }
  })
}

/** Packages without those that were there before in the same version. */
export function withoutThose(packages: readonly InstalledPackage[], before: readonly InstalledPackage[]): InstalledPackage[] {
  const known = new Set(before.map(idOf))
  return packages.filter((one) => !known.has(idOf(one)))
}

const idOf = ({ name, version, architecture }: InstalledPackage): string => `${name} ${version} ${architecture}`

export interface MkosiManifestInput {
  recipe: Recipe
  image: ImageRecipe
  system: { tree: Tree; installed: readonly InstalledPackage[] }
  /** Folder for artifacts. */
  output: string
}

/** Writes it and returns its name; undefined where the recipe wants none, or there is nothing to tell. */
export async function writeMkosiManifest({ recipe, image, system, output }: MkosiManifestInput): Promise<string | undefined> {
  const { settings } = image
  if (!isFolder(recipe) || !settings.manifestFormat.includes('json')) return undefined
  const extension = await extensionFields(image, system.tree)
  if (system.installed.length === 0 && extension.size === 0) return undefined
  const { distribution, architecture, format, release } = settings
  const text = formatMkosiManifest({
    name: settings.imageId ?? 'image',
    ...{ distribution, architecture, format, release, version: settings.imageVersion },
    packages: system.installed,
    extension,
  })
  const name = besideNames(settings.output).manifest
  await writeFile(join(output, name), text, { flag: 'wx' })
  return name
}

async function extensionFields({ settings }: ImageRecipe, tree: Tree): Promise<Map<string, string>> {
  const { format, output } = settings
  if (format !== 'sysext' && format !== 'confext') return new Map()
  const folder = format === 'sysext' ? 'usr/lib' : 'etc'
  return parseFields((await readText(tree, `${folder}/extension-release.d/extension-release.${output}`)) ?? '')
}
