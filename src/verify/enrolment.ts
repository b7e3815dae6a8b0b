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
import type { Fat, FatEntry } from '../formats/fat.ts'
import type { ReadAt } from '../formats/struct.ts'
import { readFile } from './disk.ts'
import { checkLink, type Finding, type Link } from './link.ts'
import { includesBytes, nameOf, type Trust } from './trust.ts'

const MAX_AUTH_BYTES = 1 << 20
const MAX_SETS = 16

/** Checks `loader/keys/NAME/*.auth`, one link for each NAME. An image that enrols no keys has nothing to check. */
export async function checkEnrolments(fat: Fat, read: ReadAt, trust: Trust, links: Link[]): Promise<void> {
  const sets = new Map<string, Map<string, FatEntry>>()
  for (const entry of fat.entries) {
    const match = /^loader\/keys\/([^/]+)\/([^/]+)\.auth$/i.exec(entry.path)
    if (!match || entry.type !== 'file') continue
    const set = sets.get(match[1]!) ?? new Map<string, FatEntry>()
    sets.set(match[1]!, set.set(match[2]!, entry))
  }
  if (sets.size === 0) await checkLink(links, 'firmware', 'enrolment', ({ evidence }) => evidence('no keys to enrol'))
  for (const [name, files] of [...sets].slice(0, MAX_SETS))
    await checkLink(links, 'firmware', `enrolment ${name}`, (finding) => checkSet(files, read, trust, finding))
  if (sets.size > MAX_SETS)
    await checkLink(links, 'firmware', 'enrolment', ({ wrong }) =>
      wrong(`${sets.size} sets of keys are more than the ${MAX_SETS} checked`),
    )
}

interface Variable {
  /** Certificates it enters. */
  certificates: Uint8Array[]
  update: { name: SecureBootVariable; vendor: string; time: number; payload: Uint8Array }
  signature: Uint8Array
}

function checkSet(files: ReadonlyMap<string, FatEntry>, read: ReadAt, trust: Trust, { evidence, wrong }: Finding): void {
  const variables = new Map<string, Variable>()
  for (const [name, entry] of files) {
    try {
      if (!(name in SECURE_BOOT_VARIABLES)) throw new Fault('format', 'it is no Secure Boot variable')
      variables.set(name, decodeVariable(name as SecureBootVariable, readFile(entry, read, MAX_AUTH_BYTES)))
    } catch (error) {
      if (!(error instanceof Fault) || error.code === 'host') throw error
      wrong(`${name}: ${error.message}`)
    }
  }
  for (const name of ['PK', 'KEK', 'db']) if (!files.has(name)) wrong(`there is no ${name}`)
  const [pk, kek, db, dbx] = ['PK', 'KEK', 'db', 'dbx'].map((name) => variables.get(name))
  if (pk && pk.certificates.length !== 1) wrong(`PK holds ${pk.certificates.length} certificates, expected 1`)
  const signedBy: [Variable | undefined, Variable | undefined, string][] = [
    [pk, pk, 'itself'],
    [kek, pk, 'PK'],
    [db, kek, 'KEK'],
    [dbx, kek, 'KEK'],
  ]
  for (const [variable, by, who] of signedBy) {
    if (!variable || !by) continue
    for (const problem of checkSignature(variable, by.certificates))
      wrong(`${variable.update.name} is not signed by ${who}: ${problem}`)
  }
  const expected = { PK: trust.pk, KEK: trust.kek, db: [...trust.db, ...trust.verity] }
  for (const [name, certificates] of Object.entries(expected)) {
    const variable = variables.get(name)
    if (!variable || !certificates) continue
    for (const one of variable.certificates) if (!includesBytes(certificates, one)) wrong(`${name} lets in ${nameOf(one)}`)
    for (const one of certificates) if (!includesBytes(variable.certificates, one)) wrong(`${name} lacks ${nameOf(one)}`)
    evidence(`${name} is ${variable.certificates.map(nameOf).join(' and ')}`)
  }
}

/** Decodes a variable. Nothing but certificates may let programs in: a list of digests would be a door beside them. */
function decodeVariable(name: SecureBootVariable, bytes: Uint8Array): Variable {
  const { time, signature, payload } = decodeVariableUpdate(bytes)
  const lists = decodeSignatureLists(payload)
  const other = lists.find(({ type }) => type !== EFI_GUID.certX509)
  if (other && name !== 'dbx') throw new Fault('format', `it holds a list of type ${other.type}, expected X.509 certificates`)
  const certificates = name === 'dbx' ? [] : lists.flatMap(({ entries }) => entries.map(({ data }) => data))
  return { certificates, update: { name, vendor: SECURE_BOOT_VARIABLES[name], time, payload }, signature }
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
