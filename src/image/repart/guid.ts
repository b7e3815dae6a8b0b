/** The GUIDs of partitions and what is in them, derived as systemd-repart derives them. */
import { derivedGuid, guidBytes } from '../../base/guid.ts'
import type { PartitionType } from '../../formats/dps.ts'

/** The GUID of the `before + 1`-th partition of a type. */
export function partitionGuid(seed: string, type: Pick<PartitionType, 'guid'>, before: number): string {
  const count = Buffer.alloc(before === 0 ? 0 : 8)
  if (before > 0) count.writeBigUInt64LE(BigInt(before))
  return derivedGuid(seed, Buffer.concat([guidBytes(type.guid), count]))
}

/** The GUID of the file system in a partition whose own GUID comes from the seed; its first four bytes are a FAT's volume id. */
export const fileSystemGuid = (partitionGuid: string): string => derivedGuid(partitionGuid, 'file-system-uuid')
