/**
 * cpio archive in the "new ASCII" form (newc), which the kernel unpacks as initramfs.
 *
 * Spec:   https://docs.kernel.org/driver-api/early-userspace/buffer-format.html, Linux `init/initramfs.c`
 * Oracle: `cpio -itv`, `bsdtar -tvf`
 * Limits: Magic 070701 is written; 070702 (with checksums) is read as well. Files are smaller than 4 GiB, no extended attributes.
 *
 * On disk, per file: header of 110 digits · name · 0 · padding to 4 · content · padding to 4; last comes `TRAILER!!!`.
 */
import { Fault } from '../base/fault.ts'

const MAGIC = '070701'
const MAGIC_WITH_SUMS = '070702'
const HEADER = 110
const TRAILER = 'TRAILER!!!'
export const CPIO_HEADER = HEADER
export const CPIO_TRAILER = TRAILER
/** PATH_MAX: the kernel skips entries with longer names. */
const MAX_NAME = 4096
const MAX_ENTRIES = 1 << 20

/** The fields of a header, in order, each as eight hexadecimal digits. */
const FIELDS = [
  'ino',
  'mode',
  'uid',
  'gid',
  'nlink',
  'mtime',
  'sizeBytes',
  'devMajor',
  'devMinor',
  'rdevMajor',
  'rdevMinor',
  'nameSize',
  'check',
] as const

export interface CpioEntry {
  /** Relative, without `./`; the root is `.`. */
  name: string
  /** Entries of one `ino` and `nlink` above 1 are hard links; the first carries the content. */
  ino: number
  /** With the file type bits, as `stat` has it. */
  mode: number
  uid: number
  gid: number
  nlink: number
  mtime: number
  /** Of the content that follows: a symlink's is its target. */
  sizeBytes: number
  rdevMajor: number
  rdevMinor: number
}

export interface CpioMember extends CpioEntry {
  content: Uint8Array
}

export const S_IFMT = 0o170000
/** File type bits of a mode, by the names a Tree has for them. */
// biome-ignore format: table
export const FILE_TYPE = {
  socket:    0o140000,
  symlink:   0o120000,
  file:      0o100000,
  block:     0o060000,
  directory: 0o040000,
  character: 0o020000,
  fifo:      0o010000,
} as const

/** Header and name, padded; the caller lets the content follow, then `cpioPadding` of its size. */
export function encodeCpioHeader(entry: CpioEntry): Uint8Array {
  const name = Buffer.from(entry.name)
  if (name.length === 0 || name.length >= MAX_NAME || name.includes(0)) {
    throw new Fault(
      'usage',
      `Cannot archive ${JSON.stringify(entry.name)}: a name has 1 to ${MAX_NAME - 1} bytes, none of them 0`,
    )
  }
  const fields = { ...entry, devMajor: 0, devMinor: 0, nameSize: name.length + 1, check: 0 }
  const digits = FIELDS.map((field) => {
    const value = fields[field]
    if (!Number.isInteger(value) || value < 0 || value > 0xffff_ffff) {
      throw new Fault('usage', `Cannot archive ${entry.name}: ${field} is ${value}, cpio holds 0 to 4294967295`)
    }
    return value.toString(16).padStart(8, '0').toUpperCase()
  })
  const bytes = Buffer.alloc(padded(HEADER + name.length + 1))
  bytes.write(MAGIC + digits.join(''), 'latin1')
  bytes.set(name, HEADER)
  return bytes
}

/** Zeros that bring a content to a multiple of 4. */
export const cpioPadding = (sizeBytes: number): Uint8Array => new Uint8Array(padded(sizeBytes) - sizeBytes)

const padded = (n: number): number => Math.ceil(n / 4) * 4

/** Ends an archive. Its size is a multiple of 4, so another archive may follow. */
export const cpioTrailer = (): Uint8Array =>
  encodeCpioHeader({
    name: TRAILER,
    ...{ ino: 0, mode: 0, uid: 0, gid: 0, nlink: 1, mtime: 0, sizeBytes: 0, rdevMajor: 0, rdevMinor: 0 },
  })

/** Decodes archives that follow each other, with zeros between and after them. Contents share the memory of `bytes`. */
export function decodeCpio(bytes: Uint8Array): CpioMember[] {
  const members: CpioMember[] = []
  for (let at = 0; at < bytes.length; ) {
    if (bytes[at] === 0) {
      at++
      continue
    }
    if (at % 4 !== 0) throw new Fault('format', `Cannot read cpio at offset ${at}: an archive begins at a multiple of 4`)
    at = decodeArchive(bytes, at, members)
  }
  return members
}

/** The size of the archive that `bytes` begin with, without decoding contents: what the kernel sees as one piece. */
export function cpioSize(bytes: Uint8Array): number {
  return decodeArchive(bytes, 0, [])
}

export const isCpio = (bytes: Uint8Array, at = 0): boolean =>
  [MAGIC, MAGIC_WITH_SUMS].includes(Buffer.from(bytes.subarray(at, at + 6)).toString('latin1'))

function decodeArchive(bytes: Uint8Array, start: number, members: CpioMember[]): number {
  for (let at = start; ; ) {
    const { member, end } = decodeMember(bytes, at)
    if (member.name === TRAILER) return end
    if (members.length >= MAX_ENTRIES) throw new Fault('format', `Cannot read cpio: more than ${MAX_ENTRIES} entries`)
    members.push(member)
    at = end
  }
}

/** The fields of a header of 110 bytes that lies `at`. */
export function decodeCpioHeader(
  bytes: Uint8Array,
  at: number,
): { entry: Omit<CpioEntry, 'name'>; nameSize: number; check: number; hasSum: boolean } {
  const refuse = (why: string) => new Fault('format', `Cannot read cpio entry at offset ${at}: ${why}`)
  const header = Buffer.from(bytes).toString('latin1')
  if (!isCpio(bytes)) throw refuse(`expected ${MAGIC}, got ${JSON.stringify(header.slice(0, 6))}`)
  if (!/^[0-9a-fA-F]+$/.test(header)) throw refuse('the header has characters other than hexadecimal digits')
  const fields = Object.fromEntries(
    FIELDS.map((field, i) => [field, Number.parseInt(header.slice(6 + i * 8, 14 + i * 8), 16)]),
  ) as Record<(typeof FIELDS)[number], number>
  const { nameSize, check, devMajor, devMinor, ...entry } = fields
  if (nameSize < 2 || nameSize > MAX_NAME) throw refuse(`the name has ${nameSize} bytes, expected 2 to ${MAX_NAME}`)
  return { entry, nameSize, check, hasSum: header.startsWith(MAGIC_WITH_SUMS) }
}

function decodeMember(bytes: Uint8Array, at: number): { member: CpioMember; end: number } {
  const refuse = (why: string) => new Fault('format', `Cannot read cpio entry at offset ${at}: ${why}`)
  const take = (from: number, size: number) => {
    if (from + size > bytes.length) throw refuse(`need ${from + size - at} bytes, have ${bytes.length - at}`)
    return bytes.subarray(from, from + size)
  }
  const { entry, nameSize, check, hasSum } = decodeCpioHeader(take(at, HEADER), at)
  const name = Buffer.from(take(at + HEADER, nameSize))
  if (name.indexOf(0) !== nameSize - 1) throw refuse('the name does not end at its 0')
  const text = name.toString('utf8', 0, nameSize - 1)

  const start = at + padded(HEADER + nameSize)
  const content = take(start, entry.sizeBytes)
  const end = start + padded(entry.sizeBytes)
  if (take(start + entry.sizeBytes, end - start - entry.sizeBytes).some((byte) => byte !== 0))
    throw refuse('its padding is not zero')
  if (hasSum && (entry.mode & S_IFMT) === FILE_TYPE.file) {
    const sum = content.reduce((n, byte) => (n + byte) >>> 0, 0)
    if (sum !== check) throw refuse(`the sum of ${text} is ${check}, computed ${sum}`)
  }
  return { member: { ...entry, name: text, content }, end }
}
