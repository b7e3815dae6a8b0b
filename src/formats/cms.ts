/**
 * PKCS#7 SignedData (CMS), version 1: the envelope of root-hash, EFI-variable, IPE and Authenticode signatures.
 *
 * Spec:   RFC 2315 §9, RFC 5652 §5; attributes RFC 5652 §11
 * Oracle: `openssl cms -verify -inform der`, `openssl asn1parse -inform der`
 * Limits: RSA PKCS#1 v1.5 with SHA-256; a signer is named by issuer and serial number; no unsigned attributes are
 *         written (they are skipped on reading), no CRLs, no streaming. Certificate chains are not judged here.
 *
 * Signing has three steps, so that the key may be anywhere: *prepare* what is signed, have its `digest` signed, *attach*
 * the signature and its certificate. What `prepare` returns is plain values and can be kept in a file in between.
 */
import { Fault } from '../base/fault.ts'
import {
  contextTag,
  type DerReader,
  derReader,
  derTime,
  encodeDer,
  formatOid,
  integer,
  octetString,
  oid,
  parseDerTime,
  sequence,
  setOf,
  TAG,
} from './der.ts'
import { decodeIssuerAndSerial, OID, RSA_ENCRYPTION, SHA256, sha256Bytes, verifyDigest } from './x509.ts'

// biome-ignore format: table
export const CMS_OID = {
  data:          '1.2.840.113549.1.7.1',
  signedData:    '1.2.840.113549.1.7.2',
  contentType:   '1.2.840.113549.1.9.3',
  messageDigest: '1.2.840.113549.1.9.4',
  signingTime:   '1.2.840.113549.1.9.5',
} as const

/** A certificate and attributes bound many times over what any real signature needs. */
const MAX_CERTIFICATES = 64
const MAX_SIGNERS = 16
const MAX_ATTRIBUTES = 64

/** Everything of a SignedData but the signature. */
export interface PreparedSignature {
  /** SHA-256 of what is signed: the only thing a Signer sees. */
  digest: Uint8Array
  /** DER of the encapsulated content info. */
  contentInfo: Uint8Array
  /** DER of the signed attributes as a SET, where there are some. */
  signedAttributes?: Uint8Array
}

/** A signature over bytes that are kept elsewhere; no signed attributes. */
export const prepareDetached = (content: Uint8Array): PreparedSignature => ({
  digest: sha256Bytes(content),
  contentInfo: sequence(oid(CMS_OID.data)),
})

/** A signature that carries the signed bytes; no signed attributes. */
export const prepareEmbedded = (content: Uint8Array): PreparedSignature => ({
  digest: sha256Bytes(content),
  contentInfo: sequence(oid(CMS_OID.data), encodeDer(contextTag(0), octetString(content))),
})

/**
 * A signature over attributes that name the content's type and digest. `content` is one DER element; as PKCS#7 has it,
 * the digest covers it without its tag and length. Without `signingTime` the same input gives the same bytes at any time.
 */
export function prepareWithAttributes(contentType: string, content: Uint8Array, signingTime?: number): PreparedSignature {
  const element = derReader(content, 'content').take('outer')
  const attribute = (id: string, value: Uint8Array) => sequence(oid(id), encodeDer(TAG.set, value))
  const signedAttributes = setOf(
    attribute(CMS_OID.contentType, oid(contentType)),
    attribute(CMS_OID.messageDigest, octetString(sha256Bytes(element.content))),
    ...(signingTime === undefined ? [] : [attribute(CMS_OID.signingTime, derTime(signingTime))]),
  )
  return {
    digest: sha256Bytes(signedAttributes),
    contentInfo: sequence(oid(contentType), encodeDer(contextTag(0), content)),
    signedAttributes,
  }
}

/** The whole SignedData, in its ContentInfo. */
export function attachSignature(prepared: PreparedSignature, certificate: Uint8Array, signature: Uint8Array): Uint8Array {
  const { issuer, serialNumber } = decodeIssuerAndSerial(certificate)
  const attributes = prepared.signedAttributes
  const signerInfo = sequence(
    integer(1),
    sequence(issuer, serialNumber),
    SHA256,
    ...(attributes ? [retagged(contextTag(0), attributes)] : []),
    RSA_ENCRYPTION,
    octetString(signature),
  )
  const signedData = sequence(
    integer(1),
    setOf(SHA256),
    prepared.contentInfo,
    encodeDer(contextTag(0), certificate),
    setOf(signerInfo),
  )
  return sequence(oid(CMS_OID.signedData), encodeDer(contextTag(0), signedData))
}

export interface SignedData {
  contentType: string
  /** The DER element inside the content's `[0]`; absent when the signature is detached. */
  content?: Uint8Array
  /** DER of each certificate carried. */
  certificates: Uint8Array[]
  signers: SignerInfo[]
}

export interface SignerInfo {
  issuer: Uint8Array
  serialNumber: Uint8Array
  digestAlgorithm: string
  signatureAlgorithm: string
  signature: Uint8Array
  /** What the signature covers when it is not the content itself. */
  attributes?: { digest: Uint8Array; contentType?: string; messageDigest?: Uint8Array; signingTime?: number }
}

/** Decodes a SignedData, with its ContentInfo or (as UEFI variables may have it) bare. Judges no signature. */
export function decodeSignedData(bytes: Uint8Array): SignedData {
  const outer = derReader(bytes, 'PKCS#7')
  let body = outer.enter('contentInfo', TAG.sequence)
  outer.end()
  if (body.peek() === TAG.oid) {
    const type = formatOid(body.take('contentType', TAG.oid).content)
    if (type !== CMS_OID.signedData) throw new Fault('format', `Cannot read PKCS#7 of type ${type}: expected signedData`)
    const explicit = body.enter('content', contextTag(0))
    body.end()
    body = explicit.enter('signedData', TAG.sequence)
    explicit.end()
  }
  body.take('version', TAG.integer)
  body.take('digestAlgorithms', TAG.set)
  const content = decodeContentInfo(body.enter('contentInfo', TAG.sequence))
  const certificates = decodeCertificates(body)
  body.takeIf('crls', contextTag(1))
  const signers = decodeSigners(body.enter('signerInfos', TAG.set))
  body.end()
  return { ...content, certificates, signers }
}

/** The carried certificate a signer names. */
export function certificateOf(signed: SignedData, signer: SignerInfo): Uint8Array | undefined {
  return signed.certificates.find((certificate) => {
    const { issuer, serialNumber } = decodeIssuerAndSerial(certificate)
    return Buffer.compare(issuer, signer.issuer) === 0 && Buffer.compare(serialNumber, signer.serialNumber) === 0
  })
}

/**
 * The problems of one signer's signature, none when it holds: over `content` (the detached bytes) or the carried content.
 * Says nothing about whether the certificate is trusted.
 */
export function checkSigner(signed: SignedData, signer: SignerInfo, certificate: Uint8Array, content?: Uint8Array): string[] {
  if (signer.digestAlgorithm !== OID.sha256) return [`its digest algorithm is ${signer.digestAlgorithm}, expected SHA-256`]
  if (![OID.rsaEncryption, OID.sha256WithRsa].some((id) => id === signer.signatureAlgorithm))
    return [`its signature algorithm is ${signer.signatureAlgorithm}, expected RSA`]
  const covered = content ?? (signed.content && derReader(signed.content, 'content').take('outer').content)
  if (!covered) return ['the signed content is neither carried nor given']
  const contentDigest = sha256Bytes(covered)
  const problems: string[] = []
  const { attributes } = signer
  if (attributes && attributes.contentType !== signed.contentType)
    problems.push(`its attributes name content type ${attributes.contentType}, the content has ${signed.contentType}`)
  if (attributes && !contentDigest.equals(attributes.messageDigest ?? new Uint8Array()))
    problems.push('the content is not the one that was signed')
  if (!verifyDigest(certificate, attributes?.digest ?? contentDigest, signer.signature))
    problems.push('its signature does not verify with the certificate')
  return problems
}

function decodeContentInfo(body: DerReader): { contentType: string; content?: Uint8Array } {
  const contentType = formatOid(body.take('contentType', TAG.oid).content)
  if (body.peek() === undefined) return { contentType }
  const explicit = body.enter('content', contextTag(0))
  const content = explicit.take('element').bytes
  explicit.end()
  body.end()
  return { contentType, content }
}

function decodeCertificates(body: DerReader): Uint8Array[] {
  if (body.peek() !== contextTag(0)) return []
  const list = body.enter('certificates', contextTag(0))
  const certificates: Uint8Array[] = []
  while (list.peek() !== undefined) {
    if (certificates.length === MAX_CERTIFICATES) throw tooMany('certificates', MAX_CERTIFICATES)
    certificates.push(list.take('certificate', TAG.sequence).bytes)
  }
  return certificates
}

function decodeSigners(list: DerReader): SignerInfo[] {
  const signers: SignerInfo[] = []
  while (list.peek() !== undefined) {
    if (signers.length === MAX_SIGNERS) throw tooMany('signers', MAX_SIGNERS)
    signers.push(decodeSigner(list.enter('signerInfo', TAG.sequence)))
  }
  return signers
}

function decodeSigner(body: DerReader): SignerInfo {
  body.take('version', TAG.integer)
  const name = body.enter('issuerAndSerialNumber', TAG.sequence)
  const issuer = name.take('issuer', TAG.sequence).bytes
  const serialNumber = name.take('serialNumber', TAG.integer).bytes
  name.end()
  const digestAlgorithm = algorithm(body.enter('digestAlgorithm', TAG.sequence))
  const attributes = body.takeIf('signedAttributes', contextTag(0))
  const signatureAlgorithm = algorithm(body.enter('signatureAlgorithm', TAG.sequence))
  const signature = body.take('signature', TAG.octetString).content
  body.takeIf('unsignedAttributes', contextTag(1))
  body.end()
  const signer = { issuer, serialNumber, digestAlgorithm, signatureAlgorithm, signature }
  return attributes ? { ...signer, attributes: decodeAttributes(attributes.bytes) } : signer
}

function decodeAttributes(bytes: Uint8Array): NonNullable<SignerInfo['attributes']> {
  const asSet = retagged(TAG.set, bytes)
  const list = derReader(asSet, 'PKCS#7').enter('signedAttributes', TAG.set)
  const found: NonNullable<SignerInfo['attributes']> = { digest: sha256Bytes(asSet) }
  const seen = new Set<string>()
  while (list.peek() !== undefined) {
    if (seen.size === MAX_ATTRIBUTES) throw tooMany('signed attributes', MAX_ATTRIBUTES)
    const attribute = list.enter('attribute', TAG.sequence)
    const type = formatOid(attribute.take('type', TAG.oid).content)
    const values = attribute.enter('values', TAG.set)
    attribute.end()
    if (seen.has(type)) throw new Fault('format', `Cannot read PKCS#7: its signed attribute ${type} is there twice`)
    seen.add(type)
    if (type === CMS_OID.contentType) found.contentType = formatOid(values.take('contentType', TAG.oid).content)
    else if (type === CMS_OID.messageDigest) found.messageDigest = values.take('messageDigest', TAG.octetString).content
    else if (type === CMS_OID.signingTime) found.signingTime = parseDerTime(values.take('signingTime'))
    else continue
    values.end()
  }
  return found
}

function algorithm(body: DerReader): string {
  return formatOid(body.take('algorithm', TAG.oid).content)
}

/** The same element under another tag, as IMPLICIT tagging wants. */
function retagged(tag: number, element: Uint8Array): Uint8Array {
  const copy = Uint8Array.from(element)
  copy[0] = tag
  return copy
}

const tooMany = (what: string, most: number) => new Fault('format', `Cannot read PKCS#7: it has more than ${most} ${what}`)
