/**
 * Wherever keys are, an image has the same bytes: one signed by a token and one signed by another machine are compared with
 * one signed by files, and verified. The image is of a few pages.
 */
import assert from 'node:assert/strict'
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { encodeVeritySignature } from '../src/formats/verity.ts'
import { signPe } from '../src/image/efi-program.ts'
import { loadSigners } from '../src/signing/load.ts'
import { signRootHash } from '../src/signing/root-hash.ts'
import { makeEnrolment } from '../src/signing/secure-boot.ts'
import { KEY_ROLES, type Signers } from '../src/signing/signer.ts'
import { checkImage } from '../src/verify/image.ts'
import { EPOCH, testKeys } from './keys.ts'
import { oracle } from './oracle.ts'
import { makeIdentity, startSigningServer } from './signing-server.ts'
import {
  assemble,
  assertBroken,
  BOOT,
  FALLBACK,
  folder,
  good,
  initrdOf,
  owner,
  plainBoot,
  trust,
  UKI,
  ukiOf,
  usr,
} from './tiny-image.ts'
import { makeToken, moveToToken } from './token.ts'

const { directory, signers } = await testKeys()

/** The stages that signatures hold together; what the image's kernel makes of them is of no matter here. */
const SIGNED: ReadonlySet<string> = new Set(['firmware', 'boot loader', 'UKI', 'measured boot', 'verity'])

/** Has everything in the image signed by these, and compares. */
async function assertSameImage(name: string, by: Signers): Promise<void> {
  for (const role of KEY_ROLES) assert.notEqual(by[role], signers[role])
  const boot = await signPe(plainBoot, by.db, { purpose: 'boot loader' })
  const { PK, KEK, db } = await makeEnrolment(by, { owner, time: EPOCH })
  const initrds = [{ bytes: await initrdOf({ policySigner: by.verity }) }]
  const keys = 'loader/keys/auto'
  const path = join(folder, `${name}.raw`)
  await assemble(path, {
    signature: encodeVeritySignature(await signRootHash(usr.rootHash, by.verity)),
    files: {
      [UKI]: await ukiOf({ signers: by, initrds }),
      [FALLBACK]: boot,
      [BOOT]: boot,
      [`${keys}/PK.auth`]: PK.auth,
      [`${keys}/KEK.auth`]: KEK.auth,
      [`${keys}/db.auth`]: db.auth,
    },
  })
  assert.ok(readFileSync(path).equals(readFileSync(good)))
  const links = (await checkImage(path, trust)).filter(({ stage }) => SIGNED.has(stage))
  assert.ok(links.length >= SIGNED.size)
  assertBroken(links, {})
}

oracle('softhsm2-util', 'an image signed by keys in a token is the one signed by files', async (_t, judge) => {
  const token = await makeToken(judge)
  const tokens = token.open()
  await assertSameImage('token', await loadSigners(await moveToToken(judge, token, directory), { epoch: EPOCH, tokens }))
  await tokens.close()
})

test('an image signed by another machine is the one signed by files', async (t) => {
  const identity = await makeIdentity()
  await using server = await startSigningServer(identity, signers)
  const keys = mkdtempSync(join(tmpdir(), 'bisque-remote-'))
  t.after(() => rmSync(keys, { recursive: true }))
  for (const role of KEY_ROLES) {
    cpSync(join(directory, `${role}.crt`), join(keys, `${role}.crt`))
    writeFileSync(join(keys, `${role}.signer`), server.address)
  }
  writeFileSync(join(keys, 'signer.ca.crt'), identity.certificate)
  await assertSameImage('remote', await loadSigners(keys, { epoch: EPOCH }))
  const purposes = new Set(server.asked.map(({ body }) => body['purpose']))
  assert.deepEqual([...purposes].filter(Boolean).sort(), [
    'EFI variable',
    'IPE policy',
    'PCR policy',
    'UKI',
    'boot loader',
    'root hash',
  ])
})
