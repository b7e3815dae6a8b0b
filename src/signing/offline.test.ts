import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { test } from 'node:test'
import fc from 'fast-check'
import { EPOCH, testKeys } from '../../test/keys.ts'
import { tinyPe } from '../../test/tiny-pe.ts'
import { sha256 } from '../base/digest.ts'
import { Fault } from '../base/fault.ts'
import { attachCertificateSignature, prepareCertificate, publicKeyOf, verifyDigest } from '../formats/x509.ts'
import { makeAddon } from '../image/addon.ts'
import { signPe } from '../image/efi-program.ts'
import { makeUki } from '../image/uki.ts'
import { signIpePolicy } from './ipe.ts'
import { type Asked, type AskedKey, keyOf, MAY_HOLD, nextRound, type OfflineSigners, offlineSigners } from './offline.ts'
import { signRootHash } from './root-hash.ts'
import { makeEnrolment } from './secure-boot.ts'
import { KEY_ROLES, PURPOSES, type Purpose, type Signers, signDigest } from './signer.ts'

const { signers: online } = await testKeys()

const withoutKeys = (offline: OfflineSigners): Signers =>
  Object.fromEntries(KEY_ROLES.map((role) => [role, offline.signer(online[role].certificate, { role })])) as unknown as Signers

/** Everything that a hermetic image signs, in the order a build has: what is signed later has what was signed before in it. */
async function everything(signers: Signers) {
  const { PK, KEK, db } = await makeEnrolment(signers, {
    owner: '11111111-2222-4333-8444-555555555555',
    time: EPOCH,
  })
  const policy = await signIpePolicy('policy_name=test policy_version=0.0.0\nDEFAULT action=DENY\n', signers.verity)
  const loader = await signPe(tinyPe({ text: Buffer.from('a loader') }), signers.db, { purpose: 'boot loader' })
  const kernel = await signPe(tinyPe({ text: Buffer.from('a kernel') }), signers.db)
  const addon = await makeAddon({ stub: { bytes: tinyPe() }, cmdline: 'quiet', signer: signers.db })
  const certificate = await certified(signers)
  const usr = sha256(Buffer.concat([loader, addon]))
  const { signature } = await signRootHash(usr, signers.verity)
  const uki = await makeUki({
    stub: { bytes: tinyPe() },
    kernel: { bytes: kernel },
    initrds: [{ bytes: policy }],
    osRelease: 'ID=tiny\n',
    cmdline: `usrhash=${usr}`,
    uname: '6.12-tiny',
    signers,
  })
  return [PK.auth, KEK.auth, db.auth, policy, loader, kernel, addon, certificate, signature, uki.bytes]
}

async function certified({ pk }: Signers): Promise<Uint8Array> {
  const prepared = prepareCertificate({
    commonName: 'Test',
    serialNumber: Uint8Array.of(1),
    notBefore: EPOCH,
    notAfter: EPOCH + 86_400,
    publicKey: publicKeyOf(pk.certificate),
    authority: true,
    codeSigning: false,
  })
  return attachCertificateSignature(prepared, await signDigest(pk, prepared.digest, 'certificate', 'Test'))
}

/** Makes everything in rounds, as whoever has the keys signs what is asked for in between. */
async function inRounds(): Promise<{ made: Uint8Array[]; rounds: Asked[][] }> {
  const signatures = new Map<AskedKey, Uint8Array>()
  const rounds: Asked[][] = []
  for (;;) {
    const offline = offlineSigners(signatures)
    const made = await everything(withoutKeys(offline))
    if (offline.missing().length === 0) return { made, rounds }
    const asked = nextRound(offline.missing(), () => false)
    for (const one of asked) signatures.set(keyOf(one), await online[one.role].sign(Buffer.from(one.digest, 'hex'), one.purpose))
    rounds.push(asked)
    assert.ok(rounds.length <= PURPOSES.length, 'it comes to an end')
  }
}

test('every purpose is signed in rounds, to the bytes that signing at once gives', async () => {
  const { made, rounds } = await inRounds()
  assert.deepEqual(made, await everything(online))
  const purposes = rounds.map((round) => [...new Set(round.map((one) => one.purpose))].sort())
  assert.deepEqual(purposes, [
    ['EFI program', 'EFI variable', 'IPE policy', 'addon', 'boot loader', 'certificate'],
    ['PCR policy', 'root hash'],
    ['UKI'],
  ])
  assert.deepEqual(purposes.flat().sort(), [...PURPOSES].sort())
})

test('no round asks for what a later one does not: each digest is asked for once, and is final', async () => {
  const { rounds } = await inRounds()
  // What a build with all signatures wants signed.
  const complete = new Map<AskedKey, Uint8Array>()
  for (const one of rounds.flat())
    complete.set(keyOf(one), await online[one.role].sign(Buffer.from(one.digest, 'hex'), one.purpose))
  const last = offlineSigners(complete)
  await everything(withoutKeys(last))
  assert.deepEqual(new Set(rounds.flat().map(keyOf)), new Set(last.asked().map(keyOf)))
  assert.equal(new Set(rounds.flat().map(keyOf)).size, rounds.flat().length)
})

test('what may hold what is without circles, so that some digest can always be signed', () => {
  const inOrder: Purpose[] = []
  while (inOrder.length < PURPOSES.length) {
    const next = PURPOSES.filter((one) => !inOrder.includes(one) && MAY_HOLD[one].every((held) => inOrder.includes(held)))
    assert.ok(next.length > 0, `${PURPOSES.filter((one) => !inOrder.includes(one))} hold each other`)
    inOrder.push(...next)
  }
})

const asked = (purpose: Purpose, more: Partial<Asked> = {}): Asked => ({
  role: 'db',
  purpose,
  digest: createHash('sha256')
    .update(`${purpose} ${JSON.stringify(more)}`)
    .digest('hex'),
  certificate: 'c'.repeat(64),
  ...more,
})

test('nextRound() lets images of their own go their own ways, and waits for what one takes out of another', () => {
  const sysext = asked('root hash', { image: 'ext' })
  const usr = asked('root hash', { image: 'main' })
  const loader = asked('boot loader', { image: 'main' })
  const round = (holds: boolean, ...missing: Asked[]) =>
    nextRound(missing, (one, other) => holds && one === 'main' && other === 'ext')
  assert.deepEqual(round(false, sysext, usr), [sysext, usr])
  assert.deepEqual(round(true, sysext, usr), [sysext])
  assert.deepEqual(round(true, usr), [usr])
  assert.deepEqual(round(true, sysext, loader), [loader, sysext])
  assert.deepEqual(round(false, sysext, usr, loader), [loader, sysext])
})

test('nextRound() takes what no image names for part of all of them', () => {
  const policy = asked('IPE policy')
  const uki = asked('UKI', { image: 'main' })
  assert.deepEqual(
    nextRound([uki, policy], () => false),
    [policy],
  )
})

test('nextRound() asks for one digest once, though several images have it', () => {
  const one = asked('boot loader')
  assert.equal(
    nextRound(
      [
        { ...one, image: 'a' },
        { ...one, image: 'b' },
      ],
      () => false,
    ).length,
    1,
  )
})

test('as long as something is missing, nextRound() has something to sign, in one order', () => {
  const image = fc.option(fc.constantFrom('a', 'b', 'c'), { nil: undefined })
  const any = fc
    .record({ purpose: fc.constantFrom(...PURPOSES), role: fc.constantFrom(...KEY_ROLES), image })
    .map(({ purpose, role, image }) => asked(purpose, { role, ...(image === undefined ? {} : { image }) }))
  fc.assert(
    fc.property(fc.array(any, { minLength: 1, maxLength: 12 }), (missing) => {
      const later = (one: string, other: string) => one > other
      const round = nextRound(missing, later)
      assert.ok(round.length > 0)
      assert.deepEqual(nextRound(missing.toReversed(), later), round)
    }),
  )
})

test('a placeholder goes where a signature would, and only the one that was handed out', async () => {
  const offline = offlineSigners(new Map())
  const signer = offline.signer(online.db.certificate, { role: 'db' })
  const digest = Buffer.alloc(32, 1)
  const placeholder = await signDigest(signer, digest, 'UKI')
  assert.equal(placeholder.length, 256)
  assert.equal(verifyDigest(signer.certificate, digest, placeholder), false)
  assert.equal(offline.missing().length, 1)
  const copied = { certificate: signer.certificate, sign: async () => Uint8Array.from(placeholder) }
  await assert.rejects(signDigest(copied, digest, 'UKI'), (error) => error instanceof Fault && error.code === 'integrity')
})

test('a signature that is not right is refused, wherever it came from', async () => {
  const digest = Buffer.alloc(32, 1)
  const key = keyOf({ certificate: sha256(online.db.certificate), digest: digest.toString('hex') })
  const offline = offlineSigners(new Map([[key, await online.pk.sign(digest, 'UKI')]]))
  await assert.rejects(
    signDigest(offline.signer(online.db.certificate, { role: 'db' }), digest, 'UKI'),
    (error) => error instanceof Fault && error.code === 'integrity',
  )
})

test('signers of an image know it, their successors too, and those with a key stay what they are', async () => {
  const offline = offlineSigners(new Map())
  const next = offline.signer(online.kek.certificate, { role: 'db', successor: true })
  const both = { ...offline.signer(online.db.certificate, { role: 'db' }), successor: next }
  const withKey = { ...online.verity, successor: offline.signer(online.pk.certificate, { role: 'verity', successor: true }) }
  const within = offline.within({ ...online, db: both, verity: withKey }, 'main')
  assert.equal(within.pk, online.pk)
  const digest = Buffer.alloc(32, 1)
  await within.db.sign(digest, 'UKI')
  await within.db.successor!.sign(digest, 'UKI')
  assert.deepEqual(await within.verity.sign(digest, 'root hash'), await online.verity.sign(digest, 'root hash'))
  await within.verity.successor!.sign(digest, 'root hash')
  assert.deepEqual(
    offline.missing().map(({ role, successor, image }) => ({ role, successor, image })),
    [
      { role: 'db', successor: undefined, image: 'main' },
      { role: 'db', successor: true, image: 'main' },
      { role: 'verity', successor: true, image: 'main' },
    ],
  )
})
