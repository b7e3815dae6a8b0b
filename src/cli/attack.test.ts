import assert from 'node:assert/strict'
import { test } from 'node:test'
import { chosen } from '../attack/attack.ts'
import type { CaseResult } from '../attack/case.ts'
import { tableOf } from './attack.ts'

const results: CaseResult[] = [
  {
    ...{ name: 'uki-unsigned', group: 'firmware', does: 'a UKI without its signature', by: 'firmware', verdict: 'refused' },
    ...{ refusedBy: 'firmware', evidence: 'Access denied', ms: 1 },
  },
  {
    ...{ name: 'exec-tmpfs', group: 'running', does: 'a program on a tmpfs', by: 'IPE', verdict: 'not refused' },
    ...{ evidence: 'it worked\x1b[2J', ms: 1 },
  },
]

test('tableOf() says who refused what, and shows only where something is wrong what was seen', () => {
  assert.equal(
    tableOf(results, { color: false, image: 'a.raw', ms: 61_000 }),
    `What firmware starts
✓ uki-unsigned  refused by firmware  a UKI without its signature

The running machine
✗ exec-tmpfs    NOT REFUSED          a program on a tmpfs
                it worked�[2J

a.raw has 1 hole: refused were 1 of 2 attacks, in 1:01 min`,
  )
})

test('chosen() takes cases and groups by name, and knows what there is', () => {
  assert.ok(chosen(['usr']).every(({ group }) => group === 'usr'))
  assert.deepEqual(
    chosen(['exec-tmpfs', 'kexec']).map(({ name }) => name),
    ['exec-tmpfs', 'kexec'],
  )
  assert.throws(() => chosen(['exec-tmpf']), { name: 'Fault', code: 'usage', hint: 'bisque attack --list' })
})
