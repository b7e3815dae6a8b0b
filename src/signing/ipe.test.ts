import assert from 'node:assert/strict'
import { cpSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { testKeys } from '../../test/keys.ts'
import { oracle } from '../../test/oracle.ts'
import { CMS_OID, certificateOf, checkSigner, decodeSignedData } from '../formats/cms.ts'
import { signIpePolicy } from './ipe.ts'

const POLICY = 'policy_name=acme policy_version=0.0.1\nDEFAULT action=ALLOW\n'
const { directory, signers } = await testKeys()

test('signIpePolicy() carries the policy as plain data under a signature that holds', async () => {
  const signed = decodeSignedData(await signIpePolicy(POLICY, signers.verity))
  assert.equal(signed.contentType, CMS_OID.data)
  assert.deepEqual(checkSigner(signed, signed.signers[0]!, certificateOf(signed, signed.signers[0]!)!), [])
})

oracle('openssl', 'openssl gives back the policy, to the byte', async (_t, judge) => {
  cpSync(directory, judge.dir, { recursive: true })
  writeFileSync(join(judge.dir, 'p.p7b'), await signIpePolicy(POLICY, signers.verity))
  const verify = [
    'openssl',
    'cms',
    '-verify',
    '-binary',
    '-inform',
    'der',
    '-in',
    'p.p7b',
    '-CAfile',
    'verity.crt',
    '-purpose',
    'any',
  ]
  assert.equal((await judge.run(verify)).stdout, POLICY)
})
