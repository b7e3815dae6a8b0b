import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import fc from 'fast-check'
import { JUDGES, oracle } from '../../test/oracle.ts'
import { Fault } from '../base/fault.ts'
import { type CredentialKey, decodeCredentialSeal, encodeNullCredential } from './credential.ts'

const options = { iv: Buffer.alloc(12, 7), time: 1_795_392_000 }

/** The word "hello", sealed by systemd-creds 257 with each key it takes, and `--tpm2-pcrs=7+14 --tpm2-public-key-pcrs=11`. */
const SEALED: Record<string, string> = JSON.parse(readFileSync(new URL('testdata/credentials.json', import.meta.url), 'utf8'))

// biome-ignore format: table
const SEALS: [kind: string, keys: CredentialKey[], pcrs: number[], policyPcrs: number[]][] = [
  ['null', [], [], []],
  ['host', ['host'], [], []],
  ['host for a user', ['host', 'user'], [], []],
  ['tpm2', ['tpm2'], [7, 14], []],
  ['host+tpm2', ['host', 'tpm2'], [7, 14], []],
  ['host+tpm2 for a user', ['host', 'tpm2', 'user'], [7], []], // its default
  ['tpm2-with-public-key', ['tpm2', 'signed policy'], [7, 14], [11]],
  ['host+tpm2-with-public-key', ['host', 'tpm2', 'signed policy'], [7, 14], [11]],
]

test('encodeNullCredential() gives the same bytes for the same input', () => {
  const one = encodeNullCredential('a.name', Buffer.from('value'), options)
  assert.deepEqual(one, encodeNullCredential('a.name', Buffer.from('value'), options))
  assert.notDeepEqual(one, encodeNullCredential('b.name', Buffer.from('value'), options))
})

test('decodeCredentialSeal() tells what encodeNullCredential() sealed with', () => {
  const { keys, id } = decodeCredentialSeal(encodeNullCredential('a.name', Buffer.from('value'), options))
  assert.deepEqual([keys, id], [[], '058469daf6f54324800549da0f8ea2fb'])
})

test('decodeCredentialSeal() tells what systemd-creds sealed with, and what the TPM key is bound to', () => {
  for (const [kind, keys, pcrs, policyPcrs] of SEALS) {
    const seal = decodeCredentialSeal(Buffer.from(SEALED[kind]!.replaceAll(/.{64}/g, '$&\n')))
    assert.deepEqual([seal.keys, seal.pcrs, seal.policyPcrs], [keys, pcrs, policyPcrs], kind)
  }
})

test('decodeCredentialSeal() refuses what is no credential, and leaves the keys of another kind open', () => {
  const refused: [string, RegExp][] = [
    ['', /it is not base64/],
    ['password!', /it is not base64/],
    ['cGxhaW4=', /Cannot read credential header at offset 0: need 32 bytes, have 5/],
    [SEALED['tpm2']!.slice(0, 72), /Cannot read credential TPM2 header at offset 48/],
    [SEALED['tpm2-with-public-key']!.slice(0, 400), /Cannot read credential policy header/],
    [Buffer.alloc(64, 0xff).toString('base64'), /header\.ivBytes: expected at most 64, got 4294967295/],
  ]
  for (const [text, why] of refused) assert.throws(() => decodeCredentialSeal(Buffer.from(text)), why, text)
  const other = Buffer.alloc(64, 0xab).fill(0, 24)
  assert.equal(decodeCredentialSeal(Buffer.from(other.toString('base64'))).keys, undefined)
})

test('decodeCredentialSeal() never throws anything but a Fault, whatever the bytes', () => {
  const real = Object.values(SEALED).map((one) => Buffer.from(one, 'base64'))
  const change = fc.record({
    which: fc.nat(real.length - 1),
    at: fc.nat(400),
    value: fc.uint8Array({ maxLength: 8 }),
    end: fc.nat(700),
  })
  fc.assert(
    fc.property(change, ({ which, at, value, end }) => {
      const bytes = Buffer.from(real[which]!)
      bytes.set(value.subarray(0, Math.max(0, bytes.length - at)), Math.min(at, bytes.length))
      try {
        decodeCredentialSeal(Buffer.from(bytes.subarray(0, end).toString('base64')))
      } catch (error) {
        assert.ok(error instanceof Fault, String(error))
      }
    }),
  )
})

oracle('systemd-creds', 'decrypts what encodeNullCredential() wrote, under its name only', async (_t, judge) => {
  writeFileSync(join(judge.dir, 'a.cred'), encodeNullCredential('a.name', Buffer.from('the value'), options))
  const decrypt = (name: string) => ['systemd-creds', '--allow-null', `--name=${name}`, 'decrypt', 'a.cred', '-']
  assert.equal((await judge.run(decrypt('a.name'))).stdout, 'the value')
  assert.notEqual((await judge.run(decrypt('b.name'), { allowFailure: true })).exitCode, 0)
})

oracle(
  'systemd-creds',
  'seals with a key that decodeCredentialSeal() knows by every magic of its mime type',
  async (_t, judge) => {
    const { stdout } = await judge.run(['systemd-creds', '--name=x', '--with-key=null', 'encrypt', '-', '-'], { input: 'hello' })
    assert.deepEqual(decodeCredentialSeal(Buffer.from(stdout)).keys, [])
    const types = readFileSync(`${JUDGES}/usr/share/mime/packages/io.systemd.xml`, 'utf8').split('systemd-credential').at(-1)!
    const magics = [...types.matchAll(/<match type="string" value="([^"]{21})"/g)].map((match) => match[1]!)
    assert.equal(magics.length, 9)
    // Twenty-one characters are 126 of an id's 128 bits; the next one has the rest.
    const isKnown = (magic: string) =>
      [...'AQgw'].some((last) => {
        const sealed = Buffer.concat([Buffer.from(`${magic}${last}==`, 'base64').subarray(0, 16), Buffer.alloc(200)])
        return decodeCredentialSeal(Buffer.from(sealed.toString('base64'))).keys !== undefined
      })
    assert.deepEqual(
      magics.map(isKnown),
      magics.map(() => true),
    )
  },
)
