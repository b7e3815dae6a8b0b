/** Whom an image's signatures must be by, what must be signed at all, and the common questions about certificates. */

import { createHash, type KeyObject, type X509Certificate } from 'node:crypto'
import { dayOf } from '../base/day.ts'
import { readCertificate } from '../formats/x509.ts'
import { expiryOf } from '../signing/expiry.ts'
import type { Finding } from './link.ts'

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
  /** What a build promised, which is all that is judged then. Where absent, everything is: the whole chain, and every hole. */
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

export const sameBytes = (a: Uint8Array, b: Uint8Array): boolean => Buffer.compare(a, b) === 0

export const includesBytes = (all: readonly Uint8Array[], one: Uint8Array): boolean => all.some((other) => sameBytes(other, one))

/** The chain from a certificate up to one of `roots`, through those that came along: firmware takes what a CA in db issued. */
export function leadsTo(certificate: Uint8Array, roots: readonly Uint8Array[], carried: readonly Uint8Array[] = []): boolean {
  let current = certificate
  for (let depth = 0; depth < 8; depth++) {
    if (includesBytes(roots, current)) return true
    const issuer = [...roots, ...carried].find((one) => !sameBytes(one, current) && issuedBy(current, one))
    if (!issuer) return false
    current = issuer
  }
  return false
}

const parsed = new WeakMap<Uint8Array, X509Certificate | undefined>()

/** Each certificate is read once: of a hostile image there may be many, and each is asked about by each. */
function read(certificate: Uint8Array): X509Certificate | undefined {
  if (!parsed.has(certificate)) {
    try {
      parsed.set(certificate, readCertificate(certificate))
    } catch {
      parsed.set(certificate, undefined)
    }
  }
  return parsed.get(certificate)
}

function issuedBy(certificate: Uint8Array, issuer: Uint8Array): boolean {
  try {
    const [a, b] = [read(certificate), read(issuer)]
    return a !== undefined && b !== undefined && a.checkIssued(b) && a.verify(b.publicKey)
  } catch {
    return false // A key that cannot be read.
  }
}

/** Whether it is a certificate at all. */
export const isReadable = (certificate: Uint8Array): boolean => read(certificate) !== undefined

/** SHA-256, 64 hexadecimal digits. */
export const fingerprintOf = (certificate: Uint8Array): string => createHash('sha256').update(certificate).digest('hex')

/** What is wrong with a certificate's time, and a word of those that end soon. */
export function judgeValidity(certificate: Uint8Array, now: number, { evidence, wrong }: Finding): void {
  const { daysLeft, state, notAfter } = expiryOf(certificate, now)
  const day = dayOf(notAfter)
  const notBefore = readCertificate(certificate).validFromDate.getTime() / 1000
  if (state === 'expired') wrong(`${nameOf(certificate)} expired ${day}`, 'bisque keys rotate')
  else if (notBefore > now) wrong(`${nameOf(certificate)} is not valid before ${dayOf(notBefore)}`)
  else if (state === 'ends soon') evidence(`note: ${nameOf(certificate)} expires ${day}, in ${daysLeft} days`)
}

/** A certificate for people: its subject and the beginning of its SHA-256. */
export function nameOf(certificate: Uint8Array): string {
  const { subject, fingerprint256 } = readCertificate(certificate)
  const name = (subject ?? 'no subject').replaceAll('\n', ', ')
  return `${name} (${fingerprint256.replaceAll(':', '').slice(0, 12).toLowerCase()})`
}
