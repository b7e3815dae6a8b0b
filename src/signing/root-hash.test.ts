import assert from 'node:assert/strict'
import { cpSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { testKeys } from '../../test/keys.ts'
import { oracle } from '../../test/oracle.ts'
import { sha256 } from '../base/digest.ts'
import { certificateOf, checkSigner, decodeSignedData } from '../formats/cms.ts'
import { decodeVeritySignature, encodeVeritySignature } from '../formats/verity.ts'
import { signRootHash } from './root-hash.ts'

const { directory, signers } = await testKeys()
const ROOT_HASH = sha256('root')

test('signRootHash() signs the digits of the root hash, and goes through the signature partition', async () => {
  const value = await signRootHash(ROOT_HASH, signers.verity)
  assert.equal(value.certificateFingerprint, sha256(signers.verity.certificate))
  const { signature } = decodeVeritySignature(encodeVeritySignature(value))
  const signed = decodeSignedData(signature)
  const certificate = certificateOf(signed, signed.signers[0]!)!
  assert.deepEqual(checkSigner(signed, signed.signers[0]!, certificate, Buffer.from(ROOT_HASH)), [])
  assert.equal(checkSigner(signed, signed.signers[0]!, certificate, Buffer.from(sha256('other'))).length, 1)
})

test('the same root hash and key give the same signature', async () => {
  assert.deepEqual(await signRootHash(ROOT_HASH, signers.verity), await signRootHash(ROOT_HASH, signers.verity))
})

test('signRootHash() refuses what is no root hash', async () => {
  for (const wrong of ['', ROOT_HASH.toUpperCase(), `${ROOT_HASH}\n`])
    await assert.rejects(signRootHash(wrong, signers.verity), /expected 64 lower-case/)
})

oracle('openssl', 'openssl verifies our root hash signature, and not with another certificate', async (_t, judge) => {
  cpSync(directory, judge.dir, { recursive: true })
  writeFileSync(join(judge.dir, 'roothash'), ROOT_HASH)
  writeFileSync(join(judge.dir, 'sig.der'), (await signRootHash(ROOT_HASH, signers.verity)).signature)
  const verify = [
    'openssl',
    'cms',
    '-verify',
    '-binary',
    '-inform',
    'der',
    '-in',
    'sig.der',
    '-content',
    'roothash',
    '-out',
    '/dev/null',
  ]
  await judge.run([...verify, '-certfile', 'verity.crt', '-noverify'])
  await judge.run([...verify, '-CAfile', 'verity.crt', '-purpose', 'any'])
  const other = await judge.run([...verify, '-CAfile', 'db.crt', '-purpose', 'any'], { allowFailure: true })
  assert.notEqual(other.exitCode, 0)
  // As systemd checks it: certificates of the folder alone, none of those that are carried.
  await judge.run(['openssl', 'smime', ...verify.slice(2), '-certfile', 'verity.crt', '-nointern', '-noverify'])
})
