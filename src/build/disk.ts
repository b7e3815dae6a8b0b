/**
 * A disk image: partitions filled from the finished system, its root hash, what boots it, and the disk they are laid on.
 *
 * Everything but the boot partitions is filled first, as the root hash goes into the command line, and the UKI that
 * carries it onto the ESP.
 */
import { join } from 'node:path'
import { Fault } from '../base/fault.ts'
import { encodeVeritySignature } from '../formats/verity.ts'
import { withFiles } from '../image/boot-loader.ts'
import { kernelsOf, withKernelConfigs, withKernelsInPlace } from '../image/kernels.ts'
import { fileSystemMaker } from '../image/mkfs.ts'
import type { Definition } from '../image/repart/definition.ts'
import type { MakeFileSystem } from '../image/repart/file-system.ts'
import { contentsOf, type Filled, fillPartitions, holdsBootFiles } from '../image/repart/fill.ts'
import { planPartitions, type RepartPlan } from '../image/repart/plan.ts'
import { treeWithFstab } from '../image/repart/tabs.ts'
import { ROOT_CMDLINE, rootDefinition } from '../image/root.ts'
import { rootPasswordHash } from '../image/system/root-password.ts'
import { clampTimes, usrLayout } from '../image/usr.ts'
import { usrSignatureWord } from '../image/usr-signature.ts'
import type { ImageRecipe } from '../recipe/recipe.ts'
import type { Settings } from '../recipe/schema.ts'
import { withWorkers } from '../run/workers.ts'
import { signRootHash } from '../signing/root-hash.ts'
import { madeDirectory } from '../tree/content.ts'
import { type Content, type Tree, treeOf } from '../tree/tree.ts'
import type { Chain } from '../verify/image.ts'
import {
  type Boot,
  loaderFiles,
  makeBoot,
  type NamedInitrd,
  osReleaseOf,
  packKernelInitrds,
  wantsKernel,
  wantsPolicies,
} from './boot.ts'
import type { Env } from './env.ts'
import { ipeFiles, ipeNotes, ipeWords } from './ipe.ts'
import { requireSignatures } from './keys.ts'
import type { OutputInput } from './output.ts'
import { definitionsOf } from './partitions.ts'
import { toolsTree } from './tools.ts'

export interface MadeDisk {
  plan: RepartPlan
  /** In the plan's order; undefined where a partition is left empty. */
  sources: (Content | undefined)[]
  boot: Boot
  /** Initrds with kernel modules, by kernel. */
  modules: ReadonlyMap<string, Uint8Array>
  initrds: readonly NamedInitrd[]
  rootHash: RootHash | undefined
  osRelease: string
  /** What the image promises, and is verified to keep. */
  chain: Chain
}

export interface RootHash {
  name: 'roothash' | 'usrhash'
  value: string
}

export async function makeDisk(input: OutputInput, env: Env): Promise<MadeDisk> {
  const { image, epoch, signing } = input
  const { settings } = image
  const { report } = env
  const inPlace = withKernelsInPlace(input.system.tree)
  const installed = settings.hermeticUsr ? withKernelConfigs(inPlace) : inPlace
  // Before /usr is filled: updates of the boot loader are taken from the signed program in there.
  const loader = await loaderFiles({ image, signing, system: installed, epoch })
  // What else a hermetic /usr signs follows from what was signed until here.
  if (isLast(image) && settings.hermeticUsr) {
    await input.initrds() // with signatures of its own
    requireSignatures(signing)
  }
  const added = new Map([...ownRoot(settings, epoch), ...ipeFiles(settings, epoch)])
  const system = withFiles(withFiles(installed, loader), added)
  for (const message of ipeNotes(settings, system)) report.tell({ type: 'note', level: 'warning', message })
  const root = settings.hermeticUsr ? await usrLayout(system, hermetic(settings, epoch)) : clampTimes(system, epoch)
  const osRelease = await osReleaseOf(root)
  const definitions = definitionsOf(settings, osRelease, system)
  checkSigned(image, definitions)
  const isDeferred = (one: Definition) => settings.verity === 'defer' && one.verity === 'signature'
  const options = {
    seed: settings.seed,
    sectorSize: settings.sectorSize,
    epoch,
    work: join(input.work, image.name),
    makeFileSystem: fileSystems(env),
    ...(isSigned(settings)
      ? { signRootHash: async (hash: string) => encodeVeritySignature(await signRootHash(hash, signing.signers.verity)) }
      : {}),
  }
  const kernels = wantsKernel(settings) ? await kernelsOf(system) : []
  const [filled, own] = await Promise.all([
    report.step('Fill partitions', async (report) => {
      const tree = await treeWithFstab(root, definitions, settings.seed, epoch)
      return fillPartitions(definitions, tree, { ...options, only: (one) => !holdsBootFiles(one) && !isDeferred(one) }, report)
    }),
    report.step('Pack kernel modules', () =>
      withWorkers(undefined, (workers) =>
        packKernelInitrds({ image, system, kernels, artifacts: input.system.artifacts, epoch }, workers),
      ),
    ),
  ])
  const rootHash = rootHashOf(filled)
  const layout = (filled: readonly Filled[]) =>
    planPartitions(definitions, contentsOf(filled), {
      seed: settings.seed,
      sectorSize: settings.sectorSize,
      leastSize: settings.outputSize,
    })
  const initrds = kernels.length > 0 ? await input.initrds() : []
  const boot = await makeBoot(
    {
      ...{ image, signing, system, loader, osRelease, own, rootHash, epoch, initrds },
      kernels: input.system.boot,
      words: [...(settings.hermeticUsr ? hermeticWords(settings, definitions, system) : []), ...ipeWords(settings)],
      partitions: layout(filled).partitions.map(({ typeName, guid }) => ({ type: typeName, uuid: guid })),
    },
    report,
  )
  if (isLast(image)) requireSignatures(signing)
  const bootTree = settings.hermeticUsr ? treeOf(boot.files, madeDirectory(epoch)) : withFiles(root, boot.files)
  const filledBoot = await report.step('Write ESP', (report) =>
    fillPartitions(definitions, bootTree, { ...options, only: holdsBootFiles }, report),
  )
  const contents = [...filled, ...filledBoot]
  const plan = layout(contents)
  const sources = plan.partitions.map(({ definition }) => contentsOf(contents)(definition)?.source)
  return { plan, sources, boot, modules: own.modules, initrds, rootHash, osRelease, chain: chainOf(settings, filled, boot) }
}

/** The image that no other is made from. */
const isLast = ({ name }: ImageRecipe): boolean => name === 'main'

/** Who asks for a signature in so many words is not given an image without one. */
function checkSigned({ settings, origins }: ImageRecipe, definitions: readonly Definition[]): void {
  if (settings.verity !== 'signed' || (origins.get('verity') ?? 'default') === 'default') return
  if (settings.format === 'esp' || definitions.some(({ verity }) => verity === 'signature')) return
  throw new Fault('recipe', 'Cannot sign the root hash: Verity=signed, and there is no partition with Verity=signature', {
    hint: 'add one to the partition definitions, or set Verity=auto',
  })
}

/** Root hashes are signed unless the recipe says otherwise. */
const isSigned = ({ verity }: Settings): boolean => verity === 'signed' || verity === 'auto'

/** File systems that need the distribution's programs; their tools tree is prepared when the first is made. */
const fileSystems =
  (env: Env): MakeFileSystem =>
  async (request) =>
    fileSystemMaker(await toolsTree('mkfs', env))(request)

function rootHashOf(filled: readonly Filled[]): RootHash | undefined {
  const found = filled.flatMap(({ definition, rootHash }): RootHash[] => {
    if (rootHash === undefined || definition.verity !== 'hash') return []
    return [{ name: definition.type.name.startsWith('usr') ? 'usrhash' : 'roothash', value: rootHash }]
  })
  if (found.length <= 1) return found[0]
  throw new Fault('recipe', `Cannot boot an image with ${found.length} verity partitions: the command line names one root hash`)
}

function chainOf(settings: Settings, filled: readonly Filled[], boot: Boot): Chain {
  const rootHash = rootHashOf(filled)
  return {
    verity: rootHash && (rootHash.name === 'usrhash' ? 'usr' : 'root'),
    signature: filled.some(({ definition }) => definition.verity === 'signature'),
    bootable: boot.kernel?.uki !== undefined,
    secureBoot: settings.secureBoot,
    policies: wantsPolicies(settings),
    loader: settings.bootloader.startsWith('systemd-boot'),
    signedByOthers: settings.bootloader.endsWith('-signed') || settings.unifiedKernelImages === 'signed',
  }
}

const hermetic = (settings: Settings, epoch: number) => ({
  epoch,
  imageId: settings.imageId,
  imageVersion: settings.imageVersion,
  hostname: settings.hostname,
  locale: settings.locale,
  keymap: settings.keymap,
  timezone: settings.timezone,
  rootPasswordHash: settings.rootPassword && rootPasswordHash(settings.rootPassword, settings.seed),
  rootShell: settings.rootShell,
  packageDatabase: settings.cleanPackageMetadata !== true,
  withoutPcrlock: settings.root === 'tpm2' || [...rootWords(settings), ...settings.kernelCommandLine].includes('root=tmpfs'),
})

/** The initrd is told where it finds the signature. /usr is all there is on the disk: unless told otherwise, the rest lives in memory. */
const hermeticWords = (settings: Settings, definitions: readonly Definition[], system: Tree): string[] => [
  ...(definitions.some(({ verity }) => verity === 'signature') ? [usrSignatureWord(system)] : []),
  ...rootWords(settings),
]

function rootWords({ kernelCommandLine, root }: Settings): readonly string[] {
  if (kernelCommandLine.some((word) => word.startsWith('root='))) return []
  return root === 'tpm2' ? ROOT_CMDLINE : ['root=tmpfs']
}

/** What the machine makes its root from, where it makes one. */
const ownRoot = ({ root, imageId, output }: Settings, epoch: number): Tree =>
  root === 'tpm2' ? rootDefinition({ label: imageId ?? output, epoch }) : new Map()
