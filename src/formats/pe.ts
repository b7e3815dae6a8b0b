/**
 * PE32+ images as UEFI loads them: reading the headers, and giving an image more sections.
 *
 * Spec:   https://learn.microsoft.com/windows/win32/debug/pe-format
 * Oracle: `objdump -h`, `ukify inspect --json=short`
 * Limits: PE32+ only (every 64-bit EFI machine); section names of up to 8 bytes; data directories beyond the certificate
 *         table, relocations and symbols are carried along, not read. Images that are signed already get no new sections.
 *
 * On disk: DOS header · `PE\0\0` · COFF header · optional header · section table · padding to SizeOfHeaders · the raw data
 * of the sections · certificate table.
 */
import { Fault } from '../base/fault.ts'
import { alignUp } from '../base/size.ts'
import { constant, type Field, type Of, reserved, struct, u16le, u32le } from './struct.ts'

// biome-ignore format: table
const dosHeader = struct('DOS header', {
  magic:    constant(Buffer.from('MZ')),
  _unused:  reserved(58),
  peOffset: u32le,
})

// biome-ignore format: table
const coffHeader = struct('PE header', {
  signature:            constant(Buffer.from('PE\0\0')),
  machine:              u16le,
  sectionCount:         u16le,
  timeDateStamp:        u32le,
  symbolTable:          u32le,
  symbolCount:          u32le,
  sizeOfOptionalHeader: u16le,
  characteristics:      u16le,
})

// biome-ignore format: table
const optionalHeader = struct('PE optional header', {
  magic:                 constant(Uint8Array.of(0x0b, 0x02)), // PE32+
  _linker:               reserved(2),
  _sizeOfCode:           reserved(4),
  sizeOfInitializedData: u32le,
  _entryToImageBase:     reserved(20),
  sectionAlignment:      u32le,
  fileAlignment:         u32le,
  _versions:             reserved(16),
  sizeOfImage:           u32le,
  sizeOfHeaders:         u32le,
  checkSum:              u32le,
  subsystem:             u16le,
  dllCharacteristics:    u16le,
  _stackToLoaderFlags:   reserved(36),
  directoryCount:        u32le,
  _directories:          reserved(4 * 8),
  certificateOffset:     u32le,
  certificateSize:       u32le,
})

const sectionName: Field<string> = {
  size: 8,
  read: (v, at) =>
    Buffer.from(v.buffer, v.byteOffset + at, 8)
      .toString('latin1')
      .replace(/\0.*$/s, ''),
  write(v, at, name) {
    const bytes = Buffer.from(name, 'latin1')
    if (bytes.length > 8) throw new Fault('format', `Cannot name a PE section "${name}": a name has at most 8 bytes`)
    for (const [i, byte] of bytes.entries()) v.setUint8(at + i, byte)
  },
}

// biome-ignore format: table
const sectionHeader = struct('PE section header', {
  name:             sectionName,
  virtualSize:      u32le,
  virtualAddress:   u32le,
  sizeOfRawData:    u32le,
  pointerToRawData: u32le,
  _relocations:     reserved(12),
  characteristics:  u32le,
})

export type PeSection = Of<typeof sectionHeader>

export interface Pe {
  machine: number
  subsystem: number
  dllCharacteristics: number
  sectionAlignment: number
  fileAlignment: number
  sizeOfHeaders: number
  sizeOfImage: number
  checkSum: number
  /** Where the certificate table is; both zero when the image is not signed. */
  certificateTable: { offset: number; sizeBytes: number }
  sections: PeSection[]
  /** Offsets in the file of what Authenticode leaves out, and of the section table. */
  at: { coff: number; optional: number; checkSum: number; certificateEntry: number; sectionTable: number }
}

export const NX_COMPAT = 0x0100
const READABLE_DATA = 0x4000_0040
const READABLE_CODE = 0x4000_0020
const MAX_RVA = 0xffff_ffff

/** Decodes the headers of a whole image. Everything they point at lies in the file and nothing overlaps. */
export function decodePe(bytes: Uint8Array, what = 'PE image'): Pe {
  const coffAt = dosHeader.decode(bytes).peOffset
  const coff = coffHeader.decode(bytes, coffAt)
  const optionalAt = coffAt + coffHeader.size
  const optional = optionalHeader.decode(bytes, optionalAt)
  if (optional.directoryCount < 5 || coff.sizeOfOptionalHeader < optionalHeader.size)
    throw refuse(what, `its optional header has ${optional.directoryCount} data directories, expected at least 5`)
  for (const [name, alignment] of [['section', optional.sectionAlignment] as const, ['file', optional.fileAlignment] as const])
    if (alignment < 1 || alignment > 0x20_0000 || alignment & (alignment - 1))
      throw refuse(what, `its ${name} alignment is ${alignment}, expected a power of two`)

  const tableAt = optionalAt + coff.sizeOfOptionalHeader
  const tableEnd = tableAt + coff.sectionCount * sectionHeader.size
  if (tableEnd > optional.sizeOfHeaders)
    throw refuse(what, `its table of ${coff.sectionCount} sections ends at ${tableEnd}, its headers at ${optional.sizeOfHeaders}`)
  if (optional.sizeOfHeaders > bytes.length)
    throw refuse(what, `its headers end at ${optional.sizeOfHeaders}, the file at ${bytes.length}`)
  const sections = Array.from({ length: coff.sectionCount }, (_, i) =>
    sectionHeader.decode(bytes, tableAt + i * sectionHeader.size),
  )

  const pe: Pe = {
    machine: coff.machine,
    subsystem: optional.subsystem,
    dllCharacteristics: optional.dllCharacteristics,
    sectionAlignment: optional.sectionAlignment,
    fileAlignment: optional.fileAlignment,
    sizeOfHeaders: optional.sizeOfHeaders,
    sizeOfImage: optional.sizeOfImage,
    checkSum: optional.checkSum,
    certificateTable: { offset: optional.certificateOffset, sizeBytes: optional.certificateSize },
    sections,
    at: {
      coff: coffAt,
      optional: optionalAt,
      checkSum: optionalAt + optionalHeader.offset('checkSum'),
      certificateEntry: optionalAt + optionalHeader.offset('certificateOffset'),
      sectionTable: tableAt,
    },
  }
  checkExtents(pe, bytes.length, what)
  return pe
}

/** A section's content: as many bytes as it says are used, without the padding. */
export function sectionContent(bytes: Uint8Array, section: PeSection): Uint8Array {
  const size = Math.min(section.virtualSize, section.sizeOfRawData)
  return bytes.subarray(section.pointerToRawData, section.pointerToRawData + size)
}

export const findSection = (pe: Pe, name: string): PeSection | undefined => pe.sections.find((s) => s.name === name)

export interface NewSection {
  name: string
  sizeBytes: number
  /** Marks the content as code, as a kernel that firmware enters in place needs. */
  code?: boolean
}

export interface ExtendedPe {
  /** The bytes the new image begins with: the old image with its new headers. */
  head: Uint8Array
  /** Where each new section's content goes, in the order given; all other bytes after `head` are zero. */
  offsets: number[]
  sizeBytes: number
}

/** Plans an image with more sections. The contents are not needed for it, so that they can be written in place. */
export function extendPe(given: Uint8Array, added: readonly NewSection[], options: { nxCompat?: boolean } = {}): ExtendedPe {
  const image = withHeaderRoom(given, added.length)
  const pe = decodePe(image, 'stub')
  if (pe.certificateTable.offset !== 0) throw new Fault('format', 'Cannot add sections to stub: it is signed already')
  const last = pe.sections.at(-1)
  if (!last) throw new Fault('format', 'Cannot add sections to stub: it has none to follow')
  const tableEnd = pe.at.sectionTable + pe.sections.length * sectionHeader.size
  const sizeOfHeaders = alignUp(pe.sizeOfHeaders, pe.fileAlignment)
  const room = Math.floor((Math.min(sizeOfHeaders, ...rawStarts(pe)) - tableEnd) / sectionHeader.size)
  if (added.length > room)
    throw new Fault('format', `Cannot add ${added.length} sections to stub: its headers have room for ${room}`)

  const head = Uint8Array.from(image)
  let fileEnd = image.length
  let addressEnd = last.virtualAddress + last.virtualSize
  let dataBytes = 0
  const offsets = added.map((section, i) => {
    const header: PeSection = {
      name: section.name,
      virtualSize: section.sizeBytes,
      virtualAddress: alignUp(addressEnd, pe.sectionAlignment),
      sizeOfRawData: alignUp(section.sizeBytes, pe.fileAlignment),
      pointerToRawData: alignUp(fileEnd, pe.fileAlignment),
      characteristics: section.code ? READABLE_CODE : READABLE_DATA,
    }
    fileEnd = header.pointerToRawData + header.sizeOfRawData
    addressEnd = header.virtualAddress + header.virtualSize
    if (Math.max(fileEnd, addressEnd) > MAX_RVA - pe.sectionAlignment)
      throw new Fault('format', `Cannot add section ${section.name}: the image would be larger than 4 GiB`)
    dataBytes += header.virtualSize
    head.set(sectionHeader.encode(header), tableEnd + i * sectionHeader.size)
    return header.pointerToRawData
  })

  const view = new DataView(head.buffer)
  const patch32 = (field: Parameters<typeof optionalHeader.offset>[0], value: number) =>
    view.setUint32(pe.at.optional + optionalHeader.offset(field), value, true)
  view.setUint16(pe.at.coff + coffHeader.offset('sectionCount'), pe.sections.length + added.length, true)
  const { sizeOfInitializedData } = optionalHeader.decode(image, pe.at.optional)
  patch32('sizeOfInitializedData', sizeOfInitializedData + dataBytes)
  patch32('sizeOfHeaders', sizeOfHeaders)
  patch32('sizeOfImage', alignUp(addressEnd, pe.sectionAlignment))
  patch32('checkSum', 0)
  if (options.nxCompat === false)
    view.setUint16(pe.at.optional + optionalHeader.offset('dllCharacteristics'), pe.dllCharacteristics & ~NX_COMPAT, true)
  return { head, offsets, sizeBytes: fileEnd }
}

/**
 * The image with room in its headers for more sections: as it is where there is enough, else with longer headers before its
 * sections, up to where the first of them lies in memory. Nothing in memory moves.
 */
function withHeaderRoom(image: Uint8Array, count: number): Uint8Array {
  const pe = decodePe(image, 'stub')
  const headersEnd = Math.min(alignUp(pe.sizeOfHeaders, pe.fileAlignment), ...rawStarts(pe))
  const needed = pe.at.sectionTable + (pe.sections.length + count) * sectionHeader.size
  const shift = alignUp(Math.max(0, needed - headersEnd), pe.fileAlignment)
  const firstAddress = Math.min(...pe.sections.map((section) => section.virtualAddress))
  // Symbols and debug data are found by their place in the file, which would change.
  const coff = coffHeader.decode(image, pe.at.coff)
  const debugEntry = pe.at.certificateEntry + 2 * 8
  const debugs =
    pe.at.sectionTable >= debugEntry + 8 && new DataView(image.buffer, image.byteOffset).getUint32(debugEntry + 4, true)
  if (shift === 0 || headersEnd + shift > firstAddress || coff.symbolTable !== 0 || debugs || pe.certificateTable.offset !== 0)
    return image
  const moved = Buffer.alloc(image.length + shift)
  moved.set(image.subarray(0, headersEnd))
  moved.set(image.subarray(headersEnd), headersEnd + shift)
  for (const [i, section] of pe.sections.entries()) {
    if (section.sizeOfRawData === 0) continue
    const header = sectionHeader.encode({ ...section, pointerToRawData: section.pointerToRawData + shift })
    moved.set(header, pe.at.sectionTable + i * sectionHeader.size)
  }
  moved.writeUInt32LE(headersEnd + shift, pe.at.optional + optionalHeader.offset('sizeOfHeaders'))
  return moved
}

/** A copy of the image in which a section that exists has other content. It must fit where the old one was. */
export function replaceSection(image: Uint8Array, name: string, content: Uint8Array): Uint8Array {
  const pe = decodePe(image, 'stub')
  const index = pe.sections.findIndex((section) => section.name === name)
  const section = pe.sections[index]
  if (!section) throw new Fault('format', `Cannot replace section ${name}: the image has none of that name`)
  if (content.length > section.sizeOfRawData)
    throw new Fault(
      'format',
      `Cannot replace section ${name}: the new content has ${content.length} bytes, ${section.sizeOfRawData} fit`,
    )
  const copy = Uint8Array.from(image)
  copy.fill(0, section.pointerToRawData, section.pointerToRawData + section.sizeOfRawData)
  copy.set(content, section.pointerToRawData)
  copy.set(sectionHeader.encode({ ...section, virtualSize: content.length }), pe.at.sectionTable + index * sectionHeader.size)
  return copy
}

/** Writes the certificate table's place and the checksum into the headers of an image. */
export function patchCertificateTable(image: Uint8Array, pe: Pe, table: { offset: number; sizeBytes: number }): void {
  const view = new DataView(image.buffer, image.byteOffset, image.byteLength)
  view.setUint32(pe.at.certificateEntry, table.offset, true)
  view.setUint32(pe.at.certificateEntry + 4, table.sizeBytes, true)
}

/** Sets CheckSum: the folded sum of all 16-bit words but its own, and the length. Firmware ignores it, tools complain. */
export function patchCheckSum(image: Uint8Array, pe: Pe): void {
  const view = new DataView(image.buffer, image.byteOffset, image.byteLength)
  view.setUint32(pe.at.checkSum, 0, true)
  view.setUint32(pe.at.checkSum, peCheckSum(image), true)
}

/** The file's checksum, for an image whose CheckSum field is zero. */
function peCheckSum(image: Uint8Array): number {
  // Sums of 32-bit words fold to the same as sums of 16-bit words: 2^16 is 1 modulo 2^16 - 1. Folding every 2^20 words
  // keeps the sum exact.
  const whole = image.length >>> 2
  const view = new DataView(image.buffer, image.byteOffset, image.byteLength)
  const words = image.byteOffset % 4 === 0 ? new Uint32Array(image.buffer, image.byteOffset, whole) : undefined
  let sum = 0
  for (let i = 0; i < whole; ) {
    for (const stop = Math.min(whole, i + FOLD_WORDS); i < stop; i++) sum += words ? words[i]! : view.getUint32(i * 4, true)
    sum = folded(sum)
  }
  for (let i = whole * 4, shift = 0; i < image.length; i++, shift += 8) sum += image[i]! * 2 ** shift
  return (folded(sum) + image.length) >>> 0
}

const FOLD_WORDS = 1 << 20

function folded(sum: number): number {
  let rest = sum
  while (rest > 0xffff) rest = (rest % 0x1_0000) + Math.floor(rest / 0x1_0000)
  return rest
}

function checkExtents(pe: Pe, fileSize: number, what: string): void {
  const extents = pe.sections
    .filter((section) => section.sizeOfRawData > 0)
    .map((s) => ({ name: `section ${s.name}`, from: s.pointerToRawData, to: s.pointerToRawData + s.sizeOfRawData }))
  extents.push({ name: 'headers', from: 0, to: pe.sizeOfHeaders })
  const { offset, sizeBytes } = pe.certificateTable
  if ((offset === 0) !== (sizeBytes === 0)) throw refuse(what, 'its certificate table has either no place or no size')
  if (sizeBytes > 0) extents.push({ name: 'certificate table', from: offset, to: offset + sizeBytes })
  extents.sort((a, b) => a.from - b.from || a.to - b.to)
  for (const [i, extent] of extents.entries()) {
    if (extent.to > fileSize) throw refuse(what, `${extent.name} ends at ${extent.to}, the file at ${fileSize}`)
    const before = extents[i - 1]
    if (before && before.to > extent.from) throw refuse(what, `${extent.name} overlaps ${before.name}`)
  }
  let addressEnd = 0
  for (const section of pe.sections) {
    if (section.virtualAddress < addressEnd) throw refuse(what, `section ${section.name} overlaps the one before it in memory`)
    addressEnd = section.virtualAddress + section.virtualSize
  }
  if (addressEnd > alignUp(pe.sizeOfImage, pe.sectionAlignment))
    throw refuse(what, `its sections end at address ${addressEnd}, the image at ${pe.sizeOfImage}`)
}

const rawStarts = (pe: Pe): number[] =>
  pe.sections.filter((section) => section.sizeOfRawData > 0).map((section) => section.pointerToRawData)

const refuse = (what: string, why: string) => new Fault('format', `Cannot read ${what}: ${why}`)
