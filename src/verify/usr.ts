/** The tree under verity, /usr or the root, as a UKI pins it: the partitions its root hash names, every block of them, the signature, and what is inside. */
import { Fault } from '../base/fault.ts'
import { formatSize } from '../base/size.ts'
import { decodeErofs } from '../formats/erofs-decode.ts'
import { VERITY_BLOCK } from '../formats/verity.ts'
import type { Workers } from '../run/workers.ts'
import { type Disk, type DiskPartition, readWithin } from './disk.ts'
import type { Anchor, ProfileFacts, TreeFacts, UkiFacts } from './facts.ts'
import { type Files, filesOfErofs } from './holes/files.ts'
import { checkLink, type Finding, type Link, leaveUnchecked } from './link.ts'
import { checkRootHashSignature } from './signature.ts'
import { checkBlocks, checkSuperblock, fileSystemOf, findPair } from './verity.ts'

/** A tree, and the profiles whose command lines pin it. */
export interface PinnedTree {
  verity: 'usr' | 'root'
  rootHash: string
  profiles: { uki: UkiFacts; profile: ProfileFacts }[]
}

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
