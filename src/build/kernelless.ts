/** Images that cannot boot, because no package brings a kernel: said before anything is installed. */
import { existsSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { type Lock, packagesIn } from '../packages/lock.ts'
import type { ImageRecipe, Recipe } from '../recipe/recipe.ts'
import { noKernel, wantsKernel } from './boot.ts'
import { groupOf } from './groups.ts'

export interface Kernelless {
  /** The image's name, and the group of its packages. */
  image: string
  group: string
  /** Whether nothing else can bring a kernel: no script, no tree, no repository that may name one otherwise. */
  isCertain: boolean
}

/** Images that must boot and have no package that is a kernel by its name. */
export function kernelless(recipe: Recipe, lock: Lock): Kernelless[] {
  return [...recipe.subimages, recipe].flatMap((image) => {
    const group = groupOf(image.name)
    const packages = packagesIn(lock, group)
    const others = packages.filter(({ repository }) => !isDebian(lock, repository))
    const hasKernel =
      packages.some(({ name }) => name.startsWith('linux-image-')) || others.some(({ name }) => /linux|kernel/.test(name))
    if (hasKernel || !mustBoot(image) || image.settings.baseTrees.length > 0) return []
    return [{ image: image.name, group, isCertain: others.length === 0 && !mayGetFiles(image) }]
  })
}

/** Fails where it is certain that an image will not boot. */
export function refuseKernelless(recipe: Recipe, lock: Lock): void {
  const [found] = kernelless(recipe, lock).filter(({ isCertain }) => isCertain)
  if (found !== undefined) throw noKernel(`Cannot make ${found.image === 'main' ? 'the image' : found.image} bootable`)
}

const mustBoot = ({ settings }: ImageRecipe): boolean => {
  if (settings.format === 'uki') return true
  if (settings.format === 'esp') return settings.bootable === true
  return settings.format === 'disk' && wantsKernel(settings) && (settings.bootable === true || settings.hermeticUsr)
}

/** Debian's own archive, or a mirror or snapshot of it: there, names of kernels are known. */
function isDebian(lock: Lock, id: string): boolean {
  const from = lock.repositories.find((repository) => repository.id === id)
  return from?.components.includes('main') === true && /\/debian(-security)?(\/\d{8}T\d{6}Z)?$/.test(from.url)
}

/** Whether something beside packages may put a kernel into an image. */
function mayGetFiles({ settings }: ImageRecipe): boolean {
  const { prepareScripts, buildScripts, postInstallationScripts, finalizeScripts } = settings
  const scripts = [prepareScripts, buildScripts, postInstallationScripts, finalizeScripts]
  if (scripts.some((paths) => paths.length > 0)) return true
  return [...settings.skeletonTrees, ...settings.extraTrees].some(({ source, target }) => mayHoldKernel(source, target))
}

const mayHoldKernel = (source: string, target: string): boolean => {
  if (target !== '/' || !(statSync(source, { throwIfNoEntry: false })?.isDirectory() ?? false)) return true
  return ['usr/lib/modules', 'lib/modules', 'boot'].some((folder) => existsSync(join(source, folder)))
}
