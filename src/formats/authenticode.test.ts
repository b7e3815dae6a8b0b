import assert from 'node:assert/strict'
import { cpSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import fc from 'fast-check'
import { EPOCH, testKeys } from '../../test/keys.ts'
import { oracle } from '../../test/oracle.ts'
import { TINY_PE, tinyPe } from '../../test/tiny-pe.ts'
import { Fault } from '../base/fault.ts'
import { signPe } from '../image/efi-program.ts'
import { authenticodeDigest, checkAuthenticode, decodeSignatures, signedImageDigest } from './authenticode.ts'
import { decodePe } from './pe.ts'

const BOOT = '/usr/lib/systemd/boot/efi/systemd-bootx64.efi'
const { directory, signers } = await testKeys()

test('a signed image holds for its certificate, and its digest did not change', async () => {
  const image = tinyPe()
  const signed = await signPe(image, signers.db)
  assert.deepEqual(authenticodeDigest(signed), authenticodeDigest(image))
  const [signature, ...more] = checkAuthenticode(signed)
  assert.deepEqual(more, [])
  assert.deepEqual(signature!.problems, [])
  assert.deepEqual(Buffer.from(signature!.certificate!), Buffer.from(signers.db.certificate))
})

test('a second signature is appended to the first', async () => {
  const twice = await signPe(await signPe(tinyPe(), signers.db), signers.kek, { signingTime: EPOCH })
  const all = checkAuthenticode(twice)
  assert.deepEqual(
    all.map(({ problems }) => problems),
    [[], []],
  )
  assert.deepEqual(Buffer.from(all[1]!.certificate!), Buffer.from(signers.kek.certificate))
  assert.equal(decodeSignatures(twice)[1]!.signers[0]!.attributes!.signingTime, EPOCH)
})

test('checkAuthenticode() sees one changed byte of the image', async () => {
  const signed = await signPe(tinyPe(), signers.db)
  signed[0x1001]! ^= 1
  assert.match(checkAuthenticode(signed)[0]!.problems.join(), /the image is not the one that was signed/)
})

test('an image of an odd length is padded before its signature', async () => {
  const odd = Buffer.concat([tinyPe(), Buffer.from('tail')])
  const signed = await signPe(odd, signers.db)
  assert.equal(decodePe(signed).certificateTable.offset % 8, 0)
  assert.deepEqual(checkAuthenticode(signed)[0]!.problems, [])
})

test('the same image and key give the same signed image', async () => {
  assert.deepEqual(await signPe(tinyPe(), signers.db), await signPe(tinyPe(), signers.db))
})

test('signPe() refuses an image with bytes after its certificate table', async () => {
  const signed = await signPe(tinyPe(), signers.db)
  await assert.rejects(signPe(Buffer.concat([signed, Buffer.alloc(8)]), signers.db), /certificate table is not at its end/)
})

test('decodeSignatures() refuses an entry larger than its table, or smaller than its header', async () => {
  const signed = Buffer.from(await signPe(tinyPe(), signers.db))
  const at = decodePe(signed).certificateTable.offset
  for (const length of [0, 7, 0xffff_ffff]) {
    const image = Buffer.from(signed)
    image.writeUInt32LE(length, at)
    assert.throws(() => decodeSignatures(image), /Cannot read WIN_CERTIFICATE at 0: its length is/)
  }
})

test('checkAuthenticode() never throws anything but a Fault, whichever byte of the table changes', async () => {
  const signed = await signPe(tinyPe(), signers.db)
  const { offset } = decodePe(signed).certificateTable
  fc.assert(
    fc.property(fc.integer({ min: offset, max: signed.length - 1 }), fc.nat(255), (at, value) => {
      try {
        checkAuthenticode(signed.with(at, value))
      } catch (e) {
        assert.ok(e instanceof Fault, String(e))
      }
    }),
    { numRuns: 500 },
  )
})

oracle('sbverify', 'sbverify and osslsigncode accept systemd-boot as we sign it', async (_t, judge) => {
  cpSync(directory, judge.dir, { recursive: true })
  await judge.run(['cp', BOOT, 'boot'])
  const signed = await signPe(readFileSync(join(judge.dir, 'boot')), signers.db, { signingTime: EPOCH })
  writeFileSync(join(judge.dir, 'signed'), signed)
  await judge.run(['sbverify', '--cert', 'db.crt', 'signed'])
  assert.match((await judge.run(['sbverify', '--list', 'signed'])).stdout, /subject: \/CN=Test Secure Boot/)
  assert.equal((await judge.run(['sbverify', '--cert', 'kek.crt', 'signed'], { allowFailure: true })).exitCode, 1)
  const { stdout } = await judge.run(['osslsigncode', 'verify', '-in', 'signed', '-CAfile', 'db.crt'])
  assert.match(stdout, /Signature verification: ok/)
  const listed = /Calculated message digest : ([0-9A-F]+)/.exec(stdout)?.[1]
  if (listed) assert.equal(authenticodeDigest(signed).toString('hex').toUpperCase(), listed)
  assert.match(stdout, new RegExp(`PE checksum\\s*: ${decodePe(signed).checkSum.toString(16).padStart(8, '0')}`, 'i'))
})

// biome-ignore format: table
const FOREIGN: [string, string[]][] = [
  ['sbsign',         ['sbsign', '--key', 'db.key', '--cert', 'db.crt', '--output', 'signed', 'boot']],
  ['systemd-sbsign', ['systemd-sbsign', 'sign', '--private-key=db.key', '--certificate=db.crt', '--output=signed', 'boot']],
  ['osslsigncode',   ['osslsigncode', 'sign', '-h', 'sha256', '-certs', 'db.crt', '-key', 'db.key', '-in', 'boot', '-out', 'signed']],
]
for (const [tool, argv] of FOREIGN)
  oracle(tool, 'we accept what it signed, and it accepts our signature beside its own', async (_t, judge) => {
    cpSync(directory, judge.dir, { recursive: true })
    await judge.run(['cp', BOOT, 'boot'])
    await judge.run(argv)
    const signed = readFileSync(join(judge.dir, 'signed'))
    const [signature] = checkAuthenticode(signed)
    assert.deepEqual(signature!.problems, [])
    assert.deepEqual(Buffer.from(signature!.certificate!), Buffer.from(signers.db.certificate))
    assert.deepEqual(Buffer.from(signedImageDigest(decodeSignatures(signed)[0]!)), authenticodeDigest(signed))
    writeFileSync(join(judge.dir, 'twice'), await signPe(signed, signers.kek))
    await judge.run(['sbverify', '--cert', 'db.crt', 'twice'])
    await judge.run(['sbverify', '--cert', 'kek.crt', 'twice'])
  })

oracle('hash-to-efi-sig-list', 'our image digest is the one efitools computes', async (_t, judge) => {
  await judge.run(['cp', BOOT, 'boot'])
  const { stdout } = await judge.run(['hash-to-efi-sig-list', 'boot', 'list'])
  assert.ok(
    stdout.replaceAll(/\s/g, '').includes(authenticodeDigest(readFileSync(join(judge.dir, 'boot'))).toString('hex')),
    stdout,
  )
})

test('the table entry of an unsigned image is empty', () => {
  assert.equal(tinyPe().readUInt32LE(TINY_PE.certificateEntry), 0)
  assert.deepEqual(decodeSignatures(tinyPe()), [])
})
