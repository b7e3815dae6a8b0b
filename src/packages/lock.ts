/**
 * Lock: the packages of images, their initrd and their tools, pinned by version, size and SHA-256, with the repositories
 * they came from. `bisque.lock` is its text: one package a line in a stable order, so that it diffs and merges well.
 *
 *   bisque-lock 2
 *   repository <id> <format> <architecture> <url> <suite> <components> <snapshot> <sha256 of InRelease>
 *   [image <request>]
 *   <name> <version> <architecture> <repository> <size> <sha256> <filename>
 *   [initrd <request>]
 *   [tools <request>]
 *   [build <request>]
 *   [image:<sub-image> <request>]
 *   profiles <name>,<name>
 *   repository …
 *   [image <request>]
 *
 * Each group says what it answers: the SHA-256 of the settings that were resolved. Groups stand in this order, others
 * after the first three by name. `build` holds what build scripts see beside the packages of their image.
 *
 * A recipe whose profiles ask for other packages has a lock for each set of profiles, one after the other in the same
 * file: whole and independent, so that renewing one leaves the lines of all others as they are.
 *
 * A lock comes from anyone who can open a merge request. It cannot name a file outside its repository, and its digests
 * are checked against what is fetched; what it pins is only as trustworthy as its review.
 */
import { digestOf, type Sha256 } from '../base/digest.ts'
import { Fault } from '../base/fault.ts'
import { isSafeFilename, timestampOf } from './fetch.ts'
import { shown } from './http.ts'
import type { Package } from './package.ts'
import type { Repository } from './repository.ts'

export interface Lock {
  repositories: LockedRepository[]
  /** By name: `image`, `initrd`, `tools`, `build`, `build:NAME` and `image:NAME`. */
  groups: Map<string, LockedGroup>
}

export interface LockedGroup {
  /** `requestDigest` of what decided this resolution. */
  request: Sha256
  packages: Package[]
}

/** What a lock file holds: the lock of a recipe without profiles under the empty name, others by `lockName`. */
export type Locks = ReadonlyMap<string, Lock>

/** What the lock of some profiles is called in its file. */
export const lockName = (profiles: readonly string[]): string => [...new Set(profiles)].map(encodeURIComponent).join(',')

/** The profiles that a lock in its file is for. */
export const profilesNamed = (name: string): string[] => (name === '' ? [] : name.split(',').map(decodeURIComponent))

/** The packages of a group; none where the lock has no such group. */
export const packagesIn = (lock: Lock, group: string): readonly Package[] => lock.groups.get(group)?.packages ?? []

/** Every package of every group. */
export const allPackages = (lock: Lock): Package[] => [...lock.groups.values()].flatMap(({ packages }) => packages)

/** Names of groups that do not answer their request: absent, or made for another. */
export const unanswered = (lock: Lock, requests: ReadonlyMap<string, Sha256>): string[] =>
  [...requests].filter(([group, request]) => lock.groups.get(group)?.request !== request).map(([group]) => group)

/** A lock with some of its groups. */
export const narrowed = (lock: Lock, groups: ReadonlySet<string>): Lock => ({
  ...lock,
  groups: new Map([...lock.groups].filter(([group]) => groups.has(group))),
})

export interface LockedRepository extends Pick<Repository, 'id' | 'format' | 'architecture' | 'url' | 'suite' | 'components'> {
  /** When its metadata was signed: `YYYYMMDDTHHMMSSZ`, the snapshot archive's way to name a moment. */
  snapshot: string
  /** SHA-256 of the signed metadata (InRelease). */
  digest: Sha256
}

/** Names what was asked for: everything that decides which packages are chosen, and nothing else. */
export const requestDigest = (request: unknown): Sha256 => digestOf(request)

/** What the lock keeps of a repository that was loaded. A name and password in its URL stay out of it. */
export function lockRepository(repository: Repository, release: { date: Date; digest: Sha256 }): LockedRepository {
  const { id, format, architecture, url, suite, components } = repository
  const snapshot = timestampOf(release.date)
  return { id, format, architecture, url: shown(url), suite, components, snapshot, digest: release.digest }
}

/** The moment of each repository, for `fetchPackages`. */
export const snapshotsOf = (lock: Lock): Map<string, string> => new Map(lock.repositories.map((r) => [r.id, r.snapshot]))

/** A lock in the order of its text, so that it is the same value before it was written and after. */
export const inLockOrder = ({ repositories, groups }: Lock): Lock => ({
  repositories: repositories.toSorted((a, b) => inOrder(a.id, b.id)),
  groups: new Map(
    [...groups]
      .sort(([a], [b]) => byGroup(a, b))
      .map(([name, group]) => [name, { ...group, packages: group.packages.toSorted(byName) }]),
  ),
})

/** The text of one lock, as if it were alone in its file. */
export const formatLock = (lock: Lock): string => formatLocks(new Map([['', lock]]))

export function formatLocks(locks: Locks): string {
  const lines = ['bisque-lock 2']
  for (const [name, lock] of [...locks].sort(([a], [b]) => inOrder(a, b))) {
    if (name !== '') lines.push(`profiles ${name}`)
    const { repositories, groups } = inLockOrder(lock)
    lines.push(...repositories.map(formatRepository))
    for (const [group, { request, packages }] of groups) lines.push(`[${group} ${request}]`, ...packages.map(formatPackage))
  }
  return `${lines.join('\n')}\n`
}

const formatRepository = ({ id, format, architecture, url, suite, components, snapshot, digest }: LockedRepository): string =>
  ['repository', id, format, architecture, url, suite, components.join(',') || '-', snapshot, digest].join(' ')

const formatPackage = (p: Package): string =>
  [p.name, p.version, p.architecture, p.repository, p.sizeBytes, p.sha256, p.filename].join(' ')

/** Parses the text of a lock file. `path` names it in the one Fault that lists everything wrong with it. */
export function parseLocks(text: string, path: string): Locks {
  if (text.length > MAX_BYTES)
    throw new Fault('format', `Cannot read ${path}: ${text.length} bytes, expected at most ${MAX_BYTES}`)
  const reading: Reading = { locks: new Map(), lock: undefined, group: undefined, title: '', seen: new Set() }
  const problems: string[] = []
  const lines = text.split('\n')
  if (lines.pop() !== '') problems.push(`${path}:${lines.length + 1}:1: expected a line break at the end of the file`)
  for (const [i, line] of lines.entries()) {
    try {
      readLine(reading, line, i + 1)
    } catch (error) {
      if (!(error instanceof Misprint)) throw error
      problems.push(`${path}:${i + 1}:${error.column}: ${error.message}`)
      if (problems.length === MAX_PROBLEMS || i === 0) break
    }
  }
  if (problems.length === 0) return reading.locks
  throw new Fault('format', `Cannot read the lock:\n${problems.join('\n')}`, {
    hint: `restore it from version control, or lock anew: rm ${path} && bisque lock`,
  })
}

export interface LockChange {
  group: string
  name: string
  architecture: string
  /** Version before; absent when added. */
  from?: string
  /** Version after; absent when removed. Equal to `from` when only the bytes or their place changed. */
  to?: string
}

/** What changed from one lock to another, in lock order. */
export function diffLocks(before: Lock, after: Lock): LockChange[] {
  const changes: LockChange[] = []
  for (const group of [...new Set([...before.groups.keys(), ...after.groups.keys()])].sort(byGroup)) {
    const old = new Map(packagesIn(before, group).map((p) => [keyOf(p), p]))
    const now = new Map(packagesIn(after, group).map((p) => [keyOf(p), p]))
    for (const p of [...new Map([...old, ...now]).values()].sort(byName)) {
      const [from, to] = [old.get(keyOf(p)), now.get(keyOf(p))]
      if (from && to && from.version === to.version && from.sha256 === to.sha256) continue
      const versions = { ...(from ? { from: from.version } : {}), ...(to ? { to: to.version } : {}) }
      changes.push({ group, name: p.name, architecture: p.architecture, ...versions })
    }
  }
  return changes
}

/** What a change is to people: `+ jq 1.7.1-6`, `- jq 1.7.1-6`, `  jq 1.7.1-6 → 1.8.1-1`. */
export function formatLockChange({ name, from, to }: LockChange): string {
  if (from === undefined) return `+ ${name} ${to}`
  if (to === undefined) return `- ${name} ${from}`
  return from === to ? `  ${name} ${to} (rebuilt)` : `  ${name} ${from} → ${to}`
}

/** Package name → version the resolver should keep if it is still offered. */
export type Pins = ReadonlyMap<string, string>

/**
 * What `lock --update [PACKAGE…]` hands to the resolver: with packages named, everything else stays at its locked
 * version where that is still offered; with none named nothing is pinned. A name the lock does not hold is a Fault.
 */
export function pinTo(lock: Lock, update: readonly string[] | 'all'): Map<string, Pins> {
  const free = new Set(update === 'all' ? [] : update)
  const known = new Set(allPackages(lock).map((p) => p.name))
  const unknown = [...free].filter((name) => !known.has(name))
  if (unknown.length > 0)
    throw new Fault('usage', `Cannot update ${unknown.join(', ')}: not in the lock`, { hint: 'bisque lock --update' })
  if (update === 'all') return new Map()
  const pins = (packages: readonly Package[]) =>
    new Map(packages.filter((p) => !free.has(p.name)).map((p) => [p.name, p.version]))
  return new Map([...lock.groups].map(([group, { packages }]) => [group, pins(packages)]))
}

/** Groups that come first, in this order. */
const FIRST_GROUPS: readonly string[] = ['image', 'initrd', 'tools']

const MAX_BYTES = 16 << 20
const MAX_LINE = 4096
const MAX_PROBLEMS = 10
const MAX_LOCKS = 100
const MAX_GROUPS = 1000

const GROUP = /^\[(image|initrd|tools|build|(?:image|build):[A-Za-z0-9][A-Za-z0-9._-]{0,99}) ([0-9a-f]{64})\]$/
/** Two words: no package's line has so few. */
const PROFILES = /^profiles ((?:[A-Za-z0-9_.!~*'()-]|%[0-9A-F]{2})+(?:,(?:[A-Za-z0-9_.!~*'()-]|%[0-9A-F]{2})+)*)$/

/** A word of a line: what it must look like, and what to call it. */
type Word = readonly [name: string, pattern: RegExp]

const ID = /^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/
const ARCHITECTURE = /^[a-z0-9][a-z0-9_-]{0,31}$/
const SHA256 = /^[0-9a-f]{64}$/
// biome-ignore format: table
const REPOSITORY: readonly Word[] = [
  ['the repository\'s name',              ID],
  ['its format (deb, rpm or alpm)',       /^(deb|rpm|alpm)$/],
  ['its architecture',                    ARCHITECTURE],
  ['its URL without a trailing slash',    /^(https?:\/\/|file:)[\x21-\x7e]{0,1023}(?<!\/)$/],
  ['its suite',                           /^(?!.*\.\.)(\/|[A-Za-z0-9-][A-Za-z0-9./_-]{0,199})$/],
  ['its components, joined by commas',    /^[A-Za-z0-9-][A-Za-z0-9.,/_-]{0,999}$/],
  ['its snapshot as YYYYMMDDTHHMMSSZ',    /^\d{8}T\d{6}Z$/],
  ['the SHA-256 of its signed metadata',  SHA256],
]
// biome-ignore format: table
const PACKAGE: readonly Word[] = [
  ['the package\'s name',            /^[A-Za-z0-9][A-Za-z0-9+._-]{0,199}$/],
  ['its version',                    /^[A-Za-z0-9][A-Za-z0-9.+~:^_-]{0,199}$/],
  ['its architecture',               ARCHITECTURE],
  ['the name of its repository',     ID],
  ['its size in bytes',              /^(0|[1-9]\d{0,11})$/],
  ['its SHA-256',                    SHA256],
  ['its path below the repository',  /^[\x21-\x7e]{1,1024}$/],
]

/** One thing wrong with a line, and where. */
class Misprint extends Error {
  readonly column: number

  constructor(column: number, why: string) {
    super(why)
    this.column = column
  }
}

interface Reading {
  locks: Map<string, Lock>
  lock: Lock | undefined
  /** The group whose packages are being read, and its name. */
  group: Package[] | undefined
  title: string
  /** `group name architecture` of every package of the lock so far. */
  seen: Set<string>
}

function readLine(reading: Reading, line: string, n: number): void {
  if (line.length > MAX_LINE) throw new Misprint(MAX_LINE, `expected at most ${MAX_LINE} characters in a line`)
  if (n === 1) readVersion(line)
  else if (/^(<<<<<<<|=======|>>>>>>>)/.test(line)) throw new Misprint(1, 'unresolved merge conflict')
  else if (/^profiles( [^ ]*)?$/.test(line)) openLock(reading, line)
  else if (line.startsWith('[')) openGroup(reading, line)
  else if (reading.group === undefined) readRepository(lockIn(reading), line)
  else readPackage(reading, line, reading.group)
}

function readVersion(line: string): void {
  if (line !== 'bisque-lock 2') throw new Misprint(1, `expected "bisque-lock 2", got ${quoted(line)}`)
}

function openLock(reading: Reading, line: string): void {
  const name = PROFILES.exec(line)?.[1]
  if (name === undefined) throw new Misprint(10, `expected names of profiles, joined by commas, got ${quoted(line.slice(9))}`)
  const last = [...reading.locks.keys()].at(-1)
  if (last !== undefined && inOrder(last, name) >= 0)
    throw new Misprint(10, `expected profiles further on in order than ${quoted(last)}, got ${quoted(name)}`)
  if (reading.locks.size === MAX_LOCKS) throw new Misprint(1, `expected at most ${MAX_LOCKS} sets of profiles`)
  reading.lock = { repositories: [], groups: new Map() }
  reading.locks.set(name, reading.lock)
  reading.group = undefined
  reading.seen.clear()
}

/** The lock that lines belong to; what stands before all profiles belongs to the one without. */
function lockIn(reading: Reading): Lock {
  if (reading.lock === undefined) {
    reading.lock = { repositories: [], groups: new Map() }
    reading.locks.set('', reading.lock)
  }
  return reading.lock
}

function openGroup(reading: Reading, line: string): void {
  const { groups } = lockIn(reading)
  const [, name, request] = GROUP.exec(line) ?? []
  if (name === undefined || request === undefined)
    throw new Misprint(1, `expected a group such as [image SHA-256], got ${quoted(line)}`)
  const last = [...groups.keys()].at(-1)
  if (last !== undefined && byGroup(last, name) >= 0)
    throw new Misprint(1, `expected a group further on in order than [${last}], got [${name}]`)
  if (groups.size === MAX_GROUPS) throw new Misprint(1, `expected at most ${MAX_GROUPS} groups`)
  reading.group = []
  reading.title = name
  groups.set(name, { request, packages: reading.group })
}

const rankOf = (group: string): number => {
  const rank = FIRST_GROUPS.indexOf(group)
  return rank < 0 ? FIRST_GROUPS.length : rank
}
const byGroup = (a: string, b: string): number => rankOf(a) - rankOf(b) || inOrder(a, b)

function readRepository(lock: Lock, line: string): void {
  if (!line.startsWith('repository '))
    throw new Misprint(1, `expected "repository" or a group such as [image SHA-256], got ${quoted(line)}`)
  const words = wordsOf(line, REPOSITORY, 'repository '.length)
  const [id, format, architecture, url, suite, components, snapshot, digest] = words as Row<8>
  if (lock.repositories.some((r) => r.id === id)) throw new Misprint(12, `repository ${id} appears twice`)
  const kind = format as Repository['format']
  lock.repositories.push({
    id,
    format: kind,
    architecture,
    url,
    suite,
    components: components === '-' ? [] : components.split(','),
    snapshot,
    digest,
  })
}

function readPackage({ lock, seen, title }: Reading, line: string, group: Package[]): void {
  const words = wordsOf(line, PACKAGE, 0)
  const [name, version, architecture, repository, size, sha256, filename] = words as Row<7>
  const columnOf = (i: number) => words.slice(0, i).join(' ').length + 2
  if (!lock!.repositories.some((r) => r.id === repository))
    throw new Misprint(columnOf(3), `there is no repository "${repository}" above`)
  if (!isSafeFilename(filename)) throw new Misprint(columnOf(6), `${quoted(filename)} is not a path below the repository`)
  const key = `${title} ${name} ${architecture}`
  if (seen.has(key)) throw new Misprint(1, `${name} ${architecture} appears twice in [${title}]`)
  seen.add(key)
  group.push({ name, version, architecture, repository, filename, sizeBytes: Number(size), sha256 })
}

type Row<N extends number> = N extends 7
  ? [string, string, string, string, string, string, string]
  : [string, string, string, string, string, string, string, string]

function wordsOf(line: string, table: readonly Word[], start: number): string[] {
  const words = line.slice(start).split(' ')
  let column = start + 1
  for (const [i, [name, pattern]] of table.entries()) {
    const word = words[i] ?? ''
    if (!pattern.test(word)) throw new Misprint(column, `expected ${name}, got ${quoted(word)}`)
    column += word.length + 1
  }
  if (words.length > table.length) throw new Misprint(column, `expected the end of the line, got ${quoted(words[table.length]!)}`)
  return words
}

const quoted = (text: string) => JSON.stringify(text.length > 80 ? `${text.slice(0, 80)}…` : text)
const keyOf = (p: Package) => `${p.name} ${p.architecture}`
const inOrder = (a: string, b: string) => (a < b ? -1 : a > b ? 1 : 0)
const byName = (a: Package, b: Package) => inOrder(a.name, b.name) || inOrder(a.architecture, b.architecture)
