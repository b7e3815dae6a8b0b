import assert from 'node:assert/strict'
import { cpSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import fc from 'fast-check'
import { testKeys } from '../../test/keys.ts'
import { oracle } from '../../test/oracle.ts'
import { Fault } from '../base/fault.ts'
import { pcrPublicKey, signPcrPolicies } from '../signing/pcr.ts'
import {
  formatPcrSignatures,
  measureSection,
  PCR_BANKS,
  type PcrBank,
  PHASE_PATHS,
  parsePcrSignatures,
  pcrAtPhase,
  pcrOfSections,
  policyDigest,
  publicKeyFingerprint,
  signedPolicy,
} from './pcr.ts'
import { publicKeyOf, sha256Bytes } from './x509.ts'

const BANKS: PcrBank[] = ['sha1', 'sha256', 'sha384', 'sha512']
const CONTENTS: Record<string, string> = {
  '.uname': '6.12',
  '.linux': 'kernel',
  '.cmdline': 'quiet',
  '.initrd': 'x'.repeat(100_000),
  '.osrel': 'ID=x\n',
  '.sbat': 'sbat,1\n',
  '.profile': 'ID=main\n',
  '.ucode': 'u',
}
const { directory, signers } = await testKeys()
const sections = [...Object.entries(CONTENTS), ['.pcrpkey', pcrPublicKey(signers.pcr)] as const].map(([name, text]) =>
  measureSection(name, Buffer.from(text), BANKS),
)
const valuesOf = (bank: PcrBank) =>
  PHASE_PATHS.map((path) => ({ bank, pcr: pcrAtPhase(bank, pcrOfSections(bank, sections), path) }))

test('parsePcrSignatures() gives back what formatPcrSignatures() took', async () => {
  const policies = await signPcrPolicies([...valuesOf('sha256'), ...valuesOf('sha384')], signers.pcr)
  assert.equal(policies.length, 8)
  assert.deepEqual(parsePcrSignatures(formatPcrSignatures(policies)), policies)
  assert.deepEqual(parsePcrSignatures(`${formatPcrSignatures(policies)}\n\0`), policies)
  assert.equal(formatPcrSignatures([...policies, ...policies]), formatPcrSignatures(policies))
})

test('the policy of a PCR value depends on the value and the bank', () => {
  const digests = [
    policyDigest('sha256', Buffer.alloc(32)),
    policyDigest('sha256', Buffer.alloc(32, 1)),
    policyDigest('sha384', Buffer.alloc(32)),
  ]
  assert.equal(new Set(digests.map((digest) => digest.toString('hex'))).size, 3)
})

test('a reference is signed behind the policy as its digest, and an empty one as nothing', () => {
  const policy = Buffer.alloc(32, 1)
  assert.deepEqual(signedPolicy({ policy }), policy)
  assert.deepEqual(signedPolicy({ policy, reference: '' }), policy)
  assert.deepEqual(signedPolicy({ policy, reference: 'initrd' }), Buffer.concat([policy, sha256Bytes(Buffer.from('initrd'))]))
})

test('pcrAtPhase() refuses a path that has no words', () => {
  for (const path of ['', 'enter-initrd:', 'Enter', 'a b'])
    assert.throws(() => pcrAtPhase('sha256', Buffer.alloc(32), path), /is no phase/)
})

test('parsePcrSignatures() refuses what is not a table of policies and skips what is not for PCR 11', () => {
  for (const text of ['', '[]', '7', 'null', '{', '{"sha256":7}', '{"sha256":[{"pcrs":[11],"pkfp":"x","pol":"y","sig":"z"}]}'])
    assert.throws(() => parsePcrSignatures(text), /Cannot read \.pcrsig/, text)
  const unsigned = '{"sha256":[{"pcrs":[11],"pkfp":"x","pol":"y"},{"pcrs":[7],"sig":"x"},null],"sm3":7}'
  assert.deepEqual(parsePcrSignatures(unsigned), [])
})

test('parsePcrSignatures() never throws anything but a Fault, whatever the JSON', () => {
  fc.assert(
    fc.property(fc.jsonValue(), fc.constantFrom(...BANKS), (value, bank) => {
      try {
        parsePcrSignatures(JSON.stringify({ [bank]: [value] }))
      } catch (e) {
        assert.ok(e instanceof Fault, String(e))
      }
    }),
  )
})

oracle('systemd-measure', 'systemd-measure calculates and signs what we do, for every bank and phase', async (_t, judge) => {
  cpSync(directory, judge.dir, { recursive: true })
  for (const [name, text] of [...Object.entries(CONTENTS), ['.pcrpkey', pcrPublicKey(signers.pcr)] as const])
    writeFileSync(join(judge.dir, name), text)
  const inputs = [...Object.keys(CONTENTS), '.pcrpkey'].map((name) => `--${name.slice(1)}=${name}`)
  const tool = [...inputs, ...BANKS.map((bank) => `--bank=${bank}`), ...PHASE_PATHS.map((path) => `--phase=${path}`)]

  const calculated = JSON.parse((await judge.run(['systemd-measure', 'calculate', '--json=short', ...tool])).stdout)
  for (const bank of BANKS)
    assert.deepEqual(
      calculated[bank].map(({ phase, hash }: { phase: string; hash: string }) => [phase, hash]),
      valuesOf(bank).map(({ pcr }, i) => [PHASE_PATHS[i], Buffer.from(pcr).toString('hex')]),
    )

  const { stdout } = await judge.run([
    'systemd-measure',
    'sign',
    '--private-key=pcr.key',
    '--certificate=pcr.crt',
    '--json=short',
    ...tool,
  ])
  // Version 257 signs the policies of the other banks with the bank's hash, which no version of systemd then accepts;
  // later ones sign all with SHA-256 as we do. The policies are the same.
  const ours = JSON.parse(formatPcrSignatures(await signPcrPolicies(BANKS.flatMap(valuesOf), signers.pcr)))
  const theirs = JSON.parse(stdout)
  assert.deepEqual(ours.sha256, theirs.sha256)
  for (const bank of BANKS)
    assert.deepEqual(
      ours[bank].map(({ pcrs, pkfp, pol }: Entry) => [pcrs, pkfp, pol]),
      theirs[bank].map(({ pcrs, pkfp, pol }: Entry) => [pcrs, pkfp, pol]),
    )
})

interface Entry {
  pcrs: number[]
  pkfp: string
  pol: string
}

oracle('openssl', 'openssl verifies a policy signature over the policy, with the key of .pcrpkey', async (_t, judge) => {
  const [policy] = await signPcrPolicies(valuesOf('sha256').slice(0, 1), signers.pcr)
  writeFileSync(join(judge.dir, 'pub.pem'), pcrPublicKey(signers.pcr))
  writeFileSync(join(judge.dir, 'policy'), policy!.policy)
  writeFileSync(join(judge.dir, 'signature'), policy!.signature)
  await judge.run(['openssl', 'dgst', '-sha256', '-verify', 'pub.pem', '-signature', 'signature', 'policy'])
  await judge.run(['openssl', 'rsa', '-pubin', '-in', 'pub.pem', '-RSAPublicKey_out', '-outform', 'der', '-out', 'pkcs1'])
  const { stdout } = await judge.run(['sha256sum', 'pkcs1'])
  assert.equal(publicKeyFingerprint(publicKeyOf(signers.pcr.certificate)), stdout.slice(0, 64))
  assert.equal(sha256Bytes(policy!.policy).length, PCR_BANKS.sha256.sizeBytes)
})
