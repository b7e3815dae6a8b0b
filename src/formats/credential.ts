/**
 * System credentials as `systemd-creds encrypt --with-key=null` writes them: sealed with a key that everyone has.
 *
 * Spec:   systemd.exec(5), systemd-creds(1); src/shared/creds-util.c
 * Oracle: `systemd-creds decrypt --allow-null`
 * Limits: Writes only, and only this key. Whoever boots with Secure Boot and a TPM refuses it.
 */
import { createCipheriv } from 'node:crypto'
import { alignUp } from '../base/size.ts'
import { sha256Bytes } from './x509.ts'

const NULL_KEY = '058469daf6f54324800549da0f8ea2fb'
const FOREVER = 0xffff_ffff_ffff_ffffn

/** `iv`: 12 bytes. `time`: seconds since 1970. */
export function encodeNullCredential(name: string, value: Uint8Array, options: { iv: Uint8Array; time: number }): Uint8Array {
  const sizes = Buffer.alloc(16)
  for (const [i, size] of [32, 1, options.iv.length, 16].entries()) sizes.writeUInt32LE(size, 4 * i)
  const header = padded(Buffer.concat([Buffer.from(NULL_KEY, 'hex'), sizes, options.iv]))
  const metadata = Buffer.alloc(20)
  metadata.writeBigUInt64LE(BigInt(options.time) * 1_000_000n)
  metadata.writeBigUInt64LE(FOREVER, 8)
  metadata.writeUInt32LE(Buffer.byteLength(name), 16)
  const plain = Buffer.concat([padded(Buffer.concat([metadata, Buffer.from(name)])), value])
  const cipher = createCipheriv('aes-256-gcm', sha256Bytes(new Uint8Array()), options.iv)
  cipher.setAAD(header)
  const sealed = Buffer.concat([header, cipher.update(plain), cipher.final(), cipher.getAuthTag()])
  return Buffer.from(`${sealed.toString('base64')}\n`)
}

const padded = (bytes: Buffer): Buffer => Buffer.concat([bytes, Buffer.alloc(alignUp(bytes.length, 8) - bytes.length)])
