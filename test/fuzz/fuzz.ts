/**
 * Runs campaigns over decoders, two processes at a time: `npm run fuzz -- [EXECUTIONS] [--seed N] [--keep N] [TARGET…]`.
 *
 * EXECUTIONS are shared out over the targets by how fast they are. A crash, a hang of ten seconds or more than 256 MiB of
 * memory (of which Node itself takes about 80) ends the run with exit code 1, and leaves its input in the corpus.
 */
import { fork } from 'node:child_process'
import { availableParallelism } from 'node:os'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { TARGETS } from './targets.ts'

export interface Outcome {
  target: string
  executions: number
  answers: number
  slowestMs: number
  peakBytes: number
  seconds: number
  crash?: string
}

const ONE_TARGET = fileURLToPath(new URL('one-target.ts', import.meta.url))
const SILENCE_MS = 10_000
const MOST_BYTES = 256 << 20
/** Garbage is collected early, so that what is measured is what is used. */
const MEMORY = ['--max-old-space-size=128', '--max-semi-space-size=4']

/** Runs one target in a process of its own. */
export function fuzz(target: string, executions: number, seed: number, keep = 0): Promise<Outcome> {
  const start = performance.now()
  return new Promise((resolve) => {
    const child = fork(ONE_TARGET, [target, `${executions}`, `${seed}`, `${keep}`], {
      execArgv: MEMORY,
      stdio: ['ignore', 'inherit', 'pipe', 'ipc'],
    })
    const outcome: Outcome = { target, executions: 0, answers: 0, slowestMs: 0, peakBytes: 0, seconds: 0 }
    let last = 0
    let stderr = ''
    const hung = () => {
      outcome.crash = `silent for ${SILENCE_MS / 1000} s after ${last} executions with seed ${seed}`
      child.kill('SIGKILL')
    }
    let watch = setTimeout(hung, 3 * SILENCE_MS)
    child.stderr!.on('data', (chunk: Buffer) => (stderr = (stderr + chunk.toString()).slice(-4000)))
    child.on('message', (message: Partial<Outcome> & { done?: number; path?: string }) => {
      clearTimeout(watch)
      watch = setTimeout(hung, SILENCE_MS)
      if (message.done !== undefined) last = message.done
      else Object.assign(outcome, message)
    })
    child.on('exit', (code, signal) => {
      clearTimeout(watch)
      outcome.seconds = (performance.now() - start) / 1000
      if (outcome.executions === 0) outcome.crash ??= `ended with ${signal ?? code} after ${last} executions: ${stderr}`
      if (outcome.peakBytes > MOST_BYTES)
        outcome.crash ??= `took ${outcome.peakBytes >> 20} MiB of memory, expected at most ${MOST_BYTES >> 20}`
      resolve(outcome)
    })
  })
}

/** All targets, each with its share, as many at a time as there are processors. */
export async function fuzzAll(
  options: { executions: number; seed: number; keep?: number; targets?: readonly string[] },
  tell: (outcome: Outcome) => void,
): Promise<Outcome[]> {
  const names = options.targets?.length ? options.targets : Object.keys(TARGETS)
  const shares = names.map((name) => TARGETS[name]?.share ?? 100_000)
  const whole = shares.reduce((sum, share) => sum + share, 0)
  const left = names.map((name, i) => ({ name, executions: Math.ceil((options.executions * shares[i]!) / whole) }))
  const outcomes: Outcome[] = []
  const work = async () => {
    for (let next = left.shift(); next; next = left.shift()) {
      const outcome = await fuzz(next.name, next.executions, options.seed, options.keep)
      outcomes.push(outcome)
      tell(outcome)
    }
  }
  await Promise.all(Array.from({ length: availableParallelism() }, work))
  return outcomes
}

export const lineOf = ({ target, executions, answers, slowestMs, peakBytes, seconds, crash }: Outcome): string =>
  crash !== undefined
    ? `${target.padEnd(20)} FAILED: ${crash}`
    : `${target.padEnd(20)} ${executions.toLocaleString('en').padStart(11)} executions  ${String(answers).padStart(4)} answers  ${slowestMs.toFixed(0).padStart(4)} ms at most  ${String(peakBytes >> 20).padStart(4)} MiB  ${seconds.toFixed(0).padStart(4)} s`

if (import.meta.main) {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { seed: { type: 'string', default: '1' }, keep: { type: 'string', default: '0' } },
  })
  const executions = /^\d+$/.test(positionals[0] ?? '') ? Number(positionals.shift()) : 1_000_000
  const unknown = positionals.filter((name) => !(name in TARGETS))
  if (unknown.length > 0) throw new Error(`no such target: ${unknown.join(', ')}; there are ${Object.keys(TARGETS).join(', ')}`)
  const outcomes = await fuzzAll(
    { executions, seed: Number(values.seed), keep: Number(values.keep), targets: positionals },
    (outcome) => console.log(lineOf(outcome)),
  )
  const total = outcomes.reduce((sum, outcome) => sum + outcome.executions, 0)
  const failed = outcomes.filter(({ crash }) => crash !== undefined)
  console.log(`${total.toLocaleString('en')} executions over ${outcomes.length} decoders, ${failed.length} failed`)
  process.exitCode = failed.length > 0 ? 1 : 0
}
