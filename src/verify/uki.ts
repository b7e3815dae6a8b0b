/** A UKI: its sections say what boots and which /usr, and its signed PCR policies fit what the TPM will measure. */
import { createPublicKey, type KeyObject, verify } from 'node:crypto'
import { Fault } from '../base/fault.ts'
import {
  type MeasuredSection,
  measureSection,
  PCR_BANKS,
  type PcrBank,
  type PcrPolicy,
  PHASE_PATHS,
  parsePcrSignatures,
  pcrAtPhase,
  pcrOfSections,
  policyDigest,
  publicKeyFingerprint,
} from '../formats/pcr.ts'
import { type Pe, type PeSection, sectionContent } from '../formats/pe.ts'
import { splitProfiles, UKI_SECTIONS } from '../formats/uki.ts'
import { publicKeyOf } from '../formats/x509.ts'
import { checkLink, type Finding, type Link, leaveUnchecked } from './link.ts'
import { type Chain, chainOf, sameBytes, type Trust } from './trust.ts'

export interface UkiFacts {
  path: string
  /** Root hash of the /usr (`usrhash=`) or root (`roothash=`) that it boots. */
  rootHash?: string
  osRelease: string
  commandLine: string
  uname: string
  /** PCR 11 of the default profile by phase path and bank. */
  pcr11: Record<string, Record<string, string>>
}

/** A section and what it holds. */
interface Held {
  name: string
  sizeBytes: number
  content: Uint8Array
}

const NEEDED = ['.linux', '.initrd', '.osrel', '.uname']
/** No honest text section comes near it; kernels and initrds are not decoded. */
const MAX_TEXT_BYTES = 1 << 20

export const isUki = (pe: Pe): boolean => pe.sections.some(({ name }) => name === '.linux')

export async function checkUki(
  path: string,
  bytes: Uint8Array,
  pe: Pe,
  trust: Trust,
  links: Link[],
): Promise<UkiFacts | undefined> {
  const policies = `PCR policies of ${path}`
  const read = await checkLink(links, 'UKI', `UKI ${path}`, (finding) => readSections(path, bytes, pe, chainOf(trust), finding))
  if (!read) {
    leaveUnchecked(links, 'measured boot', policies, 'the sections of the UKI cannot be read')
    return undefined
  }
  const { facts, profiles } = read
  const pcr11 = await checkLink(links, 'measured boot', policies, (finding) =>
    checkPolicies(
      profiles,
      trust.pcr.map((one) => (one instanceof Uint8Array ? publicKeyOf(one) : one)),
      finding,
    ),
  )
  return { ...facts, pcr11: pcr11 ?? {} }
}

function readSections(path: string, bytes: Uint8Array, pe: Pe, chain: Chain, { evidence, wrong }: Finding) {
  const sections = pe.sections.filter(isUkiSection).map((section): Held => {
    const { name, virtualSize, sizeOfRawData } = section
    if (virtualSize > sizeOfRawData) wrong(`section ${name} is ${virtualSize} bytes in memory, ${sizeOfRawData} in the file`)
    return { name, sizeBytes: virtualSize, content: sectionContent(bytes, section) }
  })
  const profiles = splitProfiles(sections)
  for (const [i, profile] of profiles.entries()) {
    const where = profiles.length === 1 ? '' : ` in profile ${i}`
    const signed = chain.policies && i === 0 ? ['.pcrsig', '.pcrpkey'] : []
    const pinning = chain.verity === undefined ? [] : ['.cmdline']
    for (const name of [...NEEDED, ...pinning, ...signed]) {
      const count = profile.filter((section) => section.name === name).length
      if (count !== 1) wrong(`there ${count === 0 ? 'is no' : `are ${count}`} ${name}${where}, expected one`)
    }
  }
  const first = profiles[0]!
  const { verity } = chain
  const word = verity === 'root' ? 'roothash=' : 'usrhash='
  const hashes = verity === undefined ? [] : profiles.map((profile) => hashOf(textOf(profile, '.cmdline'), word, wrong))
  if (new Set(hashes).size > 1) wrong(`its profiles name different values of ${word}: ${[...new Set(hashes)].join(', ')}`)
  const pinned = verity === undefined ? 'no verity' : `${word}${hashes[0]}`
  evidence(`${sections.length} sections, ${profiles.length === 1 ? '' : `${profiles.length} profiles, `}${pinned}`)
  const facts = {
    path,
    ...(hashes[0] === undefined ? {} : { rootHash: hashes[0] }),
    osRelease: textOf(first, '.osrel'),
    commandLine: textOf(first, '.cmdline'),
    uname: textOf(first, '.uname'),
  }
  return { facts, profiles }
}

const isUkiSection = ({ name }: PeSection): boolean => (UKI_SECTIONS as readonly string[]).includes(name)

function hashOf(commandLine: string, prefix: string, wrong: (problem: string) => void): string | undefined {
  const found = commandLine.split(/\s+/).filter((word) => word.startsWith(prefix))
  const value = found[0]?.slice(prefix.length)
  if (found.length === 1 && /^[0-9a-f]{64}$/.test(value!)) return value
  wrong(
    `.cmdline has ${found.length === 0 ? `no ${prefix}` : JSON.stringify(found.join(' ').slice(0, 200))}, expected one root hash`,
  )
  return undefined
}

function textOf(profile: readonly Held[], name: string): string {
  const content = profile.find((section) => section.name === name)?.content ?? new Uint8Array()
  if (content.length > MAX_TEXT_BYTES) throw new Fault('format', `Cannot read ${name}: it has ${content.length} bytes`)
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(content).replace(/\0+$/, '')
  } catch (cause) {
    throw new Fault('format', `Cannot read ${name}: it is no UTF-8 text`, { cause })
  }
}

/**
 * Every profile that has policies has, for each of their banks, one by a trusted key for each phase path, and no others.
 * A profile that nothing is unsealed for has none; whether the default one must is the chain's matter.
 */
function checkPolicies(profiles: readonly Held[][], trusted: readonly KeyObject[], finding: Finding): UkiFacts['pcr11'] {
  const hashed = new Map<Held, MeasuredSection>()
  let table: UkiFacts['pcr11'] | undefined
  for (const [i, profile] of profiles.entries()) {
    const wrong = (problem: string) => finding.wrong(profiles.length === 1 ? problem : `profile ${i}: ${problem}`)
    if (!profile.some(({ name }) => name === '.pcrsig')) {
      table ??= tableOf(expectedPolicies('sha256', measured(profile, ['sha256'], hashed)))
      continue
    }
    const key = trustedKey(textOf(profile, '.pcrpkey'), trusted, wrong)
    const policies = parsePcrSignatures(textOf(profile, '.pcrsig'))
    const banks = (Object.keys(PCR_BANKS) as PcrBank[]).filter((bank) => policies.some((policy) => policy.bank === bank))
    if (!banks.includes('sha256')) wrong('.pcrsig has no policy for the sha256 bank')
    const wanted: PcrBank[] = banks.includes('sha256') ? banks : ['sha256', ...banks]
    const sections = measured(profile, wanted, hashed)
    const expected = wanted.flatMap((bank) => expectedPolicies(bank, sections))
    if (key) for (const problem of comparePolicies(policies, expected, key)) wrong(problem)
    table ??= tableOf(expected)
  }
  finding.evidence(
    `PCR 11 recomputed for ${PHASE_PATHS.length} phase paths, ready is ${table?.[PHASE_PATHS.at(-1)!]?.['sha256']}`,
  )
  return table ?? {}
}

const measured = (profile: readonly Held[], banks: readonly PcrBank[], hashed: Map<Held, MeasuredSection>) =>
  profile.map((section) => measure(section, banks, hashed))

/** Sections of the base are shared by profiles, and kernels are large: each is hashed once. */
function measure(section: Held, banks: readonly PcrBank[], hashed: Map<Held, MeasuredSection>): MeasuredSection {
  if (section.name === '.pcrsig') return { ...section, digests: {} }
  const known = hashed.get(section)
  if (known && banks.every((bank) => known.digests[bank])) return known
  const made = measureSection(section.name, section.content, banks)
  hashed.set(section, made)
  return made
}

interface ExpectedPolicy {
  bank: PcrBank
  path: string
  pcr: Uint8Array
  policy: Uint8Array
}

function expectedPolicies(bank: PcrBank, sections: readonly MeasuredSection[]): ExpectedPolicy[] {
  const afterStub = pcrOfSections(bank, sections)
  return PHASE_PATHS.map((path) => {
    const pcr = pcrAtPhase(bank, afterStub, path)
    return { bank, path, pcr, policy: policyDigest(bank, pcr) }
  })
}

function comparePolicies(policies: readonly PcrPolicy[], expected: readonly ExpectedPolicy[], key: KeyObject): string[] {
  const problems: string[] = []
  const fingerprint = publicKeyFingerprint(key)
  const same = (a: PcrPolicy, b: ExpectedPolicy) => a.bank === b.bank && sameBytes(a.policy, b.policy)
  for (const one of expected) {
    const found = policies.filter((policy) => same(policy, one) && policy.keyFingerprint === fingerprint)
    if (found.length === 0) problems.push(`no policy of ${fingerprint.slice(0, 12)} for ${one.bank} at ${one.path}`)
    else if (!found.some(({ policy, signature }) => verify('sha256', policy, key, signature)))
      problems.push(`the signature of the policy for ${one.bank} at ${one.path} does not verify`)
  }
  const others = policies.filter((policy) => policy.keyFingerprint !== fingerprint || !expected.some((one) => same(policy, one)))
  if (others.length > 0) problems.push(`${others.length} policies are for another key or another state of PCR 11`)
  return problems
}

function trustedKey(pem: string, trusted: readonly KeyObject[], wrong: (problem: string) => void): KeyObject | undefined {
  const der = (key: KeyObject) => key.export({ type: 'spki', format: 'der' })
  let carried: Uint8Array | undefined
  try {
    if (/^-----BEGIN (?:RSA )?PUBLIC KEY-----/.test(pem)) carried = der(createPublicKey(pem))
  } catch {
    // Not a key: said below.
  }
  const key = carried && trusted.find((one) => sameBytes(der(one), carried))
  if (!key) wrong(carried ? '.pcrpkey is a key that is not trusted' : '.pcrpkey holds no public key')
  return key
}

function tableOf(expected: readonly ExpectedPolicy[]): UkiFacts['pcr11'] {
  const table: UkiFacts['pcr11'] = {}
  for (const { bank, path, pcr } of expected) table[path] = { ...table[path], [bank]: Buffer.from(pcr).toString('hex') }
  return table
}
