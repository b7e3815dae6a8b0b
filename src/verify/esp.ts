/** The ESP: every EFI program on it is signed by someone trusted, systemd-boot is there twice, UKIs are sound. */
import { authenticodeDigest, checkAuthenticode } from '../formats/authenticode.ts'
import type { Architecture } from '../formats/dps.ts'
import { decodeFat, type Fat, type FatEntry } from '../formats/fat.ts'
import { decodePe, type Pe } from '../formats/pe.ts'
import type { ReadAt } from '../formats/struct.ts'
import { type Disk, type DiskPartition, readFile, readWithin } from './disk.ts'
import { checkEnrolments } from './enrolment.ts'
import { checkLink, type Finding, type Link, leaveUnchecked } from './link.ts'
import { chainOf, includesBytes, nameOf, type Trust } from './trust.ts'
import { checkUki, isUki, type UkiFacts } from './uki.ts'

export interface EspFacts {
  /** UKIs that could be read. */
  ukis: (UkiFacts & { digest: string })[]
}

/** An EFI program is read whole: it is hashed in parts and in an order of its own. */
const MAX_PROGRAM_BYTES = 512 << 20
const MAX_PROGRAMS = 256
const MACHINES: Record<number, Architecture> = { 34404: 'x86-64', 43620: 'arm64' }
const EFI_NAMES = { 'x86-64': ['X64', 'x64'], arm64: ['AA64', 'aa64'] } as const

export async function checkEsp(disk: Disk, partitions: readonly DiskPartition[], trust: Trust, links: Link[]): Promise<EspFacts> {
  const facts: EspFacts = { ukis: [] }
  const esp = partitions.find(({ designator }) => designator === 'esp')
  if (!esp) {
    leaveUnchecked(links, 'firmware', 'ESP', 'there is none')
    return facts
  }
  const found = await checkLink(links, 'firmware', 'ESP', (finding) => readBootPartition(readWithin(disk, esp), esp, finding))
  if (!found) return facts
  const xbootldr = partitions.find(({ designator }) => designator === 'xbootldr')
  const beside =
    xbootldr &&
    (await checkLink(links, 'firmware', 'XBOOTLDR', (finding) =>
      readBootPartition(readWithin(disk, xbootldr), xbootldr, finding),
    ))
  const architecture = partitions.find(({ designator }) => designator === 'usr')?.architecture ?? 'x86-64'
  const digests = new Map<string, string>()
  for (const { entry, read } of [...found.programs, ...(beside?.programs ?? [])]) {
    const program = await checkLink(
      links,
      isMeantAsUki(entry.path) ? 'UKI' : 'boot loader',
      `EFI program ${entry.path}`,
      (finding) => checkProgram(entry, read, architecture, trust, finding),
    )
    if (!program) continue
    if (found.fat.entries.includes(entry)) digests.set(entry.path.toUpperCase(), program.digest)
    if (!isUki(program.pe)) {
      if (isMeantAsUki(entry.path)) leaveUnchecked(links, 'UKI', `UKI ${entry.path}`, 'it has no .linux section')
      continue
    }
    const uki = await checkUki(entry.path, program.bytes, program.pe, trust, links)
    if (uki) facts.ukis.push({ ...uki, digest: program.digest })
  }
  const { bootable, loader } = chainOf(trust)
  if (bootable && !links.some(({ name }) => name.startsWith('UKI ')))
    leaveUnchecked(links, 'UKI', 'UKI', 'there is none on the ESP')
  if (loader && (bootable || digests.size > 0))
    await checkLink(links, 'boot loader', 'systemd-boot', (finding) => checkBootLoader(digests, architecture, finding))
  await checkEnrolments(found.fat, readWithin(disk, esp), trust, links)
  return facts
}

/** Where systemd-boot looks for UKIs; addons lie below folders of their own or are called so. */
const isMeantAsUki = (path: string): boolean => /^EFI\/Linux\/[^/]+\.efi$/i.test(path) && !/\.addon\.efi$/i.test(path)

interface BootPartition {
  fat: Fat
  programs: { entry: FatEntry; read: ReadAt }[]
}

/** What counts as an EFI program: what is called so, and what begins like one whatever it is called. */
function readBootPartition(read: ReadAt, { sizeBytes }: DiskPartition, { evidence, wrong }: Finding): BootPartition {
  const fat = decodeFat(read, sizeBytes)
  const files = fat.entries.filter(({ type }) => type === 'file')
  const startsLikeOne = ({ extents, sizeBytes }: FatEntry) =>
    sizeBytes >= 2 && Buffer.from(read(extents[0]!.offset, 2)).toString('latin1') === 'MZ'
  const programs = files.filter((file) => /\.efi$/i.test(file.path) || startsLikeOne(file))
  evidence(`FAT${fat.bits}, ${files.length} files, ${programs.length} EFI programs`)
  if (programs.length > MAX_PROGRAMS) wrong(`${programs.length} EFI programs are more than the ${MAX_PROGRAMS} that are checked`)
  return { fat, programs: programs.slice(0, MAX_PROGRAMS).map((entry) => ({ entry, read })) }
}

function checkProgram(entry: FatEntry, read: ReadAt, architecture: Architecture, trust: Trust, { evidence, wrong }: Finding) {
  const bytes = readFile(entry, read, MAX_PROGRAM_BYTES)
  const pe: Pe = decodePe(bytes, entry.path)
  const machine = MACHINES[pe.machine]
  if (machine !== architecture) wrong(`it is for ${machine ?? `machine ${pe.machine}`}, the image for ${architecture}`)
  const digest = authenticodeDigest(bytes, pe).toString('hex')
  evidence(`Authenticode ${digest}`)
  const signatures = checkAuthenticode(bytes)
  const trusted = signatures.find((s) => s.problems.length === 0 && s.certificate && includesBytes(trust.db, s.certificate))
  if (trusted) evidence(`signed by ${nameOf(trusted.certificate!)}`)
  else if (signatures.length === 0) {
    if (chainOf(trust).secureBoot) wrong('it is not signed')
    else evidence('not signed')
  }
  for (const { certificate, problems } of trusted ? [] : signatures) {
    const by = certificate ? nameOf(certificate) : 'an unknown certificate'
    if (problems.length === 0 && chainOf(trust).signedByOthers) {
      evidence(`signed by ${by}`)
      continue
    }
    // A distribution's kernel as it lies in /boot is no boot entry, and firmware with our keys alone refuses it.
    const isMeantToStart = /\.efi$/i.test(entry.path)
    if (problems.length === 0 && !(isMeantToStart && chainOf(trust).secureBoot)) {
      evidence(`signed by ${by}${isMeantToStart ? '' : ', so that firmware refuses it'}`)
      continue
    }
    wrong(`its signature by ${by} does not count: ${problems.join(', ') || 'the certificate is not a trusted db certificate'}`)
  }
  return { bytes, pe, digest }
}

/** Firmware starts one copy, updates replace the other first: both must be there, and in a fresh image be the same. */
function checkBootLoader(digests: ReadonlyMap<string, string>, architecture: Architecture, { evidence, wrong }: Finding): void {
  const [fallback, name] = EFI_NAMES[architecture]
  const paths = [`EFI/BOOT/BOOT${fallback}.EFI`, `EFI/systemd/systemd-boot${name}.efi`]
  const found = paths.map((path) => digests.get(path.toUpperCase()))
  for (const [i, digest] of found.entries()) if (digest === undefined) wrong(`there is no sound ${paths[i]}`)
  if (found.every((digest) => digest !== undefined) && found[0] !== found[1])
    wrong(`${paths.join(' and ')} are different programs`)
  evidence(paths.join(' and '))
}
