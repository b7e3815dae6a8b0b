import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { connectQmp, type Qmp } from './qmp.ts'
import { listen } from './socket.ts'

const GREETING =
  '{"QMP": {"version": {"qemu": {"micro": 13, "minor": 0, "major": 10}, "package": ""}, "capabilities": ["oob"]}}\r\n'

test('connectQmp() greets, tells the version and leaves negotiation mode', async (t) => {
  const { qmp, heard } = await negotiated(t)
  assert.equal(qmp.version, '10.0.13')
  assert.deepEqual(heard, [{ execute: 'qmp_capabilities', id: 1 }])
})

test('Qmp.execute() returns what each command returned, in whatever order and pieces the answers come', async (t) => {
  const { qmp, peer, hear } = await negotiated(t)
  const first = qmp.execute('query-status')
  const second = qmp.execute('qom-get', { path: '/machine', property: 'type' })
  assert.deepEqual(await hear(2), { execute: 'query-status', id: 2 })
  assert.deepEqual(await hear(3), { execute: 'qom-get', arguments: { path: '/machine', property: 'type' }, id: 3 })
  for (const byte of '{"return":"q35-machine ü","id":3}\r\n{"return":{"running":true},"id":2}\r\n') peer.write(byte)
  assert.equal(await second, 'q35-machine ü')
  assert.deepEqual(await first, { running: true })
})

test('Qmp.execute() fails with the reason QEMU gave', async (t) => {
  const { qmp, peer } = await negotiated(t)
  const answer = assert.rejects(qmp.execute('explode'), {
    name: 'Fault',
    message: 'Cannot command QEMU: The command explode has not been found (CommandNotFound)',
  })
  peer.write('{"error":{"class":"CommandNotFound","desc":"The command explode has not been found"},"id":2}\r\n')
  await answer
})

test('Qmp.onEvent() tells events between the answers, until told to stop', async (t) => {
  const { qmp, peer } = await negotiated(t)
  const events: unknown[] = []
  const stop = qmp.onEvent((event) => events.push(event))
  peer.write('{"timestamp":{"seconds":1,"microseconds":2},"event":"RESET","data":{"guest":true}}\r\n{"event":"STOP"}\r\n')
  const answer = qmp.execute('a')
  peer.write('{"return":{},"id":2}\r\n')
  await answer
  stop()
  const next = qmp.execute('b')
  peer.write('{"event":"RESUME"}\r\n{"return":{},"id":3}\r\n')
  await next
  assert.deepEqual(events, [
    { event: 'RESET', data: { guest: true } },
    { event: 'STOP', data: {} },
  ])
})

const troubles: [string, (peer: Socket) => void, RegExp][] = [
  ['QEMU hangs up', (peer) => peer.end(), /it has ended/],
  ['a line is no JSON', (peer) => peer.write('hello\r\n'), /it said "hello"/],
  ['a line is no object', (peer) => peer.write('[]\n'), /it said "\[\]"/],
  ['a line has no end', (peer) => peer.write('x'.repeat(2 << 20)), /more than 1048576 bytes/],
]
for (const [what, cause, message] of troubles)
  test(`Qmp.execute() fails at once and ever after when ${what}`, async (t) => {
    const { qmp, peer } = await negotiated(t)
    const answer = qmp.execute('query-status')
    cause(peer)
    await assert.rejects(answer, { name: 'Fault', message })
    await assert.rejects(qmp.execute('quit'), { name: 'Fault', message })
  })

test('connectQmp() fails when the peer ends before it has greeted', async (t) => {
  const { near, far } = await pair(t)
  far.end()
  await assert.rejects(connectQmp(near), /Cannot talk to QEMU: it has ended/)
})

test('listen() refuses a path no socket can have', () => {
  assert.throws(() => listen(`/tmp/${'x'.repeat(120)}`), { name: 'Fault', message: /longer than 107 bytes/ })
})

/** A connection as QEMU makes it: it connects to the socket we listen on. */
async function pair(t: TestContext): Promise<{ near: Socket; far: Socket }> {
  const dir = mkdtempSync(join(tmpdir(), 'bisque-qmp-'))
  const path = join(dir, 'qmp')
  const listening = await listen(path)
  const far = connect(path)
  far.on('error', () => {})
  t.after(() => {
    far.end()
    listening.close()
    rmSync(dir, { recursive: true })
  })
  return { near: await listening.connected, far }
}

/** The far end plays QEMU by the book: greeting, then an answer to qmp_capabilities. */
async function negotiated(t: TestContext): Promise<{
  qmp: Qmp
  peer: Socket
  heard: { id: number }[]
  hear(id: number): Promise<unknown>
}> {
  const { near, far } = await pair(t)
  const heard: { id: number }[] = []
  let wake = () => {}
  let pending = ''
  far.on('data', (chunk) => {
    const lines = (pending + chunk.toString()).split('\n')
    pending = lines.pop()!
    heard.push(...lines.map((line) => JSON.parse(line)))
    wake()
  })
  const hear = async (id: number) => {
    for (;;) {
      const found = heard.find((command) => command.id === id)
      if (found) return found
      await new Promise<void>((resolve) => {
        wake = resolve
      })
    }
  }
  far.write(GREETING)
  const connected = connectQmp(near)
  await hear(1)
  far.write('{"return": {}, "id": 1}\r\n')
  return { qmp: await connected, peer: far, heard, hear }
}
