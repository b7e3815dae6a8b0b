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

/** The trees of judges, and of what a virtual machine takes; `npm test` prepares them. `undefined` where it did not. */
export const JUDGES = await existingToolsTree('judge', CACHE)
export const MACHINES = await existingToolsTree('vm', CACHE)

/** The programs that make file systems for us. */
export const MKFS = await existingToolsTree('mkfs', CACHE)

/**
 * A test judged by the real tool of the field rather than by our own reader.
 * Skipped, visibly, where the tools tree is not there; REQUIRE_ORACLES=1 makes that a failure.
 */
export function oracle(tool: string, name: string, body: (t: TestContext, judge: Judge) => void | Promise<void>): void {
  const tree = treeWith(tool)
  const skip = tree === undefined && !process.env['REQUIRE_ORACLES'] ? `${tool} is not there; npm test prepares the tools` : false
  test(`[${tool}] ${name}`, { skip }, async (t) => {
    if (tree === undefined) throw new Error(`${tool} is not in the tools tree ${JUDGES}`)
    using judge = judgeIn(tree)
    await body(t, judge)
  })
}

const treeWith = (tool: string): string | undefined =>
  [JUDGES, MACHINES].find((tree) =>
    ['usr/bin', 'usr/sbin', 'usr/lib/systemd'].some((dir) => existsSync(`${tree}/${dir}/${tool}`)),
  )

/** A judge outside a test, for benchmarks: its folder is gone once it is disposed of. */
export function judgeIn(tree = JUDGES!): Judge & Disposable {
  const dir = mkdtempSync(join(realpathSync(tmpdir()), 'bisque-judge-'))
  return {
    dir,
    run: (argv, options = {}) => run(tree, dir, argv, options),
    [Symbol.dispose]: () => rmSync(dir, { recursive: true, force: true }),
  }
}

const TOOLS_PATH = '/usr/bin:/usr/sbin:/usr/lib/systemd'

async function run(
  tree: string,
  dir: string,
  argv: readonly string[],
  options: { allowFailure?: boolean; input?: string | Uint8Array },
): Promise<Verdict> {
  const sandbox = {
    root: tree,
    tmpfs: ['/tmp', '/run', '/var/tmp'],
    binds: [{ source: dir, target: dir, writable: true }],
    workdir: dir,
    env: { PATH: TOOLS_PATH, LC_ALL: 'C.UTF-8' },
  }
  return runInSandbox(sandbox, argv, { outputBytes: 256 << 20, ...options })
}
