/**
 * Editing a disk image that is finished: what an attacker with the disk in hand can do, and an updater who puts another
 * version beside the first. Nothing is signed or hashed here; tables keep their checksums, so that what refuses the
 * result is whoever guards the content.
 */
import { closeSync, constants, fstatSync, ftruncateSync, openSync, readSync, writeSync } from 'node:fs'
import { copyFile, open, rm } from 'node:fs/promises'
import { Fault } from '../base/fault.ts'
import { alignUp } from '../base/size.ts'
import { type Architecture, type Designator, designatorOf, partitionType } from '../formats/dps.ts'
import { decodeFat, encodeFat, type Fat, readFat } from '../formats/fat.ts'
import { decodeGpt, encodeGpt, FIRST_USABLE_BYTES, type Gpt, type GptPartition, gptBackupBytes } from '../formats/gpt.ts'
import type { ReadAt } from '../formats/struct.ts'
import { writeContent } from './disk.ts'

export interface EditedPartition {
  /** From 1, as in the table. */
  number: number
  /** Absent where the type is none that we know. */
  designator: Designator | undefined
  architecture: Architecture | undefined
  typeGuid: string
  label: string
  guid: string
  attributes: bigint
  offset: number
  sizeBytes: number
}

export interface NewPartition {
  type: Designator
  architecture?: Architecture
  label: string
  guid: string
  attributes?: bigint
  /** Its content; the partition is as large, up to the grain, unless `sizeBytes` says more. */
  bytes: Uint8Array
  sizeBytes?: number
}

/** An image opened for editing. All calls take effect at once. */
export interface EditedImage extends Disposable {
  readonly path: string
  readonly sizeBytes: number
  readonly partitions: readonly EditedPartition[]
  /** The only partition of that type, or the one with that label or GUID. A Fault where there is none, or several. */
  partition(type: Designator, which?: string): EditedPartition
  read(partition: EditedPartition, offset?: number, sizeBytes?: number): Uint8Array
  /** Writes within the partition; what goes beyond its end is a Fault. */
  write(partition: EditedPartition, offset: number, bytes: Uint8Array): void
  flipBit(partition: EditedPartition, offset: number, bit?: number): void
  /** Files of the ESP: path to size. */
  espFiles(): Map<string, number>
  readEsp(path: string): Uint8Array
  /** Replaces, adds or (undefined) removes files of the ESP, and writes its file system anew. Names are matched as FAT does. */
  changeEsp(changes: Readonly<Record<string, Uint8Array | undefined>>): void
  /** Adds a partition behind the others; the disk grows as needed. */
  addPartition(partition: NewPartition): EditedPartition
  /** Changes what the table says of a partition, not what is in it. */
  changePartition(partition: EditedPartition, change: { label?: string; guid?: string; attributes?: bigint }): EditedPartition
  removePartition(partition: EditedPartition): void
  /** Moves the copy of the table, so that the disk has at least this many bytes. */
  grow(sizeBytes: number): void
}

const GRAIN = 1 << 20
const CHUNK = 4 << 20
const MAX_ESP_FILE_BYTES = 512 << 20

/** Copies an image to a new file: sharing its blocks where the file system can, without its holes elsewhere. */
export async function copyImage(from: string, to: string): Promise<void> {
  const shared = await copyFile(from, to, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE_FORCE).then(
    () => true,
    (error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') throw new Fault('missing', `Cannot copy ${from}: it does not exist`, { cause: error })
      if (error.code === 'EEXIST') throw new Fault('usage', `Cannot copy ${from}: ${to} is there already`, { cause: error })
      return false
    },
  )
  if (shared) return
  await rm(to, { force: true })
  await using file = await open(to, 'wx')
  const sizeBytes = await writeContent(file, 0, Number.MAX_SAFE_INTEGER, { path: from }, to)
  await file.truncate(sizeBytes)
}

/** Opens an image for editing; its partition table must be sound. */
export function openImage(path: string): EditedImage {
  const fd = openForEditing(path)
  try {
    return editing(path, fd)
  } catch (error) {
    closeSync(fd)
    throw error
  }
}

/** Copies an image and edits the copy: the one thing attacks and tests do. */
export async function editedCopy(from: string, to: string, edit: (image: EditedImage) => void | Promise<void>): Promise<void> {
  await copyImage(from, to)
  using image = openImage(to)
  await edit(image)
}

function openForEditing(path: string): number {
  try {
    return openSync(path, 'r+')
  } catch (cause) {
    const missing = (cause as NodeJS.ErrnoException).code === 'ENOENT'
    throw new Fault(missing ? 'missing' : 'host', `Cannot edit ${path}: ${(cause as Error).message}`, { cause })
  }
}

function editing(path: string, fd: number): EditedImage {
  const readAt: ReadAt = (offset, sizeBytes) => readFully(fd, offset, Math.max(0, Math.min(sizeBytes, sizeOf() - offset)))
  const sizeOf = () => fstatSync(fd).size
  const gpt = () => decodeGpt(readAt)
  const within = ({ offset, sizeBytes }: EditedPartition): ReadAt => {
    return (at, length) => (at < 0 || at >= sizeBytes ? new Uint8Array() : readAt(offset + at, Math.min(length, sizeBytes - at)))
  }
  const partitions = () => gpt().partitions.map((p, i) => partitionOf(p, i, gpt().sectorSize))
  const partition = (type: Designator, which?: string) => findPartition(path, partitions(), type, which)
  const fatOf = (esp: EditedPartition): Fat => decodeFat(within(esp), esp.sizeBytes)
  const write = ({ offset, sizeBytes, label }: EditedPartition, at: number, bytes: Uint8Array) => {
    if (at < 0 || at + bytes.length > sizeBytes)
      throw new Fault('usage', `Cannot write to partition ${label}: it has ${sizeBytes} bytes, ${at + bytes.length} are needed`)
    writeFully(fd, offset + at, bytes)
  }
  const writeTable = (table: Gpt) => {
    const { primary, backup } = encodeGpt(table)
    const end = table.sectors * table.sectorSize
    const before = sizeOf()
    if (end > before) {
      eraseRange(fd, before - gptBackupBytes(table.sectorSize), gptBackupBytes(table.sectorSize))
      ftruncateSync(fd, end)
    }
    writeFully(fd, 0, primary)
    writeFully(fd, end - backup.length, backup)
  }
  const changeTable = (change: (table: Gpt) => Gpt) => writeTable(change(gpt()))
  const same = (p: GptPartition, one: EditedPartition) => p.guid === one.guid
  return {
    path,
    get sizeBytes() {
      return sizeOf()
    },
    get partitions() {
      return partitions()
    },
    partition,
    read: (one, offset = 0, sizeBytes = one.sizeBytes - offset) => within(one)(offset, sizeBytes),
    write,
    flipBit(one, offset, bit = 0) {
      const [byte] = within(one)(offset, 1)
      if (byte === undefined) throw new Fault('usage', `Cannot flip a bit at ${offset}: partition ${one.label} ends before it`)
      write(one, offset, Uint8Array.of(byte ^ (1 << bit)))
    },
    espFiles: () =>
      new Map(fatOf(partition('esp')).entries.flatMap((e) => (e.type === 'file' ? [[e.path, e.sizeBytes] as const] : []))),
    readEsp(name) {
      const esp = partition('esp')
      const found = fatOf(esp).entries.find((e) => e.type === 'file' && e.path.toUpperCase() === name.toUpperCase())
      if (!found) throw new Fault('missing', `Cannot read ${name}: it is not on the ESP of ${path}`)
      return readFat(within(esp), found)
    },
    changeEsp(changes) {
      const esp = partition('esp')
      const fat = fatOf(esp)
      const files = changedFiles(fat, within(esp), changes)
      writeFat(fd, esp, fat, files)
    },
    addPartition(added) {
      const table = gpt()
      const sector = table.sectorSize
      const sizeBytes = alignUp(Math.max(added.sizeBytes ?? 0, added.bytes.length, 1), 4096)
      const end = Math.max(FIRST_USABLE_BYTES, ...table.partitions.map((p) => (p.lastLba + 1) * sector))
      const offset = alignUp(end, GRAIN)
      const needed = alignUp(offset + sizeBytes + gptBackupBytes(sector), 4096)
      const type = partitionType(added.type, added.architecture ?? 'x86-64').guid
      const { label: name, guid, attributes = 0n } = added
      const place = { firstLba: offset / sector, lastLba: (offset + sizeBytes) / sector - 1 }
      const grown = { ...table, sectors: Math.max(table.sectors, needed / sector) }
      writeTable({ ...grown, partitions: [...table.partitions, { type, guid, ...place, attributes, name }] })
      const made = partition(added.type, guid)
      eraseRange(fd, made.offset, made.sizeBytes)
      write(made, 0, added.bytes)
      return made
    },
    changePartition(one, { label, guid, attributes }) {
      changeTable((table) => ({
        ...table,
        partitions: table.partitions.map((p) =>
          same(p, one) ? { ...p, name: label ?? p.name, guid: guid ?? p.guid, attributes: attributes ?? p.attributes } : p,
        ),
      }))
      return partitions()[one.number - 1]!
    },
    removePartition: (one) => changeTable((table) => ({ ...table, partitions: table.partitions.filter((p) => !same(p, one)) })),
    grow: (sizeBytes) =>
      changeTable((table) => ({ ...table, sectors: Math.max(table.sectors, alignUp(sizeBytes, 4096) / table.sectorSize) })),
    [Symbol.dispose]: () => closeSync(fd),
  }
}

function partitionOf(p: GptPartition, i: number, sectorSize: number): EditedPartition {
  const { designator, architecture } = designatorOf(p.type) ?? {}
  const [offset, sizeBytes] = [p.firstLba * sectorSize, (p.lastLba - p.firstLba + 1) * sectorSize]
  const { name: label, guid, attributes, type: typeGuid } = p
  return { number: i + 1, designator, architecture, typeGuid, label, guid, attributes, offset, sizeBytes }
}

function findPartition(path: string, all: readonly EditedPartition[], type: Designator, which?: string): EditedPartition {
  const found = all.filter((p) => p.designator === type && (which === undefined || p.guid === which || p.label === which))
  if (found.length === 1) return found[0]!
  const there = all.map(({ designator, label }) => `${designator ?? 'unknown'} ${label}`).join(', ')
  throw new Fault(
    'missing',
    `Cannot edit ${path}: ${found.length} ${type} partitions${which ? ` ${which}` : ''}, one wanted; there is ${there}`,
  )
}

/** All files as they shall be. The case of a name that was there stays. */
function changedFiles(
  fat: Fat,
  read: ReadAt,
  changes: Readonly<Record<string, Uint8Array | undefined>>,
): Map<string, Uint8Array> {
  const files = new Map<string, Uint8Array>()
  const left = new Map(Object.entries(changes).map(([path, bytes]) => [path.toUpperCase(), { path, bytes }]))
  for (const entry of fat.entries) {
    if (entry.type === 'directory') {
      files.set(`${entry.path}/`, new Uint8Array())
      continue
    }
    const change = left.get(entry.path.toUpperCase())
    left.delete(entry.path.toUpperCase())
    if (change && !change.bytes) continue
    if (entry.sizeBytes > MAX_ESP_FILE_BYTES)
      throw new Fault(
        'format',
        `Cannot edit the ESP: ${entry.path} has ${entry.sizeBytes} bytes, at most ${MAX_ESP_FILE_BYTES} are expected`,
      )
    files.set(entry.path, change?.bytes ?? readFat(read, entry))
  }
  for (const { path, bytes } of left.values()) {
    if (!bytes) throw new Fault('missing', `Cannot remove ${path}: it is not on the ESP`)
    files.set(path, bytes)
  }
  return files
}

/** Always FAT32, whatever it was: as large as the old one, with its label, number and newest time. */
function writeFat(fd: number, esp: EditedPartition, fat: Fat, files: ReadonlyMap<string, Uint8Array>): void {
  const sizes = new Map([...files].map(([path, bytes]) => [path, bytes.length]))
  const epoch = Math.max(315_532_800, ...fat.entries.map(({ mtime }) => mtime)) // FAT begins with 1980
  const sectorSize = fat.sectorSize === 4096 ? 4096 : 512
  const sizeBytes = Math.floor(esp.sizeBytes / sectorSize) * sectorSize
  const layout = encodeFat(sizes, { sizeBytes, sectorSize, label: fat.label, volumeId: fat.volumeId, epoch })
  eraseRange(fd, esp.offset, esp.sizeBytes)
  for (const { offset, bytes } of layout.regions) writeFully(fd, esp.offset + offset, bytes)
  for (const { path, offset } of layout.files) writeFully(fd, esp.offset + offset, files.get(path)!)
}

/** Zeros where there are none yet, so that holes stay holes. */
function eraseRange(fd: number, offset: number, sizeBytes: number): void {
  const zero = Buffer.alloc(CHUNK)
  const end = Math.min(offset + sizeBytes, fstatSync(fd).size)
  for (let at = offset; at < end; at += CHUNK) {
    const length = Math.min(CHUNK, end - at)
    const there = readFully(fd, at, length)
    if (zero.compare(there, 0, length, 0, length) !== 0) writeFully(fd, at, zero.subarray(0, length))
  }
}

function readFully(fd: number, offset: number, sizeBytes: number): Buffer {
  const bytes = Buffer.allocUnsafeSlow(sizeBytes)
  let at = 0
  while (at < sizeBytes) {
    const got = readSync(fd, bytes, at, sizeBytes - at, offset + at)
    if (got === 0) break
    at += got
  }
  return bytes.subarray(0, at)
}

function writeFully(fd: number, offset: number, bytes: Uint8Array): void {
  for (let at = 0; at < bytes.length; ) at += writeSync(fd, bytes, at, bytes.length - at, offset + at)
}
