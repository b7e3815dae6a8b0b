/**
 * X.509 certificates: making self-signed ones, and the few fields of any that signatures need.
 *
 * Spec:   RFC 5280 §4.1, §4.2; RFC 8017 §9.2 (the signature)
 * Oracle: `openssl x509 -text`, `openssl verify -x509_strict`
 * Limits: RSA with SHA-256 only; a name is one common name; no chain building. Reading beyond issuer and serial number
 *         is left to node:crypto.
 */
import { constants, createHash, type KeyObject, publicDecrypt, X509Certificate } from 'node:crypto'
import { Fault } from '../base/fault.ts'
import {
  contextTag,
  derNull,
  derReader,
  derTime,
  encodeDer,
  formatOid,
  integer,
  octetString,
  oid,
  sequence,
  setOf,
  TAG,
} from './der.ts'

// biome-ignore format: table
export const OID = {
  rsaEncryption:  '1.2.840.113549.1.1.1',
  sha256WithRsa:  '1.2.840.113549.1.1.11',
  sha256:         '2.16.840.1.101.3.4.2.1',
  commonName:     '2.5.4.3',
  subjectKey:     '2.5.29.14',
  keyUsage:       '2.5.29.15',
  constraints:    '2.5.29.19',
  authorityKey:   '2.5.29.35',
  extendedUsage:  '2.5.29.37',
  codeSigning:    '1.3.6.1.5.5.7.3.3',
} as const

export interface CertificatePlan {
  commonName: string
  /** At most 20 bytes, of which the first is 0x01…0x7f. */
  serialNumber: Uint8Array
  /** Seconds since 1970. */
  notBefore: number
  notAfter: number
  publicKey: KeyObject
  /** Firmware and the kernel take a key into their list only from a certificate that may issue itself. */
  authority: boolean
  codeSigning: boolean
}

/** A certificate without its signature: sign `digest`, then `attachCertificateSignature()`. */
export interface PreparedCertificate {
  body: Uint8Array
  digest: Uint8Array
}

/** A self-signed version 3 certificate, ready to be signed. */
export function prepareCertificate(plan: CertificatePlan): PreparedCertificate {
  const name = sequence(setOf(sequence(oid(OID.commonName), encodeDer(0x0c, Buffer.from(plan.commonName)))))
  const body = sequence(
    encodeDer(contextTag(0), integer(2)),
    encodeDer(TAG.integer, plan.serialNumber),
    SHA256_WITH_RSA,
    name,
    sequence(derTime(plan.notBefore), derTime(plan.notAfter)),
    name,
    plan.publicKey.export({ type: 'spki', format: 'der' }),
    encodeDer(contextTag(3), sequence(...extensions(plan))),
  )
  return { body, digest: sha256Bytes(body) }
}

export const attachCertificateSignature = (prepared: PreparedCertificate, signature: Uint8Array): Uint8Array =>
  sequence(prepared.body, SHA256_WITH_RSA, encodeDer(TAG.bitString, Uint8Array.of(0), signature))

/** The two DER elements by which PKCS#7 names a certificate. */
export interface IssuerAndSerial {
  issuer: Uint8Array
  serialNumber: Uint8Array
}

export function decodeIssuerAndSerial(certificate: Uint8Array): IssuerAndSerial {
  const outer = derReader(certificate, 'certificate')
  const body = outer.enter('outer', TAG.sequence).enter('body', TAG.sequence)
  outer.end()
  body.takeIf('version', contextTag(0))
  const serialNumber = body.take('serialNumber', TAG.integer).bytes
  body.take('signature', TAG.sequence)
  return { issuer: body.take('issuer', TAG.sequence).bytes, serialNumber }
}

/** The certificate as node:crypto reads it; a Fault where it cannot. */
export function readCertificate(certificate: Uint8Array | string): X509Certificate {
  try {
    return new X509Certificate(certificate)
  } catch (cause) {
    throw new Fault('format', `Cannot read certificate: ${(cause as Error).message}`, { cause })
  }
}

/** The names of key usage bits, most significant first. */
const KEY_USAGES = [
  'digitalSignature',
  'nonRepudiation',
  'keyEncipherment',
  'dataEncipherment',
  'keyAgreement',
  'keyCertSign',
  'cRLSign',
  'encipherOnly',
  'decipherOnly',
] as const

/** What the key may be used for, by the key usage extension; `undefined` where there is none. */
export function keyUsageOf(certificate: Uint8Array): string[] | undefined {
  const body = derReader(certificate, 'certificate').enter('outer', TAG.sequence).enter('body', TAG.sequence)
  while (body.peek() !== undefined && body.peek() !== contextTag(3)) body.take('field')
  if (body.peek() === undefined) return undefined
  const all = body.enter('extensions', contextTag(3)).enter('list', TAG.sequence)
  while (all.peek() !== undefined) {
    const one = all.enter('extension', TAG.sequence)
    const id = formatOid(one.take('id', TAG.oid).content)
    one.takeIf('critical', TAG.boolean)
    const value = one.take('value', TAG.octetString).content
    if (id !== OID.keyUsage) continue
    const [, ...bits] = derReader(value, 'key usage').take('bits', TAG.bitString).content
    return KEY_USAGES.filter((_, i) => ((bits[i >> 3] ?? 0) & (0x80 >> (i & 7))) !== 0)
  }
  return undefined
}

/** What RSA PKCS#1 v1.5 encrypts for a SHA-256 digest. */
export const digestInfo = (digest: Uint8Array): Uint8Array => sequence(SHA256, octetString(digest))

/** The certificate's key; a Fault where node:crypto, which reads it only now, cannot. */
export function publicKeyOf(certificate: Uint8Array): KeyObject {
  const read = readCertificate(certificate)
  try {
    return read.publicKey
  } catch (cause) {
    throw new Fault('format', `Cannot read certificate: ${(cause as Error).message}`, { cause })
  }
}

/** Whether `signature` is the certificate's key's RSA PKCS#1 v1.5 signature of a SHA-256 digest. */
export function verifyDigest(certificate: Uint8Array, digest: Uint8Array, signature: Uint8Array): boolean {
  const key = publicKeyOf(certificate)
  if (key.asymmetricKeyType !== 'rsa') return false
  try {
    return publicDecrypt({ key, padding: constants.RSA_PKCS1_PADDING }, signature).equals(digestInfo(digest))
  } catch {
    return false
  }
}

export const sha256Bytes = (bytes: Uint8Array): Buffer => createHash('sha256').update(bytes).digest()

/** AlgorithmIdentifiers. */
export const SHA256 = sequence(oid(OID.sha256), derNull)
export const RSA_ENCRYPTION = sequence(oid(OID.rsaEncryption), derNull)
const SHA256_WITH_RSA = sequence(oid(OID.sha256WithRsa), derNull)

function extensions(plan: CertificatePlan): Uint8Array[] {
  const keyBits = plan.publicKey.export({ type: 'pkcs1', format: 'der' })
  const keyId = createHash('sha1').update(keyBits).digest()
  const extension = (id: string, critical: boolean, value: Uint8Array) =>
    sequence(oid(id), ...(critical ? [encodeDer(TAG.boolean, Uint8Array.of(0xff))] : []), octetString(value))
  // Bits count from the most significant one: digitalSignature is 0, keyCertSign 5.
  const usage = plan.authority ? Uint8Array.of(2, 0x84) : Uint8Array.of(7, 0x80)
  const all = [
    extension(OID.constraints, true, sequence(...(plan.authority ? [encodeDer(TAG.boolean, Uint8Array.of(0xff))] : []))),
    extension(OID.keyUsage, true, encodeDer(TAG.bitString, usage)),
    extension(OID.subjectKey, false, octetString(keyId)),
    extension(OID.authorityKey, false, sequence(encodeDer(0x80, keyId))),
  ]
  if (plan.codeSigning) all.push(extension(OID.extendedUsage, false, sequence(oid(OID.codeSigning))))
  return all
}
