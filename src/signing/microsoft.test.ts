import assert from 'node:assert/strict'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { JUDGES, MACHINES } from '../../test/oracle.ts'
import { decodeSignatureLists } from '../formats/esl.ts'
import { readCertificate } from '../formats/x509.ts'
import { readFirmwareKeys } from '../vm/firmware.ts'
import { loadMicrosoft, MICROSOFT_CERTIFICATES, MICROSOFT_CHOICES, MICROSOFT_OWNER, type MicrosoftChoice } from './microsoft.ts'

const CHOICES = Object.keys(MICROSOFT_CHOICES) as MicrosoftChoice[]
const all = [...(await loadMicrosoft(CHOICES, 'db')), ...(await loadMicrosoft(CHOICES, 'KEK'))]
const fingerprintOf = (der: Uint8Array) => readCertificate(der).fingerprint256.replaceAll(':', '').toLowerCase()

test('loadMicrosoft() gives what is asked for, into the variable it is meant for', async () => {
  assert.deepEqual(await loadMicrosoft([], 'db'), [])
  assert.deepEqual(await loadMicrosoft(['kek'], 'db'), [])
  assert.equal((await loadMicrosoft(['kek'], 'KEK')).length, 2)
  assert.equal((await loadMicrosoft(['uefi-ca', 'windows'], 'db')).length, 4)
  assert.deepEqual(all.map(fingerprintOf).sort(), MICROSOFT_CERTIFICATES.map(({ fingerprint }) => fingerprint).sort())
  for (const der of all) {
    const { subject } = MICROSOFT_CERTIFICATES.find(({ fingerprint }) => fingerprint === fingerprintOf(der))!
    assert.ok(readCertificate(der).subject.endsWith(`CN=${subject}`))
  }
})

const certs = join(JUDGES ?? '', 'usr/lib/python3/dist-packages/virt/firmware/certs')
const needed = !!process.env['REQUIRE_ORACLES']

test('[python3-virt-firmware] brings the same certificates', { skip: !existsSync(certs) && !needed }, () => {
  const theirs = readdirSync(certs)
    .filter((name) => /Microsoft|Windows/.test(name))
    .map((name) => Buffer.from(readCertificate(readFileSync(join(certs, name), 'utf8')).raw))
  assert.equal(theirs.length, all.length)
  for (const der of all) assert.ok(theirs.some((one) => one.equals(der)))
})

const store = join(MACHINES ?? '', 'usr/share/OVMF/OVMF_VARS_4M.ms.fd')

test('[ovmf] its firmware with Microsoft’s keys holds those of 2011, under the same owner', {
  skip: !existsSync(store) && !needed,
}, async () => {
  const { db, kek } = await readFirmwareKeys(store)
  const theirs = [db!, kek!]
    .flatMap(decodeSignatureLists)
    .flatMap(({ entries }) => entries)
    .filter(({ owner }) => owner === MICROSOFT_OWNER)
  assert.ok(theirs.length >= 3)
  for (const { data } of theirs) assert.ok(all.some((der) => Buffer.from(data).equals(der)))
})
