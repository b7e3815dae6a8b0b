import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { EPOCH, testKeys } from '../../test/keys.ts'
import { oracle } from '../../test/oracle.ts'
import { tinyPe } from '../../test/tiny-pe.ts'
import { authenticodeDigest } from '../formats/authenticode.ts'
import { decodeSignatureLists, encodeSignatureLists, SECURE_BOOT_VARIABLES, type SecureBootVariable } from '../formats/esl.ts'
import { decodeFirmwareLog, decodeVariableData, EVENT_TYPES } from '../formats/event-log.ts'
import { decodePe, sectionContent } from '../formats/pe.ts'
import { makeEnrolment } from '../signing/secure-boot.ts'
import { signPe } from './efi-program.ts'
import {
  FIRMWARE_STATES,
  type PcrPredictions,
  predictPcr4,
  predictPcr7,
  predictPcr9,
  predictPcr12,
  predictPcrs,
} from './measured.ts'
import { makeUki, type UkiInput } from './uki.ts'
import { ukiProfiles } from './uki-profiles.ts'

/** Logs and PCRs of machines that booted an image of ours, one in each state of the firmware; see formats/event-log.test.ts. */
const RECORDED = join(import.meta.dirname, '../formats/testdata/event-log')
const PCRS: Record<string, Record<string, string>> = JSON.parse(readFileSync(join(RECORDED, 'pcrs.json'), 'utf8'))
const eventsOf = (state: string) => decodeFirmwareLog(readFileSync(join(RECORDED, `${state}.bin`))).events
const digestsOf = (state: string, pcr: number, type: number) =>
  eventsOf(state).flatMap((event) => (event.pcr === pcr && event.type === type ? [event.digests.sha256!] : []))
const ZEROS = '0'.repeat(64)

for (const state of FIRMWARE_STATES)
  test(`PCRs 4, 7, 9 and 12 of a machine in state ${state} are the ones predicted`, () => {
    assert.equal(predictPcr4(digestsOf(state, 4, EVENT_TYPES.EV_EFI_BOOT_SERVICES_APPLICATION)), PCRS[state]!['4'])

    const keys: Partial<Record<SecureBootVariable, Uint8Array>> = {}
    for (const { type, data } of eventsOf('enrolled')) {
      if (type !== EVENT_TYPES.EV_EFI_VARIABLE_DRIVER_CONFIG) continue
      const { name, data: value } = decodeVariableData(data)
      if (name in SECURE_BOOT_VARIABLES) keys[name as SecureBootVariable] = value
    }
    const [authority] = eventsOf('enrolled').filter(({ type }) => type === EVENT_TYPES.EV_EFI_VARIABLE_AUTHORITY)
    const entry = decodeVariableData(authority!.data).data
    assert.equal(predictPcr7(state, keys, [entry, Buffer.from(entry)]), PCRS[state]!['7'])

    const [, initrd] = digestsOf(state, 9, EVENT_TYPES.EV_EVENT_TAG)
    const ours = `usrhash=691b066c3261be27edc66eb27b1c40e101bf9818416983a7ada6213a304863e1 systemd.verity_usr_options=root-hash-signature=/run/bisque/usr.p7s root=tmpfs console=ttyS0 loglevel=4`
    // The machine without Secure Boot was given a word more, which is measured both as what came from outside and as the whole.
    const added = state === 'none' ? ' systemd.firstboot=no' : ''
    assert.equal(predictPcr9(`${ours}${added}`, initrd!), PCRS[state]!['9'])
    assert.equal(predictPcr12(0, true) === PCRS[state]!['12'], state !== 'none')
  })

test('PCRs 4 and 12 of a machine whose second profile was chosen in the boot menu are the ones predicted', () => {
  assert.equal(predictPcr4(digestsOf('profile', 4, EVENT_TYPES.EV_EFI_BOOT_SERVICES_APPLICATION)), PCRS['profile']!['4'])
  assert.equal(predictPcr12(1, true), PCRS['profile']!['12'])
  assert.notEqual(predictPcr12(1, false), predictPcr12(1, true))
})

const { signers } = await testKeys()
const INPUT: UkiInput = {
  stub: { bytes: tinyPe() },
  kernel: { bytes: tinyPe({ text: Buffer.from('a kernel') }) },
  initrds: [{ bytes: Buffer.from('an initrd') }],
  osRelease: 'ID=acme\n',
  cmdline: 'quiet usrhash=00',
  uname: '6.12.1-acme',
  signers,
}
const PROFILES = [
  { profile: { ID: 'live', TITLE: 'Live' }, cmdline: ['root=tmpfs'], signExpectedPcr: false },
  { profile: { ID: 'rescue' }, cmdline: ['rescue'], signExpectedPcr: true },
]
const stubOf = (version: string) => {
  const stub = tinyPe({ text: Buffer.from(`#### LoaderInfo: systemd-stub ${version} ####`) })
  stub.write('.sdmagic', stub.indexOf('.text\0'))
  return { bytes: stub }
}
const loader = await signPe(tinyPe({ text: Buffer.from('a boot loader') }), signers.db)
const enrolment = await makeEnrolment(signers, { owner: '5a3f4b1e-0000-4000-8000-000000000001', time: EPOCH })
const keys = { PK: enrolment.PK.lists, KEK: enrolment.KEK.lists, db: enrolment.db.lists }

test('predictPcrs() knows every state for an image that enrols its keys', async () => {
  const { bytes: uki } = await makeUki({ ...INPUT, stub: stubOf('257.8') })
  const { firmware, profiles } = predictPcrs({ loader, uki, keys })
  const programs = [loader, uki].map((program) => authenticodeDigest(program))
  const kernel = authenticodeDigest((INPUT.kernel as { bytes: Uint8Array }).bytes)
  const loaded = predictPcr4([...programs, kernel])
  assert.deepEqual(Object.fromEntries(Object.entries(firmware).map(([state, { pcr4 }]) => [state, pcr4])), {
    enrolled: predictPcr4(programs),
    disabled: loaded,
    setup: loaded,
    none: loaded,
  })
  const sevens = Object.values(firmware).map(({ pcr7 }) => pcr7)
  assert.equal(new Set(sevens).size, 4)
  const [db] = decodeSignatureLists(keys.db)
  const entry = encodeSignatureLists([db!]).subarray(28)
  assert.equal(firmware.enrolled!.pcr7, predictPcr7('enrolled', keys, [entry]))
  assert.deepEqual([profiles.length, profiles[0]!.id, profiles[0]!.pcr12], [1, 'main', ZEROS])
})

test('predictPcrs() leaves out what it cannot know', async () => {
  const states = ({ firmware }: PcrPredictions) =>
    Object.entries(firmware).map(([state, { pcr7 }]) => `${state}${pcr7 ? '' : '?'}`)
  const { bytes: uki } = await makeUki({ ...INPUT, stub: stubOf('257.8') })
  assert.deepEqual(states(predictPcrs({ loader, uki })), ['enrolled?', 'disabled?', 'setup', 'none'])
  // Whose signer db has not is refused by firmware that enforces it.
  const foreign = await signPe(tinyPe(), signers.kek)
  assert.deepEqual(states(predictPcrs({ loader: foreign, uki, keys })), ['disabled', 'setup', 'none'])
  const { bytes: unsigned } = await makeUki({ ...INPUT, stub: stubOf('257.8'), signers: {} })
  assert.deepEqual(states(predictPcrs({ uki: unsigned, keys })), ['disabled', 'setup', 'none'])
  const knows = async (version: string, uname = INPUT.uname) =>
    predictPcrs({ uki: (await makeUki({ ...INPUT, stub: stubOf(version), uname })).bytes }).profiles[0]!.pcr9 !== undefined
  assert.deepEqual(
    [await knows('257.8'), await knows('261'), await knows('256.7'), await knows('262'), await knows('257.8', '6.1.0-9-amd64')],
    [true, true, false, false, false],
  )
})

test('predictPcrs() counts an entry of db once, and the kernel only where firmware loads it', async () => {
  const { bytes: uki } = await makeUki({ ...INPUT, stub: stubOf('258') })
  const { firmware } = predictPcrs({ loader, uki, keys })
  assert.equal(firmware.enrolled!.pcr4, firmware.disabled!.pcr4)
  assert.equal(firmware.enrolled!.pcr7, predictPcrs({ uki, keys }).firmware.enrolled!.pcr7)
})

test('predictPcrs() tells profiles apart', async () => {
  const profiles = ukiProfiles(PROFILES, [INPUT.cmdline])
  const { bytes, profiles: made } = await makeUki({ ...INPUT, stub: stubOf('257.8'), profiles })
  const predicted = predictPcrs({ uki: bytes }).profiles
  assert.deepEqual(
    predicted.map(({ id, pcr11 }) => [id, pcr11]),
    made.map(({ id, pcr11 }) => [id, Object.fromEntries(Object.entries(pcr11).map(([path, { sha256 }]) => [path, sha256]))]),
  )
  assert.equal(new Set(predicted.map(({ pcr9 }) => pcr9)).size, 3)
  assert.equal(new Set(predicted.map(({ pcr12 }) => pcr12)).size, 3)
  assert.equal(predicted[0]!.pcr12, ZEROS)
})

oracle('systemd-measure', 'calculates the PCR 11 that predictPcrs() has for every profile and phase', async (_t, judge) => {
  await judge.run(['cp', '/usr/lib/systemd/boot/efi/linuxx64.efi.stub', 'stub'])
  const profiles = ukiProfiles(PROFILES, [INPUT.cmdline])
  const { bytes } = await makeUki({ ...INPUT, stub: { path: join(judge.dir, 'stub') }, profiles })
  const predicted = predictPcrs({ uki: bytes }).profiles
  assert.equal(predicted.length, 3)
  const own = /^\.(?:linux|osrel|cmdline|initrd|uname|sbat|pcrpkey|profile|pcrsig)$/
  const sections = decodePe(bytes).sections.filter(({ name }) => own.test(name))
  const starts = sections.flatMap(({ name }, i) => (name === '.profile' ? [i] : []))
  for (const [i, start] of starts.entries()) {
    const effective = new Map(
      [...sections.slice(0, starts[0]), ...sections.slice(start, starts[i + 1])].map((one) => [one.name, one]),
    )
    effective.delete('.pcrsig')
    for (const [name, section] of effective) writeFileSync(join(judge.dir, `section${name}`), sectionContent(bytes, section))
    const inputs = [...effective.keys()].map((name) => `--${name.slice(1)}=section${name}`)
    const { stdout } = await judge.run(['systemd-measure', 'calculate', '--json=short', '--bank=sha256', ...inputs])
    const calculated = JSON.parse(stdout).sha256.map(({ phase, hash }: { phase: string; hash: string }) => [phase, hash])
    assert.deepEqual(Object.fromEntries(calculated), predicted[i]!.pcr11, predicted[i]!.id)
    assert.ok(predicted[i]!.pcr9)
  }
})
