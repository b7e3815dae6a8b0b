import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { findImage } from './vm.ts'

test('findImage() takes the one disk in a folder, and not its split artifacts', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'bisque-'))
  t.after(() => rmSync(dir, { recursive: true }))
  await assert.rejects(findImage(dir), { name: 'Fault', code: 'missing', message: /no image lies there/ })
  writeFileSync(join(dir, 'Minimal_1.2_x86-64.usr-x86-64.0123.raw'), '')
  writeFileSync(join(dir, 'Minimal_1.2_x86-64.usr-x86-64-verity-sig.0123.raw'), '')
  writeFileSync(join(dir, 'Minimal_1.2_x86-64.raw'), '')
  assert.equal(await findImage(dir), join(dir, 'Minimal_1.2_x86-64.raw'))
  assert.equal(await findImage(join(dir, 'Minimal_1.2_x86-64.raw')), join(dir, 'Minimal_1.2_x86-64.raw'))
  writeFileSync(join(dir, 'Minimal_1.3_x86-64.raw'), '')
  await assert.rejects(findImage(dir), { hint: `bisque vm ${dir}/Minimal_1.3_x86-64.raw`, message: /several images/ })
  await assert.rejects(findImage(join(dir, 'nothing')), { code: 'missing', hint: 'bisque build' })
})
