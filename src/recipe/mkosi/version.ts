/** Versions as mkosi's files compare them. */
import { Fault } from '../../base/fault.ts'
import { compareVersions } from '../../base/version.ts'

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
