/** Secure Boot variables on the ESP: each is signed by the key above it, and db lets in whom we trust and no one else. */
import { Fault } from '../base/fault.ts'
import { certificateOf, checkSigner, decodeSignedData } from '../formats/cms.ts'
import {
  decodeSignatureLists,
  decodeVariableUpdate,
  EFI_GUID,
  SECURE_BOOT_VARIABLES,
  type SecureBootVariable,
  signedVariableBytes,
} from '../formats/esl.ts'
import { MICROSOFT_CERTIFICATES } from '../signing/microsoft.ts'
import type { EnrolmentFacts, EspFile } from './facts.ts'
import { checkLink, type Finding, type Link } from './link.ts'
import { fingerprintOf, includesBytes, judgeValidity, nameOf, type Trust } from './trust.ts'

const MAX_AUTH_BYTES = 1 << 20
const MAX_SETS = 16
const MAX_SET_FILES = 16
const NAMES = ['PK', 'KEK', 'db', 'dbx'] as const

interface Variable {
  /** Certificates it enters. */
  certificates: Uint8Array[]
  /** SHA-256 it enters. */
  digests: string[]
  update: { name: SecureBootVariable; vendor: string; time: number; payload: Uint8Array }
  signature: Uint8Array
}

interface KeySet {
  name: string
  files: string[]
  variables: ReadonlyMap<string, Variable>
  problems: string[]
}

export interface Enrolments {
  sets: KeySet[]
  /** Sets beyond those that are read. */
  more: number
}

/** Reads `loader/keys/NAME/*.auth`. */
export function readEnrolments(files: readonly EspFile[]): Enrolments {
  const sets = new Map<string, EspFile[]>()
  for (const file of files) {
    const name = /^loader\/keys\/([^/]+)\/[^/]+\.auth$/i.exec(file.path)?.[1]
    if (name !== undefined) sets.set(name, [...(sets.get(name) ?? []), file])
  }
  return { sets: [...sets].slice(0, MAX_SETS).map(readSet), more: Math.max(0, sets.size - MAX_SETS) }
}

function readSet([name, files]: [string, EspFile[]]): KeySet {
  const variables = new Map<string, Variable>()
  const problems: string[] = []
  const names: string[] = []
  if (files.length > MAX_SET_FILES) problems.push(`it has ${files.length} files, more than the ${MAX_SET_FILES} checked`)
  for (const file of files.slice(0, MAX_SET_FILES)) {
    const variable = /([^/]+)\.auth$/i.exec(file.path)![1]!
    names.push(variable)
    try {
      if (!Object.hasOwn(SECURE_BOOT_VARIABLES, variable)) throw new Fault('format', 'it is no Secure Boot variable')
      variables.set(variable, decodeVariable(variable as SecureBootVariable, file.read(MAX_AUTH_BYTES)))
    } catch (error) {
      if (!(error instanceof Fault) || error.code === 'host') throw error
      problems.push(`${variable}: ${error.message}`)
    }
  }
  return { name, files: names, variables, problems }
}

/** What a set enters: to be trusted where nobody says whom else to trust. */
export const enteredBy = ({ variables }: KeySet, name: (typeof NAMES)[number]): Uint8Array[] =>
  variables.get(name)?.certificates ?? []

export const digestsEnteredBy = ({ variables }: KeySet, name: 'dbx'): string[] => variables.get(name)?.digests ?? []

/** One link for each set. An image that enrols no keys has nothing to check: its firmware must have them. */
export async function checkEnrolments(
  { sets, more }: Enrolments,
  trust: Trust,
  now: number,
  links: Link[],
): Promise<EnrolmentFacts[]> {
  if (sets.length === 0)
    await checkLink(links, 'firmware', 'enrolment', ({ evidence }) => evidence('no keys to enrol: firmware must have them'))
  const facts: EnrolmentFacts[] = []
  for (const set of sets) {
    await checkLink(links, 'firmware', `enrolment ${set.name}`, (finding) => checkSet(set, trust, now, finding))
    const entered = NAMES.map((name) => [name, enteredBy(set, name)])
    const certificates = Object.fromEntries(entered) as EnrolmentFacts['certificates']
    facts.push({ name: set.name, certificates, revoked: digestsEnteredBy(set, 'dbx'), sound: links.at(-1)!.ok })
  }
  if (more > 0)
    await checkLink(links, 'firmware', 'enrolment', ({ wrong }) =>
      wrong(`${sets.length + more} sets of keys are more than the ${MAX_SETS} checked`),
    )
  return facts
}

function checkSet({ files, variables, problems }: KeySet, trust: Trust, now: number, finding: Finding): void {
  const { wrong } = finding
  for (const problem of problems) wrong(problem)
  for (const name of ['PK', 'KEK', 'db'])
    if (!files.includes(name)) wrong(`there is no ${name}`, 'bisque build writes PK, KEK and db together')
  const [pk, kek, db, dbx] = NAMES.map((name) => variables.get(name))
  if (pk && pk.certificates.length !== 1) wrong(`PK holds ${pk.certificates.length} certificates, expected 1`)
  const signedBy: [Variable | undefined, Variable | undefined, string][] = [
    [pk, pk, 'itself'],
    [kek, pk, 'PK'],
    [db, kek, 'KEK'],
    [dbx, kek, 'KEK'],
  ]
  for (const [variable, by, who] of signedBy) {
    if (!variable || !by) continue
    // What the owner of the platform signed counts for every variable.
    const allowed = [...by.certificates, ...(pk?.certificates ?? [])]
    for (const problem of checkSignature(variable, allowed)) wrong(`${variable.update.name} is not signed by ${who}: ${problem}`)
  }
  judgeEntries('PK', pk, trust.pk === undefined ? [] : [trust.pk], now, finding)
  judgeEntries('KEK', kek, trust.kek === undefined ? [] : [trust.kek], now, finding)
  judgeEntries('db', db, [trust.db, trust.verity], now, finding)
}

/** A variable lets in whom we trust and nobody else: of each group of certificates it has at least one. */
function judgeEntries(
  name: string,
  variable: Variable | undefined,
  groups: readonly (readonly Uint8Array[])[],
  now: number,
  finding: Finding,
): void {
  if (!variable) return
  const { evidence, wrong } = finding
  const trusted = groups.flat()
  for (const one of variable.certificates) {
    const microsoft = MICROSOFT_CERTIFICATES.find(({ fingerprint }) => fingerprint === fingerprintOf(one))
    if (microsoft) {
      // Those of 2011 have expired. That is not ours to mend, and firmware does not look.
      evidence(`note: ${name} lets in ${microsoft.subject}, and whatever it signed`)
      continue
    }
    judgeValidity(one, now, finding)
    if (groups.length > 0 && !includesBytes(trusted, one))
      wrong(`${name} lets in ${nameOf(one)}`, `take it out of ${name}, or add it to the certificates you trust`)
  }
  for (const group of groups)
    if (group.length > 0 && !group.some((one) => includesBytes(variable.certificates, one)))
      for (const one of group) wrong(`${name} lacks ${nameOf(one)}`)
  evidence(`${name} is ${variable.certificates.map(nameOf).join(' and ')}`)
}

/** Decodes a variable. Nothing but certificates may let programs in: a list of digests would be a door beside them. */
function decodeVariable(name: SecureBootVariable, bytes: Uint8Array): Variable {
  const { time, signature, payload } = decodeVariableUpdate(bytes)
  const lists = decodeSignatureLists(payload)
  const other = lists.find(({ type }) => type !== EFI_GUID.certX509)
  if (other && name !== 'dbx') throw new Fault('format', `it holds a list of type ${other.type}, expected X.509 certificates`)
  const of = (wanted: string) =>
    lists.filter(({ type }) => type === wanted).flatMap(({ entries }) => entries.map(({ data }) => data))
  const digests = of(EFI_GUID.certSha256).map((data) => Buffer.from(data).toString('hex'))
  const update = { name, vendor: SECURE_BOOT_VARIABLES[name], time, payload }
  return { certificates: of(EFI_GUID.certX509), digests, update, signature }
}

function checkSignature({ update, signature }: Variable, allowed: readonly Uint8Array[]): string[] {
  const signed = decodeSignedData(signature)
  const signer = signed.signers[0]
  if (!signer || signed.signers.length !== 1) return [`it has ${signed.signers.length} signers, expected 1`]
  const certificate = certificateOf(signed, signer)
  if (!certificate) return ['the certificate it names is not carried']
  const problems = checkSigner(signed, signer, certificate, signedVariableBytes(update))
  return includesBytes(allowed, certificate) ? problems : [`its signer is ${nameOf(certificate)}`, ...problems]
}
