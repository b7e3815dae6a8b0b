/** Which sets of packages a recipe asks for: one for each of its images, one for what build scripts see, one for tools. */
import { join } from 'node:path'
import { Fault } from '../base/fault.ts'
import type { ImageRecipe, Recipe } from '../recipe/recipe.ts'
import { isFolder } from './distribution.ts'

export interface GroupRequest {
  packages: readonly string[]
  /** Asked for once these are there with all they need. */
  later?: readonly string[]
  /** Names that must not be installed. */
  exclude: readonly string[]
  recommends: boolean
  /** Ask for the distribution's base too: its essential packages. */
  withBase: boolean
  /** The group whose packages are there already; this one holds what comes to them. */
  upon?: string
  /** Folders of the host with a dpkg database, whose packages are there already. */
  bases?: readonly string[]
  /** Whether what is asked for later may come from build scripts: it need not be in any repository. */
  mayBeBuilt?: boolean
  /** Whether the recipe can do without: where it cannot be resolved, that is said and nothing more. */
  optional?: boolean
}

/** The group of an image's packages in the lock. */
export const groupOf = (image: string): string =>
  image === 'main' ? 'image' : image === 'default-initrd' ? 'initrd' : `image:${image}`

/** The group of what an image's build scripts see beside its packages. */
export const buildGroupOf = (image: string): string => (image === 'main' ? 'build' : `build:${image}`)

/** Every group of a recipe's lock; a group that builds upon another comes after it. */
export function groupsOf(recipe: Recipe): Map<string, GroupRequest> {
  const groups = new Map<string, GroupRequest>()
  for (const image of [...recipe.subimages, recipe]) {
    if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/.test(image.name))
      throw new Fault(
        'recipe',
        `Cannot lock image ${JSON.stringify(image.name)}: its name is not one of letters, digits, ".", "_" and "-"`,
      )
    const group = groupOf(image.name)
    groups.set(group, imageRequest(image, recipe))
    const { buildPackages, buildScripts, withRecommends } = image.settings
    if (buildPackages.length > 0 && buildScripts.length > 0) {
      const rest = { exclude: [], recommends: withRecommends, withBase: false, upon: group }
      groups.set(buildGroupOf(image.name), { packages: buildPackages, ...rest })
    }
  }
  if (recipe.settings.toolsTreePackages.length > 0) {
    // In mkosi's folders they may be another distribution's: Bisque has its own tools.
    groups.set('tools', { ...only(recipe.settings.toolsTreePackages, false), ...(isFolder(recipe) ? { optional: true } : {}) })
  }
  return groups
}

function imageRequest(image: ImageRecipe, recipe: Recipe): GroupRequest {
  const { settings } = image
  const isAlone = settings.baseTrees.length === 0
  const asked = [...settings.packages, ...settings.volatilePackages]
  if (isAlone && isExtension(image) && asked.length > 0)
    throw new Fault(
      'recipe',
      `Cannot install ${asked[0]} in image ${image.name}: an extension has no packages without a base tree`,
      {
        hint: 'name the image it extends in BaseTrees=, for example BaseTrees=%O/base',
      },
    )
  const base = baseOf(image, recipe)
  const bases = settings.baseTrees.filter((tree) => base === undefined || tree !== placeOf(base))
  return {
    packages: settings.packages,
    ...(settings.volatilePackages.length > 0 ? { later: settings.volatilePackages } : {}),
    ...(settings.volatilePackages.length > 0 && hasBuildScripts(recipe) ? { mayBeBuilt: true } : {}),
    // Where /usr need not be complete in itself, dpkg removes them once all is done; what needs them is there before.
    exclude: settings.hermeticUsr ? settings.removePackages : [],
    recommends: settings.withRecommends,
    withBase: isAlone && !isExtension(image),
    ...(base === undefined ? {} : { upon: groupOf(base.name) }),
    ...(bases.length > 0 ? { bases } : {}),
  }
}

/** The sub-image that an image is built upon. */
function baseOf(image: ImageRecipe, recipe: Recipe): ImageRecipe | undefined {
  const outputs = new Map(recipe.subimages.map((sub) => [placeOf(sub), sub]))
  for (const tree of image.settings.baseTrees) {
    const base = outputs.get(tree)
    if (base !== undefined && base !== image) return base
  }
  return undefined
}

const hasBuildScripts = (recipe: Recipe) => [...recipe.subimages, recipe].some(({ settings }) => settings.buildScripts.length > 0)

const placeOf = ({ settings }: ImageRecipe) => join(settings.outputDirectory, settings.output)

const isExtension = ({ settings }: ImageRecipe) => settings.overlay || ['sysext', 'confext', 'addon'].includes(settings.format)

const only = (packages: readonly string[], withBase: boolean): GroupRequest => ({
  packages,
  exclude: [],
  recommends: false,
  withBase,
})
