/** SHA-256 in the one spelling used everywhere: 64 lower-case hexadecimal digits. */
import { createHash, hash } from 'node:crypto'

export type Sha256 = string

export const sha256 = (bytes: Uint8Array | string): Sha256 => hash('sha256', bytes, 'hex')

export const isSha256 = (text: string): text is Sha256 => /^[0-9a-f]{64}$/.test(text)

/** The digest of a value: equal values give equal digests, whatever the order of their keys. Keys a stage's result by its inputs. */
export function digestOf(value: unknown): Sha256 {
  const h = createHash('sha256')
  h.update(JSON.stringify(value, canonical))
  return h.digest('hex')
}

function canonical(_key: string, value: unknown): unknown {
  if (value instanceof Map) return [...value].sort(([a], [b]) => (String(a) < String(b) ? -1 : 1))
  if (value instanceof Uint8Array) return sha256(value)
  if (typeof value === 'bigint') return `${value}n`
  if (value === null || typeof value !== 'object' || Array.isArray(value)) return value
  return Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)))
}
