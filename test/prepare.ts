/**
 * What tests share, made once before they run: the tools trees, and the baked example.
 *
 * The images are baked by the command line from the committed recipes and locks, into `.bisque/`.
 */
import { spawnSync } from 'node:child_process'
import { rmSync } from 'node:fs'
import { Report } from '../src/base/report.ts'
import { toolsTree } from '../src/build/tools.ts'
import { openTerminal } from '../src/cli/terminal.ts'
import { openStore } from '../src/store/store.ts'
import { BAKED, BAKED_PARTICLE, CACHE } from './baked.ts'

const terminal = openTerminal(process.stderr, { color: false })
const report = new Report((event) => terminal.show(event))
const env = { cache: CACHE, store: await openStore(CACHE), report, now: new Date(), offline: false }
for (const name of ['vm', 'mkfs', 'scripts', 'judge'] as const) await toolsTree(name, env)
terminal.stop()

for (const [example, output] of [
  ['minimal', BAKED],
  ['particle', BAKED_PARTICLE],
] as const) {
  rmSync(output, { recursive: true, force: true })
  const argv = ['src/main.ts', 'build', `examples/${example}`, '--relock', '--cache', CACHE, '--output', output]
  const { status } = spawnSync(process.execPath, argv, { stdio: 'inherit' })
  if (status !== 0) process.exitCode = status ?? 1
}
