/** Ten million executions of the fuzzer over every decoder: crashes, hangs, memory, rate. FUZZ_SEED chooses others. */
import { formatSize } from '../src/base/size.ts'
import { fuzzAll, lineOf } from '../test/fuzz/fuzz.ts'

export const name = 'fuzz'

const EXECUTIONS = 10_000_000

export async function run(): Promise<void> {
  const started = performance.now()
  const seed = Number(process.env['FUZZ_SEED'] ?? 1)
  const outcomes = await fuzzAll({ executions: EXECUTIONS, seed }, (outcome) => console.log(`  ${lineOf(outcome)}`))
  const seconds = (performance.now() - started) / 1000
  const total = outcomes.reduce((sum, { executions }) => sum + executions, 0)
  const failed = outcomes.filter(({ crash }) => crash !== undefined).length
  const most = Math.max(...outcomes.map(({ peakBytes }) => peakBytes))
  console.log(
    `fuzz: ${total.toLocaleString('en')} executions over ${outcomes.length} decoders with seed ${seed}, ${failed} failed, ` +
      `${formatSize(most)} at most, ${seconds.toFixed(0)} s (${Math.round(total / seconds).toLocaleString('en')} a second)`,
  )
  if (failed > 0) process.exitCode = 1
}
