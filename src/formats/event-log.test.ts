import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import fc from 'fast-check'
import { oracle } from '../../test/oracle.ts'
import { Fault } from '../base/fault.ts'
import { decodeSignatureLists } from './esl.ts'
import {
  dataIsMeasured,
  decodeFirmwareLog,
  decodeTaggedData,
  decodeVariableData,
  EVENT_TYPES,
  encodeFirmwareLog,
  encodeTaggedData,
  encodeVariableData,
  eventTypeName,
  type FirmwareEvent,
  parseUserspaceLog,
  pcrEvents,
  replayEvents,
} from './event-log.ts'
import { PCR_BANKS, type PcrBank } from './pcr.ts'

/**
 * Read out of machines with OVMF 2025.02 and swtpm that booted an image of ours (systemd 257, Linux 6.12): one up and running
 * (`enrolled`); the others stopped in the initrd, as their firmware vouches for no key that the root hash is signed with. In
 * `profile`, the second profile of a UKI was chosen by systemd-boot.
 */
const RECORDED = join(import.meta.dirname, 'testdata/event-log')
const recorded = (name: string) => Uint8Array.from(readFileSync(join(RECORDED, name)))
const PCRS: Record<string, Record<string, string>> = JSON.parse(readFileSync(join(RECORDED, 'pcrs.json'), 'utf8'))

const digestsOf = (data: Uint8Array, banks: readonly PcrBank[]) =>
  Object.fromEntries(banks.map((bank) => [bank, createHash(bank).update(data).digest()]))
const hex = (pcrs: ReadonlyMap<number, Uint8Array>) =>
  Object.fromEntries([...pcrs].map(([pcr, value]) => [pcr, Buffer.from(value).toString('hex')]))
const phase = (word: string): FirmwareEvent => ({
  ...{ pcr: 11, type: EVENT_TYPES.EV_EVENT_TAG, data: Buffer.from(word) },
  digests: digestsOf(Buffer.from(word), ['sha256']),
})

test('decodeFirmwareLog() reads what encodeFirmwareLog() wrote', () => {
  const banks = fc.subarray(Object.keys(PCR_BANKS) as PcrBank[], { minLength: 1 })
  const log = banks.chain((banks) => {
    const digests = fc.record(Object.fromEntries(banks.map((bank) => [bank, bytesOf(PCR_BANKS[bank].sizeBytes)])))
    const event = fc.record({ pcr: fc.nat(23), type: fc.nat(0xffff_ffff), digests, data: fc.uint8Array({ maxLength: 64 }) })
    return fc.record({ banks: fc.constant(banks), events: fc.array(event, { maxLength: 8 }) })
  })
  fc.assert(
    fc.property(log, (log) => assert.deepEqual(plain(decodeFirmwareLog(encodeFirmwareLog(log as never))), plain(log as never))),
  )
})

const bytesOf = (size: number) => fc.uint8Array({ minLength: size, maxLength: size })
const plain = ({ banks, events }: ReturnType<typeof decodeFirmwareLog>) => ({
  banks,
  events: events.map(({ digests, data, ...rest }) => ({
    ...rest,
    data: [...data],
    digests: Object.fromEntries(Object.entries(digests).map(([bank, digest]) => [bank, [...digest]])),
  })),
})

for (const [state, expected] of Object.entries(PCRS))
  test(`the log of a machine in state ${state}, replayed, gives the PCRs of that machine`, () => {
    const { banks, events } = decodeFirmwareLog(recorded(`${state}.bin`))
    assert.deepEqual(banks, ['sha1', 'sha256', 'sha384', 'sha512'])
    const later = state === 'enrolled' ? userspace() : [phase('enter-initrd')]
    const replayed = hex(replayEvents('sha256', later, replayEvents('sha256', events)))
    for (const [pcr, value] of Object.entries(expected)) assert.equal(replayed[pcr] ?? '0'.repeat(64), value, `PCR ${pcr}`)
    assert.notEqual(expected['4'], '0'.repeat(64))
  })

const userspace = () => pcrEvents(parseUserspaceLog(readFileSync(join(RECORDED, 'enrolled.json-seq'), 'utf8')))

test('every bank of a recorded log agrees with its data, where firmware measured the data itself', () => {
  const { events } = decodeFirmwareLog(recorded('enrolled.bin'))
  const types = new Set(events.filter(dataIsMeasured).map(({ type }) => eventTypeName(type)))
  for (const name of ['EV_SEPARATOR', 'EV_EFI_ACTION', 'EV_EFI_VARIABLE_DRIVER_CONFIG', 'EV_EFI_VARIABLE_AUTHORITY'])
    assert.ok(types.has(name), name)
  assert.ok(events.every((event) => dataIsMeasured(event) || event.type !== EVENT_TYPES.EV_EFI_VARIABLE_DRIVER_CONFIG))
  const lied = events.find(dataIsMeasured)!
  assert.equal(dataIsMeasured({ ...lied, data: Buffer.from('else') }), false)
})

test('decodeVariableData() and decodeTaggedData() read what firmware and systemd wrote, and their encoders give it back', () => {
  const { events } = decodeFirmwareLog(recorded('enrolled.bin'))
  const variables = events.filter(({ pcr, type }) => pcr === 7 && type === EVENT_TYPES.EV_EFI_VARIABLE_DRIVER_CONFIG)
  const decoded = variables.map(({ data }) => decodeVariableData(data))
  assert.deepEqual(
    decoded.map(({ name, data }) => [name, name === 'SecureBoot' ? data[0] : decodeSignatureLists(data).length]),
    [['SecureBoot', 1], ['PK', 1], ['KEK', 1], ['db', 2], ['dbx', 0]], // biome-ignore format: table
  )
  for (const [i, variable] of decoded.entries())
    assert.deepEqual(Buffer.from(encodeVariableData(variable)), Buffer.from(variables[i]!.data))
  const initrd = events.filter(({ pcr }) => pcr === 9).at(-1)!
  const { tag, data } = decodeTaggedData(initrd.data)
  assert.deepEqual([tag, Buffer.from(data).toString()], [0x8f3b22ec, 'Linux initrd\0'])
  assert.deepEqual(Buffer.from(encodeTaggedData(tag, data)), Buffer.from(initrd.data))
})

test('parseUserspaceLog() reads what systemd wrote', () => {
  const events = parseUserspaceLog(readFileSync(join(RECORDED, 'enrolled.json-seq'), 'utf8'))
  assert.deepEqual(
    events.map(({ pcr, eventType, string }) => `${pcr} ${eventType} ${string?.replace(/:.*/, '')}`),
    ['11 phase enter-initrd', '11 phase leave-initrd', '15 machine-id machine-id', '11 phase sysinit', '11 phase ready'],
  )
  for (const { digests, string } of events)
    assert.deepEqual(digests, digestsOf(Buffer.from(string!), Object.keys(digests) as PcrBank[]))
  assert.deepEqual(parseUserspaceLog(''), [])
  const index =
    '\x1e{"nv_index":30474240,"digests":[{"hashAlg":"sha256","digest":"' +
    '0'.repeat(64) +
    '"}],"content":{"eventType":"nvpcr-init"}}\n'
  assert.deepEqual(parseUserspaceLog(index)[0]!.nvIndex, 30474240)
  assert.deepEqual(pcrEvents(parseUserspaceLog(index)), [])
})

test('decodeFirmwareLog() reads the old record format, whose only bank is SHA-1', () => {
  const separator = Buffer.alloc(4)
  const digest = createHash('sha1').update(separator).digest()
  const event = Buffer.concat([Buffer.from([7, 0, 0, 0, 4, 0, 0, 0]), digest, Buffer.from([4, 0, 0, 0]), separator])
  const log = decodeFirmwareLog(Buffer.concat([event, event]))
  assert.deepEqual([log.banks, log.events.length], [['sha1'], 2])
  const once = createHash('sha1').update(Buffer.alloc(20)).update(digest).digest()
  const twice = createHash('sha1').update(once).update(digest).digest('hex')
  assert.deepEqual(hex(replayEvents('sha1', log.events)), { 7: twice })
  assert.throws(() => replayEvents('sha256', log.events), /an event was not measured for sha256/)
})

test('replayEvents() begins where the TPM does: at the locality it was started from, and at ones for a later start of trust', () => {
  const event = (pcr: number, type: number, data: Uint8Array) => ({ pcr, type, data, digests: digestsOf(data, ['sha256']) })
  const locality = event(0, EVENT_TYPES.EV_NO_ACTION, Buffer.from('StartupLocality\0\x03'))
  const note = event(7, EVENT_TYPES.EV_NO_ACTION, Buffer.from('measured nowhere'))
  const drtm = event(17, EVENT_TYPES.EV_SEPARATOR, Buffer.alloc(4))
  const { 17: later, ...others } = hex(replayEvents('sha256', [locality, note, drtm]))
  assert.deepEqual(others, { 0: `${'00'.repeat(31)}03` })
  const separator = createHash('sha256').update(Buffer.alloc(4)).digest()
  assert.equal(later, createHash('sha256').update(Buffer.alloc(32, 0xff)).update(separator).digest('hex'))
})

test('decodeFirmwareLog() refuses a log that is cut off anywhere, or has something behind it', () => {
  const whole = recorded('none.bin')
  const ends = new Set(boundaries(whole))
  const sizes = [...Array(whole.length).keys()].filter((size) => size % 7 === 0 || ends.has(size))
  for (const size of sizes) {
    if (ends.has(size)) assert.ok(decodeFirmwareLog(whole.subarray(0, size)))
    else assert.throws(() => decodeFirmwareLog(whole.subarray(0, size)), { name: 'Fault', code: 'format' })
  }
  assert.throws(() => decodeFirmwareLog(Buffer.concat([whole, Buffer.of(0)])), /should follow/)
})

/** Where a log may end: behind each of its records. */
function* boundaries(bytes: Uint8Array) {
  const { banks, events } = decodeFirmwareLog(bytes)
  const all = encodeFirmwareLog({ banks, events })
  for (let count = 0; count <= events.length; count++)
    yield bytes.length - all.length + encodeFirmwareLog({ banks, events: events.slice(0, count) }).length
}

test('decodeFirmwareLog() refuses what no firmware writes', () => {
  const good = Buffer.from(recorded('none.bin'))
  const changed = (at: number, ...bytes: number[]) => {
    const copy = Buffer.from(good)
    copy.set(bytes, at)
    return copy
  }
  const first = 32 + good.readUInt32LE(28) // the event behind the specification's
  assert.throws(() => decodeFirmwareLog(changed(32 + 21, 1)), /version 1 of the format/)
  assert.throws(() => decodeFirmwareLog(changed(32 + 24, 0, 0, 0, 0)), /has 0 banks/)
  assert.throws(() => decodeFirmwareLog(changed(32 + 24, 255, 255, 255, 255)), /has 4294967295 banks/)
  assert.throws(() => decodeFirmwareLog(changed(32 + 28, 0x0b, 0)), /bank 0 is 0xb of 20 bytes/)
  assert.throws(() => decodeFirmwareLog(changed(32 + 32, 0x04, 0)), /bank 1 is 0x4 of 32 bytes/)
  assert.throws(() => decodeFirmwareLog(changed(first, 24)), /there is no PCR 24/)
  assert.throws(() => decodeFirmwareLog(changed(first + 8, 255, 255, 255, 255)), /has 4294967295 digests/)
  assert.throws(() => decodeFirmwareLog(changed(first + 12, 9)), /algorithm 0x9 is none of the log/)
  assert.throws(() => decodeFirmwareLog(changed(first + 12 + 22, 4)), /algorithm 0x4 is given twice/)
  assert.throws(() => decodeFirmwareLog(Buffer.alloc((16 << 20) + 1)), /at most 16777216 are read/)
  assert.throws(() => decodeVariableData(Buffer.alloc(32, 0xff)), { code: 'format' })
  assert.throws(() => decodeTaggedData(Buffer.from([1, 0, 0, 0, 0, 0, 0, 0, 0])), /follow a tagged event/)
})

test('parseUserspaceLog() refuses what systemd does not write', () => {
  const record = (value: unknown) => `\x1e${JSON.stringify(value)}\n`
  const digests = [{ hashAlg: 'sha256', digest: '00'.repeat(32) }]
  const content = { eventType: 'phase' }
  const wrong: [string, RegExp][] = [
    ['{}', /does not begin with a record separator/],
    ['\x1e{}', /its line does not end/],
    ['\x1e{\n', /record 0: /],
    [record({ digests, content }), /either pcr or nv_index/],
    [record({ pcr: 11, nv_index: 1, digests, content }), /either pcr or nv_index/],
    [record({ pcr: 24, digests, content }), /either pcr or nv_index/],
    [record({ pcr: 11, digests }), /eventType is no string/],
    [record({ pcr: 11, digests: [], content }), /no list of 1 to 16/],
    [record({ pcr: 11, digests: [...digests, ...digests], content }), /malformed or given twice/],
    [record({ pcr: 11, digests: [{ hashAlg: 'sha256', digest: 'XY' }], content }), /malformed/],
    ['\x1e\n'.repeat(70_000), /at most 65536 are read/],
  ]
  for (const [text, message] of wrong) assert.throws(() => parseUserspaceLog(text), message, text.slice(0, 80))
})

test('no bytes make the readers throw anything but a Fault', () => {
  const seeds = [recorded('enrolled.bin'), recorded('none.bin')]
  const mutation = fc.record({ seed: fc.nat(1), at: fc.nat(20_000), byte: fc.nat(255), size: fc.nat(20_000) })
  fc.assert(
    fc.property(mutation, ({ seed, at, byte, size }) => {
      const bytes = Uint8Array.from(seeds[seed]!.subarray(0, size))
      if (bytes.length > 0) bytes[at % bytes.length] = byte
      faultOnly(() => decodeFirmwareLog(bytes))
      faultOnly(() => parseUserspaceLog(Buffer.from(bytes).toString('latin1')))
      faultOnly(() => decodeVariableData(bytes))
    }),
    { numRuns: 500 },
  )
})

function faultOnly(body: () => unknown): void {
  try {
    body()
  } catch (error) {
    if (!(error instanceof Fault)) throw error
  }
}

for (const state of Object.keys(PCRS))
  oracle('tpm2_eventlog', `reads the same events, and replays the same PCRs (${state})`, async (_t, judge) => {
    writeFileSync(join(judge.dir, 'log'), recorded(`${state}.bin`))
    const { stdout } = await judge.run(['tpm2_eventlog', 'log'])
    const { events } = decodeFirmwareLog(recorded(`${state}.bin`))
    const [, ...theirs] = [...stdout.matchAll(/^- EventNum: \d+\n {2}PCRIndex: (\d+)\n {2}EventType: (\w+)$/gm)]
    assert.deepEqual(
      theirs.map(([, pcr, type]) => `${pcr} ${type}`),
      events.map(({ pcr, type }) => `${pcr} ${eventTypeName(type)}`),
    )
    for (const bank of ['sha1', 'sha256', 'sha384', 'sha512'] as const)
      assert.deepEqual(hex(replayEvents(bank, events)), tableIn(stdout, bank))
  })

oracle('tpm2_eventlog', 'reads what encodeFirmwareLog() wrote', async (_t, judge) => {
  const banks: PcrBank[] = ['sha256', 'sha384']
  const event = (pcr: number, type: number, data: Uint8Array) => ({ pcr, type, data, digests: digestsOf(data, banks) })
  const events = [
    event(7, EVENT_TYPES.EV_SEPARATOR, Buffer.alloc(4)),
    event(11, EVENT_TYPES.EV_IPL, Buffer.from('one\0', 'utf16le')),
  ]
  writeFileSync(join(judge.dir, 'log'), encodeFirmwareLog({ banks, events }))
  const { stdout } = await judge.run(['tpm2_eventlog', 'log'])
  for (const bank of banks) assert.deepEqual(tableIn(stdout, bank), hex(replayEvents(bank, events)))
})

/** The PCRs tpm2_eventlog prints at its end. */
function tableIn(stdout: string, bank: PcrBank): Record<string, string> {
  const table = new RegExp(`^ {2}${bank}:\\n((?: {4}\\d+ *: 0x[0-9a-f]+\\n)*)`, 'm').exec(stdout)
  return Object.fromEntries([...table![1]!.matchAll(/(\d+) *: 0x([0-9a-f]+)/g)].map(([, pcr, value]) => [pcr!, value!]))
}
