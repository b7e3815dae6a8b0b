/**
 * Reading one configuration (a folder, or a single file) into an image's settings, in mkosi's order: the conditions, then
 * `mkosi.local.conf`, the files that set something by lying there, `mkosi.conf`, `mkosi.conf.d/`, and the profiles.
 */
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { extname, join, resolve } from 'node:path'
import { Fault } from '../../base/fault.ts'
import { nearest } from '../../base/nearest.ts'
import { KEYS, type Key, mkosiName, ROWS } from '../schema.ts'
import { words } from '../type.ts'
import { assign, faultOf, readValue } from './assign.ts'
import { BUILTIN_CONFIGS, builtinFolder, OTHER_CONFIGS } from './builtin.ts'
import { type IniEntry, type IniSection, parseIni } from './ini.ts'
import { checkAsserts, matches } from './matches.ts'
import { CONDITION_SECTIONS, SECTIONS, SETTING_BY_NAME } from './names.ts'
import { applyNeighbours } from './neighbours.ts'
import { expand, type FileAt, noteIn, problemIn, shownFile } from './place.ts'
import { current, type Reading, scopeProblem } from './state.ts'

export interface What {
  /** Apply the selected profiles of `mkosi.profiles/`. */
  profiles?: boolean
  /** Apply `mkosi.local.conf` and `mkosi.local/`. */
  local?: boolean
}

/** Reads the folder or file at `path`; relative paths of a file count from `directory`. False when its conditions do not hold. */
export function parseConfiguration(reading: Reading, path: string, directory: string, what: What = {}): boolean {
  if (++reading.folder.count > MOST_CONFIGURATIONS) {
    const why = `it has more than ${MOST_CONFIGURATIONS} configurations; does a link lead back?`
    throw new Fault('recipe', `Cannot read recipe: ${why}`)
  }
  const isFolder = isDirectory(path)
  const at: FileAt = isFolder ? { file: join(path, 'mkosi.conf'), directory: path } : { file: path, directory }
  const exists = existsSync(at.file)
  const sections = exists ? readSections(reading, at) : []
  if (!matches(reading, at, sections)) return false
  checkAsserts(reading, at, sections)
  if (isFolder) {
    if (what.local) applyLocal(reading, at)
    applyNeighbours(reading, at)
  }
  if (exists) {
    reading.files.push(at.file)
    for (const section of sections) {
      if (!CONDITION_SECTIONS.has(section.name)) for (const entry of section.entries) applyEntry(reading, at, section, entry)
    }
  }
  if (isFolder) applyDropIns(reading, at)
  if (what.profiles) applyProfiles(reading, at)
  return true
}

const MOST_CONFIGURATIONS = 5000

const isDirectory = (path: string): boolean => statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false
const isFile = (path: string): boolean => statSync(path, { throwIfNoEntry: false })?.isFile() ?? false

/** Most bytes that a configuration file may have. */
const MOST_BYTES = 4 << 20

function readSections(reading: Reading, at: FileAt): IniSection[] {
  const stat = statSync(at.file)
  if (!stat.isFile() || stat.size > MOST_BYTES) {
    const why = stat.isFile() ? `it has ${stat.size} bytes, and a configuration at most ${MOST_BYTES}` : 'it is not a file'
    throw new Fault('recipe', `Cannot read recipe: ${shownFile(reading, at.file)}: ${why}`)
  }
  return parseIni(readFileSync(at.file, 'utf8'), (problem) => problemIn(reading, at, problem, problem.message))
}

/** Settings of `mkosi.local/` and `mkosi.local.conf` count as if they stood on the command line, before what stands there. */
function applyLocal(reading: Reading, at: FileAt): void {
  for (const path of [join(at.directory, 'mkosi.local'), join(at.directory, 'mkosi.local.conf')]) {
    if (path.endsWith('.conf') ? !isFile(path) : !isDirectory(path)) continue
    parseConfiguration(reading, path, at.directory)
    for (const key of [...reading.config.keys()]) {
      reading.cli.set(key, current(reading, key))
      reading.config.delete(key)
    }
  }
}

function applyDropIns(reading: Reading, at: FileAt): void {
  const folder = join(at.directory, 'mkosi.conf.d')
  if (!isDirectory(folder)) return
  for (const name of readdirSync(folder).sort(byCodePoint)) {
    const path = join(folder, name)
    if (isDirectory(path) || extname(name) === '.conf') parseConfiguration(reading, path, at.directory)
  }
}

function applyProfiles(reading: Reading, at: FileAt): void {
  const folder = join(at.directory, 'mkosi.profiles')
  if (reading.image !== 'default-initrd') for (const name of profilesIn(at.directory)) reading.folder.knownProfiles.add(name)
  for (const profile of (current(reading, 'profiles').value as readonly string[] | undefined) ?? []) {
    if (!isFileName(profile)) continue // told where the profile was selected
    for (const path of [join(folder, profile), join(folder, `${profile}.conf`)]) {
      if (existsSync(path)) parseConfiguration(reading, path, at.directory)
    }
  }
}

/** Names of the profiles that a folder has. */
export function profilesIn(directory: string): string[] {
  const folder = join(directory, 'mkosi.profiles')
  if (!isDirectory(folder)) return []
  return readdirSync(folder).flatMap((name) => {
    if (isDirectory(join(folder, name))) return [name]
    return name.endsWith('.conf') ? [name.slice(0, -5)] : []
  })
}

const isFileName = (name: string): boolean => !name.includes('/') && name !== '.' && name !== '..' && name !== ''
const byCodePoint = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0)

function applyEntry(reading: Reading, at: FileAt, section: IniSection, entry: IniEntry): void {
  if (section.name === '' || section.name.startsWith('X-')) return
  if (!SECTIONS.has(section.name)) {
    if (entry === section.entries[0]) problemIn(reading, at, section, unknownSection(section.name))
    return
  }
  const name = entry.name.replace(/^@/, '')
  if (name !== entry.name) noteIn(reading, at, entry, `the "@" before ${name} means nothing any more`)
  const key = SETTING_BY_NAME.get(name)
  if (key === undefined) {
    problemIn(reading, at, entry, unknownSetting(name))
    return
  }
  const row = ROWS[key]!
  const misplaced = scopeProblem(reading, key)
  if (misplaced) {
    problemIn(reading, at, entry, `${name}: ${misplaced}`)
    return
  }
  const written = section.name === 'Host' ? 'Runtime' : section.name
  if (section.name === 'Host') noteIn(reading, at, section, 'section [Host] is called [Runtime] now')
  if (written !== row.section) noteIn(reading, at, entry, `${name} belongs in section [${row.section}], not in [${section.name}]`)
  if (name !== mkosiName(key)) noteIn(reading, at, entry, `${name} is called ${mkosiName(key)} now`)
  applyText(reading, at, entry, key)
}

function applyText(reading: Reading, at: FileAt, entry: IniEntry, key: Key): void {
  const row = ROWS[key]!
  const text = expand(reading, at, entry, entry.value)
  if (row.status.is === 'without-effect' && text !== '') {
    noteIn(reading, at, entry, `${entry.name} is without effect: ${row.status.reason}`)
  }
  try {
    if (key === 'include') {
      include(reading, at, words(text, 'comma or space'))
      return
    }
    const value = readValue(reading, key, text, at.directory)
    assign(reading.config, key, text, value, `${shownFile(reading, at.file)}:${entry.line}`)
  } catch (error) {
    const fault = faultOf(error)
    if (!fault) throw error
    problemIn(reading, at, entry, `${entry.name}: ${fault.message}`)
  }
}

/** Reads configurations here and now, each at most once for an image. */
export function include(reading: Reading, at: FileAt, names: readonly string[]): void {
  for (const name of names) {
    if (OTHER_CONFIGS.includes(name)) throw new Fault('recipe', `the built-in configuration ${name} is not supported`)
    const path = BUILTIN_CONFIGS.includes(name)
      ? builtinFolder(name)
      : resolve(at.directory, expandHome(name, reading.folder.env))
    const stat = statSync(path, { throwIfNoEntry: false })
    if (!stat) throw new Fault('recipe', `${name} does not exist`)
    const inode = `${stat.dev}:${stat.ino}`
    if (reading.included.has(inode)) continue
    reading.included.add(inode)
    parseConfiguration(reading, path, at.directory, { profiles: stat.isDirectory() })
  }
}

const expandHome = (path: string, env: Reading['folder']['env']): string =>
  path.replace(/^~(?=\/|$)/, () => env['HOME'] ?? '~').replace(/\$(?:\{(\w+)\}|(\w+))/g, (all, a, b) => env[a ?? b] ?? all)

function unknownSection(name: string): string {
  const near = nearest(name, [...SECTIONS, ...CONDITION_SECTIONS])
  return `unknown section [${name}]${near ? `; did you mean [${near}]?` : ''}`
}

function unknownSetting(name: string): string {
  const near = nearest(name, KEYS.map(mkosiName))
  return `unknown setting "${name}"${near ? `; did you mean "${near}"?` : ''}`
}
