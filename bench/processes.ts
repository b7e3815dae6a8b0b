// Watches a process and all it started: how long it took, and how much memory at most.
import { spawn } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'

export interface Usage {
  ms: number
  exitCode: number
  /** Most memory of all processes together: anonymous pages, so that shared libraries count once, not per process. */
  peakBytes: number
  /** Most resident memory of one process. */
  largestBytes: number
  stdout: string
}

const INTERVAL_MS = 100

export function watch(argv: readonly string[], env: NodeJS.ProcessEnv = process.env): Promise<Usage> {
  return new Promise((resolve, reject) => {
    const started = performance.now()
    const child = spawn(argv[0]!, argv.slice(1), { env, stdio: ['ignore', 'pipe', 'pipe'] })
    const usage = { peakBytes: 0, largestBytes: 0 }
    let stdout = ''
    let stderr = ''
    child.stdout.on('data', (chunk) => (stdout += chunk))
    child.stderr.on('data', (chunk) => (stderr += chunk))
    const timer = setInterval(() => {
      const processes = familyOf(child.pid!)
      usage.peakBytes = Math.max(usage.peakBytes, sum(processes.map((status) => kilobytes(status, 'RssAnon'))))
      usage.largestBytes = Math.max(usage.largestBytes, ...processes.map((status) => kilobytes(status, 'VmHWM')))
    }, INTERVAL_MS)
    child.on('error', reject)
    child.on('close', (code) => {
      clearInterval(timer)
      if (code !== 0) return reject(new Error(`${argv.join(' ')} exited with ${code}\n${stdout}${stderr}`))
      resolve({ ...usage, ms: performance.now() - started, exitCode: code, stdout })
    })
  })
}

/** `/proc/PID/status` of a process and of every one that descends from it. */
function familyOf(root: number): string[] {
  const status = new Map<number, string>()
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue
    try {
      status.set(Number(name), readFileSync(`/proc/${name}/status`, 'utf8'))
    } catch {
      // ended in between
    }
  }
  const parent = (pid: number) => Number(/^PPid:\s+(\d+)/m.exec(status.get(pid) ?? '')?.[1] ?? 0)
  const descends = (pid: number): boolean => pid === root || (pid > 1 && descends(parent(pid)))
  return [...status].filter(([pid]) => descends(pid)).map(([, text]) => text)
}

const kilobytes = (status: string, field: string): number =>
  Number(new RegExp(`^${field}:\\s+(\\d+)`, 'm').exec(status)?.[1] ?? 0) * 1024
const sum = (numbers: readonly number[]): number => numbers.reduce((a, b) => a + b, 0)
