import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { threadId } from 'node:worker_threads'
import { Fault } from '../base/fault.ts'
import { moved, startWorkers, taskOf, withWorkers } from './workers.ts'

// The tasks of these tests: this file is loaded again in each worker, where `test()` calls must not run.
export const double = (n: number) => n * 2
export async function threadAfter(ms: number): Promise<number> {
  await sleep(ms)
  return threadId
}
export function bytesOf(length: number) {
  const bytes = new Uint8Array(length).fill(7)
  return moved(bytes, [bytes.buffer])
}
export function refuse(name: string): never {
  throw new Fault('integrity', `Cannot use ${name}: it is wrong`, { hint: 'try another' })
}
export function crash(): void {
  process.exit(3)
}
export function missing(): void {
  process.chdir('/nowhere')
}

const here = import.meta.url

if (threadId === 0) {
  test('Workers.run() gives back what the task returned, for each argument', async () => {
    await withWorkers(2, async (workers) => {
      const results = await Promise.all(Array.from({ length: 100 }, (_, n) => workers.run(taskOf(here, double), n)))
      assert.deepEqual(
        results,
        Array.from({ length: 100 }, (_, n) => n * 2),
      )
    })
  })

  test('Workers.run() spreads work over its threads and starts none it does not need', async () => {
    await withWorkers(3, async (workers) => {
      const task = taskOf(here, threadAfter)
      assert.equal(new Set(await Promise.all([workers.run(task, 50), workers.run(task, 50)])).size, 2)
      assert.equal(new Set(await Promise.all(Array.from({ length: 9 }, () => workers.run(task, 50)))).size, 3)
    })
  })

  test('Workers.run() moves buffers without losing bytes', async () => {
    await withWorkers(1, async (workers) => {
      const bytes = await workers.run(taskOf(here, bytesOf), 1 << 20)
      assert.equal(bytes.length, 1 << 20)
      assert.ok(bytes.every((byte) => byte === 7))
    })
  })

  test('Workers.run() rejects with the Fault the task threw, code and hint intact, and goes on working', async () => {
    await withWorkers(1, async (workers) => {
      await assert.rejects(workers.run(taskOf(here, refuse), 'it'), (e) => {
        assert.ok(e instanceof Fault)
        assert.deepEqual([e.code, e.message, e.hint], ['integrity', 'Cannot use it: it is wrong', 'try another'])
        return true
      })
      assert.equal(await workers.run(taskOf(here, double), 4), 8)
    })
  })

  test('Workers.run() rejects when a thread dies, and replaces it', async () => {
    await withWorkers(1, async (workers) => {
      await assert.rejects(workers.run(taskOf<void, void>(here, crash), undefined), /exited with 3/)
      assert.equal(await workers.run(taskOf(here, double), 4), 8)
    })
  })

  test('Workers.run() rejects for a function that is not there and an argument that cannot cross', async () => {
    await withWorkers(1, async (workers) => {
      await assert.rejects(workers.run({ module: here, name: 'nothing' }, 1), /exports no function nothing/)
      await assert.rejects(
        workers.run({ module: here, name: 'double' }, () => 1),
        /could not be cloned/,
      )
      assert.equal(await workers.run(taskOf(here, double), 4), 8)
    })
  })

  test('Workers.close() rejects what is under way and refuses more', async () => {
    const workers = startWorkers(1)
    const task = taskOf(here, threadAfter)
    const under = [workers.run(task, 60_000), workers.run(task, 60_000)]
    const results = Promise.allSettled(under)
    await workers.close()
    assert.deepEqual(
      (await results).map((r) => r.status),
      ['rejected', 'rejected'],
    )
    await assert.rejects(workers.run(task, 1), /closed/)
  })

  test('withWorkers() leaves a pool open that it was given', async () => {
    await withWorkers(1, async (workers) => {
      assert.equal(await withWorkers(workers, (same) => same.run(taskOf(here, double), 1)), 2)
      assert.equal(await workers.run(taskOf(here, double), 2), 4)
    })
  })

  test('a pool that was never closed does not keep its process alive', () => {
    const program = `
      import { startWorkers, taskOf } from ${JSON.stringify(new URL('./workers.ts', here).href)}
      const workers = startWorkers(2)
      const double = { module: ${JSON.stringify(here)}, name: 'double' }
      process.stdout.write(String(await workers.run(double, 21)))`
    const out = execFileSync(process.execPath, ['--input-type=module', '--eval', program], { encoding: 'utf8', timeout: 20_000 })
    assert.equal(out, '42')
  })

  test('the pool works from emitted JavaScript', (t) => {
    const dir = mkdtempSync(join(tmpdir(), 'bisque-workers-'))
    t.after(() => rmSync(dir, { recursive: true, force: true }))
    const root = join(import.meta.dirname, '../..')
    const tsc = [join(root, 'node_modules/.bin/tsc'), '--ignoreConfig', '--outDir', dir, '--rootDir', join(root, 'src')]
    const options = '--target es2024 --module nodenext --rewriteRelativeImportExtensions --types node --skipLibCheck'.split(' ')
    execFileSync(tsc[0]!, [...tsc.slice(1), ...options, join(import.meta.dirname, 'workers.ts')], { cwd: root })
    const program = `
      import { withWorkers } from ${JSON.stringify(join(dir, 'run/workers.js'))}
      const home = { module: 'node:os', name: 'endianness' }
      process.stdout.write(await withWorkers(1, (workers) => workers.run(home)))`
    const out = execFileSync(process.execPath, ['--input-type=module', '--eval', program], { encoding: 'utf8', timeout: 20_000 })
    assert.equal(out, 'LE')
  })
}
