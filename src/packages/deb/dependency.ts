/**
 * Relations between packages: the values of Depends, Conflicts, Provides and their kin.
 *
 * Spec: Debian Policy §7.1, deb-control(5). Oracle: `dpkg`'s `Dpkg::Deps`.
 */
import { Fault } from '../../base/fault.ts'
import type { Operator } from './version.ts'

export interface Relation {
  name: string
  /** What stands after the colon of `python3:any`. */
  qualifier?: string
  operator?: Operator
  version?: string
  /** `[linux-any !i386]`, in source packages only. */
  architectures?: readonly string[]
  /** `<!nocheck>`, in source packages only: as written. */
  profiles?: string
}

/** One of these must hold; the first is preferred. */
export type Alternatives = readonly Relation[]

const MAX_TEXT = 1 << 20

/** A comma-separated list. All of its members must hold, each through one of its alternatives. */
export function parseRelations(text: string, source = 'relations'): Alternatives[] {
  if (text.length > MAX_TEXT)
    throw new Fault('format', `Cannot read ${source}: ${text.length} characters, expected at most ${MAX_TEXT}`)
  const plain = text.replace(/\s+/g, ' ')
  const lists: Alternatives[] = []
  for (const part of plain.split(',')) {
    if (part === '' || part === ' ') continue
    lists.push(part.includes('|') ? part.split('|').map((one) => parseRelation(one, source)) : [parseRelation(part, source)])
  }
  return lists
}

export const formatRelations = (lists: readonly Alternatives[]): string => lists.map(formatAlternatives).join(', ')

export const formatAlternatives = (alternatives: Alternatives): string => alternatives.map(formatRelation).join(' | ')

export function formatRelation(r: Relation): string {
  let text = r.qualifier === undefined ? r.name : `${r.name}:${r.qualifier}`
  if (r.operator !== undefined) text += ` (${r.operator} ${r.version})`
  if (r.architectures) text += ` [${r.architectures.join(' ')}]`
  return r.profiles === undefined ? text : `${text} ${r.profiles}`
}

// Blanks are single by now, so that no part of this can match the same text in many ways.
const RELATION =
  /^ ?([A-Za-z0-9][A-Za-z0-9+._-]*)(?::([a-z0-9-]+))? ?(?:\( ?(<<|<=|=|>=|>>|<|>) ?([A-Za-z0-9.+~:-]+) ?\))? ?(?:\[ ?([a-z0-9! -]+?) ?\])? ?(<[a-z0-9!. <>-]+>)? ?$/

function parseRelation(text: string, source: string): Relation {
  const m = RELATION.exec(text)
  if (!m) throw new Fault('format', `Cannot read ${source}: ${JSON.stringify(text.trim().slice(0, 200))} is not a relation`)
  const relation: Relation = { name: m[1]! }
  if (m[2] !== undefined) relation.qualifier = m[2]
  if (m[3] !== undefined) {
    relation.operator = m[3] === '<' ? '<=' : m[3] === '>' ? '>=' : (m[3] as Operator)
    relation.version = m[4]!
  }
  if (m[5] !== undefined) relation.architectures = m[5].split(' ')
  if (m[6] !== undefined) relation.profiles = m[6]
  return relation
}
