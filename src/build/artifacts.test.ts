import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { loadRecipe } from '../recipe/recipe.ts'
import { recipeDigest } from './artifacts.ts'

test('recipeDigest() does not depend on where the recipe lies, but on where its files lie in it', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'bisque-digest-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  const digest = async (name: string, tree: string) => {
    const directory = join(folder, name)
    mkdirSync(join(directory, tree), { recursive: true })
    writeFileSync(join(directory, 'finish'), '#!/bin/sh\n', { mode: 0o755 })
    const settings = `imageId: 'Here', release: 'trixie', packages: ['jq'], extraTrees: ['${tree}'], finalizeScripts: ['finish']`
    writeFileSync(
      join(directory, 'recipe.ts'),
      `import { defineRecipe } from 'bisque'\nexport default defineRecipe({ ${settings} })\n`,
    )
    return recipeDigest(await loadRecipe(directory))
  }
  const here = await digest('here', 'extra')
  assert.equal(await digest('there/deeper', 'extra'), here)
  assert.notEqual(await digest('elsewhere', 'other'), here)
})
