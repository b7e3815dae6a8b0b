/**
 * UEFI variable store as OVMF keeps it in its second flash chip (OVMF_VARS*.fd).
 *
 * Spec:   UEFI PI 1.8 vol. 3 §3.2 (firmware volume); EDK2 `MdeModulePkg/Include/Guid/VariableFormat.h` (authenticated store)
 * Oracle: `virt-fw-vars --input FILE --print`; OVMF itself, which boots with what is written here
 * Limits: the authenticated store of EDK2 only (no JSON or qcow2 flavours); the log of fault-tolerant writes is not replayed,
 *         so read a store only after its machine has stopped; state of signature lists inside PK, KEK and db is not looked into.
 *
 * On disk: firmware volume header · store header · variables, each aligned to 4, up to the first erased (0xFF) bytes ·
 * event log · working and spare blocks for fault-tolerant writes.
 */
import { Fault } from '../base/fault.ts'
import { bits64le, bytes, constant, guid, type Of, reserved, struct, u8, u16le, u32le, u64le } from './struct.ts'

export const GLOBAL_VARIABLE = '8be4df61-93ca-11d2-aa0d-00e098032b8c'
export const IMAGE_SECURITY_DATABASE = 'd719b2cb-3d3a-4596-a3bc-dad00e67656f'
export const SECURE_BOOT_ENABLE = 'f0a30bc7-af08-4556-99c4-001009c93a44'

/** Bits of `Variable.attributes`. */
export const NON_VOLATILE = 0x01
export const BOOT_SERVICE = 0x02
export const RUNTIME = 0x04
export const TIME_AUTHENTICATED = 0x20

const FIRMWARE_VOLUME = 'fff12b8d-7696-4c8b-a985-2747075b4f50'
const AUTHENTICATED_STORE = 'aaf32c78-947b-439a-a180-2e144ec37792'
const ERASED = 0xff
/** A store is at most this large (the largest known, of arm64, is below 1 MiB). */
const MAX_STORE_BYTES = 16 << 20

// biome-ignore format: table
const volumeHeader = struct('firmware volume header', {
  _zero:        reserved(16),
  fileSystem:   guid,
  sizeBytes:    u64le,
  signature:    constant(Buffer.from('_FVH')),
  attributes:   u32le,
  headerSize:   u16le,
  checksum:     u16le,
  extHeader:    u16le,
  _reserved:    reserved(1),
  revision:     u8,
})

// biome-ignore format: table
const storeHeader = struct('variable store header', {
  type:      guid,
  sizeBytes: u32le,
  format:    constant(Uint8Array.of(0x5a)), // formatted
  state:     constant(Uint8Array.of(0xfe)), // healthy
  _reserved: reserved(6),
})

// biome-ignore format: table
const record = struct('variable', {
  start:      u16le, // 0x55AA, or erased flash: the end
  state:      u8,
  _reserved:  reserved(1),
  attributes: u32le,
  count:      bits64le,
  time:       bytes(16),
  publicKey:  u32le,
  nameBytes:  u32le,
  dataBytes:  u32le,
  vendor:     guid,
})

// biome-ignore format: table
const efiTime = struct('EFI_TIME', {
  year: u16le, month: u8, day: u8, hour: u8, minute: u8, second: u8, _pad: reserved(1), _fraction: reserved(4), _zone: reserved(4),
})

const START = 0x55aa
/** Flash bits only ever fall from 1 to 0: each state is the one before with a bit cleared. */
const ADDED = 0x3f
const ADDED_IN_DELETION = 0x3e

export interface Variable {
  name: string
  /** GUID of whoever defined the name. */
  vendor: string
  attributes: number
  /** When a time-authenticated variable was signed; the firmware takes only later updates. */
  time?: Date
  data: Uint8Array
}

/** The variables in force, in the order they were written. */
export function decodeVariables(flash: Uint8Array): Variable[] {
  const { from, to } = locate(flash)
  const found = new Map<string, { variable: Variable; state: number }>()
  for (let at = from; at + record.size <= to; ) {
    const header = record.decode(flash, at)
    if (header.start !== START) {
      if (header.start === 0xffff) break
      throw new Fault('format', `Cannot read variable at offset ${at}: it starts with 0x${header.start.toString(16)}, not 0x55aa`)
    }
    const end = at + record.size + header.nameBytes + header.dataBytes
    if (header.nameBytes < 2 || header.nameBytes % 2 !== 0 || end > to)
      throw new Fault(
        'format',
        `Cannot read variable at offset ${at}: name of ${header.nameBytes} and data of ${header.dataBytes} \
bytes, the store ends at ${to}`,
      )
    const variable = variableOf(flash, at, header)
    const key = `${variable.vendor} ${variable.name}`
    // An interrupted update leaves the old copy "in deletion"; it counts only while there is no new one.
    if (header.state === ADDED || (header.state === ADDED_IN_DELETION && found.get(key)?.state !== ADDED))
      found.set(key, { variable, state: header.state })
    at = align4(end)
  }
  return [...found.values()].map(({ variable }) => variable)
}

/** A flash image with exactly these variables, made from another one (usually the distribution's empty store). */
export function encodeVariables(template: Uint8Array, variables: readonly Variable[]): Uint8Array<ArrayBuffer> {
  const { from, to } = locate(template)
  const flash = Uint8Array.from(template)
  flash.fill(ERASED, from, to)
  let at = from
  for (const variable of variables) {
    const name = Buffer.from(`${variable.name}\0`, 'utf16le')
    const end = at + record.size + name.length + variable.data.length
    if (variable.name === '' || end > to)
      throw new Fault('format', `Cannot store variable "${variable.name}": it needs ${end - at} bytes, ${to - at} are free`)
    const { attributes, vendor, time, data } = variable
    const header = { start: START, state: ADDED, attributes, count: 0n, time: encodeTime(time), publicKey: 0, vendor }
    flash.set(record.encode({ ...header, nameBytes: name.length, dataBytes: data.length }), at)
    flash.set(name, at + record.size)
    flash.set(data, at + record.size + name.length)
    at = align4(end)
  }
  return flash
}

/** Where the records of a store begin and end, after checking both headers. */
function locate(flash: Uint8Array): { from: number; to: number } {
  const volume = volumeHeader.decode(flash)
  if (volume.fileSystem !== FIRMWARE_VOLUME)
    throw new Fault('format', `Cannot read firmware volume: file system ${volume.fileSystem}, expected ${FIRMWARE_VOLUME}`)
  const { headerSize } = volume
  if (headerSize < volumeHeader.size || headerSize % 2 !== 0 || headerSize > flash.length || volume.sizeBytes > flash.length)
    throw new Fault(
      'format',
      `Cannot read firmware volume: header of ${headerSize} and volume of ${volume.sizeBytes} bytes in a \
file of ${flash.length}`,
    )
  const view = new DataView(flash.buffer, flash.byteOffset, headerSize)
  let sum = 0
  for (let at = 0; at < headerSize; at += 2) sum = (sum + view.getUint16(at, true)) & 0xffff
  if (sum !== 0) throw new Fault('format', `Cannot read firmware volume: header adds up to 0x${sum.toString(16)}, not to 0`)

  const store = storeHeader.decode(flash, headerSize)
  if (store.type !== AUTHENTICATED_STORE)
    throw new Fault('format', `Cannot read variable store: type ${store.type}, expected ${AUTHENTICATED_STORE}`)
  const to = headerSize + store.sizeBytes
  if (store.sizeBytes < storeHeader.size || store.sizeBytes > MAX_STORE_BYTES || to > volume.sizeBytes)
    throw new Fault('format', `Cannot read variable store: ${store.sizeBytes} bytes in a volume of ${volume.sizeBytes}`)
  return { from: align4(headerSize + storeHeader.size), to }
}

function variableOf(flash: Uint8Array, at: number, header: Of<typeof record>): Variable {
  const nameAt = at + record.size
  const dataAt = nameAt + header.nameBytes
  const name = new TextDecoder('utf-16le').decode(flash.subarray(nameAt, dataAt)).replace(/\0.*$/s, '')
  const time = decodeTime(header.time)
  const { attributes, vendor } = header
  return { name, vendor, attributes, ...(time ? { time } : {}), data: flash.slice(dataAt, dataAt + header.dataBytes) }
}

function encodeTime(time: Date | undefined): Uint8Array {
  if (!time) return new Uint8Array(16)
  return efiTime.encode({
    year: time.getUTCFullYear(),
    month: time.getUTCMonth() + 1,
    day: time.getUTCDate(),
    hour: time.getUTCHours(),
    minute: time.getUTCMinutes(),
    second: time.getUTCSeconds(),
  })
}

function decodeTime(raw: Uint8Array): Date | undefined {
  const t = efiTime.decode(raw)
  return t.year === 0 ? undefined : new Date(Date.UTC(t.year, t.month - 1, t.day, t.hour, t.minute, t.second))
}

const align4 = (n: number) => Math.ceil(n / 4) * 4
