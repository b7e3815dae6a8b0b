import assert from 'node:assert/strict'
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { testKeys } from '../../test/keys.ts'
import { oracle } from '../../test/oracle.ts'
import { sha256 } from '../base/digest.ts'
import { Fault } from '../base/fault.ts'
import { keyOf } from './offline.ts'
import { loadRequests, readSignatures, writeRequests } from './offline-folder.ts'
import {
  digestName,
  formatRequests,
  parseRequests,
  type SigningRequest,
  type SigningRequests,
  signatureName,
} from './offline-requests.ts'
import { opensslCommand } from './offline-script.ts'
import type { KeyRole, Purpose } from './signer.ts'

const { directory, signers } = await testKeys()
const certificates = new Map(Object.values(signers).map(({ certificate }) => [sha256(certificate), certificate]))

function request(role: KeyRole, purpose: Purpose, round = 1, more: Partial<SigningRequest> = {}): SigningRequest {
  const digest = sha256(`${role} ${purpose} ${round}`)
  return { round, role, purpose, digest, certificate: sha256(signers[role].certificate), ...more }
}

const ALL: SigningRequests = {
  inputs: { bisque: '1.0.0', recipe: 'a'.repeat(64), lock: 'b'.repeat(64), certificates: 'c'.repeat(64), epoch: 1 },
  requests: [
    request('pk', 'EFI variable', 1, { about: 'PK' }),
    request('db', 'boot loader', 1, { image: 'main', about: 'Authenticode sha256:00' }),
    request('verity', 'root hash', 2),
    request('db', 'UKI', 3),
  ],
}
const [PK, LOADER, ROOT_HASH, UKI] = ALL.requests as [SigningRequest, SigningRequest, SigningRequest, SigningRequest]

const signed = (one: SigningRequest, role = one.role) => signers[role].sign(Buffer.from(one.digest, 'hex'), one.purpose)

function temporary(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'bisque-requests-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

/** A folder of requests with a right signature of each. */
async function signedFolder(t: TestContext): Promise<string> {
  const folder = join(temporary(t), 'requests')
  await writeRequests(folder, ALL, certificates)
  for (const one of ALL.requests) writeFileSync(join(folder, signatureName(one)), await signed(one))
  return folder
}

const read = (folder: string) => readSignatures(folder, ALL.requests, certificates)

const isFault = (code: string, pattern: RegExp) => (error: unknown) =>
  error instanceof Fault && error.code === code && pattern.test(error.message)

test('requests come back as they were written, with a digest of 32 bytes for each', async (t) => {
  const folder = await signedFolder(t)
  assert.deepEqual(await loadRequests(folder), ALL)
  for (const one of ALL.requests) assert.equal(readFileSync(join(folder, digestName(one))).toString('hex'), one.digest)
  assert.equal(digestName(LOADER), `1-db-boot-loader.${LOADER.digest.slice(0, 16)}.digest`)
  assert.equal(statSync(join(folder, 'sign.sh')).mode & 0o777, 0o755)
  assert.deepEqual(
    readdirSync(folder).filter((name) => name.startsWith('.')),
    [],
  )
})

test('the same requests make the same text', () => {
  assert.equal(formatRequests(ALL), formatRequests(parseRequests(formatRequests(ALL))))
})

test('no folder and an empty one hold no requests; a folder of something else is refused', async (t) => {
  const folder = temporary(t)
  assert.equal(await loadRequests(join(folder, 'none')), undefined)
  assert.equal(await loadRequests(folder), undefined)
  await writeRequests(folder, ALL, certificates)
  rmSync(join(folder, 'requests.json')) // as where writing was interrupted
  assert.equal(await loadRequests(folder), undefined)
  writeFileSync(join(folder, 'letter.txt'), 'dear')
  await assert.rejects(loadRequests(folder), isFault('usage', /no requests\.json, and is not empty/))
})

test('every wrong signature is named with what is wrong about it, and the right ones are kept', async (t) => {
  const folder = await signedFolder(t)
  writeFileSync(join(folder, signatureName(PK)), await signed(PK, 'kek'))
  truncateSync(join(folder, signatureName(LOADER)), 255)
  writeFileSync(join(folder, signatureName(UKI)), await signed(LOADER))
  const { good, wrong, absent, extra } = await read(folder)
  assert.deepEqual([...good.keys()], [keyOf(ROOT_HASH)])
  assert.deepEqual(
    wrong.map(({ request, why }) => [request, why]),
    [
      [PK, 'is no signature of this digest by the key of pk.crt'],
      [LOADER, 'has 255 bytes: a signature by db has 256'],
      [UKI, `is the signature of another digest, ${digestName(LOADER)}`],
    ],
  )
  assert.deepEqual([absent, extra], [[], []])
})

test('what is no file of raw bytes is no signature', async (t) => {
  const folder = await signedFolder(t)
  const at = (one: SigningRequest) => join(folder, signatureName(one))
  writeFileSync(at(PK), `${Buffer.from(await signed(PK)).toString('base64')}\n`)
  rmSync(at(LOADER))
  symlinkSync('/etc/hostname', at(LOADER))
  truncateSync(at(ROOT_HASH), 1 << 30)
  rmSync(at(UKI))
  mkdirSync(at(UKI))
  const { good, wrong } = await read(folder)
  assert.equal(good.size, 0)
  assert.deepEqual(
    wrong.map(({ why }) => why),
    [
      'is 345 bytes of text: a signature by pk has 256, raw bytes and not base64 or hexadecimal digits',
      'is a link',
      'has 1073741824 bytes, which are too many',
      'is no file',
    ],
  )
  writeFileSync(at(PK), '')
  assert.equal((await read(folder)).wrong[0]!.why, 'is empty')
})

test('signatures that are not there, and those that nobody asked for', async (t) => {
  const folder = await signedFolder(t)
  rmSync(join(folder, signatureName(ROOT_HASH)))
  writeFileSync(join(folder, '9-db-uki.0000000000000000.sig'), 'x')
  writeFileSync(join(folder, 'notes.txt'), 'x')
  const { good, absent, wrong, extra } = await read(folder)
  assert.deepEqual([good.size, absent, wrong, extra], [3, [ROOT_HASH], [], ['9-db-uki.0000000000000000.sig']])
})

test('requests that were tampered with are refused: no name of a file, no role, no digest is taken as it comes', () => {
  const change = (patch: Record<string, unknown>) => {
    const value = JSON.parse(formatRequests(ALL))
    Object.assign(value.requests[0], patch)
    return JSON.stringify(value)
  }
  const wrong = [
    { file: '../../etc/passwd' },
    { signature: '/etc/shadow' },
    { role: 'root' },
    { role: '__proto__' },
    { purpose: 'everything' },
    { digest: 'A'.repeat(64) },
    { certificate: '..' },
    { round: 1e9 },
    { round: '1' },
    { successor: 'yes' },
    { about: '\x1b[2Jall is well' },
    { about: 'x'.repeat(1001) },
    { algorithm: 'none' },
  ]
  for (const patch of wrong)
    assert.throws(() => parseRequests(change(patch)), isFault('format', /request 1 is not/), JSON.stringify(patch))
  const whole = JSON.parse(formatRequests(ALL))
  const texts = [
    '',
    'null',
    '[]',
    '{"requestsVersion":2}',
    JSON.stringify({ ...whole, inputs: { ...whole.inputs, lock: 1 } }),
    JSON.stringify({ ...whole, requests: {} }),
    JSON.stringify({ ...whole, requests: [null] }),
    JSON.stringify({ ...whole, requests: [whole.requests[0], whole.requests[0]] }),
    '['.repeat(100_000),
  ]
  for (const text of texts)
    assert.throws(() => parseRequests(text), isFault('format', /^Cannot read requests\.json: /), text.slice(0, 60))
})

test('a link in the place of a file of requests is replaced, not followed', async (t) => {
  const folder = temporary(t)
  const victim = join(folder, 'victim')
  writeFileSync(victim, 'untouched')
  const requests = join(folder, 'requests')
  mkdirSync(requests)
  symlinkSync(victim, join(requests, digestName(PK)))
  symlinkSync(victim, join(requests, `.${digestName(UKI)}.new`))
  await writeRequests(requests, ALL, certificates)
  assert.equal(readFileSync(victim, 'utf8'), 'untouched')
  assert.equal(readFileSync(join(requests, digestName(PK))).length, 32)
})

oracle(
  'openssl',
  'sign.sh makes the signatures that are asked for, and each command of the README one of them',
  async (t, judge) => {
    const folder = join(judge.dir, 'requests')
    await writeRequests(folder, ALL, certificates)
    const key = (role: KeyRole) => writeFileSync(join(judge.dir, `${role}.key`), readFileSync(join(directory, `${role}.key`)))
    for (const role of ['pk', 'db', 'verity'] as const) key(role)

    await t.test('all of a key at once, and again without harm', async () => {
      const { stdout } = await judge.run(['sh', 'requests/sign.sh', 'db', 'db.key'])
      assert.equal(stdout, `signed  ${signatureName(LOADER)}\nsigned  ${signatureName(UKI)}\n`)
      truncateSync(join(folder, signatureName(UKI)), 10)
      assert.equal((await judge.run(['sh', 'requests/sign.sh', 'db', 'db.key'])).stdout, `signed  ${signatureName(UKI)}\n`)
      const again = await judge.run(['requests/sign.sh', 'db', `${judge.dir}/db.key`])
      assert.equal(again.stdout, 'everything for db is signed already\n')
    })
    await t.test('another key is noticed at once', async () => {
      const { exitCode, stderr } = await judge.run(['sh', 'requests/sign.sh', 'pk', 'db.key'], { allowFailure: true })
      assert.notEqual(exitCode, 0)
      assert.match(stderr, /db\.key is not the key of pk\.crt/)
      assert.equal((await read(folder)).absent.length, 2)
    })
    await t.test('what nobody asked for, or no argument, is a complaint', async () => {
      const { exitCode, stderr } = await judge.run(['sh', 'requests/sign.sh', 'pcr', 'db.key'], { allowFailure: true })
      assert.deepEqual([exitCode, stderr], [1, 'sign.sh: nothing here is to be signed by pcr\n'])
      const usage = await judge.run(['sh', 'requests/sign.sh'], { allowFailure: true })
      assert.equal(usage.exitCode, 2)
      assert.match(usage.stderr, /^Signs the digests in this folder/)
      assert.doesNotMatch(usage.stderr, /set -eu|#/)
    })
    await t.test('one command, one signature', async () => {
      for (const one of [PK, ROOT_HASH]) await judge.run(opensslCommand(one, 'requests/').split(' '))
      const { good, wrong, absent } = await read(folder)
      assert.deepEqual([good.size, wrong, absent], [4, [], []])
      assert.deepEqual(Buffer.from(good.get(keyOf(PK))!), Buffer.from(await signed(PK)))
      assert.match(readFileSync(join(folder, 'README.md'), 'utf8'), new RegExp(`-out ${signatureName(UKI)}`))
    })
  },
)
