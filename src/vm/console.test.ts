import assert from 'node:assert/strict'
import { duplexPair } from 'node:stream'
import { test } from 'node:test'
import fc from 'fast-check'
import { openConsole } from './console.ts'

const opened = () => {
  const [near, far] = duplexPair()
  return { console: openConsole(near), far }
}

const SYSTEMD = '[\x1b[0;32m  OK  \x1b[0m] Reached target \x1b[0;1;39mmulti-user.target\x1b[0m - Multi-User System – ü.\r\r\n'

test('Console.waitFor() sees text without its colours and carriage returns', async () => {
  const { console, far } = opened()
  far.write(SYSTEMD)
  const match = await console.waitFor(/^\[ {2}OK {2}\] Reached target ([\w-]+)\.target - Multi-User System – ü\.$/m, 1000)
  assert.equal(match[1], 'multi-user')
})

test('Console.text is the same however the bytes are cut into pieces', async () => {
  const title = '\x1b]0;title\x07\x1b]8;;https://example.org\x1b\\link\x1b]8;;\x1b\\\x1bc\x1b(B\x1b[?2004h'
  const bytes = Buffer.from(`${title}${SYSTEMD}\x1b[2J\x1b[01;01Hlogin: `)
  const cuts = fc.array(fc.nat(bytes.length), { maxLength: 20 })
  await fc.assert(
    fc.asyncProperty(cuts, async (cuts) => {
      const { console, far } = opened()
      const at = [0, ...cuts.toSorted((a, b) => a - b), bytes.length]
      for (let i = 1; i < at.length; i++) far.write(bytes.subarray(at[i - 1]!, at[i]!))
      await console.waitFor(/login: $/, 1000)
      assert.equal(console.text, 'link[  OK  ] Reached target multi-user.target - Multi-User System – ü.\nlogin: ')
    }),
  )
})

test('Console.waitFor() finds text that came before it was called, and uses it up', async () => {
  const { console, far } = opened()
  far.write('login: one\nlogin: two\n')
  assert.equal((await console.waitFor(/login: (\w+)/, 1000))[1], 'one')
  assert.equal((await console.waitFor(/login: (\w+)/g, 1000))[1], 'two')
  await assert.rejects(console.waitFor(/login:/, 20), { name: 'Fault', code: 'tool' })
})

test('Console.waitFor() shows the last lines when the time is over', async () => {
  const { console, far } = opened()
  far.write('Kernel panic\nnot syncing\n')
  await assert.rejects(console.waitFor(/login:/, 50), {
    message:
      'Cannot see /login:/ on the console: the machine did not print it within 0.05 s; its last lines:\n  Kernel panic\n  not syncing',
  })
})

test('Console.waitFor() fails at once when the machine stops', async () => {
  const { console, far } = opened()
  const waiting = console.waitFor(/login:/, 60_000)
  far.end()
  await assert.rejects(waiting, /Cannot see \/login:\/ on the console: the machine has stopped/)
  await assert.rejects(console.waitFor(/login:/, 60_000), /the machine has stopped/)
})

test('Console keeps a bounded part of what a babbling machine prints, and still waits for the rest', async () => {
  const { console, far } = opened()
  const waiting = console.waitFor(/the end/, 20_000)
  for (let i = 0; i < 64; i++) far.write(`${i} `.repeat(16 << 10))
  far.write(`\x1b[${'1;'.repeat(100_000)}`) // a sequence without an end must not be kept either
  far.write('the end')
  await waiting
  assert.ok(console.text.length <= 2 << 20)
})

test('Console.send() types a line, and onOutput() hears the bytes as they are', async () => {
  const { console, far } = opened()
  const heard: Buffer[] = []
  const stop = console.onOutput((bytes) => heard.push(bytes))
  far.on('data', (bytes: Buffer) => far.write(`\x1b[1mgot ${bytes}`))
  console.send('reboot')
  await console.waitFor(/got reboot\n/, 1000)
  stop()
  assert.equal(Buffer.concat(heard).toString(), '\x1b[1mgot reboot\n')
})
