import assert from 'node:assert/strict'
import { test } from 'node:test'
import { testKeys } from '../../test/keys.ts'
import { formatPcrSignatures, type PcrBank, type PcrPolicy, parsePcrSignatures } from '../formats/pcr.ts'
import { type PcrValue, pcrPublicKey, signPcrPolicies } from '../signing/pcr.ts'
import type { Signer } from '../signing/signer.ts'
import type { Anchor } from './facts.ts'
import { checkLink, type Link } from './link.ts'
import { checkPolicies } from './policies.ts'
import type { Held } from './sections.ts'
import { FULL_CHAIN } from './trust.ts'

const { signers } = await testKeys()
const own = signers.pcr
const other = signers.kek

const anchor: Anchor = {
  ...{ db: [], verity: [], pcr: [own.certificate], from: 'given', chain: FULL_CHAIN, total: true },
  revoked: { digests: new Set(), certificates: [] },
}
const held = (name: string, text: string): Held => ({ name, sizeBytes: text.length, content: Buffer.from(text) })
const measured = [held('.linux', 'a kernel'), held('.cmdline', 'quiet'), held('.pcrpkey', pcrPublicKey(own))]

/** What PCR 11 is at each phase path, by path. */
const table = checkPolicies([measured], anchor, { evidence() {}, wrong() {} })[0]!
const [FIRST, SECOND] = Object.keys(table) as [string, string]
const at = (path: string, bank: PcrBank = 'sha256') => ({ bank, pcr: Buffer.from(table[path]![bank]!, 'hex') })

const plain = await policiesOf(own)
const forInitrd = await policiesOf(own, [{ ...at(FIRST), reference: 'initrd' }])

function policiesOf(signer: Signer, values?: readonly PcrValue[]): Promise<PcrPolicy[]> {
  return signPcrPolicies(values ?? Object.keys(table).map((path) => at(path)), signer)
}

async function judge(policies: readonly PcrPolicy[], change: Partial<Anchor> = {}): Promise<Link> {
  const links: Link[] = []
  const profile = [...measured, held('.pcrsig', formatPcrSignatures(policies))]
  await checkLink(links, 'measured boot', 'PCR policies', (finding) =>
    checkPolicies([profile], { ...anchor, ...change }, finding),
  )
  return links[0]!
}

const damaged = (policies: readonly PcrPolicy[], n = 0): PcrPolicy[] =>
  policies.map((one, i) => (i === n ? { ...one, signature: one.signature.map((b, at) => (at === 100 ? b ^ 1 : b)) } : one))

test('policies for every phase path hold, and so do those that are for the initrd alone, behind them', async () => {
  assert.ok((await judge(plain)).ok)
  const link = await judge([...plain, ...forInitrd])
  assert.equal(link.problem, undefined)
  assert.match(link.evidence, /policies also for "initrd" alone/)
  assert.ok((await judge([...plain, ...forInitrd], { from: 'image', pcr: [] })).ok)
})

test('a policy for the initrd alone stands for none that is for anything', async () => {
  const { problem } = await judge([...plain.slice(1), ...forInitrd])
  assert.match(problem!, /^no policy of \w+ for sha256 at enter-initrd; the policy .* does not come behind/)
})

test('the signature of a policy for the initrd alone must verify, over its reference', async () => {
  const wrong = /^the signature of the policy for sha256 at enter-initrd and "initrd" alone does not verify$/
  assert.match((await judge([...plain, ...damaged(forInitrd)])).problem!, wrong)
  const [unreferenced] = plain
  const renamed = { ...unreferenced!, reference: 'initrd' }
  assert.match((await judge([...plain, renamed])).problem!, wrong)
  const { reference: _, ...without } = forInitrd[0]!
  assert.match(
    (await judge([without, ...plain.slice(1)])).problem!,
    /^the signature of the policy for sha256 at enter-initrd does not verify$/,
  )
})

test('a policy with a reference that comes first would be taken for one without', async () => {
  const { problem } = await judge([...forInitrd, ...plain])
  assert.match(
    problem!,
    /^the policy for sha256 at enter-initrd and "initrd" alone does not come behind one without a reference: systemd before 262 takes the first$/,
  )
})

test('a policy with a reference must be for an expected state and by a trusted key', async () => {
  const elsewhere = await policiesOf(own, [{ bank: 'sha256', pcr: Buffer.alloc(32, 7), reference: 'initrd' }])
  assert.match((await judge([...plain, ...elsewhere])).problem!, /^1 policies are for another key or another state/)
  const strangers = await policiesOf(other, [{ ...at(FIRST), reference: 'initrd' }])
  assert.match((await judge([...plain, ...strangers])).problem!, /^1 policies are for another key or another state/)
})

test('while a key is replaced, policies of both are checked, with and without references', async () => {
  const both = { pcr: [own.certificate, other.certificate] }
  const others = [...(await policiesOf(other)), ...(await policiesOf(other, [{ ...at(FIRST), reference: 'initrd' }]))]
  assert.equal((await judge([...others, ...plain, ...forInitrd], both)).problem, undefined)
  assert.match(
    (await judge([...plain, ...damaged(others, 4)], both)).problem!,
    /^the signature of the policy of \w{12} for sha256 at enter-initrd and "initrd" alone does not verify$/,
  )
  assert.match(
    (await judge([...plain, ...damaged(others, 1)], both)).problem!,
    /^the signature of the policy of \w{12} for sha256 at enter-initrd:leave-initrd does not verify$/,
  )
})

test('a second policy for the same state is checked like the first', async () => {
  const bad = damaged(await policiesOf(own, [at(SECOND)]))
  const text = JSON.parse(formatPcrSignatures(plain))
  text.sha256.push(...JSON.parse(formatPcrSignatures(bad)).sha256)
  assert.equal(parsePcrSignatures(JSON.stringify(text)).length, 5)
  const links: Link[] = []
  await checkLink(links, 'measured boot', 'PCR policies', (finding) =>
    checkPolicies([[...measured, held('.pcrsig', JSON.stringify(text))]], anchor, finding),
  )
  assert.match(links[0]!.problem!, /^the signature of the policy for sha256 at enter-initrd:leave-initrd does not verify$/)
})

test('more policies than anybody signs are not checked, and said to be too many', async () => {
  const many = Array.from({ length: 300 }, (_, n) => ({ ...forInitrd[0]!, reference: `initrd${n}` }))
  const { problem } = await judge([...plain, ...many])
  assert.match(problem!, /^304 policies are more than the 256 that are checked; /)
})
