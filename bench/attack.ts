/** The whole matrix of `bisque attack` against examples/minimal, with its keys: verdicts, time by group, against 25 minutes. */
import { loadavg } from 'node:os'
import { formatSize } from '../src/base/size.ts'
import { baked, CACHE } from '../test/baked.ts'
import { watch } from './processes.ts'

export const name = 'attack'

/** What it may take under software emulation on two cores. */
const GOAL_MS = 25 * 60_000

interface Result {
  holes: number
  cleanMs: number
  ms: number
  cases: { group: string; verdict: string; ms: number }[]
}

export async function run(): Promise<void> {
  const before = loadavg()[0]!.toFixed(1)
  const argv = [process.execPath, 'src/main.ts', 'attack', baked('.raw'), '--keys', 'examples/minimal/keys', '--cache', CACHE]
  const { stdout, peakBytes } = await watch([...argv, '--json'])
  const result = JSON.parse(stdout.trim().split('\n').at(-1)!) as Result
  const seconds = (ms: number) => `${(ms / 1000).toFixed(0)} s`
  for (const [group, cases] of Map.groupBy(result.cases, (one) => one.group)) {
    const verdicts = [...Map.groupBy(cases, ({ verdict }) => verdict)].map(([verdict, { length }]) => `${length} ${verdict}`)
    console.log(`  ${group.padEnd(9)} ${verdicts.join(', ')}; ${seconds(cases.reduce((sum, { ms }) => sum + ms, 0))} of machines`)
  }
  const ratio = (result.ms / GOAL_MS).toFixed(2)
  console.log(
    `attack: ${result.cases.length} cases, ${result.holes} holes, ${seconds(result.ms)} (load before ${before}), clean boot ${seconds(result.cleanMs)}, ` +
      `${formatSize(peakBytes)} at most; ×${ratio} of the ${seconds(GOAL_MS)} it may take`,
  )
}
