/** `bisque attack`: the matrix of attacks on an image, with a table at the end. */
import { rmSync } from 'node:fs'
import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { attack, chosen } from '../attack/attack.ts'
import { type Case, type CaseResult, GROUPS, type Group, isHole } from '../attack/case.ts'
import { makeKit } from '../attack/kit.ts'
import { attackPage } from '../attack/page.ts'
import { FAULTS } from '../base/fault.ts'
import { toolsTree } from '../build/tools.ts'
import { type Outcome, openEnv, type Session } from './session.ts'
import { shownPath } from './shown.ts'
import { clean, formatMs } from './terminal.ts'
import type { AttackOptions } from './verbs/attack.ts'
import { findImage } from './vm.ts'

/** What a machine's disk has beyond the image: room for a root file system. */
const ROOM_BYTES = 4 * 2 ** 30

export async function runAttack(options: AttackOptions, session: Session): Promise<Outcome> {
  const cases = chosen(options.only)
  if (options.list) return listed(cases)
  const image = await findImage(options.image)
  const other = options.other === undefined ? undefined : await findImage(options.other)
  const env = await openEnv(session)
  const tools = await toolsTree('vm', env)
  const folder = await mkdtemp(join(tmpdir(), 'bisque-attack-'))
  // Ctrl-C may end the process before what is below has unwound.
  const tidy = () => rmSync(folder, { recursive: true, force: true })
  process.once('exit', tidy)
  try {
    const kit = await session.report.step('Forge', () =>
      makeKit({
        image,
        folder: join(folder, 'kit'),
        now: Math.floor(env.now.getTime() / 1000),
        ...(options.keys === undefined ? {} : { keys: options.keys }),
        ...(other === undefined ? {} : { otherImage: other }),
      }),
    )
    const lab = {
      subject: kit.subject,
      toolsTree: tools,
      folder,
      signal: session.signal,
      bootMs: options.timeoutSeconds * 1000,
      diskBytes: (await stat(image)).size + ROOM_BYTES,
      ...(options.logs === undefined ? {} : { logs: options.logs }),
    }
    const attacked = await attack({ lab, kit, only: options.only, lanes: options.lanes }, session.report)
    const { results, machine, cleanMs, ms } = attacked
    const holes = results.filter(isHole)
    if (options.html !== undefined)
      await writeFile(options.html, attackPage({ ...attacked, image, now: env.now, program: 'Bisque' }))
    return {
      result: { image, holes: holes.length, cleanMs, ms, machine, cases: results },
      text: tableOf(results, { color: session.color, image: shownPath(image), ms }),
      exitCode: holes.length === 0 ? 0 : FAULTS.integrity.exit,
    }
  } finally {
    process.off('exit', tidy)
    await rm(folder, { recursive: true, force: true })
  }
}

function listed(cases: readonly Case[]): Outcome {
  const width = Math.max(...cases.map(({ name }) => name.length))
  const groups = Object.entries(GROUPS).flatMap(([group, title]) => {
    const own = cases.filter((one) => one.group === group)
    if (own.length === 0) return []
    const lines = own.map(
      ({ name, by, does, keys }) => `  ${name.padEnd(width)}  ${by} refuses ${does}${keys ? ' (--keys)' : ''}`,
    )
    return [`${title} (${group})`, ...lines, '']
  })
  const result = cases.map(({ name, group, does, by, sign, keys }) => ({ name, group, does, by, sign, needsKeys: keys === true }))
  return { result: { cases: result }, text: groups.join('\n').trimEnd() }
}

interface Shown {
  color: boolean
  image: string
  ms: number
}

const MARKS: Record<CaseResult['verdict'], { mark: string; code: number; says: string }> = {
  refused: { mark: '✓', code: 32, says: '' },
  'not refused': { mark: '✗', code: 31, says: 'NOT REFUSED' },
  'refused by another': { mark: '✗', code: 31, says: 'refused by another' },
  'not seen': { mark: '?', code: 31, says: 'refusal not seen' },
  outside: { mark: '·', code: 33, says: 'nobody can refuse it' },
  'needs keys': { mark: '·', code: 2, says: 'needs --keys' },
  'not applicable': { mark: '·', code: 2, says: 'not applicable' },
}

/** The matrix, group by group: who refused what; what shows it where something is wrong or missing. */
export function tableOf(results: readonly CaseResult[], { color, image, ms }: Shown): string {
  const paint = (code: number, text: string) => (color ? `\x1b[${code}m${text}\x1b[0m` : text)
  const sayWho = ({ verdict, refusedBy }: CaseResult) => (verdict === 'refused' ? `refused by ${refusedBy}` : MARKS[verdict].says)
  const width = Math.max(0, ...results.map(({ name }) => name.length))
  const whoWidth = Math.max(0, ...results.map((one) => sayWho(one).length))
  const lines: string[] = []
  for (const [group, title] of Object.entries(GROUPS) as [Group, string][]) {
    const own = results.filter((one) => one.group === group)
    if (own.length > 0) lines.push('', paint(1, title))
    for (const one of own) {
      const { mark, code } = MARKS[one.verdict]
      lines.push(`${paint(code, mark)} ${one.name.padEnd(width)}  ${paint(code, sayWho(one).padEnd(whoWidth))}  ${one.does}`)
      if (one.verdict !== 'refused') lines.push(`  ${' '.repeat(width)}  ${paint(2, clean(one.evidence))}`)
    }
  }
  return [...lines, '', summaryOf(results, image, ms)].join('\n').trimStart()
}

function summaryOf(results: readonly CaseResult[], image: string, ms: number): string {
  const count = (verdict: CaseResult['verdict']) => results.filter((one) => one.verdict === verdict).length
  const holes = results.filter(isHole).length
  const rest = [
    [count('outside'), 'nobody can refuse'],
    [count('needs keys'), 'need --keys'],
    [count('not applicable'), 'do not apply'],
  ] as const
  const others = rest.flatMap(([n, what]) => (n > 0 ? [`, ${n} ${what}`] : [])).join('')
  const verdict = holes === 0 ? `${image} refused` : `${image} has ${holes} ${holes === 1 ? 'hole' : 'holes'}: refused were`
  return `${verdict} ${count('refused')} of ${results.length} attacks${others}, in ${formatMs(ms)}`
}
