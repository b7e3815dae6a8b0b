/** `--json`: one JSON object a line; events as they come, and last the result or the fault. */

import { FAULTS, type Fault } from '../base/fault.ts'
import type { Event } from '../base/report.ts'

const line = (value: unknown): string => `${JSON.stringify(value, plain)}\n`

export const formatEvent = (event: Event): string => line(event)

export const formatResult = (verb: string, result: Readonly<Record<string, unknown>>): string =>
  line({ ...result, type: 'result', verb })

export const formatFault = ({ code, message, hint }: Fault): string =>
  line({ type: 'fault', code, exit: FAULTS[code].exit, message, ...(hint === undefined ? {} : { hint }) })

/** Anything thrown that is no Fault: a bug of this program. */
export const formatBug = (error: unknown): string =>
  line({ type: 'bug', message: String(error), stack: error instanceof Error ? error.stack : undefined })

/** Maps become objects, byte strings hexadecimal. */
function plain(_key: string, value: unknown): unknown {
  if (value instanceof Map) return Object.fromEntries(value)
  if (value instanceof Uint8Array) return Buffer.from(value).toString('hex')
  return typeof value === 'bigint' ? value.toString() : value
}
