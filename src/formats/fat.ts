/**
 * FAT file system, as an EFI system partition holds it.
 *
 * Spec:   Microsoft "FAT: General Overview of On-Disk Format" 1.03 (fatgen103)
 * Oracle: `fsck.vfat -n -v`, `minfo`, `mdir -/`, `mcopy`, a kernel loop mount
 * Limits: Writes FAT32 only, every file in one piece, no boot code. Reads FAT12, FAT16 and FAT32.
 *
 * On disk: boot sector · FSInfo · … their backup at sector 6 · two copies of the table · clusters, from number 2 on.
 */
import { Fault } from '../base/fault.ts'
import { alignUp } from '../base/size.ts'
import {
  aliasesFor,
  checkName,
  LONG_NAME_ATTRIBUTES,
  type LongEntry,
  longEntry,
  longName,
  longNameOf,
  longNamePieces,
} from './fat-name.ts'
import { bytes, constant, type Of, type ReadAt, reserved, struct, u8, u16le, u32le } from './struct.ts'

const RESERVED_SECTORS = 32
const BACKUP_BOOT_SECTOR = 6
const ROOT_CLUSTER = 2
const END_OF_CHAIN = 0x0fff_ffff
/** Fewer clusters than this would make it a FAT16; 16 more keep clear of drivers that are off by a few. */
const LEAST_CLUSTERS = 65525 + 16
/** The most directory entries a reader must cope with. */
const MAX_DIRECTORY_BYTES = 65536 * 32
const MAX_ENTRIES = 1 << 20
const MAX_DEPTH = 64
const ATTRIBUTE = { volume: 0x08, directory: 0x10, archive: 0x20 }

// biome-ignore format: table
const bootSector = struct('FAT boot sector', {
  jump:              bytes(3),
  oem:               bytes(8),
  sectorSize:        u16le,
  clusterSectors:    u8,
  reservedSectors:   u16le,
  tables:            u8,
  rootEntries:       u16le, // 0 on FAT32
  sectors16:         u16le,
  media:             u8,
  tableSectors16:    u16le, // 0 on FAT32
  sectorsPerTrack:   u16le,
  heads:             u16le,
  hiddenSectors:     u32le,
  sectors32:         u32le,
})

// biome-ignore format: table
const bootSector32 = struct('FAT32 boot sector', {
  tableSectors:      u32le,
  flags:             u16le,
  version:           u16le,
  rootCluster:       u32le,
  infoSector:        u16le,
  backupBootSector:  u16le,
  _reserved:         reserved(12),
  drive:             u8,
  _reserved2:        reserved(1),
  signature:         u8,
  volumeId:          u32le,
  label:             bytes(11),
  type:              bytes(8),
})

// biome-ignore format: table
const bootSector16 = struct('FAT16 boot sector', {
  drive:             u8,
  _reserved:         reserved(1),
  signature:         u8,
  volumeId:          u32le,
  label:             bytes(11),
  type:              bytes(8),
})

// biome-ignore format: table
const fsInfo = struct('FAT FSInfo', {
  lead:              constant(Buffer.from('RRaA')),
  _reserved:         reserved(480),
  signature:         constant(Buffer.from('rrAa')),
  freeClusters:      u32le,
  lastCluster:       u32le, // where a search for free clusters may begin
  _reserved2:        reserved(12),
  trail:             constant(Uint8Array.of(0, 0, 0x55, 0xaa)),
})

// biome-ignore format: table
const shortEntry = struct('FAT directory entry', {
  name:              bytes(11),
  attributes:        u8,
  lowerCase:         u8, // bit 3: base in lower case, bit 4: extension
  createdTenths:     u8,
  createdTime:       u16le,
  createdDate:       u16le,
  accessedDate:      u16le,
  clusterHigh:       u16le,
  modifiedTime:      u16le,
  modifiedDate:      u16le,
  clusterLow:        u16le,
  sizeBytes:         u32le,
})

const ENTRY = shortEntry.size

export interface FatOptions {
  /** Size of the file system: a multiple of the sector size. */
  sizeBytes: number
  /** Must be the block size of the device it will lie on. */
  sectorSize?: 512 | 4096
  /** At most 11 characters, upper case. */
  label: string
  volumeId: number
  /** Seconds since 1970: the time of every entry. */
  epoch: number
}

/** A piece of the file system. What no region and no file covers is zero. */
export interface Region {
  offset: number
  bytes: Uint8Array
}

export interface FatLayout {
  sizeBytes: number
  regions: Region[]
  /** Where each file's content goes; an empty file has no place and is not listed. */
  files: { path: string; offset: number; sizeBytes: number }[]
}

/** Lays out `files` (path → size in bytes; `EFI/BOOT/BOOTX64.EFI`), making the directories they need. A path with a slash at its end is a directory. */
export function encodeFat(files: ReadonlyMap<string, number>, options: FatOptions): FatLayout {
  const sectorSize = options.sectorSize ?? 512
  const volume = geometry(options.sizeBytes, sectorSize)
  const root = directoriesOf(files)
  const used = allocate(root, volume)
  if (used > volume.clusters) {
    throw new Fault(
      'usage',
      `Cannot fit files into a FAT file system of ${options.sizeBytes} bytes: they need ${used} clusters of ${volume.clusterSize} bytes, it has ${volume.clusters}`,
      { hint: `Make it at least ${fatSizeFor(files, sectorSize)} bytes large` },
    )
  }
  const label = labelBytes(options.label)
  const stamp = timestamp(options.epoch)
  const regions: Region[] = [{ offset: 0, bytes: reservedArea(volume, used, label, options.volumeId) }]
  const table = allocationTable(root, used)
  const tableStart = RESERVED_SECTORS * volume.sectorSize
  for (const copy of [0, 1]) {
    regions.push({ offset: tableStart + copy * volume.tableSectors * volume.sectorSize, bytes: table })
  }
  for (const directory of walk(root)) {
    regions.push({ offset: clusterOffset(volume, directory.cluster), bytes: directoryBytes(directory, label, stamp) })
  }
  const placed = [...walk(root)].flatMap((d) => d.files).filter((file) => file.sizeBytes > 0)
  return {
    sizeBytes: options.sizeBytes,
    regions,
    files: placed.map(({ path, cluster, sizeBytes }) => ({ path, offset: clusterOffset(volume, cluster), sizeBytes })),
  }
}

/** The smallest size `encodeFat` accepts for these files. */
export function fatSizeFor(files: ReadonlyMap<string, number>, sectorSize: 512 | 4096 = 512): number {
  const root = directoriesOf(files)
  for (const [i, [, clusterSectors]] of CLUSTER_SIZES.entries()) {
    const clusters = Math.max(LEAST_CLUSTERS, allocate(root, { clusterSize: clusterSectors * sectorSize }))
    const below = i === 0 ? 0 : CLUSTER_SIZES[i - 1]![0]
    let sizeBytes = Math.max(clusters * clusterSectors + RESERVED_SECTORS, below + clusterSectors) * sectorSize
    for (sizeBytes = alignUp(sizeBytes, 4096); ; sizeBytes += 4096) {
      const got = shape(sizeBytes, sectorSize)
      if (got.clusterSectors !== clusterSectors) break
      if (got.clusters >= clusters) return sizeBytes
      sizeBytes = alignUp(sizeBytes + (clusters - got.clusters) * got.clusterSize, 4096) - 4096
    }
  }
  throw new Fault('usage', 'Cannot fit files into a FAT file system: they need more than 8 TiB')
}

export interface FatEntry {
  path: string
  type: 'file' | 'directory'
  sizeBytes: number
  /** Seconds since 1970, taking the time stored as UTC. */
  mtime: number
  /** Where the content lies, in order. Longer than the content by less than a cluster. */
  extents: { offset: number; sizeBytes: number }[]
}

export interface Fat {
  bits: 12 | 16 | 32
  sizeBytes: number
  sectorSize: number
  clusterSize: number
  label: string
  volumeId: number
  /** Parents before their children, otherwise as on disk. */
  entries: FatEntry[]
}

/** Decodes everything but the files' content, which `readFat` or the extents give. `deviceBytes`: the most it may take. */
export function decodeFat(read: ReadAt, deviceBytes = Number.POSITIVE_INFINITY): Fat {
  const volume = decodeVolume(read, deviceBytes)
  const chains = chainsOf(volume, read)
  const entries: FatEntry[] = []
  const visit = (bytes: Uint8Array, path: string, depth: number): void => {
    if (depth > MAX_DEPTH) throw new Fault('format', `Cannot read FAT directory ${path}: deeper than ${MAX_DEPTH} levels`)
    const seen = new Set<string>()
    for (const { name, short } of directoryEntries(bytes, path)) {
      const at = path === '' ? name : `${path}/${name}`
      if (seen.has(name.toUpperCase())) throw new Fault('format', `Cannot read FAT directory: ${at} is there twice`)
      seen.add(name.toUpperCase())
      if (entries.length >= MAX_ENTRIES) throw new Fault('format', `Cannot read FAT: more than ${MAX_ENTRIES} entries`)
      const isDirectory = (short.attributes & ATTRIBUTE.directory) !== 0
      const first = short.clusterHigh * (volume.bits === 32 ? 65536 : 0) + short.clusterLow
      const extents = isDirectory || short.sizeBytes > 0 || first !== 0 ? chains(first, at) : []
      const capacity = extents.reduce((sum, e) => sum + e.sizeBytes, 0)
      if (!isDirectory && Math.ceil(short.sizeBytes / volume.clusterSize) * volume.clusterSize !== capacity) {
        throw new Fault('format', `Cannot read FAT file ${at}: its size is ${short.sizeBytes}, its clusters hold ${capacity}`)
      }
      const type = isDirectory ? 'directory' : 'file'
      entries.push({ path: at, type, sizeBytes: isDirectory ? 0 : short.sizeBytes, mtime: timeOf(short), extents })
      if (isDirectory) visit(readExtents(read, extents, Math.min(capacity, MAX_DIRECTORY_BYTES)), at, depth + 1)
    }
  }
  const root = volume.bits === 32 ? chains(volume.rootCluster, 'root directory') : [volume.rootExtent]
  const rootBytes = root.reduce((sum, e) => sum + e.sizeBytes, 0)
  const bytes = readExtents(read, root, Math.min(rootBytes, MAX_DIRECTORY_BYTES))
  visit(bytes, '', 0)
  const { bits, sizeBytes, sectorSize, clusterSize, volumeId } = volume
  return { bits, sizeBytes, sectorSize, clusterSize, label: labelOf(bytes) ?? volume.label, volumeId, entries }
}

/** The whole content of a file. For one too large to hold, go through its extents instead. */
export const readFat = (read: ReadAt, entry: FatEntry): Uint8Array => readExtents(read, entry.extents, entry.sizeBytes)

interface Volume {
  sectorSize: number
  sectors: number
  clusterSectors: number
  clusterSize: number
  clusters: number
  tableSectors: number
  dataStart: number
}

/** Up to how many sectors, which cluster size in sectors: the table of mkfs.fat for FAT32. */
const CLUSTER_SIZES: readonly (readonly [number, number])[] = [
  [260 * 2048, 1],
  [8 * 1024 * 2048, 8],
  [16 * 1024 * 2048, 16],
  [32 * 1024 * 2048, 32],
  [0xffff_ffff, 64],
]

/** What follows from size and sector size. The data area begins at a multiple of 4096 bytes. */
function shape(sizeBytes: number, sectorSize: number): Volume {
  const sectors = Math.floor(sizeBytes / sectorSize)
  const clusterSectors = CLUSTER_SIZES.find(([most]) => sectors <= most)?.[1] ?? 64
  const entries = sectors - RESERVED_SECTORS + 2 * clusterSectors
  const tableSectors = alignUp(Math.ceil(entries / ((clusterSectors * sectorSize) / 4 + 2)), sectorSize === 512 ? 4 : 1)
  const dataStart = RESERVED_SECTORS + 2 * tableSectors
  const clusters = Math.floor((sectors - dataStart) / clusterSectors)
  return { sectorSize, sectors, clusterSectors, clusterSize: clusterSectors * sectorSize, clusters, tableSectors, dataStart }
}

function geometry(sizeBytes: number, sectorSize: number): Volume {
  if (!Number.isSafeInteger(sizeBytes) || sizeBytes % sectorSize !== 0) {
    throw new Fault(
      'usage',
      `Cannot make a FAT file system of ${sizeBytes} bytes: the size must be a multiple of the sector size ${sectorSize}`,
    )
  }
  const volume = shape(sizeBytes, sectorSize)
  if (volume.clusters < LEAST_CLUSTERS || volume.sectors > 0xffff_ffff) {
    const least = fatSizeFor(new Map(), sectorSize as 512 | 4096)
    throw new Fault(
      'usage',
      `Cannot make a FAT32 file system of ${sizeBytes} bytes with sectors of ${sectorSize}: it needs at least ${least} bytes`,
      {
        hint: `Set its size to ${least} or more`,
      },
    )
  }
  return volume
}

const clusterOffset = (v: Volume, cluster: number) => v.dataStart * v.sectorSize + (cluster - ROOT_CLUSTER) * v.clusterSize

interface Directory {
  path: string
  name: string
  parent: Directory | undefined
  directories: Directory[]
  files: { path: string; name: string; sizeBytes: number; cluster: number; clusters: number }[]
  cluster: number
  clusters: number
}

const newDirectory = (path: string, parent?: Directory): Directory => {
  const name = path.slice(path.lastIndexOf('/') + 1)
  return { path, name, parent, directories: [], files: [], cluster: 0, clusters: 0 }
}

function directoriesOf(files: ReadonlyMap<string, number>): Directory {
  const root = newDirectory('')
  const byName = new Map<string, Directory | 'file'>([['', root]])
  for (const path of [...files.keys()].sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)))) {
    const isDirectory = path.endsWith('/')
    const names = (isDirectory ? path.slice(0, -1) : path).split('/')
    for (const name of names) checkName(name, path)
    let at = root
    for (let i = 1; i < names.length + (isDirectory ? 1 : 0); i++) {
      const key = names.slice(0, i).join('/')
      const known = byName.get(key.toUpperCase())
      if (known === 'file' || (known && known.path !== key)) throw clash(path, known === 'file' ? key : known.path)
      if (!known) {
        const made = newDirectory(key, at)
        at.directories.push(made)
        byName.set(key.toUpperCase(), made)
      }
      at = known ?? (byName.get(key.toUpperCase()) as Directory)
    }
    if (isDirectory) continue
    const known = byName.get(path.toUpperCase())
    if (known) throw clash(path, known === 'file' ? path.toUpperCase() : known.path)
    const sizeBytes = files.get(path)!
    if (!Number.isSafeInteger(sizeBytes) || sizeBytes < 0 || sizeBytes > 0xffff_ffff) {
      throw new Fault('usage', `Cannot store ${path} of ${sizeBytes} bytes on FAT: a file is smaller than 4 GiB there`)
    }
    byName.set(path.toUpperCase(), 'file')
    at.files.push({ path, name: names.at(-1)!, sizeBytes, cluster: 0, clusters: 0 })
  }
  return root
}

const clash = (path: string, other: string) =>
  new Fault('usage', `Cannot store ${path} on FAT: it is the same name as ${other}, as upper and lower case are equal there`)

function* walk(directory: Directory): Generator<Directory> {
  yield directory
  for (const child of directory.directories) yield* walk(child)
}

/** Gives every directory, then every file, a run of clusters; returns how many clusters that takes. */
function allocate(root: Directory, volume: { clusterSize: number }): number {
  let next = ROOT_CLUSTER
  for (const directory of walk(root)) {
    const sizeBytes = entryCount(directory) * ENTRY
    if (sizeBytes > MAX_DIRECTORY_BYTES) {
      throw new Fault('usage', `Cannot store directory ${directory.path} on FAT: it has too many entries`)
    }
    directory.cluster = next
    directory.clusters = Math.max(1, Math.ceil(sizeBytes / volume.clusterSize))
    next += directory.clusters
  }
  for (const file of [...walk(root)].flatMap((d) => d.files)) {
    file.clusters = Math.ceil(file.sizeBytes / volume.clusterSize)
    file.cluster = file.clusters === 0 ? 0 : next
    next += file.clusters
  }
  return next - ROOT_CLUSTER
}

function reservedArea(volume: Volume, used: number, label: Uint8Array, volumeId: number): Uint8Array {
  const boot = new Uint8Array(volume.sectorSize)
  boot.set(
    bootSector.encode({
      jump: Uint8Array.of(0xeb, 0x58, 0x90),
      oem: Buffer.from('BISQUE  '),
      sectorSize: volume.sectorSize,
      clusterSectors: volume.clusterSectors,
      reservedSectors: RESERVED_SECTORS,
      tables: 2,
      rootEntries: 0,
      sectors16: 0,
      media: 0xf8,
      tableSectors16: 0,
      sectorsPerTrack: 32,
      heads: 8,
      hiddenSectors: 0,
      sectors32: volume.sectors,
    }),
  )
  boot.set(
    bootSector32.encode({
      tableSectors: volume.tableSectors,
      flags: 0,
      version: 0,
      rootCluster: ROOT_CLUSTER,
      infoSector: 1,
      backupBootSector: BACKUP_BOOT_SECTOR,
      drive: 0x80,
      signature: 0x29,
      volumeId,
      label,
      type: Buffer.from('FAT32   '),
    }),
    bootSector.size,
  )
  boot.set([0xcd, 0x18, 0xeb, 0xfe], bootSector.size + bootSector32.size) // int 0x18: nothing to boot here
  boot.set([0x55, 0xaa], 510)

  const info = fsInfo.encode({ freeClusters: volume.clusters - used, lastCluster: used + ROOT_CLUSTER - 1 })
  const area = new Uint8Array((BACKUP_BOOT_SECTOR + 2) * volume.sectorSize)
  for (const at of [0, BACKUP_BOOT_SECTOR]) {
    area.set(boot, at * volume.sectorSize)
    area.set(info, (at + 1) * volume.sectorSize)
  }
  return area
}

/** The part of the table that is not zero: media byte, clean flags, then one chain per directory and file. */
function allocationTable(root: Directory, used: number): Uint8Array {
  const table = new Uint32Array(ROOT_CLUSTER + used)
  table[0] = 0x0fff_fff8
  table[1] = END_OF_CHAIN
  const chains = [...walk(root)].flatMap((d) => [d, ...d.files])
  for (const { cluster, clusters } of chains) {
    for (let i = 0; i < clusters; i++) table[cluster + i] = i === clusters - 1 ? END_OF_CHAIN : cluster + i + 1
  }
  const view = new DataView(new ArrayBuffer(table.byteLength))
  table.forEach((value, i) => view.setUint32(i * 4, value, true))
  return new Uint8Array(view.buffer)
}

type Stamp = Pick<
  Of<typeof shortEntry>,
  'createdTenths' | 'createdTime' | 'createdDate' | 'accessedDate' | 'modifiedTime' | 'modifiedDate'
>

function timestamp(epoch: number): Stamp {
  const t = new Date(Math.min(Math.max(epoch, FIRST_TIME), LAST_TIME) * 1000)
  const date = ((t.getUTCFullYear() - 1980) << 9) | ((t.getUTCMonth() + 1) << 5) | t.getUTCDate()
  const time = (t.getUTCHours() << 11) | (t.getUTCMinutes() << 5) | (t.getUTCSeconds() >> 1)
  const createdTenths = (t.getUTCSeconds() & 1) * 100
  return {
    createdTenths,
    createdTime: time,
    createdDate: date,
    accessedDate: date,
    modifiedTime: time,
    modifiedDate: date,
  }
}
const FIRST_TIME = Date.UTC(1980, 0, 1) / 1000
const LAST_TIME = Date.UTC(2107, 11, 31, 23, 59, 58) / 1000

const labelBytes = (label: string): Uint8Array => {
  if (!/^[A-Z0-9 !#$%&'()@^_`{}~-]{0,11}$/.test(label)) {
    throw new Fault('usage', `Cannot use FAT label "${label}": expected at most 11 characters of A-Z, 0-9, space, - and _`)
  }
  return Buffer.from((label || 'NO NAME').padEnd(11), 'latin1')
}
const NO_LABEL = Buffer.from('NO NAME    ')

function entryCount(directory: Directory): number {
  const fixed = directory.parent ? 2 : 1 // `.` and `..`, or the label
  return fixed + [...directory.directories, ...directory.files].reduce((n, { name }) => n + 1 + longNamePieces(name), 0)
}

function directoryBytes(directory: Directory, label: Uint8Array, stamp: Stamp): Uint8Array {
  const parts: Uint8Array[] = []
  const put = (name: Uint8Array, attributes: number, cluster: number, sizeBytes = 0) => {
    const fields = { ...stamp, name, attributes, lowerCase: 0, sizeBytes }
    parts.push(shortEntry.encode({ ...fields, clusterHigh: cluster >>> 16, clusterLow: cluster & 0xffff }))
  }
  if (directory.parent) {
    const above = directory.parent.parent ? directory.parent.cluster : 0
    put(Buffer.from('.'.padEnd(11)), ATTRIBUTE.directory, directory.cluster)
    put(Buffer.from('..'.padEnd(11)), ATTRIBUTE.directory, above)
  } else if (!NO_LABEL.equals(label)) {
    put(label, ATTRIBUTE.volume, 0)
  }
  const children = [...directory.directories, ...directory.files].sort((a, b) =>
    Buffer.compare(Buffer.from(a.name), Buffer.from(b.name)),
  )
  const aliases = aliasesFor(children.map((child) => child.name))
  children.forEach((child, i) => {
    const alias = aliases[i]!
    if (longNamePieces(child.name) > 0) parts.push(longName(child.name, alias))
    if ('sizeBytes' in child) put(alias, ATTRIBUTE.archive, child.cluster, child.sizeBytes)
    else put(alias, ATTRIBUTE.directory, child.cluster)
  })
  return Buffer.concat(parts)
}

function readExtents(read: ReadAt, extents: readonly { offset: number; sizeBytes: number }[], sizeBytes: number): Uint8Array {
  let left = sizeBytes
  const parts: Uint8Array[] = []
  for (const extent of extents) {
    const wanted = Math.min(left, extent.sizeBytes)
    parts.push(readFully(read, extent.offset, wanted, 'FAT clusters'))
    left -= wanted
  }
  return Buffer.concat(parts)
}

function readFully(read: ReadAt, offset: number, sizeBytes: number, what: string): Uint8Array {
  const got = read(offset, sizeBytes)
  if (got.length !== sizeBytes) {
    throw new Fault('format', `Cannot read ${what} at offset ${offset}: need ${sizeBytes} bytes, have ${got.length}`)
  }
  return got
}

type DecodedVolume = ReturnType<typeof decodeVolume>

function decodeVolume(read: ReadAt, deviceBytes: number) {
  const sector = readFully(read, 0, 512, 'FAT boot sector')
  const boot = bootSector.decode(sector)
  const refuse = (why: string) => new Fault('format', `Cannot read FAT boot sector: ${why}`)
  if (sector[510] !== 0x55 || sector[511] !== 0xaa) throw refuse('it does not end in 55aa')
  if (![512, 1024, 2048, 4096].includes(boot.sectorSize)) throw refuse(`sector size is ${boot.sectorSize}`)
  const powerOfTwo = boot.clusterSectors > 0 && (boot.clusterSectors & (boot.clusterSectors - 1)) === 0
  if (!powerOfTwo) throw refuse(`cluster size is ${boot.clusterSectors} sectors`)
  if (boot.tables < 1 || boot.tables > 2) throw refuse(`it has ${boot.tables} tables`)
  if (boot.reservedSectors === 0) throw refuse('it has no reserved sectors')

  const wide = boot.tableSectors16 === 0
  const rest = wide ? bootSector32.decode(sector, bootSector.size) : undefined
  const small = bootSector16.decode(sector, bootSector.size)
  const tableSectors = rest ? rest.tableSectors : boot.tableSectors16
  const sectors = boot.sectors16 || boot.sectors32
  if (sectors * boot.sectorSize > deviceBytes)
    throw refuse(`it says ${sectors * boot.sectorSize} bytes, its device has ${deviceBytes}`)
  const rootSectors = Math.ceil((boot.rootEntries * ENTRY) / boot.sectorSize)
  const rootStart = boot.reservedSectors + boot.tables * tableSectors
  const dataStart = rootStart + rootSectors
  const clusters = Math.floor((sectors - dataStart) / boot.clusterSectors)
  if (clusters < 1) throw refuse(`${sectors} sectors leave no room for clusters`)
  const bits = rest ? 32 : clusters < 4085 ? 12 : 16
  if (bits === 16 && clusters >= 65525) throw refuse(`${clusters} clusters are too many for FAT16`)
  if ((tableSectors * boot.sectorSize * 8) / bits < clusters + 2) throw refuse('the table is too short for its clusters')
  const identity = rest ?? small
  return {
    bits: bits as 12 | 16 | 32,
    sizeBytes: sectors * boot.sectorSize,
    sectorSize: boot.sectorSize,
    clusterSectors: boot.clusterSectors,
    clusterSize: boot.clusterSectors * boot.sectorSize,
    clusters,
    tableSectors,
    tables: boot.tables,
    tableStart: boot.reservedSectors * boot.sectorSize,
    dataStart,
    sectors,
    rootCluster: rest?.rootCluster ?? 0,
    rootExtent: { offset: rootStart * boot.sectorSize, sizeBytes: rootSectors * boot.sectorSize },
    volumeId: identity.volumeId,
    label: textOf(identity.label),
  }
}

/** Follows cluster chains. Each cluster may be used once in the whole volume, so loops and cross links end it. */
function chainsOf(volume: DecodedVolume, read: ReadAt): (first: number, owner: string) => FatEntry['extents'] {
  const used = new Uint8Array(Math.ceil((volume.clusters + 2) / 8))
  const next = tableReader(volume, read)
  const end = { 12: 0xff8, 16: 0xfff8, 32: 0x0fff_fff8 }[volume.bits]
  return (first, owner) => {
    const extents: FatEntry['extents'] = []
    for (let cluster = first; cluster < end; cluster = next(cluster)) {
      if (cluster < 2 || cluster >= volume.clusters + 2) {
        throw new Fault(
          'format',
          `Cannot read FAT chain of ${owner}: cluster ${cluster} is not between 2 and ${volume.clusters + 1}`,
        )
      }
      const bit = 1 << (cluster & 7)
      if (used[cluster >> 3]! & bit)
        throw new Fault('format', `Cannot read FAT chain of ${owner}: cluster ${cluster} is used twice`)
      used[cluster >> 3]! |= bit
      const offset = clusterOffset(volume, cluster)
      const last = extents.at(-1)
      if (last && last.offset + last.sizeBytes === offset) last.sizeBytes += volume.clusterSize
      else extents.push({ offset, sizeBytes: volume.clusterSize })
    }
    return extents
  }
}

/** Reads the table piece by piece; both copies must agree. The piece is a multiple of 3 for the sake of FAT12. */
function tableReader(volume: DecodedVolume, read: ReadAt): (cluster: number) => number {
  const size = volume.tableSectors * volume.sectorSize
  const PIECE = 48 * 1024
  let piece = Buffer.alloc(0)
  let start = -1
  return (cluster) => {
    const at = Math.floor((cluster * volume.bits) / 8)
    const from = at - (at % PIECE)
    if (from !== start) {
      const length = Math.min(PIECE + 4, size - from)
      piece = Buffer.from(readFully(read, volume.tableStart + from, length, 'FAT table'))
      for (let copy = 1; copy < volume.tables; copy++) {
        const other = readFully(read, volume.tableStart + copy * size + from, length, 'FAT table')
        if (!piece.equals(other)) throw new Fault('format', `Cannot trust FAT table: its copies differ after offset ${from}`)
      }
      piece = Buffer.concat([piece, Uint8Array.of(0)]) // the last of FAT12 may be half a byte
      start = from
    }
    if (volume.bits === 32) return piece.readUInt32LE(at - from) & 0x0fff_ffff
    const value = piece.readUInt16LE(at - from)
    return volume.bits === 16 ? value : cluster & 1 ? value >> 4 : value & 0xfff
  }
}

function* directoryEntries(bytes: Uint8Array, path: string): Generator<{ name: string; short: Of<typeof shortEntry> }> {
  const refuse = (at: number, why: string) => new Fault('format', `Cannot read FAT directory /${path} at offset ${at}: ${why}`)
  let pieces: LongEntry[] = []
  for (let at = 0; at + ENTRY <= bytes.length && bytes[at] !== 0; at += ENTRY) {
    if (bytes[at] === 0xe5) {
      pieces = []
      continue
    }
    const short = shortEntry.decode(bytes, at)
    if (short.attributes === LONG_NAME_ATTRIBUTES) {
      const piece = longEntry.decode(bytes, at)
      const expected = pieces.length === 0 ? undefined : (pieces.at(-1)!.order & 0x3f) - 1
      const order = piece.order & 0x3f
      const starts = (piece.order & 0x40) !== 0
      if (order < 1 || order > 20 || starts !== (expected === undefined) || (expected !== undefined && order !== expected)) {
        throw refuse(at, 'pieces of a long name are out of order')
      }
      pieces.push(piece)
      continue
    }
    if (short.attributes & ATTRIBUTE.volume) continue
    const shortText = shortName(short)
    if (shortText === '.' || shortText === '..') continue
    const name = pieces.length > 0 ? longNameOf(pieces, short.name) : shortText
    pieces = []
    if (name === undefined) throw refuse(at, 'a long name does not belong to the entry after it')
    if (name === '' || name === '.' || name === '..' || /[/\\\0]/.test(name))
      throw refuse(at, `${JSON.stringify(name)} is no name`)
    yield { name, short }
  }
  if (pieces.length > 0) throw refuse(bytes.length, 'a long name belongs to no entry')
}

function shortName({ name, lowerCase }: Of<typeof shortEntry>): string {
  const bytes = Buffer.from(name)
  if (bytes[0] === 0x05) bytes[0] = 0xe5
  const part = (from: number, to: number, lower: number) => {
    const text = bytes.toString('latin1', from, to).trimEnd()
    return lowerCase & lower ? text.toLowerCase() : text
  }
  const extension = part(8, 11, 0x10)
  return part(0, 8, 0x08) + (extension ? `.${extension}` : '')
}

const textOf = (label: Uint8Array): string => {
  const text = Buffer.from(label).toString('latin1').trimEnd()
  return text === 'NO NAME' ? '' : text
}

function labelOf(root: Uint8Array): string | undefined {
  for (let at = 0; at + ENTRY <= root.length && root[at] !== 0; at += ENTRY) {
    const isLabel = (root[at + 11]! & 0x3f) === ATTRIBUTE.volume && root[at] !== 0xe5
    if (isLabel) return textOf(root.subarray(at, at + 11))
  }
  return undefined
}

function timeOf({ modifiedDate: date, modifiedTime: time }: Of<typeof shortEntry>): number {
  const day = Date.UTC(1980 + (date >> 9), ((date >> 5) & 15) - 1, date & 31)
  return day / 1000 + (time >> 11) * 3600 + ((time >> 5) & 63) * 60 + (time & 31) * 2
}
