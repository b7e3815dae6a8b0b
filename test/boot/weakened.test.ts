/**
 * examples/minimal with guards taken away: what is recomputed and what is tried must point at the same holes.
 *
 * Bakes test/weakened, with the keys and the lock of examples/minimal.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { cpSync, existsSync, mkdtempSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { type Attacked, attack } from '../../src/attack/attack.ts'
import { isHole } from '../../src/attack/case.ts'
import { makeKit } from '../../src/attack/kit.ts'
import { explains, foretold } from '../../src/attack/links.ts'
import { Report } from '../../src/base/report.ts'
import { checkImage, type Link } from '../../src/verify/image.ts'
import { CACHE, notBaked } from '../baked.ts'
import { MACHINES } from '../oracle.ts'

const toolsTree = MACHINES ?? ''
const found = existsSync(join(toolsTree, 'usr/bin/qemu-system-x86_64'))
const skip = !found && !process.env['REQUIRE_ORACLES'] ? 'qemu-system-x86_64 is not installed' : notBaked
const inRepository = (path: string) => fileURLToPath(new URL(`../../${path}`, import.meta.url))

/** Those that the guards taken away would have refused, and some whose guards are still there. */
const CASES = ['usr-unsigned', 'usr-data', 'loader-stranger', 'esp', 'running']

describe('[qemu-system-x86_64] verify and attack on a weakened image', { skip }, () => {
  const folder = mkdtempSync(join(tmpdir(), 'bisque-weakened-'))
  let broken: string[]
  let links: Link[]
  let attacked: Attacked

  before(async () => {
    const image = process.env['BISQUE_WEAKENED_IMAGE'] ?? bake()
    links = await checkImage(image, undefined)
    broken = links.filter(({ ok }) => !ok).map(({ name }) => name)
    const kit = await makeKit({ image, folder: join(folder, 'kit'), now: Math.floor(Date.now() / 1000) })
    const diskBytes = statSync(image).size + 2 ** 30
    const lab = { subject: kit.subject, toolsTree, folder, signal: undefined, bootMs: 900_000, diskBytes }
    attacked = await attack({ lab, kit, only: CASES }, new Report(() => {}))
  })
  after(() => rmSync(folder, { recursive: true, force: true }))

  /** In place, as the recipe builds on that of examples/minimal. The lock is that one's, too, and left to be found by the next run. */
  const bake = (): string => {
    const recipe = inRepository('test/weakened')
    cpSync(inRepository('examples/minimal/bisque.lock'), join(recipe, 'bisque.lock'))
    const keys = ['--keys', inRepository('examples/minimal/keys')]
    const argv = [inRepository('src/main.ts'), 'build', recipe, ...keys, '--cache', CACHE, '--output', join(folder, 'out')]
    const { status, stderr } = spawnSync(process.execPath, argv, { encoding: 'utf8' })
    assert.equal(status, 0, stderr)
    return join(folder, 'out/Weakened_1_x86-64.raw')
  }

  test('verify names the guards that are missing, and no others', () => {
    assert.deepEqual(
      broken.map((name) => name.replace(/ of .*/, '')),
      ['root hash signature', 'IPE policy', 'image policies'],
    )
  })

  test('every attack that succeeds is explained by a link that does not hold', () => {
    const holes = attacked.results.filter(isHole)
    assert.ok(holes.length > 0)
    assert.deepEqual(
      holes.filter(({ name }) => explains(name, broken).length === 0).map(({ name, evidence }) => `${name}: ${evidence}`),
      [],
    )
  })

  /** An open image policy is a hole for images that something dissects; whether anything in this one does is not ours to say. */
  const MAY_STAY_UNSEEN = /^image policies$/

  test('every link that does not hold shows in an attack that succeeds', () => {
    const succeeded = attacked.results.filter(({ verdict }) => verdict === 'not refused').map(({ name }) => name)
    for (const link of broken.filter((name) => !MAY_STAY_UNSEEN.test(name)))
      assert.ok(
        succeeded.some((name) => explains(name, [link]).length > 0),
        link,
      )
  })

  test('what the other guards must refuse is refused still', () => {
    const expected = foretold(broken)
    const others = attacked.results.filter(({ name }) => !expected.has(name))
    assert.ok(others.length > 5)
    assert.deepEqual(
      others.filter(isHole).map(({ name, evidence }) => `${name}: ${evidence}`),
      [],
    )
  })
})
