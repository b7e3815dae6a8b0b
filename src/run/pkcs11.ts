/**
 * PKCS#11 modules, each in a process of its own that ends with this one: what a vendor's library does there (crash, hang,
 * change the process's locale) the build does not feel. A PIN travels through a pipe, and is nowhere else.
 */
import { createInterface } from 'node:readline'
import { ANSWER, type Pkcs11Key, type Pkcs11Problem, type Pkcs11Request } from './pkcs11-protocol.ts'
import { type Running, start } from './process.ts'

export type { Pkcs11Key, Pkcs11Problem, Pkcs11Query } from './pkcs11-protocol.ts'

export interface Pkcs11Options {
  /** Environment of the module's process, over the system's PATH. */
  env?: Readonly<Record<string, string>>
  /** A module that does not answer for so long is ended. */
  timeoutMs?: number
  /** Starts the process elsewhere than right here, for modules of another system. */
  launch?: (argv: readonly string[], env: Readonly<Record<string, string>>) => Running
}

export interface Pkcs11Module {
  ask(request: Pkcs11Request & { op: 'key' }): Promise<Pkcs11Answer<Pkcs11Key>>
  ask(request: Pkcs11Request & { op: 'certificate' }): Promise<Pkcs11Answer<{ certificate: string }>>
  ask(request: Pkcs11Request & { op: 'sign' }): Promise<Pkcs11Answer<{ signature: string }>>
  /** Ends the process. Without it the process ends with this one, and never keeps this one from ending. */
  close(): Promise<void>
}

export type Pkcs11Answer<T> = { result: T; problem?: undefined } | { result?: undefined; problem: Pkcs11Problem }

/** A person may have to touch a token first. */
const TIMEOUT_MS = 60_000

/** Loads a module, when it is first asked for something. Requests are served one after the other. */
export function openPkcs11(path: string, options: Pkcs11Options = {}): Pkcs11Module {
  const { timeoutMs = TIMEOUT_MS } = options
  const waiting = new Map<number, (answer: Pkcs11Answer<any>) => void>()
  let child: Running | undefined
  let ended: Pkcs11Problem | undefined
  let turn: Promise<unknown> = Promise.resolve()
  let next = 0

  const give = (problem: Pkcs11Problem) => {
    ended ??= problem
    for (const answer of waiting.values()) answer({ problem: ended })
    waiting.clear()
  }
  const launch = (): Running => {
    const running = (options.launch ?? ((argv, env) => start(argv, { env })))(COMMAND, options.env ?? {})
    running.release()
    let printed = ''
    running.stderr.on('data', (bytes: Buffer) => {
      printed = `${printed}${bytes}`.slice(-2000)
    })
    let left = MAX_PRINTED_BYTES
    running.stdout.on('data', (bytes: Buffer) => {
      left -= bytes.length
      if (left >= 0) return
      give({ why: 'crash', detail: 'it printed without end' })
      running.stdout.destroy()
      void running.kill(0)
    })
    createInterface({ input: running.stdout }).on('line', (line) => {
      const answer = answerIn(line)
      if (answer === undefined) return
      waiting.get(answer.id)?.(answer)
      waiting.delete(answer.id)
    })
    running.ended.then(
      (code) => give({ why: 'crash', detail: endOf(code, printed) }),
      (error) => give({ why: 'crash', detail: (error as Error).message }),
    )
    return running
  }
  const answerTo = (request: Pkcs11Request): Promise<Pkcs11Answer<any>> => {
    if (ended) return Promise.resolve({ problem: ended })
    child ??= launch()
    const id = next++
    const timer = setTimeout(() => {
      give({ why: 'time-out', detail: `${timeoutMs / 1000} s` })
      void child?.kill(0)
    }, timeoutMs)
    return new Promise<Pkcs11Answer<any>>((resolve) => {
      waiting.set(id, resolve)
      child!.stdin.write(`${JSON.stringify({ id, path, ...request })}\n`)
    }).finally(() => clearTimeout(timer))
  }
  return {
    ask(request: Pkcs11Request) {
      const answer = turn.then(() => answerTo(request))
      turn = answer
      return answer
    },
    async close() {
      ended ??= { why: 'crash', detail: 'it was closed' }
      await child?.kill(0)
    },
  }
}

/** Far above what all answers of a build come to. */
const MAX_PRINTED_BYTES = 64 << 20

/** The answer in a line, if it has one: a module prints what it likes. */
function answerIn(line: string): ({ id: number } & Pkcs11Answer<any>) | undefined {
  if (!line.startsWith(ANSWER)) return undefined
  try {
    return JSON.parse(line.slice(ANSWER.length))
  } catch {
    return undefined
  }
}

const CHILD = new URL(import.meta.url.replace(/(\.[jt]s)$/, '-child$1')).href
const COMMAND = [
  process.execPath,
  '--disable-warning=ExperimentalWarning',
  '--eval',
  `import(${JSON.stringify(CHILD)}).then((m) => m.serve())`,
]

const endOf = (code: number, printed: string): string => {
  const last = printed.trim().split('\n').at(-1) ?? ''
  return `${code > 128 ? `signal ${code - 128}` : `exit code ${code}`}${last ? `: ${last.replace(/[\x00-\x1f\x7f-\x9f]/g, '').slice(0, 200)}` : ''}`
}
