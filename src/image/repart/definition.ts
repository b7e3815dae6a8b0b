/**
 * Partition definitions, as systemd-repart reads them from `repart.d` folders.
 *
 * Spec:   repart.d(5) of systemd 261, all settings
 * Oracle: `systemd-repart --dry-run=yes --json=pretty`
 * Limits: what systemd-repart ignores with a warning is refused here.
 */
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { basename, join } from 'node:path'
import { Fault } from '../../base/fault.ts'
import { nearest } from '../../base/nearest.ts'
import type { Architecture, PartitionType } from '../../formats/dps.ts'
import { checkDefinition, checkDefinitions, completed } from './checks.ts'
import type { Subvolume } from './file-system.ts'
import { SETTINGS } from './settings.ts'
import type { Specifiers } from './specifiers.ts'
import { parseSyntax } from './syntax.ts'

export interface Definition {
  /** File name without `.conf`: `10-usr`. */
  name: string
  /** Path of the file, for messages. */
  file: string
  dropIns: readonly string[]
  /** Where settings were given: `10-usr.conf:3:1`. */
  places: ReadonlyMap<string, string>

  type: PartitionType
  /** At most 36 UTF-16 units, or empty. The type's name, numbered, where absent. */
  label?: string
  volumeLabel?: string
  /** Derived from the seed, or from a root hash, where absent. */
  guid?: string
  priority: number
  weight: number
  paddingWeight: number
  sizeMinBytes?: number
  sizeMaxBytes?: number
  paddingMinBytes?: number
  paddingMaxBytes?: number
  factoryReset: boolean
  /** Bits of the partition's attributes besides those with a setting of their own. */
  flags: bigint
  readOnly?: boolean
  noAuto?: boolean
  growFileSystem?: boolean
  /** Name of the partition's own file; absent where it gets none. */
  splitName?: string

  /** File system to make, or `swap`. Absent for a partition that stays as it is. */
  format?: string
  copyFiles: readonly CopyFiles[]
  /** Paths in the tree that is copied; with a trailing slash, only what is in the directory. */
  excludeFiles: readonly string[]
  /** The same, as paths in the partition. */
  excludeFilesTarget: readonly string[]
  makeDirectories: readonly string[]
  makeSymlinks: readonly { path: string; target: string }[]
  subvolumes: readonly Subvolume[]
  defaultSubvolume?: string
  compression?: string
  compressionLevel?: string
  fileSystemSectorSize?: 512 | 1024 | 2048 | 4096
  minimize: 'off' | 'best' | 'guess'
  /** Whether the file system says in its attributes on which partition it may lie. */
  addValidateFs: boolean
  /** `auto`, or a path in the tree. */
  copyBlocks?: string

  encrypt: 'off' | 'key-file' | 'tpm2' | 'key-file+tpm2'
  encryptedVolume?: EncryptedVolume
  verity: 'off' | 'data' | 'hash' | 'signature'
  verityMatchKey?: string
  verityDataBlockSizeBytes?: number
  verityHashBlockSizeBytes?: number
  /** Name of the definition whose partition grows instead of this one being made. */
  supplementFor?: string
  mountPoints: readonly MountPoint[]
}

export interface CopyFiles {
  source: string
  target: string
  /** Whether fs-verity of the source is kept. No file of a tree has it. */
  fsverity: 'copy' | 'off'
}

export interface MountPoint {
  where: string
  options?: string
}

export interface EncryptedVolume {
  name: string
  keyFile?: string
  options?: string
}

export interface DefinitionOptions {
  architecture: Architecture
  specifiers: Specifiers
}

/**
 * Reads the definitions of several folders, in the order of their file names, which is the order on disk. Of files of one
 * name, the first folder's counts; an empty one, or a link to /dev/null, takes the definition away.
 */
export function loadDefinitions(folders: readonly string[], options: DefinitionOptions): Definition[] {
  for (const folder of folders) {
    if (!statSync(folder, { throwIfNoEntry: false })?.isDirectory())
      throw new Fault('missing', `Cannot read partition definitions: ${folder} is not a folder`)
  }
  const dropIns = (file: string) => listConf(folders.map((folder) => join(folder, `${basename(file)}.d`)))
  const files = listConf(folders).map((file) => ({ file, text: readText(file), dropIns: dropIns(file) }))
  return parseDefinitions(
    files.map(({ file, text, dropIns }) => ({ file, text, dropIns: dropIns.map((one) => ({ file: one, text: readText(one) })) })),
    options,
  )
}

export interface DefinitionSource {
  file: string
  text: string
  dropIns?: readonly { file: string; text: string }[]
}

/** Parses definitions that are text, in the order on disk. All problems are told together. */
export function parseDefinitions(sources: readonly DefinitionSource[], options: DefinitionOptions): Definition[] {
  if (sources.length > MAX_PARTITIONS)
    throw new Fault(
      'recipe',
      `Cannot read partition definitions: there are ${sources.length}, a disk has room for ${MAX_PARTITIONS} partitions`,
    )
  const problems: string[] = []
  const definitions = sources.flatMap((source) => {
    const before = problems.length
    const draft = parseOne(source, options, problems)
    if (problems.length > before) return []
    problems.push(...checkDefinition(draft))
    return problems.length > before ? [] : [completed(draft)]
  })
  if (problems.length === 0) problems.push(...checkDefinitions(definitions))
  if (problems.length === 1) throw new Fault('recipe', `Cannot read partition definitions: ${problems[0]}`)
  if (problems.length > 1) {
    const lines = problems.map((line) => `  ${line}`).join('\n')
    throw new Fault('recipe', `Cannot read partition definitions, ${problems.length} problems:\n${lines}`)
  }
  return definitions
}

const MAX_PARTITIONS = 128

/** What a definition says that says nothing. */
const DEFAULTS = {
  dropIns: [],
  priority: 0,
  weight: 1000,
  paddingWeight: 0,
  factoryReset: false,
  flags: 0n,
  copyFiles: [],
  excludeFiles: [],
  excludeFilesTarget: [],
  makeDirectories: [],
  makeSymlinks: [],
  subvolumes: [],
  minimize: 'off',
  encrypt: 'off',
  verity: 'off',
  mountPoints: [],
} as const

/** A definition with nothing but a type, to be filled by code. */
export const emptyDefinition = (name: string, type: PartitionType): Definition => ({
  ...DEFAULTS,
  name,
  file: name,
  places: new Map(),
  type,
  splitName: '%t',
  addValidateFs: false,
})

/** A definition whose settings are read and not yet checked against each other. */
export interface Draft extends Omit<Definition, 'type' | 'addValidateFs'> {
  type?: PartitionType
  addValidateFs?: boolean
}

function parseOne(source: DefinitionSource, options: DefinitionOptions, problems: string[]): Draft {
  const places = new Map<string, string>()
  const dropIns = (source.dropIns ?? []).map(({ file }) => file)
  const draft: Draft = { ...DEFAULTS, name: basename(source.file).replace(/\.conf$/, ''), file: source.file, dropIns, places }
  for (const { file, text } of [source, ...(source.dropIns ?? [])]) {
    const tell = (line: number, column: number, message: string) => problems.push(`${file}:${line}:${column}: ${message}`)
    const unknown = new Set<string>()
    for (const one of parseSyntax(text, ({ line, column, message }) => tell(line, column, message))) {
      const { section, name, value, line, column, valueColumn } = one
      if (section !== 'Partition') {
        if (!unknown.has(section)) tell(line, column, `unknown section [${section}]; a definition has one section, [Partition]`)
        unknown.add(section)
        continue
      }
      const setting = SETTINGS[name]
      if (setting === undefined) {
        const close = nearest(name, Object.keys(SETTINGS))
        tell(line, column, `unknown setting ${name}=${close ? `; did you mean ${close}=?` : ''}`)
        continue
      }
      places.set(name, `${file}:${line}:${column}`)
      const wrong = setting(draft, value, options)
      if (wrong !== undefined) tell(line, valueColumn, `${name}=${value}: ${wrong}`)
    }
  }
  return draft
}

/** Paths of all `.conf` files of several folders by their names; the first folder that has a name counts. */
function listConf(folders: readonly string[]): string[] {
  const found = new Map<string, string>()
  for (const folder of folders) {
    for (const name of namesIn(folder)) if (name.endsWith('.conf') && !found.has(name)) found.set(name, join(folder, name))
  }
  const sorted = [...found].sort(([a], [b]) => Buffer.compare(Buffer.from(a), Buffer.from(b)))
  return sorted.map(([, path]) => path).filter((path) => isDefinition(path))
}

/** Drop-in folders need not be there. */
function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'ENOTDIR') return []
    throw new Fault('missing', `Cannot read partition definitions in ${folder}: ${(error as Error).message}`, { cause: error })
  }
}

/** A regular file that says something; an empty one masks the name. */
function isDefinition(path: string): boolean {
  const found = statSync(path, { throwIfNoEntry: false })
  if (found === undefined) throw new Fault('missing', `Cannot read partition definition ${path}: it is a link to nothing`)
  return found.isFile() && found.size > 0
}

const MAX_TEXT_BYTES = 256 << 10

function readText(path: string): string {
  const { size } = statSync(path)
  if (size > MAX_TEXT_BYTES)
    throw new Fault(
      'recipe',
      `Cannot read partition definition ${path}: it has ${size} bytes, at most ${MAX_TEXT_BYTES} are expected`,
    )
  return readFileSync(path, 'utf8')
}
