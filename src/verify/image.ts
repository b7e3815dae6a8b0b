/**
 * Verifying a disk image: every link of its chain of trust is recomputed from its bytes, and nothing of it is run.
 *
 * Firmware trusts db; db signs systemd-boot and the UKI; the UKI's command line pins the root hash of /usr; that hash is
 * the root of a tree over every block of /usr, and signed; PCR policies fit the UKI; enrolment lets in no one else.
 * The image may come from anywhere: what is wrong with it is a link that does not hold, never an exception.
 */
import { Fault } from '../base/fault.ts'
import { Report } from '../base/report.ts'
import type { Architecture } from '../formats/dps.ts'
import { type Workers, withWorkers } from '../run/workers.ts'
import { checkAddons } from './addons.ts'
import { anchorOf, checkAnchor } from './anchor.ts'
import { checkDataPartitions } from './data.ts'
import { checkTable, type Disk, type DiskPartition, openDisk } from './disk.ts'
import { checkEnrolments, readEnrolments } from './enrolment.ts'
import { isMeantAsUki, type Program, readBootPartitions, readPrograms } from './esp.ts'
import { checkEspFiles } from './esp-files.ts'
import type { Anchor, ImageFacts, UkiFacts } from './facts.ts'
import { checkHoles } from './holes/holes.ts'
import { checkIpe } from './ipe.ts'
import { inBootOrder, type Link, leaveUnchecked, type Stage } from './link.ts'
import { checkArtifacts, checkManifest } from './manifest.ts'
import { architectureOf, checkPrograms } from './programs.ts'
import { checkTrees } from './trees.ts'
import type { Trust } from './trust.ts'
import { checkUki } from './uki.ts'

export type { ImageFacts } from './facts.ts'
export type { Link } from './link.ts'
export type { Chain, Trust } from './trust.ts'

export interface Inspection {
  /** Whom signatures must be by; where absent, whom the image enrols itself. */
  trust?: Trust | undefined
  /** Seconds since 1970, to judge certificates at; the present where absent. */
  now?: number
}

/** Checks every link; gives back all of them, in the order of the boot, and what they are links of. A Fault only where the file cannot be read. */
export async function inspectImage(
  path: string,
  { trust, now = Date.now() / 1000 }: Inspection,
  report: Report = new Report(() => {}),
): Promise<{ links: Link[]; facts: ImageFacts }> {
  using disk = openDisk(path)
  return await withWorkers(undefined, async (workers) => {
    const artifactLinks: Link[] = []
    const links: Link[] = []
    const [facts, manifest] = await Promise.all([
      report.step('Check chain of trust', () => checkChain(disk, trust, now, workers, links)),
      report.step('Check artifacts', () => checkArtifacts(path, workers, artifactLinks)),
    ])
    links.push(...artifactLinks)
    if (manifest) await checkManifest(manifest, facts, links)
    return { links: inBootOrder(links), facts }
  })
}

/** The links alone. */
export async function checkImage(path: string, trust: Trust | undefined, report?: Report): Promise<Link[]> {
  return (await inspectImage(path, { trust }, report)).links
}

/** Throws one Fault that lists all problems of an image that has some. */
export async function verifyImage(path: string, trust: Trust, report?: Report): Promise<Link[]> {
  const links = await checkImage(path, trust, report)
  const broken = links.filter(({ ok }) => !ok)
  if (broken.length === 0) return links
  const problems = broken.map(({ name, problem }) => `\n  ${name}: ${problem}`)
  throw new Fault('integrity', `Cannot trust ${path}: ${broken.length} of ${links.length} links do not hold${problems.join('')}`)
}

async function checkChain(
  disk: Disk,
  trust: Trust | undefined,
  now: number,
  workers: Workers,
  links: Link[],
): Promise<ImageFacts> {
  const partitions = await checkTable(disk, trust?.chain, links)
  if (!partitions) {
    const names: [Stage, string][] = [
      ['firmware', 'ESP'],
      ['UKI', 'UKI'],
      ['verity', 'hash tree'],
    ]
    for (const [stage, name] of names) leaveUnchecked(links, stage, name, 'there is no sound partition table')
    return factsOf(disk, [], anchorOf(trust, [], { sets: [], more: 0 }, []), now)
  }
  const files = await readBootPartitions(disk, partitions, links)
  const programs = readPrograms(files)
  const enrolments = readEnrolments(files)
  const anchor = anchorOf(trust, partitions, enrolments, programs)
  const facts = factsOf(disk, partitions, anchor, now, architectureFor(partitions, programs))
  facts.espFiles.push(...files)
  const { bootable } = anchor.chain
  if (bootable && !partitions.some(({ designator }) => designator === 'esp'))
    leaveUnchecked(links, 'firmware', 'ESP', 'there is none')
  if (anchor.total) await checkAnchor(anchor, now, links)
  if (files.length > 0 || bootable) facts.enrolments.push(...(await checkEnrolments(enrolments, anchor, now, links)))
  facts.programs.push(...(await checkPrograms(programs, facts.architecture, anchor, links)))
  facts.ukis.push(...(await checkUkis(programs, anchor, links)))
  facts.trees.push(...(await checkTrees(disk, facts, workers, links)))
  if (anchor.total) await checkWhole(disk, facts, programs, workers, links)
  return facts
}

/** What is judged only where the image is judged as a whole. */
async function checkWhole(
  disk: Disk,
  facts: ImageFacts,
  programs: readonly Program[],
  workers: Workers,
  links: Link[],
): Promise<void> {
  facts.addons.push(...(await checkAddons(programs, facts.programs, facts.ukis, links)))
  await checkEspFiles(facts, workers, links)
  await checkDataPartitions(disk, facts.partitions, facts.trees, links)
  await checkIpe(facts, links)
  await checkHoles(facts, links)
}

/** Of all initrds together. */
const MAX_UNPACKED_BYTES = 8 * 2 ** 30

async function checkUkis(programs: readonly Program[], anchor: Anchor, links: Link[]): Promise<UkiFacts[]> {
  const ukis: UkiFacts[] = []
  const budget = { unpackedBytes: MAX_UNPACKED_BYTES }
  for (const program of programs) {
    const { path } = program.file
    if (program.read?.kind === 'UKI') {
      const uki = await checkUki(program, program.read, anchor, budget, links)
      if (uki) ukis.push(uki)
    } else if (program.read && isMeantAsUki(path)) leaveUnchecked(links, 'UKI', `UKI ${path}`, 'it has no .linux section')
  }
  const { bootable } = anchor.chain
  if (bootable && !links.some(({ name }) => name.startsWith('UKI ')))
    leaveUnchecked(links, 'UKI', 'UKI', 'there is none on the ESP')
  return ukis
}

const factsOf = (
  { path, sizeBytes, read }: Disk,
  partitions: readonly DiskPartition[],
  anchor: Anchor,
  now: number,
  architecture: Architecture = 'x86-64',
): ImageFacts => ({
  ...{ path, sizeBytes, read, now, architecture, partitions, anchor },
  ...{ enrolments: [], espFiles: [], programs: [], addons: [], ukis: [], trees: [] },
})

/** Of the partitions, or else of the first program there is. */
function architectureFor(partitions: readonly DiskPartition[], programs: readonly Program[]): Architecture {
  const own = partitions.find(({ designator, architecture }) => architecture && /^(?:usr|root)$/.test(designator ?? ''))
  const machine = programs.map(({ read }) => read && architectureOf(read)).find((one) => one !== undefined)
  return own?.architecture ?? machine ?? 'x86-64'
}
