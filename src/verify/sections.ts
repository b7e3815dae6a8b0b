/** Sections of a UKI as they lie in memory. */
import { Fault } from '../base/fault.ts'

/** A section and what it holds. */
export interface Held {
  name: string
  sizeBytes: number
  content: Uint8Array
}

/** No honest text section comes near it; kernels and initrds are not decoded. */
const MAX_TEXT_BYTES = 1 << 20

export function textOf(profile: readonly Held[], name: string): string {
  const content = profile.find((section) => section.name === name)?.content ?? new Uint8Array()
  if (content.length > MAX_TEXT_BYTES) throw new Fault('format', `Cannot read ${name}: it has ${content.length} bytes`)
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(content).replace(/\0+$/, '')
  } catch (cause) {
    throw new Fault('format', `Cannot read ${name}: it is no UTF-8 text`, { cause })
  }
}

/** Text of a section that some link may have found to be none. */
export function anyText(profile: readonly Held[], name: string): string {
  const content = profile.find((section) => section.name === name)?.content ?? new Uint8Array()
  return Buffer.from(content.subarray(0, MAX_TEXT_BYTES)).toString('utf8').replace(/\0+$/, '')
}
