import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type CaseResult, isHole, type Verdict } from './case.ts'
import { attackPage } from './page.ts'

const result = (name: string, verdict: Verdict, evidence: string): CaseResult => ({
  ...{ name, group: 'running', does: `what <${name}> does`, by: 'IPE', verdict, evidence, ms: 1200 },
  ...(verdict === 'refused' ? { refusedBy: 'IPE' as const } : {}),
})
const attacked = (results: CaseResult[]) => ({
  ...{ image: '/a/Tiny_1.raw', now: new Date(0), program: 'Bisque', results, cleanMs: 60_000, ms: 600_000 },
  machine: { ipe: 'tiny', enforcing: true, tpmRoot: false, lockdown: 'integrity' },
})

test('isHole() is what was not seen to be refused by who must', () => {
  const holes = ['not refused', 'refused by another', 'not seen'] as const
  for (const verdict of holes) assert.equal(isHole({ verdict }), true)
  for (const verdict of ['refused', 'outside', 'needs keys', 'not applicable'] as const) assert.equal(isHole({ verdict }), false)
})

test('attackPage() counts what was refused, shows what showed it, and escapes what a machine printed', () => {
  const page = attackPage(attacked([result('one', 'refused', 'path="/tmp/<b>"'), result('two', 'outside', 'nobody is asked')]))
  assert.match(page, /1 of 2 attacks were seen to be refused\./)
  assert.match(page, /path=&quot;\/tmp\/&lt;b&gt;&quot;/)
  assert.doesNotMatch(page, /<b>/)
})

test('attackPage() says so where there is a hole', () => {
  const page = attackPage(attacked([result('one', 'refused', 'x'), result('two', 'not refused', 'it worked')]))
  assert.match(page, /<strong>1 was not<\/strong>/)
  assert.match(page, /<header class="bad">/)
})

test('attackPage() draws a ring for each group, which gapes where something in it was not refused', () => {
  const firmware = { ...result('loader', 'refused', 'Access Denied'), group: 'firmware' as const, by: 'firmware' as const }
  const page = attackPage(attacked([firmware, result('one', 'not seen', 'nothing'), result('two', 'outside', 'nobody is asked')]))
  assert.match(
    page,
    /aria-label="What was attacked, in the order of the boot\. Firmware: 1 refused; Running: 1 of 1 not refused"/,
  )
  assert.match(page, /<section class="card bad" id="running">/)
  assert.match(page, /must be refused by IPE<\/p>\s*<p class="problem">nothing<\/p>/)
})
