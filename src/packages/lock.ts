/**
 * Lock: the packages of images, their initrd and their tools, pinned by version, size and SHA-256, with the repositories
 * they came from. `bisque.lock` is its text: one package a line in a stable order, so that it diffs and merges well.
 *
 *   bisque-lock 1
 *   request <sha256 of the settings that were resolved>
 *   repository <id> <format> <architecture> <url> <suite> <components> <snapshot> <sha256 of InRelease>
 *   [image]
 *   <name> <version> <architecture> <repository> <size> <sha256> <filename>
 *   [initrd]
 *   [tools]
 *   [build]
 *   [image:<sub-image>]
 *
 * The first three groups are always there; others follow in order of their names. `build` holds what build scripts see
 * beside the packages of their image.
 *
 * A lock comes from anyone who can open a merge request. It cannot name a file outside its repository, and its digests
 * are checked against what is fetched; what it pins is only as trustworthy as its review.
 */
import { digestOf, isSha256, type Sha256 } from '../base/digest.ts'
import { Fault } from '../base/fault.ts'
import { isSafeFilename, timestampOf } from './fetch.ts'
import { shown } from './http.ts'
import type { Package } from './package.ts'
import type { Repository } from './repository.ts'

export interface Lock {
  /** `requestDigest` of what decided this resolution. */
  request: Sha256
  repositories: LockedRepository[]
  /** `image`, `initrd` and `tools`, then `build`, `build:NAME` and `image:NAME` in order of their names. */
  groups: Map<string, Package[]>
}

/** Groups that every lock has, in this order, before any other. */
export const BASE_GROUPS = ['image', 'initrd', 'tools'] as const

/** The packages of a group; none where the lock has no such group. */
export const packagesIn = (lock: Lock, group: string): readonly Package[] => lock.groups.get(group) ?? []

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

export function formatLock(lock: Lock): string {
  const lines = ['bisque-lock 1', `request ${lock.request}`]
  for (const r of [...lock.repositories].sort((a, b) => inOrder(a.id, b.id))) {
    lines.push(
      ['repository', r.id, r.format, r.architecture, r.url, r.suite, r.components.join(',') || '-', r.snapshot, r.digest].join(
        ' ',
      ),
    )
  }
  for (const group of groupsInOrder(lock)) {
    lines.push(`[${group}]`)
    for (const p of [...packagesIn(lock, group)].sort(byName)) {
      lines.push([p.name, p.version, p.architecture, p.repository, p.sizeBytes, p.sha256, p.filename].join(' '))
    }
  }
  return `${lines.join('\n')}\n`
}

/** Parses the text of a lock. `path` names it in the one Fault that lists everything wrong with it. */
export function parseLock(text: string, path: string): Lock {
  if (text.length > MAX_BYTES)
    throw new Fault('format', `Cannot read ${path}: ${text.length} bytes, expected at most ${MAX_BYTES}`)
  const reading: Reading = {
    lock: { request: '', repositories: [], groups: new Map() },
    group: undefined,
    seen: new Set(),
  }
  const problems: string[] = []
  const lines = text.split('\n')
  if (lines.pop() !== '') problems.push(`${path}:${lines.length + 1}:1: expected a line break at the end of the file`)
  for (const [i, line] of lines.entries()) {
    try {
      readLine(reading, line, i + 1)
    } catch (error) {
      if (!(error instanceof Misprint)) throw error
      problems.push(`${path}:${i + 1}:${error.column}: ${error.message}`)
      if (problems.length === MAX_PROBLEMS) break
    }
  }
  const absent = BASE_GROUPS.slice(reading.lock.groups.size)
  if (problems.length === 0 && absent.length > 0)
    problems.push(
      `${path}:${lines.length + 1}:1: expected ${absent.map((group) => `[${group}]`).join(', ')}, got the end of the file`,
    )
  if (problems.length === 0) return reading.lock
  throw new Fault('format', `Cannot read the lock:\n${problems.join('\n')}`, {
    hint: 'restore it from version control, or write it anew: bisque lock --update',
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
  for (const group of new Set([...groupsInOrder(before), ...groupsInOrder(after)])) {
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
  const known = new Set([...lock.groups.values()].flatMap((packages) => packages.map((p) => p.name)))
  const unknown = [...free].filter((name) => !known.has(name))
  if (unknown.length > 0)
    throw new Fault('usage', `Cannot update ${unknown.join(', ')}: not in the lock`, { hint: 'bisque lock --update' })
  if (update === 'all') return new Map()
  const pins = (packages: readonly Package[]) =>
    new Map(packages.filter((p) => !free.has(p.name)).map((p) => [p.name, p.version]))
  return new Map([...lock.groups].map(([group, packages]) => [group, pins(packages)]))
}

const MAX_BYTES = 16 << 20
const MAX_LINE = 4096
const MAX_PROBLEMS = 10
const MAX_GROUPS = 1000

const GROUP = /^\[(image|initrd|tools|build|(?:image|build):[A-Za-z0-9][A-Za-z0-9._-]{0,99})\]$/

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
  lock: Lock
  /** The group whose packages are being read. */
  group: Package[] | undefined
  /** `group name architecture` of every package so far. */
  seen: Set<string>
}

function readLine(reading: Reading, line: string, n: number): void {
  if (line.length > MAX_LINE) throw new Misprint(MAX_LINE, `expected at most ${MAX_LINE} characters in a line`)
  if (n === 1) readVersion(line)
  else if (n === 2) readRequest(reading, line)
  else if (/^(<<<<<<<|=======|>>>>>>>)/.test(line)) throw new Misprint(1, 'unresolved merge conflict')
  else if (line.startsWith('[')) openGroup(reading, line)
  else if (reading.group === undefined) readRepository(reading, line)
  else readPackage(reading, line, reading.group)
}

function readVersion(line: string): void {
  if (line !== 'bisque-lock 1') throw new Misprint(1, `expected "bisque-lock 1", got ${quoted(line)}`)
}

function readRequest(reading: Reading, line: string): void {
  const digest = line.slice('request '.length)
  if (!line.startsWith('request ') || !isSha256(digest))
    throw new Misprint(1, `expected "request" and the SHA-256 of what was asked for, got ${quoted(line)}`)
  reading.lock.request = digest
}

function openGroup(reading: Reading, line: string): void {
  const { groups } = reading.lock
  const base = BASE_GROUPS[groups.size]
  const name = GROUP.exec(line)?.[1]
  const isInOrder = base === undefined ? name !== undefined && isFurther(name, [...groups.keys()].at(-1)!) : name === base
  if (name === undefined || !isInOrder) {
    const expected = base === undefined ? 'no further group, or one further on in order such as [image:NAME]' : `[${base}]`
    throw new Misprint(1, `expected ${expected}, got ${quoted(line)}`)
  }
  if (groups.size === MAX_GROUPS) throw new Misprint(1, `expected at most ${MAX_GROUPS} groups`)
  reading.group = []
  groups.set(name, reading.group)
}

const isBase = (group: string) => (BASE_GROUPS as readonly string[]).includes(group)
const isFurther = (group: string, last: string) => !isBase(group) && (isBase(last) || last < group)

function groupsInOrder(lock: Lock): string[] {
  return [...BASE_GROUPS, ...[...lock.groups.keys()].filter((group) => !isBase(group)).sort(inOrder)]
}

function readRepository({ lock }: Reading, line: string): void {
  if (!line.startsWith('repository ')) throw new Misprint(1, `expected "repository" or [image], got ${quoted(line)}`)
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

function readPackage({ lock, seen }: Reading, line: string, group: Package[]): void {
  const words = wordsOf(line, PACKAGE, 0)
  const [name, version, architecture, repository, size, sha256, filename] = words as Row<7>
  const columnOf = (i: number) => words.slice(0, i).join(' ').length + 2
  if (!lock.repositories.some((r) => r.id === repository))
    throw new Misprint(columnOf(3), `there is no repository "${repository}" above`)
  if (!isSafeFilename(filename)) throw new Misprint(columnOf(6), `${quoted(filename)} is not a path below the repository`)
  const title = [...lock.groups.keys()].at(-1)
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
