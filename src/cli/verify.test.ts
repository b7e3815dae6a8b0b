import assert from 'node:assert/strict'
import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { testKeys } from '../../test/keys.ts'
import { tinyPe } from '../../test/tiny-pe.ts'
import { Fault } from '../base/fault.ts'
import { Report } from '../base/report.ts'
import type { Link } from '../verify/image.ts'
import { loadTrust, verifyAll } from './verify.ts'
import { verifyText } from './verify-text.ts'

const links: Link[] = [
  { stage: 'firmware', name: 'partition table', ok: true, evidence: `2 equal copies ${'x'.repeat(200)}` },
  {
    stage: 'UKI',
    name: `EFI program EFI/Linux/${'a'.repeat(26)}.efi`,
    ok: false,
    evidence: '',
    problem: 'it is not signed; \x1b[31mred',
    hint: 'sign it with the key of db',
  },
  { stage: 'kernel', name: 'kernel configuration', ok: true, evidence: 'not known: none' },
]

test('verifyText() fits the width, ends with what does not hold, and lets no control characters through', () => {
  for (const columns of [60, 80, 120]) {
    const text = verifyText([{ path: 'a.raw', links }], { color: false, columns })
    for (const line of text.split('\n')) assert.ok(line.length <= columns, line)
    assert.doesNotMatch(text, /\x1b/)
    assert.match(text, /\n {2}firmware\n {4}✓ partition table +2 equal copies x+…/)
    assert.match(
      text,
      /One link does not hold:\n\n✗ EFI program .* \(UKI\)\n {2}it is not signed\n {2}�\[31mred\n {2}→ sign it with/,
    )
    assert.match(text, /\? kernel configuration/)
    assert.match(text, /1 of 3 links does not hold$/)
  }
  assert.match(verifyText([{ path: 'a.raw', links: [links[0]!] }], { color: true, columns: 80 }), /\x1b\[1;32mThe one link holds/)
})

test('loadTrust() takes a folder of keys, or the one certificate of mkosi', async (t) => {
  const { directory, signers } = await testKeys()
  const trust = await loadTrust(directory)
  assert.deepEqual(trust.db, [signers.db.certificate])
  assert.equal(trust.pcr.length, 1)
  const folder = mkdtempSync(join(tmpdir(), 'bisque-trust-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  await assert.rejects(loadTrust(folder), (error) => error instanceof Fault && error.code === 'missing')
  copyFileSync(join(directory, 'db.crt'), join(folder, 'mkosi.crt'))
  const single = await loadTrust(folder)
  assert.deepEqual(single.verity, [signers.db.certificate])
})

test('verifyAll() refuses what is no plain disk, with what makes one of it', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'bisque-verify-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  const refuses = async (bytes: Uint8Array, why: RegExp, hint: RegExp) => {
    const path = join(folder, 'image')
    writeFileSync(path, bytes)
    await assert.rejects(verifyAll([path], { trust: undefined, now: 0 }, new Report(() => {})), (error) => {
      assert.ok(error instanceof Fault && error.code === 'format')
      assert.match(error.message, why)
      assert.match(error.hint!, hint)
      return true
    })
  }
  await refuses(Buffer.from('28b52ffd0000', 'hex'), /compressed with zstd/, /^zstd -d --sparse .*image$/)
  await refuses(Buffer.from('514649fb', 'hex'), /a qcow2 image/, /qemu-img convert/)
  await refuses(tinyPe(), /an EFI program by itself/, /disk image/)
  await refuses(Buffer.from('{"rootHash":"00"'), /signature of a root hash by itself/, /disk image/)
  const missing = verifyAll([join(folder, 'absent')], { trust: undefined, now: 0 }, new Report(() => {}))
  await assert.rejects(missing, (error) => error instanceof Fault && error.code === 'missing')
})
