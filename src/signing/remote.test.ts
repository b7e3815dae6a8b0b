import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { cpSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import type { ServerResponse } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { EPOCH, testKeys } from '../../test/keys.ts'
import { type Asked, makeIdentity, type SigningServer, startSigningServer } from '../../test/signing-server.ts'
import { Fault, type FaultCode } from '../base/fault.ts'
import { loadSigner, loadSigners } from './load.ts'
import { KEY_ROLES, type Signer, signDigest } from './signer.ts'

const { directory, signers } = await testKeys()
const identity = await makeIdentity()
const digest = randomBytes(32)
const TOKEN = 'correct-horse-battery'
const remote = { timeoutMs: 600, attempts: 3, backoffMs: 10 }
const options = { epoch: EPOCH, remote }

/** A folder of certificates whose keys a service has. */
function folderOf(t: TestContext, { address }: { address: string }, files: Record<string, string> = {}): string {
  const folder = mkdtempSync(join(tmpdir(), 'bisque-remote-'))
  t.after(() => rmSync(folder, { recursive: true }))
  for (const role of KEY_ROLES) {
    cpSync(join(directory, `${role}.crt`), join(folder, `${role}.crt`))
    writeFileSync(join(folder, `${role}.signer`), `${address}\n`)
  }
  const all = { 'signer.ca.crt': identity.certificate, 'signer.token': `${TOKEN}\n`, ...files }
  for (const [name, text] of Object.entries(all)) if (text) writeFileSync(join(folder, name), text, { mode: 0o600 })
  return folder
}

const refuses =
  (code: FaultCode, why: RegExp, hint = /./) =>
  (e: unknown) => {
    assert.ok(e instanceof Fault, String(e))
    assert.match(e.message, why)
    assert.match(e.hint ?? '', hint)
    assert.equal(e.code, code)
    assert.ok(!`${e.message}${e.hint}`.includes(TOKEN), 'no secret in what people read')
    return true
  }

/** A server, and db's signer of it, for what goes wrong afterwards. */
async function ready(t: TestContext): Promise<{ server: SigningServer; db: Signer; folder: string }> {
  const server = await startSigningServer(identity, signers)
  t.after(() => server.stop())
  const folder = folderOf(t, server)
  return { server, db: await loadSigner(folder, 'db', options), folder }
}

const says =
  (status: number, text: string, headers: Record<string, string> = {}) =>
  (_: Asked, response: ServerResponse): boolean => {
    response.writeHead(status, headers).end(text)
    return true
  }

test('a remote signer gives the very bytes that its keys sign as files', async (t) => {
  await using server = await startSigningServer(identity, signers)
  const folder = folderOf(t, server)
  rmSync(join(folder, 'verity.crt'))
  const loaded = await loadSigners(folder, options)
  assert.deepEqual(loaded.verity.certificate, signers.verity.certificate)
  for (const role of KEY_ROLES)
    assert.deepEqual(await signDigest(loaded[role], digest, 'UKI', 'x'), await signDigest(signers[role], digest, 'UKI'))
  const request = server.asked.at(-1)!
  assert.equal(request.method, 'POST')
  assert.equal(request.path, '/keys/sign')
  assert.deepEqual(request.body, {
    role: 'pcr',
    algorithm: 'rsa-pkcs1-v1_5-sha256',
    digest: digest.toString('hex'),
    purpose: 'UKI',
    about: 'x',
  })
  assert.equal(request.headers.authorization, `Bearer ${TOKEN}`)
  assert.match(String(request.headers['idempotency-key']), /^[0-9a-f]{64}$/)
})

test('a remote signer that fails for a while is asked again, with the same request', async (t) => {
  const { server, db } = await ready(t)
  let failures = 2
  server.first = (_, response) => {
    if (failures-- <= 0) return false
    if (failures === 1) response.writeHead(503).end('{"error":"busy"}')
    else response.destroy()
    return true
  }
  assert.deepEqual(await signDigest(db, digest, 'UKI'), await signDigest(signers.db, digest, 'UKI'))
  const asked = server.asked.filter(({ method }) => method === 'POST')
  assert.equal(asked.length, 3)
  assert.equal(new Set(asked.map(({ headers, body }) => JSON.stringify([headers['idempotency-key'], body]))).size, 1)
})

test('a remote signer that stays down is given up, and said to be down', async (t) => {
  const { server, db, folder } = await ready(t)
  server.first = says(503, '{"error":"in maintenance\\u001b[2J"}')
  await assert.rejects(
    db.sign(digest, 'UKI'),
    refuses('fetch', /: HTTP 503: in maintenance\?\[2J, after 3 attempts$/, /^curl -v https:/),
  )
  await server.stop()
  await assert.rejects(db.sign(digest, 'UKI'), refuses('fetch', /no connection \(E\w+\), 3 attempts/, /^curl -v/))
  await assert.rejects(loadSigners(folder, options), refuses('fetch', /no connection \(ECONNREFUSED\)/))
})

test('a remote signer that is slow, or answers by drops, is given up', async (t) => {
  const { server, db } = await ready(t)
  server.first = () => true
  await assert.rejects(db.sign(digest, 'UKI'), refuses('fetch', /did not answer within 0\.6 s, 3 attempts/))
  server.first = (_, response) => {
    response.writeHead(200)
    const timer = setInterval(() => response.write(' '), 50)
    response.on('close', () => clearInterval(timer))
    return true
  }
  const started = Date.now()
  await assert.rejects(db.sign(digest, 'UKI'), refuses('fetch', /did not answer within 0\.6 s/))
  assert.ok(Date.now() - started < 5000)
})

test('a remote signer that answers rubbish, or without end, is refused at once', async (t) => {
  const { server, db } = await ready(t)
  const cases: [SigningServer['first'], RegExp][] = [
    [says(200, '<html>'), /its answer is no JSON object: "<html>"/],
    [says(200, '[]'), /is no JSON object/],
    [says(200, '{}'), /has no signature in base64/],
    [says(200, '{"signature":"**"}'), /has no signature in base64/],
    [says(200, `{"signature":"${'A'.repeat(70_000)}"}`), /longer than 65536 bytes/],
    [
      (_, response) => {
        response.writeHead(200)
        const more = () => {
          while (!response.destroyed && response.write(Buffer.alloc(65_536)));
        }
        response.on('drain', more)
        more()
        return true
      },
      /longer than 65536 bytes/,
    ],
  ]
  for (const [first, why] of cases) {
    server.first = first
    server.asked.length = 0
    await assert.rejects(db.sign(digest, 'UKI'), refuses('format', why))
    assert.equal(server.asked.length, 1)
  }
})

test('a remote signer that refuses is not asked again', async (t) => {
  const { server, db } = await ready(t)
  const cases: [number, FaultCode, RegExp, RegExp][] = [
    [401, 'usage', /refuses us \(HTTP 401\): who are you, \(token\)\?/, /^install -m 600 .*signer\.token$/],
    [403, 'usage', /refuses us \(HTTP 403\)/, /signer\.token$/],
    [404, 'fetch', /: HTTP 404: who/, /^curl/],
    [429, 'fetch', /: HTTP 429: who/, /^curl/],
  ]
  for (const [status, code, why, hint] of cases) {
    server.first = says(status, JSON.stringify({ error: `who are you, ${TOKEN}?` }))
    server.asked.length = 0
    await assert.rejects(db.sign(digest, 'UKI'), refuses(code, why, hint))
    assert.equal(server.asked.length, 1)
  }
})

test('a remote signer that redirects is not followed', async (t) => {
  const { server, db } = await ready(t)
  server.first = says(307, '', { location: `${server.address}/elsewhere` })
  server.asked.length = 0
  await assert.rejects(db.sign(digest, 'UKI'), refuses('usage', /redirects \(HTTP 307\), which signers do not follow/))
  assert.deepEqual(
    server.asked.map(({ path }) => path),
    ['/keys/sign'],
  )
})

test('a wrong signature of a remote signer is found before it is used', async (t) => {
  const { server, db } = await ready(t)
  const others = [
    await signers.pk.sign(digest, 'UKI'),
    await signers.db.sign(randomBytes(32), 'UKI'),
    new Uint8Array(256),
    new Uint8Array(1),
  ]
  for (const wrong of others) {
    server.first = says(200, JSON.stringify({ signature: Buffer.from(wrong).toString('base64') }))
    await assert.rejects(
      signDigest(db, digest, 'UKI'),
      refuses('integrity', /Cannot sign UKI: the signer's signature does not verify/),
    )
  }
})

test('a remote signer with another certificate than the folder is refused', async (t) => {
  await using server = await startSigningServer(identity, { ...signers, db: signers.pk })
  await assert.rejects(
    loadSigners(folderOf(t, server), options),
    refuses('integrity', /its certificate for db \(sha256 \w{16}…\) is not the one in .*db\.crt/, /^openssl x509 .*db\.crt/),
  )
})

test('a remote signer is believed only if the authorities of the folder vouch for it', async (t) => {
  await using server = await startSigningServer(identity, signers)
  const stranger = await makeIdentity()
  const wrong = folderOf(t, server, { 'signer.ca.crt': stranger.certificate })
  await assert.rejects(
    loadSigner(wrong, 'db', options),
    refuses('integrity', /signer\.ca\.crt do not vouch for it \((\w+)\)/, /^openssl s_client -connect localhost:/),
  )
  const without = folderOf(t, server, { 'signer.ca.crt': '' })
  await assert.rejects(
    loadSigner(without, 'db', options),
    refuses('integrity', /its certificate is not trusted/, /signer\.ca\.crt$/),
  )
  await using named = await startSigningServer(await makeIdentity('elsewhere.example'), signers)
  await assert.rejects(loadSigner(folderOf(t, named), 'db', options), refuses('integrity', /do not vouch for it/))
  const empty = folderOf(t, server, { 'signer.ca.crt': 'none' })
  await assert.rejects(loadSigner(empty, 'db', options), (e) => e instanceof Fault && /holds no PEM certificate/.test(e.message))
  assert.equal(server.asked.length, 0, 'nobody was told the token')
})

test('a remote signer that knows us by a certificate gets it', async (t) => {
  const client = await makeIdentity('builder')
  await using server = await startSigningServer(identity, signers, {
    requestCert: true,
    rejectUnauthorized: true,
    ca: client.certificate,
  })
  const files = { 'signer.client.crt': client.certificate, 'signer.client.key': client.key }
  const db = await loadSigner(folderOf(t, server, files), 'db', options)
  assert.deepEqual(await signDigest(db, digest, 'UKI'), await signDigest(signers.db, digest, 'UKI'))
  await assert.rejects(
    loadSigner(folderOf(t, server), 'db', options),
    refuses('fetch', /ends the connection without an answer/, /signer\.client\.crt/),
  )
  const other = await makeIdentity('another builder')
  const wrong = { 'signer.client.crt': other.certificate, 'signer.client.key': other.key }
  await assert.rejects(
    loadSigner(folderOf(t, server, wrong), 'db', options),
    refuses('fetch', /no connection \(\w+\), 3 attempts/),
  )
})

test('an address without encryption, with a password or a query is refused', async (t) => {
  for (const [address, why] of [
    ['http://localhost/keys', /localhost would be asked without encryption/],
    ['https://me:secret@localhost/keys', /has a name or password in it/],
    ['https://localhost/keys?token=secret', /has a query/],
    ['https://', /is no https:\/\/ URL/],
  ] as const) {
    const folder = folderOf(t, { address })
    await assert.rejects(
      loadSigner(folder, 'db', options),
      (e) => refuses('usage', why)(e) && !/secret/.test(`${(e as Fault).message}${(e as Fault).hint}`),
    )
  }
})
