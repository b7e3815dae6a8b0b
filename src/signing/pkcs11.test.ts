import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { EPOCH, testKeys } from '../../test/keys.ts'
import { type Judge, oracle } from '../../test/oracle.ts'
import { importKey, makeToken, moveToToken, PIN, SOFTHSM, type Token } from '../../test/token.ts'
import { Fault, type FaultCode } from '../base/fault.ts'
import { loadSigners } from './load.ts'
import { loadMkosiSigners } from './mkosi-keys.ts'
import { loadPkcs11Signer, openTokens } from './pkcs11.ts'
import { KEY_ROLES, signDigest } from './signer.ts'

const { directory, signers } = await testKeys()
const digest = randomBytes(32)
const file = (name: string) => join(directory, name)
const SPY = '/usr/lib/x86_64-linux-gnu/pkcs11-spy.so'

const refuses = (code: FaultCode, why: RegExp, hint: RegExp) => (e: unknown) => {
  assert.ok(e instanceof Fault, String(e))
  assert.match(e.message, why)
  assert.match(e.hint ?? '', hint)
  assert.equal(e.code, code)
  assert.ok(!`${e.message}${e.hint}`.includes(PIN), 'no PIN in what people read')
  return true
}

/** Loads one key of the token. */
async function load(
  token: Token,
  judge: Judge,
  attributes: string,
  more: { certificate?: string; query?: string; env?: Record<string, string> } = {},
) {
  const tokens = token.open(more.env ?? { BISQUE_PIN: PIN }, { timeoutMs: 20_000 })
  const uri = `pkcs11:${attributes}?${more.query ?? `module-path=${SOFTHSM}`}`
  const place = { uri, certificate: more.certificate ?? file('db.crt'), directory: judge.dir }
  try {
    return { tokens, signer: await loadPkcs11Signer(place, { epoch: EPOCH }, tokens) }
  } catch (error) {
    await tokens.close()
    throw error
  }
}

oracle('softhsm2-util', 'keys in a token sign the very bytes that they sign as files, over one login', async (_t, judge) => {
  const token = await makeToken(judge)
  const folder = await moveToToken(judge, token, directory, SPY)
  const log = join(judge.dir, 'spy.log')
  const tokens = token.open({ PKCS11SPY: SOFTHSM, PKCS11SPY_OUTPUT: log })
  const inToken = await loadSigners(folder, { epoch: EPOCH, tokens })
  for (const role of KEY_ROLES) {
    const signature = await signDigest(inToken[role], digest, 'UKI')
    assert.deepEqual(signature, await signDigest(signers[role], digest, 'UKI'))
  }
  assertHidden(PIN)
  await tokens.close()
  const calls = readFileSync(log, 'latin1')
    .match(/^\d+: C_\w+/gm)!
    .map((line) => line.replace(/^\d+: /, ''))
  assert.equal(tokens.started.length, 1)
  assert.equal(calls.filter((name) => name === 'C_Login').length, 1)
  assert.equal(calls.filter((name) => name === 'C_Sign').length, 5)
  assert.deepEqual(
    calls.filter((name) => /Wrap|Create|Copy|Destroy|Derive|SetAttribute|Decrypt/.test(name)),
    [],
  )
})

oracle('softhsm2-util', 'a certificate that is not in the folder is taken from the token', async (_t, judge) => {
  const token = await makeToken(judge)
  const folder = await moveToToken(judge, token, directory)
  rmSync(join(folder, 'db.crt'))
  const write = (path: string, label: string, id: string) =>
    // biome-ignore format: a command
    token.run('pkcs11-tool', '--module', SOFTHSM, '--login', '--pin', PIN, '--write-object', path, '--type', 'cert', '--label', label, '--id', id)
  await assert.rejects(
    loadSigners(folder, { epoch: EPOCH, tokens: token.open() }),
    refuses(
      'missing',
      /beside pkcs11:token=Test;object=db: the token has no certificate like that; there is none/,
      /list-objects/,
    ),
  )
  writeFileSync(join(judge.dir, 'db.der'), signers.db.certificate)
  await write(join(judge.dir, 'db.der'), 'another label', '03')
  const tokens = token.open()
  const { db } = await loadSigners(folder, { epoch: EPOCH, tokens })
  assert.deepEqual(db.certificate, signers.db.certificate)
  assert.deepEqual(await signDigest(db, digest, 'UKI'), await signDigest(signers.db, digest, 'UKI'))
  // As mkosi's settings name them.
  const [key, certificate] = ['pkcs11:object=db', 'pkcs11:object=another%20label;type=cert'].map(
    (uri) => `${uri}?module-path=${SOFTHSM}&pin-source=keys/signer.pin`,
  )
  const source = 'provider:pkcs11'
  const named = {
    secureBootKey: key,
    secureBootKeySource: source,
    secureBootCertificate: certificate,
    secureBootCertificateSource: source,
  }
  const options = { epoch: EPOCH, tokens, directory: judge.dir, needs: ['secureBoot'] as const }
  const mkosi = await loadMkosiSigners(named, options)
  assert.deepEqual(await signDigest(mkosi.kek!, digest, 'UKI'), await signDigest(signers.db, digest, 'UKI'))
  await tokens.close()
})

oracle('softhsm2-util', 'what is wrong with a key in a token is said with what to do', async (_t, judge) => {
  const token = await makeToken(judge)
  await moveToToken(judge, token, directory)
  const tool = ['pkcs11-tool', '--module', SOFTHSM, '--login', '--pin', PIN]
  await token.run(...tool, '--keypairgen', '--key-type', 'EC:prime256v1', '--label', 'curve', '--id', '20')
  for (const id of ['30', '31']) await token.run(...tool, '--keypairgen', '--key-type', 'rsa:2048', '--label', 'twin', '--id', id)
  const rejects = (attributes: string, fault: (e: unknown) => boolean, more: Parameters<typeof load>[3] = {}) =>
    assert.rejects(load(token, judge, attributes, more), fault)
  await rejects(
    'token=Best',
    refuses('missing', /no token is as the URI says; there is: token=Test;serial=/, /--list-token-slots$/),
  )
  await rejects(
    'token=Test;object=dbx',
    refuses('missing', /no private key like that; there is: object=curve;id=%20, object=db;id=%03/, /--list-objects$/),
  )
  await rejects('token=Test;object=twin', refuses('usage', /several objects .*object=twin;id=%30, object=twin;id=%31/, /;id=%/))
  await rejects('token=Test', refuses('usage', /several objects/, /;id=%/))
  await rejects('object=curve', refuses('usage', /key of type EC, firmware needs RSA/, /rsa:3072/))
  await rejects('object=pk', refuses('usage', /is not the key of certificate .*db\.crt/, /--list-objects$/))
  await rejects(
    'object=db',
    refuses('usage', /\(token=Test;serial=\w+\) wants a PIN, and none is given/, /signer\.pin, or set BISQUE_PIN/),
    { env: {} },
  )
  await rejects(
    'object=db',
    refuses('usage', /refuses the PIN \(CKR_PIN_INCORRECT\)\. It was tried once/, /correct .*signer\.pin/),
    { env: { BISQUE_PIN: '4321' } },
  )
  await rejects('object=db', refuses('host', /\/nonexistent\.so cannot be loaded/, /^ls -l \/nonexistent\.so$/), {
    query: 'module-path=/nonexistent.so',
  })
  await rejects('object=db', refuses('host', /libm\.so\.6 cannot be loaded: .*C_GetFunctionList/, /^ls -l/), {
    query: 'module-path=/usr/lib/x86_64-linux-gnu/libm.so.6',
  })
  writeFileSync(join(judge.dir, 'pin'), PIN, { mode: 0o644 })
  await rejects('object=db', refuses('host', /others may read or write it \(mode 644\)/, /^chmod 600/), {
    query: `module-path=${SOFTHSM}&pin-source=file:${judge.dir}/pin`,
  })
  const { signer, tokens } = await load(token, judge, 'id=%03', {
    query: `module-path=${SOFTHSM}&pin-source=env:OTHER`,
    env: { OTHER: PIN },
  })
  await signDigest(signer, digest, 'UKI')
  await tokens.close()
})

oracle('softhsm2-util', 'a wrong PIN is tried once for all keys of a token', async (_t, judge) => {
  const token = await makeToken(judge)
  const folder = await moveToToken(judge, token, directory, SPY)
  writeFileSync(join(folder, 'signer.pin'), '99999', { mode: 0o600 })
  const log = join(judge.dir, 'spy.log')
  const tokens = token.open({ PKCS11SPY: SOFTHSM, PKCS11SPY_OUTPUT: log })
  await assert.rejects(loadSigners(folder, { epoch: EPOCH, tokens }), (e) => {
    assert.equal((e as Fault).message.match(/refuses the PIN/g)!.length, 5, 'every role is named')
    return true
  })
  await tokens.close()
  assert.equal(readFileSync(log, 'latin1').match(/^\d+: C_Login/gm)!.length, 1)
})

oracle('softhsm2-util', 'a token that is taken away between two signatures is said to be gone', async (_t, judge) => {
  const token = await makeToken(judge)
  await importKey(token, await keyIn(judge), 'db', '01')
  const { signer, tokens } = await load(token, judge, 'object=db')
  await signDigest(signer, digest, 'UKI')
  assertHidden(PIN)
  rmSync(token.store, { recursive: true })
  await assert.rejects(
    signDigest(signer, digest, 'UKI'),
    refuses(
      'host',
      /Cannot sign with pkcs11:object=db: the token was removed meanwhile \(C_\w+: CKR_\w+\)/,
      /put the token back/,
    ),
  )
  await tokens.close()
})

oracle('softhsm2-util', 'a module that crashes or hangs is ended, and the build goes on to say so', async (_t, judge) => {
  const token = await makeToken(judge)
  await importKey(token, await keyIn(judge), 'db', '01')
  const { signer, tokens } = await load(token, judge, 'object=db')
  process.kill(-tokens.started[0]!.pid, 'SIGSEGV')
  await tokens.started[0]!.ended
  const crashed = refuses('tool', /libsofthsm2\.so ended its process \((signal|exit code) \d+.*\)/, /--test$/)
  await assert.rejects(signDigest(signer, digest, 'UKI'), crashed)
  await assert.rejects(signDigest(signer, digest, 'UKI'), crashed)
  // A module that writes into a pipe that nobody reads waits for ever.
  const pipe = join(judge.dir, 'pipe')
  await judge.run(['mkfifo', pipe])
  const hanging = token.open({ PKCS11SPY: SOFTHSM, PKCS11SPY_OUTPUT: pipe }, { timeoutMs: 1500 })
  const place = { uri: `pkcs11:object=db?module-path=${SPY}`, certificate: file('db.crt'), directory: judge.dir }
  const started = Date.now()
  await assert.rejects(
    loadPkcs11Signer(place, { epoch: EPOCH }, hanging),
    refuses('tool', /did not answer for 1\.5 s/, /waiting to be touched/),
  )
  assert.ok(Date.now() - started < 10_000)
  await hanging.started[0]!.ended
})

oracle(
  'softhsm2-util',
  'tokens without CKM_RSA_PKCS sign with raw RSA, and those without either are refused',
  async (_t, judge) => {
    for (const mechanism of ['CKM_RSA_X_509', 'CKM_SHA256_RSA_PKCS']) {
      rmSync(join(judge.dir, 'tokens'), { recursive: true, force: true })
      const token = await makeToken(judge, [`slots.mechanisms = ${mechanism}`])
      await importKey(token, await keyIn(judge), 'db', '01')
      const loading = load(token, judge, 'object=db')
      if (mechanism === 'CKM_RSA_X_509') {
        const { signer, tokens } = await loading
        assert.deepEqual(await signDigest(signer, digest, 'UKI'), await signDigest(signers.db, digest, 'UKI'))
        await tokens.close()
      } else await assert.rejects(loading, refuses('usage', /offers neither CKM_RSA_PKCS nor/, /--list-mechanisms$/))
    }
  },
)

oracle('softhsm2-util', 'a key that wants the PIN for every signature gets it', async (_t, judge) => {
  const token = await makeToken(judge)
  const write = ['--write-object', await keyIn(judge), '--type', 'privkey', '--label', 'db', '--id', '01', '--usage-sign']
  await token.run('pkcs11-tool', '--module', SOFTHSM, '--login', '--pin', PIN, ...write, '--always-auth')
  const log = join(judge.dir, 'spy.log')
  const env = { BISQUE_PIN: PIN, PKCS11SPY: SOFTHSM, PKCS11SPY_OUTPUT: log }
  const { signer, tokens } = await load(token, judge, 'object=db', { env, query: `module-path=${SPY}` })
  assert.deepEqual(await signDigest(signer, digest, 'UKI'), await signDigest(signers.db, digest, 'UKI'))
  assert.deepEqual(await signDigest(signer, digest, 'UKI'), await signDigest(signers.db, digest, 'UKI'))
  await tokens.close()
  assert.equal(readFileSync(log, 'latin1').match(/CKU_CONTEXT_SPECIFIC/g)?.length, 2)
})

test('a module that the system does not have is named with where it was looked for', async () => {
  const tokens = openTokens()
  for (const [query, why] of [
    ['?module-name=nonesuch', /there is no PKCS#11 module nonesuch\.so in \/usr\/lib\//],
    ['?module-name=../x', /no name of a module/],
    ['?module-path=relative.so', /is no absolute path/],
  ] as const) {
    const place = { uri: `pkcs11:object=db${query}`, certificate: undefined, directory }
    await assert.rejects(loadPkcs11Signer(place, { epoch: EPOCH }, tokens), (e) => e instanceof Fault && why.test(e.message))
  }
})

function assertHidden(secret: string): void {
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) assert.ok(!shownBy(pid).includes(secret))
}

/** What everyone, or whoever runs the build, sees of a process. */
function shownBy(pid: string): string {
  try {
    return ['cmdline', 'environ'].map((name) => readFileSync(`/proc/${pid}/${name}`, 'latin1')).join('\n')
  } catch {
    return '' // ended in between
  }
}

/** The key of db where the judge sees it. */
async function keyIn(judge: Judge): Promise<string> {
  const path = join(judge.dir, 'db.key')
  writeFileSync(path, readFileSync(file('db.key')), { mode: 0o600 })
  return path
}
