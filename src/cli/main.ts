/** argv → verb; prints Faults and results; gives the exit code. */
import { getEventListeners } from 'node:events'
import { readFileSync, writeSync } from 'node:fs'
import { homedir } from 'node:os'
import { join, resolve } from 'node:path'
import { FAULTS, Fault } from '../base/fault.ts'
import { Report } from '../base/report.ts'
import { NAMESPACE_VARIABLE } from '../run/namespace.ts'
import { formatBug, formatEvent, formatFault, formatResult } from './ndjson.ts'
import { type Command, parseArguments } from './parse.ts'
import type { Outcome } from './session.ts'
import { clean, openTerminal, type Terminal } from './terminal.ts'

const { env, stdout, stderr } = process
const version: string = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')).version
/** https://no-color.org */
const color = (stream: { isTTY?: boolean }): boolean => stream.isTTY === true && !env['NO_COLOR'] && env['TERM'] !== 'dumb'
/** A running verb gets this long to end after Ctrl-C, if it listens at all. */
const GRACE_MS = 5000

export async function main(args: readonly string[]): Promise<number> {
  // The parser may be what fails, and a program reads its words too.
  let json = args.includes('--json')
  let terminal: Terminal | undefined
  try {
    const command = parseArguments(args, { version, color: color(stdout), columns: stdout.columns })
    if ('page' in command) {
      printAll(1, `${command.page}\n`)
      return 0
    }
    json = command.json
    if (OWNS_FILES.has(command.verb) && !env[NAMESPACE_VARIABLE]) return await startAgain()
    if (command.directory !== undefined) changeTo(command.directory)
    const opened = openTerminal(stderr, { color: color(stderr) })
    terminal = opened
    // Whoever ends the process, the cursor comes back.
    process.once('exit', () => opened.stop())
    const report = new Report((event) => (json ? printAll(1, formatEvent(event)) : opened.show(event)))
    const outcome = await runInterruptibly(command, report, opened)
    opened.stop()
    if (json) printAll(1, formatResult(command.verb, outcome.result))
    else if (outcome.text !== undefined) printAll(1, `${outcome.text}\n`)
    return outcome.exitCode ?? 0
  } catch (error) {
    terminal?.stop()
    return complain(error, json)
  }
}

/** Runs a verb; SIGINT, SIGTERM and SIGHUP abort its signal and end the process with 128 and the signal's number. */
async function runInterruptibly(command: Command, report: Report, terminal: Terminal): Promise<Outcome> {
  const abort = new AbortController()
  let exitCode = 0
  const interrupt = (name: NodeJS.Signals, number: number) => () => {
    const again = exitCode !== 0
    exitCode = 128 + number
    abort.abort(new Error(`interrupted by ${name}`))
    terminal.stop()
    if (again || getEventListeners(abort.signal, 'abort').length === 0) process.exit(exitCode)
    setTimeout(() => process.exit(exitCode), GRACE_MS).unref()
  }
  const handlers = [
    ['SIGHUP', interrupt('SIGHUP', 1)],
    ['SIGINT', interrupt('SIGINT', 2)],
    ['SIGTERM', interrupt('SIGTERM', 15)],
  ] as const
  for (const [name, handler] of handlers) process.on(name, handler)
  const cache = resolve(command.cache ?? join(env['XDG_CACHE_HOME'] || join(homedir(), '.cache'), 'bisque'))
  try {
    const leaveTerminal = () => terminal.stop()
    const about = { environment: env, signal: abort.signal, color: color(stdout), json: command.json }
    return await command.run({ report, cache, leaveTerminal, ...about })
  } catch (error) {
    if (exitCode !== 0) process.exit(exitCode)
    throw error
  } finally {
    for (const [name, handler] of handlers) process.off(name, handler)
  }
}

/** Verbs that write files with other owners: they run in a namespace of their own, where they may. */
const OWNS_FILES: ReadonlySet<string> = new Set(['build', 'clean', 'sign prepare', 'sign attach'])

/** Runs this very command line in the namespace of a build. */
async function startAgain(): Promise<number> {
  const { enterNamespace } = await import('../run/namespace.ts')
  const defined = Object.entries(env).filter((entry): entry is [string, string] => entry[1] !== undefined)
  return enterNamespace([process.execPath, ...process.execArgv, ...process.argv.slice(1)], { env: Object.fromEntries(defined) })
}

function changeTo(directory: string): void {
  try {
    process.chdir(directory)
  } catch (error) {
    throw new Fault('missing', `Cannot change to ${directory}: ${(error as NodeJS.ErrnoException).code}`, { cause: error })
  }
}

/** Tells what went wrong and returns the exit code for it. */
function complain(error: unknown, json: boolean): number {
  const bold = (code: number, text: string): string => (color(stderr) ? `\x1b[1;${code}m${text}\x1b[0m` : text)
  if (error instanceof Fault) {
    if (json) printAll(1, formatFault(error))
    else {
      const hint =
        error.hint === undefined
          ? ''
          : error.hint
              .split('\n')
              .map((line) => `  ${bold(36, line)}\n`)
              .join('')
      printAll(2, `${bold(31, 'error:')} ${clean(error.message)}\n${hint}`)
    }
    return FAULTS[error.code].exit
  }
  if (json) printAll(1, formatBug(error))
  const stack = error instanceof Error ? (error.stack ?? error.message) : String(error)
  printAll(
    2,
    `${bold(31, 'bug:')} ${clean(stack)}\nThis is a fault in Bisque ${version}. Please report it with the lines above and the command that led here.\n`,
  )
  return 1
}

/** Writes all of it before returning, so that a pipe gets the last line even when the process ends at once. */
function printAll(descriptor: 1 | 2, text: string): void {
  const bytes = Buffer.from(text)
  for (let at = 0; at < bytes.length; ) {
    try {
      at += writeSync(descriptor, bytes, at)
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      if (code === 'EPIPE') process.exit(0)
      if (code !== 'EAGAIN') throw error
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5)
    }
  }
}
