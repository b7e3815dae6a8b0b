/**
 * What tests share, made once before they run: the tools trees, and the baked example.
 *
 * The image is baked by the command line from the committed recipe and lock, into `.bisque/test`.
 */
import { spawnSync } from 'node:child_process'
import { rmSync } from 'node:fs'
import { Report } from '../src/base/report.ts'
import { toolsTree } from '../src/build/tools.ts'
import { openTerminal } from '../src/cli/terminal.ts'
import { openStore } from '../src/store/store.ts'
import { BAKED, CACHE } from './baked.ts'

const terminal = openTerminal(process.stderr, { color: false })
const report = new Report((event) => terminal.show(event))
const env = { cache: CACHE, store: await openStore(CACHE), report, now: new Date(), offline: false }
for (const name of ['vm', 'mkfs', 'scripts', 'judge'] as const) await toolsTree(name, env)
terminal.stop()

rmSync(BAKED, { recursive: true, force: true })
const argv = ['src/main.ts', 'build', 'examples/minimal', '--relock', '--cache', CACHE, '--output', BAKED]
const { status } = spawnSync(process.execPath, argv, { stdio: 'inherit' })
process.exitCode = status ?? 1
