/** A UKI: the sections of each of its profiles say what boots, with which command line, and which /usr. */
import { checkAuthenticode } from '../formats/authenticode.ts'
import { decodePe, type PeSection, sectionContent } from '../formats/pe.ts'
import { splitProfiles, UKI_SECTIONS } from '../formats/uki.ts'
import { type Program, type ProgramRead, programBytes } from './esp.ts'
import type { Anchor, ProfileFacts, UkiFacts } from './facts.ts'
import { argumentOf, wordsOf } from './holes/facts.ts'
import { type InitrdBudget, type ReadInitrd, readInitrdOnce } from './initrd.ts'
import { checkLink, type Finding, type Link, leaveUnchecked } from './link.ts'
import { checkPolicies, type PcrTable } from './policies.ts'
import { anyText, type Held, textOf } from './sections.ts'
import { type Chain, nameOf } from './trust.ts'

const TEXTS = ['.osrel', '.cmdline', '.uname', '.profile']
const NEEDED = ['.linux', '.initrd', '.osrel', '.uname']
const REBUILD = 'bisque build'

/** Checks a UKI and what it holds; undefined where its sections cannot be read. */
export async function checkUki(
  { file }: Program,
  read: ProgramRead,
  anchor: Anchor,
  budget: InitrdBudget,
  links: Link[],
): Promise<UkiFacts | undefined> {
  const { path } = file
  const policies = `PCR policies of ${path}`
  const bytes = programBytes(file)
  const profiles = await checkLink(links, 'UKI', `UKI ${path}`, (finding) => readSections(bytes, read, anchor, finding))
  if (!profiles) {
    leaveUnchecked(links, 'measured boot', policies, 'the sections of the UKI cannot be read')
    return undefined
  }
  const held = profiles.map(({ sections }) => sections)
  const tables = await checkLink(links, 'measured boot', policies, (finding) => checkPolicies(held, anchor, finding))
  const kernels = new Map<Held, Uint8Array>()
  const facts = profiles.map((profile, i) => profileFacts(profile, tables?.[i] ?? {}, kernels))
  if (anchor.total) await readInitrds(path, held, facts, readInitrdOnce(anchor, budget, links))
  const { rootHash, verity, osRelease, commandLine, uname, pcr11 } = facts[0]!
  return {
    ...{ path, digest: read.digest, osRelease, commandLine, uname, pcr11, profiles: facts },
    ...(rootHash === undefined ? {} : { rootHash }),
    ...(verity === undefined ? {} : { verity }),
  }
}

interface Profile {
  number: number
  sections: Held[]
  pin?: Pin
}

/** What a command line pins. */
interface Pin {
  verity: 'usr' | 'root'
  rootHash: string
}

function readSections(bytes: Uint8Array, { pe }: ProgramRead, anchor: Anchor, { evidence, wrong }: Finding): Profile[] {
  const { chain } = anchor
  const sections = pe.sections.filter(isUkiSection).map((section): Held => {
    const { name, virtualSize, sizeOfRawData } = section
    if (virtualSize > sizeOfRawData) wrong(`section ${name} is ${virtualSize} bytes in memory, ${sizeOfRawData} in the file`)
    return { name, sizeBytes: virtualSize, content: sectionContent(bytes, section) }
  })
  const split = splitProfiles(sections)
  const profiles = split.map((own, number): Profile => {
    const where = split.length === 1 ? '' : ` in profile ${number}`
    const signed = chain.policies && number === 0 ? ['.pcrsig', '.pcrpkey'] : []
    const pinning = chain.verity === undefined ? [] : ['.cmdline']
    for (const name of [...NEEDED, ...pinning, ...signed]) {
      const count = own.filter((section) => section.name === name).length
      if (count !== 1) wrong(`there ${count === 0 ? 'is no' : `are ${count}`} ${name}${where}, expected one`, REBUILD)
    }
    for (const name of TEXTS) textOf(own, name)
    const pin = chain.verity && pinOf(textOf(own, '.cmdline'), chain, anchor.total, (why) => wrong(`${why}${where}`, REBUILD))
    return { number, sections: own, ...(pin ? { pin } : {}) }
  })
  if (anchor.total) judgeKernel(profiles, { evidence, wrong })
  const pins = new Set(profiles.map(({ pin }) => (pin ? `${pin.verity}hash=${pin.rootHash}` : 'no verity')))
  evidence(`${sections.length} sections, ${split.length === 1 ? '' : `${split.length} profiles, `}${[...pins].join(' and ')}`)
  return profiles
}

const isUkiSection = ({ name }: PeSection): boolean => (UKI_SECTIONS as readonly string[]).includes(name)

/** The kernel inside is covered by the UKI's signature. One of its own must hold as well: who made the kernel is then known. */
function judgeKernel(profiles: readonly Profile[], { evidence, wrong }: Finding): void {
  const kernels = new Set(profiles.map(({ sections }) => sections.find(({ name }) => name === '.linux')))
  for (const kernel of kernels) {
    if (!kernel) continue
    try {
      decodePe(kernel.content)
    } catch (error) {
      wrong(`.linux is no program that the stub starts: ${(error as Error).message}`)
      continue
    }
    for (const { certificate, problems } of checkAuthenticode(kernel.content)) {
      if (problems.length > 0) wrong(`the kernel's own signature does not hold: ${problems.join(', ')}`)
      else evidence(`kernel signed by ${nameOf(certificate!)}`)
    }
  }
}

/** `usrhash=` or `roothash=`; the generator of the initrd takes the last one, so there may be no two that differ. */
function pinOf(commandLine: string, chain: Chain, total: boolean, wrong: (problem: string) => void): Pin | undefined {
  const words = wordsOf(commandLine).map((word) => word.replace(/^rd\.(?=(?:usr|root)hash=)/, ''))
  const kinds = total ? (['usr', 'root'] as const) : [chain.verity!]
  const found = kinds.flatMap((verity) =>
    words
      .filter((word) => word.startsWith(`${verity}hash=`))
      .map((word) => ({ verity, rootHash: word.slice(verity.length + 5) })),
  )
  const [first] = found
  const same = found.every((one) => one.verity === first?.verity && one.rootHash === first.rootHash)
  if (first && same && /^[0-9a-f]{64}$/.test(first.rootHash)) {
    const other = total ? mountedInstead(words, first.verity) : undefined
    if (other !== undefined) wrong(`.cmdline mounts ${other}, which is not what its root hash is of`)
    return first
  }
  const shown = found.map(({ verity, rootHash }) => `${verity}hash=${rootHash}`).join(' ')
  const missing = total && chain.verity === 'usr' ? 'usrhash= or roothash=' : `${chain.verity}hash=`
  wrong(`.cmdline has ${found.length === 0 ? `no ${missing}` : JSON.stringify(shown.slice(0, 200))}, expected one root hash`)
  return undefined
}

function profileFacts({ number, sections, pin }: Profile, pcr11: PcrTable, kernels: Map<Held, Uint8Array>): ProfileFacts {
  const described = anyText(sections, '.profile')
  const value = (key: string) => new RegExp(`^${key}=(["']?)(.*?)\\1\\s*$`, 'm').exec(described)?.[2] ?? ''
  return {
    ...{ number, id: value('ID'), title: value('TITLE'), ...pin },
    commandLine: anyText(sections, '.cmdline'),
    osRelease: anyText(sections, '.osrel'),
    uname: anyText(sections, '.uname').trim(),
    sections: sections.map(({ name }) => name),
    pcr11,
    hasPolicies: sections.some(({ name }) => name === '.pcrsig'),
    kernel: copyOf(
      sections.find(({ name }) => name === '.linux'),
      kernels,
    ),
  }
}

/** So that the rest of the UKI need not stay in memory. */
function copyOf(section: Held | undefined, copies: Map<Held, Uint8Array>): Uint8Array {
  if (!section) return new Uint8Array()
  const copy = copies.get(section) ?? Uint8Array.from(section.content)
  copies.set(section, copy)
  return copy
}

/** A device named for what the root hash is of, other than the one that dm-verity makes. */
function mountedInstead(words: readonly string[], verity: 'usr' | 'root'): string | undefined {
  const key = verity === 'usr' ? 'mount.usr' : 'root'
  const value = argumentOf(words, key)
  const own = new RegExp(`^(?:/dev/mapper/${verity}|/dev/disk/by-designator/${verity}|(?:dissect|gpt-auto)(?:-force)?)$`)
  return value === undefined || own.test(value) ? undefined : `${key}=${value.slice(0, 80)}`
}

/** Each initrd once, whichever profiles share it. */
async function readInitrds(path: string, held: readonly Held[][], facts: ProfileFacts[], read: ReadInitrd): Promise<void> {
  for (const [i, sections] of held.entries()) {
    const section = sections.find(({ name }) => name === '.initrd')
    const where = i === 0 ? '' : ` profile ${facts[i]!.id || i}`
    const initrd = section && (await read(section, `initrd of ${path}${where}`))
    if (initrd) facts[i]!.initrd = initrd
  }
}
