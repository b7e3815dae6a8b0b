import assert from 'node:assert/strict'
import { chmodSync, cpSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { EPOCH, testKeys } from '../../test/keys.ts'
import { oracle } from '../../test/oracle.ts'
import { Fault } from '../base/fault.ts'
import { keyUsageOf } from '../formats/x509.ts'
import { certificateProblems, loadCertificate } from './certificate.ts'
import { loadSigner, loadSigners } from './load.ts'
import { KEY_ROLES } from './signer.ts'

const { directory, signers } = await testKeys()
const options = { epoch: EPOCH }

/** A copy of the test keys that may be spoilt. */
function copy(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'bisque-keys-'))
  t.after(() => rmSync(folder, { recursive: true }))
  cpSync(directory, folder, { recursive: true })
  return folder
}

const fault =
  (why: RegExp, hint = /(?:)/) =>
  (e: unknown) => {
    assert.ok(e instanceof Fault, String(e))
    assert.match(e.message, why)
    assert.match(e.hint ?? '', hint)
    return true
  }

test('loadSigners() loads a signer for every role', async () => {
  const loaded = await loadSigners(directory, options)
  assert.deepEqual(Object.keys(loaded), [...KEY_ROLES])
  for (const role of KEY_ROLES) assert.deepEqual(loaded[role].certificate, signers[role].certificate)
})

test('loadSigners() reports every problem of every role at once', async (t) => {
  const folder = copy(t)
  chmodSync(join(folder, 'pk.key'), 0o644)
  rmSync(join(folder, 'kek.key'))
  cpSync(join(folder, 'verity.key'), join(folder, 'db.key'))
  writeFileSync(join(folder, 'verity.signer'), 'pkcs11:object=verity\n')
  rmSync(join(folder, 'pcr.key'))
  writeFileSync(join(folder, 'pcr.signer'), 'ftp://example\n')
  await assert.rejects(loadSigners(folder, options), (e) => {
    const { message } = e as Fault
    const expected = [
      /pk\.key: others may read or write it \(mode 644\)/,
      /kek\.key: there is no such file/,
      /db\.key: it is not the key of certificate .*db\.crt/,
      /both .*verity\.key and .*verity\.signer are there/,
      /pcr\.signer: it names neither pkcs11:… nor https:/,
    ]
    for (const why of expected) assert.match(message, why)
    assert.equal(message.split('\n').length, expected.length)
    return true
  })
  const nowhere = join(folder, 'none')
  await assert.rejects(loadSigners(nowhere, options), fault(/there is no folder/, /^bisque keys generate --keys .*none$/))
})

test('loadSigner() asks whoever signs offline where there is the certificate alone', async (t) => {
  const folder = copy(t)
  rmSync(join(folder, 'db.key'))
  const seen: string[] = []
  const offline = (role: string, certificate: Uint8Array) => {
    seen.push(role)
    return { certificate, sign: async () => new Uint8Array() }
  }
  const db = await loadSigner(folder, 'db', { ...options, offline })
  assert.deepEqual(db.certificate, signers.db.certificate)
  await loadSigner(folder, 'pk', { ...options, offline })
  assert.deepEqual(seen, ['db'])
  const late = { epoch: EPOCH + 11 * 365 * 86_400, offline }
  await assert.rejects(loadSigner(folder, 'db', late), fault(/db\.crt: certificate expired/))
})

test('loadSigner() refuses a .signer file that is not one line', async (t) => {
  const folder = copy(t)
  rmSync(join(folder, 'db.key'))
  for (const text of ['', '\n\n', '# where?\n', 'pkcs11:object=a\npkcs11:object=b\n']) {
    writeFileSync(join(folder, 'db.signer'), text)
    await assert.rejects(loadSigner(folder, 'db', options), fault(/Cannot read signer .*: expected one line/))
  }
  writeFileSync(join(folder, 'db.signer'), '# the token in the safe\n\n  pkcs11:object=a?module-name=nonesuch \n')
  await assert.rejects(loadSigner(folder, 'db', options), fault(/there is no PKCS#11 module nonesuch/))
})

oracle('openssl', 'certificates of openssl are judged by what they are for, every problem at once', async (t, judge) => {
  const folder = copy(t)
  // biome-ignore format: table
  const made = {
    pk:     ['rsa:1024', '3650', ['keyUsage=critical,keyCertSign,cRLSign']],
    kek:    ['rsa:2048', '3650', ['keyUsage=critical,digitalSignature,keyCertSign', 'extendedKeyUsage=serverAuth']],
    db:     ['rsa:2048', '3650', ['keyUsage=keyEncipherment', 'extendedKeyUsage=serverAuth,clientAuth']],
    verity: ['rsa:2048', '1',    ['basicConstraints=critical,CA:FALSE', 'extendedKeyUsage=codeSigning,serverAuth']],
    pcr:    ['ec',       '3650', ['keyUsage=keyAgreement', 'extendedKeyUsage=serverAuth']],
  } as const
  for (const [role, [kind, days, extensions]] of Object.entries(made)) {
    const key = kind === 'ec' ? ['ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1'] : [kind]
    const files = ['-keyout', `${role}.key`, '-out', `${role}.crt`, '-nodes', '-subj', `/CN=${role}`]
    const added = extensions.flatMap((one) => ['-addext', one])
    await judge.run(['openssl', 'req', '-new', '-x509', '-newkey', ...key, ...files, '-days', days, ...added])
    for (const end of ['key', 'crt']) cpSync(join(judge.dir, `${role}.${end}`), join(folder, `${role}.${end}`))
    chmodSync(join(folder, `${role}.key`), 0o600)
  }
  const inAYear = Math.floor(Date.now() / 1000) + 366 * 86_400
  const problems = async (role: keyof typeof made) =>
    certificateProblems((await loadCertificate(join(folder, `${role}.crt`))).raw, [role], inAYear).join('; ')
  assert.match(
    await problems('pk'),
    /^it is a key of type rsa, 1024 bits, .* is for keyCertSign, cRLSign only .*needs digitalSignature$/,
  )
  assert.equal(await problems('kek'), '', 'what a KEK is for is not in its extended usage')
  assert.match(
    await problems('db'),
    /keyEncipherment only \(key usage\).*; .*5\.5\.7\.3\.1, .* only \(extended key usage\), db needs codeSigning$/,
  )
  assert.match(await problems('verity'), /^certificate expired [\d-]+, image time is [\d-]+$/)
  assert.match(await problems('pcr'), /^it is a key of type ec, firmware needs RSA of 2048 bits or more$/)
  assert.deepEqual(keyUsageOf((await loadCertificate(join(folder, 'kek.crt'))).raw), ['digitalSignature', 'keyCertSign'])
  assert.equal(keyUsageOf((await loadCertificate(join(folder, 'verity.crt'))).raw), undefined)
  await assert.rejects(loadSigners(folder, { epoch: inAYear }), (e) => {
    for (const name of ['pk.key', 'db.crt', 'verity.crt', 'pcr.key']) assert.ok((e as Fault).message.includes(name), name)
    return !(e as Fault).message.includes('kek')
  })
})
