import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { run } from '../run/process.ts'

/** Runs the program as a shell would. */
async function bisque(...args: string[]) {
  return run([process.execPath, 'src/main.ts', ...args], {
    allowFailure: true,
    env: { PATH: process.env['PATH'] ?? '', HOME: tmpdir() },
  })
}

function folder(t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'bisque-init-'))
  t.after(() => rmSync(directory, { recursive: true, force: true }))
  return directory
}

test('init --from writes what a folder in mkosi’s format says, and overwrites nothing', async (t) => {
  const from = folder(t)
  writeFileSync(join(from, 'mkosi.conf'), '[Distribution]\nRelease=sid\n[Content]\nPackages=a\n')
  mkdirSync(join(from, 'mkosi.profiles/one'), { recursive: true })
  writeFileSync(join(from, 'mkosi.profiles/one/mkosi.conf'), '[Content]\nPackages=b\n')
  const to = join(folder(t), 'new')
  const first = await bisque('init', '--from', from, to, '--profile', 'one', '--set', 'Hostname=h')
  assert.equal(first.exitCode, 0, first.stderr)
  assert.match(readFileSync(join(to, 'recipe.ts'), 'utf8'), /\n {2}packages: \['a', 'b'\],\n[\s\S]*\n {2}hostname: 'h',\n/)
  assert.match(first.stdout, /profile one: part of the recipe now/)
  const second = await bisque('init', '--from', from, to)
  assert.equal(second.exitCode, 2)
  assert.match(second.stderr, /would be overwritten/)
  const beside = await bisque('init', '--from', from, from)
  assert.equal(beside.exitCode, 2)
  assert.match(beside.stderr, /has one already/)
})

test('bump writes the next version into mkosi.version', async (t) => {
  const recipe = folder(t)
  writeFileSync(join(recipe, 'mkosi.conf'), '')
  writeFileSync(join(recipe, 'mkosi.version'), '1.9\n')
  const { exitCode, stdout, stderr } = await bisque('bump', recipe)
  assert.equal(exitCode, 0, stderr)
  assert.equal(stdout, `Wrote ${join(recipe, 'mkosi.version')}: 1.9 → 1.10\n`)
  assert.equal(readFileSync(join(recipe, 'mkosi.version'), 'utf8'), '1.10\n')
  const none = folder(t)
  writeFileSync(join(none, 'recipe.ts'), 'export default {}')
  const refused = await bisque('bump', none)
  assert.equal(refused.exitCode, 2)
  assert.match(refused.stderr, /in recipe\.ts it is imageVersion/)
})
