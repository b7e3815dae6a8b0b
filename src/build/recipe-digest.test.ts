import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { loadRecipe } from '../recipe/recipe.ts'
import { recipeDigest } from './recipe-digest.ts'

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

test('recipeDigest() covers every image of the recipe and its initrd, but no setting of the machine or of `bisque vm`', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'bisque-digest-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  const digest = async (name: string, changes: Record<string, string> = {}, set: readonly string[] = []) => {
    const files = {
      'mkosi.conf': '[Distribution]\nDistribution=debian\nRelease=trixie\n[Content]\nPackages=linux-image-amd64\n',
      'mkosi.images/base/mkosi.conf': '[Output]\nFormat=directory\n[Content]\nBootable=no\n',
      'mkosi.images/top/mkosi.conf': '[Config]\nDependencies=base\n[Output]\nFormat=sysext\n[Content]\nBaseTrees=%O/base\n',
      ...changes,
    }
    for (const [path, text] of Object.entries(files)) {
      mkdirSync(dirname(join(folder, name, path)), { recursive: true })
      writeFileSync(join(folder, name, path), text)
    }
    return recipeDigest(await loadRecipe(join(folder, name), { set }))
  }
  const one = await digest('one')
  assert.equal(await digest('elsewhere/two'), one)
  assert.equal(await digest('one', {}, [`OutputDirectory=${folder}/out`, 'RAM=1G', 'CPUs=7']), one)
  const token = ['SecureBootKey=pkcs11:object=db', 'SecureBootKeySource=provider:pkcs11', `VerityKey=${folder}/verity.key`]
  assert.equal(await digest('one', {}, token), one, 'where private keys are')
  assert.notEqual(await digest('base', { 'mkosi.images/base/mkosi.conf': '[Output]\nFormat=directory\n' }), one)
  assert.notEqual(await digest('initrd', { 'mkosi.initrd.conf': '[Content]\nPackages=jq\n' }), one)
  assert.notEqual(await digest('main', {}, ['Hostname=other']), one)
})
