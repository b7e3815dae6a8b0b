/**
 * System: packages, files and scripts of an image, installed into a root and read back as a Tree.
 *
 * The order is mkosi's (mkosi(1), "EXECUTION FLOW"). A recipe with a hermetic /usr ends with its scripts, as src/image/usr.ts
 * does the rest; otherwise the root is finished here, on disk, where the later scripts see it.
 */
import { existsSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { join, relative } from 'node:path'
import type { Report } from '../base/report.ts'
import type { InstalledPackage } from '../image/output/mkosi-manifest.ts'
import { type BuiltPackage, installBuilt } from '../packages/deb/built.ts'
import { type Installation, installDebian, withoutDocs } from '../packages/deb/install.ts'
import type { FetchedPackage } from '../packages/package.ts'
import type { TreeSource } from '../recipe/file-type.ts'
import { builtinName } from '../recipe/mkosi/builtin.ts'
import type { ImageRecipe, Recipe } from '../recipe/recipe.ts'
import { run, SYSTEM_PATH } from '../run/process.ts'
import { addTree } from '../tree/add.ts'
import { readTree } from '../tree/from-disk.ts'
import type { Inode, Tree } from '../tree/tree.ts'
import { finishRoot, indexRoot, installedIn, removeFiles, withoutBase, withoutTraces } from './finish.ts'
import { installedPackages, withoutThose } from './mkosi-manifest.ts'
import type { OnlyScript } from './one-script.ts'
import { checkPopulated, prepareRoot, removeMachineState, settleRoot } from './prepare.ts'
import { runScripts, type ScriptPlaces } from './scripts.ts'

export interface SystemInput {
  recipe: Recipe
  /** The image of the recipe to make; the main one unless given. */
  image?: ImageRecipe
  packages: readonly FetchedPackage[]
  /** What build scripts see beside those. */
  buildPackages?: readonly FetchedPackage[]
  /** Programs for scripts that run outside the image: the tools tree `scripts`; see `needsScriptTools()`. */
  tools?: string | undefined
  /** Files and folders that no script may see: the signing keys. */
  secrets: readonly string[]
  /** Certificate that signed root hashes will be checked against: a PEM file, or its text; the recipe's unless given. */
  verityCertificate?: string | Uint8Array | undefined
  /** Empty folder on the disk of the work folder. */
  work: string
  /** `$OUTPUTDIR`, a folder in `work` unless given. */
  output?: string | undefined
  /** Folders that hold what earlier images of this build made: looked at before the recipe's output folder. */
  earlier?: readonly string[]
  /** `$ARTIFACTDIR` and `$PACKAGEDIR`, which all images of a build share; folders in `work` unless given. */
  artifacts?: string | undefined
  packageFolder?: string | undefined
  epoch: number
  /** The command that began this build. */
  command?: string | undefined
  /** The one script that the image is made for: it ends with `ScriptRan` there. */
  only?: OnlyScript | undefined
}

export interface System {
  tree: Tree
  /** Where its files are. */
  root: string
  /** Boot loader, kernels and microcode as they were before anything was removed, in their places. */
  boot: Tree
  /** Folder with what scripts left for the UKI: `io.mkosi.initrd/`, `io.mkosi.microcode/`. */
  artifacts: string
  /** Packages that build scripts made, which took the place of locked ones. */
  built: readonly BuiltPackage[]
  /** Packages that came upon base trees, and were not removed. */
  installed: readonly InstalledPackage[]
}

/** The whole system of an image, as the recipe describes it. */
export async function makeSystem(input: SystemInput, report: Report): Promise<System> {
  const { recipe, work, epoch } = input
  const image = input.image ?? recipe
  const { settings } = image
  const places = await placesOf(input, image)
  const { root } = places
  const devices = new Map<string, Inode>()
  const bases = settings.baseTrees.map((path) => whereNow(path, input, image))
  for (const [i, source] of bases.entries()) {
    await report.step(`Copy ${settings.baseTrees[i]}`, () => addTree(root, { source, target: '/', keep: true }, epoch))
  }
  const base = settings.overlay ? readTree(root) : undefined
  const before = installedPackages(root)
  await addTrees(settings.skeletonTrees, places, input, report)
  const isNew = !settings.hermeticUsr && input.packages.length > 0 && bases.length === 0
  if (isNew) await prepareRoot(image, root)
  const install = async (into: string, packages: readonly FetchedPackage[], name: string) => {
    if (packages.length === 0) return
    await report.step(name, async (report) => {
      const installed = await installDebian(installationOf(image, into, packages, epoch), report)
      if (into === root) for (const [path, inode] of installed.devices) devices.set(path, inode)
    })
  }
  await install(root, input.packages, 'Install packages')
  if (isNew) await settleRoot(image, installedIn(image, places))
  if (!settings.hermeticUsr) await removeMachineState(root)
  await runScripts('prepare', settings.prepareScripts, places, report)
  if (settings.buildScripts.length > 0) await runBuild(places, input, install, report)
  if (!settings.hermeticUsr) {
    checkPopulated(image, root)
    await indexRoot(image, places, report)
  }
  const built = await takeBuilt(places, image, report)
  if (existsSync(places.dest)) await addTree(root, { source: places.dest, target: '/', keep: true }, epoch)
  await addTrees(settings.extraTrees, places, input, report)
  await runScripts('postinst', settings.postInstallationScripts, places, report)
  const verityCertificate = input.verityCertificate ?? settings.verityCertificate
  const finished = settings.hermeticUsr
    ? undefined
    : await finishRoot({ ...input, image, root, verityCertificate, saved: join(work, 'boot') }, report)
  const installed = withoutThose(finished?.installed ?? installedPackages(root), before)
  await runScripts('finalize', settings.finalizeScripts, places, report)
  if (settings.hermeticUsr) await removeFiles(root, settings.removeFiles)
  const read = await report.step('Read tree', () => readTree(root, { extra: devices }))
  const tree = settings.hermeticUsr ? read : withoutBase(withoutTraces(read, epoch), base)
  return { tree, root, boot: finished?.boot ?? tree, artifacts: places.artifacts, built, installed }
}

async function placesOf(input: SystemInput, image: ImageRecipe): Promise<ScriptPlaces & { root: string }> {
  const { work, recipe, epoch, tools, secrets, command, only } = input
  const { settings } = image
  const places = {
    ...{ recipe, image, tools, secrets, epoch, command, only },
    root: join(work, 'root'),
    build: settings.buildDirectory === undefined ? undefined : join(settings.buildDirectory, buildKey(image)),
    output: input.output ?? join(work, 'output'),
    artifacts: input.artifacts ?? join(work, 'artifacts'),
    packages: input.packageFolder ?? join(work, 'packages'),
    dest: join(work, 'dest'),
    scratch: join(work, 'scratch'),
  }
  if (settings.hermeticUsr) places.build ??= join(work, 'build')
  const { root, build, output, artifacts, packages, scratch } = places
  for (const folder of [root, output, artifacts, packages, scratch, ...(build === undefined ? [] : [build])])
    await mkdir(folder, { recursive: true, mode: 0o755 })
  return places
}

/** `BuildKey=` with what it stands for: `-` is the folder itself. */
function buildKey({ name, settings }: ImageRecipe): string {
  const { buildKey, distribution, release, architecture } = settings
  if (buildKey === '-') return ''
  const values: Record<string, string> = { '&': '&', d: distribution, r: release, a: architecture, I: name }
  return buildKey.replace(/&(.)/g, (all, letter: string) => values[letter] ?? all)
}

/** Volatile packages that build scripts made, of this image or of one before, take the place of those that the lock has. */
async function takeBuilt(places: ScriptPlaces & { root: string }, image: ImageRecipe, report: Report): Promise<BuiltPackage[]> {
  const { volatilePackages, withDocs } = image.settings
  if (volatilePackages.length === 0) return []
  const { root, packages: folder, epoch } = places
  const { env } = installationOf(image, root, [], epoch)
  const world = { root, epoch, ...(env ? { env } : {}) }
  const taken = await installBuilt({ ...world, folder, wanted: volatilePackages, withDocs }, report)
  const titles = taken.map(({ name, version }) => `${name} ${version}`).join(', ')
  if (taken.length > 0) report.tell({ type: 'note', level: 'info', message: `built, so not of the lock: ${titles}` })
  return taken
}

/** Where a path below the output folder lies while the build is under way. */
function whereNow(path: string, { earlier = [] }: SystemInput, { settings }: ImageRecipe): string {
  const below = relative(settings.outputDirectory, path)
  if (below === '' || below.startsWith('..')) return path
  return earlier.map((folder) => join(folder, below)).find((candidate) => existsSync(candidate)) ?? path
}

async function addTrees(
  trees: readonly TreeSource[],
  places: { root: string; image: ImageRecipe },
  input: SystemInput,
  report: Report,
) {
  for (const { source, target } of trees) {
    const now = whereNow(source, input, places.image)
    const name = builtinName(source) ?? relative(input.recipe.directory, source)
    await report.step(`Add ${name.startsWith('..') ? source : name}`, () =>
      addTree(places.root, { source: now, target }, input.epoch),
    )
  }
}

function installationOf(image: ImageRecipe, root: string, packages: readonly FetchedPackage[], epoch: number): Installation {
  const { settings } = image
  return {
    root,
    packages,
    epoch,
    ...(settings.withDocs ? {} : { exclude: withoutDocs }),
    // the database is compiled once, at the end
    ...(settings.hermeticUsr ? {} : { env: { SYSTEMD_HWDB_UPDATE_BYPASS: '1', ...settings.environment } }),
  }
}

/**
 * Build scripts see the image with the build packages upon it, and leave what they make in `$DESTDIR`. What else they
 * change is dropped: they work on a copy.
 */
async function runBuild(
  places: ScriptPlaces & { root: string },
  input: SystemInput,
  install: (root: string, packages: readonly FetchedPackage[], name: string) => Promise<void>,
  report: Report,
): Promise<void> {
  const { settings } = places.image
  const root = join(input.work, 'build-root')
  await report.step('Copy the image for build scripts', () =>
    run(['cp', '--archive', '--reflink=auto', places.root, root], { env: { PATH: SYSTEM_PATH } }),
  )
  await install(root, input.buildPackages ?? [], 'Install build packages')
  await mkdir(places.dest, { mode: 0o755 })
  const upon = { ...places, root }
  await runScripts('prepare', settings.prepareScripts, upon, report, ['build'])
  await runScripts('build', settings.buildScripts, upon, report)
  await run(['rm', '--recursive', '--force', '--one-file-system', root], { env: { PATH: SYSTEM_PATH } })
}
