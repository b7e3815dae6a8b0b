/**
 * Bakes that end before their time: interrupted or killed in each stage, without room on the disk, without what they need.
 * Nothing is left under a final name, no mount, no process; one clear Fault where there was time for one; and the next run works.
 */
import assert from 'node:assert/strict'
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process'
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { createInterface } from 'node:readline'
import { after, before, describe, type TestContext, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { hashFile } from '../src/run/hash-file.ts'
import { BAKED, CACHE, notBaked } from './baked.ts'

const MAIN = resolve('src/main.ts')

const folder = mkdtempSync(join(tmpdir(), 'bisque-cut-'))
const recipe = join(folder, 'recipe')
const cache = join(folder, 'cache')
const output = join(folder, 'out')

/** A stage, how it is cut short, and whether the signal goes to the process the user started or to the one that works. */
const CUTS: readonly [stage: string, signal: NodeJS.Signals, to: 'outer' | 'inner'][] = [
  ['Fetch packages', 'SIGINT', 'outer'],
  ['Unpack', 'SIGKILL', 'outer'],
  ['Configure', 'SIGINT', 'outer'],
  ['Configure', 'SIGKILL', 'inner'],
  ['Fill 12-usr', 'SIGTERM', 'outer'],
  ['Hash 12-usr', 'SIGKILL', 'outer'],
  ['Pack initrd', 'SIGINT', 'outer'],
  ['Make boot entry', 'SIGKILL', 'inner'],
  ['Write ESP', 'SIGTERM', 'outer'],
  ['Write disk', 'SIGKILL', 'outer'],
  ['Write manifest', 'SIGINT', 'inner'],
  ['Verify image', 'SIGINT', 'outer'],
]

const CODES = { SIGINT: 130, SIGTERM: 143, SIGKILL: 137 } as const

describe('a bake cut short', { skip: notBaked }, () => {
  before(() => {
    cpSync('examples/minimal', recipe, { recursive: true, filter: (path) => !path.endsWith('/out') })
    for (const digest of digests()) {
      mkdirSync(join(cache, 'store/sha256', digest.slice(0, 2)), { recursive: true })
      cpSync(join(CACHE, blob(digest)), join(cache, blob(digest)))
    }
  })
  after(() => rmSync(folder, { recursive: true, force: true }))

  for (const [stage, signal, to] of CUTS) {
    test(`by ${signal} to the ${to} process in "${stage}" leaves nothing behind`, { timeout: 180_000 }, async () => {
      const bake = start()
      await reached(bake, stage)
      const ended = new Promise<number>((done) => bake.on('exit', (code, by) => done(code ?? (by === 'SIGKILL' ? 137 : -1))))
      process.kill(to === 'outer' ? bake.pid! : childOf(bake.pid!), signal)
      assert.equal(await ended, CODES[signal as keyof typeof CODES])
      for (let i = 0; i < 200 && processes().length > 0; i++) await sleep(50)
      assert.deepEqual(processes(), [])
      assert.ok(!readFileSync('/proc/self/mountinfo', 'utf8').includes(folder))
      const left = existsSync(output) ? readdirSync(output) : []
      assert.deepEqual(
        left.filter((name) => !name.startsWith('.')),
        [],
      )
      if (signal === 'SIGKILL') return // its work folder is swept by the next run
      assert.deepEqual(left, [])
      assert.deepEqual(existsSync(join(cache, 'work')) ? readdirSync(join(cache, 'work')) : [], [])
    })
  }

  test('and one that finds a damaged package in the cache still gives the same bytes, and leaves no work behind', () => {
    const [digest] = digests()
    const bytes = readFileSync(join(cache, blob(digest!)))
    bytes[bytes.length >> 1]! ^= 1
    rmSync(join(cache, blob(digest!)))
    writeFileSync(join(cache, blob(digest!)), bytes)
    const { status, stderr } = bisque('build', recipe, '-o', output, '--cache', cache)
    assert.equal(status, 0, stderr)
    assert.equal(hashFile(join(cache, blob(digest!))), digest)
    assert.deepEqual(readdirSync(output).sort(), readdirSync(BAKED).sort())
    for (const name of readdirSync(BAKED)) assert.equal(hashFile(join(output, name)), hashFile(join(BAKED, name)), name)
    assert.deepEqual(readdirSync(join(cache, 'work')), [])
  })

  const tiny = process.getuid?.() === 0 ? false : 'only root can mount a tiny disk'

  test('by a full disk for the artifacts is one Fault that names the folder', { skip: tiny }, (t) => {
    const { status, stderr } = bisque('build', recipe, '-o', tinyDisk(t, '64m'), '--cache', cache, '--offline')
    assert.deepEqual([status, faults(stderr)], [10, 1], stderr)
    assert.match(stderr, /error: Cannot write artifacts to .*tiny-64m: the disk is full/)
  })

  test('by a full disk for the cache is one Fault that names the folder, and what is missing', { skip: tiny }, (t) => {
    const place = tinyDisk(t, '16m')
    const { status, stderr } = bisque('build', recipe, '-o', output, '--cache', place)
    assert.deepEqual([status, faults(stderr)], [10, 1], stderr)
    assert.ok(stderr.includes(place), stderr)
  })

  const REFUSALS: readonly [name: string, args: readonly string[], exit: number, says: RegExp][] = [
    ['an unknown package', ['lock', '--set', 'Packages=systmd'], 4, /systmd.*did you mean "?systemd/s],
    [
      'packages that cannot be together',
      ['lock', '--set', 'Packages=postfix exim4-daemon-light'],
      4,
      /postfix.*exim4-daemon-light/s,
    ],
    ['a lock made for another request', ['build', '--set', 'Packages=jq'], 4, /made for other packages.*bisque lock/s],
    ['a key folder that is not there', ['build', '--keys', '/nonexistent/keys'], 9, /no keys in.*bisque keys generate/s],
    ['an empty cache and no network', ['build', '--offline', '--cache', join(folder, 'empty')], 5, /offline|cache/i],
    ['an output folder that is a file', ['build', '--offline', '-o', join(recipe, 'recipe.ts')], 10, /recipe\.ts/],
    ['a setting that does not exist', ['build', '--set', 'Pakages=x'], 3, /Pakages.*Packages/s],
    ['a profile that does not exist', ['build', '--profile', 'desktp'], 3, /desktp/],
  ]
  for (const [name, [verb, ...args], exit, says] of REFUSALS) {
    test(`before it began by ${name} is one Fault that says what to do`, () => {
      const place = args.includes('--cache') ? [] : ['--cache', CACHE]
      const { status, stderr } = bisque(verb!, recipe, ...args, ...place)
      assert.deepEqual([status, faults(stderr)], [exit, 1], stderr)
      assert.match(stderr, says)
    })
  }
})

const bisque = (...args: readonly string[]) =>
  spawnSync(process.execPath, [MAIN, ...args], { encoding: 'utf8', env: { ...process.env, NO_COLOR: '1' } })

const faults = (stderr: string): number => [...stderr.matchAll(/^(?:error|bug):/gm)].length

/** Digests of the packages that the example's lock pins. */
function digests(): string[] {
  const found = new Set<string>()
  for (const line of readFileSync('examples/minimal/bisque.lock', 'utf8').split('\n')) {
    const digest = line.split(' ')[5]
    if (digest !== undefined && /^[0-9a-f]{64}$/.test(digest)) found.add(digest)
  }
  return [...found]
}

const blob = (digest: string): string => join('store/sha256', digest.slice(0, 2), digest.slice(2))

function start(): ChildProcess {
  const argv = [MAIN, 'build', recipe, '-o', output, '--cache', cache, '--offline', '--json']
  return spawn(process.execPath, argv, { stdio: ['ignore', 'pipe', 'inherit'] })
}

/** Reads events until a step of this name starts. */
async function reached(bake: ChildProcess, stage: string): Promise<void> {
  for await (const line of createInterface({ input: bake.stdout! })) {
    const event = JSON.parse(line)
    if (event.type !== 'start' || !event.name.startsWith(stage)) continue
    bake.stdout!.resume()
    return
  }
  throw new Error(`the bake ended before "${stage}"`)
}

/** The process in the namespace: the one below `pid` that runs the same program. */
function childOf(pid: number): number {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').filter(Boolean).map(Number)
  const found = children.find((child) => readFileSync(`/proc/${child}/cmdline`, 'utf8').includes(MAIN))
  if (found !== undefined) return found
  assert.ok(children.length > 0, 'there is no inner process')
  return childOf(children[0]!)
}

/** Processes that were started for these bakes: by what they were called with, and where their root or folder is. */
function processes(): string[] {
  return readdirSync('/proc').filter((pid) => {
    if (!/^\d+$/.test(pid) || Number(pid) === process.pid) return false
    try {
      const places = ['root', 'cwd'].map((name) => readlinkSync(`/proc/${pid}/${name}`))
      return [readFileSync(`/proc/${pid}/cmdline`, 'utf8'), ...places].some((text) => text.includes(folder))
    } catch {
      return false
    }
  })
}

function tinyDisk(t: TestContext, size: string): string {
  const at = join(folder, `tiny-${size}`)
  mkdirSync(at)
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${size}`, 'tmpfs', at])
  t.after(() => execFileSync('umount', [at]))
  return at
}
