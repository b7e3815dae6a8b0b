import assert from 'node:assert/strict'
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { EPOCH, testKeys } from '../../test/keys.ts'
import { type Judge, oracle } from '../../test/oracle.ts'
import { sha256 } from '../base/digest.ts'
import { Fault } from '../base/fault.ts'
import { loadFileSigner } from './file.ts'
import { generateKeys } from './keys.ts'
import { loadRequests } from './offline-folder.ts'
import { signatureName } from './offline-requests.ts'
import { revoke } from './revoke.ts'
import { finishRotation, openRotation } from './rotate.ts'
import { showKeys } from './show.ts'
import { KEY_ROLES, type KeyRole } from './signer.ts'

const { directory } = await testKeys()
const LATER = EPOCH + 30 * 86_400
const WITHDRAWN = { name: 'old.efi', on: '2026-11-23', program: sha256('old') }

/** The same keys twice, and the same keys to follow them: all of them here, and PK and KEK in a safe. */
interface Places {
  folder: string
  here: { keys: string; from: string }
  apart: { keys: string; from: string }
  /** Has `pk.key`, `kek.key`, `pk-next.key` and `kek-next.key`. */
  safe: string
}

async function places(t: TestContext, folder = mkdtempSync(join(tmpdir(), 'bisque-safe-'))): Promise<Places> {
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  const at = (name: string) => join(folder, name)
  const [here, apart] = [
    { keys: at('here'), from: at('here-from') },
    { keys: at('apart'), from: at('apart-from') },
  ]
  const safe = at('safe')
  await generateKeys(here.from, { commonName: 'Next', now: EPOCH, years: 10 })
  cpSync(directory, here.keys, { recursive: true })
  cpSync(here.keys, apart.keys, { recursive: true })
  cpSync(here.from, apart.from, { recursive: true })
  mkdirSync(safe)
  for (const role of ['pk', 'kek'] as const)
    for (const [place, name] of [
      [apart.keys, role],
      [apart.from, `${role}-next`],
    ] as const) {
      cpSync(join(place, `${role}.key`), join(safe, `${name}.key`))
      rmSync(join(place, `${role}.key`))
    }
  return { folder, here, apart, safe }
}

const opening = (from: string, roles: readonly KeyRole[] = KEY_ROLES) => ({ roles, from, now: EPOCH, years: 10 })
const ending = { now: LATER, microsoft: ['uefi-ca'] as const }

function contentOf(folder: string): Record<string, string> {
  const files = readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((path) => statSync(join(folder, path)).isFile())
  return Object.fromEntries(files.sort().map((path) => [path, readFileSync(join(folder, path), 'hex')]))
}

/** Signs what is asked for, by the keys of the safe. */
async function signAll(keys: string, safe: string): Promise<string[]> {
  const { requests } = (await loadRequests(join(keys, 'sign')))!
  for (const request of requests) {
    const name = request.successor ? `${request.role}-next` : request.role
    const certificate = join(keys, request.successor ? 'next' : '.', `${request.role}.crt`)
    const signer = await loadFileSigner({ key: join(safe, `${name}.key`), certificate }, { epoch: EPOCH, roles: [request.role] })
    const signature = await signer.sign(Buffer.from(request.digest, 'hex'), request.purpose)
    writeFileSync(join(keys, 'sign', signatureName(request)), signature)
  }
  return requests.map(({ role, successor, about }) => `${role}${successor ? '-next' : ''}: ${about}`)
}

const refuses =
  (code: string, why: RegExp, hint = /./) =>
  (e: unknown) =>
    e instanceof Fault && e.code === code && why.test(e.message) && hint.test(e.hint ?? '')

const TITLES = 'CN=Next Secure Boot, CN=Next dm-verity'

test('keys elsewhere sign the updates of a rotation and of a revocation, and these have the same bytes', async (t) => {
  const { here, apart, safe } = await places(t)
  const same = () => assert.deepEqual(contentOf(join(apart.keys, 'updates')), contentOf(join(here.keys, 'updates')))

  await openRotation(here.keys, opening(here.from))
  const opened = await openRotation(apart.keys, opening(apart.from))
  assert.deepEqual([opened.updates, opened.wanted?.open.length], [[], 3])
  assert.ok(!existsSync(join(apart.keys, 'updates')), 'nothing is written before it is signed')
  assert.deepEqual(await signAll(apart.keys, safe), [
    'pk: KEK gets CN=Next Key Exchange Key',
    'pk: PK becomes CN=Next Platform Key',
    `kek: db gets ${TITLES}`,
  ])
  assert.deepEqual((await showKeys(apart.keys, EPOCH)).wanted, { updates: '1-open', folder: join(apart.keys, 'sign') })
  assert.deepEqual((await openRotation(apart.keys, opening(apart.from))).updates, [join(apart.keys, 'updates/1-open')])
  assert.ok(!existsSync(join(apart.keys, 'sign')))
  same()

  await revoke(here.keys, [WITHDRAWN], { now: EPOCH + 5 })
  const revoked = await revoke(apart.keys, [WITHDRAWN], { now: EPOCH + 5 })
  assert.equal(revoked.wanted?.open.length, 1)
  assert.ok(!existsSync(join(apart.keys, 'revoked.json')))
  assert.deepEqual(await signAll(apart.keys, safe), ['kek: dbx gets one program'])
  // The moment is that of the requests, whenever their signatures come.
  assert.equal((await revoke(apart.keys, [WITHDRAWN], { now: LATER })).updates.length, 1)
  same()

  await finishRotation(here.keys, ending)
  assert.equal((await finishRotation(apart.keys, ending)).wanted?.open.length, 3)
  assert.ok(existsSync(join(apart.keys, 'next')), 'it stays open')
  assert.deepEqual((await signAll(apart.keys, safe)).sort(), [
    'kek-next: db becomes CN=Next Secure Boot, CN=Next dm-verity, ' +
      'C=US, ST=Washington, L=Redmond, O=Microsoft Corporation, CN=Microsoft Corporation UEFI CA 2011, ' +
      'C=US, O=Microsoft Corporation, CN=Microsoft UEFI CA 2023',
    'kek-next: dbx gets CN=Test Secure Boot, CN=Test dm-verity',
    'pk-next: KEK becomes CN=Next Key Exchange Key',
  ])
  const finished = await finishRotation(apart.keys, { ...ending, now: LATER + 86_400 })
  assert.deepEqual(finished.updates, [join(apart.keys, 'updates/1-finish'), join(apart.keys, 'updates/1-revoke')])
  same()
  assert.ok(!existsSync(join(apart.keys, 'next')))
})

test('signatures that are wrong are named, those that are missing asked for again, and nothing is written', async (t) => {
  const { apart, safe } = await places(t)
  await openRotation(apart.keys, opening(apart.from))
  await signAll(apart.keys, safe)
  const sign = join(apart.keys, 'sign')
  const [first, second] = (await loadRequests(sign))!.requests.map((request) => join(sign, signatureName(request)))
  rmSync(first!)
  const again = await openRotation(apart.keys, opening(apart.from))
  assert.deepEqual([again.updates, again.wanted?.open.length, again.wanted?.requests.length], [[], 1, 3])
  writeFileSync(first!, readFileSync(second!))
  await assert.rejects(
    openRotation(apart.keys, opening(apart.from)),
    refuses('integrity', /1 of them are wrong\n {2}1-pk-\S+\.sig is the signature of another digest/, /sign\.sh pk PK_KEY/),
  )
  assert.ok(!existsSync(join(apart.keys, 'updates')))
})

test('what is asked for stays in the way of other updates until it is signed or given up', async (t) => {
  const { apart, safe } = await places(t)
  await openRotation(apart.keys, opening(apart.from, ['db']))
  await assert.rejects(
    revoke(apart.keys, [WITHDRAWN], { now: EPOCH }),
    refuses('usage', /Cannot make updates 2-revoke: signatures for 1-open are still wanted/, /rm -r/),
  )
  await assert.rejects(
    finishRotation(apart.keys, ending),
    refuses('usage', /its updates for machines are not there yet/, /keys rotate/),
  )
  rmSync(join(apart.keys, 'sign'), { recursive: true })
  assert.equal((await revoke(apart.keys, [WITHDRAWN], { now: EPOCH })).wanted?.requests.length, 1)
  await signAll(apart.keys, safe)
  assert.equal((await revoke(apart.keys, [WITHDRAWN], { now: EPOCH })).updates.length, 1)

  await openRotation(apart.keys, opening(apart.from, ['db']))
  await signAll(apart.keys, safe)
  await openRotation(apart.keys, opening(apart.from, ['db']))
  await finishRotation(apart.keys, ending)
  await signAll(apart.keys, safe)
  await assert.rejects(
    finishRotation(apart.keys, { ...ending, microsoft: [] }),
    refuses('usage', /they were made for something else\n {2}EFI variable: db becomes .*Microsoft/, /as it was/),
  )
  await finishRotation(apart.keys, ending)
})

test('a key that is here by the second call signs itself, and one that is gone by then is asked for', async (t) => {
  const { apart, safe, here } = await places(t)
  const roles = ['pk', 'kek', 'db'] as const
  await openRotation(here.keys, opening(here.from, roles))
  cpSync(join(safe, 'pk.key'), join(apart.keys, 'pk.key'))
  assert.equal((await openRotation(apart.keys, opening(apart.from, roles))).wanted?.open.length, 1)
  rmSync(join(apart.keys, 'pk.key'))
  cpSync(join(safe, 'kek.key'), join(apart.keys, 'kek.key'))
  const { wanted } = await openRotation(apart.keys, opening(apart.from))
  assert.deepEqual(
    wanted?.open.map(({ role }) => role),
    ['pk', 'pk'],
  )
  await signAll(apart.keys, safe)
  assert.equal((await openRotation(apart.keys, opening(apart.from))).updates.length, 1)
  assert.deepEqual(contentOf(join(apart.keys, 'updates')), contentOf(join(here.keys, 'updates')))
})

test('requests that are left over from updates which were written are not in the way', async (t) => {
  const { apart, safe } = await places(t)
  await openRotation(apart.keys, opening(apart.from, ['db']))
  await signAll(apart.keys, safe)
  cpSync(join(apart.keys, 'sign'), join(apart.keys, '..', 'left'), { recursive: true })
  await openRotation(apart.keys, opening(apart.from, ['db']))
  cpSync(join(apart.keys, '..', 'left'), join(apart.keys, 'sign'), { recursive: true })
  assert.equal((await revoke(apart.keys, [WITHDRAWN], { now: EPOCH })).wanted?.requests.length, 1)
})

test('requests for an image are not taken for those of updates', async (t) => {
  const { apart } = await places(t)
  await openRotation(apart.keys, opening(apart.from, ['db']))
  const path = join(apart.keys, 'sign/requests.json')
  const digest = 'a'.repeat(64)
  const inputs = { bisque: '1.0.0', recipe: digest, lock: digest, certificates: digest, epoch: 1 }
  writeFileSync(path, JSON.stringify({ ...JSON.parse(readFileSync(path, 'utf8')), inputs }))
  await assert.rejects(openRotation(apart.keys, opening(apart.from)), refuses('usage', /its requests are for an image/))
})

oracle('openssl', 'sign.sh in the folder signs updates with nothing but openssl', async (t, judge: Judge) => {
  const { here, apart, safe } = await places(t, join(judge.dir, 'places'))
  await openRotation(here.keys, opening(here.from, ['db', 'kek']))
  await openRotation(apart.keys, opening(apart.from, ['db', 'kek']))
  for (const role of ['pk', 'kek']) {
    const { stdout } = await judge.run(['sh', join(apart.keys, 'sign/sign.sh'), role, join(safe, `${role}.key`)])
    assert.match(stdout, /^signed {2}1-\S+\.sig$/m)
  }
  assert.equal((await openRotation(apart.keys, opening(apart.from))).updates.length, 1)
  assert.deepEqual(contentOf(join(apart.keys, 'updates')), contentOf(join(here.keys, 'updates')))
})
