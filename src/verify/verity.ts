/** Partitions under dm-verity: those that a root hash names, and every block of them. */
import { Fault } from '../base/fault.ts'
import { formatSize } from '../base/size.ts'
import type { ReadAt } from '../formats/struct.ts'
import { decodeVerity, VERITY_BLOCK, verityPartitionUuids, verityTree } from '../formats/verity.ts'
import { verifyVerity } from '../image/verity.ts'
import type { Workers } from '../run/workers.ts'
import { type Disk, type DiskPartition, readWithin } from './disk.ts'
import type { Finding } from './link.ts'

export interface Pair {
  data: DiskPartition
  hash: DiskPartition
}

/** The digests of all its blocks are held: a 128th of it. */
const MAX_DATA_BYTES = 32 * 2 ** 30

/** The partitions whose UUIDs are the halves of a root hash. */
export function findPair(
  partitions: readonly DiskPartition[],
  verity: 'usr' | 'root',
  rootHash: string,
  { evidence, wrong }: Finding,
): Pair | undefined {
  const uuids = verityPartitionUuids(rootHash)
  const find = (designator: string, guid: string, half: string) => {
    const found = partitions.find((partition) => partition.designator === designator && partition.guid === guid)
    const there = partitions.filter((partition) => partition.designator === designator).map((partition) => partition.guid)
    if (!found)
      wrong(
        `no ${designator} partition has the UUID ${guid}, the ${half} half of the root hash: there is ${there.join(', ') || 'none'}`,
      )
    return found
  }
  const data = find(verity, uuids.data, 'first')
  const hash = find(`${verity}-verity`, uuids.hash, 'second')
  if (!data || !hash) return undefined
  if (data.architecture !== hash.architecture)
    wrong(`${verity} is for ${data.architecture}, ${verity}-verity for ${hash.architecture}`)
  if (data.sizeBytes > MAX_DATA_BYTES)
    throw new Fault(
      'format',
      `partition ${data.number} has ${formatSize(data.sizeBytes)}, at most ${formatSize(MAX_DATA_BYTES)} are checked`,
    )
  evidence(`partitions ${data.number} and ${hash.number} have the halves of ${rootHash} as UUIDs`)
  return { data, hash }
}

/** Gives back how many bytes the tree covers, which are what the kernel shows. */
export function checkSuperblock(disk: Disk, { data, hash }: Pair, { evidence, wrong }: Finding): number {
  const superblock = decodeVerity(readWithin(disk, hash)(0, VERITY_BLOCK))
  const { dataBlocks, salt, dataBlockBytes = VERITY_BLOCK, hashBlockBytes = VERITY_BLOCK } = superblock
  const dataBytes = dataBlocks * dataBlockBytes
  const treeBytes = verityTree(Math.min(dataBlocks, MAX_DATA_BYTES), hashBlockBytes).blocks * hashBlockBytes
  if (dataBytes > data.sizeBytes)
    throw new Fault('format', `it covers ${dataBytes} bytes, partition ${data.number} has ${data.sizeBytes}`)
  if (treeBytes > hash.sizeBytes)
    throw new Fault('format', `its tree takes ${treeBytes} bytes, partition ${hash.number} has ${hash.sizeBytes}`)
  if (dataBlocks > MAX_DATA_BYTES / VERITY_BLOCK)
    throw new Fault('format', `it covers ${dataBlocks} blocks, at most ${MAX_DATA_BYTES / VERITY_BLOCK} are checked`)
  if (salt.length < 16) wrong(`its salt has ${salt.length} bytes, expected at least 16`)
  evidence(`sha256, ${dataBlocks} blocks of ${dataBlockBytes}, salt of ${salt.length} bytes`)
  return dataBytes
}

/** Every block of the data and of the tree. */
export async function checkBlocks(
  disk: Disk,
  { data, hash }: Pair,
  rootHash: string,
  workers: Workers,
  { evidence }: Finding,
): Promise<void> {
  const device = ({ offset, sizeBytes }: DiskPartition) => ({ path: disk.path, extents: disk.places(offset, sizeBytes) })
  await verifyVerity(device(data), device(hash), rootHash, { workers })
  evidence(`${formatSize(data.sizeBytes)} of data and its tree hash to ${rootHash}`)
}

const MAGICS: readonly [name: string, offset: number, bytes: string][] = [
  ['erofs', 1024, 'e2e1f5e0'],
  ['LUKS', 0, '4c554b53babe'],
  ['squashfs', 0, '68737173'],
  ['ext4', 1080, '53ef'],
  ['xfs', 0, '58465342'],
  ['btrfs', 65600, '5f42485266535f4d'],
  ['f2fs', 1024, '1020f5f2'],
]

/** What a partition holds, by its first bytes; undefined where that is none of these. */
export const fileSystemOf = (read: ReadAt): string | undefined =>
  MAGICS.find(([, offset, bytes]) => Buffer.from(read(offset, bytes.length / 2)).toString('hex') === bytes)?.[0]
