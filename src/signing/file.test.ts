import assert from 'node:assert/strict'
import { generateKeyPairSync } from 'node:crypto'
import { chmodSync, cpSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { EPOCH, testKeys } from '../../test/keys.ts'
import { Fault, type FaultCode } from '../base/fault.ts'
import { sha256Bytes, verifyDigest } from '../formats/x509.ts'
import { loadFileSigner } from './file.ts'
import { signDigest } from './signer.ts'

const { directory, signers } = await testKeys()

/** A copy of the test keys that may be spoilt. */
function copy(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'bisque-keys-'))
  t.after(() => rmSync(folder, { recursive: true }))
  cpSync(directory, folder, { recursive: true })
  return folder
}

const load = (folder: string, role = 'db', epoch = EPOCH) =>
  loadFileSigner({ key: join(folder, `${role}.key`), certificate: join(folder, `${role}.crt`) }, { epoch })

const refuses = (code: FaultCode, why: RegExp, hint?: RegExp) => (e: unknown) =>
  e instanceof Fault && e.code === code && why.test(e.message) && (hint?.test(e.hint ?? '') ?? true)

test('loadFileSigner() signs digests that its certificate verifies', async () => {
  const signer = await load(directory)
  const digest = sha256Bytes(Buffer.from('x'))
  assert.ok(verifyDigest(signer.certificate, digest, await signer.sign(digest, 'UKI')))
  await assert.rejects(signer.sign(Buffer.alloc(20), 'UKI'), /has 32 bytes, not 20/)
})

test('loadFileSigner() refuses a certificate that has expired when the image is made', async () => {
  await load(directory, 'db', EPOCH + 9 * 365 * 86_400)
  await assert.rejects(
    load(directory, 'db', EPOCH + 11 * 365 * 86_400),
    refuses('usage', /certificate expired 2036-11-2\d, image time is 2037-11-2\d/, /bisque keys generate/),
  )
  await load(directory, 'db', 0) // an image's time may lie before its keys were made
})

test('loadFileSigner() refuses a key that others can read', async (t) => {
  const folder = copy(t)
  for (const mode of [0o640, 0o604, 0o620]) {
    chmodSync(join(folder, 'db.key'), mode)
    await assert.rejects(load(folder), refuses('host', /others may read or write it \(mode 6\d\d\)/, /^chmod 600 .*db\.key$/))
  }
})

test('loadFileSigner() refuses a key and a certificate that do not belong together', async (t) => {
  const folder = copy(t)
  cpSync(join(folder, 'pk.key'), join(folder, 'db.key'))
  await assert.rejects(load(folder), refuses('usage', /db\.key: it is not the key of certificate .*db\.crt/))
})

test('loadFileSigner() refuses a key of the wrong kind or size', async (t) => {
  const folder = copy(t)
  const pem = {
    privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
    publicKeyEncoding: { type: 'spki', format: 'pem' },
  } as const
  for (const [key, why] of [
    [generateKeyPairSync('ec', { namedCurve: 'P-256', ...pem }), /type ec, firmware needs RSA of 2048 bits/],
    [generateKeyPairSync('rsa', { modulusLength: 1024, ...pem }), /type rsa, 1024 bits, firmware needs RSA/],
  ] as const) {
    writeFileSync(join(folder, 'db.key'), String(key.privateKey), { mode: 0o600 })
    await assert.rejects(load(folder), refuses('usage', why))
  }
})

test('loadFileSigner() refuses an encrypted key, text that is none, and a missing file', async (t) => {
  const folder = copy(t)
  writeFileSync(join(folder, 'db.key'), '-----BEGIN ENCRYPTED PRIVATE KEY-----\n')
  await assert.rejects(load(folder), refuses('usage', /encrypted with a passphrase/, /^openssl pkey -in/))
  writeFileSync(join(folder, 'db.key'), 'SECRET')
  await assert.rejects(load(folder), (e) => refuses('format', /is not a PEM private key/)(e) && !String(e).includes('SECRET'))
  rmSync(join(folder, 'db.key'))
  await assert.rejects(load(folder), refuses('missing', /db\.key: there is no such file/, /bisque keys generate/))
})

test('loadFileSigner() refuses a certificate file with none or several, or a broken one', async (t) => {
  const folder = copy(t)
  const path = join(folder, 'db.crt')
  writeFileSync(path, '')
  await assert.rejects(load(folder), refuses('format', /holds 0 PEM certificates, expected one/))
  writeFileSync(path, '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n')
  await assert.rejects(load(folder), refuses('format', /Cannot read certificate .*db\.crt/))
})

test('signDigest() refuses a signature that the certificate does not verify', async () => {
  const digest = sha256Bytes(Buffer.from('x'))
  await signDigest(signers.db, digest, 'UKI')
  for (const sign of [signers.pk.sign, async () => new Uint8Array(256), async () => new Uint8Array()])
    await assert.rejects(
      signDigest({ certificate: signers.db.certificate, sign }, digest, 'UKI'),
      refuses(
        'integrity',
        /Cannot sign UKI: the signer's signature does not verify with its certificate \(CN=Test Secure Boot\)/,
      ),
    )
})
