/**
 * Verifying a disk image: every link of its chain of trust is recomputed from its bytes, and nothing of it is run.
 *
 * Firmware trusts db; db signs systemd-boot and the UKI; the UKI's command line pins the root hash of /usr; that hash is
 * the root of a tree over every block of /usr, and signed; PCR policies fit the UKI; enrolment lets in no one else.
 * The image may come from anywhere: what is wrong with it is a link that does not hold, never an exception.
 */
import { Fault } from '../base/fault.ts'
import { Report } from '../base/report.ts'
import { type Workers, withWorkers } from '../run/workers.ts'
import { checkTable, type Disk, type DiskPartition, openDisk } from './disk.ts'
import { checkEsp, type EspFacts } from './esp.ts'
import { inBootOrder, type Link, leaveUnchecked, type Stage } from './link.ts'
import { checkArtifacts, checkManifest } from './manifest.ts'
import { chainOf, type Trust } from './trust.ts'
import { checkUsr } from './usr.ts'

export type { Link } from './link.ts'
export type { Chain, Trust } from './trust.ts'

/** Checks every link; gives back all of them, in the order of the boot. A Fault only where the file cannot be read. */
export async function checkImage(path: string, trust: Trust, report: Report = new Report(() => {})): Promise<Link[]> {
  using disk = openDisk(path)
  return await withWorkers(undefined, async (workers) => {
    const artifactLinks: Link[] = []
    const [chain, manifest] = await Promise.all([
      report.step('Check chain of trust', () => checkChain(disk, trust, workers)),
      report.step('Check artifacts', () => checkArtifacts(path, workers, artifactLinks)),
    ])
    const links = [...chain.links, ...artifactLinks]
    if (manifest) await checkManifest(manifest, chain.esp, trust, links)
    return inBootOrder(links)
  })
}

/** Throws one Fault that lists all problems of an image that has some. */
export async function verifyImage(path: string, trust: Trust, report: Report = new Report(() => {})): Promise<Link[]> {
  const links = await checkImage(path, trust, report)
  const broken = links.filter(({ ok }) => !ok)
  if (broken.length === 0) return links
  const problems = broken.map(({ name, problem }) => `\n  ${name}: ${problem}`)
  throw new Fault('integrity', `Cannot trust ${path}: ${broken.length} of ${links.length} links do not hold${problems.join('')}`)
}

async function checkChain(disk: Disk, trust: Trust, workers: Workers): Promise<{ links: Link[]; esp: EspFacts }> {
  const links: Link[] = []
  const chain = chainOf(trust)
  const partitions = await checkTable(disk, chain, links)
  if (!partitions) {
    for (const name of ['ESP', 'UKI', ...USR_LINKS])
      leaveUnchecked(links, STAGE_OF[name] ?? 'verity', name, 'there is no sound partition table')
    return { links, esp: { ukis: [] } }
  }
  const hasEsp = partitions.some(({ designator }) => designator === 'esp')
  const esp = hasEsp || chain.bootable ? await checkEsp(disk, partitions, trust, links) : { ukis: [] }
  if (chain.verity !== undefined) await checkTrees(disk, partitions, esp, trust, workers, links)
  return { links, esp }
}

const STAGE_OF: Record<string, Stage> = { ESP: 'firmware', UKI: 'UKI' }
const USR_LINKS = ['usr partitions', 'hash tree', 'usr file system', 'root hash signature']

/** Each tree that some UKI pins. An image has one; a disk in use may have two, and an empty place for the next. */
async function checkTrees(
  disk: Disk,
  partitions: readonly DiskPartition[],
  { ukis }: EspFacts,
  trust: Trust,
  workers: Workers,
  links: Link[],
): Promise<void> {
  const hashes = new Set(ukis.flatMap((uki) => (uki.rootHash === undefined ? [] : [uki.rootHash])))
  for (const rootHash of hashes) {
    const own = ukis.filter((uki) => uki.rootHash === rootHash)
    await checkUsr(disk, partitions, rootHash, own, trust, workers, links)
  }
  if (hashes.size === 0 && !chainOf(trust).bootable) {
    // Nothing of the image pins them, so what mounts it goes by the halves of root hashes that are their UUIDs.
    for (const rootHash of hashesOf(partitions, chainOf(trust).verity!)) {
      hashes.add(rootHash)
      await checkUsr(disk, partitions, rootHash, [], trust, workers, links)
    }
  }
  if (hashes.size === 0) for (const name of USR_LINKS) leaveUnchecked(links, 'verity', name, 'no UKI names a root hash')
}

const hashesOf = (partitions: readonly DiskPartition[], verity: string): string[] => {
  const halves = (designator: string) => partitions.filter((one) => one.designator === designator).map(({ guid }) => guid)
  const whole = halves(verity).map((data, i) => `${data}${halves(`${verity}-verity`)[i] ?? ''}`.replaceAll('-', ''))
  return whole.filter((hash) => /^[0-9a-f]{64}$/.test(hash))
}
