/**
 * The disk image: a partition table and the partitions it names, at the offsets and under the GUIDs that
 * systemd-repart would choose for the same definitions and seed.
 */
import { type FileHandle, open } from 'node:fs/promises'
import { Fault } from '../base/fault.ts'
import { type Architecture, type Designator, partitionType } from '../formats/dps.ts'
import { encodeGpt, type Gpt } from '../formats/gpt.ts'
import type { Content } from '../tree/tree.ts'
import { emptyDefinition } from './repart/definition.ts'
import { planPartitions } from './repart/plan.ts'

export interface Partition {
  type: Designator
  /** At most 36 UTF-16 units; the type's name where absent, numbered from the second of a type on. */
  label?: string
  /** Derived from the seed where absent. */
  guid?: string
  sizeBytes: number
  readOnly?: boolean
  growFileSystem?: boolean
  noAuto?: boolean
}

export interface DiskOptions {
  /** The GUID all derived GUIDs come from. */
  seed: string
  architecture: Architecture
  sectorSize?: 512 | 4096
  /** Offsets and sizes of partitions are multiples of it. */
  grain?: number
}

export interface DiskPlan {
  sizeBytes: number
  sectorSize: 512 | 4096
  guid: string
  partitions: PlannedPartition[]
}

export interface PlannedPartition {
  /** Absent where the type is none of the Discoverable Partitions Specification. */
  type: Designator | undefined
  typeGuid: string
  typeName: string
  label: string
  guid: string
  attributes: bigint
  offset: number
  /** A multiple of the grain. */
  sizeBytes: number
  /** Space after it that is left free. */
  paddingBytes: number
}

/** Places partitions of known sizes one after the other, in the order given. */
export function planDisk(partitions: readonly Partition[], options: DiskOptions): DiskPlan {
  const sizes = new Map(
    partitions.map(({ type, sizeBytes, ...choices }, i) => {
      const named = partitionType(type, options.architecture)
      if (!Number.isSafeInteger(sizeBytes) || sizeBytes <= 0)
        throw new Fault('usage', `Cannot place partition ${choices.label ?? named.name}: its size is ${sizeBytes} bytes`)
      const definition = { ...emptyDefinition(`${i}`, named), ...choices, sizeMinBytes: 1, sizeMaxBytes: sizeBytes }
      return [definition, sizeBytes] as const
    }),
  )
  return planPartitions([...sizes.keys()], (definition) => ({ sizeBytes: sizes.get(definition as never) }), options)
}

export function gptOf(plan: DiskPlan): Gpt {
  const sector = plan.sectorSize
  return {
    sectorSize: sector,
    diskGuid: plan.guid,
    sectors: plan.sizeBytes / sector,
    partitions: plan.partitions.map((p) => ({
      type: p.typeGuid,
      guid: p.guid,
      firstLba: p.offset / sector,
      lastLba: (p.offset + p.sizeBytes) / sector - 1,
      attributes: p.attributes,
      name: p.label,
    })),
  }
}

/** What fills a partition: a content, or a function that writes into the disk at the partition's offset. */
export type PartitionSource = Content | ((disk: FileHandle, offset: number) => Promise<void>)

/**
 * Writes the image to a new file at `path`; `sources` are in the plan's order, `undefined` for a partition left empty.
 * A content shorter than its partition is followed by zeros. Zeros take no space on disk.
 */
export async function writeDisk(path: string, plan: DiskPlan, sources: readonly (PartitionSource | undefined)[]): Promise<void> {
  if (sources.length !== plan.partitions.length) {
    throw new Fault('usage', `Cannot write ${path}: ${plan.partitions.length} partitions, ${sources.length} sources`)
  }
  const { primary, backup } = encodeGpt(gptOf(plan))
  await using disk = await open(path, 'wx')
  await disk.truncate(plan.sizeBytes)
  await disk.write(primary, 0, primary.length, 0)
  await disk.write(backup, 0, backup.length, plan.sizeBytes - backup.length)
  for (const [i, partition] of plan.partitions.entries()) {
    const source = sources[i]
    if (typeof source === 'function') await source(disk, partition.offset)
    else if (source) await writeContent(disk, partition.offset, partition.sizeBytes, source, `partition ${partition.label}`)
  }
}

/** Copies a content into a sparse file that holds zeros at `offset`, skipping runs of zeros. Refuses more than `limitBytes`. */
export async function writeContent(
  to: FileHandle,
  offset: number,
  limitBytes: number,
  content: Content,
  what: string,
): Promise<number> {
  const tooLarge = (sizeBytes: number) =>
    new Fault('usage', `Cannot write ${what}: it has ${sizeBytes} bytes, there is room for ${limitBytes}`)
  if ('bytes' in content) {
    if (content.bytes.length > limitBytes) throw tooLarge(content.bytes.length)
    await writeSparse(to, content.bytes, offset)
    return content.bytes.length
  }
  await using from = await open(content.path)
  const { size } = await from.stat()
  if (size > limitBytes) throw tooLarge(size)
  const chunk = Buffer.allocUnsafeSlow(CHUNK)
  let at = 0
  while (at < size) {
    const { bytesRead } = await from.read(chunk, 0, Math.min(CHUNK, size - at), at)
    if (bytesRead === 0) throw new Fault('host', `Cannot write ${what}: ${content.path} became shorter while it was read`)
    await writeSparse(to, chunk.subarray(0, bytesRead), offset + at)
    at += bytesRead
  }
  return size
}

const CHUNK = 4 << 20
const ZERO = Buffer.alloc(64 << 10)

async function writeSparse(to: FileHandle, bytes: Uint8Array, offset: number): Promise<void> {
  const isZero = (at: number) => {
    const block = bytes.subarray(at, at + ZERO.length)
    return ZERO.compare(block, 0, block.length, 0, block.length) === 0
  }
  for (let at = 0; at < bytes.length; ) {
    let end = at
    while (end < bytes.length && !isZero(end)) end = Math.min(bytes.length, end + ZERO.length)
    for (let done = at; done < end; ) done += (await to.write(bytes, done, end - done, offset + done)).bytesWritten
    at = end + ZERO.length
  }
}
