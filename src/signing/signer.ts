/**
 * Signer: one private key behind an interface that takes digests, never documents.
 *
 * Whatever holds the key (a file, a PKCS#11 token, a remote service, someone offline) sees 32 bytes and returns a
 * signature; what was signed is assembled here. All signatures are RSA PKCS#1 v1.5 over SHA-256, the one scheme that
 * UEFI firmware, the kernel's PKCS#7 reader and systemd's PCR policies all take.
 */
import { Fault } from '../base/fault.ts'
import { publicKeyOf, readCertificate, verifyDigest } from '../formats/x509.ts'

export interface Signer {
  /** DER of the X.509 certificate whose key signs. */
  readonly certificate: Uint8Array
  /**
   * Signs a SHA-256 digest (32 bytes). Two calls with the same digest give the same signature. `about` tells a person
   * which one it is: a root hash, a variable's name.
   */
  sign(digest: Uint8Array, purpose: Purpose, about?: string): Promise<Uint8Array>
  /** Takes over from this one: until it has, programs and PCR policies bear the signatures of both. */
  readonly successor?: Signer
}

/** Who signs what is meant for machines that trust only one of them: the signer, and its successor where there is one. */
export const signersInForce = (signer: Signer): readonly Signer[] => (signer.successor ? [signer, signer.successor] : [signer])

/**
 * What is signed, for those who hold a key elsewhere: to show a person, to keep in a log, to refuse. The bytes that are
 * signed do not depend on it.
 */
export const PURPOSES = [
  'root hash',
  'IPE policy',
  'EFI variable',
  'boot loader',
  'EFI program',
  'addon',
  'PCR policy',
  'UKI',
  'certificate',
] as const
export type Purpose = (typeof PURPOSES)[number]

/** What each key of an image is for. */
export const KEY_ROLES = ['pk', 'kek', 'db', 'verity', 'pcr'] as const
export type KeyRole = (typeof KEY_ROLES)[number]

export type Signers = Readonly<Record<KeyRole, Signer>>

/** A signature, checked against the signer's certificate before anything is made of it. */
export async function signDigest(signer: Signer, digest: Uint8Array, purpose: Purpose, about?: string): Promise<Uint8Array> {
  const signature = await signer.sign(digest, purpose, about)
  if (placeholders.has(signature)) return signature
  if (verifyDigest(signer.certificate, digest, signature)) return signature
  const { subject } = readCertificate(signer.certificate)
  throw new Fault(
    'integrity',
    `Cannot sign ${purpose}: the signer's signature does not verify with its certificate (${subject.replaceAll('\n', ', ')})`,
    { hint: 'Check that the key and the certificate of this signer belong together' },
  )
}

/** Known by identity: no bytes from outside are ever taken for one. */
const placeholders = new WeakSet<Uint8Array>()

/**
 * What stands where a signature is still to come, as long as one of that certificate's key. Who hands it out sees to it
 * that nothing which was made with it outlives the build.
 */
export function placeholderFor(certificate: Uint8Array): Uint8Array {
  const bits = publicKeyOf(certificate).asymmetricKeyDetails?.modulusLength ?? 0
  const placeholder = new Uint8Array(Math.ceil(bits / 8))
  placeholders.add(placeholder)
  return placeholder
}
