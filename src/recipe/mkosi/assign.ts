/** One assignment: text read by the setting's type and put upon what the setting had. */
import { existsSync } from 'node:fs'
import { Fault } from '../../base/fault.ts'
import { compareVersions } from '../../base/version.ts'
import type { TreeSource } from '../file-type.ts'
import { type Key, ROWS, type Row } from '../schema.ts'
import type { Place } from '../type.ts'
import { merged, type Reading, type Value } from './state.ts'
import { checkMinimumVersion } from './version.ts'

/** Reads `text` as a value of the setting; `undefined` empties it. */
export function readValue(reading: Reading, key: Key, text: string, directory: string): unknown {
  const row = ROWS[key]!
  if (row.status.is === 'refused') throw new Fault('recipe', row.status.reason)
  if (text.trim() === '') return undefined
  if (key === 'minimumVersion') checkMinimumVersion(text)
  const value = parsed(row, text, { directory, env: reading.folder.env })
  if (MUST_EXIST.has(key)) checkExistence(value)
  return row.type.order && Array.isArray(value) ? value.sort(row.type.order) : value
}

/** What is wrong with a secret is told without it. */
function parsed(row: Row, text: string, place: Place): unknown {
  try {
    return row.type.parse(text, place)
  } catch (error) {
    const fault = faultOf(error)
    if (fault && row.secret) throw new Fault('recipe', `expected ${row.type.expected}`)
    throw fault ?? error
  }
}

/** A Fault, or what the system says of a file that is not what it should be. */
export function faultOf(error: unknown): Fault | undefined {
  if (error instanceof Fault) return error
  const { code, syscall, message } = (error ?? {}) as NodeJS.ErrnoException
  return code !== undefined && syscall !== undefined ? new Fault('recipe', message, { cause: error }) : undefined
}

/** Settings whose files and folders must be there when the recipe is read; scripts make those of others. */
const MUST_EXIST: ReadonlySet<Key> = new Set<Key>([
  'repartDirectories',
  'packageDirectories',
  'volatilePackageDirectories',
  'skeletonTrees',
  'sandboxTrees',
  'buildSources',
  'environmentFiles',
  'sysupdateDirectory',
])

function checkExistence(value: unknown): void {
  for (const one of Array.isArray(value) ? value : [value]) {
    const file = typeof one === 'string' ? one : (one as TreeSource).source
    if (!existsSync(file)) throw new Fault('recipe', `${file} does not exist`)
  }
}

/** Puts a value that was read from `text` upon those that a layer has. */
export function assign(layer: Map<Key, Value>, key: Key, text: string, value: unknown, where: string): void {
  const target = (ROWS[key]!.into as Key | undefined) ?? key
  const before = layer.get(target)
  if (key === 'minimumVersion' && before?.value !== undefined && !isNewer(value, before.value)) return
  const added: Value = { value, where: [where] }
  const replaces = value === undefined || before?.value === undefined || ROWS[key]!.type.replaces?.(text)
  layer.set(target, replaces ? added : merged(ROWS[target]!, before, added))
}

/** Of several oldest versions the newest counts. */
const isNewer = (version: unknown, than: unknown): boolean =>
  version !== undefined && (String(version).startsWith('commit:') || compareVersions(String(version), String(than)) > 0)
