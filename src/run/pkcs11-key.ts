/**
 * Private keys in a token, and signing with them.
 *
 * Spec:   PKCS#11 v2.40 base specification, and its current mechanisms §2.1 (CKM_RSA_PKCS, CKM_RSA_X_509)
 * Limits: RSA keys.
 */
import { listOf, ulong } from './pkcs11-module.ts'
import { attributeOf, findObjects, idOf, labelOf, numberOf, theOne } from './pkcs11-object.ts'
import { type Pkcs11Query, Trouble } from './pkcs11-protocol.ts'
import { login, type Session } from './pkcs11-token.ts'

export interface PrivateKey {
  session: Session
  handle: bigint
  label: string
  /** CKA_ID in hexadecimal. */
  id: string
  /** Big-endian, without leading zeros; empty where the token does not tell. */
  modulus: Buffer
  mechanism: number
  /** The token wants its PIN for every signature. */
  asksAlways: boolean
}

export function findKey(session: Session, query: Pkcs11Query): PrivateKey {
  const handle = theOne(session, 'privateKey', query)
  const type = numberOf(session, handle, 'keyType')
  if (type !== undefined && type !== RSA) throw new Trouble({ why: 'not RSA', detail: KEY_TYPES[type] ?? `type ${type}` })
  const [label, id] = [labelOf(session, handle), idOf(session, handle)]
  const modulus = modulusOf(session, handle, id)
  const asksAlways = attributeOf(session, handle, 'alwaysAuthenticate')[0] === 1
  return { session, handle, label, id, modulus, mechanism: mechanismOf(session), asksAlways }
}

/** The signature of a DigestInfo. */
export function sign({ session, handle, modulus, mechanism, asksAlways }: PrivateKey, digestInfo: Buffer): Buffer {
  const { module } = session
  const data = mechanism === RSA_RAW ? padded(digestInfo, modulus.length) : digestInfo
  // CK_MECHANISM: mechanism, address and length of its parameter.
  const chosen = Buffer.concat([ulong(mechanism), ulong(), ulong()])
  module.call('C_SignInit', session.handle, chosen, handle)
  if (asksAlways) login(session, 'for this signature')
  const [signature, length] = [Buffer.alloc(4096), ulong(4096)]
  module.call('C_Sign', session.handle, data, data.length, signature, length)
  return signature.subarray(0, Math.min(signature.length, Number(length.readBigUInt64LE())))
}

const RSA = 0
const KEY_TYPES: Record<number, string> = { 1: 'DSA', 2: 'DH', 3: 'EC', 16: 'a generic secret', 31: 'AES', 64: 'Edwards EC' }

/** Tokens that do not tell it of the private key tell it of the public key. */
function modulusOf(session: Session, key: bigint, id: string): Buffer {
  let modulus = attributeOf(session, key, 'modulus')
  const [publicKey, more] = modulus.length === 0 && id !== '' ? findObjects(session, 'publicKey', { id }) : []
  if (publicKey !== undefined && more === undefined) modulus = attributeOf(session, publicKey, 'modulus')
  const start = modulus.findIndex((byte) => byte !== 0)
  return start < 0 ? Buffer.alloc(0) : modulus.subarray(start)
}

/** Signs what it is given; the one that hashes too is of no use, as signers see digests. */
const RSA_PKCS = 1
/** RSA without padding, which is then done here. */
const RSA_RAW = 3

function mechanismOf({ module, token }: Session): number {
  const offered = listOf((list, count) => module.call('C_GetMechanismList', token.slotId, list, count))
  const mechanism = [RSA_PKCS, RSA_RAW].find((one) => offered.includes(one))
  if (mechanism === undefined)
    throw new Trouble({ why: 'no mechanism', found: offered.slice(0, 64).map((one) => `0x${one.toString(16)}`) })
  return mechanism
}

/** EMSA-PKCS1-v1_5 (RFC 8017 §9.2). */
function padded(digestInfo: Buffer, sizeBytes: number): Buffer {
  const fill = sizeBytes - digestInfo.length - 3
  if (fill < 8) throw new Trouble({ why: 'call', detail: `a modulus of ${sizeBytes} bytes` })
  return Buffer.concat([Uint8Array.of(0, 1), Buffer.alloc(fill, 0xff), Uint8Array.of(0), digestInfo])
}
