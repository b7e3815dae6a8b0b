/**
 * Swap space: the one page that tells the kernel that and how much it may swap there.
 *
 * Spec:   Linux `include/linux/swap.h`, union swap_header; mkswap(8)
 * Oracle: `mkswap`, `swaplabel`, `blkid`
 * Limits: version 1, pages of 4096 bytes in little-endian order, no list of bad pages.
 *
 * On disk: 1024 bytes for a boot loader · header · … `SWAPSPACE2` at the end of the first page · pages.
 */
import { Fault } from '../base/fault.ts'
import { guidBytes, guidFrom } from '../base/guid.ts'
import { bytes, constant, reserved, struct, u32le } from './struct.ts'

export const SWAP_PAGE = 4096
/** The kernel refuses to swap on less. */
export const LEAST_SWAP_BYTES = 10 * SWAP_PAGE
const LABEL_BYTES = 16

// biome-ignore format: table
const header = struct('swap header', {
  _boot:      reserved(1024),
  version:    u32le,
  lastPage:   u32le,
  badPages:   u32le,
  uuid:       bytes(16),
  label:      bytes(LABEL_BYTES),
  _reserved:  reserved(SWAP_PAGE - 10 - 1024 - 44),
  signature:  constant(Buffer.from('SWAPSPACE2')),
})

export interface Swap {
  uuid: string
  /** At most 15 bytes; what is longer is cut off between characters. */
  label: string
  sizeBytes: number
}

/** The first page; all the others may hold anything. */
export function encodeSwap({ uuid, label, sizeBytes }: Swap): Uint8Array {
  const pages = Math.floor(sizeBytes / SWAP_PAGE)
  if (sizeBytes < LEAST_SWAP_BYTES)
    throw new Fault('usage', `Cannot make swap space of ${sizeBytes} bytes: it needs at least ${LEAST_SWAP_BYTES}`)
  if (pages > 0xffff_ffff) throw new Fault('usage', `Cannot make swap space of ${sizeBytes} bytes: it has too many pages`)
  const name = new Uint8Array(LABEL_BYTES)
  new TextEncoder().encodeInto(label, name.subarray(0, LABEL_BYTES - 1))
  return header.encode({ version: 1, lastPage: pages - 1, badPages: 0, uuid: guidBytes(uuid), label: name })
}

/** Reads the first page. */
export function decodeSwap(page: Uint8Array): Swap {
  const h = header.decode(page)
  if (h.version !== 1) throw new Fault('format', `Cannot read swap space of version ${h.version}: expected 1`)
  const label = Buffer.from(h.label).toString('utf8').replace(/\0.*$/s, '')
  return { uuid: guidFrom(h.uuid), label, sizeBytes: (h.lastPage + 1) * SWAP_PAGE }
}
