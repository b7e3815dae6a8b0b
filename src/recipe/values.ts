/**
 * From assignments to values: specifiers expanded, types read and checked, assignments merged, defaults filled in.
 *
 * A value may name others through specifiers, so each is computed when first asked for.
 */
import { Fault } from '../base/fault.ts'
import { KEYS, type Key, mkosiName, ROWS, type Row, type Settings } from './schema.ts'
import { expandSpecifiers, type Surroundings } from './specifiers.ts'
import type { Place } from './type.ts'

/** One setting given one value somewhere. Later assignments replace or add to earlier ones, as the setting's type has it. */
export interface Assignment {
  key: Key
  /** Text as in `--set` and mkosi.conf, a value from TypeScript, or one that has been read already. */
  syntax: 'text' | 'value' | 'final'
  value: unknown
  /** The place: `recipe.ts:12:3`, `--set Release=sid`. */
  where: string
  /** What the place lies in, when that matters: `profile desktop`. */
  within?: string
}

/** Something wrong with the recipe, and where. */
export interface Problem {
  where: string
  message: string
}

/** The place as it is told in summaries: `profile desktop (recipe.ts:30:5)`. */
export const originOf = ({ where, within }: Assignment): string => (within ? `${within} (${where})` : where)

export const problemAt = ({ where, within }: Assignment, message: string): Problem => ({
  where,
  message: within ? `${within}: ${message}` : message,
})

export interface Evaluated {
  settings: Settings
  /** Where each setting's value came from; of lists, every place that added to it. */
  origins: Map<Key, string>
}

/** What values may depend on beside each other. */
export interface Around extends Surroundings, Place {
  /** Take values that are well-formed and cannot be built, such as another distribution: for a summary. */
  anyValue?: boolean
}

export function evaluate(assignments: readonly Assignment[], around: Around, problems: Problem[]): Evaluated {
  const byKey = Map.groupBy(assignments, ({ key }) => (ROWS[key]!.into as Key | undefined) ?? key)
  const values = new Map<Key, unknown>()
  const origins = new Map<Key, string>()
  const underWay: Key[] = []

  const get = (key: Key): unknown => {
    if (key === ('directory' as Key)) return around.directory
    if (key === ('image' as Key)) return around.image
    if (values.has(key)) return values.get(key)
    if (underWay.includes(key)) {
      throw new Fault('recipe', `refers to itself through specifiers: ${[...underWay, key].map(mkosiName).join(' → ')}`)
    }
    underWay.push(key)
    try {
      const { value, origin } = fold(key, byKey.get(key) ?? [], around, get, problems)
      values.set(key, value)
      origins.set(key, origin)
      return value
    } finally {
      underWay.pop()
    }
  }

  const supported = KEYS.filter((key) => ROWS[key]!.status.is === 'supported')
  for (const key of KEYS) if (byKey.has(key) || supported.includes(key)) get(key)
  return { settings: Object.fromEntries(supported.map((key) => [key, values.get(key)])) as unknown as Settings, origins }
}

/** The value of one setting from all its assignments. */
function fold(
  key: Key,
  assignments: readonly Assignment[],
  around: Around,
  get: (key: Key) => unknown,
  problems: Problem[],
): { value: unknown; origin: string } {
  const row = ROWS[key]!
  let value: unknown
  let none = false
  let where: string[] = []
  for (const assignment of assignments) {
    if (row.status.is === 'refused') {
      problems.push(problemAt(assignment, `${key}: ${row.status.reason}`))
      continue
    }
    try {
      const { added, resets } = readAssignment(ROWS[assignment.key]!, assignment, around, get)
      const reason = added === undefined || around.anyValue ? undefined : row.type.unsupported?.(added)
      if (reason) throw new Fault('recipe', reason)
      none = added === undefined && (assignment.syntax === 'final' || assignment.value === null)
      if (resets || row.type.merge === 'replace') [value, where] = [resets ? emptied(row) : undefined, []]
      if (added !== undefined) value = merged(row, value, added)
      if (added !== undefined || resets) where.push(originOf(assignment))
    } catch (error) {
      if (!(error instanceof Fault)) throw error
      problems.push(problemAt(assignment, `${key}: ${error.message}`))
      where.push(originOf(assignment))
      value ??= row.type.absent
    }
  }
  if (value !== undefined || none) return { value, origin: where.join(', ') }
  // One that was wrong is not missing as well.
  if (row.required && where.length === 0) {
    problems.push({ where: '', message: `${key} is not set: expected ${row.type.expected}` })
  }
  return { value: defaultOf(row, get), origin: 'default' }
}

/** Emptied lists hold nothing; other settings go back to their default. */
const emptied = (row: Row): unknown => (row.type.merge === 'replace' ? undefined : row.type.absent)

function defaultOf(row: Row, get: (key: Key) => unknown): unknown {
  if (row.defaultFrom) return row.defaultFrom((key) => get(key as Key))
  return row.default ?? row.type.absent
}

function readAssignment(
  row: Row,
  { syntax, value }: Assignment,
  around: Around,
  get: (key: Key) => unknown,
): { added: unknown; resets: boolean } {
  const expand = (text: string): string => (row.secret ? text : expandSpecifiers(text, get, around))
  const appends = row.type.merge !== 'replace'
  if (syntax === 'final') return { added: value, resets: true }
  if (value === null && !appends && !row.required) return { added: undefined, resets: true }
  if (syntax === 'text') {
    const text = expand(String(value))
    if (text.trim() === '' && row.type !== ROWS['rootPassword']!.type) return { added: undefined, resets: true }
    return { added: row.type.parse(text, around), resets: row.type.replaces?.(text) ?? false }
  }
  const resets = appends && Array.isArray(value) && value[0] === ''
  const expanded = expandAll(resets ? (value as unknown[]).slice(1) : value, expand)
  return { added: row.type.check(expanded, around), resets }
}

export function expandAll(value: unknown, expand: (text: string) => string): unknown {
  if (typeof value === 'string') return expand(value)
  if (Array.isArray(value)) return value.map((element) => expandAll(element, expand))
  if (value === null || typeof value !== 'object' || Object.getPrototypeOf(value) !== Object.prototype) return value
  return Object.fromEntries(Object.entries(value).map(([key, element]) => [key, expandAll(element, expand)]))
}

function merged(row: Row, before: unknown, added: unknown): unknown {
  if (row.type.merge === 'replace' || before === undefined) return added
  if (row.type.merge === 'append') return [...(before as unknown[]), ...(added as unknown[])]
  return { ...(before as object), ...(added as object) }
}
