import assert from 'node:assert/strict'
import { cpSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import fc from 'fast-check'
import { EPOCH, testKeys } from '../../test/keys.ts'
import { oracle } from '../../test/oracle.ts'
import { Fault } from '../base/fault.ts'
import {
  attachSignature,
  CMS_OID,
  certificateOf,
  checkSigner,
  decodeSignedData,
  type PreparedSignature,
  prepareDetached,
  prepareEmbedded,
  prepareWithAttributes,
} from './cms.ts'
import { octetString, sequence } from './der.ts'

const CONTENT = Buffer.from('policy_name=acme policy_version=0.0.1\nDEFAULT action=ALLOW\n')
const { signers } = await testKeys()
const signer = signers.verity

const signed = async (prepared: PreparedSignature) =>
  attachSignature(prepared, signer.certificate, await signer.sign(prepared.digest, 'root hash'))

/** The problems of the only signature there is. */
function problemsOf(bytes: Uint8Array, content?: Uint8Array): string[] {
  const data = decodeSignedData(bytes)
  assert.equal(data.signers.length, 1)
  const certificate = certificateOf(data, data.signers[0]!)
  assert.ok(certificate, 'the certificate is carried')
  return checkSigner(data, data.signers[0]!, certificate, content)
}

test('a detached signature holds for its content and no other', async () => {
  const bytes = await signed(prepareDetached(CONTENT))
  assert.equal(decodeSignedData(bytes).content, undefined)
  assert.deepEqual(problemsOf(bytes, CONTENT), [])
  assert.match(problemsOf(bytes, Buffer.from('other')).join(), /does not verify/)
  assert.match(problemsOf(bytes).join(), /neither carried nor given/)
})

test('an embedded signature carries its content', async () => {
  const bytes = await signed(prepareEmbedded(CONTENT))
  const data = decodeSignedData(bytes)
  assert.equal(data.contentType, CMS_OID.data)
  assert.deepEqual(Buffer.from(data.content!), Buffer.from(octetString(CONTENT)))
  assert.deepEqual(problemsOf(bytes), [])
})

test('a signature with attributes covers content, its type and the time', async () => {
  const bytes = await signed(prepareWithAttributes('1.2.3.4', sequence(octetString(CONTENT)), EPOCH))
  const data = decodeSignedData(bytes)
  assert.equal(data.signers[0]!.attributes!.signingTime, EPOCH)
  assert.deepEqual(problemsOf(bytes), [])
  assert.match(checkSigner({ ...data, contentType: '1.2.3.5' }, data.signers[0]!, signer.certificate).join(), /content type/)
  const other = { ...data, content: sequence(octetString(Buffer.from('other'))) }
  assert.match(checkSigner(other, data.signers[0]!, signer.certificate).join(), /not the one that was signed/)
  assert.match(checkSigner(data, data.signers[0]!, signers.db.certificate).join(), /does not verify/)
})

test('decodeSignedData() reads a SignedData without its ContentInfo, as EFI variables may have it', async () => {
  const bytes = await signed(prepareDetached(CONTENT))
  const bare = bytes.subarray(Buffer.from(bytes).indexOf(Buffer.from('020101310f', 'hex')) - 4)
  assert.equal(bare[0], 0x30)
  assert.deepEqual(decodeSignedData(bare), decodeSignedData(bytes))
})

test('the same content and key give the same bytes', async () => {
  assert.deepEqual(await signed(prepareDetached(CONTENT)), await signed(prepareDetached(CONTENT)))
})

test('decodeSignedData() refuses bytes cut off, bytes too many and another type', async () => {
  const bytes = await signed(prepareDetached(CONTENT))
  assert.throws(() => decodeSignedData(bytes.subarray(0, -1)), Fault)
  assert.throws(() => decodeSignedData(Buffer.concat([bytes, Buffer.alloc(1)])), /1 bytes too many/)
  const other = Buffer.from(bytes)
  other[14] = 3 // pkcs7-envelopedData
  assert.throws(() => decodeSignedData(other), /type 1\.2\.840\.113549\.1\.7\.3: expected signedData/)
})

test('decodeSignedData() never throws anything but a Fault, whichever byte changes', async () => {
  const bytes = await signed(prepareWithAttributes('1.2.3.4', sequence(octetString(CONTENT)), EPOCH))
  fc.assert(
    fc.property(fc.nat(bytes.length - 1), fc.integer({ min: 1, max: 255 }), (at, change) => {
      try {
        const data = decodeSignedData(Buffer.from(bytes).fill(bytes[at]! ^ change, at, at + 1))
        for (const one of data.signers) certificateOf(data, one)
      } catch (e) {
        assert.ok(e instanceof Fault, String(e))
      }
    }),
    { numRuns: 1000 },
  )
})

oracle('openssl', 'openssl verifies our detached and embedded signatures', async (_t, judge) => {
  const { directory } = await testKeys()
  cpSync(directory, judge.dir, { recursive: true })
  writeFileSync(join(judge.dir, 'content'), CONTENT)
  writeFileSync(join(judge.dir, 'detached.der'), await signed(prepareDetached(CONTENT)))
  writeFileSync(join(judge.dir, 'embedded.der'), await signed(prepareEmbedded(CONTENT)))
  const verify = ['openssl', 'cms', '-verify', '-binary', '-inform', 'der', '-CAfile', 'verity.crt', '-purpose', 'any']
  await judge.run([...verify, '-in', 'detached.der', '-content', 'content', '-out', '/dev/null'])
  const { stdout } = await judge.run([...verify, '-in', 'embedded.der'])
  assert.equal(stdout, CONTENT.toString())
})

oracle('openssl', 'we read what openssl signed, with and without attributes, and write the same bytes', async (_t, judge) => {
  const { directory } = await testKeys()
  cpSync(directory, judge.dir, { recursive: true })
  writeFileSync(join(judge.dir, 'content'), CONTENT)
  const sign = ['openssl', 'smime', '-sign', '-binary', '-in', 'content', '-signer', 'verity.crt', '-inkey', 'verity.key']
  const foreign = async (...extra: string[]) => {
    await judge.run([...sign, '-nosmimecap', '-md', 'sha256', '-outform', 'der', '-out', 'signed.der', ...extra])
    return readFileSync(join(judge.dir, 'signed.der'))
  }
  const detached = await foreign('-noattr')
  assert.deepEqual(problemsOf(detached, CONTENT), [])
  assert.deepEqual(Buffer.from(await signed(prepareDetached(CONTENT))), detached)
  const embedded = await foreign('-noattr', '-nodetach')
  assert.deepEqual(problemsOf(embedded), [])
  assert.deepEqual(Buffer.from(await signed(prepareEmbedded(CONTENT))), embedded)
  const withAttributes = await foreign('-nodetach')
  assert.deepEqual(problemsOf(withAttributes), [])
})
