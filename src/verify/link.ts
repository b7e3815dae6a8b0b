/** One link of the chain of trust, as it was found. */
import { Fault } from '../base/fault.ts'

export interface Link {
  /** What was checked: `partition table`, `hash tree`, `EFI program EFI/BOOT/BOOTX64.EFI`… */
  name: string
  ok: boolean
  /** What was recomputed or compared, for people. May be empty where the link is broken. */
  evidence: string
  /** Everything that is wrong with it. */
  problem?: string
}

/** What a check tells while it runs. */
export interface Finding {
  evidence(text: string): void
  wrong(problem: string): void
}

/**
 * Runs one check and notes its link. Gives back what the check found out, undefined where it could not: a check that
 * throws is a broken link, unless the file itself cannot be read.
 */
export async function checkLink<T>(
  links: Link[],
  name: string,
  body: (finding: Finding) => T | Promise<T>,
): Promise<T | undefined> {
  const evidence: string[] = []
  const problems: string[] = []
  let found: T | undefined
  try {
    found = await body({ evidence: (text) => evidence.push(text), wrong: (problem) => problems.push(problem) })
  } catch (error) {
    if (error instanceof Fault && (error.code === 'host' || error.code === 'missing')) throw error
    problems.push(error instanceof Error ? error.message : String(error))
  }
  const ok = problems.length === 0
  links.push({ name, ok, evidence: evidence.join(', '), ...(ok ? {} : { problem: problems.join('; ') }) })
  return found
}

/** Notes a link that cannot be judged because of another one. What was not checked does not hold. */
export function leaveUnchecked(links: Link[], name: string, why: string): void {
  links.push({ name, ok: false, evidence: '', problem: `not checked: ${why}` })
}
