/** The images of a recipe, made in order: sub-images first, the initrd beside them, the main image last. */
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { Report } from '../base/report.ts'
import { makeInitrd } from '../image/initrd.ts'
import { asInitrd } from '../image/initrd-tree.ts'
import { rootUnlocking } from '../image/root.ts'
import { findsSignatures, usrSignatureUnit } from '../image/usr-signature.ts'
import type { ImageRecipe, Recipe } from '../recipe/recipe.ts'
import { withWorkers } from '../run/workers.ts'
import { madeFile } from '../tree/content.ts'
import type { Content, Tree } from '../tree/tree.ts'
import { filesLeft, type NamedInitrd } from './boot.ts'
import type { Env } from './env.ts'
import { ipeInitrds } from './ipe.ts'
import { requireSignatures, type Signing, signingFor } from './keys.ts'
import { buildPackagesOf, type LockedPackages, packagesOf } from './locked.ts'
import { imagesUpTo, type OnlyScript } from './one-script.ts'
import { type MadeImage, makeOutput, type OutputFile } from './output.ts'
import { type OutsideInput, runOutside } from './scripts.ts'
import { makeSystem, type System } from './system.ts'

export interface ImagesInput {
  recipe: Recipe
  signing: Signing
  packages: LockedPackages
  /** The tools tree that scripts outside the image run in, where there are any. */
  tools: string | undefined
  epoch: number
  /** Scratch folder, there already. */
  work: string
  /** Folder for artifacts. */
  output: string
  /** The command that began this build, for whoever wants to run one script of it again. */
  command?: string | undefined
  /** The one script that all this is for: only what it needs is made, and it ends with `ScriptRan`. */
  only?: OnlyScript | undefined
}

export const DEFAULT_INITRD = 'default-initrd'

/** Runs the sync scripts of every image, and then makes them. The default initrd is an ingredient of others, and no artifact of its own. */
export async function makeImages(input: ImagesInput, env: Env): Promise<MadeImage[]> {
  const { recipe, only } = input
  const { report } = env
  const images = only === undefined ? [...recipe.subimages, recipe] : imagesUpTo(only.image, recipe)
  for (const image of images) await runOutside('sync', outside(image, input), report)
  const initrd = images.find(({ name }) => name === DEFAULT_INITRD)
  let initrdReady: Promise<Content> | undefined
  const startInitrd = () => {
    initrdReady ??= initrd && report.step('Make initrd', (report) => makeDefaultInitrd(initrd, input, report))
    initrdReady?.catch(() => {}) // seen by who needs it
    return initrdReady
  }
  // A script that prints to the caller is alone: the initrd is made when an image needs it.
  if (only === undefined) startInitrd()
  const made: MadeImage[] = []
  for (const image of images) {
    if (image === initrd) {
      if (only?.image === DEFAULT_INITRD) await startInitrd()
      continue
    }
    const finish = async (system: System, report: Report) => {
      const initrds = async () => [
        ...(await initrdsOf(image, system, startInitrd)),
        ...(await ipeInitrds(image, input.signing, input.epoch)),
      ]
      const own = { ...input, signing: signingFor(input.signing, image.name), image, system, initrds }
      const output = await makeOutput(own, { ...env, report })
      // No script is shown as finished what is not.
      if (input.signing.offline && (image === recipe || image.settings.postOutputScripts.length > 0)) {
        await initrdReady
        requireSignatures(input.signing)
      }
      await runOutside('postoutput', outside(image, input), report)
      made.push(await withFilesOfScripts(output, made, input.output))
    }
    // The main image's steps are the build's own; a sub-image is one step of it.
    if (image === recipe) await finish(await report.step('Make system', (report) => systemOf(image, input, report)), report)
    else await report.step(`Make ${image.name}`, async (report) => finish(await systemOf(image, input, report), report))
  }
  await initrdReady
  return made
}

function outside(image: ImageRecipe, input: ImagesInput): OutsideInput {
  const { recipe, tools, signing, output, work, epoch, command, only } = input
  return {
    ...{ recipe, image, tools, output, epoch, command, only },
    secrets: signing.secrets,
    work: join(work, `${image.name}-scripts`),
  }
}

/** What scripts put into the output folder belongs to the image's artifacts, and what they removed from it does not. */
async function withFilesOfScripts(image: MadeImage, before: readonly MadeImage[], output: string): Promise<MadeImage> {
  const entries = await readdir(output, { withFileTypes: true })
  const names = new Set(entries.map(({ name }) => name))
  const known = new Set([image, ...before].flatMap(({ files, folders }) => [...files.map(({ name }) => name), ...folders]))
  const added = entries.filter(({ name }) => !known.has(name)).sort((a, b) => (a.name < b.name ? -1 : 1))
  const more = added.filter((entry) => entry.isFile()).map(({ name }): OutputFile => ({ name, type: 'other' }))
  return {
    ...image,
    files: [...image.files.filter(({ name }) => names.has(name)), ...more],
    folders: [...image.folders, ...added.filter((entry) => !entry.isFile()).map(({ name }) => name)],
  }
}

function systemOf(image: ImageRecipe, input: ImagesInput, report: Report): Promise<System> {
  const { recipe, packages, signing, work, output, epoch, tools, command, only } = input
  return makeSystem(
    {
      recipe,
      image,
      packages: packagesOf(packages, image.name),
      buildPackages: buildPackagesOf(packages, image.name),
      tools,
      secrets: signing.secrets,
      ...(signsRootHashes(recipe) ? { verityCertificate: signing.verityCertificate } : {}),
      work: join(work, image.name),
      output,
      earlier: [output],
      artifacts: join(work, 'artifacts'),
      packageFolder: join(work, 'packages'),
      ...{ epoch, command, only },
    },
    report,
  )
}

/** Whether an image of the recipe has a root hash that is signed. */
const signsRootHashes = (recipe: Recipe): boolean =>
  [...recipe.subimages, recipe].some(
    ({ settings: { verity, format } }) => (verity === 'signed' || verity === 'auto') && SIGNED_FORMATS.has(format),
  )
const SIGNED_FORMATS: ReadonlySet<string> = new Set(['disk', 'sysext', 'confext', 'portable'])

/** The initrd that mkosi makes by default, as an image of its own. */
async function makeDefaultInitrd(image: ImageRecipe, input: ImagesInput, report: Report): Promise<Content> {
  const { recipe, epoch } = input
  const { tree } = await systemOf(image, input, report)
  const whole = asInitrd(tree, { epoch, ...(recipe.settings.hermeticUsr ? { overlay: hermeticFiles(recipe, tree, epoch) } : {}) })
  return report.step('Pack initrd', () =>
    withWorkers(undefined, async (workers) => ({ bytes: await makeInitrd(whole, { compression: 'zstd', workers }) })),
  )
}

/** What the initrd of a hermetic /usr needs besides: the signature of its root hash, the name that is set first, its root. */
function hermeticFiles({ settings }: Recipe, initrd: Tree, epoch: number): Tree {
  const extra = new Map(findsSignatures(initrd) ? [] : usrSignatureUnit({ architecture: 'x86-64', epoch }))
  if (settings.hostname !== undefined) extra.set('etc/hostname', madeFile(`${settings.hostname}\n`, epoch))
  if (settings.root === 'tpm2') for (const [path, inode] of rootUnlocking({ epoch })) extra.set(path, inode)
  return extra
}

/** The initrds of an image in the order in which the kernel unpacks them: those it names, then what scripts left. */
async function initrdsOf(
  { settings }: ImageRecipe,
  { artifacts }: System,
  initrd: () => Promise<Content> | undefined,
): Promise<NamedInitrd[]> {
  const named: NamedInitrd[] = []
  for (const one of settings.initrds) {
    if (one !== 'default') named.push({ name: one.split('/').at(-1)!, content: { path: one } })
    else {
      const content = await initrd()
      if (content !== undefined) named.push({ name: 'initrd', content })
    }
  }
  return [...named, ...(await filesLeft(artifacts, 'io.mkosi.initrd'))]
}
