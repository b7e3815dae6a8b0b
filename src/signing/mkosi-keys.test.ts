import assert from 'node:assert/strict'
import { chmodSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { EPOCH, testKeys } from '../../test/keys.ts'
import { oracle } from '../../test/oracle.ts'
import { Fault } from '../base/fault.ts'
import { sha256Bytes, verifyDigest } from '../formats/x509.ts'
import { loadMkosiSigners, type MkosiKeys } from './mkosi-keys.ts'

const { directory } = await testKeys()
const pair = (role: string) => [join(directory, `${role}.key`), join(directory, `${role}.crt`)] as const
const [secureBootKey, secureBootCertificate] = pair('db')
const [verityKey, verityCertificate] = pair('verity')
const NEEDS = ['secureBoot', 'verity', 'signExpectedPcr'] as const
const options = { epoch: EPOCH, needs: [], directory }

/** One pair for everything, as mkosi.key and mkosi.crt are. */
const ONE: MkosiKeys = {
  secureBootKey,
  secureBootCertificate,
  verityKey: secureBootKey,
  verityCertificate: secureBootCertificate,
  signExpectedPcrKey: secureBootKey,
  signExpectedPcrCertificate: secureBootCertificate,
}

test('loadMkosiSigners() makes the Secure Boot key platform key and key exchange key too', async () => {
  const signers = await loadMkosiSigners({ ...ONE, verityKey, verityCertificate }, { ...options, needs: NEEDS })
  assert.equal(signers.pk, signers.db)
  assert.equal(signers.kek, signers.db)
  assert.equal(signers.pcr, signers.db)
  assert.notEqual(signers.verity, signers.db)
  const digest = sha256Bytes(Buffer.from('signed'))
  assert.ok(verifyDigest(signers.verity!.certificate, digest, await signers.verity!.sign(digest, 'root hash')))
})

test('loadMkosiSigners() goes without keys that nothing needs', async () => {
  assert.deepEqual(await loadMkosiSigners({}, options), {})
  assert.deepEqual(Object.keys(await loadMkosiSigners({ verityKey, verityCertificate }, options)), ['verity'])
})

test('loadMkosiSigners() names every key that is needed and missing', async () => {
  await assert.rejects(loadMkosiSigners({ verityKey }, { ...options, needs: NEEDS }), (e) => {
    assert.ok(e instanceof Fault)
    assert.match(e.message, /Secure Boot: SecureBootKey and SecureBootCertificate are not set/)
    assert.match(e.message, /dm-verity: VerityCertificate is not set/)
    assert.match(e.message, /PCR policies: SignExpectedPcrKey and/)
    return /openssl req/.test(e.hint ?? '')
  })
})

test('loadMkosiSigners() refuses keys that lie elsewhere, are read by others or do not fit', async (t: TestContext) => {
  const refuses = (keys: MkosiKeys, why: RegExp) =>
    assert.rejects(loadMkosiSigners({ ...ONE, ...keys }, options), (e) => e instanceof Fault && why.test(e.message), String(why))
  await refuses({ secureBootKey: 'pkcs11:token=mine;pin-value=1234' }, /pin-value: a PIN there is seen/)
  await refuses({ verityKeySource: 'engine:pkcs11' }, /VerityKeySource=engine:pkcs11 needs a PKCS#11 URI/)
  await refuses({ verityKeySource: 'provider:tpm2' }, /Cannot sign with provider:tpm2: VerityKeySource= must be file or/)
  await refuses({ verityKey }, /is not the key of certificate/)
  await refuses({ verityKey: '/nonexistent/mkosi.key' }, /there is no such file/)
  t.after(() => chmodSync(verityKey, 0o600))
  chmodSync(verityKey, 0o644)
  await refuses({ verityKey, verityCertificate }, /others may read or write it/)
})

oracle('openssl', 'the key and certificate that openssl makes as mkosi has it made sign', async (_t, judge) => {
  // biome-ignore format: a command
  await judge.run([
    'openssl', 'req', '-new', '-x509', '-newkey', 'rsa:2048', '-keyout', 'mkosi.key', '-out', 'mkosi.crt', '-days', '3650',
    '-subj', '/CN=mkosi of tests/', '-nodes',
  ])
  const [key, certificate] = [join(judge.dir, 'mkosi.key'), join(judge.dir, 'mkosi.crt')]
  const { db } = await loadMkosiSigners(
    { secureBootKey: key, secureBootCertificate: certificate },
    { ...options, needs: ['secureBoot'] },
  )
  const digest = sha256Bytes(Buffer.from('signed'))
  assert.ok(verifyDigest(db!.certificate, digest, await db!.sign(digest, 'UKI')))
  // With a passphrase it is refused, and the way out is said.
  // biome-ignore format: a command
  await judge.run(['openssl', 'pkey', '-in', 'mkosi.key', '-aes256', '-passout', 'pass:secret', '-out', 'locked.key'])
  const locked = { secureBootKey: join(judge.dir, 'locked.key'), secureBootCertificate: certificate }
  await assert.rejects(loadMkosiSigners(locked, options), /it is encrypted with a passphrase/)
})

test('loadMkosiSigners() takes certificates without keys where signing is offline, one signer for what they share', async () => {
  const keys = { secureBootCertificate, verityCertificate, signExpectedPcrCertificate: secureBootCertificate }
  const asked: string[] = []
  const offline = (role: string, certificate: Uint8Array) => {
    asked.push(role)
    return { certificate, sign: async () => new Uint8Array() }
  }
  const signers = await loadMkosiSigners(keys, { ...options, needs: NEEDS, offline })
  assert.deepEqual(asked.sort(), ['db', 'verity'])
  assert.equal(signers.pcr, signers.pk)
  await assert.rejects(loadMkosiSigners(keys, { ...options, needs: NEEDS }), /SecureBootKey is not set/)
})
