/** What a recipe's object assigns, each assignment with its position in the text of the file. */
import { readFileSync } from 'node:fs'
import { basename } from 'node:path'
import { nearest } from '../base/nearest.ts'
import { anyKey, keyPositions } from './position.ts'
import { type Key, settingNamed, WRITABLE_KEYS } from './schema.ts'
import { shown } from './type.ts'
import type { Assignment, Problem } from './values.ts'

export interface Source {
  /** Of the recipe itself. */
  base: readonly Assignment[]
  /** Of each of its profiles. */
  profiles: ReadonlyMap<string, readonly Assignment[]>
}

export function readSource(file: string, exported: Readonly<Record<string, unknown>>, problems: Problem[]): Source {
  const text = readFileSync(file, 'utf8')
  const positions = keyPositions(text)
  const at = (path: string): string => {
    const p = positions.get(path) ?? anyKey(text, path.slice(path.lastIndexOf('.') + 1))
    return p ? `${basename(file)}:${p.line}:${p.column}` : basename(file)
  }
  const { profiles = {}, ...own } = exported
  const base = readObject(own, '', undefined, at, problems)
  if (!isObject(profiles)) {
    problems.push({ where: at('profiles'), message: `profiles: expected an object of profiles by name, got ${shown(profiles)}` })
    return { base, profiles: new Map() }
  }
  const overlays = Object.entries(profiles).map(([name, overlay]): [string, Assignment[]] => {
    if (isObject(overlay)) return [name, readObject(overlay, `profiles.${name}.`, `profile ${name}`, at, problems)]
    const message = `profile ${name}: expected an object of settings, got ${shown(overlay)}`
    problems.push({ where: at(`profiles.${name}`), message })
    return [name, []]
  })
  return { base, profiles: new Map(overlays) }
}

function readObject(
  object: Readonly<Record<string, unknown>>,
  prefix: string,
  within: string | undefined,
  at: (path: string) => string,
  problems: Problem[],
): Assignment[] {
  return Object.entries(object).flatMap(([name, value]): Assignment[] => {
    if (value === undefined) return []
    const where = at(prefix + name)
    const key = settingNamed(name)
    if (key === name && key !== 'profiles') return [{ key, syntax: 'value', value, where, ...(within ? { within } : {}) }]
    problems.push({ where, message: `${within ? `${within}: ` : ''}${unknownKey(name, key)}` })
    return []
  })
}

function unknownKey(name: string, key: Key | undefined): string {
  if (key === 'profiles') return 'profiles: only the recipe itself has profiles'
  if (key !== undefined) return `settings are in camelCase here: write "${key}", not "${name}"`
  const near = nearest(name, WRITABLE_KEYS)
  return `unknown setting "${name}"${near ? `; did you mean "${near}"?` : ''}`
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  value !== null && typeof value === 'object' && !Array.isArray(value)
