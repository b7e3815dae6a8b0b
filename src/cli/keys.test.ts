import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { EPOCH } from '../../test/keys.ts'
import { keysGenerate, keysLines, keysShow } from './keys.ts'

test('keys generate and keys show give the same result, three lines a key', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'bisque-keys-'))
  t.after(() => rmSync(folder, { recursive: true }))
  const keys = join(folder, 'keys')
  const generated = await keysGenerate({ keys, commonName: 'Acme', years: 2, now: EPOCH })
  assert.deepEqual(await keysShow({ keys }), generated)

  rmSync(join(keys, 'pk.key'))
  const lines = keysLines(await keysShow({ keys }))
  assert.equal(lines.length, 1 + 5 * 3)
  assert.equal(lines[0], `Keys in ${keys}`)
  assert.equal(lines[1], 'pk      owns the machine: signs changes of PK and KEK')
  assert.equal(lines[2], '        CN=Acme Platform Key, 2026-11-23 to 2028-11-22, private key not here')
  assert.match(lines[3]!, /^ {8}SHA-256 [0-9a-f]{64}$/)
})
