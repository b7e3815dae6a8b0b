/** One link of the chain of trust, as it was found. */
import { Fault } from '../base/fault.ts'

/** What a link belongs to, in the order of the boot. */
export const STAGES = [
  ...(['firmware', 'boot loader', 'UKI', 'measured boot', 'verity'] as const),
  ...(['policy', 'kernel', 'system', 'updates', 'artifacts'] as const),
] as const

export type Stage = (typeof STAGES)[number]

export interface Link {
  stage: Stage
  /** What was checked: `partition table`, `hash tree`, `EFI program EFI/BOOT/BOOTX64.EFI`… */
  name: string
  ok: boolean
  /** What was recomputed or compared, for people. May be empty where the link is broken. */
  evidence: string
  /** Everything that is wrong with it. */
  problem?: string
  /** What mends it. */
  hint?: string
}

/** What a check tells while it runs. */
export interface Finding {
  evidence(text: string): void
  wrong(problem: string, hint?: string): void
}

/**
 * Runs one check and notes its link. Gives back what the check found out, undefined where it could not: a check that
 * throws is a broken link, unless the file itself cannot be read.
 */
export async function checkLink<T>(
  links: Link[],
  stage: Stage,
  name: string,
  body: (finding: Finding) => T | Promise<T>,
): Promise<T | undefined> {
  const evidence: string[] = []
  const problems: string[] = []
  const hints = new Set<string>()
  const wrong = (problem: string, hint?: string) => {
    problems.push(problem)
    if (hint !== undefined) hints.add(hint)
  }
  const found = await attempt({ wrong }, () => body({ evidence: (text) => evidence.push(text), wrong }))
  const ok = problems.length === 0
  links.push({
    ...{ stage, name, ok, evidence: evidence.join(', ') },
    ...(ok ? {} : { problem: listed(problems), hint: [...(hints.size > 0 ? hints : [ANEW])].slice(0, MAX_LISTED).join('; ') }),
  })
  return found
}

/** One of several parts of a check: gives back undefined where it throws, which is told like any other problem. */
export async function attempt<T>({ wrong }: Pick<Finding, 'wrong'>, body: () => T | Promise<T>): Promise<T | undefined> {
  try {
    return await body()
  } catch (error) {
    if (error instanceof Fault && (error.code === 'host' || error.code === 'missing')) throw error
    wrong(error instanceof Error ? error.message : String(error), error instanceof Fault ? error.hint : undefined)
    return undefined
  }
}

/** For what no honest build or copy leaves behind. */
const ANEW = 'take a fresh copy of the image, or build it again'

/** A hostile image may have any number of faults of one kind; people read the first of them. */
const MAX_LISTED = 32

const listed = (problems: readonly string[]): string =>
  [...problems.slice(0, MAX_LISTED), ...(problems.length > MAX_LISTED ? [`and ${problems.length - MAX_LISTED} more`] : [])].join(
    '; ',
  )

/** Notes a link that cannot be judged because of another one. What was not checked does not hold. */
export function leaveUnchecked(links: Link[], stage: Stage, name: string, why: string): void {
  links.push({ stage, name, ok: false, evidence: '', problem: `not checked: ${why}`, hint: 'mend that first' })
}

/** In the order of the boot; within a stage as they were found. */
export const inBootOrder = (links: readonly Link[]): Link[] =>
  STAGES.flatMap((stage) => links.filter((link) => link.stage === stage))
