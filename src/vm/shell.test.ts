import assert from 'node:assert/strict'
import { type Duplex, duplexPair } from 'node:stream'
import { test } from 'node:test'
import { openShell, shellCredentials } from './shell.ts'

const WORD = '0123456789abcdef'

/** A guest that has come up once; `answer` gives what it writes for each command. */
function opened(answer: (id: string, command: string, far: Duplex) => void) {
  const [near, far] = duplexPair()
  const shell = openShell(near, WORD)
  far.on('data', (bytes: Buffer) => {
    for (const line of bytes.toString().split('\n').slice(0, -1)) {
      const [word, id, command] = line.split(' ')
      assert.equal(word, WORD)
      answer(id!, Buffer.from(command!, 'base64').toString(), far)
    }
  })
  far.write(`\nnoise\r\n${WORD} ready 1f00-boot\n`)
  return { shell, far }
}

const lines = (text: string) =>
  `${Buffer.from(text)
    .toString('base64')
    .replace(/(.{76})/g, '$1\n')}\n`

test('GuestShell.run() returns output and exit code exactly, however long the output and cut its bytes', async () => {
  const output = `first\n\n  second \t\0 ü\n${'x'.repeat(1000)}\nno newline`
  const { shell } = opened((id, command, far) => {
    for (const byte of `${WORD} ${id} begin\n${lines(`${command}:${output}`)}${WORD} ${id} end 7\n`) far.write(byte)
  })
  assert.equal(await shell.ready(1000), '1f00-boot')
  assert.deepEqual(await shell.run('say "it"\n# twice', 1000), { exitCode: 7, output: `say "it"\n# twice:${output}` })
})

test('GuestShell.run() runs commands one after another', async () => {
  const order: string[] = []
  const { shell } = opened((id, command, far) => {
    order.push(`start ${command}`)
    setTimeout(() => {
      order.push(`end ${command}`)
      far.write(`${WORD} ${id} begin\n${WORD} ${id} end 0\n`)
    }, 5)
  })
  await Promise.all([shell.run('a', 1000), shell.run('b', 1000)])
  assert.deepEqual(order, ['start a', 'end a', 'start b', 'end b'])
})

test('GuestShell.run() fails when the guest restarts, stops or takes too long', async () => {
  const { shell, far } = opened((_id, command, far) => {
    if (command === 'reboot') far.write(`${WORD} ready 2f00-boot\n`)
    if (command === 'poweroff') far.end()
  })
  await assert.rejects(shell.run('sleep', 20), /Cannot finish the command in the guest: it took more than 0.02 s/)
  await assert.rejects(shell.run('reboot', 1000), /the machine has restarted/)
  assert.equal(shell.boots, 2)
  assert.equal(await shell.ready(1000, 1), '2f00-boot')
  await assert.rejects(shell.ready(20, 2), /Cannot reach the guest: it did not come up within 0.02 s/)
  await assert.rejects(shell.run('poweroff', 1000), /the machine has stopped/)
  await assert.rejects(shell.run('true', 1000), /the machine has stopped/)
  far.end()
})

test('GuestShell.run() refuses a command too long for the line', () => {
  const { shell } = opened(() => {})
  assert.throws(() => shell.run('x'.repeat(70_000), 1000), { name: 'Fault', code: 'usage' })
})

test('GuestShell.run() bounds what the guest may print', async () => {
  const { shell } = opened((id, _command, far) => {
    far.write(`${WORD} ${id} begin\n`)
    const line = `${'A'.repeat(8000)}\n`.repeat(1000)
    for (let i = 0; i < 9; i++) far.write(line)
  })
  await assert.rejects(shell.run('yes', 20_000), /it printed more than 67108864 bytes/)
})

test('shellCredentials() are a unit for multi-user.target that knows the word', () => {
  const credentials = shellCredentials(WORD)
  assert.deepEqual(Object.keys(credentials), [
    'systemd.extra-unit.bisque-shell.service',
    'systemd.unit-dropin.multi-user.target~bisque-shell',
  ])
  const script = /echo (\S+) \| base64/.exec(credentials['systemd.extra-unit.bisque-shell.service']!)![1]!
  assert.match(Buffer.from(script, 'base64').toString(), new RegExp(`printf '.*ready.*' ${WORD}`))
})
