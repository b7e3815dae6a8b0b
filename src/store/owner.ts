/**
 * Which process an unfinished file belongs to, so that what a killed process left behind can be told from work in progress.
 *
 * A tag is `pid-starttime-pidnamespace`: the start time guards against a recycled pid, the namespace against a pid
 * that means something else where it was written.
 */
import { readFileSync, readlinkSync } from 'node:fs'

/** An unfinished file of another PID namespace counts as abandoned once it has been quiet for this long, unless said otherwise. */
const QUIET_MS = 10 * 60_000

/** The tag of this process; file-name safe. */
export function ownTag(): string {
  tag ??= `${process.pid}-${startTime(process.pid) ?? 0}-${pidNamespace()}`
  return tag
}
let tag: string | undefined

/** In place of a tag: given up on purpose, for whoever wants to go on with it. */
export const UNOWNED = 'unowned'

/** Whether the process named by `owner` is gone. A tag we cannot judge is judged by the age of its file. */
export function isAbandoned(owner: string, mtimeMs: number, quietMs = QUIET_MS): boolean {
  if (owner === UNOWNED) return true
  const match = /^(\d+)-(\d+)-(\d+)$/.exec(owner)
  if (!match || match[3] !== pidNamespace()) return Date.now() - mtimeMs > quietMs
  return startTime(Number(match[1])) !== match[2]
}

/** Field 22 of `/proc/PID/stat`; the command before it may hold spaces and parentheses. A zombie has ended: it only waits to be read. */
function startTime(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    return /^[ZXx]$/.test(fields[0]!) ? undefined : fields[19]
  } catch {
    return undefined
  }
}

function pidNamespace(): string {
  try {
    return /\d+/.exec(readlinkSync('/proc/self/ns/pid'))?.[0] ?? '0'
  } catch {
    return '0'
  }
}
