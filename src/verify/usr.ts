/** The tree under verity, /usr or the root, as a UKI pins it: the partitions its root hash names, every block of them, the signature, and what is inside. */
import { Fault } from '../base/fault.ts'
import { formatSize } from '../base/size.ts'
import { decodeErofs } from '../formats/erofs-decode.ts'
import type { ReadAt } from '../formats/struct.ts'
import { decodeVerity, VERITY_BLOCK, verityPartitionUuids, verityTree } from '../formats/verity.ts'
import { verifyVerity } from '../image/verity.ts'
import type { Workers } from '../run/workers.ts'
import { type Disk, type DiskPartition, readWithin } from './disk.ts'
import type { Anchor, ProfileFacts, TreeFacts, UkiFacts } from './facts.ts'
import { type Files, filesOfErofs } from './holes/files.ts'
import { checkLink, type Finding, type Link, leaveUnchecked } from './link.ts'
import { checkRootHashSignature } from './signature.ts'

/** A tree, and the profiles whose command lines pin it. */
export interface PinnedTree {
  verity: 'usr' | 'root'
  rootHash: string
  profiles: { uki: UkiFacts; profile: ProfileFacts }[]
}

interface Pair {
  data: DiskPartition
  hash: DiskPartition
}

/** The digests of all its blocks are held: a 128th of it. */
const MAX_USR_BYTES = 32 * 2 ** 30
const MAX_OS_RELEASE_BYTES = 64 << 10

/** Checks the tree of one root hash, which all of `ukis` boot. */
export async function checkTree(
  disk: Disk,
  partitions: readonly DiskPartition[],
  pinned: PinnedTree,
  { anchor, now }: { anchor: Anchor; now: number },
  workers: Workers,
  links: Link[],
): Promise<TreeFacts | undefined> {
  const { verity, rootHash, profiles } = pinned
  const pair = await checkLink(links, 'verity', `${verity} partitions`, (finding) =>
    findPair(partitions, verity, rootHash, finding),
  )
  const dataBytes =
    pair && (await checkLink(links, 'verity', 'verity superblock', (finding) => checkSuperblock(disk, pair, finding)))
  let sound = false
  let inside: Inside | undefined
  if (!pair || dataBytes === undefined) {
    leaveUnchecked(links, 'verity', 'hash tree', 'the partitions of the root hash are not sound')
    leaveUnchecked(links, 'verity', `${verity} file system`, 'the partitions of the root hash are not sound')
  } else {
    await checkLink(links, 'verity', 'hash tree', (finding) => checkBlocks(disk, pair, rootHash, workers, finding))
    sound = links.at(-1)!.ok
    // Only what the tree covers: the kernel shows no more.
    const covered = { offset: pair.data.offset, sizeBytes: dataBytes }
    inside = await checkLink(links, 'verity', `${verity} file system`, (finding) =>
      checkFileSystem(disk, covered, verity, profiles, anchor.total, finding),
    )
  }
  const places = partitions.filter(({ designator }) => designator === `${verity}-verity-sig`)
  const isPromised = anchor.chain.signature
  const isThere = places.some((one) => !isEmpty(readWithin(disk, one)(0, VERITY_BLOCK)))
  const initrds = [...new Set(profiles.flatMap(({ profile }) => (profile.initrd ? [profile.initrd.files] : [])))]
  const signed =
    isPromised || isThere
      ? await checkLink(links, 'verity', 'root hash signature', (finding) =>
          checkRootHashSignature(disk, places, rootHash, anchor, initrds, now, finding),
        )
      : undefined
  if (!pair) return undefined
  return {
    ...{ verity, rootHash, partition: pair.data, ukis: [...new Set(profiles.map(({ uki }) => uki.path))], sound },
    ...{ signers: signed?.signers ?? [], signedForKernel: signed?.forKernel ?? false },
    fileSystem: inside?.fileSystem ?? 'unknown',
    ...(inside?.files ? { files: inside.files } : {}),
  }
}

/** A place that is kept for a signature to come (`Verity=defer`), or for the next version's. */
const isEmpty = (bytes: Uint8Array): boolean => bytes.every((byte) => byte === 0)

function findPair(
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
  if (data.sizeBytes > MAX_USR_BYTES)
    throw new Fault(
      'format',
      `partition ${data.number} has ${formatSize(data.sizeBytes)}, at most ${formatSize(MAX_USR_BYTES)} are checked`,
    )
  evidence(`partitions ${data.number} and ${hash.number} have the halves of ${rootHash} as UUIDs`)
  return { data, hash }
}

/** Gives back how many bytes the tree covers, which are what the kernel shows. */
function checkSuperblock(disk: Disk, { data, hash }: Pair, { evidence, wrong }: Finding): number {
  const superblock = decodeVerity(readWithin(disk, hash)(0, VERITY_BLOCK))
  const { dataBlocks, salt, dataBlockBytes = VERITY_BLOCK, hashBlockBytes = VERITY_BLOCK } = superblock
  const dataBytes = dataBlocks * dataBlockBytes
  const treeBytes = verityTree(Math.min(dataBlocks, MAX_USR_BYTES), hashBlockBytes).blocks * hashBlockBytes
  if (dataBytes > data.sizeBytes)
    throw new Fault('format', `it covers ${dataBytes} bytes, partition ${data.number} has ${data.sizeBytes}`)
  if (treeBytes > hash.sizeBytes)
    throw new Fault('format', `its tree takes ${treeBytes} bytes, partition ${hash.number} has ${hash.sizeBytes}`)
  if (dataBlocks > MAX_USR_BYTES / VERITY_BLOCK)
    throw new Fault('format', `it covers ${dataBlocks} blocks, at most ${MAX_USR_BYTES / VERITY_BLOCK} are checked`)
  if (salt.length < 16) wrong(`its salt has ${salt.length} bytes, expected at least 16`)
  evidence(`sha256, ${dataBlocks} blocks of ${dataBlockBytes}, salt of ${salt.length} bytes`)
  return dataBytes
}

async function checkBlocks(
  disk: Disk,
  { data, hash }: Pair,
  rootHash: string,
  workers: Workers,
  { evidence }: Finding,
): Promise<void> {
  const device = ({ offset, sizeBytes }: DiskPartition) => ({ path: disk.path, extents: [{ offset, sizeBytes }] })
  await verifyVerity(device(data), device(hash), rootHash, { workers })
  evidence(`${formatSize(data.sizeBytes)} of data and its tree hash to ${rootHash}`)
}

interface Inside {
  fileSystem: string
  files?: Files
}

function checkFileSystem(
  disk: Disk,
  covered: { offset: number; sizeBytes: number },
  verity: 'usr' | 'root',
  profiles: PinnedTree['profiles'],
  total: boolean,
  { evidence, wrong }: Finding,
): Inside {
  const read = readWithin(disk, covered)
  const other = fileSystemOf(read)
  if (other !== undefined && other !== 'erofs') {
    evidence(`${other} of ${formatSize(covered.sizeBytes)}: what is in it is covered, and not looked at`)
    return { fileSystem: other }
  }
  const erofs = decodeErofs(read, covered.sizeBytes)
  const files = filesOfErofs(erofs, verity === 'usr' ? 'usr' : '')
  const inside = parseOsRelease(readOsRelease(files))
  for (const { uki, profile } of profiles) {
    const outside = parseOsRelease(profile.osRelease)
    const where = `${uki.path}${uki.profiles.length > 1 && profile.number > 0 ? ` profile ${profile.id || profile.number}` : ''}`
    for (const key of ['ID', 'IMAGE_ID', 'IMAGE_VERSION']) {
      const [a, b] = [inside.get(key), outside.get(key)]
      if (a !== b)
        wrong(`os-release of /${verity === 'usr' ? 'usr' : ''} has ${key}=${a ?? ''}, .osrel of ${where} has ${key}=${b ?? ''}`)
    }
    const kernels = files.names('usr/lib/modules')
    if (total && kernels.length > 0 && !kernels.includes(profile.uname))
      wrong(`/usr/lib/modules has ${kernels.slice(0, 5).join(', ')}, .uname of ${where} is ${profile.uname.slice(0, 80)}`)
  }
  const name = [inside.get('IMAGE_ID'), inside.get('IMAGE_VERSION')].filter((part) => part !== undefined).join(' ')
  evidence(`EROFS of ${formatSize(erofs.sizeBytes)}, ${erofs.inodes.size} paths, ${name || 'no image id'}`)
  return { fileSystem: 'erofs', files }
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

function readOsRelease(files: Files): string {
  const bytes = files.bytes('usr/lib/os-release', MAX_OS_RELEASE_BYTES)
  if (!bytes) throw new Fault('format', `/usr/lib/os-release is no file, or has more than ${MAX_OS_RELEASE_BYTES} bytes`)
  return Buffer.from(bytes).toString('utf8')
}

/** `KEY=value` lines; the last of a key counts, one pair of quotes around a value does not. */
function parseOsRelease(text: string): Map<string, string> {
  const values = new Map<string, string>()
  for (const line of text.split('\n')) {
    const match = /^\s*([A-Z0-9_]+)=(.*?)\s*$/.exec(line)
    if (match) values.set(match[1]!, match[2]!.replace(/^(["'])(.*)\1$/, '$2'))
  }
  return values
}
