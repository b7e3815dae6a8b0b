/**
 * What has been read of an image so far, in mkosi's three layers: the command line's, the files', and the defaults.
 *
 * A default is computed when it is first asked for (by a specifier, a condition, or at the end) and stays as it was then,
 * even when what it followed from changes later. mkosi does so, and recipes may depend on it.
 */
import { type Get, type Key, ROWS, type Row } from '../schema.ts'
import type { Problem } from '../values.ts'

/** A setting's value and every place that it came from. `undefined` is a setting that was emptied. */
export interface Value {
  value: unknown
  where: readonly string[]
}

/** What all images of a folder share while they are read. */
export interface Folder {
  /** The folder the recipe is said to lie in. */
  directory: string
  /** The folder with its `mkosi.conf`: the same, or `mkosi/` in it. */
  configDirectory: string
  env: Readonly<Record<string, string | undefined>>
  problems: Problem[]
  /** Take values that cannot be built. */
  anyValue: boolean
  notes: Set<string>
  /** Profiles that some file is for, and names that some condition asks about. */
  knownProfiles: Set<string>
  /** What executable files among the configuration printed, by path. */
  printed: ReadonlyMap<string, string>
  /** How many configurations have been read. */
  count: number
  /** Executable files of which it is not known yet what they print. */
  asked: Set<string>
}

export interface Reading {
  image: string
  /** Settings of the command line, and of what counts as such: `mkosi.local.conf`, the main image's universal ones. */
  cli: Map<Key, Value>
  /** Settings that were emptied on the command line at some point: they replace what files say. */
  cliEmptied: Set<Key>
  config: Map<Key, Value>
  defaults: Map<Key, Value>
  /** Device and inode of each thing that was included. */
  included: Set<string>
  files: string[]
  folder: Folder
}

export function newReading(folder: Folder, image: string): Reading {
  return {
    image,
    cli: new Map(),
    cliEmptied: new Set(),
    config: new Map(),
    defaults: new Map(),
    included: new Set(),
    files: [],
    folder,
  }
}

/** The value as it is by now. */
export function current(reading: Reading, key: Key): Value {
  const row = ROWS[key]!
  const [cli, config] = [reading.cli.get(key), reading.config.get(key)]
  if (cli?.value !== undefined) {
    if (config?.value === undefined || reading.cliEmptied.has(key)) return cli
    return joined(row, config, cli)
  }
  if (cli === undefined && config?.value !== undefined) return config
  if (cli !== undefined || config !== undefined) {
    // Emptied: a list is empty then, and a value that may be absent is so.
    const where = (cli ?? config)!.where
    if (row.type.merge !== 'replace') return { value: row.type.absent, where }
    if (STAYS_EMPTY.has(key)) return { value: undefined, where }
    return { ...defaultOf(reading, key), where }
  }
  return defaultOf(reading, key)
}

/** Settings without a value where others fall back to their default. */
const STAYS_EMPTY: ReadonlySet<Key> = new Set<Key>([
  'sourceDateEpoch',
  'proxyUrl',
  'proxyPeerCertificate',
  'proxyClientKey',
  'machine',
  'toolsTreeMirror',
])

/** One more assignment to a setting, upon the ones before. */
export function merged(row: Row, before: Value, added: Value): Value {
  const { value, where } = joined(row, before, added)
  return { value: row.type.order && Array.isArray(value) ? value.sort(row.type.order) : value, where }
}

/** Without putting lists in order: what the command line adds to a list stands at its end. */
function joined(row: Row, before: Value, added: Value): Value {
  if (row.type.merge === 'replace') return added
  const where = [...before.where, ...added.where]
  if (row.type.merge === 'append') return { value: [...(before.value as unknown[]), ...(added.value as unknown[])], where }
  return { value: { ...(before.value as object), ...(added.value as object) }, where }
}

function defaultOf(reading: Reading, key: Key): Value {
  const known = reading.defaults.get(key)
  if (known) return known
  const get = (other: string): unknown => {
    if (other === 'directory') return reading.folder.directory
    if (other === 'image') return reading.image
    return current(reading, other as Key).value
  }
  const value = { value: computedDefault(reading, key, get), where: ['default'] }
  reading.defaults.set(key, value)
  return value
}

function computedDefault(reading: Reading, key: Key, get: Get): unknown {
  const row = ROWS[key]!
  if (key === 'sourceDateEpoch') return epochOf(reading.folder.env)
  if ('mkosi' in row) return typeof row.mkosi === 'function' ? row.mkosi(get) : (row.mkosi ?? row.type.absent)
  if (row.defaultFrom) return row.defaultFrom(get)
  return row.default ?? row.type.absent
}

/** https://reproducible-builds.org/specs/source-date-epoch/ */
function epochOf(env: Folder['env']): number | undefined {
  const text = env['SOURCE_DATE_EPOCH']
  return text && /^\d{1,12}$/.test(text) ? Number(text) : undefined
}

/** A copy whose layers can go on by themselves. */
export const copyOf = (reading: Reading): Reading => ({
  ...reading,
  cli: new Map(reading.cli),
  cliEmptied: new Set(reading.cliEmptied),
  config: new Map(reading.config),
  defaults: new Map(reading.defaults),
  included: new Set(reading.included),
  files: [...reading.files],
})

/** Why the image that is read may not have the setting. */
export function scopeProblem(reading: Pick<Reading, 'image'>, key: Key): string | undefined {
  const { scope } = ROWS[key]!
  if (reading.image === 'main' || !['main', 'tools', 'initrd', 'multiversal', 'universal'].includes(scope)) return undefined
  return `only the main image can set it, and this is the image ${reading.image}`
}
