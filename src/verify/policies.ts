/** Signed PCR policies of a UKI: they fit what the TPM will measure, for every profile, phase and bank, and nothing else. */
import { createPublicKey, type KeyObject, verify } from 'node:crypto'
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
import { publicKeyOf } from '../formats/x509.ts'
import type { Anchor } from './facts.ts'
import type { Finding } from './link.ts'
import { type Held, textOf } from './sections.ts'
import { sameBytes } from './trust.ts'

/** PCR 11 by phase path and bank. */
export type PcrTable = Record<string, Record<string, string>>

/**
 * Every profile that has policies has, for each of their banks, one by a trusted key for each phase path, and no others.
 * A profile that nothing is unsealed for has none; whether the default one must is the chain's matter. Gives back what
 * each profile measures.
 */
export function checkPolicies(profiles: readonly Held[][], anchor: Anchor, finding: Finding): PcrTable[] {
  const hashed = new Map<Held, MeasuredSection>()
  const tables = profiles.map((profile, i) => {
    const where = profiles.length === 1 ? '' : `profile ${i}: `
    const told: Finding = { ...finding, wrong: (problem, hint) => finding.wrong(`${where}${problem}`, hint) }
    if (profile.some(({ name }) => name === '.pcrsig')) return checkProfile(profile, anchor, hashed, told)
    return tableOf(expectedPolicies('sha256', measured(profile, ['sha256'], hashed)))
  })
  const sealed = profiles.flatMap((profile, i) => (profile.some(({ name }) => name === '.pcrsig') ? [] : [i]))
  if (sealed.length > 0 && sealed.length < profiles.length)
    finding.evidence(`no policies for profiles ${sealed.join(', ')}, which unseal nothing`)
  const ready = tables[0]?.[PHASE_PATHS.at(-1)!]?.['sha256']
  finding.evidence(
    `PCR 11 recomputed for ${profiles.length > 1 ? `${profiles.length} profiles and ` : ''}${PHASE_PATHS.length} phase paths, ready is ${ready}`,
  )
  return tables
}

function checkProfile(
  profile: readonly Held[],
  anchor: Anchor,
  hashed: Map<Held, MeasuredSection>,
  { evidence, wrong }: Finding,
): PcrTable {
  const keys = trustedKeys(textOf(profile, '.pcrpkey'), anchor, wrong)
  const policies = parsePcrSignatures(textOf(profile, '.pcrsig'))
  const banks = (Object.keys(PCR_BANKS) as PcrBank[]).filter((bank) => policies.some((policy) => policy.bank === bank))
  if (!banks.includes('sha256')) wrong('.pcrsig has no policy for the sha256 bank')
  const wanted: PcrBank[] = banks.includes('sha256') ? banks : ['sha256', ...banks]
  const expected = wanted.flatMap((bank) => expectedPolicies(bank, measured(profile, wanted, hashed)))
  if (keys) comparePolicies(policies, expected, keys, anchor.from === 'given', { evidence, wrong })
  return tableOf(expected)
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

/** The key of `.pcrpkey` has a policy for every state; of others, which a rotation brings, every policy is for such a state. */
function comparePolicies(
  policies: readonly PcrPolicy[],
  expected: readonly ExpectedPolicy[],
  { own, trusted }: TrustedKeys,
  given: boolean,
  { evidence, wrong }: Finding,
): void {
  const fingerprint = publicKeyFingerprint(own)
  const others = new Map(trusted.map((key) => [publicKeyFingerprint(key), key]))
  const same = (a: PcrPolicy, b: ExpectedPolicy) => a.bank === b.bank && sameBytes(a.policy, b.policy)
  for (const one of expected) {
    const found = policies.filter((policy) => same(policy, one) && policy.keyFingerprint === fingerprint).slice(0, MAX_TRIED)
    if (found.length === 0) wrong(`no policy of ${fingerprint.slice(0, 12)} for ${one.bank} at ${one.path}`, REBUILD)
    else if (!found.some(({ policy, signature }) => verify('sha256', policy, own, signature)))
      wrong(`the signature of the policy for ${one.bank} at ${one.path} does not verify`, REBUILD)
  }
  const stray = policies.filter(
    (policy) => !expected.some((one) => same(policy, one)) || (given && !others.has(policy.keyFingerprint)),
  )
  if (stray.length > 0) wrong(`${stray.length} policies are for another key or another state of PCR 11`, REBUILD)
  for (const { keyFingerprint, policy, signature } of policies
    .filter((one) => others.has(one.keyFingerprint))
    .slice(0, MAX_OTHERS)) {
    const key = others.get(keyFingerprint)
    if (key && key !== own && !stray.some((one) => one.policy === policy) && !verify('sha256', policy, key, signature))
      wrong(`the signature of a policy of ${keyFingerprint.slice(0, 12)} does not verify`, REBUILD)
  }
  const unknown = new Set(
    policies.map((policy) => policy.keyFingerprint).filter((one) => one !== fingerprint && !others.has(one)),
  )
  if (unknown.size > 0 && !given) evidence(`note: policies also of ${[...unknown].map((one) => one.slice(0, 12)).join(', ')}`)
}

/** Of signatures of the same state: checking one of a key made for it takes time. */
const MAX_TRIED = 4
const MAX_OTHERS = 64

const REBUILD = 'sign the policies after all sections are in place: bisque build does'

interface TrustedKeys {
  /** Of `.pcrpkey`. */
  own: KeyObject
  trusted: readonly KeyObject[]
}

/** The key the UKI carries, which must be trusted; where nobody says what to trust, it is by the signature of the UKI. */
function trustedKeys(pem: string, anchor: Anchor, wrong: (problem: string) => void): TrustedKeys | undefined {
  const der = (key: KeyObject) => key.export({ type: 'spki', format: 'der' })
  let carried: KeyObject | undefined
  try {
    if (/^-----BEGIN (?:RSA )?PUBLIC KEY-----/.test(pem)) carried = createPublicKey(pem)
  } catch {
    // Not a key: said below.
  }
  if (carried?.asymmetricKeyType !== 'rsa') {
    wrong('.pcrpkey holds no public key')
    return undefined
  }
  const own = carried
  if (anchor.from !== 'given') return { own, trusted: [own] }
  const trusted = anchor.pcr.map((one) => (one instanceof Uint8Array ? publicKeyOf(one) : one))
  if (trusted.some((one) => sameBytes(der(one), der(own)))) return { own, trusted: [own, ...trusted] }
  wrong('.pcrpkey is a key that is not trusted')
  return undefined
}

function tableOf(expected: readonly ExpectedPolicy[]): PcrTable {
  const table: PcrTable = {}
  for (const { bank, path, pcr } of expected) table[path] = { ...table[path], [bank]: Buffer.from(pcr).toString('hex') }
  return table
}
