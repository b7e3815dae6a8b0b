import assert from 'node:assert/strict'
import { cpSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { EPOCH, testKeys } from '../../test/keys.ts'
import { type Event, Report } from '../base/report.ts'
import { loadRecipe } from '../recipe/recipe.ts'
import { generateKeys } from '../signing/keys.ts'
import { finishRotation, openRotation } from '../signing/rotate.ts'
import { openStore } from '../store/store.ts'
import type { Env } from './env.ts'
import { keysFor, trustOf } from './keys.ts'

const { directory } = await testKeys()
const recipe = await loadRecipe('examples/minimal')
const DAY = 86_400

/** A folder that goes away, and what a build at `now` is told there. */
async function folderAt(t: TestContext, now: number): Promise<{ folder: string; env: Env; warnings: () => string[] }> {
  const folder = mkdtempSync(join(tmpdir(), 'bisque-keys-'))
  t.after(() => rmSync(folder, { recursive: true }))
  const events: Event[] = []
  const report = new Report((event) => events.push(event))
  const env: Env = { cache: folder, store: await openStore(folder), report, now: new Date(now * 1000), offline: true }
  return {
    folder,
    env,
    warnings: () => events.flatMap((one) => (one.type === 'note' && one.level === 'warning' ? [one.message] : [])),
  }
}

test('keysFor() warns of certificates that end within 90 days, not of those that are about to be replaced', async (t) => {
  const { folder, env, warnings } = await folderAt(t, EPOCH)
  const keys = join(folder, 'keys')
  await generateKeys(keys, { commonName: 'Test', now: EPOCH, years: 0.1 })
  await keysFor(recipe, keys, env)
  assert.equal(warnings().length, 1)
  assert.match(warnings()[0]!, /^certificates end soon: pk: expires 2026-12-29, in 36 days; kek: .*; bisque keys rotate --keys /)
  await openRotation(keys, { roles: ['pk', 'kek', 'db', 'verity', 'pcr'], now: EPOCH, years: 10 })
  await keysFor(recipe, keys, env)
  assert.equal(warnings().length, 1)
  await assert.rejects(
    keysFor(recipe, keys, { ...env, now: new Date((EPOCH + 60 * DAY) * 1000) }),
    /db\.crt: certificate expired 2026-12-29, image time is 2027-01-22/,
  )
})

test('keysFor() brings successors and revocations along, and an image is verified against both', async (t) => {
  const { folder, env, warnings } = await folderAt(t, EPOCH)
  const keys = join(folder, 'keys')
  cpSync(directory, keys, { recursive: true })
  const before = await keysFor(recipe, keys, env)
  assert.deepEqual([before.revoked, trustOf(before).db.length], [[], 1])
  await openRotation(keys, { roles: ['pk', 'db'], now: EPOCH, years: 10 })
  const during = await keysFor(recipe, keys, env)
  const { db, pk, kek, verity } = trustOf(during)
  assert.deepEqual([db.length, pk!.length, kek!.length, verity.length], [2, 1, 1, 1])
  assert.deepEqual(pk, [during.signers.pk.successor!.certificate])
  await finishRotation(keys, { now: EPOCH + DAY, microsoft: [] })
  const after = await keysFor(recipe, keys, env)
  assert.deepEqual(trustOf(after).db, [db[1]])
  assert.deepEqual(
    after.revoked!.flatMap(({ entries }) => entries.map(({ data }) => Buffer.from(data))),
    [Buffer.from(db[0]!)],
  )
  assert.deepEqual(warnings(), [])
})
