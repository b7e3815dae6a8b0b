/** The tools we are measured against: those of the tools tree that `npm test` prepares, run by its own loader, else the host's. */
import { execFileSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { JUDGES } from '../test/oracle.ts'

/** Milliseconds a peer takes; undefined where it is not installed. */
export function timePeer(tool: string, args: readonly string[]): number | undefined {
  const root = JUDGES ?? ''
  const path = ['usr/bin', 'usr/sbin'].map((dir) => `${root}/${dir}/${tool}`).find((candidate) => existsSync(candidate))
  if (path === undefined) return undefined
  const loader = `${root}/usr/lib64/ld-linux-x86-64.so.2`
  const libraries = `${root}/usr/lib/x86_64-linux-gnu:${root}/usr/lib/x86_64-linux-gnu/cryptsetup`
  const argv = root === '' || !existsSync(loader) ? [path] : [loader, '--library-path', libraries, path]
  const started = performance.now()
  execFileSync(argv[0]!, [...argv.slice(1), ...args], { stdio: ['ignore', 'ignore', 'inherit'] })
  return performance.now() - started
}

/** The best of three runs, in milliseconds. */
export async function best(body: () => Promise<unknown> | unknown): Promise<number> {
  let ms = Number.POSITIVE_INFINITY
  for (let i = 0; i < 3; i++) {
    const started = performance.now()
    await body()
    ms = Math.min(ms, performance.now() - started)
  }
  return ms
}
