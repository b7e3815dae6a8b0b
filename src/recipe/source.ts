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
  /** Of each of its sub-images. */
  images: ReadonlyMap<string, readonly Assignment[]>
  /** Of the default initrd. */
  initrd: readonly Assignment[]
}

export function readSource(file: string, exported: Readonly<Record<string, unknown>>, problems: Problem[]): Source {
  const text = readFileSync(file, 'utf8')
  const positions = keyPositions(text)
  const at = (path: string): string => {
    const p = positions.get(path) ?? anyKey(text, path.slice(path.lastIndexOf('.') + 1))
    return p ? `${basename(file)}:${p.line}:${p.column}` : basename(file)
  }
  const { profiles, images, initrd, ...own } = exported
  const read = (value: unknown, path: string, within: string): Assignment[] => {
    if (isObject(value)) return readObject(value, `${path}.`, within, at, problems)
    problems.push({ where: at(path), message: `${within}: expected an object of settings, got ${shown(value)}` })
    return []
  }
  const readEach = (value: unknown, path: string, kind: string): Map<string, Assignment[]> => {
    if (isObject(value))
      return new Map(Object.entries(value).map(([name, one]) => [name, read(one, `${path}.${name}`, `${kind} ${name}`)]))
    if (value === undefined) return new Map()
    problems.push({ where: at(path), message: `${path}: expected an object of ${path} by name, got ${shown(value)}` })
    return new Map()
  }
  const source: Source = {
    base: readObject(own, '', undefined, at, problems),
    profiles: readEach(profiles, 'profiles', 'profile'),
    images: readEach(images, 'images', 'image'),
    initrd: initrd === undefined ? [] : read(initrd, 'initrd', 'initrd'),
  }
  for (const name of source.images.keys()) {
    if (/^[A-Za-z0-9][\w.-]*$/.test(name) && !['main', 'default-initrd', 'tools'].includes(name)) continue
    problems.push({
      where: at(`images.${name}`),
      message: `image ${name}: expected a name of letters, digits, ".", "_" and "-" that is not taken`,
    })
  }
  return source
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
