/**
 * The same recipe, lock, keys and version give the same bytes: elsewhere, in another environment, later, as another user.
 * What is compared against are the examples that `test/prepare.ts` baked.
 */
import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { type TestContext, test } from 'node:test'
import { hashFile } from '../src/run/hash-file.ts'
import { BAKED, BAKED_PARTICLE, CACHE, notBaked } from './baked.ts'

const MAIN = resolve('src/main.ts')

const EXAMPLES = { minimal: BAKED, particle: BAKED_PARTICLE } as const
type Example = keyof typeof EXAMPLES

/** An example with its keys, and the packages it and the tools for its scripts are made of, below a folder of their own. */
function copyOf(example: Example, folder: string): { recipe: string; cache: string; output: string } {
  const places = { recipe: join(folder, 'recipe'), cache: join(folder, 'cache'), output: join(folder, 'out') }
  const isResult = (path: string) => /\/(?:out|mkosi\.output)$/.test(path)
  cpSync(`examples/${example}`, places.recipe, { recursive: true, verbatimSymlinks: true, filter: (path) => !isResult(path) })
  const locks = [`examples/${example}/bisque.lock`, 'tools/scripts.lock', join(CACHE, 'tools/scripts.lock')]
  if (existsSync(locks[2]!)) cpSync(locks[2]!, join(places.cache, 'tools/scripts.lock'))
  for (const line of locks.flatMap((lock) => (existsSync(lock) ? readFileSync(lock, 'utf8').split('\n') : []))) {
    const digest = line.split(' ')[5]
    if (
      digest === undefined ||
      !/^[0-9a-f]{64}$/.test(digest) ||
      !existsSync(join(CACHE, 'store/sha256', digest.slice(0, 2), digest.slice(2)))
    )
      continue
    const blob = join('store/sha256', digest.slice(0, 2), digest.slice(2))
    mkdirSync(join(places.cache, 'store/sha256', digest.slice(0, 2)), { recursive: true })
    cpSync(join(CACHE, blob), join(places.cache, blob))
  }
  return places
}

function temporary(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'bisque-again-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

function assertSame(example: Example, output: string): void {
  const baked = EXAMPLES[example]
  assert.deepEqual(readdirSync(output).sort(), readdirSync(baked).sort())
  const differing = readdirSync(baked).filter((name) => hashFile(join(baked, name)) !== hashFile(join(output, name)))
  assert.deepEqual(differing, [], 'artifacts differ')
}

test('a bake in another folder, with another umask, time zone and language, gives the same bytes', { skip: notBaked }, (t) => {
  const { recipe, cache, output } = copyOf('minimal', join(temporary(t), 'somewhere/else'))
  const command = [
    'umask 077; exec "$@"',
    'sh',
    process.execPath,
    MAIN,
    'build',
    recipe,
    '-o',
    output,
    '--cache',
    cache,
    '--offline',
  ]
  const env = { PATH: process.env['PATH'], HOME: '/nonexistent', TZ: 'Asia/Tokyo', LANG: 'tr_TR.UTF-8', LC_ALL: 'tr_TR.UTF-8' }
  const { status, stderr } = spawnSync('sh', ['-c', ...command], { env, encoding: 'utf8' })
  assert.equal(status, 0, stderr)
  assertSame('minimal', output)
})

for (const example of ['minimal', 'particle'] as const) {
  test(`a bake of ${example} as an ordinary user gives the same bytes as one as root`, {
    skip: notBaked || cannotChangeUser(),
  }, (t) => {
    bakeAsUser(t, example)
  })
}

function bakeAsUser(t: TestContext, example: Example): void {
  const name = `bisque-${example}-${process.pid}`
  const home = temporary(t)
  execFileSync('useradd', ['--home-dir', home, '--no-create-home', name])
  t.after(() => execFileSync('userdel', [name], { stdio: 'ignore' }))
  execFileSync('usermod', ['--add-subuids', '700000-765535', '--add-subgids', '700000-765535', name])
  const { recipe, cache, output } = copyOf(example, home)
  execFileSync('chown', ['--recursive', `${name}:`, home])

  const as = [
    'setpriv',
    `--reuid=${name}`,
    `--regid=${name}`,
    '--init-groups',
    'env',
    '-i',
    `HOME=${home}`,
    `PATH=${process.env['PATH']}`,
  ]
  const argv = [...as, process.execPath, MAIN, 'build', recipe, '-o', output, '--cache', cache, '--offline']
  const { status, stderr } = spawnSync(argv[0]!, argv.slice(1), { encoding: 'utf8' })
  assert.equal(status, 0, stderr)
  assertSame(example, output)
  const uid = Number(execFileSync('id', ['-u', name], { encoding: 'utf8' }))
  assert.equal(statSync(join(output, readdirSync(output)[0]!)).uid, uid)
  assert.deepEqual(readdirSync(join(cache, 'work')), [])
}

/** Why the test cannot become another user, or false. CI, which owns its machine, installs what is missing. */
function cannotChangeUser(): string | false {
  if (process.getuid?.() !== 0) return 'only root can become another user'
  if (!existsSync('/usr/bin/newuidmap') && process.env['CI'] === 'true') {
    spawnSync('sh', ['-c', 'apt-get update -qq; apt-get install -y -qq uidmap'], { stdio: 'ignore' })
  }
  if (!existsSync('/usr/bin/newuidmap')) return 'newuidmap is not installed: apt install uidmap'
  const reachable = spawnSync('setpriv', ['--reuid=65534', '--clear-groups', 'test', '-r', MAIN]).status === 0
  return reachable ? false : `other users cannot read ${MAIN}`
}
