import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { run, start } from './process.ts'

test('run() gives back what a program printed and passes input on', async () => {
  const outcome = await run(['sh', '-c', 'cat; echo err >/dev/stderr'], { input: 'in' })
  assert.deepEqual(outcome, { exitCode: 0, stdout: 'in', stderr: 'err\n' })
})

test('run() hands on nothing of the environment but what is given', async () => {
  process.env['BISQUE_SECRET'] = 'secret'
  const { stdout } = await run(['env'], { env: { A: 'b' } })
  assert.deepEqual(stdout.trim().split('\n').toSorted(), [
    'A=b',
    'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
  ])
})

test('run() ends in a Fault with the last lines, without control sequences', async () => {
  await assert.rejects(run(['sh', '-c', 'seq 100; printf "\\033[2Jlast\\n"; exit 3']), (error: Error) => {
    assert.match(error.message, /^Cannot finish sh: it ended with exit code 3\n {2}82\n[\s\S]*\n {2}\[2Jlast$/)
    return true
  })
})

test('run() says which program is not installed', async () => {
  await assert.rejects(run(['bisque-no-such-program']), {
    code: 'host',
    message: 'Cannot run bisque-no-such-program: it is not installed',
  })
})

test('run() stops a program that takes or prints too much', async () => {
  await assert.rejects(run(['sleep', '60'], { timeoutMs: 100 }), { code: 'tool', message: /took more than 0.1 s/ })
  await assert.rejects(run(['yes'], { outputBytes: 100_000 }), { code: 'tool', message: /printed more than/ })
})

test('run() feeds a program from an input that comes in pieces, read to its end or not', async () => {
  const chunk = Buffer.alloc(100_000, 'x')
  const pieces = async function* (count: number) {
    for (let i = 0; i < count; i++) yield chunk
  }
  assert.equal((await run(['wc', '-c'], { input: pieces(30) })).stdout, '3000000\n')
  assert.equal((await run(['head', '-c', '3'], { input: pieces(300) })).stdout, 'xxx')
  const broken = async function* () {
    yield chunk
    throw new Error('no more')
  }
  await assert.rejects(run(['wc', '-c'], { input: broken() }), /no more/)
})

test('start() hands out a program that kill() ends, with all it started', async () => {
  const running = start(['sh', '-c', 'trap "" TERM; sleep 300 & echo $!; wait; sleep 300'])
  const pid = Number(await new Promise((resolve) => running.stdout.once('data', resolve)))
  assert.equal(await running.kill(200), 137)
  await sleep(100)
  assert.equal(existsSync(`/proc/${pid}/exe`), false)
})

test('a started program dies with the process that started it', async () => {
  const script = `import { start } from ${JSON.stringify(new URL('process.ts', import.meta.url).pathname)}
    console.log(start(['sleep', '300']).pid); setInterval(() => {}, 1000)`
  const outer = start([process.execPath, '--input-type=module', '-e', script])
  const pid = Number(await new Promise((resolve) => outer.stdout.once('data', resolve)))
  assert.ok(existsSync(`/proc/${pid}`))
  process.kill(outer.pid, 'SIGKILL')
  assert.equal(await outer.ended, 137)
  for (let i = 0; i < 50 && existsSync(`/proc/${pid}/exe`); i++) await sleep(20)
  assert.equal(existsSync(`/proc/${pid}/exe`), false)
})
