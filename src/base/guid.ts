/**
 * GUIDs in lower-case text form, and the deterministic ones systemd-repart derives from a seed.
 *
 * Source: systemd `src/repart/repart.c` (`derive_uuid`, `partition_acquire_uuid`).
 */
import { createHmac } from 'node:crypto'

/** The 16 bytes of a GUID in text order (not Microsoft's mixed order). */
export const guidBytes = (guid: string): Buffer => Buffer.from(guid.replaceAll('-', ''), 'hex')

export function guidFrom(bytes: Uint8Array): string {
  const h = Buffer.from(bytes.subarray(0, 16)).toString('hex')
  return `${h.slice(0, 8)}-${h.slice(8, 12)}-${h.slice(12, 16)}-${h.slice(16, 20)}-${h.slice(20)}`
}

/** A version-4 GUID made of HMAC-SHA256(key GUID, token). */
export function derivedGuid(key: string, token: Uint8Array | string): string {
  const bytes = hmac(key, token).subarray(0, 16)
  bytes[6] = (bytes[6]! & 0x0f) | 0x40
  bytes[8] = (bytes[8]! & 0x3f) | 0x80
  return guidFrom(bytes)
}

/** All 32 bytes of HMAC-SHA256(key GUID, token): the verity salt is made so. */
export const hmac = (key: string, token: Uint8Array | string): Buffer =>
  createHmac('sha256', guidBytes(key)).update(token).digest()
