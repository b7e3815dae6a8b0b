/** The GUIDs of partitions and what is in them, derived as systemd-repart derives them. */
import { Fault } from '../../base/fault.ts'
import { derivedGuid, guidBytes, guidFrom } from '../../base/guid.ts'
import type { PartitionType } from '../../formats/dps.ts'

/** The GUID of the `before + 1`-th partition of a type. */
export function partitionGuid(seed: string, type: Pick<PartitionType, 'guid'>, before: number): string {
  const count = Buffer.alloc(before === 0 ? 0 : 8)
  if (before > 0) count.writeBigUInt64LE(BigInt(before))
  return derivedGuid(seed, Buffer.concat([guidBytes(type.guid), count]))
}

/** The GUID of the file system in a partition whose own GUID comes from the seed; its first four bytes are a FAT's volume id. */
export const fileSystemGuid = (partitionGuid: string): string => derivedGuid(partitionGuid, 'file-system-uuid')

/** The GUIDs by which a verity pair is found: together they are the root hash. */
export function verityGuids(rootHash: string): { data: string; hash: string } {
  if (!/^[0-9a-f]{64}$/.test(rootHash))
    throw new Fault('usage', `Cannot take GUIDs from root hash ${rootHash}: expected 64 digits`)
  const bytes = Buffer.from(rootHash, 'hex')
  return { data: guidFrom(bytes.subarray(0, 16)), hash: guidFrom(bytes.subarray(-16)) }
}
