import assert from 'node:assert/strict'
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { EPOCH, testKeys } from '../../test/keys.ts'
import { oracle } from '../../test/oracle.ts'
import { tinyPe } from '../../test/tiny-pe.ts'
import { Fault } from '../base/fault.ts'
import { checkAuthenticode } from '../formats/authenticode.ts'
import { certificateOf, checkSigner, decodeSignedData } from '../formats/cms.ts'
import {
  decodeSignatureLists,
  decodeVariableUpdate,
  EFI_GUID,
  SECURE_BOOT_VARIABLES,
  type SecureBootVariable,
  signedVariableBytes,
} from '../formats/esl.ts'
import { parsePcrSignatures } from '../formats/pcr.ts'
import { decodePe, findSection, sectionContent } from '../formats/pe.ts'
import { publicKeyOf } from '../formats/x509.ts'
import { signPe } from '../image/efi-program.ts'
import { makeUki } from '../image/uki.ts'
import { run, SYSTEM_PATH } from '../run/process.ts'
import { loadCertificate } from './certificate.ts'
import { generateKeys, loadOwner } from './keys.ts'
import { loadSigners } from './load.ts'
import { pcrPublicKey } from './pcr.ts'
import { loadRevocations, parseRevocations } from './revocations.ts'
import { revoke } from './revoke.ts'
import { signRootHash } from './root-hash.ts'
import { finishRotation, openRotation } from './rotate.ts'
import { makeEnrolment } from './secure-boot.ts'
import { showKeys } from './show.ts'
import { KEY_ROLES, type KeyRole } from './signer.ts'
import { updateFolders } from './updates.ts'

const { directory } = await testKeys()
const ALL = [...KEY_ROLES]
const LATER = EPOCH + 30 * 86_400
const plan = (roles: readonly KeyRole[], now = EPOCH) => ({ roles, now, years: 10 })
const end = { now: LATER, microsoft: [] }

/** A copy of the test keys that may be changed. */
function copy(t: TestContext): string {
  const parent = mkdtempSync(join(tmpdir(), 'bisque-keys-'))
  t.after(() => rmSync(parent, { recursive: true }))
  const folder = join(parent, 'keys')
  cpSync(directory, folder, { recursive: true })
  return folder
}

const certificateIn = async (folder: string, role: KeyRole) =>
  Buffer.from((await loadCertificate(join(folder, `${role}.crt`))).raw)
const certificatesIn = (folder: string, ...roles: KeyRole[]) => Promise.all(roles.map((role) => certificateIn(folder, role)))

/** Everything below a folder: path to content. */
function contentOf(folder: string): Map<string, string> {
  const files = readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((path) => statSync(join(folder, path)).isFile())
  return new Map(files.sort().map((path) => [path, readFileSync(join(folder, path), 'latin1')]))
}

/** The private keys there are, wherever they lie. */
const privateKeys = (folder: string): string[] =>
  [...contentOf(folder)].flatMap(([path, text]) => (path.endsWith('.key') ? [text] : [])).sort()

/** A `.auth` file with who signed it; its signature must hold for these attributes. */
function updateIn(path: string, append: boolean) {
  const name = /(\w+)\.auth$/.exec(path)![1] as SecureBootVariable
  const { time, payload, signature } = decodeVariableUpdate(readFileSync(path))
  const signed = decodeSignedData(signature)
  const signer = Buffer.from(certificateOf(signed, signed.signers[0]!)!)
  const bytes = signedVariableBytes({ name, vendor: SECURE_BOOT_VARIABLES[name], time, append, payload })
  assert.deepEqual(checkSigner(signed, signed.signers[0]!, signer, bytes), [])
  const entries = decodeSignatureLists(payload).flatMap(({ entries }) => entries)
  return { time, signer, holds: entries.map(({ data }) => Buffer.from(data)) }
}

const refuses = (why: RegExp, hint?: RegExp) => (e: unknown) =>
  e instanceof Fault && e.code === 'usage' && why.test(e.message) && (hint?.test(e.hint ?? '') ?? true)

test('openRotation() puts new keys beside the old, which stay as they are', async (t) => {
  const keys = copy(t)
  const before = contentOf(keys)
  const { number, roles, updates } = await openRotation(keys, plan(['verity', 'db']))
  assert.deepEqual({ number, roles, updates }, { number: 1, roles: ['db', 'verity'], updates: [join(keys, 'updates/1-open')] })
  for (const [path, content] of before) assert.equal(contentOf(keys).get(path), content, path)
  assert.deepEqual(readdirSync(join(keys, 'next')).sort(), ['db.crt', 'db.key', 'rotation.json', 'verity.crt', 'verity.key'])
  assert.equal(statSync(join(keys, 'next/db.key')).mode & 0o777, 0o600)
  assert.equal((await loadCertificate(join(keys, 'next/db.crt'))).subject, 'CN=Test Secure Boot')
  assert.deepEqual(
    readdirSync(keys).filter((name) => name.startsWith('.')),
    [],
  )
})

test('its updates add to db and KEK and replace PK, each signed by the key above that machines trust now', async (t) => {
  const keys = copy(t)
  const { updates } = await openRotation(keys, plan(ALL))
  const at = (name: string) => join(updates[0]!, `${name}.auth`)
  const next = join(keys, 'next')
  const [pk, kek] = await certificatesIn(keys, 'pk', 'kek')
  assert.deepEqual(updateIn(at('db'), true), { time: EPOCH, signer: kek, holds: await certificatesIn(next, 'db', 'verity') })
  assert.deepEqual(updateIn(at('KEK'), true), { time: EPOCH, signer: pk, holds: await certificatesIn(next, 'kek') })
  assert.deepEqual(updateIn(at('PK'), false), { time: EPOCH, signer: pk, holds: await certificatesIn(next, 'pk') })
  assert.ok(!existsSync(at('dbx')))
})

test('while it is open, programs bear both signatures, and PCR policies are of both keys', async (t) => {
  const keys = copy(t)
  await openRotation(keys, plan(ALL))
  const signers = await loadSigners(keys, { epoch: EPOCH })
  // Firmware measures the first that it trusts: what stays is to be that.
  const both = async (role: KeyRole) => [await certificateIn(join(keys, 'next'), role), await certificateIn(keys, role)]
  const input = {
    stub: { bytes: tinyPe() },
    kernel: { bytes: tinyPe() },
    initrds: [{ bytes: Buffer.from('initrd') }],
    ...{ osRelease: 'ID=test\n', cmdline: 'quiet', uname: '6.12' },
    signers,
  }
  const uki = await makeUki(input)
  for (const image of [uki.bytes, await signPe(tinyPe(), signers.db)]) {
    const found = checkAuthenticode(image)
    assert.deepEqual(
      found.flatMap(({ problems }) => problems),
      [],
    )
    assert.deepEqual(
      found.map(({ certificate }) => Buffer.from(certificate!)),
      await both('db'),
    )
  }
  const section = (name: string) => Buffer.from(sectionContent(uki.bytes, findSection(decodePe(uki.bytes), name)!)).toString()
  const policies = parsePcrSignatures(section('.pcrsig'))
  assert.equal(new Set(policies.map(({ keyFingerprint }) => keyFingerprint)).size, 2)
  assert.equal(policies.length, 8)
  // What is sealed today must open when the old key is gone.
  assert.equal(section('.pcrpkey'), pcrPublicKey({ ...signers.pcr.successor! }))
  // Machines that did not take the update yet must still find their key, so the old one signs alone.
  const { certificateFingerprint } = await signRootHash('ab'.repeat(32), signers.verity)
  assert.equal(certificateFingerprint, (await showKeys(keys, EPOCH)).keys.find(({ role }) => role === 'verity')!.fingerprint)
  const again = await makeUki(input)
  assert.deepEqual(again.bytes, uki.bytes)
})

test('while it is open, new machines enrol both keys, in the order in which others come to have them, and the new PK', async (t) => {
  const keys = copy(t)
  await openRotation(keys, plan(ALL))
  const next = join(keys, 'next')
  const signers = await loadSigners(keys, { epoch: EPOCH })
  const enrolment = await makeEnrolment(signers, { owner: await loadOwner(keys), time: EPOCH, microsoft: ['uefi-ca', 'kek'] })
  const entered = (name: 'PK' | 'KEK' | 'db') =>
    decodeSignatureLists(enrolment[name].lists).flatMap(({ entries }) => entries.map(({ data }) => Buffer.from(data)))
  assert.deepEqual(entered('PK'), await certificatesIn(next, 'pk'))
  const ours = ([name, ...roles]: ['KEK' | 'db', ...KeyRole[]]) => [
    entered(name).slice(0, roles.length),
    entered(name).slice(-roles.length),
  ]
  assert.deepEqual(ours(['db', 'db', 'verity']), [
    await certificatesIn(keys, 'db', 'verity'),
    await certificatesIn(next, 'db', 'verity'),
  ])
  assert.deepEqual(ours(['KEK', 'kek']), [await certificatesIn(keys, 'kek'), await certificatesIn(next, 'kek')])
  assert.deepEqual([entered('db').length, entered('KEK').length], [6, 4])
  assert.equal(enrolment.dbx, undefined)
})

test('finishRotation() puts the new keys in the old ones’ place, and loses none', async (t) => {
  const keys = copy(t)
  await openRotation(keys, plan(ALL))
  const existing = privateKeys(keys)
  assert.equal(existing.length, 10)
  const coming = await certificatesIn(join(keys, 'next'), ...ALL)
  const going = await certificatesIn(keys, ...ALL)
  const { updates } = await finishRotation(keys, end)
  assert.deepEqual(updates, [join(keys, 'updates/1-finish'), join(keys, 'updates/1-revoke')])
  assert.deepEqual(privateKeys(keys), existing)
  assert.deepEqual(await certificatesIn(keys, ...ALL), coming)
  assert.deepEqual(await certificatesIn(join(keys, 'previous/1-2026-11-23'), ...ALL), going)
  assert.deepEqual(
    readdirSync(keys).filter((name) => /^\.|next|finishing/.test(name)),
    [],
  )
  const signers = await loadSigners(keys, { epoch: LATER })
  for (const role of ALL) assert.equal(signers[role].successor, undefined)
  await assert.rejects(finishRotation(keys, end), refuses(/none is open/, /bisque keys rotate --keys/))
})

test('its updates replace db and KEK, signed by the new keys, and revoke the certificates that signed what starts', async (t) => {
  const keys = copy(t)
  await openRotation(keys, plan(ALL))
  const old = await certificatesIn(keys, 'db', 'verity')
  await finishRotation(keys, { now: EPOCH, microsoft: ['windows'] })
  const [pk, kek] = await certificatesIn(keys, 'pk', 'kek')
  const at = (name: string) => join(keys, 'updates', `${name}.auth`)
  const db = updateIn(at('1-finish/db'), false)
  assert.deepEqual(db.signer, kek)
  assert.ok(db.time > EPOCH, 'firmware takes only what is newer')
  assert.deepEqual(db.holds.slice(0, 2), await certificatesIn(keys, 'db', 'verity'))
  assert.equal(db.holds.length, 4)
  assert.deepEqual(updateIn(at('1-finish/KEK'), false), { time: db.time, signer: pk, holds: [kek] })
  assert.deepEqual(updateIn(at('1-revoke/dbx'), true), { time: db.time, signer: kek, holds: old })
  assert.ok(!existsSync(at('1-finish/PK')))

  const revoked = await loadRevocations(keys)
  assert.deepEqual(
    revoked.map((one) => 'certificate' in one && Buffer.from(one.certificate, 'base64')),
    old,
  )
})

test('finishRotation() goes on wherever it was interrupted, to the same end', async (t) => {
  const keys = copy(t)
  await openRotation(keys, plan(ALL))
  const open = join(keys, '..', 'open')
  cpSync(keys, open, { recursive: true })
  await finishRotation(keys, end)
  const expected = contentOf(keys)
  const kept = 'previous/1-2026-11-23'

  // What each interruption leaves, one step after another.
  const at = join(keys, '..', 'at')
  const steps: [string, () => void][] = [
    ['nothing done', () => {}],
    ['updates written', () => cpSync(join(keys, 'updates'), join(at, 'updates'), { recursive: true })],
    ['the rotation is finishing', () => renameSync(join(at, 'next'), join(at, 'finishing'))],
    ['the old keys kept', () => cpSync(join(keys, kept), join(at, kept), { recursive: true })],
    ['revocations noted', () => cpSync(join(keys, 'revoked.json'), join(at, 'revoked.json'))],
    ['a key in place, its certificate not', () => renameSync(join(at, 'finishing/pk.key'), join(at, 'pk.key'))],
    ['a role in place', () => renameSync(join(at, 'finishing/pk.crt'), join(at, 'pk.crt'))],
    [
      'all roles in place',
      () => {
        for (const role of ALL.slice(1))
          for (const kind of ['key', 'crt']) renameSync(join(at, `finishing/${role}.${kind}`), join(at, `${role}.${kind}`))
      },
    ],
  ]
  for (const [i, [what]] of steps.entries()) {
    rmSync(at, { recursive: true, force: true })
    cpSync(open, at, { recursive: true })
    for (const [, step] of steps.slice(0, i + 1)) step()
    if (existsSync(join(at, 'finishing'))) {
      await assert.rejects(loadSigners(at, { epoch: LATER }), refuses(/was interrupted/, /--finish/), what)
      await assert.rejects(openRotation(at, plan(['db'])), refuses(/was interrupted/, /--finish/), what)
      assert.equal((await showKeys(at, LATER)).rotation?.state, 'interrupted', what)
    }
    await finishRotation(at, end)
    assert.deepEqual(contentOf(at), expected, what)
  }
})

test('a rotation of the PCR key has nothing for firmware, but the script that seals disks anew', async (t) => {
  const keys = copy(t)
  assert.deepEqual((await openRotation(keys, plan(['pcr']))).updates, [])
  assert.deepEqual(readdirSync(join(keys, 'updates')), ['take'])
  assert.deepEqual((await finishRotation(keys, end)).updates, [])
  assert.deepEqual(await loadRevocations(keys), [])

  // Numbers of rotations without updates are not used again: their keys would be taken for kept already.
  const existing = privateKeys(keys)
  await openRotation(keys, plan(['pcr']))
  await finishRotation(keys, end)
  assert.deepEqual(readdirSync(join(keys, 'previous')).sort(), ['1-2026-11-23', '2-2026-11-23'])
  for (const key of existing) assert.ok(privateKeys(keys).includes(key))
})

test('openRotation() completes an opening that was interrupted, and refuses a second one', async (t) => {
  const keys = copy(t)
  await openRotation(keys, plan(['db']))
  const expected = contentOf(keys)
  await assert.rejects(openRotation(keys, plan(['kek'])), refuses(/a rotation of db is open since 2026-11-23/, /--finish/))
  rmSync(join(keys, 'updates'), { recursive: true })
  assert.equal((await openRotation(keys, plan(['db'], LATER))).opened, EPOCH)
  assert.deepEqual(contentOf(keys), expected)
})

test('one rotation follows another, and their updates stay in order', async (t) => {
  const keys = copy(t)
  await openRotation(keys, plan(['db']))
  await finishRotation(keys, end)
  await openRotation(keys, plan(['kek'], LATER + 1))
  await finishRotation(keys, { ...end, now: LATER + 2 })
  assert.deepEqual(await updateFolders(keys), ['1-open', '1-finish', '1-revoke', '2-open', '2-finish'])
  const steps = readFileSync(join(keys, 'updates/take'), 'utf8').match(/^take \S+ \S+/gm)
  assert.deepEqual(steps, ['take 1-open db', 'take 1-finish db', 'take 1-revoke dbx', 'take 2-open KEK', 'take 2-finish KEK'])
  const { previous } = await showKeys(keys, LATER)
  assert.deepEqual(
    previous.map(({ folder }) => folder.slice(keys.length + 1)),
    ['previous/2-2026-12-23', 'previous/1-2026-11-23'],
  )
})

test('openRotation() takes keys that were made elsewhere, and does not replace what is kept better by a file', async (t) => {
  const keys = copy(t)
  const from = join(keys, '..', 'from')
  await generateKeys(from, { commonName: 'Other', now: EPOCH, years: 5 })
  rmSync(join(keys, 'db.key'))
  writeFileSync(join(keys, 'db.signer'), 'pkcs11:token=x;object=db\n')
  await assert.rejects(openRotation(keys, plan(['db'])), refuses(/the present ones are not in files/, /rotate db --from DIR/))
  await openRotation(keys, { ...plan(['db']), from })
  assert.deepEqual(await certificateIn(join(keys, 'next'), 'db'), await certificateIn(from, 'db'))
  await finishRotation(keys, end)
  assert.ok(!existsSync(join(keys, 'db.signer')), 'the new key is a file')
  assert.equal(readFileSync(join(keys, 'previous/1-2026-11-23/db.signer'), 'utf8'), 'pkcs11:token=x;object=db\n')
  assert.equal((await loadSigners(keys, { epoch: EPOCH })).db.successor, undefined)
})

test('openRotation() refuses new keys that nobody could sign with, or that are the old ones, and leaves nothing behind', async (t) => {
  const keys = copy(t)
  const from = join(keys, '..', 'from')
  cpSync(directory, from, { recursive: true })
  const before = contentOf(keys)
  await assert.rejects(
    openRotation(keys, { ...plan(['db']), from }),
    refuses(/Cannot rotate db: the new certificate is the one in force/),
  )
  cpSync(join(from, 'pk.key'), join(from, 'db.key'))
  await assert.rejects(openRotation(keys, { ...plan(['db']), from }), refuses(/is not the key of certificate/))
  rmSync(join(from, 'db.crt'))
  await assert.rejects(openRotation(keys, { ...plan(['db']), from }), /Cannot read the new db certificate/)
  assert.deepEqual(contentOf(keys), before)
  assert.deepEqual(readdirSync(keys).sort(), readdirSync(directory).sort())
})

test('updates are signed with a KEK that has expired: firmware does not look, and that is when it must be replaced', async (t) => {
  const keys = copy(t)
  const late = EPOCH + 20 * 365 * 86_400
  await assert.rejects(loadSigners(keys, { epoch: late }), /expired/)
  assert.equal((await openRotation(keys, plan(['kek', 'db'], late))).updates.length, 1)
  assert.ok((await showKeys(keys, late)).keys.every(({ state }) => state === 'expired'))
  await finishRotation(keys, { now: late, microsoft: [] })
})

test('revoke() writes an update of dbx for what is new, and later images enrol all of it', async (t) => {
  const keys = copy(t)
  const program = (n: number) => ({ name: `old-${n}.efi`, on: '2026-11-23', program: String(n).repeat(64) })
  const first = await revoke(keys, [program(1), program(2), program(1)], { now: EPOCH })
  assert.deepEqual(first.fresh, [program(1), program(2)])
  assert.deepEqual(first.updates, [join(keys, 'updates/1-revoke')])
  assert.deepEqual((await revoke(keys, [program(2)], { now: EPOCH })).updates, [])
  const second = await revoke(keys, [program(2), program(3)], { now: EPOCH })
  const update = updateIn(join(second.updates[0]!, 'dbx.auth'), true)
  assert.deepEqual(update, { time: EPOCH, signer: await certificateIn(keys, 'kek'), holds: [Buffer.alloc(32, 0x33)] })

  const { lists } = (
    await makeEnrolment(await loadSigners(keys, { epoch: EPOCH }), {
      ...{ owner: await loadOwner(keys), time: EPOCH },
      revoked: [{ type: EFI_GUID.certSha256, entries: [{ owner: await loadOwner(keys), data: Buffer.alloc(32, 0x11) }] }],
    })
  ).dbx!
  assert.equal(decodeSignatureLists(lists)[0]!.type, EFI_GUID.certSha256)
})

test('parseRevocations() refuses what it does not know, rather than forget it', () => {
  for (const [text, why] of [
    ['{}', /it is no list/],
    ['[', /JSON/],
    ['[{"name":"x","on":"2026-11-23","program":"AB"}]', /entry 0 has neither/],
    ['[null]', /entry 0 lacks a name/],
    ['[{"name":"x","on":"2026-11-23","certificate":"AAAA"}]', /Cannot read certificate/],
  ] as const)
    assert.throws(
      () => parseRevocations(text, 'revoked.json'),
      (e) => e instanceof Fault && e.code === 'format' && why.test(e.message),
    )
})

oracle(
  'sbverify',
  'a program of a rotation that is open verifies with either certificate, and with no other',
  async (t, judge) => {
    const keys = copy(t)
    await openRotation(keys, plan(['db']))
    const { db } = await loadSigners(keys, { epoch: EPOCH })
    const path = join(judge.dir, 'signed.efi')
    writeFileSync(path, await signPe(tinyPe(), db))
    for (const [name, from] of [
      ['old', keys],
      ['new', join(keys, 'next')],
    ] as const)
      cpSync(join(from, 'db.crt'), join(judge.dir, `${name}.crt`))
    cpSync(join(keys, 'pk.crt'), join(judge.dir, 'other.crt'))
    assert.equal((await judge.run(['sbverify', '--list', path])).stdout.match(/^signature \d+/gm)?.length, 2)
    for (const name of ['old', 'new'])
      assert.match((await judge.run(['sbverify', '--cert', `${name}.crt`, path])).stdout, /Signature verification OK/)
    assert.notEqual((await judge.run(['sbverify', '--cert', 'other.crt', path], { allowFailure: true })).exitCode, 0)
  },
)

oracle('sign-efi-sig-list', 'updates are signatures of the bytes that efitools would sign, appended or not', async (t, judge) => {
  const keys = copy(t)
  await openRotation(keys, plan(ALL))
  await finishRotation(keys, { now: EPOCH + 60, microsoft: ['uefi-ca'] })
  // biome-ignore format: table
  const updates: [string, append: boolean, time: string][] = [
    ['1-open/db', true, '2026-11-23 00:00:00'], ['1-open/KEK', true, '2026-11-23 00:00:00'], ['1-open/PK', false, '2026-11-23 00:00:00'],
    ['1-finish/db', false, '2026-11-23 00:01:00'], ['1-finish/KEK', false, '2026-11-23 00:01:00'], ['1-revoke/dbx', true, '2026-11-23 00:01:00'],
  ]
  for (const [update, append, time] of updates) {
    const name = update.split('/')[1]!
    const { payload, signature } = decodeVariableUpdate(readFileSync(join(keys, 'updates', `${update}.auth`)))
    writeFileSync(join(judge.dir, 'payload.esl'), payload)
    await judge.run(['sign-efi-sig-list', ...(append ? ['-a'] : []), '-t', time, '-o', name, 'payload.esl', 'bundle'])
    const signed = decodeSignedData(signature)
    const signer = certificateOf(signed, signed.signers[0]!)!
    assert.deepEqual(checkSigner(signed, signed.signers[0]!, signer, readFileSync(join(judge.dir, 'bundle'))), [], update)
    await judge.run(['sig-list-to-certs', 'payload.esl', 'found'])
  }
})

oracle('openssl', 'the certificates are fit for what they are for', async (_t, judge) => {
  cpSync(directory, judge.dir, { recursive: true })
  for (const role of KEY_ROLES) {
    const { stdout } = await judge.run(['openssl', 'verify', '-x509_strict', '-CAfile', `${role}.crt`, `${role}.crt`])
    assert.match(stdout, /: OK$/m, role)
    const text = (await judge.run(['openssl', 'x509', '-in', `${role}.crt`, '-noout', '-text'])).stdout
    assert.match(text, role === 'pcr' ? /CA:FALSE/ : /CA:TRUE/)
    assert.match(text, /Key Usage: critical\n\s+Digital Signature/)
    assert.ok(publicKeyOf(await certificateIn(directory, role)))
  }
})

test('`take` enters what is for the machine, once, leaves dbx for when it is asked for, and says what was refused', async (t) => {
  const keys = copy(t)
  await openRotation(keys, plan(['db']))
  await finishRotation(keys, end)
  const efivars = join(keys, '..', 'efivars')
  mkdirSync(efivars)
  const file = join(efivars, `db-${EFI_GUID.securityDatabase}`)
  const old = await certificateIn(join(keys, 'previous/1-2026-11-23'), 'db')
  // Plain files, not firmware: each write replaces, and what was written ends with the payload.
  const take = async (...words: string[]) => {
    const script = ['sh', join(keys, 'updates/take'), ...words]
    const { stdout, stderr, exitCode } = await run(script, {
      env: { PATH: SYSTEM_PATH, BISQUE_EFIVARS: efivars, BISQUE_LUKS: '' },
      allowFailure: true,
    })
    return { exitCode, lines: `${stdout}${stderr}`.trim().split('\n') }
  }
  writeFileSync(file, Buffer.concat([Buffer.alloc(4), await certificateIn(keys, 'pk')]))
  const other = ['1-open db: not for this machine, or taken already', '1-finish db: not for this machine, or taken already']
  assert.deepEqual(await take(), { exitCode: 0, lines: other })

  writeFileSync(file, Buffer.concat([Buffer.alloc(4), old]))
  assert.equal((await take()).lines[0], '1-open db: taken')
  assert.equal(readFileSync(file)[0], 0x67)
  writeFileSync(file, Buffer.concat([Buffer.alloc(4), old, await certificateIn(keys, 'db')]))
  assert.deepEqual((await take()).lines, ['1-open db: taken already', '1-finish db: taken'])
  assert.equal(readFileSync(file)[0], 0x27)
  assert.deepEqual((await take()).exitCode, 0)

  assert.deepEqual(readdirSync(efivars), [`db-${EFI_GUID.securityDatabase}`])
  assert.deepEqual(await take('dbx'), { exitCode: 0, lines: ['1-revoke dbx: taken'] })
  assert.deepEqual(await take('dbx'), { exitCode: 0, lines: ['1-revoke dbx: taken already'] })
  rmSync(efivars, { recursive: true })
  const { exitCode, lines } = await take('dbx')
  assert.equal(exitCode, 1)
  assert.ok(lines.includes('1-revoke dbx: the firmware refused it'))
})
