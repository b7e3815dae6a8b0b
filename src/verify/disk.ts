/** A disk image as a file, or as a file on one: its bytes, its partition table, and the partitions the chain of trust needs. */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs'
import { type Extent, placesIn } from '../base/extent.ts'
import { Fault } from '../base/fault.ts'
import { type Architecture, type Designator, designatorOf } from '../formats/dps.ts'
import type { FatEntry } from '../formats/fat.ts'
import { decodeGpt } from '../formats/gpt.ts'
import type { ReadAt } from '../formats/struct.ts'
import { checkLink, type Link } from './link.ts'
import type { Chain } from './trust.ts'

export interface Disk {
  path: string
  sizeBytes: number
  read: ReadAt
  /** Where bytes of it lie in the file at `path`. */
  places(offset: number, sizeBytes: number): Extent[]
}

export interface DiskPartition {
  /** From 1, as in the table. */
  number: number
  label: string
  guid: string
  /** GUID of its type. */
  type: string
  attributes: bigint
  /** Absent where the type is none that we know. */
  designator?: Designator
  architecture?: Architecture
  offset: number
  sizeBytes: number
}

/** Opens an image. A Fault where it is no file that can be read. */
export function openDisk(path: string): Disk & Disposable {
  const fd = hostFault(path, () => openSync(path, 'r'))
  const close = () => closeSync(fd)
  try {
    const found = hostFault(path, () => fstatSync(fd))
    if (!found.isFile()) throw new Fault('missing', `Cannot verify ${path}: it is no regular file`)
    const { size } = found
    const read: ReadAt = (offset, sizeBytes) => {
      const length = Math.max(0, Math.min(sizeBytes, size - offset))
      const bytes = Buffer.allocUnsafeSlow(length)
      let at = 0
      while (at < length) {
        const got = hostFault(path, () => readSync(fd, bytes, at, length - at, offset + at))
        if (got === 0) break
        at += got
      }
      return bytes.subarray(0, at)
    }
    return { path, sizeBytes: size, read, places: placesIn([{ offset: 0, sizeBytes: size }]), [Symbol.dispose]: close }
  } catch (error) {
    close()
    throw error
  }
}

/** A partition by itself: offsets count from its start, and nothing beyond its end can be read. */
export const readWithin =
  (disk: Disk, { offset, sizeBytes }: Pick<DiskPartition, 'offset' | 'sizeBytes'>): ReadAt =>
  (at, length) =>
    at < 0 || at >= sizeBytes ? new Uint8Array() : disk.read(offset + at, Math.min(length, sizeBytes - at))

/** A file of the file system in a partition, as a disk of its own that is read where it lies. */
export function diskOfFile(disk: Disk, { offset: start }: Pick<DiskPartition, 'offset'>, file: FatEntry): Disk {
  const find = placesIn(file.extents.map(({ offset, sizeBytes }) => ({ offset: start + offset, sizeBytes })))
  // The last cluster goes on behind the end of the file.
  const places = (offset: number, sizeBytes: number) => find(offset, Math.min(sizeBytes, file.sizeBytes - offset))
  const read: ReadAt = (offset, sizeBytes) => {
    const found = places(offset, sizeBytes)
    return found.length === 1
      ? disk.read(found[0]!.offset, found[0]!.sizeBytes)
      : Buffer.concat(found.map((one) => disk.read(one.offset, one.sizeBytes)))
  }
  return { path: disk.path, sizeBytes: file.sizeBytes, read, places }
}

/** Both copies of the table agree and cover the file, partitions do not overlap, and what they are for is known. */
export async function checkTable(disk: Disk, chain: Chain | undefined, links: Link[]): Promise<DiskPartition[] | undefined> {
  return checkLink(links, 'firmware', 'partition table', ({ evidence, wrong }) => {
    const partitions = readTable(disk, wrong)
    for (const needed of chain ? neededPartitions(chain) : [])
      if (!partitions.some(({ designator }) => designator === needed)) wrong(`there is no ${needed} partition`)
    if (partitions.filter(({ designator }) => designator === 'esp').length > 1)
      wrong('there is more than one ESP: firmware starts from either', 'remove all but one')
    for (const guid of new Set(partitions.map(({ guid }) => guid)))
      if (partitions.filter((one) => one.guid === guid).length > 1) wrong(`more than one partition has the UUID ${guid}`)
    const names = partitions.map(({ designator, type }) => designator ?? `unknown (${type})`).join(' ')
    evidence(`2 equal copies, ${partitions.length} partitions: ${names}`)
    return partitions
  })
}

/** The partitions of a table that is right in itself; whether it is for this disk is told. */
export function readTable(disk: Disk, wrong: (problem: string) => void): DiskPartition[] {
  const gpt = decodeGpt(disk.read)
  const { sectorSize } = gpt
  const covered = gpt.sectors * sectorSize
  if (covered !== disk.sizeBytes) wrong(`the table is for a disk of ${covered} bytes, the image has ${disk.sizeBytes}`)
  return gpt.partitions.map((p, i): DiskPartition => {
    const offset = p.firstLba * sectorSize
    const sizeBytes = (p.lastLba - p.firstLba + 1) * sectorSize
    const { name: label, guid, type, attributes } = p
    return { number: i + 1, label, guid, type, attributes, ...designatorOf(type), offset, sizeBytes }
  })
}

function neededPartitions({ verity, signature, bootable }: Chain): string[] {
  const trees = verity ? [verity, `${verity}-verity`, ...(signature ? [`${verity}-verity-sig`] : [])] : []
  return [...(bootable ? ['esp'] : []), ...trees]
}

/** A file's content, in one piece of memory. */
export function readFile(entry: FatEntry, read: ReadAt, limitBytes: number): Uint8Array {
  if (entry.sizeBytes > limitBytes)
    throw new Fault('format', `Cannot read ${entry.path}: it has ${entry.sizeBytes} bytes, at most ${limitBytes} are expected`)
  const bytes = Buffer.allocUnsafeSlow(entry.sizeBytes)
  let at = 0
  for (const extent of entry.extents) {
    const wanted = Math.min(extent.sizeBytes, bytes.length - at)
    for (let done = 0; done < wanted; ) {
      const piece = read(extent.offset + done, Math.min(PIECE, wanted - done))
      if (piece.length === 0) throw new Fault('format', `Cannot read ${entry.path}: the file system ends before its content`)
      bytes.set(piece, at + done)
      done += piece.length
    }
    at += wanted
  }
  return bytes
}

const PIECE = 4 << 20

function hostFault<T>(path: string, body: () => T): T {
  try {
    return body()
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT')
      throw new Fault('missing', `Cannot verify ${path}: it does not exist`, { hint: 'bisque build', cause })
    throw new Fault('host', `Cannot verify ${path}: ${(cause as Error).message}`, { cause })
  }
}
