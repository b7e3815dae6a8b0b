/**
 * System credentials: written as `systemd-creds encrypt --with-key=null` does, sealed with a key that everyone has; of any,
 * what it is sealed with.
 *
 * Spec:   systemd.exec(5), systemd-creds(1); src/shared/creds-util.[ch] (systemd 258)
 * Oracle: `systemd-creds decrypt --allow-null`, `systemd-creds encrypt`; the magics of its mime types
 * Limits: Writes only for the one key, which whoever boots with Secure Boot and a TPM refuses. Decrypts nothing; kinds of
 *         keys that came after version 258 are not known.
 *
 * As base64: header with IV · with TPM2: what it is bound to, the sealed key · with a signed policy: its key · for a user:
 * a note · encrypted: name and times, value · tag. Each is padded to 8 bytes.
 */
import { createCipheriv } from 'node:crypto'
import { Fault } from '../base/fault.ts'
import { alignUp } from '../base/size.ts'
import { bits64le, bytes, struct, u16le, u32le } from './struct.ts'
import { sha256Bytes } from './x509.ts'

// biome-ignore format: table
const header = struct('credential header', {
  id:        bytes(16),
  keyBytes:   u32le,
  blockBytes: u32le,
  ivBytes:    u32le,
  tagBytes:   u32le,
})

// biome-ignore format: table
const tpm2Header = struct('credential TPM2 header', {
  pcrs:        bits64le, // whose values it is bound to
  bank:        u16le,
  primary:     u16le,
  blobBytes:   u32le,
  policyBytes: u32le,
})

// biome-ignore format: table
const policyHeader = struct('credential policy header', {
  pcrs:     bits64le, // that the signed policies are over
  keyBytes: u32le,
})

const NULL_KEY = '058469daf6f54324800549da0f8ea2fb'
const FOREVER = 0xffff_ffff_ffff_ffffn
const MAX_IV_BYTES = 64

/** Of a machine's disk, of its TPM, of that only with a policy somebody signed, and of a user of the machine. */
export type CredentialKey = 'host' | 'tpm2' | 'signed policy' | 'user'

/** What each id in the header says that one needs. */
const KEYS: Readonly<Record<string, readonly CredentialKey[]>> = {
  [NULL_KEY]: [],
  '5a1c6a86df9d4096b1d5a65e0862f19a': ['host'],
  '55b9ed1d38594d43a8319d2ebb332ac6': ['host', 'user'],
  '0c7cc07b117645919c4b0bea08bc20fe': ['tpm2'],
  faf7eb9341e3412ca1a436f95a29362f: ['tpm2', 'signed policy'],
  '93a894094874449090caf2fc93cab553': ['host', 'tpm2'],
  ef4ac13679a9480ea7db68897f9f165d: ['host', 'tpm2', 'user'],
  af4950a849134eb1a73846304ff30c05: ['host', 'tpm2', 'signed policy'],
  adbc4ca3efb64201ba881b6f2e4095ea: ['host', 'tpm2', 'signed policy', 'user'],
}

export interface CredentialSeal {
  /** 32 hexadecimal digits. */
  id: string
  /** None where everyone has it; undefined where the id is not known. */
  keys: readonly CredentialKey[] | undefined
  /** PCRs that must be as they were when it was sealed; for `tpm2`. */
  pcrs: number[]
  /** PCRs that some signed policy must fit; for `signed policy`. */
  policyPcrs: number[]
}

/** `iv`: 12 bytes. `time`: seconds since 1970. */
export function encodeNullCredential(name: string, value: Uint8Array, options: { iv: Uint8Array; time: number }): Uint8Array {
  const sizes = { keyBytes: 32, blockBytes: 1, ivBytes: options.iv.length, tagBytes: 16 }
  const start = padded(Buffer.concat([header.encode({ id: Buffer.from(NULL_KEY, 'hex'), ...sizes }), options.iv]))
  const metadata = Buffer.alloc(20)
  metadata.writeBigUInt64LE(BigInt(options.time) * 1_000_000n)
  metadata.writeBigUInt64LE(FOREVER, 8)
  metadata.writeUInt32LE(Buffer.byteLength(name), 16)
  const plain = Buffer.concat([padded(Buffer.concat([metadata, Buffer.from(name)])), value])
  const cipher = createCipheriv('aes-256-gcm', sha256Bytes(new Uint8Array()), options.iv)
  cipher.setAAD(start)
  const sealed = Buffer.concat([start, cipher.update(plain), cipher.final(), cipher.getAuthTag()])
  return Buffer.from(`${sealed.toString('base64')}\n`)
}

/** What a credential is sealed with, by its header: nothing of it is decrypted, and what it says may be false. */
export function decodeCredentialSeal(text: Uint8Array): CredentialSeal {
  const base64 = Buffer.from(text).toString('latin1').replaceAll(/\s+/g, '')
  if (!BASE64.test(base64)) throw new Fault('format', 'Cannot read credential: it is not base64')
  const sealed = Buffer.from(base64, 'base64')
  const { id: raw, ivBytes } = header.decode(sealed)
  const id = Buffer.from(raw).toString('hex')
  const keys = Object.hasOwn(KEYS, id) ? KEYS[id] : undefined
  if (ivBytes > MAX_IV_BYTES)
    throw new Fault('format', `Cannot read credential header.ivBytes: expected at most ${MAX_IV_BYTES}, got ${ivBytes}`)
  const seal: CredentialSeal = { id, keys, pcrs: [], policyPcrs: [] }
  if (!keys?.includes('tpm2')) return seal
  const at = alignUp(header.size + ivBytes, 8)
  const { pcrs, blobBytes, policyBytes } = tpm2Header.decode(sealed, at)
  if (!keys.includes('signed policy')) return { ...seal, pcrs: bitsOf(pcrs) }
  const policyAt = alignUp(at + tpm2Header.size + blobBytes + policyBytes, 8)
  return { ...seal, pcrs: bitsOf(pcrs), policyPcrs: bitsOf(policyHeader.decode(sealed, policyAt).pcrs) }
}

const BASE64 = /^[A-Za-z0-9+/]+={0,2}$/

const bitsOf = (mask: bigint): number[] => Array.from({ length: 64 }, (_, i) => i).filter((i) => (mask >> BigInt(i)) & 1n)

const padded = (bytes: Buffer): Buffer => Buffer.concat([bytes, Buffer.alloc(alignUp(bytes.length, 8) - bytes.length)])
