/**
 * Objects of a token, and their attributes.
 *
 * Spec: PKCS#11 v2.40 base specification
 */
import { addressOf, MAX_COUNT, ulong } from './pkcs11-module.ts'
import { type Pkcs11Query, Trouble } from './pkcs11-protocol.ts'
import type { Session } from './pkcs11-token.ts'

/** The object of a kind that is as the query says. */
export function theOne(session: Session, kind: keyof typeof CLASS, query: Pkcs11Query): bigint {
  const nameOf = (object: bigint) => {
    const [label, id] = [labelOf(session, object), idOf(session, object)]
    return `object=${label}${id ? `;id=${id.replace(/../g, '%$&')}` : ''}`
  }
  const names = (objects: readonly bigint[]) => objects.slice(0, 32).map(nameOf).sort()
  const matching = findObjects(session, kind, query)
  const [one] = matching
  if (one === undefined) throw new Trouble({ why: 'no object', found: names(findObjects(session, kind, {})) })
  if (matching.length > 1) throw new Trouble({ why: 'several objects', found: names(matching) })
  return one
}

/** The one X.509 certificate that is as the query says, in DER. */
export function findCertificate(session: Session, query: Pkcs11Query): Buffer {
  const handle = theOne(session, 'certificate', query)
  if ((numberOf(session, handle, 'certificateType') ?? X509) !== X509) throw new Trouble({ why: 'no object', found: [] })
  return attributeOf(session, handle, 'value')
}

export function findObjects({ module, handle }: Session, kind: keyof typeof CLASS, query: Pkcs11Query): bigint[] {
  const wanted: [keyof typeof ATTRIBUTE, Buffer][] = [['class', ulong(CLASS[kind])]]
  if (query.object !== undefined) wanted.push(['label', Buffer.from(query.object)])
  if (query.id !== undefined) wanted.push(['id', Buffer.from(query.id, 'hex')])
  module.call('C_FindObjectsInit', handle, template(wanted), wanted.length)
  const found: bigint[] = []
  try {
    const [list, count] = [Buffer.alloc(8 * 64), ulong()]
    do {
      module.call('C_FindObjects', handle, list, 64, count)
      const length = Math.min(64, Number(count.readBigUInt64LE()))
      for (let i = 0; i < length; i++) found.push(list.readBigUInt64LE(8 * i))
    } while (count.readBigUInt64LE() > 0n && found.length < MAX_COUNT)
  } finally {
    module.call('C_FindObjectsFinal', handle)
  }
  return found
}

/** The value of an attribute; empty where there is none, or it is not told. */
export function attributeOf({ module, handle }: Session, object: bigint, name: keyof typeof ATTRIBUTE): Buffer {
  const asked = template([[name, Buffer.alloc(0)]])
  try {
    module.call('C_GetAttributeValue', handle, object, asked, 1)
    const length = asked.readBigUInt64LE(16)
    if (length === UNAVAILABLE || length === 0n || length > MAX_VALUE_BYTES) return Buffer.alloc(0)
    const value = Buffer.alloc(Number(length))
    asked.writeBigUInt64LE(addressOf(value), 8)
    module.call('C_GetAttributeValue', handle, object, asked, 1)
    return value.subarray(0, Math.min(value.length, Number(asked.readBigUInt64LE(16))))
  } catch {
    return Buffer.alloc(0)
  }
}

/** A CK_ULONG; undefined where it is not told. */
export function numberOf(session: Session, object: bigint, name: keyof typeof ATTRIBUTE): number | undefined {
  const value = attributeOf(session, object, name)
  return value.length === 8 ? Number(value.readBigUInt64LE()) : undefined
}

export const labelOf = (session: Session, object: bigint): string => attributeOf(session, object, 'label').toString('utf8')
export const idOf = (session: Session, object: bigint): string => attributeOf(session, object, 'id').toString('hex')

const CLASS = { certificate: 1, publicKey: 2, privateKey: 3 } as const
// biome-ignore format: table
const ATTRIBUTE = {
  class: 0, label: 3, value: 0x11, certificateType: 0x80, keyType: 0x100, id: 0x102, modulus: 0x120, alwaysAuthenticate: 0x202,
} as const
const X509 = 0
const UNAVAILABLE = 0xffff_ffff_ffff_ffffn
/** Longest value that is taken from a module. */
const MAX_VALUE_BYTES = 1 << 16

/** CK_ATTRIBUTE: type, address and length of the value. */
function template(attributes: readonly (readonly [name: keyof typeof ATTRIBUTE, value: Buffer])[]): Buffer {
  const bytes = Buffer.alloc(24 * attributes.length)
  for (const [i, [name, value]] of attributes.entries()) {
    bytes.writeBigUInt64LE(BigInt(ATTRIBUTE[name]), 24 * i)
    bytes.writeBigUInt64LE(addressOf(value), 24 * i + 8)
    bytes.writeBigUInt64LE(BigInt(value.length), 24 * i + 16)
  }
  return bytes
}
