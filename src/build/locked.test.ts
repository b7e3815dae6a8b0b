import assert from 'node:assert/strict'
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { CACHE, notBaked } from '../../test/baked.ts'
import { type Event, Report } from '../base/report.ts'
import { isSuperseded } from '../packages/fetch.ts'
import { loadRecipe } from '../recipe/recipe.ts'
import { openStore } from '../store/store.ts'
import { requireLock } from './lock.ts'
import { fetchLocked, packagesOf } from './locked.ts'

test('fetchLocked() replaces what the mirror dropped where it may, says so, and leaves every other pin alone', {
  skip: notBaked,
}, async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'bisque-locked-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  cpSync('examples/minimal', folder, { recursive: true, filter: (path) => !/\/(?:out|keys)$/.test(path) })
  const path = join(folder, 'bisque.lock')
  const before = readFileSync(path, 'utf8')
  const gone = `less 600-1 amd64 trixie 4711 ${'a'.repeat(64)} pool/main/l/less/less_600-1_amd64.deb`
  writeFileSync(path, before.replaceAll(/^less .*$/gm, gone))

  const events: Event[] = []
  const report = new Report((event) => events.push(event))
  const env = {
    cache: CACHE,
    store: await openStore(CACHE),
    report,
    now: new Date(),
    offline: false,
    network: { retries: 0, backoffMs: 1 },
  }
  const recipe = await loadRecipe(folder)
  const lock = await requireLock(recipe)
  await assert.rejects(
    fetchLocked(recipe, lock, { relock: false }, env),
    (fault) => isSuperseded(fault) && /less 600-1/.test(String(fault)),
  )

  const { packages } = await fetchLocked(recipe, lock, { relock: true }, env)
  assert.ok(packagesOf(packages, 'main').some((p) => p.name === 'less' && p.version !== '600-1'))
  const notes = events.flatMap((event) => (event.type === 'note' && event.level === 'warning' ? [event.message] : []))
  assert.equal(notes.filter((note) => /dropped less; updated .*bisque\.lock/.test(note)).length, 1, notes.join('\n'))
  const versions = (text: string) => [...text.matchAll(/^(\S+) (\S+) \S+ \S+ \d+ [0-9a-f]{64} /gm)].map((m) => `${m[1]} ${m[2]}`)
  assert.deepEqual(versions(readFileSync(path, 'utf8')), versions(before))
})
