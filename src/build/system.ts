/** System: packages, files and scripts of a recipe, installed into a root and read back as a Tree. */
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { Report } from '../base/report.ts'
import { installDebian, withoutDocs } from '../packages/deb/install.ts'
import type { FetchedPackage } from '../packages/package.ts'
import type { Recipe } from '../recipe/recipe.ts'
import type { TreeSource } from '../recipe/type.ts'
import { readTree } from '../tree/from-disk.ts'
import { writeTree } from '../tree/to-disk.ts'
import type { Inode, Tree } from '../tree/tree.ts'
import { prepareScriptFolders, runScripts, type ScriptPlaces } from './scripts.ts'

export interface SystemInput {
  recipe: Recipe
  packages: readonly FetchedPackage[]
  /** Folder of the signing keys, which no script may see. */
  keys: string
  /** Empty folder on the disk of the work folder. */
  work: string
  epoch: number
}

/** The whole system of the image, as the recipe describes it. */
export async function makeSystem(input: SystemInput, report: Report): Promise<Tree> {
  const { recipe, packages, work, epoch } = input
  const { settings } = recipe
  const places: ScriptPlaces = {
    recipe,
    root: join(work, 'root'),
    build: join(work, 'build'),
    output: join(work, 'output'),
    empty: join(work, 'empty'),
    keys: input.keys,
    epoch,
  }
  await mkdir(places.root, { recursive: true })
  await prepareScriptFolders(places)
  await addTrees(settings.skeletonTrees, places.root, epoch, report)
  const { devices } = await report.step('Install packages', (report) =>
    installDebian({ root: places.root, packages, epoch, ...(settings.withDocs ? {} : { exclude: withoutDocs }) }, report),
  )
  await runScripts('prepare', settings.prepareScripts, places, report)
  await addTrees(settings.extraTrees, places.root, epoch, report)
  await runScripts('postinst', settings.postInstallationScripts, places, report)
  await runScripts('finalize', settings.finalizeScripts, places, report)
  const tree = await report.step('Read tree', () => readTree(places.root, { extra: devices }))
  return withoutFiles(tree, settings.removeFiles)
}

/** The system an initrd is made of: packages only. */
export async function makeInitrdSystem(input: Omit<SystemInput, 'recipe' | 'keys'>, report: Report): Promise<Tree> {
  const root = join(input.work, 'root')
  await mkdir(root, { recursive: true })
  const { devices } = await installDebian({ root, packages: input.packages, epoch: input.epoch, exclude: withoutDocs }, report)
  return report.step('Read tree', () => readTree(root, { extra: devices }))
}

/** Copies folders of the recipe into the image: owned by root, modes as they are. */
async function addTrees(trees: readonly TreeSource[], root: string, epoch: number, report: Report): Promise<void> {
  for (const { source, target } of trees) {
    await report.step(`Add ${source}`, async () => {
      const prefix = target.replace(/^\/+|\/+$/g, '')
      const found = new Map<string, Inode>()
      for (const [path, inode] of readTree(source)) {
        const place = [prefix, path].filter((part) => part !== '').join('/')
        found.set(place, { ...inode, uid: 0, gid: 0, mtime: epoch })
      }
      found.delete('')
      await writeTree(found, root)
    })
  }
}

/** A tree without the paths (and what lies below them) that globs name. */
export function withoutFiles(tree: Tree, globs: readonly string[]): Tree {
  if (globs.length === 0) return tree
  const patterns = globs.map((glob) => globPattern(glob.replace(/^\/+|\/+$/g, '')))
  return new Map([...tree].filter(([path]) => !patterns.some((pattern) => pattern.test(path))))
}

function globPattern(glob: string): RegExp {
  const source = glob
    .replace(/[.+^${}()|\\]/g, '\\$&')
    .replace(/\*\*|\*|\?/g, (star) => (star === '**' ? '.*' : star === '*' ? '[^/]*' : '[^/]'))
  return new RegExp(`^${source}(?:/.*)?$`)
}
