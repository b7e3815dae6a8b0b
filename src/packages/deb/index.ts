/**
 * PackageIndex: a Packages file compiled into a form that opens in milliseconds.
 *
 * Limits: little-endian machines; one index per Packages file; at most 4 GiB of text.
 *
 * Layout, every section at a multiple of 8: header · sizes (f64 per record) · bounds of the records' texts · bounds of the
 * names · name of each record · flags · installed sizes · versions by name (starts, records) · providers by name (starts,
 * records) · hash table of names · SHA-256 sums · texts of the records · names.
 * A record's texts lie one after another in the order of `TEXTS`, so that one array of bounds describes them all. Names are
 * numbered in the order in which the file first mentions them, in any field: apt breaks ties between providers by it.
 */
import { endianness } from 'node:os'
import { Fault } from '../../base/fault.ts'
import { scanStanzas } from '../../formats/deb822.ts'
import type { Package } from '../package.ts'

export type Relationship = 'preDepends' | 'depends' | 'conflicts' | 'breaks' | 'recommends' | 'suggests' | 'replaces' | 'provides'
export type MultiArch = 'no' | 'same' | 'foreign' | 'allowed'
export const PRIORITIES = ['required', 'important', 'standard', 'optional', 'extra'] as const

/** What a Packages file says of one package. Relations are text as written, empty where absent: `parseRelations` reads them. */
export interface DebPackage extends Omit<Package, 'repository'>, Readonly<Record<Relationship, string>> {
  source: string
  section: string
  /** First line only. */
  description: string
  installedSizeBytes: number
  priority: (typeof PRIORITIES)[number]
  multiArch: MultiArch
  essential: boolean
  /** `Important: yes` or `Protected: yes`. */
  important: boolean
}

export interface PackageIndex {
  readonly count: number
  /** Records of the packages of this name, in file order. */
  versions(name: string): readonly number[]
  /** Records that name it in Provides, in file order. */
  providers(name: string): readonly number[]
  /** When the file first mentions this name, counted in names; -1 when it never does. */
  mention(name: string): number
  record(i: number): DebPackage
  essentials(): readonly number[]
  /** Every name of a package (not of a virtual one), in the order of first mention. */
  names(): string[]
}

// biome-ignore format: table
const TEXTS = [
  ['version',      'Version'],
  ['architecture', 'Architecture'],
  ['filename',     'Filename'],
  ['source',       'Source'],
  ['section',      'Section'],
  ['description',  'Description'],
  ['preDepends',   'Pre-Depends'],
  ['depends',      'Depends'],
  ['conflicts',    'Conflicts'],
  ['breaks',       'Breaks'],
  ['recommends',   'Recommends'],
  ['suggests',     'Suggests'],
  ['replaces',     'Replaces'],
  ['provides',     'Provides'],
] as const
const WIDTH = TEXTS.length
const PROVIDES = WIDTH - 1
const FILENAME = 2
const FIRST_RELATION = 6
const OTHERS = [
  'Enhances',
  'Package',
  'Size',
  'SHA256',
  'Installed-Size',
  'Priority',
  'Multi-Arch',
  'Essential',
  'Important',
  'Protected',
]
const [ENHANCES, PACKAGE, SIZE, SHA256, INSTALLED, PRIORITY, MULTI_ARCH, ESSENTIAL, IMPORTANT, PROTECTED] = OTHERS.map(
  (_, i) => WIDTH + i,
) as [number, number, number, number, number, number, number, number, number, number]

const MULTI_ARCHS = ['no', 'same', 'foreign', 'allowed'] as const
const FLAG_ESSENTIAL = 1
const FLAG_IMPORTANT = 2
const SHIFT_PRIORITY = 4
const SHIFT_MULTI_ARCH = 8

const MAGIC = 0x31_58_49_42 // "BIX1"
const VERSION = 1
const HEADER_SIZE = 64
const MAX_COUNT = 1 << 24

interface Counts {
  records: number
  names: number
  provided: number
  slots: number
  textBytes: number
  nameBytes: number
}

/** Every section, in file order. One table for the writer and the reader. */
function sections(buffer: ArrayBufferLike, c: Counts) {
  let at = HEADER_SIZE
  const place = (bytes: number) => {
    const start = at
    at += Math.ceil(bytes / 8) * 8
    return start
  }
  const words = (length: number): [number, number] => [place(length * 4), length]
  const bytes = (length: number): [number, number] => [place(length), length]
  const spans = {
    sizes: [place(c.records * 8), c.records] as [number, number],
    textBounds: words(c.records * WIDTH + 1),
    nameBounds: words(c.names + 1),
    recordName: words(c.records),
    flags: words(c.records),
    installed: words(c.records),
    versionStarts: words(c.names + 1),
    versions: words(c.records),
    providerStarts: words(c.names + 1),
    providers: words(c.provided),
    slots: words(c.slots),
    sums: bytes(c.records * 32),
    texts: bytes(c.textBytes),
    names: bytes(c.nameBytes),
  }
  const u32 = (s: [number, number]) => new Uint32Array(buffer, ...s)
  const raw = (s: [number, number]) => Buffer.from(buffer as ArrayBuffer, ...s)
  const views = () => ({
    sizes: new Float64Array(buffer, ...spans.sizes),
    textBounds: u32(spans.textBounds),
    nameBounds: u32(spans.nameBounds),
    recordName: u32(spans.recordName),
    flags: u32(spans.flags),
    installed: u32(spans.installed),
    versionStarts: u32(spans.versionStarts),
    versions: u32(spans.versions),
    providerStarts: u32(spans.providerStarts),
    providers: u32(spans.providers),
    slots: u32(spans.slots),
    sums: raw(spans.sums),
    texts: raw(spans.texts),
    names: raw(spans.names),
  })
  return { sizeBytes: at, views }
}

/** Compiles the text of a Packages file. Refuses stanzas that lack what fetching them needs. */
export function indexPackages(packagesText: Uint8Array, source = 'Packages'): Uint8Array {
  if (endianness() !== 'LE') throw new Fault('host', 'Cannot compile a package index: this machine is big-endian')
  const text = Buffer.from(packagesText.buffer, packagesText.byteOffset, packagesText.length)
  const names = nameTable(text)
  const draft = scanned(text, names, source)
  const counts: Counts = {
    records: draft.sizes.length,
    names: names.count(),
    provided: draft.provided.length / 2,
    slots: names.slots().length,
    textBytes: draft.spans.reduce((sum, n, i) => sum + (i % 2 ? n : -n), 0),
    nameBytes: names.bytes().length,
  }
  if (counts.records > MAX_COUNT || counts.textBytes > 0xffff_ffff)
    throw new Fault('format', `Cannot index ${source}: it is too large`)
  const plan = sections(new ArrayBuffer(0), counts)
  const buffer = new ArrayBuffer(plan.sizeBytes)
  const header = [MAGIC, VERSION, counts.records, counts.names, counts.provided, counts.slots, counts.textBytes, counts.nameBytes]
  new Uint32Array(buffer, 0, HEADER_SIZE / 4).set(header)
  const v = sections(buffer, counts).views()
  v.sizes.set(draft.sizes)
  v.recordName.set(draft.recordName)
  v.flags.set(draft.flags)
  v.installed.set(draft.installed)
  v.names.set(names.bytes())
  v.nameBounds.set(names.bounds())
  v.slots.set(names.slots())
  let at = 0
  for (let i = 0; i < draft.spans.length; i += 2) {
    at += text.copy(v.texts, at, draft.spans[i]!, draft.spans[i + 1]!)
    v.textBounds[i / 2 + 1] = at
  }
  draft.sums.forEach((offset, i) => v.sums.write(text.toString('latin1', offset, offset + 64), i * 32, 'hex'))
  group(draft.recordName, (i) => i, v.versionStarts, v.versions)
  group(
    draft.provided.filter((_, i) => i % 2 === 0),
    (i) => draft.provided[2 * i + 1]!,
    v.providerStarts,
    v.providers,
  )
  return new Uint8Array(buffer)
}

/** Sorts values by key, keeping their order: values of key k end up at `starts[k]` to `starts[k + 1]`. */
function group(keys: readonly number[], valueAt: (i: number) => number, starts: Uint32Array, into: Uint32Array): void {
  for (const key of keys) starts[key + 1]!++
  for (let i = 1; i < starts.length; i++) starts[i]! += starts[i - 1]!
  const next = starts.slice()
  keys.forEach((key, i) => {
    into[next[key]!++] = valueAt(i)
  })
}

function scanned(text: Buffer, names: NameTable, source: string) {
  const sizes: number[] = []
  const recordName: number[] = []
  const flags: number[] = []
  const installed: number[] = []
  const spans: number[] = []
  const sums: number[] = []
  const provided: number[] = [] // pairs: name, record
  const wanted = [...TEXTS.map(([, field]) => field), ...OTHERS]
  scanStanzas(
    text,
    wanted,
    (at, i) => {
      const value = (f: number) => (at[2 * f]! < 0 ? '' : text.toString('utf8', at[2 * f], at[2 * f + 1]))
      const named = names.add(at[2 * PACKAGE]!, at[2 * PACKAGE + 1]!)
      const refuse = (why: string) =>
        new Fault('format', `Cannot index ${source}, package ${value(PACKAGE) || `number ${i + 1}`}: ${why}`)
      if (at[2 * PACKAGE]! < 0 || !isName(text, at[2 * PACKAGE]!, at[2 * PACKAGE + 1]!)) throw refuse('its name is not one')
      if (!VERSION_TEXT.test(value(0))) throw refuse(`its Version ${JSON.stringify(value(0))} is missing or not one`)
      if (!/^[a-z0-9-]+$/.test(value(1))) throw refuse('its Architecture is missing or not one')
      if (!isSafePath(value(FILENAME).replace(HERE, '')))
        throw refuse(`its Filename ${JSON.stringify(value(FILENAME))} does not stay inside the repository`)
      if (!/^[0-9a-fA-F]{64}$/.test(value(SHA256))) throw refuse('its SHA256 is missing or not a digest')
      if (!/^\d{1,15}$/.test(value(SIZE))) throw refuse('its Size is missing or not a number')
      recordName.push(named)
      sizes.push(Number(value(SIZE)))
      sums.push(at[2 * SHA256]!)
      installed.push(Math.min(0xffff_ffff, Number.parseInt(value(INSTALLED), 10) || 0))
      flags.push(flagsOf(value))
      for (let f = 0; f < WIDTH; f++) {
        let start = Math.max(0, at[2 * f]!)
        let end = Math.max(0, at[2 * f + 1]!)
        // Flat repositories name their files from where they stand: `./x.deb`.
        if (f === FILENAME) start += HERE.exec(value(f))?.[0].length ?? 0
        if (f < FIRST_RELATION) {
          const fold = text.subarray(start, end).indexOf(10)
          if (fold >= 0) end = start + fold
        }
        spans.push(start, end)
      }
      // apt reads them in this order, Enhances between Replaces and Provides.
      for (let f = FIRST_RELATION; f < PROVIDES; f++) names.mention(at[2 * f]!, at[2 * f + 1]!)
      names.mention(at[2 * ENHANCES]!, at[2 * ENHANCES + 1]!)
      names.mention(at[2 * PROVIDES]!, at[2 * PROVIDES + 1]!, (name) => provided.push(name, i))
    },
    source,
  )
  return { sizes, recordName, flags, installed, spans, sums, provided }
}

function flagsOf(value: (f: number) => string): number {
  const yes = (f: number) => value(f).toLowerCase() === 'yes'
  const priority = Math.max(0, PRIORITIES.indexOf((value(PRIORITY) || 'extra') as 'extra'))
  const multiArch = Math.max(0, MULTI_ARCHS.indexOf((value(MULTI_ARCH) || 'no') as 'no'))
  return (
    (yes(ESSENTIAL) ? FLAG_ESSENTIAL : 0) |
    (yes(IMPORTANT) || yes(PROTECTED) ? FLAG_IMPORTANT : 0) |
    (priority << SHIFT_PRIORITY) |
    (multiArch << SHIFT_MULTI_ARCH)
  )
}

/** What dpkg can compare; stricter than that would refuse archives that apt reads. */
const VERSION_TEXT = /^(?:\d{1,9}:[A-Za-z0-9.+~:-]+|[A-Za-z0-9.+~-]+)$/

const HERE = /^(?:\.\/+)*/

const isSafePath = (path: string) =>
  /^[!-~]+$/.test(path) && !path.startsWith('/') && !path.split('/').some((part) => part === '' || part === '.' || part === '..')

function isNameByte(c: number): boolean {
  return (c >= 97 && c <= 122) || (c >= 48 && c <= 57) || c === 45 || c === 46 || c === 43 || (c >= 65 && c <= 90) || c === 95
}

function isName(text: Uint8Array, start: number, end: number): boolean {
  for (let i = start; i < end; i++) if (!isNameByte(text[i]!)) return false
  return end > start && text[start] !== 45 && text[start] !== 46 && text[start] !== 43 && text[start] !== 95
}

type NameTable = ReturnType<typeof nameTable>

/** Numbers names in the order they are met, without making strings of them. */
function nameTable(text: Buffer) {
  let slots = new Uint32Array(1 << 12) // name + 1, or 0
  const starts: number[] = []
  const ends: number[] = []

  function add(start: number, end: number): number {
    const mask = slots.length - 1
    let slot = hashOf(text, start, end) & mask
    for (; slots[slot] !== 0; slot = (slot + 1) & mask) {
      const name = slots[slot]! - 1
      if (equal(text, starts[name]!, ends[name]!, text, start, end)) return name
    }
    starts.push(start)
    ends.push(end)
    slots[slot] = starts.length
    if (starts.length * 2 > slots.length) grow()
    return starts.length - 1
  }

  function grow(): void {
    slots = new Uint32Array(slots.length * 2)
    const mask = slots.length - 1
    for (let name = 0; name < starts.length; name++) {
      let slot = hashOf(text, starts[name]!, ends[name]!) & mask
      while (slots[slot] !== 0) slot = (slot + 1) & mask
      slots[slot] = name + 1
    }
  }

  /** The names of a relation field, whatever else it says: `a (>= 1) | b:any, c`. */
  function mention(start: number, end: number, found?: (name: number) => void): void {
    for (let i = start; i < end && start >= 0; i++) {
      if (!isNameByte(text[i]!)) continue
      const from = i
      while (i < end && isNameByte(text[i]!)) i++
      const name = add(from, i)
      found?.(name)
      while (i < end && text[i] !== 44 && text[i] !== 124) i++
    }
  }

  return {
    add,
    mention,
    count: () => starts.length,
    slots: () => slots,
    bytes: () => Buffer.concat(starts.map((start, i) => text.subarray(start, ends[i]))),
    bounds() {
      let at = 0
      return Uint32Array.from([0, ...starts.map((start, i) => (at += ends[i]! - start))])
    },
  }
}

/** FNV-1a. */
function hashOf(bytes: Uint8Array, start: number, end: number): number {
  let h = 0x811c9dc5
  for (let i = start; i < end; i++) h = Math.imul(h ^ bytes[i]!, 0x01000193)
  return (h ^ (h >>> 15)) >>> 0
}

function equal(a: Uint8Array, startA: number, endA: number, b: Uint8Array, startB: number, endB: number): boolean {
  if (endA - startA !== endB - startB) return false
  for (let i = startA, j = startB; i < endA; i++, j++) if (a[i] !== b[j]) return false
  return true
}

/** Opens what `indexPackages` made. Every number in it is checked here, so that lookups need no checks. */
export function openIndex(bytes: Uint8Array): PackageIndex {
  const whole = bytes.byteOffset === 0 ? bytes : new Uint8Array(bytes)
  if (endianness() !== 'LE' || whole.length < HEADER_SIZE) throw corrupt(`${whole.length} bytes`)
  const header = new Uint32Array(whole.buffer, whole.byteOffset, HEADER_SIZE / 4)
  const [magic, version, records, names, provided, slots, textBytes, nameBytes] = header as unknown as number[] as [
    number,
    number,
    number,
    number,
    number,
    number,
    number,
    number,
  ]
  if (magic !== MAGIC || version !== VERSION) throw corrupt(`it begins with ${magic.toString(16)}, version ${version}`)
  const v = viewsOf(whole, { records, names, provided, slots, textBytes, nameBytes })
  const scratch = Buffer.alloc(1024)

  const slice = <T extends Uint32Array>(starts: T, list: T, name: number) =>
    name < 0 ? [] : Array.from(list.subarray(starts[name]!, starts[name + 1]!))
  const nameText = (name: number) => v.names.toString('latin1', v.nameBounds[name], v.nameBounds[name + 1])
  const textOf = (i: number, f: number) => v.texts.toString('utf8', v.textBounds[i * WIDTH + f], v.textBounds[i * WIDTH + f + 1])

  function find(name: string): number {
    if (name.length > scratch.length || slots === 0) return -1
    const end = scratch.write(name, 'latin1')
    for (let slot = hashOf(scratch, 0, end) & (slots - 1), tries = 0; v.slots[slot] !== 0 && tries < slots; tries++) {
      const at = v.slots[slot]! - 1
      if (equal(v.names, v.nameBounds[at]!, v.nameBounds[at + 1]!, scratch, 0, end)) return at
      slot = (slot + 1) & (slots - 1)
    }
    return -1
  }

  function record(i: number): DebPackage {
    const flags = v.flags[i]!
    const texts = Object.fromEntries(TEXTS.map(([key], f) => [key, textOf(i, f)])) as Record<(typeof TEXTS)[number][0], string>
    return {
      name: nameText(v.recordName[i]!),
      ...texts,
      source: texts.source === '' ? nameText(v.recordName[i]!) : texts.source,
      sizeBytes: v.sizes[i]!,
      sha256: v.sums.toString('hex', i * 32, i * 32 + 32),
      installedSizeBytes: v.installed[i]! * 1024,
      priority: PRIORITIES[(flags >> SHIFT_PRIORITY) & 7] ?? 'extra',
      multiArch: MULTI_ARCHS[(flags >> SHIFT_MULTI_ARCH) & 3]!,
      essential: (flags & FLAG_ESSENTIAL) !== 0,
      important: (flags & FLAG_IMPORTANT) !== 0,
    }
  }

  return {
    count: records,
    versions: (name) => slice(v.versionStarts, v.versions, find(name)),
    providers: (name) => slice(v.providerStarts, v.providers, find(name)),
    mention: find,
    record,
    essentials() {
      const found: number[] = []
      for (let i = 0; i < records; i++) if (v.flags[i]! & FLAG_ESSENTIAL) found.push(i)
      return found
    },
    names() {
      const found: string[] = []
      for (let i = 0; i < names; i++) if (v.versionStarts[i] !== v.versionStarts[i + 1]) found.push(nameText(i))
      return found
    },
  }
}

/** The sections of an index whose sizes and cross references hold. */
function viewsOf(whole: Uint8Array, c: Counts) {
  if (Math.max(c.records, c.names, c.provided) > MAX_COUNT || (c.slots & (c.slots - 1)) !== 0 || c.slots > 4 * MAX_COUNT)
    throw corrupt('its counts are out of bounds')
  const expected = sections(new ArrayBuffer(0), c).sizeBytes
  if (whole.length !== expected) throw corrupt(`it has ${whole.length} bytes, its header says ${expected}`)
  const v = sections(whole.buffer, c).views()
  const rising = (bounds: Uint32Array, end: number) => {
    let last = 0
    for (let i = 0; i < bounds.length; i++) {
      if (bounds[i]! < last) return false
      last = bounds[i]!
    }
    return bounds[0] === 0 && last === end
  }
  const below = (list: Uint32Array, limit: number) => {
    let highest = -1
    for (let i = 0; i < list.length; i++) if (list[i]! > highest) highest = list[i]!
    return highest < limit
  }
  const sound =
    rising(v.textBounds, c.textBytes) &&
    rising(v.nameBounds, c.nameBytes) &&
    rising(v.versionStarts, c.records) &&
    rising(v.providerStarts, c.provided) &&
    below(v.recordName, c.names) &&
    below(v.versions, c.records) &&
    below(v.providers, c.records) &&
    below(v.slots, c.names + 1)
  if (!sound) throw corrupt('its sections contradict each other')
  return v
}

const corrupt = (why: string) =>
  new Fault('integrity', `Cannot open a package index: ${why}`, { hint: 'Delete the cached index; it is made anew' })
