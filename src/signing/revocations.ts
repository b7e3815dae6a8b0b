/**
 * What must not start any more although a trusted key signed it: images that were withdrawn, certificates of keys that are
 * no longer ours. They are kept in the folder of keys, so that every later image's enrolment has them, and entered into
 * firmware as dbx, which only ever grows.
 */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { isSha256, type Sha256 } from '../base/digest.ts'
import { Fault } from '../base/fault.ts'
import { EFI_GUID, type SignatureList } from '../formats/esl.ts'
import { readCertificate } from '../formats/x509.ts'
import { readSmall } from './certificate.ts'
import { replaceFile } from './folder.ts'

export type Revocation = {
  /** For people: a file's name, a certificate's subject. */
  name: string
  /** Day it was revoked, `2026-11-23`. */
  on: string
} & (
  | {
      /** Authenticode hash of an EFI program. */
      program: Sha256
    }
  | {
      /** DER in base64. */
      certificate: string
    }
)

export const REVOKED_FILE = 'revoked.json'

export async function loadRevocations(directory: string): Promise<Revocation[]> {
  const path = join(directory, REVOKED_FILE)
  if (!existsSync(path)) return []
  return parseRevocations(await readSmall(path, { secret: false, kind: 'revocations' }), path)
}

export function parseRevocations(text: string, from: string): Revocation[] {
  const wrong = (why: string) => new Fault('format', `Cannot read revocations ${from}: ${why}`)
  let all: unknown
  try {
    all = JSON.parse(text)
  } catch (cause) {
    throw wrong((cause as Error).message)
  }
  if (!Array.isArray(all)) throw wrong('it is no list')
  return all.map((one, i) => {
    const { name, on, program, certificate } = (one ?? {}) as Record<string, unknown>
    if (typeof name !== 'string' || typeof on !== 'string') throw wrong(`entry ${i} lacks a name or a day`)
    if (typeof program === 'string' && isSha256(program)) return { name, on, program }
    if (typeof certificate !== 'string') throw wrong(`entry ${i} has neither a program's SHA-256 nor a certificate`)
    readCertificate(Buffer.from(certificate, 'base64'))
    return { name, on, certificate }
  })
}

/** Those of them that are not revoked yet, each once. */
export async function unknownRevocations(directory: string, all: readonly Revocation[]): Promise<Revocation[]> {
  const known = (await loadRevocations(directory)).map(idOf)
  return all.filter((one, i) => !known.includes(idOf(one)) && all.findIndex((other) => idOf(other) === idOf(one)) === i)
}

/** Remembers them beside those there are. */
export async function addRevocations(directory: string, all: readonly Revocation[]): Promise<void> {
  const fresh = await unknownRevocations(directory, all)
  if (fresh.length === 0) return
  const whole = [...(await loadRevocations(directory)), ...fresh]
  await replaceFile(join(directory, REVOKED_FILE), `${JSON.stringify(whole, null, 2)}\n`)
}

/** What a revocation is told apart by: the hash, or the certificate. */
const idOf = (one: Revocation): string => ('program' in one ? one.program : one.certificate)

/** What dbx has for them: one list of hashes, and one for each certificate. */
export function revocationLists(owner: string, revocations: readonly Revocation[]): SignatureList[] {
  const hashes = revocations.flatMap((one) => ('program' in one ? [{ owner, data: Buffer.from(one.program, 'hex') }] : []))
  const certificates = revocations.flatMap((one) => ('certificate' in one ? [Buffer.from(one.certificate, 'base64')] : []))
  return [
    ...(hashes.length > 0 ? [{ type: EFI_GUID.certSha256, entries: hashes }] : []),
    ...certificates.map((data) => ({ type: EFI_GUID.certX509, entries: [{ owner, data }] })),
  ]
}
