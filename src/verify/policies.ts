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
  signedPolicy,
} from '../formats/pcr.ts'
import { publicKeyOf } from '../formats/x509.ts'
import type { Anchor } from './facts.ts'
import type { Finding } from './link.ts'
import { type Held, textOf } from './sections.ts'
import { sameBytes } from './trust.ts'

/** PCR 11 by phase path and bank. */
export type PcrTable = Record<string, Record<string, string>>

/**
 * Every profile that has policies has, for each of their banks, one by a trusted key for each phase path, which is for
 * anything, and no others but such as are for something alone, in a state that is expected. A profile that nothing is
 * unsealed for has none; whether the default one must is the chain's matter. Gives back what each profile measures.
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

/**
 * The key of `.pcrpkey` has a policy for every state, for anything; every policy of a trusted key, those of a rotation's
 * other one and those that are for something alone among them, is for such a state, and its signature verifies.
 */
function comparePolicies(
  policies: readonly PcrPolicy[],
  expected: readonly ExpectedPolicy[],
  { own, trusted }: TrustedKeys,
  given: boolean,
  { evidence, wrong }: Finding,
): void {
  const fingerprint = publicKeyFingerprint(own)
  const keys = new Map(trusted.map((key) => [publicKeyFingerprint(key), key]))
  const stateOf = ({ bank, policy }: PcrPolicy) => expected.find((one) => one.bank === bank && sameBytes(one.policy, policy))
  const judged = policies.flatMap((policy): JudgedPolicy[] => {
    const [state, key] = [stateOf(policy), keys.get(policy.keyFingerprint)]
    return state && key ? [{ ...policy, state, key }] : []
  })
  const unreferenced = judged.filter(({ reference }) => reference === undefined)
  for (const one of expected)
    if (!unreferenced.some(({ state, keyFingerprint }) => state === one && keyFingerprint === fingerprint))
      wrong(`no policy of ${fingerprint.slice(0, 12)} for ${one.bank} at ${one.path}`, REBUILD)
  if (judged.length > MAX_JUDGED) wrong(`${judged.length} policies are more than the ${MAX_JUDGED} that are checked`, REBUILD)
  for (const one of judged.slice(0, MAX_JUDGED))
    if (!verify('sha256', signedPolicy(one), one.key, one.signature))
      wrong(`the signature of the policy${shownKey(one, fingerprint)} for ${shownState(one)} does not verify`, REBUILD)
  judgeOrder(judged, fingerprint, wrong)
  const stray = policies.filter((policy) => !stateOf(policy) || (given && !keys.has(policy.keyFingerprint)))
  if (stray.length > 0) wrong(`${stray.length} policies are for another key or another state of PCR 11`, REBUILD)
  const references = new Set(judged.flatMap(({ reference }) => (reference === undefined ? [] : [shownReference(reference)])))
  if (references.size > 0) evidence(`policies also for ${[...references].slice(0, 4).join(', ')} alone`)
  const unknown = new Set(policies.map(({ keyFingerprint }) => keyFingerprint).filter((one) => !keys.has(one)))
  if (unknown.size > 0 && !given) evidence(`note: policies also of ${[...unknown].map((one) => one.slice(0, 12)).join(', ')}`)
}

interface JudgedPolicy extends PcrPolicy {
  state: ExpectedPolicy
  key: KeyObject
}

/** Before version 262 systemd knows no references, and takes the first policy that fits. */
function judgeOrder(judged: readonly JudgedPolicy[], own: string, wrong: Finding['wrong']): void {
  const before = new Set<string>()
  for (const one of judged) {
    const what = `${one.bank} ${one.keyFingerprint} ${one.state.path}`
    if (one.reference === undefined) before.add(what)
    else if (!before.has(what))
      wrong(
        `the policy${shownKey(one, own)} for ${shownState(one)} does not come behind one without a reference: systemd before 262 takes the first`,
        REBUILD,
      )
  }
}

const shownKey = ({ keyFingerprint }: PcrPolicy, own: string): string =>
  keyFingerprint === own ? '' : ` of ${keyFingerprint.slice(0, 12)}`
const shownState = ({ state, reference }: JudgedPolicy): string =>
  `${state.bank} at ${state.path}${reference === undefined ? '' : ` and ${shownReference(reference)} alone`}`
const shownReference = (reference: string): string => JSON.stringify(reference.slice(0, 40))

/** Checking a signature of a key made for it takes time. An honest UKI has a few dozen. */
const MAX_JUDGED = 256

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
