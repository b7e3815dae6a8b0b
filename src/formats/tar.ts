/**
 * tar archives: v7, ustar, GNU and pax.
 *
 * Spec:   POSIX pax — https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html · GNU tar manual, "Basic Tar Format",
 *         "Storing Sparse Files" — https://www.gnu.org/software/tar/manual/html_node/Standard.html
 * Oracle: `tar --list`, `tar --create` (GNU tar), `dpkg-deb --fsys-tarfile`
 * Limits: no multi-volume archives, no incremental dumps, no pax sparse 0.0 (0.1 and 1.0 are read); names are UTF-8.
 *
 * Own code, because the readers npm offers pass pax values through UTF-8 and so corrupt binary attributes.
 * On disk: blocks of 512 bytes; a header, then the data padded to blocks, and so on; two zero blocks end it.
 */
import { Fault } from '../base/fault.ts'

const BLOCK = 512
const MOST_NAME_BYTES = 4096
const MOST_PAX_BYTES = 1 << 20
const MOST_EXTENTS = 1 << 16

export interface TarEntry {
  /** As the archive has it: it may be absolute, hold `..`, begin with `./`, or end in `/`. */
  path: string
  type: 'file' | 'directory' | 'symlink' | 'hardlink' | 'character' | 'block' | 'fifo'
  mode: number
  uid: number
  gid: number
  mtime: number
  /** Bytes of the file with its holes; 0 unless it is a file. */
  sizeBytes: number
  /** What a symbolic or hard link points at. */
  target: string
  major: number
  minor: number
  xattrs: Map<string, Uint8Array>
}

/** A part of a file; holes are left out. */
export interface TarChunk {
  offset: number
  bytes: Uint8Array
}

export interface TarFile extends TarEntry {
  /** The data of a file, in order. To be read before the next entry is asked for, or not at all. */
  content(): AsyncIterable<TarChunk>
}

/** Reads an archive as it streams by. Only headers are held. */
export async function* decodeTar(source: AsyncIterable<Uint8Array>): AsyncGenerator<TarFile> {
  const input = new Input(source)
  let next = new Overrides()
  const global = new Overrides()
  for (;;) {
    const at = input.offset
    const header = await input.exactly(BLOCK)
    if (isZero(header)) return await readEnd(input)
    const { entry, flag, storedBytes, isGnu } = decodeHeader(header, at)
    if (flag === 'L' || flag === 'K') {
      const text = utf8(untilNul(await payload(input, storedBytes, MOST_NAME_BYTES + 1, at)), at)
      if (flag === 'L') next.path = text
      else next.target = text
      continue
    }
    if (flag === 'x' || flag === 'g') {
      const records = decodePax(await payload(input, storedBytes, MOST_PAX_BYTES, at), at)
      for (const [key, value] of records) (flag === 'x' ? next : global).set(key, value, at)
      continue
    }
    const body = new Body(input, next.stored ?? global.stored ?? storedBytes)
    if (flag === 'S' && isGnu) next.extents = await oldGnuExtents(header, input, at, entry)
    global.applyTo(entry)
    next.applyTo(entry)
    if (next.sparse1) next.extents = await pax1Extents(body, at)
    yield finish(entry, body, next.extents, at)
    await body.skip()
    next = new Overrides()
  }
}

/** An entry to write; what is left out is a plain file of root's. */
export type TarEntryGiven = Partial<TarEntry> & { path: string }

/** Writes an archive in the pax form, records only where ustar's fields are too small. */
export function encodeTar(entries: Iterable<TarEntryGiven & { bytes?: Uint8Array }>): Uint8Array {
  const parts: Uint8Array[] = []
  for (const { bytes, ...entry } of entries) {
    parts.push(encodeTarHeader({ ...entry, sizeBytes: bytes?.length ?? entry.sizeBytes ?? 0 }))
    if (bytes) parts.push(bytes, tarPadding(bytes.length))
  }
  return Buffer.concat([...parts, TAR_END])
}

/** The header of an entry, with the pax header before it that it may need. So many bytes of data follow, then padding. */
export function encodeTarHeader(given: TarEntryGiven): Uint8Array {
  const entry: TarEntry = {
    ...{ type: 'file', mode: 0o644, uid: 0, gid: 0, mtime: 0, sizeBytes: 0, target: '', major: 0, minor: 0, xattrs: new Map() },
    ...given,
  }
  const records = paxRecords(entry)
  const header = encodeHeader(withoutWide(entry), FLAG_OF[entry.type])
  if (records.length === 0) return header
  const pax = Buffer.concat(records)
  const { mode, uid, gid, mtime } = withoutWide(entry)
  const meta: TarEntry = { ...entry, path: 'pax', target: '', mode, uid, gid, mtime, sizeBytes: pax.length, major: 0, minor: 0 }
  return Buffer.concat([encodeHeader(meta, 'x'), pax, tarPadding(pax.length), header])
}

/** Zeros between the data of an entry and the next header. */
export const tarPadding = (sizeBytes: number): Uint8Array => new Uint8Array(padding(sizeBytes))

/** What an archive ends with. */
export const TAR_END: Uint8Array = new Uint8Array(2 * BLOCK)

function paxRecords(entry: TarEntry): Uint8Array[] {
  const records: Uint8Array[] = []
  const text = (key: string, value: string) => {
    if (value.includes('\0')) throw new Fault('format', `Cannot write tar entry ${JSON.stringify(value)}: a name holds NUL`)
    if (Buffer.byteLength(value) > 100 || /[^\x20-\x7e]/.test(value)) records.push(paxRecord(key, Buffer.from(value)))
  }
  text('path', entry.path)
  text('linkpath', entry.target)
  for (const key of WIDE)
    if (entry[key] !== narrow(entry, key)) records.push(paxRecord(WIDE_KEY[key], Buffer.from(`${entry[key]}`)))
  for (const [name, value] of entry.xattrs) {
    if (name === '' || name.includes('=')) throw new Fault('format', `Cannot write tar entry ${entry.path}: attribute "${name}"`)
    records.push(paxRecord(`SCHILY.xattr.${name}`, value))
  }
  return records
}

/** Numbers that may be too large for their octal digits, or negative, and then stand in a record; the field holds zero. */
const WIDE = ['uid', 'gid', 'sizeBytes', 'mtime'] as const
const WIDE_KEY = { uid: 'uid', gid: 'gid', sizeBytes: 'size', mtime: 'mtime' } as const

const narrow = (entry: TarEntry, key: (typeof WIDE)[number]): number => {
  const digits = FIELD[WIDE_KEY[key]][1] - 1
  return entry[key] >= 0 && entry[key] < 8 ** digits ? entry[key] : 0
}

const withoutWide = (entry: TarEntry): TarEntry => ({
  ...entry,
  ...Object.fromEntries(WIDE.map((key) => [key, narrow(entry, key)])),
})

// biome-ignore format: table
const TYPES: Record<string, TarEntry['type']> = {
  '0': 'file', '\0': 'file', '7': 'file', S: 'file', '1': 'hardlink', '2': 'symlink', '3': 'character', '4': 'block', '5': 'directory', '6': 'fifo',
}
// biome-ignore format: table
const FLAG_OF: Record<TarEntry['type'], string> = {
  file: '0', hardlink: '1', symlink: '2', character: '3', block: '4', directory: '5', fifo: '6',
}

/** Fields of a header: where, how long. GNU's old sparse form uses what is ustar's prefix. */
// biome-ignore format: table
const FIELD = {
  name: [0, 100], mode: [100, 8], uid: [108, 8], gid: [116, 8], size: [124, 12], mtime: [136, 12], checksum: [148, 8], flag: [156, 1],
  target: [157, 100], magic: [257, 8], uname: [265, 32], gname: [297, 32], major: [329, 8], minor: [337, 8], prefix: [345, 155],
  gnuExtents: [386, 96], gnuMore: [482, 1], gnuRealSize: [483, 12],
} as const
type FieldName = keyof typeof FIELD

const slice = (header: Uint8Array, name: FieldName) => header.subarray(FIELD[name][0], FIELD[name][0] + FIELD[name][1])

interface Header {
  entry: TarEntry
  flag: string
  /** Bytes of data that follow in the archive. */
  storedBytes: number
  isGnu: boolean
}

function decodeHeader(header: Uint8Array, at: number): Header {
  const sum = checksum(header)
  const stated = number(header, 'checksum', at)
  if (sum !== stated) throw new Fault('format', `Cannot trust tar header at offset ${at}: checksum is ${stated}, computed ${sum}`)
  const magic = Buffer.from(slice(header, 'magic')).toString('latin1')
  const isUstar = magic === 'ustar\x0000'
  const isGnu = magic === 'ustar  \0'
  if (!isUstar && !isGnu && !/^\0*$/.test(magic))
    throw new Fault('format', `Cannot read tar header at offset ${at}: unknown magic`)
  const flag = String.fromCharCode(header[FIELD.flag[0]]!)
  const name = utf8(untilNul(slice(header, 'name')), at)
  const prefix = isUstar ? utf8(untilNul(slice(header, 'prefix')), at) : ''
  const isMeta = 'LKxg'.includes(flag)
  let type = isMeta ? 'file' : TYPES[flag]
  if (!type) throw new Fault('format', `Cannot read tar entry at offset ${at}: unknown type ${JSON.stringify(flag)}`)
  if (type === 'file' && !isUstar && !isGnu && name.endsWith('/')) type = 'directory'
  const size = number(header, 'size', at)
  const isDevice = type === 'character' || type === 'block'
  const entry: TarEntry = {
    path: prefix === '' ? name : `${prefix}/${name}`,
    type,
    mode: number(header, 'mode', at) & 0o7777,
    uid: number(header, 'uid', at),
    gid: number(header, 'gid', at),
    mtime: number(header, 'mtime', at),
    sizeBytes: type === 'file' ? size : 0,
    target: type === 'symlink' || type === 'hardlink' ? utf8(untilNul(slice(header, 'target')), at) : '',
    major: isDevice ? number(header, 'major', at) : 0,
    minor: isDevice ? number(header, 'minor', at) : 0,
    xattrs: new Map(),
  }
  // links, directories and devices may state a size that stands for nothing
  return { entry, flag, storedBytes: type === 'file' ? size : 0, isGnu }
}

function checksum(header: Uint8Array): number {
  let sum = 0
  const [from, size] = FIELD.checksum
  for (let i = 0; i < BLOCK; i++) sum += i >= from && i < from + size ? 32 : header[i]!
  return sum
}

/** A number: octal digits, or base 256 where the first bit is set. */
function number(header: Uint8Array, name: FieldName, at: number): number {
  return parseNumber(slice(header, name), name, at)
}

function parseNumber(field: Uint8Array, name: string, at: number): number {
  if (field[0]! & 0x80) {
    const isNegative = field[0] === 0xff
    let value = 0n
    for (const [i, byte] of field.entries()) value = (value << 8n) | BigInt(i === 0 ? byte & 0x7f : byte)
    if (isNegative) value -= 1n << BigInt(field.length * 8 - 1)
    if ((isNegative && name !== 'mtime') || value > Number.MAX_SAFE_INTEGER || value < Number.MIN_SAFE_INTEGER) {
      throw new Fault('format', `Cannot read tar header at offset ${at}: ${name} ${value} is out of range`)
    }
    return Number(value)
  }
  const text = Buffer.from(field).toString('latin1')
  const match = /^ *([0-7]*)[ \0]*$/.exec(text)
  if (!match)
    throw new Fault('format', `Cannot read tar header at offset ${at}: ${name} ${JSON.stringify(text)} is not an octal number`)
  return match[1] === '' ? 0 : Number.parseInt(match[1]!, 8)
}

const isZero = (block: Uint8Array) => block.every((byte) => byte === 0)

function untilNul(bytes: Uint8Array): Uint8Array {
  const end = bytes.indexOf(0)
  return end < 0 ? bytes : bytes.subarray(0, end)
}

const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

function utf8(bytes: Uint8Array, at: number): string {
  if (bytes.length > MOST_NAME_BYTES)
    throw new Fault('format', `Cannot read tar entry at offset ${at}: a name has ${bytes.length} bytes`)
  try {
    return decoder.decode(bytes)
  } catch {
    throw new Fault('format', `Cannot read tar entry at offset ${at}: a name is not UTF-8`)
  }
}

/** The data of an entry that describes the next one, held whole. */
async function payload(input: Input, size: number, most: number, at: number): Promise<Uint8Array> {
  if (size > most)
    throw new Fault('format', `Cannot read tar header at offset ${at}: its data has ${size} bytes, at most ${most} are allowed`)
  const bytes = await input.exactly(size)
  await input.exactly(padding(size))
  return bytes
}

const padding = (size: number) => (BLOCK - (size % BLOCK)) % BLOCK

/** pax records: `LENGTH KEY=VALUE\n`, values in bytes. */
function decodePax(bytes: Uint8Array, at: number): [string, Uint8Array][] {
  const records: [string, Uint8Array][] = []
  for (let from = 0; from < bytes.length; ) {
    const space = bytes.indexOf(0x20, from)
    const digits = space < 0 || space - from > 8 ? '' : Buffer.from(bytes.subarray(from, space)).toString('latin1')
    const length = /^\d+$/.test(digits) ? Number(digits) : 0
    const end = from + length
    const equals = bytes.indexOf(0x3d, space)
    if (length === 0 || end > bytes.length || equals < 0 || equals >= end || bytes[end - 1] !== 0x0a) {
      throw new Fault('format', `Cannot read pax records at offset ${at + BLOCK + from}: malformed record`)
    }
    records.push([utf8(bytes.subarray(space + 1, equals), at), Uint8Array.from(bytes.subarray(equals + 1, end - 1))])
    from = end
  }
  return records
}

type Extent = { offset: number; size: number }

/** What pax records and GNU's long names say about the entry that follows. */
class Overrides {
  path?: string
  /** The name of a sparse file, whose `path` is made up. */
  sparseName?: string
  target?: string
  /** Bytes in the archive. */
  stored?: number
  realSize?: number
  extents?: Extent[]
  sparse1 = false
  readonly #set: ((entry: TarEntry) => void)[] = []

  set(key: string, value: Uint8Array, at: number): void {
    const decimal = () => {
      const text = Buffer.from(value).toString('latin1')
      const n = /^-?\d{1,16}(\.\d*)?$/.test(text) ? Math.floor(Number(text)) : Number.NaN
      if (!Number.isSafeInteger(n) || (n < 0 && key !== 'mtime'))
        throw new Fault('format', `Cannot read pax record ${key} at offset ${at}: "${text}"`)
      return n
    }
    const set = (change: (entry: TarEntry) => void) => void this.#set.push(change)
    if (key.startsWith('SCHILY.xattr.')) {
      const name = key.slice('SCHILY.xattr.'.length)
      if (value.length > 65536) throw new Fault('format', `Cannot read pax record ${key} at offset ${at}: ${value.length} bytes`)
      set((entry) => entry.xattrs.set(name, value))
    } else if (key === 'path') this.path = utf8(value, at)
    else if (key === 'GNU.sparse.name') this.sparseName = utf8(value, at)
    else if (key === 'linkpath') this.target = utf8(value, at)
    else if (key === 'size') this.stored = decimal()
    else if (key === 'uid' || key === 'gid' || key === 'mtime') {
      const n = decimal()
      set((entry) => {
        entry[key] = n
      })
    } else if (key === 'GNU.sparse.major') this.sparse1 = decimal() === 1
    else if (key === 'GNU.sparse.realsize' || key === 'GNU.sparse.size') this.realSize = decimal()
    else if (key === 'GNU.sparse.map') this.extents = extentsOf(Buffer.from(value).toString('latin1').split(','), at)
    else if (key === 'GNU.sparse.offset')
      throw new Fault('format', `Cannot read tar entry at offset ${at}: sparse format 0.0 is not supported`)
  }

  applyTo(entry: TarEntry): void {
    for (const change of this.#set) change(entry)
    entry.path = this.sparseName ?? this.path ?? entry.path
    if (this.target !== undefined && entry.target !== '') entry.target = this.target
    if (entry.type === 'file') entry.sizeBytes = this.realSize ?? this.stored ?? entry.sizeBytes
  }
}

function extentsOf(numbers: readonly string[], at: number): Extent[] {
  const extents: Extent[] = []
  if (numbers.length > 2 * MOST_EXTENTS)
    throw new Fault('format', `Cannot read tar entry at offset ${at}: more than ${MOST_EXTENTS} sparse parts`)
  for (let i = 0; i < numbers.length; i += 2) {
    const [offset, size] = [Number(numbers[i]), Number(numbers[i + 1])]
    if (!Number.isSafeInteger(offset) || !Number.isSafeInteger(size) || offset < 0 || size < 0) {
      throw new Fault('format', `Cannot read tar entry at offset ${at}: malformed sparse map`)
    }
    extents.push({ offset, size })
  }
  return extents
}

/** GNU's first sparse form: four extents in the header, more in blocks of 21 behind it. */
async function oldGnuExtents(header: Uint8Array, input: Input, at: number, entry: TarEntry): Promise<Extent[]> {
  const extents: Extent[] = []
  const take = (block: Uint8Array, from: number, count: number) => {
    for (let i = 0; i < count; i++) {
      const field = (skip: number) => block.subarray(from + i * 24 + skip, from + i * 24 + skip + 12)
      if (field(0)[0] === 0 && field(12)[0] === 0) return
      extents.push({ offset: parseNumber(field(0), 'sparse offset', at), size: parseNumber(field(12), 'sparse size', at) })
    }
  }
  take(header, FIELD.gnuExtents[0], 4)
  let more = slice(header, 'gnuMore')[0] !== 0
  while (more) {
    if (extents.length > MOST_EXTENTS)
      throw new Fault('format', `Cannot read tar entry at offset ${at}: more than ${MOST_EXTENTS} sparse parts`)
    const block = await input.exactly(BLOCK)
    take(block, 0, 21)
    more = block[504] !== 0
  }
  entry.sizeBytes = number(header, 'gnuRealSize', at)
  return extents
}

/** pax sparse 1.0: decimal lines at the beginning of the data, padded to a block. */
async function pax1Extents(body: Body, at: number): Promise<Extent[]> {
  let text = ''
  let count = Number.POSITIVE_INFINITY
  for (;;) {
    text += Buffer.from(await body.exactly(BLOCK)).toString('latin1')
    const lines = text.split('\n')
    if (lines.length > 1) count = Number(lines[0])
    if (!(count <= MOST_EXTENTS) && lines.length > 1)
      throw new Fault('format', `Cannot read tar entry at offset ${at}: malformed sparse map`)
    if (lines.length > count * 2 + 1) return extentsOf(lines.slice(1, count * 2 + 1), at)
    if (text.length > MOST_EXTENTS * 40) throw new Fault('format', `Cannot read tar entry at offset ${at}: malformed sparse map`)
  }
}

function finish(entry: TarEntry, body: Body, extents: Extent[] | undefined, at: number): TarFile {
  let end = 0
  for (const { offset, size } of extents ?? []) {
    if (offset < end || offset + size > entry.sizeBytes)
      throw new Fault('format', `Cannot read tar entry at offset ${at}: sparse parts overlap or exceed the file`)
    end = offset + size
  }
  const stored = extents ? extents.reduce((sum, extent) => sum + extent.size, 0) : entry.sizeBytes
  if (entry.type === 'file' && stored !== body.left) {
    throw new Fault('format', `Cannot read tar entry at offset ${at}: ${stored} bytes are described, ${body.left} stored`)
  }
  return { ...entry, content: () => body.content(extents ?? [{ offset: 0, size: entry.sizeBytes }]) }
}

/** After the first zero block there is nothing but zeros, and at least one more block of them. */
async function readEnd(input: Input): Promise<void> {
  let blocks = 0
  for (let block = await input.upTo(BLOCK); block.length > 0; block = await input.upTo(BLOCK)) {
    if (!isZero(block))
      throw new Fault('format', `Cannot read tar archive: data after its end, at offset ${input.offset - block.length}`)
    blocks++
  }
  if (blocks === 0)
    throw new Fault('format', `Cannot read tar archive: it ends at offset ${input.offset} without the second zero block`)
}

/** Bytes from a stream of chunks, without copying where one chunk has them. */
class Input {
  offset = 0
  readonly #source: AsyncIterator<Uint8Array>
  #chunk: Uint8Array = new Uint8Array(0)

  constructor(source: AsyncIterable<Uint8Array>) {
    this.#source = source[Symbol.asyncIterator]()
  }

  /** Some bytes, at most `size`; none at the end. */
  async some(size: number): Promise<Uint8Array> {
    while (this.#chunk.length === 0) {
      const next = await this.#source.next()
      if (next.done) return new Uint8Array(0)
      this.#chunk = next.value
    }
    const bytes = this.#chunk.subarray(0, size)
    this.#chunk = this.#chunk.subarray(bytes.length)
    this.offset += bytes.length
    return bytes
  }

  async upTo(size: number): Promise<Uint8Array> {
    if (this.#chunk.length >= size) {
      const bytes = this.#chunk.subarray(0, size)
      this.#chunk = this.#chunk.subarray(size)
      this.offset += size
      return bytes
    }
    const parts: Uint8Array[] = []
    for (let have = 0; have < size; ) {
      const part = await this.some(size - have)
      if (part.length === 0) break
      parts.push(part)
      have += part.length
    }
    return parts.length === 1 ? parts[0]! : Buffer.concat(parts)
  }

  async exactly(size: number): Promise<Uint8Array> {
    const bytes = size === 0 ? new Uint8Array(0) : await this.upTo(size)
    if (bytes.length < size)
      throw new Fault('format', `Cannot read tar archive: it ends at offset ${this.offset}, within an entry`)
    return bytes
  }
}

/** The data of one entry. */
class Body {
  left: number
  readonly #input: Input
  #padding: number

  constructor(input: Input, size: number) {
    this.#input = input
    this.left = size
    this.#padding = padding(size)
  }

  async exactly(size: number): Promise<Uint8Array> {
    if (size > this.left) throw new Fault('format', `Cannot read tar entry: its data ends at offset ${this.#input.offset}`)
    const bytes = await this.#input.exactly(size)
    this.left -= size
    return bytes
  }

  async *content(extents: readonly Extent[]): AsyncGenerator<TarChunk> {
    for (const extent of extents) {
      for (let done = 0; done < extent.size; ) {
        const bytes = await this.#some(extent.size - done)
        yield { offset: extent.offset + done, bytes }
        done += bytes.length
      }
    }
  }

  async #some(size: number): Promise<Uint8Array> {
    const bytes = await this.#input.some(Math.min(size, this.left))
    if (bytes.length === 0)
      throw new Fault('format', `Cannot read tar archive: it ends at offset ${this.#input.offset}, within an entry`)
    this.left -= bytes.length
    return bytes
  }

  /** Leaves the entry behind, read or not. */
  async skip(): Promise<void> {
    while (this.left > 0) await this.#some(this.left)
    await this.#input.exactly(this.#padding)
    this.#padding = 0
  }
}

function encodeHeader(entry: TarEntry, flag: string): Uint8Array {
  const header = Buffer.alloc(BLOCK)
  const text = (name: FieldName, value: string) => header.write(value, FIELD[name][0], FIELD[name][1])
  const octal = (name: FieldName, value: number) => {
    const digits = value.toString(8).padStart(FIELD[name][1] - 1, '0')
    if (value < 0 || digits.length >= FIELD[name][1])
      throw new Fault('format', `Cannot write tar header of ${entry.path}: ${name} is ${value}`)
    text(name, digits)
  }
  text('name', entry.path)
  text('target', entry.target)
  for (const name of ['mode', 'uid', 'gid', 'mtime', 'major', 'minor'] as const) octal(name, entry[name])
  octal('size', entry.sizeBytes)
  text('flag', flag)
  text('magic', 'ustar\x0000')
  octal('checksum', checksum(header))
  return header
}

function paxRecord(key: string, value: Uint8Array): Uint8Array {
  const rest = Buffer.concat([Buffer.from(` ${key}=`), value, Buffer.from('\n')])
  let length = rest.length
  while (`${length}`.length + rest.length !== length) length = `${length}`.length + rest.length
  return Buffer.concat([Buffer.from(`${length}`), rest])
}
