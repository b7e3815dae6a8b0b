/**
 * DER: the one-spelling subset of ASN.1's BER that certificates and PKCS#7 are written in.
 *
 * Spec:   ITU-T X.690 §8, §10, §11
 * Oracle: `openssl asn1parse -inform der`
 * Limits: one-byte tags, lengths below 2^32; values are not interpreted beyond the few types signatures need.
 *
 * The writer makes elements out of elements; the reader is a cursor that refuses what DER forbids: indefinite and
 * overlong lengths, elements that leave their parent, bytes nobody asked for.
 */
import { Fault } from '../base/fault.ts'

// biome-ignore format: table
export const TAG = {
  boolean:     0x01,
  integer:     0x02,
  bitString:   0x03,
  octetString: 0x04,
  null:        0x05,
  oid:         0x06,
  utcTime:     0x17,
  time:        0x18,
  sequence:    0x30,
  set:         0x31,
} as const

/** The tag `[n]` of a constructed (EXPLICIT, or IMPLICIT of a SEQUENCE or SET) element. */
export const contextTag = (n: number): number => 0xa0 | n

/** One element: tag, minimal length, and the given parts one after another. */
export function encodeDer(tag: number, ...parts: readonly Uint8Array[]): Uint8Array {
  const size = parts.reduce((sum, part) => sum + part.length, 0)
  return Buffer.concat([Uint8Array.of(tag), encodeLength(size), ...parts])
}

export const sequence = (...parts: readonly Uint8Array[]): Uint8Array => encodeDer(TAG.sequence, ...parts)

/** A SET OF: DER sorts its elements by their encoding. */
export const setOf = (...parts: readonly Uint8Array[]): Uint8Array => encodeDer(TAG.set, ...parts.toSorted(Buffer.compare))

export const octetString = (bytes: Uint8Array): Uint8Array => encodeDer(TAG.octetString, bytes)

/** A small non-negative INTEGER. */
export const integer = (n: number): Uint8Array => {
  let digits = n.toString(16)
  if (digits.length % 2) digits = `0${digits}`
  const bytes = Buffer.from(digits, 'hex')
  return encodeDer(TAG.integer, bytes[0]! & 0x80 ? Uint8Array.of(0) : new Uint8Array(), bytes)
}

export const derNull: Uint8Array = Uint8Array.of(TAG.null, 0)

/** An OBJECT IDENTIFIER from its dotted text. */
export function oid(dotted: string): Uint8Array {
  const [first = 0, second = 0, ...rest] = dotted.split('.').map(Number)
  const bytes = [first * 40 + second, ...rest].flatMap((arc) => {
    const digits = [arc & 0x7f]
    for (let more = Math.floor(arc / 128); more > 0; more = Math.floor(more / 128)) digits.unshift((more & 0x7f) | 0x80)
    return digits
  })
  return encodeDer(TAG.oid, Uint8Array.from(bytes))
}

/** A UTCTime (until 2049) or GeneralizedTime (from 2050), as X.509 and CMS choose between them. */
export function derTime(seconds: number): Uint8Array {
  const digits = new Date(seconds * 1000).toISOString().replace(/\.\d+Z$|[-:T]/g, '')
  const year = Number(digits.slice(0, 4))
  if (year >= 1950 && year < 2050) return encodeDer(TAG.utcTime, Buffer.from(`${digits.slice(2)}Z`))
  return encodeDer(TAG.time, Buffer.from(`${digits}Z`))
}

/** An element that was read: `content` without, `bytes` with its tag and length. */
export interface DerElement {
  tag: number
  content: Uint8Array
  bytes: Uint8Array
}

/** A cursor over the elements of one parent. Every failure names what was being read and where. */
export interface DerReader {
  /** The tag of the next element, or undefined at the end. */
  peek(): number | undefined
  /** The next element, which must have this tag (any, when not given). */
  take(field: string, tag?: number): DerElement
  /** The next element if it has this tag. */
  takeIf(field: string, tag: number): DerElement | undefined
  /** A reader of what is inside the next element, which must have this tag. */
  enter(field: string, tag?: number): DerReader
  /** Refuses bytes left over. */
  end(): void
}

export function derReader(bytes: Uint8Array, what: string): DerReader {
  return cursor(bytes, what, 0)
}

/** The dotted text of an OBJECT IDENTIFIER's content. */
export function formatOid(content: Uint8Array): string {
  const arcs: number[] = []
  let arc = 0
  for (const [i, byte] of content.entries()) {
    if (arc === 0 && byte === 0x80) throw new Fault('format', 'Cannot read OBJECT IDENTIFIER: an arc has a leading zero')
    arc = arc * 128 + (byte & 0x7f)
    if (arc > Number.MAX_SAFE_INTEGER) throw new Fault('format', 'Cannot read OBJECT IDENTIFIER: an arc is larger than 2^53')
    if (byte & 0x80) {
      if (i === content.length - 1) throw new Fault('format', 'Cannot read OBJECT IDENTIFIER: its last arc is cut off')
      continue
    }
    if (arcs.length === 0) arcs.push(Math.min(2, Math.floor(arc / 40)), arc - 40 * Math.min(2, Math.floor(arc / 40)))
    else arcs.push(arc)
    arc = 0
  }
  if (arcs.length === 0) throw new Fault('format', 'Cannot read OBJECT IDENTIFIER: it is empty')
  return arcs.join('.')
}

/** Seconds since 1970 of a UTCTime or GeneralizedTime element. */
export function parseDerTime(element: DerElement): number {
  const text = Buffer.from(element.content).toString('latin1')
  const match = /^(\d{2}|\d{4})(\d{2})(\d{2})(\d{2})(\d{2})(\d{2})Z$/.exec(text)
  const fits = match && match[1]!.length === (element.tag === TAG.utcTime ? 2 : 4)
  if (!fits) throw new Fault('format', `Cannot read time "${text.slice(0, 32)}": expected YYMMDDHHMMSSZ or YYYYMMDDHHMMSSZ`)
  const [, year, month, day, hour, minute, second] = match.map(Number) as [number, number, number, number, number, number, number]
  const fullYear = element.tag === TAG.time ? year : year < 50 ? 2000 + year : 1900 + year
  return Date.UTC(fullYear, month - 1, day, hour, minute, second) / 1000
}

function encodeLength(size: number): Uint8Array {
  if (size < 0x80) return Uint8Array.of(size)
  let digits = size.toString(16)
  if (digits.length % 2) digits = `0${digits}`
  const bytes = Buffer.from(digits, 'hex')
  return Buffer.concat([Uint8Array.of(0x80 | bytes.length), bytes])
}

function cursor(bytes: Uint8Array, what: string, base: number): DerReader {
  let at = 0
  const fail = (field: string, why: string): never => {
    throw new Fault('format', `Cannot read ${what}.${field} at offset ${base + at}: ${why}`)
  }
  const next = (field: string, tag?: number): { element: DerElement; header: number } => {
    if (at >= bytes.length) fail(field, 'nothing is left to read')
    const got = bytes[at]!
    if (tag !== undefined && got !== tag) fail(field, `expected tag ${hexByte(tag)}, got ${hexByte(got)}`)
    if ((got & 0x1f) === 0x1f) fail(field, 'its tag has more than one byte')
    const { header, size } = decodeLength(bytes, at, (why) => fail(field, why))
    if (size > bytes.length - at - header) fail(field, `it has ${size} bytes, its parent ${bytes.length - at - header}`)
    const whole = bytes.subarray(at, at + header + size)
    return { element: { tag: got, content: whole.subarray(header), bytes: whole }, header }
  }
  return {
    peek: () => bytes[at],
    take(field, tag) {
      const { element } = next(field, tag)
      at += element.bytes.length
      return element
    },
    takeIf(field, tag) {
      return bytes[at] === tag ? this.take(field, tag) : undefined
    },
    enter(field, tag) {
      const { element, header } = next(field, tag)
      const inside = cursor(element.content, `${what}.${field}`, base + at + header)
      at += element.bytes.length
      return inside
    },
    end() {
      if (at < bytes.length) fail('end', `${bytes.length - at} bytes too many`)
    },
  }
}

function decodeLength(bytes: Uint8Array, at: number, fail: (why: string) => never): { header: number; size: number } {
  const first = bytes[at + 1]
  if (first === undefined) fail('its length is cut off')
  if (first < 0x80) return { header: 2, size: first }
  const count = first & 0x7f
  if (count === 0) fail('its length is indefinite, which DER forbids')
  if (count > 4) fail(`its length has ${count} bytes, at most 4 are read`)
  if (at + 2 + count > bytes.length) fail('its length is cut off')
  let size = 0
  for (let i = 0; i < count; i++) size = size * 256 + bytes[at + 2 + i]!
  if (size < 0x80 || size < 256 ** (count - 1)) fail('its length is written longer than needed, which DER forbids')
  return { header: 2 + count, size }
}

const hexByte = (n: number) => `0x${n.toString(16).padStart(2, '0')}`
