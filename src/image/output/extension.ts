/**
 * Extension images and portable services: a disk whose root file system holds what the tree has for the system it is
 * merged into, protected by hashes, and these by a signature.
 *
 * Spec:   systemd-sysext(8), portablectl(1), UAPI.3 Discoverable Disk Images
 * Oracle: `systemd-dissect --validate`
 */
import { Fault } from '../../base/fault.ts'
import type { Report } from '../../base/report.ts'
import type { Architecture } from '../../formats/dps.ts'
import type { Workers } from '../../run/workers.ts'
import type { Content, Tree } from '../../tree/tree.ts'
import { extensionDefinitions } from '../repart/builtin.ts'
import { contentsOf, fillPartitions } from '../repart/fill.ts'
import { planPartitions, type RepartPlan } from '../repart/plan.ts'

export interface ExtensionInput {
  kind: 'sysext' | 'confext' | 'portable'
  /** Name of the image without extension, which its release file bears as well. */
  output: string
  architecture: Architecture
  verity: 'signed' | 'hash' | 'unprotected'
  /** The GUID all derived GUIDs come from. */
  seed: string
  sectorSize?: 512 | 4096 | undefined
  epoch: number
  /** Folder the contents are made in; they are needed until the disk is written. */
  work: string
  /** Gives the content of the signature partition. Without it a signed extension keeps the place for a signature to come. */
  signRootHash?: ((rootHash: string) => Promise<Uint8Array>) | undefined
  workers?: Workers | number | undefined
}

export interface ExtensionDisk {
  /** For `writeDisk`, with the sources in its order; undefined where a partition is left empty. */
  plan: RepartPlan
  sources: (Content | undefined)[]
  rootHash: string | undefined
}

/** Makes the partitions of an extension and plans its disk. */
export async function makeExtension(tree: Tree, input: ExtensionInput, report: Report): Promise<ExtensionDisk> {
  const { kind, architecture, verity, signRootHash, seed, sectorSize } = input
  checkTree(tree, input)
  const definitions = extensionDefinitions({ architecture, kind, verity })
  const only = signRootHash ? undefined : (one: (typeof definitions)[number]) => one.verity !== 'signature'
  const filled = await fillPartitions(definitions, tree, { ...input, only }, report)
  const plan = planPartitions(definitions, contentsOf(filled), { seed, sectorSize })
  const sources = plan.partitions.map(({ definition }) => contentsOf(filled)(definition)?.source)
  return { plan, sources, rootHash: filled.find(({ rootHash }) => rootHash !== undefined)?.rootHash }
}

/** What systemd looks for before it merges an image, or starts its services. */
const RELEASE = {
  sysext: (output: string) => `usr/lib/extension-release.d/extension-release.${output}`,
  confext: (output: string) => `etc/extension-release.d/extension-release.${output}`,
  portable: () => 'usr/lib/os-release',
}

function checkTree(tree: Tree, { kind, output }: ExtensionInput): void {
  const path = RELEASE[kind](output)
  if (tree.get(path)?.type !== 'file') throw new Fault('recipe', `Cannot make a ${kind} of the tree: it has no /${path}`)
}
