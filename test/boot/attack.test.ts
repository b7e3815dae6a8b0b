/**
 * The baked example, attacked: each case must be seen to be refused, by who must.
 *
 * A share of the matrix runs here, at least one case of each who refuses; `BISQUE_ATTACK=all` runs all of it.
 * `BISQUE_BOOT_IMAGE` names an image to attack instead, whose keys lie in `BISQUE_BOOT_KEYS`.
 */
import assert from 'node:assert/strict'
import { existsSync, mkdtempSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { type Attacked, attack, chosen } from '../../src/attack/attack.ts'
import { makeKit } from '../../src/attack/kit.ts'
import { Report } from '../../src/base/report.ts'
import { baked, notBaked } from '../baked.ts'
import { MACHINES } from '../oracle.ts'

const toolsTree = MACHINES ?? ''
const found = existsSync(join(toolsTree, 'usr/bin/qemu-system-x86_64'))
const skip = !found && !process.env['REQUIRE_ORACLES'] ? 'qemu-system-x86_64 is not installed' : notBaked

const SHARE = [
  ...['loader-unsigned', 'uki-stranger', 'cmdline-edited', 'uki-revoked', 'esp'],
  ...['usr-data', 'usr-swapped', 'usr-signature', 'usr-unverified'],
  ...['tpm-swapped', 'cmdline-added', 'initrd-changed', 'running'],
]
const all = process.env['BISQUE_ATTACK'] === 'all'
const cases = chosen(all ? [] : SHARE)
/** Plenty: QEMU translates every instruction, and other tests run at the same time. */
const BOOT_MS = 900_000

describe('[qemu-system-x86_64] bisque attack on examples/minimal', { skip }, () => {
  const folder = mkdtempSync(join(tmpdir(), 'bisque-attacked-'))
  const keys = process.env['BISQUE_BOOT_KEYS'] ?? fileURLToPath(new URL('../../examples/minimal/keys', import.meta.url))
  let attacked: Attacked

  before(async () => {
    const image = process.env['BISQUE_BOOT_IMAGE'] ?? baked('.raw')
    const now = Math.floor(Date.now() / 1000)
    const kit = await makeKit({ image, folder: join(folder, 'kit'), now, ...(existsSync(keys) ? { keys } : {}) })
    const diskBytes = statSync(image).size + 4 * 2 ** 30
    const lab = { subject: kit.subject, toolsTree, folder, signal: undefined, bootMs: BOOT_MS, diskBytes }
    attacked = await attack({ lab, kit, only: cases.map(({ name }) => name) }, new Report(() => {}))
  })
  after(() => rmSync(folder, { recursive: true, force: true }))

  test('enforces an IPE policy in the clean machine', () => {
    assert.ok(attacked.machine.ipe)
    assert.equal(attacked.machine.enforcing, true)
    assert.match(attacked.machine.lockdown, /integrity|confidentiality/)
  })

  for (const { name, by, does, outside } of cases)
    test(`${outside === undefined ? `${by} refuses` : 'nobody can refuse'} ${does}`, (t) => {
      const { verdict, refusedBy, evidence } = attacked.results.find((one) => one.name === name)!
      if (verdict === 'not applicable' || verdict === 'needs keys') return t.skip(evidence)
      if (outside !== undefined && verdict === 'outside') return
      assert.equal(verdict, 'refused', evidence)
      assert.ok(refusedBy === by || (refusedBy === 'IPE' && by === 'kernel'), `${refusedBy} refused it: ${evidence}`)
    })

  const left = chosen().length - cases.length
  test(`the other ${left} cases`, { skip: all ? false : 'BISQUE_ATTACK=all runs them, too' }, () => assert.equal(left, 0))
})
