/**
 * Empty qcow2 overlay: a disk that remembers only what differs from another one.
 *
 * Spec:   https://www.qemu.org/docs/master/interop/qcow2.html (version 3)
 * Oracle: `qemu-img check`, `qemu-img info`, QEMU itself
 * Limits: only writes, and only an overlay nobody has written to yet; names no backing file (whoever opens it says which);
 *         64 KiB clusters, no snapshots, no encryption.
 *
 * In the file, one cluster each: header · reference count table · reference counts · first-level table.
 */
import { Fault } from '../base/fault.ts'

const CLUSTER_BITS = 16
const CLUSTER = 1 << CLUSTER_BITS
/** What one first-level entry (a table of 8-byte entries filling a cluster) spans. */
const SPAN = CLUSTER * (CLUSTER / 8)
const MAX_BYTES = SPAN * (CLUSTER / 8)
const HEADER_BYTES = 104

/** The overlay's first bytes; the guest sees a disk of `sizeBytes`, a multiple of 512, which may exceed the one below it. */
export function encodeEmptyOverlay(sizeBytes: number): Uint8Array<ArrayBuffer> {
  if (!Number.isSafeInteger(sizeBytes) || sizeBytes <= 0 || sizeBytes % 512 !== 0 || sizeBytes > MAX_BYTES)
    throw new Fault('format', `Cannot make a disk of ${sizeBytes} bytes: expected a multiple of 512 up to ${MAX_BYTES}`)
  const file = new Uint8Array(4 * CLUSTER)
  const view = new DataView(file.buffer)
  const [refcountTable, refcounts, firstLevel] = [CLUSTER, 2 * CLUSTER, 3 * CLUSTER]
  view.setUint32(0, 0x514649fb) // "QFI\xfb"
  view.setUint32(4, 3)
  view.setUint32(20, CLUSTER_BITS)
  view.setBigUint64(24, BigInt(sizeBytes))
  view.setUint32(36, Math.ceil(sizeBytes / SPAN))
  view.setBigUint64(40, BigInt(firstLevel))
  view.setBigUint64(48, BigInt(refcountTable))
  view.setUint32(56, 1) // clusters of the reference count table
  view.setUint32(96, 4) // reference counts of 1 << 4 bits
  view.setUint32(100, HEADER_BYTES)

  view.setBigUint64(refcountTable, BigInt(refcounts))
  for (let cluster = 0; cluster < 4; cluster++) view.setUint16(refcounts + cluster * 2, 1)
  return file
}
