/**
 * EFI signature lists and authenticated variables: what Secure Boot's PK, KEK, db and dbx are made of.
 *
 * Spec:   UEFI 2.10 §8.2.2 (authenticated variables), §32.4.1 (signature lists)
 * Oracle: `sig-list-to-certs`, `sbvarsign`, `efi-readvar`
 * Limits: lists of X.509 certificates and SHA-256 digests are written; others are read as opaque data. Updates are
 *         time-based with a SHA-256 PKCS#7 signature; the older counter-based kind is not known.
 */
import { Fault } from '../base/fault.ts'
import { guidBytes } from '../base/guid.ts'
import { attachSignature, type PreparedSignature, prepareDetached } from './cms.ts'
import { constant, guid, type Of, reserved, struct, u8, u16le, u32le } from './struct.ts'

// biome-ignore format: table
export const EFI_GUID = {
  global:           '8be4df61-93ca-11d2-aa0d-00e098032b8c',
  securityDatabase: 'd719b2cb-3d3a-4596-a3bc-dad00e67656f',
  certX509:         'a5c059a1-94e4-4aa7-87b5-ab155c2bf072',
  certSha256:       'c1c41626-504c-4092-aca9-41f936934328',
  certPkcs7:        '4aafd29d-68df-49ee-8aa9-347d375665a7',
} as const

/** The variables that hold signature lists, with the vendor GUID of each. */
export const SECURE_BOOT_VARIABLES = {
  PK: EFI_GUID.global,
  KEK: EFI_GUID.global,
  db: EFI_GUID.securityDatabase,
  dbx: EFI_GUID.securityDatabase,
} as const
export type SecureBootVariable = keyof typeof SECURE_BOOT_VARIABLES

/** Non-volatile, for boot services and the running system, time-based authenticated writes. */
export const VARIABLE_ATTRIBUTES = 0x27
export const APPEND_WRITE = 0x40

// biome-ignore format: table
const listHeader = struct('EFI_SIGNATURE_LIST', {
  type:          guid,
  listSize:      u32le,
  headerSize:    u32le,
  signatureSize: u32le, // of each entry, with its owner
})

// biome-ignore format: table
const efiTime = struct('EFI_TIME', {
  year:   u16le,
  month:  u8,
  day:    u8,
  hour:   u8,
  minute: u8,
  second: u8,
  _rest:  reserved(9), // nanosecond, time zone and daylight must be zero in a variable's time
})

// biome-ignore format: table
const authHeader = struct('WIN_CERTIFICATE_UEFI_GUID', {
  length:   u32le, // with this header
  revision: constant(Uint8Array.of(0x00, 0x02)),
  type:     constant(Uint8Array.of(0xf1, 0x0e)),
  certType: guid,
})

const OWNER_SIZE = 16
const MAX_LISTS = 4096

export interface SignatureList {
  /** GUID of what the entries are. */
  type: string
  entries: { owner: string; data: Uint8Array }[]
}

/** One list per certificate: certificates differ in size, the entries of a list must not. */
export const certificateLists = (owner: string, certificates: readonly Uint8Array[]): SignatureList[] =>
  certificates.map((data) => ({ type: EFI_GUID.certX509, entries: [{ owner, data }] }))

export function encodeSignatureLists(lists: readonly SignatureList[]): Uint8Array {
  return Buffer.concat(
    lists.map(({ type, entries }) => {
      const dataSize = entries[0]?.data.length ?? 0
      if (dataSize === 0 || entries.some(({ data }) => data.length !== dataSize))
        throw new Fault('format', 'Cannot encode EFI_SIGNATURE_LIST: its entries must be of one size and not empty')
      const signatureSize = OWNER_SIZE + dataSize
      const listSize = listHeader.size + entries.length * signatureSize
      const header = listHeader.encode({ type, listSize, headerSize: 0, signatureSize })
      return Buffer.concat([header, ...entries.flatMap(({ owner, data }) => [encodeGuid(owner), data])])
    }),
  )
}

export function decodeSignatureLists(bytes: Uint8Array): SignatureList[] {
  const lists: SignatureList[] = []
  for (let at = 0; at < bytes.length; ) {
    if (lists.length === MAX_LISTS) throw new Fault('format', `Cannot read EFI signature lists: more than ${MAX_LISTS}`)
    const { type, listSize, headerSize, signatureSize } = listHeader.decode(bytes, at)
    const body = listSize - listHeader.size - headerSize
    const fits = listSize <= bytes.length - at && body > 0 && signatureSize > OWNER_SIZE && body % signatureSize === 0
    if (!fits)
      throw new Fault(
        'format',
        `Cannot read EFI_SIGNATURE_LIST at offset ${at}: ${listSize} bytes with a header of ${headerSize} and entries of ${signatureSize} do not fit the ${bytes.length - at} bytes left`,
      )
    const entries: SignatureList['entries'] = []
    for (let entry = at + listHeader.size + headerSize; entry < at + listSize; entry += signatureSize)
      entries.push({ owner: guid.read(viewOf(bytes), entry), data: bytes.subarray(entry + OWNER_SIZE, entry + signatureSize) })
    lists.push({ type, entries })
    at += listSize
  }
  return lists
}

/** A write of a variable: what it is called, when it is made, and what it puts there. */
export interface VariableUpdate {
  name: string
  vendor: string
  /** Seconds since 1970. Firmware takes an update only when it is newer than the last one. */
  time: number
  /** Adds to what the variable holds. */
  append?: boolean
  payload: Uint8Array
}

/** What is to be signed for a variable's update. */
export const prepareVariableUpdate = (update: VariableUpdate): PreparedSignature => prepareDetached(signedVariableBytes(update))

/** The bytes that a variable's update is a signature of. */
export function signedVariableBytes(update: VariableUpdate): Uint8Array {
  const attributes = new Uint8Array(4)
  attributes[0] = VARIABLE_ATTRIBUTES | (update.append ? APPEND_WRITE : 0)
  const name = Buffer.from(update.name, 'utf16le')
  return Buffer.concat([name, encodeGuid(update.vendor), attributes, encodeEfiTime(update.time), update.payload])
}

/** The `.auth` file: time, signature, payload. */
export function encodeVariableUpdate(
  update: VariableUpdate,
  prepared: PreparedSignature,
  signed: { certificate: Uint8Array; signature: Uint8Array },
): Uint8Array {
  const der = attachSignature(prepared, signed.certificate, signed.signature)
  const header = authHeader.encode({ length: authHeader.size + der.length, certType: EFI_GUID.certPkcs7 })
  return Buffer.concat([encodeEfiTime(update.time), header, der, update.payload])
}

/** What a `.auth` file says by itself; the variable's name is not in it. `signature` is PKCS#7, not judged. */
export interface DecodedVariableUpdate {
  time: number
  signature: Uint8Array
  payload: Uint8Array
}

export function decodeVariableUpdate(bytes: Uint8Array): DecodedVariableUpdate {
  const time = decodeEfiTime(bytes)
  const { length, certType } = authHeader.decode(bytes, efiTime.size)
  if (certType !== EFI_GUID.certPkcs7)
    throw new Fault('format', `Cannot read authenticated variable: its signature is of type ${certType}, expected PKCS#7`)
  if (length < authHeader.size || length > bytes.length - efiTime.size)
    throw new Fault(
      'format',
      `Cannot read authenticated variable: its signature has ${length} bytes, ${bytes.length - efiTime.size} are left`,
    )
  const payloadAt = efiTime.size + length
  return { time, signature: bytes.subarray(efiTime.size + authHeader.size, payloadAt), payload: bytes.subarray(payloadAt) }
}

export function encodeEfiTime(seconds: number): Uint8Array {
  const date = new Date(seconds * 1000)
  return efiTime.encode({
    year: date.getUTCFullYear(),
    month: date.getUTCMonth() + 1,
    day: date.getUTCDate(),
    hour: date.getUTCHours(),
    minute: date.getUTCMinutes(),
    second: date.getUTCSeconds(),
  })
}

export function decodeEfiTime(bytes: Uint8Array, at = 0): number {
  const t: Of<typeof efiTime> = efiTime.decode(bytes, at)
  if (t.month < 1 || t.month > 12 || t.day < 1 || t.day > 31 || t.hour > 23 || t.minute > 59 || t.second > 59)
    throw new Fault('format', `Cannot read EFI_TIME: ${Object.values(t).join(' ')} is no date`)
  return Date.UTC(t.year, t.month - 1, t.day, t.hour, t.minute, t.second) / 1000
}

function encodeGuid(text: string): Uint8Array {
  if (guidBytes(text).length !== 16) throw new Fault('format', `Cannot store GUID "${text}": expected 32 hexadecimal digits`)
  const bytes = new Uint8Array(16)
  guid.write(viewOf(bytes), 0, text)
  return bytes
}

const viewOf = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
