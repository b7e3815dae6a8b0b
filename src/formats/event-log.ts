/**
 * Event logs: what was measured into the TPM since the machine was switched on, by firmware and by systemd.
 *
 * Spec:   TCG PC Client Platform Firmware Profile 1.06 §10 (both record formats); systemd: docs/TPM2_PCR_MEASUREMENTS.md, RFC 7464
 * Oracle: `tpm2_eventlog`; the PCRs of the machine that wrote the log
 * Limits: banks of SHA-1, SHA-256, SHA-384 and SHA-512 are read, digests of others are skipped. Of what events say,
 *         only variables and tagged events are decoded. A log proves nothing until its replay equals a quoted PCR.
 */
import { createHash } from 'node:crypto'
import { Fault } from '../base/fault.ts'
import { extendPcr, isBank, PCR_BANKS, type PcrBank } from './pcr.ts'
import { constant, guid, struct, u8, u16le, u32le } from './struct.ts'

/** The types of events a boot makes. */
// biome-ignore format: table
export const EVENT_TYPES = {
  EV_POST_CODE:                      0x0000_0001,
  EV_NO_ACTION:                      0x0000_0003,
  EV_SEPARATOR:                      0x0000_0004,
  EV_ACTION:                         0x0000_0005,
  EV_EVENT_TAG:                      0x0000_0006,
  EV_S_CRTM_CONTENTS:                0x0000_0007,
  EV_S_CRTM_VERSION:                 0x0000_0008,
  EV_CPU_MICROCODE:                  0x0000_0009,
  EV_PLATFORM_CONFIG_FLAGS:          0x0000_000a,
  EV_TABLE_OF_DEVICES:               0x0000_000b,
  EV_COMPACT_HASH:                   0x0000_000c,
  EV_IPL:                            0x0000_000d,
  EV_IPL_PARTITION_DATA:             0x0000_000e,
  EV_NONHOST_CODE:                   0x0000_000f,
  EV_NONHOST_CONFIG:                 0x0000_0010,
  EV_NONHOST_INFO:                   0x0000_0011,
  EV_OMIT_BOOT_DEVICE_EVENTS:        0x0000_0012,
  EV_POST_CODE2:                     0x0000_0013,
  EV_EFI_VARIABLE_DRIVER_CONFIG:     0x8000_0001,
  EV_EFI_VARIABLE_BOOT:              0x8000_0002,
  EV_EFI_BOOT_SERVICES_APPLICATION:  0x8000_0003,
  EV_EFI_BOOT_SERVICES_DRIVER:       0x8000_0004,
  EV_EFI_RUNTIME_SERVICES_DRIVER:    0x8000_0005,
  EV_EFI_GPT_EVENT:                  0x8000_0006,
  EV_EFI_ACTION:                     0x8000_0007,
  EV_EFI_PLATFORM_FIRMWARE_BLOB:     0x8000_0008,
  EV_EFI_HANDOFF_TABLES:             0x8000_0009,
  EV_EFI_PLATFORM_FIRMWARE_BLOB2:    0x8000_000a,
  EV_EFI_HANDOFF_TABLES2:            0x8000_000b,
  EV_EFI_VARIABLE_BOOT2:             0x8000_000c,
  EV_EFI_GPT_EVENT2:                 0x8000_000d,
  EV_EFI_HCRTM_EVENT:                0x8000_0010,
  EV_EFI_VARIABLE_AUTHORITY:         0x8000_00e0,
  EV_EFI_SPDM_FIRMWARE_BLOB:         0x8000_00e1,
  EV_EFI_SPDM_FIRMWARE_CONFIG:       0x8000_00e2,
} as const
export type EventType = keyof typeof EVENT_TYPES

export type Digests = Partial<Record<PcrBank, Uint8Array>>

export interface FirmwareEvent {
  pcr: number
  /** A value of `EVENT_TYPES`, or another. */
  type: number
  digests: Digests
  /** What the measurer says of it. Firmware measures it itself, or what it only describes: see `dataIsMeasured()`. */
  data: Uint8Array
}

export interface FirmwareLog {
  /** Those that every event has a digest for and that are known here. A log of the old record format has `sha1` alone. */
  banks: PcrBank[]
  /** Without the one that begins a log of the newer format and says which banks there are. */
  events: FirmwareEvent[]
}

/** Far above any boot's: a log of firmware is some ten to hundred KiB. */
const MAX_LOG_BYTES = 16 << 20
const MAX_EVENTS = 1 << 16
const MAX_ALGORITHMS = 16
const PCR_COUNT = 24
const NO_PCR = 0xffff_ffff

// biome-ignore format: table
const oldHeader = struct('TCG_PCR_EVENT', {
  pcr:  u32le,
  type: u32le,
})
const SHA1_BYTES = PCR_BANKS.sha1.sizeBytes

// biome-ignore format: table
const specId = struct('TCG_EfiSpecIdEvent', {
  signature:      constant(Buffer.from('Spec ID Event03\0')),
  platformClass:  u32le, // 0 client, 1 server
  minorVersion:   u8,
  majorVersion:   u8,
  errata:         u8,
  uintnSize:      u8, // 1: 32 bit, 2: 64 bit
  algorithmCount: u32le,
})
const specIdSignature = Buffer.from('Spec ID Event03\0')

// biome-ignore format: table
const algorithmSize = struct('TCG_EfiSpecIdEventAlgorithmSize', {
  algorithm: u16le,
  sizeBytes: u16le,
})

/** Reads `binary_bios_measurements`. Every byte must be accounted for. */
export function decodeFirmwareLog(bytes: Uint8Array): FirmwareLog {
  if (bytes.length > MAX_LOG_BYTES) refuse(0, `it has ${bytes.length} bytes, at most ${MAX_LOG_BYTES} are read`)
  const reader = readerOf(bytes)
  const first = oldEvent(reader)
  const begins = first.type === EVENT_TYPES.EV_NO_ACTION && startsWith(first.data, specIdSignature)
  if (!begins) {
    const events = [first]
    while (reader.at < bytes.length) events.push(bounded(events, reader, oldEvent(reader)))
    return { banks: ['sha1'], events }
  }
  const sizes = algorithmSizes(first.data)
  const events: FirmwareEvent[] = []
  while (reader.at < bytes.length) events.push(bounded(events, reader, newEvent(reader, sizes)))
  return { banks: [...sizes.keys()].flatMap((algorithm) => bankOf(algorithm) ?? []), events }
}

/** Writes a log of the newer record format. Every event needs a digest for each bank. */
export function encodeFirmwareLog({ banks, events }: FirmwareLog): Uint8Array {
  const sizes = banks.map((bank) => algorithmSize.encode(PCR_BANKS[bank]))
  const version = { platformClass: 0, minorVersion: 0, majorVersion: 2, errata: 0, uintnSize: 2 }
  const data = Buffer.concat([specId.encode({ ...version, algorithmCount: banks.length }), ...sizes, Buffer.of(0)])
  const first = [u32(0), u32(EVENT_TYPES.EV_NO_ACTION), Buffer.alloc(SHA1_BYTES), u32(data.length), data]
  const rest = events.flatMap((event) => [
    ...[u32(event.pcr), u32(event.type), u32(banks.length)],
    ...banks.flatMap((bank) => [u16(PCR_BANKS[bank].algorithm), digestOf(event, bank)]),
    ...[u32(event.data.length), event.data],
  ])
  return Buffer.concat([...first, ...rest])
}

/** What a PCR holds before anything is measured: zeros, but for the ones a later start of trust (DRTM) resets. */
const initialPcr = (bank: PcrBank, pcr: number): Uint8Array =>
  new Uint8Array(PCR_BANKS[bank].sizeBytes).fill(pcr >= 17 && pcr <= 22 ? 0xff : 0)

const LOCALITY = Buffer.from('StartupLocality\0')

/** PCRs by number as they are once these events have been measured, one after the other; those nothing went to are left out. */
export function replayEvents(
  bank: PcrBank,
  events: readonly Pick<FirmwareEvent, 'pcr' | 'digests' | 'type' | 'data'>[],
  before: ReadonlyMap<number, Uint8Array> = new Map(),
): Map<number, Uint8Array> {
  const pcrs = new Map(before)
  for (const event of events) {
    if (event.type === EVENT_TYPES.EV_NO_ACTION) {
      const locality = startsWith(event.data, LOCALITY) ? event.data[LOCALITY.length] : undefined
      if (event.pcr !== 0 || locality === undefined) continue
      const pcr = Uint8Array.from(initialPcr(bank, 0))
      pcr[pcr.length - 1] = locality
      pcrs.set(0, pcr)
    } else pcrs.set(event.pcr, extendPcr(bank, pcrs.get(event.pcr) ?? initialPcr(bank, event.pcr), digestOf(event, bank)))
  }
  return new Map([...pcrs].sort(([a], [b]) => a - b))
}

const MEASURED_AS_THEY_ARE: ReadonlySet<number> = new Set(
  (
    [
      ...['EV_SEPARATOR', 'EV_ACTION', 'EV_EFI_ACTION', 'EV_S_CRTM_VERSION', 'EV_EFI_GPT_EVENT'],
      ...['EV_EFI_VARIABLE_DRIVER_CONFIG', 'EV_EFI_VARIABLE_AUTHORITY', 'EV_EFI_HANDOFF_TABLES'],
    ] as EventType[]
  ).map((name) => EVENT_TYPES[name]),
)

/** Whether an event's digest is that of its data, so that the data may be believed as far as the digest is. */
export const dataIsMeasured = ({ type, digests, data }: FirmwareEvent): boolean =>
  MEASURED_AS_THEY_ARE.has(type) &&
  Object.entries(digests).every(([bank, digest]) => createHash(bank).update(data).digest().equals(digest))

export const eventTypeName = (type: number): string =>
  Object.entries(EVENT_TYPES).find(([, value]) => value === type)?.[0] ?? `0x${type.toString(16).padStart(8, '0')}`

/** An EFI variable as firmware measures it: `EV_EFI_VARIABLE_DRIVER_CONFIG`, `…_AUTHORITY` and `…_BOOT2`. */
export interface VariableData {
  vendor: string
  name: string
  data: Uint8Array
}

// biome-ignore format: table
const variableHeader = struct('UEFI_VARIABLE_DATA', {
  vendor:         guid,
  nameCharacters: u32le,
  nameHigh:       u32le,
  dataBytes:      u32le,
  dataHigh:       u32le,
})

export function decodeVariableData(bytes: Uint8Array): VariableData {
  const { vendor, nameCharacters, nameHigh, dataBytes, dataHigh } = variableHeader.decode(bytes)
  const nameEnd = variableHeader.size + nameCharacters * 2
  if (nameHigh !== 0 || dataHigh !== 0 || nameEnd + dataBytes !== bytes.length)
    throw new Fault(
      'format',
      `Cannot read UEFI_VARIABLE_DATA: a name of ${nameCharacters} characters and ${dataBytes} bytes are not the ${bytes.length} there are`,
    )
  const name = Buffer.from(bytes.subarray(variableHeader.size, nameEnd)).toString('utf16le')
  return { vendor, name, data: bytes.subarray(nameEnd) }
}

export function encodeVariableData({ vendor, name, data }: VariableData): Uint8Array {
  const nameBytes = Buffer.from(name, 'utf16le')
  const sizes = { nameCharacters: nameBytes.length / 2, nameHigh: 0, dataBytes: data.length, dataHigh: 0 }
  return Buffer.concat([variableHeader.encode({ vendor, ...sizes }), nameBytes, data])
}

/** The data of an `EV_EVENT_TAG`. */
export function decodeTaggedData(bytes: Uint8Array): { tag: number; data: Uint8Array } {
  const reader = readerOf(bytes)
  const tag = reader.u32()
  const data = reader.take(reader.u32())
  if (reader.at !== bytes.length) refuse(reader.at, `${bytes.length - reader.at} bytes follow a tagged event`)
  return { tag, data }
}

export const encodeTaggedData = (tag: number, data: Uint8Array): Uint8Array => Buffer.concat([u32(tag), u32(data.length), data])

/** A measurement systemd made and wrote down. */
export interface UserspaceEvent {
  /** The PCR, or the TPM's NV index that stands for one. */
  pcr?: number
  nvIndex?: number
  digests: Digests
  /** `phase`, `machine-id`, `filesystem` … */
  eventType: string
  /** The words that were measured, where they are no secret. */
  string?: string
  bootId?: string
}

/** Reads systemd's `tpm2-measure.log`: JSON texts, each behind a record separator and followed by a line feed. */
export function parseUserspaceLog(text: string): UserspaceEvent[] {
  if (text.length > MAX_LOG_BYTES) refuseUserspace(0, `it has ${text.length} characters, at most ${MAX_LOG_BYTES} are read`)
  if (text === '') return []
  const [before, ...records] = text.split('\x1e')
  if (before !== '') refuseUserspace(0, 'it does not begin with a record separator')
  if (records.length > MAX_EVENTS)
    refuseUserspace(MAX_EVENTS, `there are ${records.length} records, at most ${MAX_EVENTS} are read`)
  return records.map(userspaceEvent)
}

/** The events of PCRs among them, to replay behind firmware's. */
export const pcrEvents = (events: readonly UserspaceEvent[]): FirmwareEvent[] =>
  events.flatMap(({ pcr, digests, string = '' }) =>
    pcr === undefined ? [] : [{ pcr, digests, type: EVENT_TYPES.EV_EVENT_TAG, data: Buffer.from(string) }],
  )

function userspaceEvent(record: string, i: number): UserspaceEvent {
  if (!record.endsWith('\n')) refuseUserspace(i, 'its line does not end')
  let value: unknown
  try {
    value = JSON.parse(record)
  } catch (cause) {
    refuseUserspace(i, (cause as Error).message, cause)
  }
  const { pcr, nv_index: nvIndex, digests, content } = objectOf(value)
  const { eventType, string, bootId } = objectOf(content)
  const isPcr = Number.isInteger(pcr) && (pcr as number) >= 0 && (pcr as number) < PCR_COUNT
  const isIndex = Number.isInteger(nvIndex) && (nvIndex as number) >= 0 && (nvIndex as number) <= 0xffff_ffff
  if (isPcr === isIndex) refuseUserspace(i, 'it must have either pcr or nv_index')
  if (typeof eventType !== 'string') refuseUserspace(i, 'content.eventType is no string')
  return {
    ...(isPcr ? { pcr: pcr as number } : { nvIndex: nvIndex as number }),
    digests: userspaceDigests(digests, i),
    eventType,
    ...(typeof string === 'string' ? { string } : {}),
    ...(typeof bootId === 'string' ? { bootId } : {}),
  }
}

function userspaceDigests(value: unknown, i: number): Digests {
  if (!Array.isArray(value) || value.length === 0 || value.length > MAX_ALGORITHMS)
    refuseUserspace(i, `digests is no list of 1 to ${MAX_ALGORITHMS}`)
  const digests: Digests = {}
  for (const { hashAlg, digest } of value.map(objectOf)) {
    if (typeof hashAlg !== 'string' || typeof digest !== 'string') refuseUserspace(i, 'a digest lacks hashAlg or digest')
    if (!isBank(hashAlg)) continue
    const hex = new RegExp(`^[0-9a-f]{${PCR_BANKS[hashAlg].sizeBytes * 2}}$`)
    if (!hex.test(digest) || digests[hashAlg]) refuseUserspace(i, `its ${hashAlg} digest is malformed or given twice`)
    digests[hashAlg] = Buffer.from(digest, 'hex')
  }
  return digests
}

interface Reader {
  readonly at: number
  u16(): number
  u32(): number
  take(sizeBytes: number): Uint8Array
}

function readerOf(bytes: Uint8Array): Reader {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  let at = 0
  const take = (sizeBytes: number) => {
    if (sizeBytes > bytes.length - at) refuse(at, `${sizeBytes} bytes should follow, there are ${bytes.length - at}`)
    at += sizeBytes
    return bytes.subarray(at - sizeBytes, at)
  }
  const number = (sizeBytes: 2 | 4) => {
    take(sizeBytes)
    return sizeBytes === 2 ? view.getUint16(at - 2, true) : view.getUint32(at - 4, true)
  }
  return {
    get at() {
      return at
    },
    take,
    u16: () => number(2),
    u32: () => number(4),
  }
}

function oldEvent(reader: Reader): FirmwareEvent {
  const header = oldHeader.decode(reader.take(oldHeader.size))
  checkPcr(header, reader)
  const sha1 = reader.take(SHA1_BYTES)
  return { ...header, digests: { sha1 }, data: reader.take(reader.u32()) }
}

function newEvent(reader: Reader, sizes: ReadonlyMap<number, number>): FirmwareEvent {
  const header = { pcr: reader.u32(), type: reader.u32() }
  checkPcr(header, reader)
  const count = reader.u32()
  if (count !== sizes.size) refuse(reader.at, `an event has ${count} digests, the log has ${sizes.size} banks`)
  const digests: Digests = {}
  const seen = new Set<number>()
  for (let i = 0; i < count; i++) {
    const algorithm = reader.u16()
    const size = sizes.get(algorithm)
    if (size === undefined || seen.has(algorithm))
      refuse(reader.at, `algorithm 0x${algorithm.toString(16)} is ${size === undefined ? 'none of the log' : 'given twice'}`)
    seen.add(algorithm)
    const digest = reader.take(size)
    const bank = bankOf(algorithm)
    if (bank) digests[bank] = digest
  }
  return { ...header, digests, data: reader.take(reader.u32()) }
}

function checkPcr({ pcr, type }: { pcr: number; type: number }, reader: Reader): void {
  if (pcr >= PCR_COUNT && !(pcr === NO_PCR && type === EVENT_TYPES.EV_NO_ACTION)) refuse(reader.at, `there is no PCR ${pcr}`)
}

/** The digest sizes of a log by the TPM's number of each algorithm. */
function algorithmSizes(data: Uint8Array): Map<number, number> {
  const { algorithmCount, majorVersion } = specId.decode(data)
  if (majorVersion !== 2) refuse(0, `it has version ${majorVersion} of the format, 2 is known`)
  if (algorithmCount < 1 || algorithmCount > MAX_ALGORITHMS)
    refuse(0, `it has ${algorithmCount} banks, not 1 to ${MAX_ALGORITHMS}`)
  const sizes = new Map<number, number>()
  for (let i = 0; i < algorithmCount; i++) {
    const { algorithm, sizeBytes } = algorithmSize.decode(data, specId.size + i * algorithmSize.size)
    const bank = bankOf(algorithm)
    const sound = bank ? sizeBytes === PCR_BANKS[bank].sizeBytes : sizeBytes > 0 && sizeBytes <= 64
    if (!sound || sizes.has(algorithm)) refuse(0, `bank ${i} is 0x${algorithm.toString(16)} of ${sizeBytes} bytes`)
    sizes.set(algorithm, sizeBytes)
  }
  const end = specId.size + algorithmCount * algorithmSize.size
  if (data.length !== end + 1 + (data[end] ?? 0)) refuse(0, 'its first event has not the size it says')
  return sizes
}

const bankOf = (algorithm: number): PcrBank | undefined =>
  (Object.keys(PCR_BANKS) as PcrBank[]).find((bank) => PCR_BANKS[bank].algorithm === algorithm)

function digestOf(event: Pick<FirmwareEvent, 'digests'>, bank: PcrBank): Uint8Array {
  const digest = event.digests[bank]
  if (digest?.length !== PCR_BANKS[bank].sizeBytes)
    throw new Fault('format', `Cannot replay event log: an event was not measured for ${bank}`)
  return digest
}

function bounded(events: readonly FirmwareEvent[], reader: Reader, event: FirmwareEvent): FirmwareEvent {
  if (events.length === MAX_EVENTS) refuse(reader.at, `there are more than ${MAX_EVENTS} events`)
  return event
}

function refuse(at: number, why: string): never {
  throw new Fault('format', `Cannot read event log at offset ${at}: ${why}`)
}

function refuseUserspace(record: number, why: string, cause?: unknown): never {
  throw new Fault('format', `Cannot read systemd's event log: record ${record}: ${why}`, { cause })
}

const startsWith = (data: Uint8Array, start: Uint8Array): boolean =>
  data.length >= start.length && start.every((byte, i) => byte === data[i])

const objectOf = (value: unknown): Record<string, unknown> =>
  value !== null && typeof value === 'object' ? (value as Record<string, unknown>) : {}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32LE(value)
  return bytes
}

function u16(value: number): Buffer {
  const bytes = Buffer.alloc(2)
  bytes.writeUInt16LE(value)
  return bytes
}
