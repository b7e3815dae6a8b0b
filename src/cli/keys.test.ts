import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { baked, bakedManifest, notBaked } from '../../test/baked.ts'
import { EPOCH } from '../../test/keys.ts'
import { tinyPe } from '../../test/tiny-pe.ts'
import { Fault } from '../base/fault.ts'
import { keysGenerate, keysLines, keysRevoke, keysRotate, keysShow, revokeLines, rotateLines } from './keys.ts'

const AGAIN = { command: 'the same again', color: false }

test('keys generate and keys show give the same result, four lines a key', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'bisque-keys-'))
  t.after(() => rmSync(folder, { recursive: true }))
  const keys = join(folder, 'keys')
  const generated = await keysGenerate({ keys, commonName: 'Acme', years: 2, now: EPOCH })
  assert.deepEqual(await keysShow({ keys, now: EPOCH }), generated)

  rmSync(join(keys, 'pk.key'))
  const lines = keysLines(await keysShow({ keys, now: EPOCH + 650 * 86_400 }))
  assert.equal(lines.length, 1 + 5 * 4)
  assert.equal(lines[0], `Keys in ${keys}`)
  assert.equal(lines[1], 'pk      owns the machine: signs changes of PK and KEK')
  assert.equal(lines[2], '        CN=Acme Platform Key, 2026-11-23 to 2028-11-22: 80 days left, ROTATE SOON')
  assert.equal(lines[3], '        private key not here')
  assert.match(lines[4]!, /^ {8}SHA-256 [0-9a-f]{64}$/)
  assert.match(keysLines(await keysShow({ keys, now: EPOCH + 3 * 366 * 86_400 }))[2]!, /: EXPIRED$/)
})

test('keys rotate, show, revoke and --finish say what was done and what is next', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'bisque-keys-'))
  t.after(() => rmSync(folder, { recursive: true }))
  const keys = join(folder, 'keys')
  await keysGenerate({ keys, commonName: 'Acme', years: 2, now: EPOCH })
  const plan = { keys, roles: [], finish: false, years: 2, microsoft: [] }
  const opened = rotateLines(await keysRotate({ ...plan, now: EPOCH }), AGAIN)
  assert.equal(opened[0], 'Opened: images are signed with the old keys and the new (db, verity)')
  assert.match(opened[2]!, /run .*keys\/updates\/take on every machine, and build and release$/)
  assert.match(keysLines(await keysShow({ keys, now: EPOCH })).join('\n'), /\nA rotation is open: .*\ndb {6}signs what/s)

  writeFileSync(join(folder, 'old.efi'), tinyPe())
  const revoked = await keysRevoke({ keys, files: [join(folder, 'old.efi'), join(folder, 'old.efi')], now: EPOCH })
  assert.equal(revoked.revoked.length, 1)
  assert.match(revokeLines(revoked, AGAIN)[0]!, /^Revoked old\.efi, Authenticode [0-9a-f]{64}$/)
  assert.deepEqual(revokeLines(await keysRevoke({ keys, files: [join(folder, 'old.efi')], now: EPOCH }), AGAIN), [
    'All of it is revoked already',
  ])
  writeFileSync(join(folder, 'note'), 'no image')
  await assert.rejects(
    keysRevoke({ keys, files: [join(folder, 'note')], now: EPOCH }),
    /Cannot revoke .*note: it is no EFI program/,
  )
  await assert.rejects(
    keysRevoke({ keys, files: [join(folder, 'gone')], now: EPOCH }),
    (e) => e instanceof Fault && e.code === 'missing',
  )

  await assert.rejects(keysRotate({ ...plan, roles: ['db'], finish: true, now: EPOCH }), /--finish takes no ROLE and no --from/)
  await assert.rejects(keysRotate({ ...plan, microsoft: ['kek'], now: EPOCH }), /machines keep what they have until --finish/)
  const finished = rotateLines(await keysRotate({ ...plan, finish: true, now: EPOCH + 86_400 }), AGAIN)
  assert.match(finished.at(-1)!, /only if no image of before need ever start again: .*take dbx$/)
  const shown = keysLines(await keysShow({ keys, now: EPOCH })).join('\n')
  assert.match(shown, /\nPrevious keys, in .*keys\/previous\/1-2026-11-23\n/)
  assert.match(shown, /\nRevoked: 3 programs and certificates$/)
})

test('keys revoke takes the UKIs of a disk image, not its boot loader', { skip: notBaked }, async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'bisque-keys-'))
  t.after(() => rmSync(folder, { recursive: true }))
  const keys = join(folder, 'keys')
  await keysGenerate({ keys, commonName: 'Acme', years: 2, now: EPOCH })
  const { revoked } = await keysRevoke({ keys, files: [baked('.raw')], now: EPOCH })
  assert.deepEqual(
    revoked.map((one) => 'program' in one && one.program),
    [bakedManifest().authenticode.uki],
  )
})
