import assert from 'node:assert/strict'
import { test } from 'node:test'
import { testKeys } from '../../test/keys.ts'
import { tinyPe } from '../../test/tiny-pe.ts'
import { authenticodeDigest, checkAuthenticode } from '../formats/authenticode.ts'
import { decodeSignatureLists, EFI_GUID } from '../formats/esl.ts'
import { parsePcrSignatures, publicKeyFingerprint } from '../formats/pcr.ts'
import { decodePe, findSection, sectionContent } from '../formats/pe.ts'
import { publicKeyOf, sha256Bytes, verifyDigest } from '../formats/x509.ts'
import { signPe } from '../image/efi-program.ts'
import { makeUki } from '../image/uki.ts'
import { extendedDb, forgedAddon, revocationOf, signedBy, unsigned, withCmdline, withOtherInitrd, withPoliciesOf } from './kit.ts'

const { signers } = await testKeys()
const loader = await signPe(tinyPe(), signers.db)
const uki = (
  await makeUki({
    stub: { bytes: tinyPe() },
    kernel: { bytes: tinyPe({ text: Buffer.from('a kernel') }) },
    initrds: [{ bytes: Buffer.from('an initrd') }],
    osRelease: 'ID=tiny\n',
    cmdline: `usrhash=${'ab'.repeat(32)} quiet`,
    uname: '6.12-tiny',
    signers,
  })
).bytes
const sectionText = (pe: Uint8Array, name: string) => Buffer.from(sectionContent(pe, findSection(decodePe(pe), name)!)).toString()
const signersOf = (pe: Uint8Array) => checkAuthenticode(pe).map(({ certificate, problems }) => ({ certificate, problems }))

test('unsigned() takes every signature off, and nothing else', () => {
  assert.equal(signersOf(loader).length, 1)
  const bare = unsigned(loader)
  assert.deepEqual(signersOf(bare), [])
  assert.deepEqual(authenticodeDigest(bare), authenticodeDigest(loader))
})

test('signedBy() leaves the signature of one key alone, and it is a good one', async () => {
  const [only, ...others] = signersOf(await signedBy(loader, signers.verity))
  assert.deepEqual(only, { certificate: Buffer.from(signers.verity.certificate), problems: [] })
  assert.deepEqual(others, [])
})

test('withCmdline() changes the command line in place, so that the signature no longer fits', () => {
  const changed = withCmdline(uki, (cmdline) => `init=/bin/sh ${cmdline}`)
  assert.equal(changed.length, uki.length)
  assert.match(sectionText(changed, '.cmdline'), /^init=\/bin\/sh usrhash=/)
  assert.notDeepEqual(signersOf(changed)[0]!.problems, [])
})

test('forgedAddon() is a program whose .cmdline says what it adds', () => {
  assert.equal(sectionText(forgedAddon(loader, 'attack=1'), '.cmdline'), 'attack=1')
})

test('revocationOf() names the digest of a program, whoever signed it', () => {
  const [list] = decodeSignatureLists(revocationOf(loader, '00000000-0000-0000-0000-000000000000'))
  assert.equal(list!.type, EFI_GUID.certSha256)
  assert.deepEqual(Buffer.from(list!.entries[0]!.data), authenticodeDigest(unsigned(loader)))
})

test('extendedDb() keeps what db had', () => {
  const before = extendedDb(new Uint8Array(), signers.db, '00000000-0000-0000-0000-000000000000')
  const lists = decodeSignatureLists(extendedDb(before, signers.pcr, '00000000-0000-0000-0000-000000000000'))
  assert.deepEqual(
    lists.map(({ entries }) => Buffer.from(entries[0]!.data)),
    [Buffer.from(signers.db.certificate), Buffer.from(signers.pcr.certificate)],
  )
})

test('withOtherInitrd() measures differently, and is not signed', () => {
  const changed = withOtherInitrd(uki)
  assert.deepEqual(signersOf(changed), [])
  assert.notEqual(sectionText(changed, '.initrd'), sectionText(uki, '.initrd'))
})

test('withPoliciesOf() has policies of the other key for what the changed UKI measures, and no others', async () => {
  const changed = await withPoliciesOf(uki, signers.verity)
  const policies = parsePcrSignatures(sectionText(changed, '.pcrsig'))
  assert.equal(policies.length, 4)
  const before = parsePcrSignatures(sectionText(uki, '.pcrsig')).map(({ policy }) => Buffer.from(policy).toString('hex'))
  for (const { policy, signature, keyFingerprint } of policies) {
    assert.equal(keyFingerprint, publicKeyFingerprint(publicKeyOf(signers.verity.certificate)))
    assert.ok(verifyDigest(signers.verity.certificate, sha256Bytes(policy), signature))
    assert.ok(!before.includes(Buffer.from(policy).toString('hex'))) // .pcrpkey is measured
  }
})
