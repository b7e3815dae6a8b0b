/**
 * Authenticode: the signature of a PE image, which firmware checks against db.
 *
 * Spec:   Microsoft "Windows Authenticode Portable Executable Signature Format"; UEFI 2.10 §32.2
 * Oracle: `sbverify --cert`, `osslsigncode verify`
 * Limits: SHA-256; signatures are appended to the certificate table, never nested; only PKCS#7 entries are decoded.
 */
import { createHash } from 'node:crypto'
import { Fault } from '../base/fault.ts'
import { alignUp } from '../base/size.ts'
import {
  attachSignature,
  certificateOf,
  checkSigner,
  decodeSignedData,
  type PreparedSignature,
  prepareWithAttributes,
  type SignedData,
} from './cms.ts'
import { contextTag, derReader, encodeDer, formatOid, octetString, oid, sequence, TAG } from './der.ts'
import { decodePe, type Pe, patchCertificateTable, patchCheckSum } from './pe.ts'
import { constant, struct, u16le, u32le } from './struct.ts'
import { OID, SHA256 } from './x509.ts'

const SPC_INDIRECT_DATA = '1.3.6.1.4.1.311.2.1.4'
const SPC_PE_IMAGE_DATA = '1.3.6.1.4.1.311.2.1.15'

// biome-ignore format: table
const winCertificate = struct('WIN_CERTIFICATE', {
  length:   u32le, // with this header, without padding
  revision: constant(Uint8Array.of(0x00, 0x02)),
  type:     u16le,
})
const PKCS_SIGNED_DATA = 2
const ALIGNMENT = 8
const MAX_SIGNATURES = 16

/** SHA-256 of an image without its checksum and signatures: what is signed, listed in db and dbx, and measured. */
export function authenticodeDigest(image: Uint8Array, pe: Pe = decodePe(image)): Buffer {
  const end = pe.certificateTable.offset || image.length
  if (pe.certificateTable.offset && end + pe.certificateTable.sizeBytes !== image.length)
    throw new Fault('format', 'Cannot hash PE image: its certificate table is not at its end')
  const hash = createHash('sha256')
  hash.update(image.subarray(0, pe.at.checkSum))
  hash.update(image.subarray(pe.at.checkSum + 4, pe.at.certificateEntry))
  hash.update(image.subarray(pe.at.certificateEntry + 8, pe.sizeOfHeaders))
  // Sections in file order, then what follows them. They neither overlap nor, in any image firmware sees, have gaps.
  let at = pe.sizeOfHeaders
  let hashed = pe.sizeOfHeaders
  for (const section of pe.sections.toSorted((a, b) => a.pointerToRawData - b.pointerToRawData)) {
    if (section.sizeOfRawData === 0) continue
    at = section.pointerToRawData
    hash.update(image.subarray(at, at + section.sizeOfRawData))
    hashed += section.sizeOfRawData
  }
  if (end > hashed) hash.update(image.subarray(hashed, end))
  if (!pe.certificateTable.offset) hash.update(new Uint8Array(alignUp(end, ALIGNMENT) - end))
  return hash.digest()
}

/** What is to be signed for an image of this digest. Without `signingTime`, depends on the image alone. */
export function prepareAuthenticode(imageDigest: Uint8Array, signingTime?: number): PreparedSignature {
  return prepareWithAttributes(SPC_INDIRECT_DATA, spcIndirectData(imageDigest), signingTime)
}

/** The bytes to append to an image, and where the image's certificate table then is. */
export interface CertificateTable {
  offset: number
  sizeBytes: number
  /** Padding up to `offset` (for an image that had no table) and the new entry. */
  tail: Uint8Array
}

export function encodeCertificateEntry(
  image: Uint8Array,
  pe: Pe,
  prepared: PreparedSignature,
  signed: { certificate: Uint8Array; signature: Uint8Array },
): CertificateTable {
  const der = attachSignature(prepared, signed.certificate, signed.signature)
  const length = winCertificate.size + der.length
  const header = winCertificate.encode({ length, type: PKCS_SIGNED_DATA })
  const entry = Buffer.concat([header, der], alignUp(length, ALIGNMENT))
  const { offset, sizeBytes } = pe.certificateTable
  if (offset === 0) {
    const start = alignUp(image.length, ALIGNMENT)
    return { offset: start, sizeBytes: entry.length, tail: Buffer.concat([new Uint8Array(start - image.length), entry]) }
  }
  return { offset, sizeBytes: sizeBytes + entry.length, tail: entry }
}

/** Signs in place: `image` is a prefix of `buffer`, which has room for the table after it. Gives back the whole image. */
export function attachAuthenticode(buffer: Uint8Array, imageSize: number, pe: Pe, table: CertificateTable): Uint8Array {
  const signedSize = imageSize + table.tail.length
  if (signedSize > buffer.length)
    throw new Fault('format', `Cannot attach signature: it needs ${signedSize} bytes, the buffer has ${buffer.length}`)
  buffer.set(table.tail, imageSize)
  const image = buffer.subarray(0, signedSize)
  patchCertificateTable(image, pe, table)
  patchCheckSum(image, pe)
  return image
}

/** The signatures of an image, in the order of its table; none when it is not signed. */
export function decodeSignatures(image: Uint8Array, pe: Pe = decodePe(image)): SignedData[] {
  const { offset, sizeBytes } = pe.certificateTable
  const table = image.subarray(offset, offset + sizeBytes)
  const signatures: SignedData[] = []
  for (let at = 0, count = 0; at < table.length; count++) {
    if (count === MAX_SIGNATURES) throw new Fault('format', `Cannot read certificate table: more than ${MAX_SIGNATURES} entries`)
    const { length, type } = winCertificate.decode(table, at)
    if (length < winCertificate.size || length > table.length - at)
      throw new Fault('format', `Cannot read WIN_CERTIFICATE at ${at}: its length is ${length}, ${table.length - at} are left`)
    if (type === PKCS_SIGNED_DATA)
      signatures.push(decodeSignedData(unpadded(table.subarray(at + winCertificate.size, at + length))))
    at = Math.min(table.length, at + alignUp(length, ALIGNMENT))
  }
  return signatures
}

/** The image digest a signature was made for. */
export function signedImageDigest(signature: SignedData): Uint8Array {
  if (signature.contentType !== SPC_INDIRECT_DATA || !signature.content)
    throw new Fault('format', `Cannot read Authenticode signature: its content type is ${signature.contentType}`)
  const outer = derReader(signature.content, 'SpcIndirectData')
  const body = outer.enter('content', TAG.sequence)
  outer.end()
  body.take('data', TAG.sequence)
  const info = body.enter('digestInfo', TAG.sequence)
  body.end()
  const algorithm = formatOid(info.enter('algorithm', TAG.sequence).take('oid', TAG.oid).content)
  if (algorithm !== OID.sha256)
    throw new Fault('format', `Cannot read Authenticode signature: its digest is ${algorithm}, expected SHA-256`)
  const { content } = info.take('digest', TAG.octetString)
  info.end()
  return content
}

export interface AuthenticodeSignature {
  /** The certificate that signed, where it is carried. */
  certificate?: Uint8Array
  /** All that came along: a chain up to a certificate authority. */
  carried: Uint8Array[]
  /** Why the signature does not hold for this image; empty when it does. */
  problems: string[]
}

/** Judges each signature against the image and the certificate it carries, not whether that certificate is trusted. */
export function checkAuthenticode(image: Uint8Array): AuthenticodeSignature[] {
  const pe = decodePe(image)
  const digest = authenticodeDigest(image, pe)
  return decodeSignatures(image, pe).flatMap((signed) => {
    const same = digest.equals(signedImageDigest(signed))
    return signed.signers.map((signer) => {
      const certificate = certificateOf(signed, signer)
      const carried = signed.certificates
      if (!certificate) return { carried, problems: ['the certificate it names is not carried'] }
      const problems = checkSigner(signed, signer, certificate)
      return { certificate, carried, problems: same ? problems : ['the image is not the one that was signed', ...problems] }
    })
  })
}

/** The digest with its type and Microsoft's fixed stand-in for a file name. */
function spcIndirectData(imageDigest: Uint8Array): Uint8Array {
  const obsolete = Buffer.from('<<<Obsolete>>>', 'utf16le').swap16()
  const link = encodeDer(contextTag(0), encodeDer(contextTag(2), encodeDer(0x80, obsolete)))
  const imageData = sequence(encodeDer(TAG.bitString, Uint8Array.of(0)), link)
  return sequence(sequence(oid(SPC_PE_IMAGE_DATA), imageData), sequence(SHA256, octetString(imageDigest)))
}

/** osslsigncode counts an entry's padding in its length: up to 7 zero bytes may follow the signature. */
function unpadded(bytes: Uint8Array): Uint8Array {
  const { bytes: element } = derReader(bytes, 'WIN_CERTIFICATE').take('signature', TAG.sequence)
  const rest = bytes.subarray(element.length)
  return rest.length < ALIGNMENT && rest.every((byte) => byte === 0) ? element : bytes
}
