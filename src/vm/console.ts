/**
 * The serial console of a machine: what it printed, without control sequences, and waiting for it to print something.
 */
import type { Duplex } from 'node:stream'
import { StringDecoder } from 'node:string_decoder'
import { Fault } from '../base/fault.ts'

export interface Console {
  /** What was printed and is still kept: the last MiB of text. */
  readonly text: string
  /**
   * Waits until the machine prints something that matches, and returns the match. What a call has matched is used up:
   * the next one looks behind it.
   */
  waitFor(pattern: RegExp, timeoutMs: number): Promise<RegExpExecArray>
  /** Types a line. */
  send(line: string): void
  /** Types these bytes, as they are. */
  write(bytes: Uint8Array): void
  /** Calls back with the bytes as they come, control sequences and all; the returned function ends that. */
  onOutput(listener: (bytes: Buffer) => void): () => void
  /** The last lines printed, for a message. */
  lastLines(count?: number): string
}

const KEPT_CHARACTERS = 1 << 20

/** Reads from the stream from now on, and to its end. */
export function openConsole(stream: Duplex): Console {
  const listeners = new Set<(bytes: Buffer) => void>()
  const waiting = new Set<() => void>()
  const clean = plainText()
  let text = ''
  let used = 0
  let ended = false

  const wake = () => {
    for (const look of [...waiting]) look()
  }
  const end = () => {
    ended = true
    wake()
  }
  stream.on('error', () => {}) // its end is told by 'close'
  stream.on('end', end)
  stream.on('close', end)
  stream.on('data', (chunk: Buffer) => {
    for (const listener of listeners) listener(chunk)
    text += clean(chunk)
    if (text.length > 2 * KEPT_CHARACTERS) {
      used = Math.max(0, used - (text.length - KEPT_CHARACTERS))
      text = text.slice(-KEPT_CHARACTERS)
    }
    wake()
  })

  const lastLines = (count = 15) =>
    text
      .trimEnd()
      .split('\n')
      .slice(-count)
      .map((line) => `\n  ${line.slice(0, 200)}`)
      .join('')
  const waitFor = (pattern: RegExp, timeoutMs: number) =>
    new Promise<RegExpExecArray>((resolve, reject) => {
      const fail = (why: string) => {
        finish()
        reject(
          new Fault(
            'tool',
            `Cannot see ${pattern} on the console: ${why}${text === '' ? '' : `; its last lines:${lastLines()}`}`,
          ),
        )
      }
      const look = () => {
        const match = new RegExp(pattern.source, pattern.flags.replace(/[gy]/g, '')).exec(text.slice(used))
        if (match) {
          used += match.index + match[0].length
          finish()
          resolve(match)
        } else if (ended) fail('the machine has stopped')
      }
      const timer = setTimeout(() => fail(`the machine did not print it within ${timeoutMs / 1000} s`), timeoutMs)
      const finish = () => {
        clearTimeout(timer)
        waiting.delete(look)
      }
      waiting.add(look)
      look()
    })

  return {
    get text() {
      return text
    },
    waitFor,
    lastLines,
    send: (line) => void stream.write(`${line}\n`),
    write: (bytes) => void stream.write(bytes),
    onOutput(listener) {
      listeners.add(listener)
      return () => listeners.delete(listener)
    },
  }
}

/**
 * Control sequences (ECMA-48: `ESC [ … letter`, `ESC ] … BEL`, `ESC` and one more) and other control characters.
 * The last alternative is a sequence that has only begun: it waits for the rest of it, up to a bound.
 */
const CONTROL =
  /\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[ -/]*[0-Z\\`-~]|[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f]/g
const BEGUN = /\x1b(?:\[[0-?]*[ -/]*|[\]PX^_][^\x07\x1b]*\x1b?|[ -/]*)$/
const LONGEST_BEGUN = 4096

/** Turns the bytes of a terminal, in pieces cut anywhere, into text of lines. */
function plainText(): (bytes: Buffer) => string {
  const decoder = new StringDecoder('utf8')
  let pending = ''
  return (bytes) => {
    const all = pending + decoder.write(bytes)
    const begun = BEGUN.exec(all.slice(-LONGEST_BEGUN))
    pending = begun ? begun[0] : ''
    return all.slice(0, all.length - pending.length).replace(CONTROL, '')
  }
}
