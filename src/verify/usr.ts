/** The tree under verity, /usr or the root, as a UKI pins it: the partitions its root hash names, every block of them, the signature, and what is inside. */
import { sha256 } from '../base/digest.ts'
import { Fault } from '../base/fault.ts'
import { formatSize } from '../base/size.ts'
import { checkSigner, decodeSignedData } from '../formats/cms.ts'
import { decodeErofs, type Erofs } from '../formats/erofs-decode.ts'
import type { ReadAt } from '../formats/struct.ts'
import {
  decodeVerity,
  decodeVeritySignature,
  VERITY_BLOCK,
  type VeritySignature,
  verityPartitionUuids,
  verityTree,
} from '../formats/verity.ts'
import { decodeIssuerAndSerial } from '../formats/x509.ts'
import { verifyVerity } from '../image/verity.ts'
import type { Workers } from '../run/workers.ts'
import { type Disk, type DiskPartition, readWithin } from './disk.ts'
import { checkLink, type Finding, type Link, leaveUnchecked } from './link.ts'
import { chainOf, nameOf, sameBytes, type Trust } from './trust.ts'
import type { UkiFacts } from './uki.ts'

interface Pair {
  data: DiskPartition
  hash: DiskPartition
}

/** The digests of all its blocks are held: a 128th of it. */
const MAX_USR_BYTES = 32 * 2 ** 30
const MAX_SIGNATURE_PARTITION_BYTES = 4 << 20
const MAX_OS_RELEASE_BYTES = 64 << 10

/** Checks the tree of one root hash, which all of `ukis` boot. */
export async function checkUsr(
  disk: Disk,
  partitions: readonly DiskPartition[],
  rootHash: string,
  ukis: readonly UkiFacts[],
  trust: Trust,
  workers: Workers,
  links: Link[],
): Promise<void> {
  const chain = chainOf(trust)
  const verity = chain.verity ?? 'usr'
  const pair = await checkLink(links, 'verity', `${verity} partitions`, (finding) =>
    findPair(partitions, verity, rootHash, finding),
  )
  const dataBytes =
    pair && (await checkLink(links, 'verity', 'verity superblock', (finding) => checkSuperblock(disk, pair, finding)))
  if (!pair || dataBytes === undefined) {
    leaveUnchecked(links, 'verity', 'hash tree', 'the partitions of the root hash are not sound')
    leaveUnchecked(links, 'verity', `${verity} file system`, 'the partitions of the root hash are not sound')
  } else {
    await checkLink(links, 'verity', 'hash tree', (finding) => checkTree(disk, pair, rootHash, workers, finding))
    // Only what the tree covers: the kernel shows no more.
    const covered = { offset: pair.data.offset, sizeBytes: dataBytes }
    await checkLink(links, 'verity', `${verity} file system`, (finding) => checkFileSystem(disk, covered, verity, ukis, finding))
  }
  const signatures = partitions.filter(({ designator }) => designator === `${verity}-verity-sig`)
  if (!chain.signature && signatures.every((one) => isEmpty(readWithin(disk, one)(0, VERITY_BLOCK)))) return
  await checkLink(links, 'verity', 'root hash signature', (finding) =>
    checkRootHashSignature(disk, signatures, rootHash, trust, finding),
  )
}

/** A place that is kept for a signature to come (`Verity=defer`). */
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
  const { dataBlocks, salt } = decodeVerity(readWithin(disk, hash)(0, VERITY_BLOCK))
  const dataBytes = dataBlocks * VERITY_BLOCK
  const treeBytes = verityTree(Math.min(dataBlocks, MAX_USR_BYTES)).blocks * VERITY_BLOCK
  if (dataBytes > data.sizeBytes)
    throw new Fault('format', `it covers ${dataBytes} bytes, partition ${data.number} has ${data.sizeBytes}`)
  if (treeBytes > hash.sizeBytes)
    throw new Fault('format', `its tree takes ${treeBytes} bytes, partition ${hash.number} has ${hash.sizeBytes}`)
  if (salt.length < 16) wrong(`its salt has ${salt.length} bytes, expected at least 16`)
  evidence(`sha256, ${dataBlocks} blocks of ${VERITY_BLOCK}, salt of ${salt.length} bytes`)
  return dataBytes
}

async function checkTree(
  disk: Disk,
  { data, hash }: Pair,
  rootHash: string,
  workers: Workers,
  { evidence }: Finding,
): Promise<void> {
  const device = ({ offset, sizeBytes }: DiskPartition) => ({ path: disk.path, offset, sizeBytes })
  await verifyVerity(device(data), device(hash), rootHash, { workers })
  evidence(`${formatSize(data.sizeBytes)} of data and its tree hash to ${rootHash}`)
}

function checkRootHashSignature(
  disk: Disk,
  partitions: readonly DiskPartition[],
  rootHash: string,
  trust: Trust,
  { evidence, wrong }: Finding,
): void {
  const found: VeritySignature[] = []
  for (const partition of partitions) {
    if (partition.sizeBytes > MAX_SIGNATURE_PARTITION_BYTES)
      throw new Fault('format', `partition ${partition.number} has ${partition.sizeBytes} bytes, expected at most 4 MiB`)
    found.push(decodeVeritySignature(readWithin(disk, partition)(0, partition.sizeBytes)))
  }
  const value = found.find((one) => one.rootHash === rootHash)
  if (!value) {
    wrong(`no signature partition is for ${rootHash}: there is ${found.map((one) => one.rootHash).join(', ') || 'none'}`)
    return
  }
  const signed = decodeSignedData(value.signature)
  if (signed.signers.length !== 1) wrong(`it has ${signed.signers.length} signers, expected 1`)
  for (const signer of signed.signers) {
    const certificate = trust.verity.find((one) => {
      const { issuer, serialNumber } = decodeIssuerAndSerial(one)
      return sameBytes(issuer, signer.issuer) && sameBytes(serialNumber, signer.serialNumber)
    })
    if (!certificate) {
      wrong('its signer is no trusted verity certificate')
      continue
    }
    for (const problem of checkSigner(signed, signer, certificate, Buffer.from(rootHash))) wrong(problem)
    if ((value.certificateFingerprint ?? sha256(certificate)) !== sha256(certificate))
      wrong(`certificateFingerprint is ${value.certificateFingerprint}, the signer's is ${sha256(certificate)}`)
    evidence(`PKCS#7 over the root hash by ${nameOf(certificate)}`)
  }
}

function checkFileSystem(
  disk: Disk,
  covered: { offset: number; sizeBytes: number },
  verity: 'usr' | 'root',
  ukis: readonly UkiFacts[],
  { evidence, wrong }: Finding,
): void {
  const read = readWithin(disk, covered)
  const other = otherFileSystem(read)
  if (other !== undefined) {
    evidence(`${other} of ${formatSize(covered.sizeBytes)}: what is in it is covered, and not looked at`)
    return
  }
  const erofs = decodeErofs(read, covered.sizeBytes)
  const inside = parseOsRelease(readOsRelease(erofs, verity === 'usr' ? 'lib/os-release' : 'usr/lib/os-release'))
  for (const { path, osRelease } of ukis) {
    const outside = parseOsRelease(osRelease)
    for (const key of ['ID', 'IMAGE_ID', 'IMAGE_VERSION']) {
      const [a, b] = [inside.get(key), outside.get(key)]
      if (a !== b)
        wrong(`os-release of /${verity === 'usr' ? 'usr' : ''} has ${key}=${a ?? ''}, .osrel of ${path} has ${key}=${b ?? ''}`)
    }
  }
  const name = [inside.get('IMAGE_ID'), inside.get('IMAGE_VERSION')].filter((part) => part !== undefined).join(' ')
  evidence(`EROFS of ${formatSize(erofs.sizeBytes)}, ${erofs.inodes.size} paths, ${name || 'no image id'}`)
}

const MAGICS: readonly [name: string, offset: number, bytes: string][] = [
  ['squashfs', 0, '68737173'],
  ['ext4', 1080, '53ef'],
  ['xfs', 0, '58465342'],
  ['btrfs', 65600, '5f42485266535f4d'],
  ['f2fs', 1024, '1020f5f2'],
]

/** A file system that is none of ours to read. */
const otherFileSystem = (read: ReadAt): string | undefined =>
  MAGICS.find(([, offset, bytes]) => Buffer.from(read(offset, bytes.length / 2)).toString('hex') === bytes)?.[0]

function readOsRelease(erofs: Erofs, path: string): string {
  const inode = erofs.inodes.get(path)
  if (inode?.type !== 'file') throw new Fault('format', '/usr/lib/os-release is no file')
  if (inode.sizeBytes > MAX_OS_RELEASE_BYTES) throw new Fault('format', `/usr/lib/os-release has ${inode.sizeBytes} bytes`)
  return Buffer.concat([...erofs.contents(inode)]).toString('utf8')
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
