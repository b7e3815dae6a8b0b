import assert from 'node:assert/strict'
import { cpSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { EPOCH, testKeys } from '../../test/keys.ts'
import { oracle } from '../../test/oracle.ts'
import { certificateOf, checkSigner, decodeSignedData } from '../formats/cms.ts'
import { decodeSignatureLists, decodeVariableUpdate, EFI_GUID } from '../formats/esl.ts'
import { loadOwner } from './keys.ts'
import { makeEnrolment } from './secure-boot.ts'

const { directory, signers } = await testKeys()
const OPTIONS = { owner: await loadOwner(directory), time: EPOCH }
const enrolment = await makeEnrolment(signers, OPTIONS)

test('makeEnrolment() enters the certificates, the verity one in db because the kernel looks there', () => {
  const certificates = (name: 'PK' | 'KEK' | 'db') =>
    decodeSignatureLists(decodeVariableUpdate(enrolment[name].auth).payload).map(({ type, entries }) => {
      assert.equal(type, EFI_GUID.certX509)
      assert.equal(entries[0]!.owner, OPTIONS.owner)
      return Buffer.from(entries[0]!.data)
    })
  assert.deepEqual(certificates('PK'), [Buffer.from(signers.pk.certificate)])
  assert.deepEqual(certificates('KEK'), [Buffer.from(signers.kek.certificate)])
  assert.deepEqual(
    certificates('db'),
    [signers.db, signers.verity].map(({ certificate }) => Buffer.from(certificate)),
  )
})

test('makeEnrolment() enters a certificate that has both roles once', async () => {
  const { db } = await makeEnrolment({ ...signers, verity: signers.db }, OPTIONS)
  assert.equal(decodeSignatureLists(db.lists).length, 1)
})

test('the same keys, owner and time give the same variables', async () => {
  assert.deepEqual(await makeEnrolment(signers, OPTIONS), enrolment)
})

oracle(
  'sign-efi-sig-list',
  'each variable is signed by the key above it, over the bytes efitools would sign',
  async (_t, judge) => {
    cpSync(directory, judge.dir, { recursive: true })
    for (const [name, by] of [
      ['PK', 'pk'],
      ['KEK', 'pk'],
      ['db', 'kek'],
    ] as const) {
      const { lists, auth } = enrolment[name]
      writeFileSync(join(judge.dir, `${name}.esl`), lists)
      await judge.run(['sign-efi-sig-list', '-t', '2026-11-23 00:00:00', '-o', name, `${name}.esl`, 'bundle'])
      const { time, signature } = decodeVariableUpdate(auth)
      assert.equal(time, EPOCH)
      const signed = decodeSignedData(signature)
      const certificate = certificateOf(signed, signed.signers[0]!)!
      assert.deepEqual(Buffer.from(certificate), Buffer.from(signers[by].certificate))
      assert.deepEqual(checkSigner(signed, signed.signers[0]!, certificate, readFileSync(join(judge.dir, 'bundle'))), [])
    }
  },
)
