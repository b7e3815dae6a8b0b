/**
 * Running other programs: to their end (`run`) or alongside (`start`).
 *
 * Nothing is inherited but what is given: the environment is explicit, standard input is empty unless there is `input`.
 * A child dies with this process, even when that is killed: `setpriv --pdeathsig KILL` stands before every program.
 * (The kernel forgets that wish when a program changes its credentials, so whoever does so must state it again.)
 * Children are in sessions of their own: Ctrl-C reaches Bisque, and Bisque decides what becomes of them.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, existsSync } from 'node:fs'
import { Socket } from 'node:net'
import { Readable, Writable } from 'node:stream'
import { finished } from 'node:stream/promises'
import { Fault } from '../base/fault.ts'
import { shellWords } from '../base/shell-words.ts'
import { formatSize } from '../base/size.ts'
import { libc } from './libc.ts'

export interface StartOptions {
  cwd?: string
  /** The whole environment of the program. `PATH` is the system's folders unless given. */
  env?: Readonly<Record<string, string>>
  /** `ignore` is /dev/null. */
  stdin?: 'pipe' | 'ignore'
  /** Descriptors of this process that the program prints to; its streams are empty then. */
  stdout?: number | undefined
  stderr?: number | undefined
}

/** Where a program's output goes as it comes: to a descriptor of this process as it is, or to a function. */
export type Sink = number | ((bytes: Buffer) => void)

export interface RunOptions extends Omit<StartOptions, 'stdin' | 'stdout' | 'stderr'> {
  input?: string | Uint8Array | AsyncIterable<Uint8Array>
  timeoutMs?: number
  /** Most bytes the program may print on each stream. */
  outputBytes?: number
  /** Hands back a failed run instead of throwing. */
  allowFailure?: boolean
  /** Sees the output while it comes, both streams in one. */
  onOutput?: (bytes: Buffer) => void
  /** Where the streams go instead of into the outcome. */
  sinks?: { stdout: Sink; stderr: Sink } | undefined
}

export interface Outcome {
  /** 128 + n when signal n ended it, as a shell has it. */
  exitCode: number
  stdout: string
  stderr: string
}

export interface Running {
  readonly pid: number
  readonly stdin: Writable
  readonly stdout: Readable
  readonly stderr: Readable
  /** Fulfilled with the exit code when the program has ended; the last of its output may still be in the streams. */
  readonly ended: Promise<number>
  /** Asks the program to end, insists after `graceMs`, and waits until it has ended. */
  kill(graceMs?: number): Promise<number>
  /** No longer keeps this process from ending; the program then ends with it. */
  release(): void
}

/** Runs a program to its end. Anything but exit code 0 is a Fault with the last lines it printed. */
export async function run(argv: readonly string[], options: RunOptions = {}): Promise<Outcome> {
  const { stdout: out, stderr: err } = options.sinks ?? {}
  const running = start(argv, {
    ...options,
    ...{ stdin: options.input === undefined ? 'ignore' : 'pipe' },
    ...{ stdout: typeof out === 'number' ? out : undefined, stderr: typeof err === 'number' ? err : undefined },
  })
  const most = options.outputBytes ?? 64 << 20
  const output = [running.stdout, running.stderr].map((stream, i) => {
    const chunks: Buffer[] = []
    const sink = [out, err][i]
    let size = 0
    stream.on('data', (chunk: Buffer) => {
      if (typeof sink === 'function') return sink(chunk)
      size += chunk.length
      if (size > most) stop(`it printed more than ${formatSize(most)}`)
      else {
        chunks.push(chunk)
        options.onOutput?.(chunk)
      }
    })
    return chunks
  })
  let stopped: string | undefined
  const stop = (why: string) => {
    stopped ??= why
    void running.kill(1000)
  }
  const timer =
    options.timeoutMs !== undefined &&
    setTimeout(() => stop(`it took more than ${options.timeoutMs! / 1000} s`), options.timeoutMs)
  const fed = feed(running, options.input)
  fed.catch(() => {}) // seen below, once the program has ended
  let exitCode: number
  try {
    exitCode = await running.ended
    await Promise.all([finished(running.stdout), finished(running.stderr), fed])
  } finally {
    clearTimeout(timer || undefined)
  }
  const [stdout, stderr] = output.map((chunks) => Buffer.concat(chunks).toString()) as [string, string]
  if (stopped) throw new Fault('tool', `Cannot finish ${nameOf(argv)}: ${stopped}${said(stdout, stderr)}`)
  if (exitCode !== 0 && !options.allowFailure) throw failure(argv, { exitCode, stdout, stderr })
  return { exitCode, stdout, stderr }
}

/** Writes the input as fast as it is read. An input that fails ends the program; one that is not read to its end is none the worse. */
async function feed(running: Running, input: RunOptions['input']): Promise<void> {
  if (input === undefined) return
  if (typeof input === 'string' || input instanceof Uint8Array) return void running.stdin.end(input)
  try {
    for await (const bytes of input) {
      if (running.stdin.destroyed) return
      if (!running.stdin.write(bytes)) await Promise.race([once(running.stdin, 'drain').catch(() => {}), running.ended])
    }
    running.stdin.end()
  } catch (error) {
    await running.kill(0)
    throw error
  }
}

/**
 * Runs a program in a terminal of its own that is joined with the one at descriptors 0 and 1, until it ends. What it
 * types into its terminal nobody else reads.
 */
export async function runInTerminal(argv: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<number> {
  keepDescriptors()
  if (!SYSTEM_PATH.split(':').some((folder) => existsSync(`${folder}/script`)))
    throw new Fault('host', 'Cannot open a terminal: script is not installed', { hint: 'sudo apt install bsdutils' })
  const child = spawn(
    'setpriv',
    ['--pdeathsig', 'KILL', '--', 'script', '--quiet', '--return', '--command', shellWords(argv), '/dev/null'],
    { env: { PATH: SYSTEM_PATH, ...env, SHELL: '/bin/sh' }, stdio: 'inherit' },
  )
  const resized = () => void child.kill('SIGWINCH')
  process.on('SIGWINCH', resized)
  try {
    return await new Promise<number>((resolve, reject) => {
      child.on('error', (cause) => reject(new Fault('host', `Cannot open a terminal: ${cause.message}`, { cause })))
      child.on('exit', (code, signal) => resolve(exitCodeOf(code, signal)))
    })
  } finally {
    process.off('SIGWINCH', resized)
  }
}

/** Starts a program and hands back its handle at once. A program that cannot be started ends with code 127. */
export function start(argv: readonly string[], options: StartOptions = {}): Running {
  keepDescriptors()
  const [stdout, stderr] = [options.stdout, options.stderr].map((to) => (to === undefined ? pipe() : undefined))
  const child = spawn('setpriv', ['--pdeathsig', 'KILL', '--', ...argv], {
    cwd: options.cwd,
    env: { PATH: SYSTEM_PATH, ...options.env },
    stdio: [options.stdin ?? 'pipe', stdout?.write ?? options.stdout, stderr?.write ?? options.stderr],
    detached: true,
  })
  for (const made of [stdout, stderr]) if (made) closeSync(made.write)
  if (child.pid !== undefined) endAtExit(child.pid, child)
  child.stdin?.on('error', () => {}) // a program may end without reading its input
  const ended = new Promise<number>((resolve, reject) => {
    child.on('error', (cause) => {
      reject(new Fault('host', `Cannot run ${nameOf(argv)}: ${cause.message}`, { hint: 'apt install util-linux', cause }))
    })
    child.on('exit', (code, signal) => resolve(exitCodeOf(code, signal)))
  })
  ended.catch(() => {}) // seen by whoever awaits it; no crash where nobody does
  return {
    pid: child.pid ?? -1,
    stdin: child.stdin ?? nowhere(),
    stdout: stdout?.read ?? Readable.from([]),
    stderr: stderr?.read ?? Readable.from([]),
    ended,
    kill(graceMs = 5000) {
      child.ref()
      return end(child, ended, graceMs)
    },
    release() {
      child.unref()
      for (const stream of [child.stdin, stdout?.read, stderr?.read]) if (stream instanceof Socket) stream.unref()
    },
  }
}

const alive = new Set<number>()

/**
 * A program dies with this process by itself, but a moment later. When the process exits, it must be gone before those who
 * put things in order there remove what it writes to.
 */
function endAtExit(pid: number, child: ChildProcess): void {
  if (!process.listeners('exit').includes(endAll)) process.prependListener('exit', endAll)
  alive.add(pid)
  child.on('exit', () => alive.delete(pid))
}

function endAll(): void {
  for (const pid of alive) {
    try {
      process.kill(-pid, 'SIGKILL') // it leads a process group
    } catch {
      // ended in between
    }
  }
  if (alive.size > 0) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, DEATH_MS)
}

/** What it takes the kernel to end a namespace's processes. */
const DEATH_MS = 100

export const SYSTEM_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

/** Exit code of an ended program, 128 + n for signal n. */
export const exitCodeOf = (code: number | null, signal: NodeJS.Signals | null): number =>
  signal ? 128 + (SIGNALS[signal] ?? 0) : (code ?? 1)

/** The Fault of a program that failed, with the last lines it printed. */
export function failure(argv: readonly string[], outcome: Outcome): Fault {
  if (/^setpriv: failed to execute/m.test(outcome.stderr) && outcome.exitCode === 127) {
    return new Fault('host', `Cannot run ${argv[0]}: it is not installed`)
  }
  return new Fault(
    'tool',
    `Cannot finish ${nameOf(argv)}: it ended with exit code ${outcome.exitCode}${said(outcome.stdout, outcome.stderr)}`,
  )
}

/** The last lines of what a program printed, on new lines and indented; empty when it printed nothing. */
export function said(stdout: string, stderr: string, lines = 20): string {
  const text = (stderr.trim() || stdout.trim()).slice(-8192)
  const last = text.split('\n').slice(-lines)
  return text === '' ? '' : `\n${last.map((line) => `  ${printable(line)}`).join('\n')}`
}

/** Output is not trusted: no control sequence of it may reach a terminal. */
const printable = (line: string) => line.replace(/\t/g, ' ').replace(/[\x00-\x1f\x7f-\x9f]/g, '')

const nameOf = (argv: readonly string[]) => argv[0]?.split('/').at(-1) ?? ''

// biome-ignore format: table
const SIGNALS: Partial<Record<NodeJS.Signals, number>> = {
  SIGHUP: 1, SIGINT: 2, SIGQUIT: 3, SIGILL: 4, SIGABRT: 6, SIGBUS: 7, SIGFPE: 8, SIGKILL: 9, SIGSEGV: 11, SIGPIPE: 13, SIGALRM: 14, SIGTERM: 15,
}

async function end(child: ChildProcess, ended: Promise<number>, graceMs: number): Promise<number> {
  signal(child, 'SIGTERM')
  const timer = setTimeout(() => signal(child, 'SIGKILL'), graceMs)
  try {
    return await ended
  } finally {
    clearTimeout(timer)
  }
}

/**
 * A pipe: the end for the child as a descriptor, the end for us as a stream. Node would make a pair of sockets, and then
 * `echo >/dev/stderr` in a script fails, as sockets cannot be opened by name.
 */
function pipe(): { read: Readable; write: number } {
  const fds = new Int32Array(2)
  if (libc().pipe2(fds, O_CLOEXEC) !== 0) throw new Fault('host', 'Cannot make a pipe: too many files are open')
  return { read: new Socket({ fd: fds[0]!, readable: true, writable: false }), write: fds[1]! }
}

const O_CLOEXEC = 0o2000000

/** Descriptors this process was itself born with are for it alone: through one of a host directory a child could leave its root. */
export function keepDescriptors(): void {
  if (!kept) libc().close_range(3, 0x7fff_ffff, CLOSE_RANGE_CLOEXEC)
  kept = true
}
let kept = false
const CLOSE_RANGE_CLOEXEC = 4

const nowhere = () => new Writable({ write: (_chunk, _encoding, done) => done() })

/** Signals the program and what it started in its own process group. */
function signal(child: ChildProcess, name: NodeJS.Signals): void {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return
  try {
    process.kill(-child.pid, name)
  } catch {
    // ended in between
  }
}
