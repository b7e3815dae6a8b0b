import assert from 'node:assert/strict'
import { cpSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import fc from 'fast-check'
import { EPOCH, testKeys } from '../../test/keys.ts'
import { oracle } from '../../test/oracle.ts'
import { Fault } from '../base/fault.ts'
import { certificateOf, checkSigner, decodeSignedData } from './cms.ts'
import {
  certificateLists,
  decodeEfiTime,
  decodeSignatureLists,
  decodeVariableUpdate,
  EFI_GUID,
  encodeEfiTime,
  encodeSignatureLists,
  encodeVariableUpdate,
  prepareVariableUpdate,
  SECURE_BOOT_VARIABLES,
  type SignatureList,
  type VariableUpdate,
} from './esl.ts'
import { sha256Bytes } from './x509.ts'

const OWNER = '11111111-2222-3333-4444-555566667777'
const { directory, signers } = await testKeys()
const LISTS = certificateLists(OWNER, [signers.db.certificate, signers.verity.certificate])
const UPDATE: VariableUpdate = {
  name: 'db',
  vendor: SECURE_BOOT_VARIABLES.db,
  time: EPOCH + 3661,
  payload: encodeSignatureLists(LISTS),
}

async function auth(update: VariableUpdate): Promise<Uint8Array> {
  const prepared = prepareVariableUpdate(update)
  const signature = await signers.kek.sign(prepared.digest, 'EFI variable')
  return encodeVariableUpdate(update, prepared, { certificate: signers.kek.certificate, signature })
}

test('decodeSignatureLists() gives back what encodeSignatureLists() took', () => {
  const digests = { type: EFI_GUID.certSha256, entries: [1, 2].map((n) => ({ owner: OWNER, data: Buffer.alloc(32, n) })) }
  const plain = (lists: readonly SignatureList[]) =>
    lists.map(({ type, entries }) => [type, entries.map(({ owner, data }) => [owner, Buffer.from(data).toString('hex')])])
  assert.deepEqual(plain(decodeSignatureLists(encodeSignatureLists([...LISTS, digests]))), plain([...LISTS, digests]))
})

test('a .auth file holds its time, its payload and a signature of both', async () => {
  const { time, payload, signature } = decodeVariableUpdate(await auth(UPDATE))
  assert.equal(time, UPDATE.time)
  assert.deepEqual(Buffer.from(payload), Buffer.from(UPDATE.payload))
  const signed = decodeSignedData(signature)
  assert.equal(signed.content, undefined)
  assert.deepEqual(Buffer.from(certificateOf(signed, signed.signers[0]!)!), Buffer.from(signers.kek.certificate))
})

test('the same update and key give the same .auth file; another name or time another', async () => {
  assert.deepEqual(await auth(UPDATE), await auth(UPDATE))
  assert.notDeepEqual(prepareVariableUpdate(UPDATE).digest, prepareVariableUpdate({ ...UPDATE, name: 'dbx' }).digest)
  assert.notDeepEqual(prepareVariableUpdate(UPDATE).digest, prepareVariableUpdate({ ...UPDATE, time: 1 }).digest)
  assert.notDeepEqual(prepareVariableUpdate(UPDATE).digest, prepareVariableUpdate({ ...UPDATE, append: true }).digest)
})

test('decodeEfiTime() gives back what encodeEfiTime() took and refuses what is no date', () => {
  fc.assert(fc.property(fc.integer({ min: 0, max: 4e9 }), (t) => assert.equal(decodeEfiTime(encodeEfiTime(t)), t)))
  assert.throws(() => decodeEfiTime(new Uint8Array(16)), /Cannot read EFI_TIME/)
})

test('decodeSignatureLists() refuses lists whose sizes do not fit', () => {
  const bytes = Buffer.from(encodeSignatureLists(LISTS))
  const change = (at: number, value: number) => {
    const copy = Buffer.from(bytes)
    copy.writeUInt32LE(value, at)
    return copy
  }
  for (const wrong of [
    change(16, 0),
    change(16, 0xffff_ffff),
    change(20, 0xffff_ffff),
    change(24, 0),
    change(24, 16),
    change(24, 7),
  ])
    assert.throws(() => decodeSignatureLists(wrong), /Cannot read EFI_SIGNATURE_LIST at offset 0/)
  assert.throws(() => decodeSignatureLists(bytes.subarray(0, -1)), Fault)
})

test('encodeSignatureLists() refuses entries of different sizes, empty ones and none', () => {
  const list = (...sizes: number[]) => ({
    type: EFI_GUID.certSha256,
    entries: sizes.map((n) => ({ owner: OWNER, data: Buffer.alloc(n) })),
  })
  for (const wrong of [list(32, 31), list(0), list()]) assert.throws(() => encodeSignatureLists([wrong]), /of one size/)
})

test('the decoders never throw anything but a Fault, whichever bytes change', async () => {
  const bytes = await auth(UPDATE)
  fc.assert(
    fc.property(fc.nat(bytes.length - 1), fc.nat(255), fc.nat(bytes.length), (at, value, size) => {
      try {
        decodeSignatureLists(
          decodeVariableUpdate(
            Buffer.from(bytes)
              .fill(value, at, at + 1)
              .subarray(0, size),
          ).payload,
        )
      } catch (e) {
        assert.ok(e instanceof Fault, String(e))
      }
    }),
    { numRuns: 1000 },
  )
})

oracle('sig-list-to-certs', 'efitools reads the certificates of our lists', async (_t, judge) => {
  writeFileSync(join(judge.dir, 'db.esl'), UPDATE.payload)
  const { stdout } = await judge.run(['sig-list-to-certs', 'db.esl', 'out'])
  assert.match(stdout, new RegExp(OWNER))
  assert.deepEqual(readFileSync(join(judge.dir, 'out-0.der')), Buffer.from(signers.db.certificate))
  assert.deepEqual(readFileSync(join(judge.dir, 'out-1.der')), Buffer.from(signers.verity.certificate))
})

oracle('sign-efi-sig-list', 'efitools signs the same bytes for the same update, and we read its file', async (_t, judge) => {
  cpSync(directory, judge.dir, { recursive: true })
  const make = ['cert-to-efi-sig-list', '-g', OWNER, 'db.crt', 'db.esl']
  await judge.run(make)
  const payload = readFileSync(join(judge.dir, 'db.esl'))
  assert.deepEqual(Buffer.from(encodeSignatureLists(LISTS.slice(0, 1))), payload)
  const update = { ...UPDATE, time: EPOCH, payload }
  await judge.run(['sign-efi-sig-list', '-t', '2026-11-23 00:00:00', '-o', 'db', 'db.esl', 'bundle'])
  const bundle = readFileSync(join(judge.dir, 'bundle'))
  assert.equal(Buffer.from(prepareVariableUpdate(update).digest).toString('hex'), sha256Bytes(bundle).toString('hex'))

  await judge.run(['sign-efi-sig-list', '-t', '2026-11-23 00:00:00', '-k', 'kek.key', '-c', 'kek.crt', 'db', 'db.esl', 'db.auth'])
  const theirs = decodeVariableUpdate(readFileSync(join(judge.dir, 'db.auth')))
  assert.equal(theirs.time, EPOCH)
  assert.deepEqual(Buffer.from(theirs.payload), payload)
  const signed = decodeSignedData(theirs.signature)
  assert.deepEqual(checkSigner(signed, signed.signers[0]!, signers.kek.certificate, bundle), [])

  writeFileSync(join(judge.dir, 'ours.p7'), decodeVariableUpdate(await auth(update)).signature)
  const verify = ['openssl', 'cms', '-verify', '-binary', '-inform', 'der', '-in', 'ours.p7', '-content', 'bundle']
  await judge.run([...verify, '-CAfile', 'kek.crt', '-purpose', 'any', '-out', '/dev/null'])
})

oracle('sbvarsign', 'we read a variable that sbvarsign signed', async (_t, judge) => {
  cpSync(directory, judge.dir, { recursive: true })
  writeFileSync(join(judge.dir, 'db.esl'), UPDATE.payload)
  await judge.run(['sbvarsign', '--key', 'kek.key', '--cert', 'kek.crt', '--output', 'db.auth', 'db', 'db.esl'])
  const { payload, signature } = decodeVariableUpdate(readFileSync(join(judge.dir, 'db.auth')))
  assert.deepEqual(decodeSignatureLists(payload).length, 2)
  assert.equal(decodeSignedData(signature).signers.length, 1)
})
