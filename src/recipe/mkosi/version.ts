/**
 * Order of versions.
 *
 * Spec: https://uapi-group.org/specifications/specs/version_format_specification/
 */
import { Fault } from '../../base/fault.ts'

/** Less than, equal to or greater than 0 as `a` is older than, the same as or newer than `b`. */
export function compareVersions(a: string, b: string): number {
  let [x, y] = [a, b]
  for (;;) {
    ;[x, y] = [skipped(x), skipped(y)]
    const before = withoutMark(x, y, '~')
    if (typeof before === 'number') return before
    ;[x, y] = before
    if (x === '' || y === '') return Math.sign(x.length - y.length)
    for (const mark of ['-', '^', '.']) {
      const rest = withoutMark(x, y, mark)
      if (typeof rest === 'number') return rest
      ;[x, y] = rest
    }
    const numeric = /^\d/.test(x) || /^\d/.test(y)
    const [left, right] = [x, y].map((text) => (numeric ? /^\d*/ : /^[A-Za-z]*/).exec(text)![0]) as [string, string]
    const order = numeric ? byNumber(left, right) : byLetters(left, right)
    if (order !== 0) return order
    ;[x, y] = [x.slice(left.length), y.slice(right.length)]
  }
}

/** The newest mkosi whose configuration is understood here. */
export const MKOSI_VERSION = '27'

/** Refuses a `MinimumVersion=` that is newer. */
export function checkMinimumVersion(text: string): void {
  const commit = /^commit:(.*)$/s.exec(text)?.[1]
  if (commit !== undefined) {
    if (/^[0-9a-f]{7,40}$/.test(commit)) return
    throw new Fault('recipe', `expected "commit:" and a hash, got ${JSON.stringify(text.slice(0, 60))}`)
  }
  if (compareVersions(text, MKOSI_VERSION) <= 0) return
  const hint = 'try a newer bisque'
  throw new Fault(
    'recipe',
    `the recipe is for mkosi ${text.slice(0, 60)} or newer; what mkosi ${MKOSI_VERSION} understands is understood`,
    { hint },
  )
}

/** Does `version` fulfil `>=1.2`, `!=3` or, without an operator, equal it? */
export function fulfils(version: string, wanted: string): boolean {
  const [, operator = '', other = ''] = /^(==|!=|<=|>=|>|<|)(.*)$/s.exec(wanted)!
  const order = compareVersions(version, other)
  if (operator === '!=') return order !== 0
  if (operator === '<=') return order <= 0
  if (operator === '>=') return order >= 0
  if (operator === '>') return order > 0
  if (operator === '<') return order < 0
  return order === 0
}

const skipped = (text: string): string => text.replace(/^[^A-Za-z0-9~^.-]+/, '')

/** Both without the mark they begin with; when only one has it, that one is older. */
function withoutMark(a: string, b: string, mark: string): [string, string] | number {
  if (a.startsWith(mark) !== b.startsWith(mark)) return a.startsWith(mark) ? -1 : 1
  return a.startsWith(mark) ? [a.slice(1), b.slice(1)] : [a, b]
}

function byNumber(a: string, b: string): number {
  const [x, y] = [a.replace(/^0+/, ''), b.replace(/^0+/, '')]
  return Math.sign(x.length - y.length) || byLetters(x, y)
}

const byLetters = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0)
