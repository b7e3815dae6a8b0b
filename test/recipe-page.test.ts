import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { PAGE, recipePage } from '../tools/settings.ts'

test('docs/recipe.md is what the table of settings says', () => {
  const same = readFileSync(PAGE, 'utf8') === recipePage()
  assert.ok(same, 'docs/recipe.md is stale; renew it: node_modules/.bin/node tools/settings.ts')
})
