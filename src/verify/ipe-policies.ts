/** IPE policies as files: whom they are signed by, and what they say. */
import { certificateOf, checkSigner, decodeSignedData, type SignedData } from '../formats/cms.ts'
import { derReader, TAG } from '../formats/der.ts'
import { decodeIssuerAndSerial } from '../formats/x509.ts'
import type { Anchor, IpePolicyFacts } from './facts.ts'
import type { Files } from './holes/files.ts'
import { leadsTo, sameBytes } from './trust.ts'

/** Where PID 1 looks, the first of a name counts; and where Bisque keeps the one for the booted system. */
const FOLDERS = ['etc/ipe', 'run/ipe', 'usr/local/lib/ipe', 'usr/lib/ipe']
const BOOTED = 'usr/lib/bisque'
const MAX_POLICIES = 16
const MAX_POLICY_BYTES = 128 << 10
const DATA = '1.2.840.113549.1.7.1'

/** Policies PID 1 loads, in its order; then those that something else loads later. */
export function readPolicies(files: Files, anchor: Anchor): IpePolicyFacts[] {
  const byName = new Map<string, string>()
  for (const folder of FOLDERS)
    for (const name of files.names(folder)) if (name.endsWith('.p7b') && !byName.has(name)) byName.set(name, `${folder}/${name}`)
  const first = [...byName].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, path]) => path)
  const later = files.names(BOOTED).flatMap((name) => (name.endsWith('.p7b') ? [`${BOOTED}/${name}`] : []))
  return [
    ...first.slice(0, MAX_POLICIES).map((path) => readPolicy(files, path, true, anchor)),
    ...later.slice(0, MAX_POLICIES).map((path) => readPolicy(files, path, false, anchor)),
  ]
}

function readPolicy(files: Files, path: string, byPid1: boolean, anchor: Anchor): IpePolicyFacts {
  const facts: IpePolicyFacts = { path, byPid1, text: '', signers: [], trusted: false, problems: [] }
  try {
    const bytes = files.bytes(path, MAX_POLICY_BYTES)
    if (!bytes) throw new Error('it cannot be read')
    const signed = decodeSignedData(bytes)
    facts.text = textOf(signed)
    const [, name, version] = /^\s*policy_name=(\S+)\s+policy_version=(\S+)/.exec(facts.text) ?? []
    if (name !== undefined && version !== undefined) Object.assign(facts, { name, version })
    for (const signer of signed.signers) judgeSigner(signed, signer, anchor, facts)
    if (signed.signers.length === 0) facts.problems.push('nobody signed it')
    facts.trusted = facts.problems.length === 0
  } catch (error) {
    facts.problems.push((error as Error).message)
  }
  return facts
}

/** Every signer must hold: the kernel checks them all. */
function judgeSigner(signed: SignedData, signer: SignedData['signers'][number], anchor: Anchor, facts: IpePolicyFacts): void {
  const allowed = [...anchor.verity, ...anchor.db]
  const certificate =
    certificateOf(signed, signer) ??
    allowed.find((one) => {
      const { issuer, serialNumber } = decodeIssuerAndSerial(one)
      return sameBytes(issuer, signer.issuer) && sameBytes(serialNumber, signer.serialNumber)
    })
  if (!certificate) {
    facts.problems.push('its signer is nobody who is trusted')
    return
  }
  const problems = checkSigner(signed, signer, certificate)
  facts.problems.push(...problems)
  if (problems.length === 0) facts.signers.push(certificate)
  if (!leadsTo(certificate, allowed, signed.certificates))
    facts.problems.push('its signer is in neither db nor among the certificates trusted for /usr')
}

/** The kernel takes what is inside as plain data, and nothing that lies beside. */
function textOf({ contentType, content }: SignedData): string {
  if (contentType !== DATA || !content) throw new Error(`it holds no text: its content is ${content ? contentType : 'detached'}`)
  const reader = derReader(content, 'IPE policy')
  const { content: text } = reader.take('content', TAG.octetString)
  reader.end()
  return Buffer.from(text).toString('utf8')
}
