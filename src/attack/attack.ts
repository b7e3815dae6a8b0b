/**
 * Attacking an image: a clean boot, then each case in a machine with a disk of its own, or in one that several share.
 *
 * The clean machine enrols the image's keys, sets its disk up and comes up; root's attacks are made inside it, and what it
 * leaves (disk, firmware, TPM) is what attacks on sealed secrets begin with. Two machines run at a time.
 */
import { Fault } from '../base/fault.ts'
import type { Report } from '../base/report.ts'
import { openImage } from '../image/edit.ts'
import type { Vm } from '../vm/vm.ts'
import {
  type BesideAttack,
  type BootAttack,
  type Case,
  type CaseResult,
  isHole,
  type LiveAttack,
  type MachineFacts,
  type Refuser,
  type RunningAttack,
} from './case.ts'
import { CASES } from './cases.ts'
import type { Kit } from './kit.ts'
import { discard, keepLog, type Lab, lineWith, power, prepare, type Remains, watch } from './machine.ts'
import { anotherWho } from './signs.ts'

export interface AttackOptions {
  lab: Lab
  kit: Kit
  /** Only these cases; all where absent. */
  only?: readonly string[]
  /** How many machines run at a time. */
  lanes?: number
}

export interface Attacked {
  results: CaseResult[]
  machine: MachineFacts
  /** How long the clean boot took, with the enrolment of keys. */
  cleanMs: number
  ms: number
}

const RUN_MS = 120_000

/** Runs the cases; gives back what became of each, in the order of the list. A Fault where the image does not boot as it is. */
export async function attack({ lab, kit, only, lanes = 2 }: AttackOptions, report: Report): Promise<Attacked> {
  const started = performance.now()
  const cases = chosen(only)
  const results = new Map<string, CaseResult>()
  const told = (result: CaseResult) => void results.set(result.name, result)

  const clean = await prepare(lab, 'clean', { disk: kit.subject.path })
  const begun = performance.now()
  await using vm = await report.step('Boot clean', () => bootClean(lab, clean))
  const cleanMs = Math.round(performance.now() - begun)
  const machine = await factsOf(vm)

  const applicable = cases.filter((one) => {
    const verdict = beforehand(one, kit, machine)
    if (verdict) told(verdict)
    return !verdict
  })
  const inside = applicable.filter(({ attack: { kind } }) => kind === 'running' || kind === 'live')
  const beside = applicable.filter(({ attack: { kind } }) => kind === 'beside')
  const boots = applicable.filter(({ attack: { kind } }) => kind === 'boot')
  const isSettled = ({ attack }: Case) => attack.kind === 'boot' && attack.from === 'settled'

  const { promise: settled, resolve: settle, reject: unsettle } = Promise.withResolvers<void>()
  settled.catch(() => {})
  const jobs: (() => Promise<void>)[] = [
    async () => {
      try {
        for (const one of inside) told(await play(one, report, () => playInside(one, kit, machine, vm, clean.disk)))
        await vm.powerOff(lab.bootMs)
        await keepLog(lab, 'clean', vm)
        settle()
      } catch (error) {
        unsettle(error)
        throw error
      }
    },
    ...(beside.length > 0 ? [() => playBeside(lab, kit, beside, report, told)] : []),
    ...boots
      .filter((one) => !isSettled(one))
      .map((one) => async () => told(await play(one, report, () => playBoot(lab, kit, one, { disk: kit.subject.path })))),
    ...boots.filter(isSettled).map((one) => async () => {
      await settled
      told(await play(one, report, () => playBoot(lab, kit, one, clean)))
    }),
  ]
  await inLanes(jobs, lanes)
  const ms = Math.round(performance.now() - started)
  return { results: cases.flatMap(({ name }) => results.get(name) ?? []), machine, cleanMs, ms }
}

export function chosen(only?: readonly string[]): readonly Case[] {
  if (!only || only.length === 0) return CASES
  const unknown = only.filter((name) => !CASES.some((one) => one.name === name || one.group === name))
  if (unknown.length > 0)
    throw new Fault('usage', `Cannot attack: there is no case ${unknown.join(', ')}`, { hint: 'bisque attack --list' })
  return CASES.filter((one) => only.includes(one.name) || only.includes(one.group))
}

/** A machine without keys: systemd-boot enrols the image's and restarts it. */
async function bootClean(lab: Lab, clean: Remains): Promise<Vm> {
  const vm = await power(lab, clean, { setup: true })
  try {
    await vm.waitBoot(lab.bootMs)
    return vm
  } catch (cause) {
    await vm.kill()
    await keepLog(lab, 'clean', vm)
    lab.signal?.throwIfAborted()
    const why = cause instanceof Fault ? cause.message : String(cause)
    throw new Fault('integrity', `Cannot attack ${lab.subject.path}: it does not boot as it is: ${why}`, {
      hint: `bisque vm --headless --wait-for login: ${lab.subject.path}`,
      cause,
    })
  }
}

async function factsOf(vm: Vm): Promise<MachineFacts> {
  const { output } = await vm.run(
    `cd /sys/kernel/security/ipe/policies 2>/dev/null && for p in *; do [ "$(cat "$p/active" 2>/dev/null)" = 1 ] && echo "ipe=$p"; done
echo "enforce=$(cat /sys/kernel/security/ipe/enforce 2>/dev/null)"
echo "root=$(lsblk -nso TYPE "$(findmnt -nvo SOURCE /)" 2>/dev/null | tr '\\n' ' ')"
echo "lockdown=$(sed 's/.*\\[\\(.*\\)\\].*/\\1/' /sys/kernel/security/lockdown)"
[ "$(tail -c 1 /sys/firmware/efi/efivars/SecureBoot-* | od -An -tu1 | tr -d ' ')" = 1 ] && echo secureboot=1`,
    RUN_MS,
  )
  const value = (key: string) => new RegExp(`^${key}=(.*)$`, 'm').exec(output)?.[1]?.trim()
  if (value('secureboot') !== '1')
    throw new Fault('integrity', 'Cannot attack: the image boots, but its keys were not enrolled and Secure Boot is off')
  return {
    ipe: value('ipe') || undefined,
    enforcing: value('enforce') === '1',
    tpmRoot: /\bcrypt\b/.test(value('root') ?? ''),
    lockdown: value('lockdown') ?? 'none',
  }
}

type Found = Pick<CaseResult, 'verdict' | 'evidence'> & { refusedBy?: Refuser }

const resultOf = ({ name, group, does, by }: Case, found: Found, ms: number): CaseResult => ({
  name,
  group,
  does,
  by,
  ...found,
  ms,
})

function beforehand(one: Case, kit: Kit, machine: MachineFacts): CaseResult | undefined {
  if (one.keys && !kit.own)
    return resultOf(one, { verdict: 'needs keys', evidence: "it is made with the image's own keys: give them with --keys" }, 0)
  const why = one.inapplicable?.(machine, kit)
  return why === undefined ? undefined : resultOf(one, { verdict: 'not applicable', evidence: why }, 0)
}

/** Plays one case as a step of the report, which fails where the case is a hole. */
async function play(one: Case, report: Report, body: () => Promise<Found>): Promise<CaseResult> {
  const started = performance.now()
  let result: CaseResult | undefined
  await report
    .step(`${one.outside === undefined ? `${one.by} refuses` : 'nobody can refuse'} ${one.does}`, async () => {
      result = resultOf(one, await body(), Math.round(performance.now() - started))
      if (isHole(result)) throw new Hole(`${result.verdict}: ${result.evidence}`)
    })
    .catch((error: unknown) => {
      if (!(error instanceof Hole)) throw error
      report.tell({ type: 'note', level: 'warning', message: `${one.name}: ${error.message}` })
    })
  return result!
}

class Hole extends Error {}

async function playBoot(lab: Lab, kit: Kit, one: Case, from: { disk: string; state?: string }): Promise<Found> {
  const { edit, machine, refused, ended, mayComeUp } = one.attack as BootAttack
  const remains = await prepare(lab, one.name, from, edit && ((image) => edit(image, kit)))
  try {
    await using vm = await power(lab, remains, await machine?.(kit))
    const seen = await watch(lab, vm, {
      refused,
      ...(ended ? { ended } : {}),
      ...(mayComeUp ? { mayComeUp } : {}),
    })
    await keepLog(lab, one.name, vm)
    if (seen.up && !mayComeUp) return { verdict: 'not refused', evidence: 'the machine came up' }
    const { console: serial } = vm
    const tail = serial.lastLines(4).replaceAll('\n', ' | ').replace(/ +/g, ' ')
    const another = anotherWho(serial.text, one.by)
    if (seen.refused === undefined && another !== undefined)
      return { verdict: 'refused by another', refusedBy: another.by, evidence: lineWith(serial.text, another.sign) ?? '' }
    if (seen.refused === undefined)
      return { verdict: 'not seen', evidence: `the machine did not come up, and did not say why; its last lines: ${tail}` }
    return { verdict: 'refused', refusedBy: one.by, evidence: seen.refused }
  } finally {
    await discard(lab, one.name)
  }
}

/** One boot for everything that is only laid beside. */
async function playBeside(
  lab: Lab,
  kit: Kit,
  cases: readonly Case[],
  report: Report,
  told: (result: CaseResult) => void,
): Promise<void> {
  const attacks = cases.map(({ attack }) => attack as BesideAttack)
  const remains = await prepare(lab, 'beside', { disk: kit.subject.path }, async (image) => {
    const files = await Promise.all(attacks.map((one) => one.files(image, kit)))
    image.changeEsp(Object.assign({}, ...files))
  })
  const kernelCommandLine = attacks.flatMap((one) => one.kernelCommandLine?.(kit) ?? []).join(' ')
  await using vm = await power(lab, remains, kernelCommandLine ? { kernelCommandLine } : {})
  const problem = await report
    .step('Boot with strange files on the ESP', () => vm.waitBoot(lab.bootMs))
    .then(() => undefined)
    .catch((error: unknown) => {
      if (!(error instanceof Fault)) throw error
      return error.message
    })
  for (const one of cases)
    told(
      await play(one, report, async () => {
        if (problem !== undefined) return { verdict: 'not seen', evidence: `the machine did not come up: ${problem}` }
        const { look, refused, worked } = one.attack as BesideAttack
        const { output } = await vm.run(look, RUN_MS)
        return judge(one, `${output}\n${vm.console.text}`, output, refused, worked)
      }),
    )
  await keepLog(lab, 'beside', vm)
  await vm.kill()
  await discard(lab, 'beside')
}

async function playInside(one: Case, kit: Kit, machine: MachineFacts, vm: Vm, disk: string): Promise<Found> {
  const attack = one.attack as RunningAttack | LiveAttack
  const command = typeof attack.command === 'string' ? attack.command : attack.command(kit, machine)
  if (attack.kind === 'running') {
    const { output } = await vm.run(command, RUN_MS)
    return judge(one, output, output, attack.refused, attack.worked)
  }
  using image = openImage(disk)
  const undo = attack.edit(image, kit)
  try {
    const { output } = await vm.run(command, RUN_MS)
    return judge(one, output, output, attack.refused, attack.worked)
  } finally {
    undo()
  }
}

function judge(one: Case, text: string, output: string, refused: RegExp, worked: RegExp): Found {
  const inapplicable = /^INAPPLICABLE: (.*)$/m.exec(output)?.[1]
  if (inapplicable !== undefined) return { verdict: 'not applicable', evidence: inapplicable }
  if (worked.test(output)) {
    if (one.outside !== undefined) return { verdict: 'outside', evidence: one.outside }
    return { verdict: 'not refused', evidence: linesOf(output.replace(worked, 'it worked')) }
  }
  const sign = lineWith(text, refused)
  if (sign === undefined)
    return { verdict: 'not seen', evidence: `it did not work, and nobody was seen to refuse it: ${linesOf(output)}` }
  return { verdict: 'refused', refusedBy: /type=1420/.test(sign) ? 'IPE' : one.by, evidence: sign.replaceAll('\n', ' | ') }
}

const linesOf = (text: string): string => text.trim().replace(/\n+/g, ' | ').slice(0, 400)

/** Runs jobs in their order, so many at a time; the first that fails ends it once the others have ended theirs. */
async function inLanes(jobs: readonly (() => Promise<void>)[], lanes: number): Promise<void> {
  let next = 0
  let failed: { error: unknown } | undefined
  const lane = async () => {
    while (!failed && next < jobs.length) {
      try {
        await jobs[next++]!()
      } catch (error) {
        failed ??= { error }
      }
    }
  }
  await Promise.all(Array.from({ length: lanes }, lane))
  if (failed) throw failed.error
}
