import assert from 'node:assert/strict'
import { generateKeyPairSync, X509Certificate } from 'node:crypto'
import { cpSync } from 'node:fs'
import { test } from 'node:test'
import { testKeys } from '../../test/keys.ts'
import { oracle } from '../../test/oracle.ts'
import { Fault } from '../base/fault.ts'
import { signerOf } from '../signing/file.ts'
import {
  attachCertificateSignature,
  decodeIssuerAndSerial,
  prepareCertificate,
  readCertificate,
  sha256Bytes,
  verifyDigest,
} from './x509.ts'

const pair = generateKeyPairSync('rsa', { modulusLength: 2048 })
const PLAN = {
  commonName: 'Köche & Co',
  serialNumber: Buffer.from('4001', 'hex'),
  notBefore: 1_700_000_000,
  notAfter: 2_600_000_000,
  publicKey: pair.publicKey,
  authority: true,
  codeSigning: true,
}

async function certificate(): Promise<Uint8Array> {
  const prepared = prepareCertificate(PLAN)
  return attachCertificateSignature(
    prepared,
    await signerOf(pair.privateKey, new Uint8Array()).sign(prepared.digest, 'certificate'),
  )
}

test('a certificate says what it was planned to say, and its own key signed it', async () => {
  const read = new X509Certificate(await certificate())
  assert.equal(read.subject, 'CN=Köche & Co')
  assert.equal(read.serialNumber, '4001')
  assert.equal(read.validFromDate.getTime() / 1000, PLAN.notBefore)
  assert.equal(read.validToDate.getTime() / 1000, PLAN.notAfter)
  assert.equal(read.ca, true)
  assert.deepEqual(read.keyUsage, ['1.3.6.1.5.5.7.3.3'])
  assert.ok(read.verify(pair.publicKey))
})

test('the same plan and key give the same certificate', async () => {
  assert.deepEqual(await certificate(), await certificate())
})

test('verifyDigest() takes the right signature and no other', async () => {
  const der = await certificate()
  const digest = sha256Bytes(Buffer.from('x'))
  const signature = await signerOf(pair.privateKey, der).sign(digest, 'certificate')
  assert.ok(verifyDigest(der, digest, signature))
  assert.ok(!verifyDigest(der, sha256Bytes(Buffer.from('y')), signature))
  assert.ok(!verifyDigest(der, digest, signature.with(9, signature[9]! ^ 1)))
  assert.ok(!verifyDigest(der, digest, new Uint8Array(3)))
  assert.ok(!verifyDigest(der, digest, new Uint8Array(5000)))
})

test('decodeIssuerAndSerial() and readCertificate() refuse what is cut off', async () => {
  const der = await certificate()
  assert.throws(() => decodeIssuerAndSerial(der.subarray(0, -1)), Fault)
  assert.throws(() => decodeIssuerAndSerial(Buffer.concat([der, Buffer.alloc(1)])), Fault)
  assert.throws(() => readCertificate(der.subarray(0, -1)), Fault)
})

oracle('openssl', 'openssl finds nothing against our certificates, even strictly', async (_t, judge) => {
  const { directory } = await testKeys()
  cpSync(directory, judge.dir, { recursive: true })
  for (const role of ['pk', 'kek', 'db', 'verity', 'pcr']) {
    const { stdout } = await judge.run(['openssl', 'verify', '-x509_strict', '-CAfile', `${role}.crt`, `${role}.crt`])
    assert.equal(stdout.trim(), `${role}.crt: OK`)
  }
  const { stdout } = await judge.run(['openssl', 'x509', '-in', 'db.crt', '-noout', '-text'])
  assert.match(stdout, /Basic Constraints: critical\s+CA:TRUE\s[\s\S]*Digital Signature, Certificate Sign\s[\s\S]*Code Signing/)
})
