/** Whom an image's signatures must be by, and the common questions about certificates. */
import type { KeyObject } from 'node:crypto'
import { readCertificate } from '../formats/x509.ts'

export interface Trust {
  /** DER of the certificates that EFI programs may be signed with. */
  db: readonly Uint8Array[]
  /** DER of those that root hashes may be signed with. */
  verity: readonly Uint8Array[]
  /** The keys PCR policies may be signed with, or DER of their certificates. */
  pcr: readonly (KeyObject | Uint8Array)[]
  /** DER of the certificates an enrolment must bring as PK and KEK; where absent, it may bring any. */
  pk?: readonly Uint8Array[]
  kek?: readonly Uint8Array[]
}

export const sameBytes = (a: Uint8Array, b: Uint8Array): boolean => Buffer.compare(a, b) === 0

export const includesBytes = (all: readonly Uint8Array[], one: Uint8Array): boolean => all.some((other) => sameBytes(other, one))

/** A certificate for people: its subject and the beginning of its SHA-256. */
export function nameOf(certificate: Uint8Array): string {
  const { subject, fingerprint256 } = readCertificate(certificate)
  const name = (subject ?? 'no subject').replaceAll('\n', ', ')
  return `${name} (${fingerprint256.replaceAll(':', '').slice(0, 12).toLowerCase()})`
}
