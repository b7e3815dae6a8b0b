import { execFile } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'

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

/**
 * A test judged by the real tool of the field rather than by our own reader.
 * Skipped, visibly, where the tools tree is not there; REQUIRE_ORACLES=1 makes that a failure.
 */
export function oracle(tool: string, name: string, body: (t: TestContext, judge: Judge) => void | Promise<void>): void {
  const root = process.env['BISQUE_JUDGES'] ?? ''
  const found = root !== '' && ['usr/bin', 'usr/sbin', 'usr/lib/systemd'].some((dir) => existsSync(`${root}/${dir}/${tool}`))
  const skip = !found && !process.env['REQUIRE_ORACLES'] ? `${tool} is not installed` : false
  test(`[${tool}] ${name}`, { skip }, async (t) => {
    const dir = mkdtempSync(join(tmpdir(), 'bisque-judge-'))
    t.after(() => rmSync(dir, { recursive: true, force: true }))
    await body(t, { dir, run: (argv, options = {}) => run(root, dir, argv, options) })
  })
}

const ENTER =
  'mkdir -p "$0$1" && mount --bind "$1" "$0$1" && mount -t proc proc "$0/proc" && root=$0 dir=$1 && shift && exec chroot "$root" sh -c \'cd "$0" && exec "$@"\' "$dir" "$@"'

function run(
  root: string,
  dir: string,
  argv: readonly string[],
  options: { allowFailure?: boolean; input?: string | Uint8Array },
): Promise<Verdict> {
  return new Promise((resolve, reject) => {
    const child = execFile(
      'unshare',
      ['--mount', '--pid', '--fork', 'sh', '-c', ENTER, root, dir, ...argv],
      { maxBuffer: 256 << 20, env: { PATH: '/usr/bin:/usr/sbin:/usr/lib/systemd', LC_ALL: 'C.UTF-8' } },
      (error, stdout, stderr) => {
        const exitCode = error ? Number(error.code ?? 1) : 0
        if (exitCode !== 0 && !options.allowFailure)
          reject(new Error(`${argv.join(' ')} exited with ${exitCode}:\n${stdout}${stderr}`))
        else resolve({ exitCode, stdout, stderr })
      },
    )
    child.stdin?.on('error', () => {}).end(options.input)
  })
}
