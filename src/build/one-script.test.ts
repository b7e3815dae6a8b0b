/** Names of scripts. Running them is the matter of test/one-script.test.ts. */
import assert from 'node:assert/strict'
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { Fault } from '../base/fault.ts'
import { loadRecipe, type Recipe } from '../recipe/recipe.ts'
import { findScript, imagesUpTo, scriptName, scriptsOf } from './one-script.ts'

const FILES: Readonly<Record<string, string>> = {
  'mkosi.conf':
    '[Distribution]\nDistribution=debian\nRelease=trixie\n[Config]\nDependencies=side top\n[Content]\nBootable=no\nFinalizeScripts=a/hook.sh b/hook.sh\nPostOutputScripts=a/hook.sh\n',
  'mkosi.postinst': '#!/bin/sh\n',
  'a/hook.sh': '#!/bin/sh\n',
  'b/hook.sh': '#!/bin/sh\n',
  'mkosi.images/side/mkosi.conf': '[Content]\nBootable=no\n',
  'mkosi.images/side/mkosi.postinst': '#!/bin/sh\n',
  'mkosi.images/top/mkosi.conf': '[Config]\nDependencies=side\n[Content]\nBootable=no\n',
  'mkosi.images/lone/mkosi.conf': '[Content]\nBootable=no\n',
}

function recipeWith(t: TestContext, files: Readonly<Record<string, string>>): Promise<Recipe> {
  const folder = mkdtempSync(join(tmpdir(), 'bisque-names-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(join(folder, dirname(name)), { recursive: true })
    writeFileSync(join(folder, name), text)
    if (text.startsWith('#!')) chmodSync(join(folder, name), 0o755)
  }
  return loadRecipe(folder)
}

test('scriptName() is the shortest that finds the script again', async (t) => {
  const recipe = await recipeWith(t, FILES)
  const names = scriptsOf(recipe).map((script) => scriptName(script, recipe))
  assert.deepEqual(names, [
    'mkosi.images/side/mkosi.postinst',
    'mkosi.postinst',
    'main/finalize/a/hook.sh',
    'b/hook.sh',
    'main/postoutput/a/hook.sh',
  ])
  for (const script of scriptsOf(recipe)) assert.deepEqual(findScript(scriptName(script, recipe), recipe), script)
})

test('findScript() takes paths, and a file name behind its image or phase', async (t) => {
  const recipe = await recipeWith(t, FILES)
  const found = (name: string) => {
    const { image, phase } = findScript(name, recipe)
    return `${image} ${phase}`
  }
  assert.equal(found(join(recipe.directory, 'b/hook.sh')), 'main finalize')
  assert.equal(found('side/mkosi.postinst'), 'side postinst')
  assert.equal(found('main/postinst/mkosi.postinst'), 'main postinst')
  assert.equal(found('postoutput/hook.sh'), 'main postoutput')
})

test('findScript() refuses a name that several have, and says what to call each', async (t) => {
  const recipe = await recipeWith(t, FILES)
  const refused = (name: string, code: string, message: RegExp, hint?: string) =>
    assert.throws(
      () => findScript(name, recipe),
      (fault) => fault instanceof Fault && fault.code === code && message.test(fault.message) && fault.hint === hint,
      name,
    )
  refused(
    'hook.sh',
    'usage',
    /several have that name:\n {2}main\/finalize\/a\/hook\.sh\n {2}b\/hook\.sh\n/,
    'bisque build --script main/finalize/a/hook.sh',
  )
  refused('b/hok.sh', 'missing', /no such script; there are:\n {2}mkosi\.images/, 'bisque build --script b/hook.sh')
  refused('zzzzzz', 'missing', /there are:/)
  const bare = await recipeWith(t, { 'mkosi.conf': '[Distribution]\nDistribution=debian\nRelease=trixie\n' })
  assert.throws(() => findScript('x', bare), /the recipe has no scripts$/)
})

test('imagesUpTo() names an image and those that it is made of', async (t) => {
  const recipe = await recipeWith(t, FILES)
  const names = (image: string) => imagesUpTo(image, recipe).map(({ name }) => name)
  assert.deepEqual(names('side'), ['side'])
  assert.deepEqual(names('top'), ['side', 'top'])
  assert.deepEqual(names('main'), ['side', 'top', 'main'])
})
