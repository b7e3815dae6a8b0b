/**
 * QMP, QEMU's control protocol: one JSON object a line, in both directions.
 *
 * Spec: https://www.qemu.org/docs/master/interop/qmp-spec.html
 * What comes from QEMU is bounded and checked: the machine inside may be hostile, and so may be a QEMU it has taken over.
 */
import type { Duplex } from 'node:stream'
import { Fault } from '../base/fault.ts'

export interface QmpEvent {
  event: string
  data: Record<string, unknown>
}

export interface Qmp {
  /** QEMU's version, as in `10.0.13`. */
  readonly version: string
  /** Runs a command and returns what it returned. */
  execute(command: string, args?: Record<string, unknown>): Promise<unknown>
  /** Calls back with every event from now on; the returned function ends that. */
  onEvent(listener: (event: QmpEvent) => void): () => void
  close(): void
}

const MOST_BYTES_A_LINE = 1 << 20

/** Greets the QEMU at the other end of the stream and brings it into command mode. */
export async function connectQmp(stream: Duplex): Promise<Qmp> {
  const listeners = new Set<(event: QmpEvent) => void>()
  const waiting = new Map<number, { resolve: (value: unknown) => void; reject: (fault: Fault) => void }>()
  let ended: Fault | undefined
  let nextId = 1
  let greet: (version: string) => void
  let refuse: (fault: Fault) => void
  const greeting = new Promise<string>((resolve, reject) => {
    greet = resolve
    refuse = reject
  })

  const end = (why: string) => {
    ended ??= new Fault('tool', `Cannot talk to QEMU: ${why}`)
    refuse(ended)
    for (const { reject } of waiting.values()) reject(ended)
    waiting.clear()
    stream.destroy()
  }
  const take = (message: Record<string, unknown>) => {
    if ('QMP' in message) return greet(versionOf(message))
    if (typeof message['event'] === 'string') {
      const event = { event: message['event'], data: (message['data'] ?? {}) as Record<string, unknown> }
      for (const listener of listeners) listener(event)
      return
    }
    const asker = waiting.get(message['id'] as number)
    if (!asker) return
    waiting.delete(message['id'] as number)
    if ('error' in message) {
      const { class: kind, desc } = message['error'] as { class?: unknown; desc?: unknown }
      asker.reject(new Fault('tool', `Cannot command QEMU: ${desc} (${kind})`))
    } else asker.resolve(message['return'])
  }
  const execute = (command: string, args?: Record<string, unknown>) =>
    new Promise<unknown>((resolve, reject) => {
      if (ended) return reject(ended)
      const id = nextId++
      waiting.set(id, { resolve, reject })
      stream.write(`${JSON.stringify({ execute: command, ...(args ? { arguments: args } : {}), id })}\n`)
    })

  readLines(stream, take, end)
  const version = await greeting
  await execute('qmp_capabilities')
  return {
    version,
    execute,
    onEvent(listener) {
      listeners.add(listener)
      return () => listeners.delete(listener)
    },
    close: () => end('the connection was closed'),
  }
}

/** Splits the stream into lines and parses them; any trouble, and the stream's end, is told once. */
function readLines(stream: Duplex, take: (message: Record<string, unknown>) => void, end: (why: string) => void): void {
  let pending: Buffer = Buffer.alloc(0)
  stream.on('error', (error) => end(error.message))
  stream.on('end', () => end('it has ended'))
  stream.on('close', () => end('it has ended'))
  stream.on('data', (chunk: Buffer) => {
    pending = Buffer.concat([pending, chunk])
    for (let at = pending.indexOf(10); at >= 0; at = pending.indexOf(10)) {
      const line = pending.subarray(0, at).toString().trim()
      pending = pending.subarray(at + 1)
      if (line === '') continue
      const message = parse(line)
      if (!message) return end(`it said "${line.slice(0, 80)}", which is not an object in JSON`)
      take(message)
    }
    if (pending.length > MOST_BYTES_A_LINE) end(`it sent a line of more than ${MOST_BYTES_A_LINE} bytes`)
  })
}

function parse(line: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(line)
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : undefined
  } catch {
    return undefined
  }
}

function versionOf(greeting: Record<string, unknown>): string {
  const { qemu } = (greeting as { QMP?: { version?: { qemu?: Record<string, unknown> } } }).QMP?.version ?? {}
  return [qemu?.['major'], qemu?.['minor'], qemu?.['micro']].join('.')
}
