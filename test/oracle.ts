import { existsSync, mkdtempSync, realpathSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { existingToolsTree } from '../src/build/tools.ts'
import { runInSandbox } from '../src/run/sandbox.ts'
import { CACHE } from './baked.ts'

/** Runs the field's own tools, in the versions Bisque's tools tree pins. */
export interface Judge {
  /** A fresh folder, at the same path inside the tools tree; gone after the test. */
  readonly dir: string
  /** Runs a tool. A non-zero exit throws unless `allowFailure` is set. */
  run(argv: readonly string[], options?: { allowFailure?: boolean; input?: string | Uint8Array }): Promise<Verdict>
}

export interface Verdict {
  exitCode: number
  stdout: string
  stderr: string
}

/** The tree of judges; `npm test` prepares it. `undefined` where it was not. */
export const JUDGES = process.env['BISQUE_JUDGES'] ?? (await existingToolsTree('judge', CACHE))

/**
 * A test judged by the real tool of the field rather than by our own reader.
 * Skipped, visibly, where the tools tree is not there; REQUIRE_ORACLES=1 makes that a failure.
 */
export function oracle(tool: string, name: string, body: (t: TestContext, judge: Judge) => void | Promise<void>): void {
  const found = ['usr/bin', 'usr/sbin', 'usr/lib/systemd'].some((dir) => existsSync(`${JUDGES}/${dir}/${tool}`))
  const skip = !found && !process.env['REQUIRE_ORACLES'] ? `${tool} is not there; npm test prepares the tools` : false
  test(`[${tool}] ${name}`, { skip }, async (t) => {
    if (!found) throw new Error(`${tool} is not in the tools tree ${JUDGES}`)
    using judge = judgeIn()
    await body(t, judge)
  })
}

/** A judge outside a test, for benchmarks: its folder is gone once it is disposed of. */
export function judgeIn(): Judge & Disposable {
  const dir = mkdtempSync(join(realpathSync(tmpdir()), 'bisque-judge-'))
  return {
    dir,
    run: (argv, options = {}) => run(dir, argv, options),
    [Symbol.dispose]: () => rmSync(dir, { recursive: true, force: true }),
  }
}

const TOOLS_PATH = '/usr/bin:/usr/sbin:/usr/lib/systemd'

async function run(
  dir: string,
  argv: readonly string[],
  options: { allowFailure?: boolean; input?: string | Uint8Array },
): Promise<Verdict> {
  const sandbox = {
    root: JUDGES!,
    tmpfs: ['/tmp', '/run', '/var/tmp'],
    binds: [{ source: dir, target: dir, writable: true }],
    workdir: dir,
    env: { PATH: TOOLS_PATH, LC_ALL: 'C.UTF-8' },
  }
  return runInSandbox(sandbox, argv, { outputBytes: 256 << 20, ...options })
}
