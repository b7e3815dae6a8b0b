/**
 * A campaign: one decoder, many inputs, and what it did with them.
 *
 * Allowed is an answer, or a Fault. Anything else thrown is a crash; one input that takes longer than a second, a hang.
 * Coverage is not measured; what a decoder answers is: a message with the numbers and names taken out, or the shape of
 * the answer. An input that gets an answer nobody got before is kept, and mutated in its turn.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { Fault } from '../../src/base/fault.ts'
import { mutate, randomFrom } from './mutate.ts'
import type { Target } from './targets.ts'

export interface Campaign {
  executions: number
  seed: number
  /** Told now and then how many there were. */
  onProgress?: (executions: number) => void
}

export interface Findings {
  executions: number
  /** Different answers seen. */
  answers: number
  slowestMs: number
  /** Inputs that got an answer that no input of the corpus got. */
  kept: Uint8Array[]
}

/** What a decoder did that it must not; `input` is what it did it with. */
export class Finding extends Error {
  readonly input: Uint8Array
  constructor(message: string, input: Uint8Array, cause?: unknown) {
    super(message, { cause })
    this.input = input
  }
}

const CORPUS = fileURLToPath(new URL('corpus', import.meta.url))
const HANG_MS = 1000
const MOST_KEPT = 400
const PROGRESS_EVERY = 512

export const corpusOf = (target: string): string => `${CORPUS}/${target}`

export function readCorpus(target: string): Uint8Array[] {
  const folder = corpusOf(target)
  if (!existsSync(folder)) throw new Error(`there is no corpus for ${target}: node test/fuzz/grow.ts ${target}`)
  return readdirSync(folder)
    .sort()
    .map((name) => Uint8Array.from(readFileSync(`${folder}/${name}`)))
}

export async function runCampaign(name: string, target: Target, { executions, seed, onProgress }: Campaign): Promise<Findings> {
  const random = randomFrom(seed)
  const words = (target.words ?? []).map((word) => (typeof word === 'string' ? Buffer.from(word, 'latin1') : word))
  const answers = new Set<string>()
  const pool = readCorpus(name)
  for (const input of pool) answers.add(await answerOf(target, input))
  const kept: Uint8Array[] = []
  let slowestMs = 0
  for (let n = 1; n <= executions; n++) {
    const from = random(2) === 0 && kept.length > 0 ? kept[random(kept.length)]! : pool[random(pool.length)]!
    const mutated = mutate(from, { random, words, other: pool[random(pool.length)]! })
    const input = target.repair && random(4) > 0 ? target.repair(mutated) : mutated
    const start = performance.now()
    const answer = await answerOf(target, input)
    const took = performance.now() - start
    if (took > slowestMs) slowestMs = took
    if (took > HANG_MS) await checkTime(name, target, input)
    if (!answers.has(answer)) {
      answers.add(answer)
      if (kept.length < MOST_KEPT) kept.push(input)
    }
    if (n % PROGRESS_EVERY === 0) {
      onProgress?.(n)
      // What waits (finalizers, memory to be given back) gets its turn.
      await new Promise(setImmediate)
    }
  }
  return { executions, answers: answers.size, slowestMs, kept }
}

/** Runs it once more, and counts the time of the processor: it may have been busy with something else. */
async function checkTime(name: string, target: Target, input: Uint8Array): Promise<void> {
  const before = process.cpuUsage()
  await answerOf(target, input)
  const { user, system } = process.cpuUsage(before)
  const ms = Math.round((user + system) / 1000)
  if (ms > HANG_MS) throw new Finding(`${name} took ${ms} ms for ${input.length} bytes`, input)
}

async function answerOf(target: Target, input: Uint8Array): Promise<string> {
  try {
    const answer = target.run(input)
    return `ok ${answer instanceof Promise ? await answer : answer}`
  } catch (error) {
    if (error instanceof Fault) return templateOf(error.message)
    throw new Finding(`${error instanceof Error ? error.stack : String(error)}`, input, error)
  }
}

/** A message without what is of this input alone: what is quoted, numbers, and words that no message of ours has. */
const templateOf = (message: string): string =>
  message
    .slice(0, 160)
    .replace(/"[^"]*"?/g, '"')
    .replace(/\/\S*/g, '/')
    .replace(/[^\x20-\x7e]+/g, '?')
    .replace(/[^\s"]*[^a-zA-Z\s,.;:'"()[\]_-][^\s"]*/g, '#')
    .slice(0, 80)
