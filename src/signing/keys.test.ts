import assert from 'node:assert/strict'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { EPOCH, testKeys } from '../../test/keys.ts'
import { Fault } from '../base/fault.ts'
import { generateKeys, loadOwner } from './keys.ts'
import { showKeys } from './show.ts'
import { KEY_ROLES } from './signer.ts'

const { directory } = await testKeys()
const PLAN = { commonName: 'Test', now: EPOCH, years: 10 }

function folder(t: TestContext): string {
  const made = mkdtempSync(join(tmpdir(), 'bisque-keys-'))
  t.after(() => rmSync(made, { recursive: true }))
  return made
}

test('generateKeys() makes a folder for the owner alone, with a key and a certificate for each role', () => {
  assert.equal(statSync(directory).mode & 0o777, 0o700)
  assert.deepEqual(
    readdirSync(directory).sort(),
    [...KEY_ROLES.flatMap((role) => [`${role}.crt`, `${role}.key`]), 'owner.guid'].sort(),
  )
  for (const role of KEY_ROLES) {
    assert.equal(statSync(join(directory, `${role}.key`)).mode & 0o777, 0o600)
    assert.match(readFileSync(join(directory, `${role}.key`), 'utf8'), /^-----BEGIN PRIVATE KEY-----\n/)
    assert.match(readFileSync(join(directory, `${role}.crt`), 'utf8'), /^-----BEGIN CERTIFICATE-----\n/)
  }
})

test('generateKeys() never writes into a folder that holds something', async (t) => {
  const parent = folder(t)
  const target = join(parent, 'keys')
  mkdirSync(target)
  writeFileSync(join(target, 'pk.key'), 'precious')
  await assert.rejects(
    generateKeys(target, PLAN),
    (e) => e instanceof Fault && e.code === 'usage' && /it is there already and not empty/.test(e.message),
  )
  assert.equal(readFileSync(join(target, 'pk.key'), 'utf8'), 'precious')
  assert.deepEqual(readdirSync(parent), ['keys'])
})

test('generateKeys() fills an empty folder, and makes missing parents', async (t) => {
  const parent = folder(t)
  const target = join(parent, 'a', 'keys')
  mkdirSync(target, { recursive: true })
  await generateKeys(target, PLAN)
  assert.equal((await showKeys(target, EPOCH)).keys.length, 5)
  assert.match(await loadOwner(target), /^[0-9a-f]{8}-/)
  assert.deepEqual(readdirSync(join(parent, 'a')), ['keys'])
})

test('generateKeys() refuses a plan that makes no sense, naming everything', async (t) => {
  const target = join(folder(t), 'keys')
  await assert.rejects(
    generateKeys(target, { commonName: '', now: 1.5, years: 0 }),
    (e) => e instanceof Fault && /common name "".*; the time 1.5.*; 0 years/.test(e.message),
  )
  assert.ok(!existsSync(target))
})

test('loadOwner() refuses what is no GUID', async (t) => {
  const copy = folder(t)
  writeFileSync(join(copy, 'owner.guid'), 'me\n')
  await assert.rejects(loadOwner(copy), /"me" is not a GUID/)
})
