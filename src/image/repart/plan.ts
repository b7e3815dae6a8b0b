/**
 * Where partitions lie and how large they are: the allocation of systemd-repart on an empty disk.
 *
 * Spec:   repart.d(5) and the behaviour of systemd-repart 261
 * Oracle: `systemd-repart --dry-run=yes --json=pretty`
 *
 * Every partition has a least and a most size, a weight, and padding with the same three. What is left of the disk once
 * the least is given out is shared by weight, in whole grains; a partition that must have more than its share, or may
 * only have less, gets that first, and the rest is shared anew.
 */
import { Fault } from '../../base/fault.ts'
import { derivedGuid } from '../../base/guid.ts'
import { alignUp, formatSize } from '../../base/size.ts'
import { defaultAttributes } from '../../formats/dps.ts'
import { FIRST_USABLE_BYTES, gptBackupBytes } from '../../formats/gpt.ts'
import { VERITY_SIGNATURE_BYTES, verityTree } from '../../formats/verity.ts'
import type { DiskPlan, PlannedPartition } from '../disk.ts'
import { isReadOnlyFormat, siblingOf } from './checks.ts'
import type { Definition } from './definition.ts'
import { partitionGuid } from './guid.ts'

export interface PlanOptions {
  /** The GUID all derived GUIDs come from. */
  seed: string
  sectorSize?: 512 | 4096 | undefined
  /** Offsets and sizes of partitions are multiples of it. */
  grain?: number | undefined
  /** Size of the disk, which partitions without a most share; just enough for their least where it is `auto`. */
  size?: number | 'auto' | undefined
  /** Where the partitions take less than this of an automatic disk, what is behind them stays free. */
  leastSize?: number | undefined
}

/** What is known of a partition's content before its size is. */
export interface PartitionContent {
  sizeBytes?: number | undefined
  /** The partition's GUID where it follows from the content. */
  guid?: string | undefined
}

export interface RepartPlan extends DiskPlan {
  partitions: (PlannedPartition & { definition: Definition })[]
  /** Partitions that did not fit and whose priority allows to leave them out. */
  dropped: Definition[]
}

/** Plans a disk. `contentOf` tells how much each partition must hold. */
export function planPartitions(
  definitions: readonly Definition[],
  contentOf: (definition: Definition) => PartitionContent | undefined,
  options: PlanOptions,
): RepartPlan {
  const { sectorSize = 512, size = 'auto' } = options
  const grain = grainOf(options)
  const room = { sectorSize, grain }
  const entries = definitions.map((definition): Entry => {
    const least = leastSize(definition, definitions, { ...room, contentBytes: contentOf(definition)?.sizeBytes })
    return { definition, least, dropped: false, suppressed: false }
  })
  for (const entry of entries) {
    const target = entries.find(({ definition }) => definition.name === entry.definition.supplementFor)
    if (!target) continue
    entry.suppressed = true
    target.suppressing = entry
  }
  const start = alignUp(FIRST_USABLE_BYTES, grain)
  const least = autoSize(entries, room)
  const shared = size === 'auto' ? least : alignUp(size, 4096)
  const end = Math.floor((shared - gptBackupBytes(sectorSize)) / grain) * grain
  const sizeBytes = size === 'auto' ? Math.max(least, alignUp(options.leastSize ?? 0, 4096)) : shared
  fit(entries, Math.max(0, end - start), room)
  grow(entries, Math.max(0, end - start), room)
  const partitions = place(entries, definitions, contentOf, start, options.seed)
  const dropped = entries.filter((entry) => entry.dropped).map(({ definition }) => definition)
  return { sizeBytes, sectorSize, guid: derivedGuid(options.seed, 'disk-uuid'), partitions, dropped }
}

/** The label of every definition's partition: its own, or its type's name, numbered where an earlier one has that. */
export function partitionLabels(definitions: readonly Definition[]): Map<Definition, string> {
  const labels = new Map<Definition, string>()
  for (const definition of definitions) {
    const { guid, name } = definition.type
    const prefix = name === guid ? 'linux' : name
    const taken = new Set(labels.values())
    let label = definition.label ?? prefix
    for (let k = 2; definition.label === undefined && taken.has(label); k++) label = `${prefix}-${k}`
    labels.set(definition, label)
  }
  return labels
}

/** The GUID that each definition's partition has before its content is known. */
export function seedGuids(definitions: readonly Definition[], seed: string): Map<Definition, string> {
  const seen = new Map<string, number>()
  return new Map(
    definitions.map((definition) => {
      const { type, guid } = definition
      const before = seen.get(type.guid) ?? 0
      seen.set(type.guid, before + 1)
      return [definition, guid ?? partitionGuid(seed, type, before)]
    }),
  )
}

/**
 * Sector size of the file system in a partition: what its definition says. A FAT has the disk's, as firmware wants it; the
 * others have 4096 bytes, so that they can move to any disk.
 */
export const fileSystemSectorSize = (definition: Definition, sectorSize: 512 | 4096): 512 | 1024 | 2048 | 4096 =>
  Math.max(definition.fileSystemSectorSize ?? (definition.format === 'vfat' ? sectorSize : 4096), sectorSize) as
    | 512
    | 1024
    | 2048
    | 4096

const MIB = 1 << 20
const DEFAULT_LEAST_BYTES = 10 * MIB
const LUKS_BYTES = 32 * MIB
const LEAST_BYTES: Readonly<Record<string, number>> = { ext4: 32 * MIB, btrfs: 256 * MIB, xfs: 300 * MIB }

/** The least a partition takes: what its definition, its file system and its content ask for. On an automatic disk, its size. */
export function leastSize(
  definition: Definition,
  definitions: readonly Definition[],
  options: { sectorSize: 512 | 4096; grain: number; contentBytes?: number | undefined },
): number {
  const { grain, contentBytes, sectorSize } = options
  if (isSignature(definition)) return alignUp(VERITY_SIGNATURE_BYTES, grain)
  const { format, encrypt } = definition
  let need = encrypt === 'off' ? 0 : LUKS_BYTES
  if (contentBytes !== undefined) need += alignUp(contentBytes, grain)
  if (contentBytes === undefined || format === 'vfat') {
    const made = format === undefined ? (encrypt === 'off' ? 0 : grain) : fileSystemBytes(definition, sectorSize)
    need = Math.max(need, (encrypt === 'off' ? 0 : LUKS_BYTES) + alignUp(made, grain))
  }
  const supplement = definitions.find(({ supplementFor }) => supplementFor === definition.name)
  const least = supplement ? mergedLeast(definition, supplement) : (definition.sizeMinBytes ?? hashBytes(definition, definitions))
  const fixed = isReadOnlyFormat(format) || definition.verity !== 'off'
  return Math.max(alignUp(least ?? (fixed ? 1 : DEFAULT_LEAST_BYTES), grain), need, 4096)
}

function fileSystemBytes(definition: Definition, sectorSize: 512 | 4096): number {
  const { format, type } = definition
  const boots = type.designator === 'esp' || type.designator === 'xbootldr'
  if (boots && format === 'vfat') return (fileSystemSectorSize(definition, sectorSize) >= 4096 ? 260 : 100) * MIB
  return LEAST_BYTES[format!] ?? 4096
}

/** The larger of both, where the supplement has one. */
function mergedLeast(target: Definition, supplement: Definition): number | undefined {
  if (supplement.sizeMinBytes === undefined) return undefined
  return Math.max(target.sizeMinBytes ?? 0, supplement.sizeMinBytes)
}

/** What the hashes of the largest data there may be take. */
function hashBytes(definition: Definition, definitions: readonly Definition[]): number | undefined {
  if (definition.verity !== 'hash') return undefined
  const most = siblingOf(definitions, definition, 'data')?.sizeMaxBytes
  return most === undefined ? undefined : verityTree(Math.max(2, Math.ceil(most / 4096))).blocks * 4096
}

const isSignature = ({ type }: Definition): boolean => type.designator?.endsWith('-verity-sig') === true

interface Room {
  sectorSize: 512 | 4096
  grain: number
}

interface Entry {
  definition: Definition
  /** With the supplement's, where it is merged. */
  least: number
  dropped: boolean
  /** Merged into the definition it supplements. */
  suppressed: boolean
  suppressing?: Entry
  size?: number
  padding?: number
}

function grainOf({ sectorSize = 512, grain = Math.max(4096, sectorSize) }: PlanOptions): number {
  if (!Number.isSafeInteger(grain) || grain < 4096 || (grain & (grain - 1)) !== 0)
    throw new Fault('usage', `Cannot align partitions to ${grain} bytes: expected a power of two of at least 4096`)
  return grain
}

const placed = (entry: Entry): boolean => !entry.dropped && !entry.suppressed

function most({ definition, suppressing, least }: Entry, grain: number): number {
  if (isSignature(definition)) return least
  const all = [definition.sizeMaxBytes, suppressing?.definition.sizeMaxBytes].filter((bytes) => bytes !== undefined)
  return all.length === 0 ? Number.POSITIVE_INFINITY : Math.max(least, Math.floor(Math.min(...all) / grain) * grain)
}

function leastPadding({ definition, suppressing }: Entry): number {
  const own = definition.paddingMinBytes
  if (!suppressing) return own ?? 0
  const other = suppressing.definition.paddingMinBytes
  return own === undefined || other === undefined ? 0 : Math.max(own, other)
}

const mostPadding = ({ definition, suppressing }: Entry): number =>
  Math.min(
    definition.paddingMaxBytes ?? Number.POSITIVE_INFINITY,
    suppressing?.definition.paddingMaxBytes ?? Number.POSITIVE_INFINITY,
  )

const required = (entry: Entry, grain: number): number => alignUp(entry.least + leastPadding(entry), grain)

const autoSize = (entries: readonly Entry[], { sectorSize, grain }: Room): number =>
  alignUp(
    alignUp(FIRST_USABLE_BYTES, grain) +
      sum(entries.filter(placed).map((entry) => required(entry, grain))) +
      gptBackupBytes(sectorSize),
    Math.max(4096, grain),
  )

const sum = (numbers: readonly number[]): number => numbers.reduce((total, n) => total + n, 0)

/** Makes the least of all fit, by leaving out the least important. */
function fit(entries: readonly Entry[], room: number, { grain }: Room): void {
  const fits = () => sum(entries.filter(placed).map((entry) => required(entry, grain))) <= room
  while (!fits()) {
    const priority = Math.max(0, ...entries.filter((entry) => !entry.dropped).map(({ definition }) => definition.priority))
    if (priority === 0) {
      const needed = sum(entries.filter(placed).map((entry) => required(entry, grain)))
      throw new Fault(
        'usage',
        `Cannot fit the partitions onto the disk: they take ${formatSize(needed)}, there is room for ${formatSize(room)}`,
        {
          hint: 'make the disk larger, or give partitions that may be missing a Priority= above 0',
        },
      )
    }
    for (const entry of entries) if (entry.definition.priority >= priority) drop(entry, entries)
  }
}

function drop(entry: Entry, entries: readonly Entry[]): void {
  entry.dropped = true
  const target = entries.find(({ suppressing }) => suppressing === entry)
  if (target) delete target.suppressing
}

/** Gives every partition its size and padding. */
function grow(entries: readonly Entry[], room: number, { grain }: Room): void {
  const here = entries.filter(placed)
  const shares = here.flatMap((entry): Share[] => {
    const weigh = (entry.suppressing ?? entry).definition
    return [
      { weight: weigh.weight, least: entry.least, most: most(entry, grain), take: (n) => (entry.size = n) },
      { weight: weigh.paddingWeight, least: leastPadding(entry), most: mostPadding(entry), take: (n) => (entry.padding = n) },
    ]
  })
  let left = shareOut(shares, room, grain)
  for (const entry of here) {
    if (left === 0) break
    const larger = Math.min(Math.max(Math.floor((entry.size! + left) / grain) * grain, entry.size!), most(entry, grain))
    left = Math.max(0, left - alignUp(larger - entry.size!, grain))
    entry.size = larger
  }
}

interface Share {
  weight: number
  least: number
  most: number
  take: (bytes: number) => void
}

/** Shares `span` by weight, between least and most; what nobody takes is given back. */
function shareOut(shares: readonly Share[], room: number, grain: number): number {
  const open = new Set(shares)
  let span = room
  let weights = sum(shares.map(({ weight }) => weight))
  const charge = (share: Share, bytes: number) => {
    share.take(bytes)
    open.delete(share)
    span = Math.max(0, span - alignUp(bytes, grain))
    weights -= share.weight
  }
  for (const phase of ['more', 'less', 'share'] as const) {
    for (let again = true; again; ) {
      again = false
      for (const share of [...open]) {
        const bytes = part(span, share.weight, weights)
        if (phase === 'more' ? share.least > bytes : phase === 'less' && share.most < bytes) {
          charge(share, phase === 'more' ? share.least : share.most)
          again = true
        } else if (phase === 'share') {
          charge(share, Math.min(Math.max(Math.floor(bytes / grain) * grain, share.least), share.most))
        }
      }
    }
  }
  return span
}

/** `span * weight / weights`, rounded down; weights are halved where the product has no room in 64 bits. */
function part(span: number, weight: number, weights: number): number {
  let [w, all] = [BigInt(weight), BigInt(weights)]
  for (const bytes = BigInt(span); ; ) {
    if (w === 0n) return 0
    if (w === all) return span
    if (bytes <= 0xffff_ffff_ffff_ffffn / w) return Number((bytes * w) / all)
    all = (all + 1n) / 2n
    w /= 2n
  }
}

/** One after the other, from the first place on. */
function place(
  entries: readonly Entry[],
  definitions: readonly Definition[],
  contentOf: (definition: Definition) => PartitionContent | undefined,
  start: number,
  seed: string,
): RepartPlan['partitions'] {
  const labels = partitionLabels(definitions)
  const guids = seedGuids(definitions, seed)
  let offset = start
  return entries.filter(placed).map(({ definition, size, padding }) => {
    const { type } = definition
    const planned = {
      definition,
      type: type.designator,
      typeGuid: type.guid,
      typeName: type.name,
      label: labels.get(definition)!,
      guid: definition.guid ?? contentOf(definition)?.guid ?? guids.get(definition)!,
      attributes: defaultAttributes(type, definition, definition.flags),
      offset,
      sizeBytes: size!,
      paddingBytes: padding!,
    }
    offset += planned.sizeBytes + planned.paddingBytes
    return planned
  })
}
