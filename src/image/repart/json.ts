/** A plan in the form of `systemd-repart --json`, for comparison with it. */
import type { RepartPlan } from './plan.ts'

export interface PlanRow {
  type: string
  label: string
  uuid: string
  /** From 0. */
  partno: number
  file: string
  node: string
  offset: number
  old_size: number
  raw_size: number
  old_padding: number
  raw_padding: number
  activity: 'create'
  roothash?: string
  split_path?: string
  'drop-in_files'?: readonly string[]
}

export interface PlanJsonOptions {
  /** Path of the disk image. */
  node: string
  /** Root hash of the verity set a partition is of, and the path of its own file, by the partition's number from 0. */
  rootHashes?: ReadonlyMap<number, string>
  splitPaths?: ReadonlyMap<number, string>
}

export const planJson = (plan: RepartPlan, { node, rootHashes, splitPaths }: PlanJsonOptions): PlanRow[] =>
  plan.partitions.map((partition, partno) => {
    const { definition } = partition
    const rootHash = rootHashes?.get(partno)
    const splitPath = splitPaths?.get(partno)
    return {
      type: partition.typeName,
      label: partition.label === '' ? '-' : partition.label,
      uuid: partition.guid,
      partno,
      file: definition.file,
      node: `${node}${partno + 1}`,
      offset: partition.offset,
      old_size: 0,
      raw_size: partition.sizeBytes,
      old_padding: 0,
      raw_padding: partition.paddingBytes,
      activity: 'create',
      ...(rootHash === undefined ? {} : { roothash: rootHash }),
      ...(splitPath === undefined ? {} : { split_path: splitPath }),
      ...(definition.dropIns.length === 0 ? {} : { 'drop-in_files': definition.dropIns }),
    }
  })
