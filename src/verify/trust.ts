/** Whom an image's signatures must be by, what must be signed at all, and the common questions about certificates. */
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
  /** What the chain must consist of; where absent, all of it. */
  chain?: Chain
}

/** What an image's recipe promises. A link that was not promised may be missing; one that is there must hold all the same. */
export interface Chain {
  /** The file system under dm-verity, pinned by the command line. */
  verity: 'usr' | 'root' | undefined
  /** Its root hash is signed. */
  signature: boolean
  /** There is something to boot: a UKI on an ESP. */
  bootable: boolean
  /** EFI programs are signed. */
  secureBoot: boolean
  /** The UKI's default profile has signed PCR policies. */
  policies: boolean
  /** systemd-boot is there to start it, rather than firmware by itself. */
  loader: boolean
  /** Programs that others signed come with their signatures, for firmware that trusts those. */
  signedByOthers: boolean
}

export const FULL_CHAIN: Chain = {
  ...{ verity: 'usr', signature: true, bootable: true, secureBoot: true, policies: true },
  ...{ loader: true, signedByOthers: false },
}

export const chainOf = ({ chain }: Trust): Chain => chain ?? FULL_CHAIN

export const sameBytes = (a: Uint8Array, b: Uint8Array): boolean => Buffer.compare(a, b) === 0

export const includesBytes = (all: readonly Uint8Array[], one: Uint8Array): boolean => all.some((other) => sameBytes(other, one))

/** A certificate for people: its subject and the beginning of its SHA-256. */
export function nameOf(certificate: Uint8Array): string {
  const { subject, fingerprint256 } = readCertificate(certificate)
  const name = (subject ?? 'no subject').replaceAll('\n', ', ')
  return `${name} (${fingerprint256.replaceAll(':', '').slice(0, 12).toLowerCase()})`
}
