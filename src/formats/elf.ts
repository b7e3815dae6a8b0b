/**
 * ELF: sections of an object file, and what a kernel module says of itself in `.modinfo`.
 *
 * Spec:   System V ABI, chapter 4 — https://gabi.xinuos.com/elf/02-eheader.html
 * Oracle: `readelf -S`, `modinfo`
 * Limits: Little-endian, 32 and 64 bits; reads only; fewer than 65280 sections.
 */
import { Fault } from '../base/fault.ts'
import { bytes, constant, type Field, reserved, type Struct, struct, u8, u16le, u32le, u64le } from './struct.ts'

const MAX_SECTIONS = 0xff00
const NO_BITS = 8

// biome-ignore format: table
const identity = struct('ELF identity', {
  magic:      constant(Buffer.from('\x7fELF', 'latin1')),
  width:      u8, // 1: 32 bits, 2: 64 bits
  order:      u8, // 1: little-endian
  version:    constant(Uint8Array.of(1)),
  _reserved:  reserved(9),
})

// biome-ignore format: table
const header = (word: Field<number>) => struct('ELF header', {
  identity:       bytes(16),
  type:           u16le,
  machine:        u16le,
  version:        u32le,
  entry:          bytes(word.size),
  programHeaders: bytes(word.size),
  sectionHeaders: word,
  flags:          u32le,
  size:           u16le,
  programSize:    u16le,
  programCount:   u16le,
  sectionSize:    u16le,
  sectionCount:   u16le,
  namesSection:   u16le,
})

// biome-ignore format: table
const section = (word: Field<number>) => struct('ELF section header', {
  name:      u32le,
  type:      u32le,
  flags:     bytes(word.size),
  address:   bytes(word.size),
  offset:    word,
  size:      word,
  link:      u32le,
  info:      u32le,
  align:     bytes(word.size),
  entrySize: bytes(word.size),
})

// biome-ignore format: table
const WIDTHS = {
  1: { header: header(u32le), section: section(u32le) },
  2: { header: header(u64le), section: section(u64le) },
}

/** The content of the first section of that name; undefined where there is none. */
export function elfSection(file: Uint8Array, name: string): Uint8Array | undefined {
  const { width, order } = identity.decode(file)
  if ((width !== 1 && width !== 2) || order !== 1) {
    throw new Fault('format', `Cannot read ELF: width ${width} and byte order ${order}, expected 1 or 2 and 1`)
  }
  const tables = WIDTHS[width]
  const h = tables.header.decode(file)
  if (h.sectionCount === 0 || h.sectionCount >= MAX_SECTIONS || h.sectionSize < tables.section.size) {
    throw new Fault('format', `Cannot read ELF: ${h.sectionCount} section headers of ${h.sectionSize} bytes`)
  }
  const end = h.sectionHeaders + h.sectionCount * h.sectionSize
  if (end > file.length)
    throw new Fault('format', `Cannot read ELF section headers: they end at ${end}, the file at ${file.length}`)
  const at = (i: number) => sectionAt(tables.section, file, h.sectionHeaders + i * h.sectionSize)
  if (h.namesSection >= h.sectionCount)
    throw new Fault('format', `Cannot read ELF: section ${h.namesSection} of names is not there`)
  const names = at(h.namesSection).content
  const wanted = Buffer.from(`${name}\0`)
  for (let i = 0; i < h.sectionCount; i++) {
    const found = at(i)
    if (wanted.equals(names.subarray(found.name, found.name + wanted.length))) return found.content
  }
  return undefined
}

/** How often the code of a 64-bit object file refers to a symbol of that name: calls of a function, mostly. */
export function elfReferences(file: Uint8Array, symbol: string): number {
  if (identity.decode(file).width !== 2) throw new Fault('format', 'Cannot read ELF relocations: expected 64 bits')
  const [symbols, names, text] = ['.symtab', '.strtab', '.rela.text'].map((name) => elfSection(file, name))
  if (!symbols || !names || !text) return 0
  const wanted = Buffer.from(`${symbol}\0`)
  const numbers = new Set<number>()
  for (let at = 0; at + SYMBOL <= symbols.length; at += SYMBOL) {
    const name = u32le.read(viewOf(symbols), at)
    if (wanted.equals(names.subarray(name, name + wanted.length))) numbers.add(at / SYMBOL)
  }
  let found = 0
  for (let at = 0; at + RELOCATION <= text.length; at += RELOCATION) if (numbers.has(u32le.read(viewOf(text), at + 12))) found++
  return found
}

/** Bytes of an entry of `.symtab`, and of `.rela.*`, whose symbol is the upper half of its second word. */
const SYMBOL = 24
const RELOCATION = 24

const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.length)

function sectionAt(table: (typeof WIDTHS)[1 | 2]['section'], file: Uint8Array, offset: number) {
  const s = (table as Struct<any>).decode(file, offset) as { name: number; type: number; offset: number; size: number }
  const content = s.type === NO_BITS ? new Uint8Array(0) : file.subarray(s.offset, s.offset + s.size)
  if (s.type !== NO_BITS && content.length !== s.size) {
    throw new Fault('format', `Cannot read ELF section at offset ${s.offset}: need ${s.size} bytes, have ${content.length}`)
  }
  return { name: s.name, content }
}

/** `key=value` strings, each ended by 0. A key may come several times. */
export function parseModinfo(section: Uint8Array): [key: string, value: string][] {
  return Buffer.from(section.buffer, section.byteOffset, section.length)
    .toString('utf8')
    .split('\0')
    .filter((text) => text.includes('='))
    .map((text) => [text.slice(0, text.indexOf('=')), text.slice(text.indexOf('=') + 1)])
}
