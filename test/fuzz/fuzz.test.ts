/** A short campaign over every decoder; `npm run fuzz` runs long ones. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Fault } from '../../src/base/fault.ts'
import { corpusOf, Finding, runCampaign } from './campaign.ts'
import { fuzzAll, lineOf } from './fuzz.ts'
import { mutate, randomFrom } from './mutate.ts'
import { TARGETS } from './targets.ts'

test('no decoder crashes, hangs or takes more than 256 MiB over what mutations make of its corpus', async (t) => {
  const outcomes = await fuzzAll({ executions: 150_000, seed: 1 }, (outcome) => t.diagnostic(lineOf(outcome)))
  assert.deepEqual(outcomes.filter(({ crash }) => crash !== undefined).map(lineOf), [])
  assert.equal(outcomes.length, Object.keys(TARGETS).length)
  assert.ok(outcomes.reduce((sum, { executions }) => sum + executions, 0) >= 150_000)
})

test('a campaign finds what throws anything but a Fault, and gives back the input', async () => {
  const run = (input: Uint8Array) => {
    if (input.length > 2_000) throw new Fault('format', 'Cannot read: too long')
    if (input.includes(0xfe)) throw new TypeError('a bug')
    return 'ok'
  }
  const campaign = runCampaign('verity', { run }, { executions: 100_000, seed: 7 })
  await assert.rejects(campaign, (finding: unknown) => finding instanceof Finding && finding.input.includes(0xfe))
})

test('a campaign finds what hangs', async () => {
  const run = (input: Uint8Array) => {
    let sum = 0
    const { user } = process.cpuUsage()
    while (input.length > 600 && process.cpuUsage().user - user < 1_100_000) for (let i = 0; i < 1e6; i++) sum += i
    return `ok ${sum > 0}`
  }
  await assert.rejects(runCampaign('verity', { run }, { executions: 1_000, seed: 7 }), /verity took [1-9]\d{3,} ms/)
})

test('mutations follow from the seed, and leave their input alone', () => {
  const input = Uint8Array.from({ length: 300 }, (_, i) => i)
  const made = (seed: number) => {
    const random = randomFrom(seed)
    return Array.from({ length: 50 }, () => mutate(input, { random, other: input, words: [Buffer.from('word')] }))
  }
  const before = Uint8Array.from(input)
  assert.deepEqual(made(3), made(3))
  assert.notDeepEqual(made(3), made(4))
  assert.deepEqual(input, before)
  assert.ok(corpusOf('verity').endsWith('/corpus/verity'))
})
