import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { promisify } from 'node:util'
import { oracle } from '../../test/oracle.ts'
import { digestOf, sha256 } from '../base/digest.ts'
import { Fault } from '../base/fault.ts'
import { isAbandoned, ownTag, UNOWNED } from './owner.ts'
import { prune, usage } from './prune.ts'
import { openStore } from './store.ts'

const run = promisify(execFile)
const STORE = new URL('store.ts', import.meta.url).href

function scratch(t: TestContext): string {
  const dir = mkdtempSync(join(tmpdir(), 'bisque-store-'))
  t.after(() => rmSync(dir, { recursive: true, force: true }))
  return dir
}

const filesIn = (dir: string) =>
  readdirSync(dir, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))

function damage(file: string, change: (file: string) => void): void {
  chmodSync(file, 0o644)
  change(file)
}

async function* inChunks(...chunks: string[]) {
  for (const chunk of chunks) yield Buffer.from(chunk)
}

test('put() gives a blob its digest as name, whether it comes whole or in chunks', async (t) => {
  const store = await openStore(scratch(t))
  const whole = await store.put(Buffer.from('bisque'))
  assert.deepEqual(whole, { digest: sha256('bisque'), sizeBytes: 6 })
  assert.deepEqual(await store.put(inChunks('bis', 'que')), whole)
  assert.equal((await store.read(whole.digest))?.toString(), 'bisque')
  assert.equal(statSync(store.path(whole.digest)).mode & 0o777, 0o444)
  assert.deepEqual(filesIn(store.cache), [store.path(whole.digest)])
})

oracle('sha256sum', 'agrees with the name of a blob', async (_t, judge) => {
  const store = await openStore(judge.dir)
  const { digest } = await store.put(Buffer.alloc(300_000, 'b'))
  assert.equal((await judge.run(['sha256sum', store.path(digest)])).stdout.slice(0, 64), digest)
})

test('put() refuses bytes that are not those expected, and leaves nothing behind', async (t) => {
  const store = await openStore(scratch(t))
  await assert.rejects(store.put(inChunks('bis', 'que'), { sizeBytes: 7 }), /expected 7 bytes, got 6/)
  await assert.rejects(store.put(Buffer.from('bisque'), { digest: sha256('soup') }), /expected SHA-256 .*, got /)
  await assert.rejects(
    store.put(
      (async function* () {
        yield Buffer.from('bis')
        throw new Error('the source broke')
      })(),
    ),
    /the source broke/,
  )
  assert.deepEqual(filesIn(store.cache), [])
})

test('verified() and read() notice a damaged blob, which putting it again mends', async (t) => {
  const store = await openStore(scratch(t))
  const { digest } = await store.put(Buffer.from('bisque'))
  const damages: Record<string, (file: string) => void> = {
    'a byte flipped': (file) => writeFileSync(file, 'bisquE'),
    'cut short': (file) => truncateSync(file, 3),
    emptied: (file) => truncateSync(file, 0),
  }
  for (const [what, change] of Object.entries(damages)) {
    damage(store.path(digest), change)
    assert.equal(await store.verified(digest, 6), undefined, what)
    await store.put(Buffer.from('bisque'))
    assert.equal(await store.verified(digest, 6), store.path(digest))
    damage(store.path(digest), change)
    assert.equal(await store.read(digest), undefined, what)
    await store.put(Buffer.from('bisque'))
  }
})

test('has() compares the size and does not take a folder for a blob', async (t) => {
  const store = await openStore(scratch(t))
  const { digest } = await store.put(Buffer.from('bisque'))
  assert.equal(await store.has(digest), true)
  assert.equal(await store.has(digest, 6), true)
  assert.equal(await store.has(digest, 5), false)
  mkdirSync(store.path(sha256('folder')), { recursive: true })
  assert.equal(await store.has(sha256('folder')), false)
  assert.throws(() => store.path('../../../etc/passwd'), Fault)
})

test('recall() gives what was remembered while its blob is whole', async (t) => {
  const store = await openStore(scratch(t))
  const key = digestOf({ stage: 'usr', inputs: [1, 2] })
  assert.equal(await store.recall(key), undefined)
  const blob = await store.put(Buffer.from('result'))
  await store.remember(key, blob)
  assert.deepEqual(await store.recall(key), blob)
  damage(store.path(blob.digest), (file) => truncateSync(file, 2))
  assert.equal(await store.recall(key), undefined)
  writeFileSync(join(store.cache, 'store', 'keys', key), 'nonsense')
  assert.equal(await store.recall(key), undefined)
})

test('prune() removes the longest unused first, spares what is in use, and forgets notes about what is gone', async (t) => {
  const store = await openStore(scratch(t))
  const nowMs = Date.now()
  const blobs = []
  for (const [i, age] of [5, 4, 3, 0].entries()) {
    const blob = await store.put(Buffer.alloc(100, `${i}`))
    await store.remember(sha256(`key ${i}`), blob)
    const used = (nowMs - age * 86_400_000) / 1000
    utimesSync(store.path(blob.digest), used, used)
    blobs.push(blob)
  }
  assert.deepEqual(await usage(store), { blobs: 4, blobBytes: 400, keys: 4, unfinished: 0, unfinishedBytes: 0 })
  assert.deepEqual(await prune(store, { nowMs, unusedSinceMs: nowMs - 4.5 * 86_400_000 }), {
    removed: 1,
    removedBytes: 100,
    keptBytes: 300,
  })
  assert.deepEqual(await prune(store, { nowMs, maxBytes: 250 }), { removed: 1, removedBytes: 100, keptBytes: 200 })
  assert.equal(await store.has(blobs[2]!.digest), true)
  assert.equal(await store.recall(sha256('key 1')), undefined)
  assert.deepEqual(await prune(store, { nowMs, maxBytes: 0 }), { removed: 1, removedBytes: 100, keptBytes: 100 })
  assert.deepEqual(await prune(store, { nowMs: nowMs + 1000, maxBytes: 0, keepRecentMs: 0 }), {
    removed: 1,
    removedBytes: 100,
    keptBytes: 0,
  })
  assert.equal((await usage(store)).keys, 0)
})

test('taking a blob out counts as using it', async (t) => {
  const store = await openStore(scratch(t))
  const { digest } = await store.put(Buffer.from('bisque'))
  utimesSync(store.path(digest), 1, 1)
  await store.verified(digest)
  assert.ok(statSync(store.path(digest)).mtimeMs > 1e12)
})

test('openStore() sweeps what a killed process left, and not what a living one writes', async (t) => {
  const cache = scratch(t)
  const script = `
    const { openStore } = await import(${JSON.stringify(STORE)})
    const store = await openStore(${JSON.stringify(cache)})
    await store.put((async function* () { yield Buffer.from('half'); console.log('half'); await new Promise((r) => setTimeout(r, 60_000)) })())`
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: ['ignore', 'pipe', 'inherit'] })
  t.after(() => child.kill('SIGKILL'))
  await new Promise((resolve) => child.stdout.once('data', resolve))
  await openStore(cache)
  assert.equal(filesIn(join(cache, 'store', 'tmp')).length, 1)
  child.kill('SIGKILL')
  await new Promise((resolve) => child.once('exit', resolve))
  await openStore(cache)
  assert.deepEqual(filesIn(cache), [])
})

test('isAbandoned() judges by process, and by age where it cannot', () => {
  const now = Date.now()
  assert.equal(isAbandoned(ownTag(), 0), false)
  assert.equal(isAbandoned(UNOWNED, now), true)
  const [pid, start, namespace] = ownTag().split('-') as [string, string, string]
  assert.equal(isAbandoned(`${pid}-${Number(start) - 1}-${namespace}`, now), true, 'the pid was recycled')
  assert.equal(isAbandoned(`4194305-1-${namespace}`, now), true, 'no such process')
  assert.equal(isAbandoned(`1-1-${Number(namespace) + 1}`, now), false, 'another namespace, just now')
  assert.equal(isAbandoned(`1-1-${Number(namespace) + 1}`, now - 3_600_000), true, 'another namespace, long ago')
  assert.equal(isAbandoned('gibberish', now), false)
})

test('several processes fill the same store', async (t) => {
  const cache = scratch(t)
  const script = `
    const { openStore } = await import(${JSON.stringify(STORE)})
    const store = await openStore(${JSON.stringify(cache)})
    for (let i = 0; i < 60; i++) {
      const blob = await store.put(Buffer.alloc(5000 + i, String(i)))
      await store.remember(blob.digest, blob)
      if (!(await store.verified(blob.digest, 5000 + i))) throw new Error('blob ' + i + ' is not whole')
    }`
  const processes = Array.from({ length: 3 }, () => run(process.execPath, ['--input-type=module', '-e', script]))
  await Promise.all(processes)
  const store = await openStore(cache)
  assert.equal((await usage(store)).blobs, 60)
  for (let i = 0; i < 60; i++) assert.ok(await store.verified(sha256(Buffer.alloc(5000 + i, String(i)))))
  assert.deepEqual(readdirSync(join(cache, 'store', 'tmp')), [])
})

test('put() on a full disk says how much is needed and free, and leaves nothing under a final name', async (t) => {
  const dir = scratch(t)
  const script = `
    const { openStore } = await import(${JSON.stringify(STORE)})
    const store = await openStore(${JSON.stringify(dir)})
    const fault = await store.put(Buffer.alloc(3 << 20)).catch((error) => error)
    const { readdirSync } = await import('node:fs')
    const files = readdirSync(${JSON.stringify(dir)}, { recursive: true, withFileTypes: true }).filter((e) => e.isFile()).length
    console.log(JSON.stringify({ name: fault.name, code: fault.code, message: fault.message, files }))`
  const mount = 'mount -t tmpfs -o size=1m tmpfs "$0" && exec "$@"'
  const argv = [
    '--user',
    '--map-root-user',
    '--mount',
    'sh',
    '-c',
    mount,
    dir,
    process.execPath,
    '--input-type=module',
    '-e',
    script,
  ]
  const { stdout } = await run('unshare', argv).catch((error) => {
    if (!/Operation not permitted|Permission denied/.test(error.stderr)) throw error
    return { stdout: '' }
  })
  if (stdout === '') return t.skip('user namespaces are not permitted here')
  const said = JSON.parse(stdout)
  assert.deepEqual([said.name, said.code, said.files], ['Fault', 'host', 0])
  assert.match(said.message, /Cannot write a blob of 3.0 MiB to .*: the disk is full, .* free there/)
})

test('openStore() says which folder it may not write', async (t) => {
  const dir = scratch(t)
  writeFileSync(join(dir, 'file'), '')
  await assert.rejects(
    openStore(join(dir, 'file')),
    (error: unknown) => error instanceof Fault && error.code === 'host' && /not a folder/.test(error.message),
  )
})

test('openStore() refuses a place where no folder can be made, instead of trying for ever', async () => {
  await assert.rejects(
    openStore('/proc/bisque/cache'),
    (error: unknown) =>
      error instanceof Fault && error.code === 'host' && /folder \/proc\/bisque: \/proc takes none/.test(error.message),
  )
})
