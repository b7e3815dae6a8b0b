/** Resolves a recipe's packages against its repositories and writes them down as `bisque.lock`. */
import { readFile, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { digestOf, type Sha256, sha256 } from '../base/digest.ts'
import { Fault } from '../base/fault.ts'
import type { Report } from '../base/report.ts'
import { formatStanzas } from '../formats/deb822.ts'
import { installedStanzas } from '../packages/deb/database.ts'
import { type DebPackage, indexPackages, openIndex, type PackageIndex } from '../packages/deb/index.ts'
import { listingDigest, listPackages, loadLocalRepository } from '../packages/deb/local.ts'
import { type Preference, priorityOf } from '../packages/deb/preferences.ts'
import { type LoadedRepository, loadRepository } from '../packages/deb/repository.ts'
import { resolveDebian } from '../packages/deb/resolve.ts'
import type { Suite } from '../packages/deb/universe.ts'
import {
  BASE_GROUPS,
  diffLocks,
  formatLock,
  type Lock,
  type LockChange,
  lockRepository,
  type Pins,
  parseLock,
  pinTo,
} from '../packages/lock.ts'
import type { Package } from '../packages/package.ts'
import type { Repository } from '../packages/repository.ts'
import type { Recipe } from '../recipe/recipe.ts'
import { archivesOf, DEBIAN_ARCHITECTURES, localRepositories } from './distribution.ts'
import type { Env } from './env.ts'
import { type GroupRequest, groupsOf } from './groups.ts'
import { readAptTrees } from './sandbox-trees.ts'

export const lockPath = (recipe: Recipe): string => join(recipe.directory, 'bisque.lock')

/** What the lock must answer: changes when, and only when, other packages may have to be chosen. */
export function requestOf(recipe: Recipe): string {
  const groups = [...groupsOf(recipe)].map(([name, group]) => {
    const { packages, exclude, later, bases, ...rest } = group
    const last = later === undefined ? {} : { later: asSet(later) }
    return [name, { packages: asSet(packages), exclude: asSet(exclude), ...last, ...upon(bases), ...rest }] as const
  })
  const { distribution, release, architecture, snapshot, repositories, sandboxTrees } = recipe.settings
  const archive = { distribution, release, architecture, snapshot: snapshot ?? null, repositories: asSet(repositories) }
  const { sources, replaceOwn, preferences } = readAptTrees(sandboxTrees)
  const local = localRepositories(recipe).map(({ repository }) => repository.url)
  const places = sources.map(({ url, suite, components, architectures }) => ({ url, suite, components, architectures }))
  const further =
    places.length + preferences.length + local.length === 0 ? {} : { places, replaceOwn, preferences: plain(preferences), local }
  return digestOf({ archive, groups: Object.fromEntries(groups), ...further })
}

/** A value with text where it has patterns and maps. */
const plain = (value: unknown): unknown =>
  JSON.parse(JSON.stringify(value, (_, part) => (part instanceof RegExp ? String(part) : part instanceof Map ? [...part] : part)))

/** What is there in base trees, by what their databases say. */
const upon = (bases: readonly string[] | undefined) =>
  bases === undefined ? {} : { bases: bases.map((folder) => databaseOf(folder)?.digest ?? null) }

/** Order and repetition decide nothing. */
const asSet = (values: readonly string[]): string[] => [...new Set(values)].sort()

export interface LockOptions {
  /** Packages to bring up to date while the others stay, or all of them. Absent: only what the recipe's change asks for. */
  update?: readonly string[] | 'all'
}

export interface LockResult {
  path: string
  lock: Lock
  /** Against the lock there was; empty for a first lock. */
  changes: LockChange[]
  written: boolean
}

/** Reads the lock of a recipe; undefined where there is none. */
export async function loadLock(path: string): Promise<Lock | undefined> {
  let text: string
  try {
    text = await readFile(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
  return parseLock(text, path)
}

/** Resolves and writes the lock. A lock that still answers the recipe is left alone unless an update is asked for. */
export async function lockRecipe(recipe: Recipe, options: LockOptions, env: Env): Promise<LockResult> {
  const path = lockPath(recipe)
  const before = await loadLock(path)
  const request = requestOf(recipe)
  const fits = before?.request === request && (await changedFolders(recipe, before)).length === 0
  if (before !== undefined && fits && options.update === undefined) {
    return { path, lock: before, changes: [], written: false }
  }
  const { settings } = recipe
  const keep = before === undefined ? undefined : pinTo(before, options.update ?? [])
  const { repositories, preferences, notes } = archivesOf(recipe)
  for (const message of notes) env.report.tell({ type: 'note', level: 'info', message })
  const lock = await env.report.step('Lock packages', (report) =>
    resolveLock(
      {
        request,
        repositories,
        preferences,
        groups: groupsOf(recipe),
        keep,
        architecture: DEBIAN_ARCHITECTURES[settings.architecture],
      },
      { ...env, report },
    ),
  )
  await writeLock(path, lock)
  return { path, lock, changes: before === undefined ? [] : diffLocks(before, lock), written: true }
}

/** The lock a build may use: there, and made for this recipe. Never resolves. */
export async function requireLock(recipe: Recipe): Promise<Lock> {
  const path = lockPath(recipe)
  const lock = await loadLock(path)
  if (lock === undefined)
    throw new Fault('missing', `Cannot build: there is no ${path}`, { hint: `bisque lock ${recipe.directory}` })
  if (lock.request !== requestOf(recipe)) {
    throw new Fault('resolve', `Cannot build: ${path} was made for other packages or repositories than the recipe asks for now`, {
      hint: `bisque lock ${recipe.directory}`,
    })
  }
  const [changed] = (await changedFolders(recipe, lock)).filter(({ isVolatile }) => !isVolatile)
  if (changed !== undefined)
    throw new Fault('resolve', `Cannot build: ${path} was made for other packages in ${changed.folder}: ${changed.how}`, {
      hint: `bisque lock ${recipe.directory}`,
    })
  return lock
}

export interface ChangedFolder {
  folder: string
  /** Whether the recipe expects its packages to change (`VolatilePackageDirectories=`). */
  isVolatile: boolean
  /** What differs, for people. */
  how: string
}

/** Package folders of the recipe that hold other files than when the lock was made. */
export async function changedFolders(recipe: Recipe, lock: Lock): Promise<ChangedFolder[]> {
  const found = await Promise.all(
    localRepositories(recipe).map(async ({ repository, isVolatile }) => {
      const files = await listPackages(repository.directory)
      const { id } = repository
      if (lock.repositories.find((r) => r.id === id)?.digest === listingDigest(files)) return []
      const pinned = new Map(
        [...lock.groups.values()].flat().flatMap((p) => (p.repository === id ? [[p.filename, p.sha256]] : [])),
      )
      const now = new Map(files.map((file) => [file.name, file.sha256]))
      const gone = [...pinned.keys()].filter((name) => !now.has(name)).map((name) => `${name} is gone`)
      const other = [...pinned]
        .filter(([name, digest]) => now.has(name) && now.get(name) !== digest)
        .map(([name]) => `${name} changed`)
      const how = [...gone, ...other].join(', ') || 'files came, went or changed of which it pins none'
      return [{ folder: repository.directory, isVolatile, how }]
    }),
  )
  return found.flat()
}

export async function writeLock(path: string, lock: Lock): Promise<void> {
  const temporary = `${path}.${process.pid}.tmp`
  await writeFile(temporary, formatLock(lock))
  await rename(temporary, path)
}

export interface LockRequest {
  request: string
  repositories: readonly Repository[]
  preferences?: readonly Preference[]
  architecture: string
  groups: ReadonlyMap<string, GroupRequest>
  /** Versions to stay at while they are offered. */
  keep?: ReadonlyMap<string, Pins> | undefined
}

export async function resolveLock(wanted: LockRequest, env: Env): Promise<Lock> {
  const loaded = (await loadRepositories(wanted.repositories, env)).map((one) => ranked(one, wanted.preferences ?? []))
  const groups = new Map<string, Package[]>(BASE_GROUPS.map((group) => [group, []]))
  for (const [name, group] of wanted.groups) {
    groups.set(
      name,
      await env.report.step(`Resolve ${name}`, (report) => resolveGroup(name, group, groups, loaded, wanted, report)),
    )
  }
  const repositories = loaded.map(({ repository, release }) => lockRepository(repository, release))
  return { request: wanted.request, repositories, groups }
}

function resolveGroup(
  name: string,
  group: GroupRequest,
  groups: ReadonlyMap<string, readonly Package[]>,
  loaded: readonly (LoadedRepository & Suite)[],
  wanted: LockRequest,
  report: Report,
): Package[] {
  const suites = [...loaded, ...(group.bases ?? []).flatMap((folder) => databaseOf(folder) ?? [])]
  const there = [
    ...(group.upon === undefined ? [] : everything(group.upon, wanted.groups, groups)),
    ...suites.filter(({ repository }) => repository.id === BASE).flatMap(({ index }) => everyPackage(index)),
  ]
  // Packages of the recipe's own folders are as new as the folder is.
  const own = loaded.filter(({ repository }) => repository.directory !== undefined).flatMap(({ index }) => index.names())
  const prefer = new Map([...(wanted.keep?.get(name) ?? [])].filter(([kept]) => !own.includes(kept)))
  try {
    const found = resolveDebian(suites, {
      packages: group.packages,
      ...(group.later ? { later: group.mayBeBuilt ? offered(group.later, suites, name, report) : group.later } : {}),
      exclude: group.exclude,
      recommends: group.recommends,
      withEssential: group.withBase,
      installed: there,
      architecture: wanted.architecture,
      prefer,
    })
    const come = found.packages.filter(
      (p) => !there.some((other) => other.name === p.name && other.architecture === p.architecture),
    )
    report.tell({ type: 'progress', done: come.length, unit: 'packages' })
    return come.map(({ name, version, architecture, repository, filename, sizeBytes, sha256 }) => ({
      name,
      version,
      architecture,
      repository,
      filename,
      sizeBytes,
      sha256,
    }))
  } catch (error) {
    if (!(error instanceof Fault) || error.code !== 'resolve' || name === 'image') throw error
    if (group.optional) {
      report.tell({ type: 'note', level: 'info', message: `[${name}] is left empty: ${error.message}` })
      return []
    }
    throw new Fault('resolve', `In [${name}]: ${error.message}`, error.hint === undefined ? {} : { hint: error.hint })
  }
}

/** Without names that no repository has: build scripts are to make these packages. */
function offered(names: readonly string[], suites: readonly Suite[], group: string, report: Report): string[] {
  const isThere = (name: string) =>
    !/^[A-Za-z0-9][A-Za-z0-9+._-]*$/.test(name) ||
    suites.some(({ index }) => index.versions(name).length + index.providers(name).length > 0)
  const absent = names.filter((name) => !isThere(name))
  if (absent.length > 0)
    report.tell({
      type: 'note',
      level: 'info',
      message: `[${group}] leaves ${absent.join(', ')} to build scripts: no repository has it`,
    })
  return names.filter(isThere)
}

/** The packages of base trees, as a suite whose packages cost nothing and are never fetched. */
const BASE = 'base tree'

function databaseOf(folder: string): (Suite & { digest: Sha256 }) | undefined {
  const stanzas = installedStanzas(folder)
  if (stanzas.length === 0) return undefined
  const nowhere = { Filename: 'none', Size: '0', SHA256: '0'.repeat(64) }
  const text = Buffer.from(formatStanzas(stanzas.map((stanza) => new Map([...stanza, ...Object.entries(nowhere)]))))
  const index = openIndex(indexPackages(text, `packages of ${folder}`))
  return { repository: { id: BASE, suite: BASE, priority: 100 }, index, digest: sha256(text) }
}

const everyPackage = (index: PackageIndex): DebPackage[] =>
  index.names().flatMap((name) => index.versions(name).map(index.record))

/** A repository with what preferences say of its packages. */
function ranked(loaded: LoadedRepository, preferences: readonly Preference[]): LoadedRepository & Suite {
  if (preferences.length === 0) return loaded
  const { repository, release } = loaded
  const { suite: a, codename: n, origin: o, label: l, version: v } = release
  const component = repository.components.length === 1 ? { c: repository.components[0]! } : {}
  const pinned = preferences.find(({ pin }) => pin.is === 'release' && pin.fields.has('c'))
  if (pinned !== undefined && repository.components.length > 1)
    throw new Fault(
      'recipe',
      `Cannot tell packages of ${repository.url} ${repository.suite} by component, as a preference asks for`,
      {
        hint: 'give each of its components a source of its own',
      },
    )
  const host = repository.directory === undefined ? new URL(repository.url).hostname : ''
  return { ...loaded, priorityOf: (p) => priorityOf(preferences, p, { host, release: { a, n, o, l, v, ...component } }) }
}

/** The packages of a group and of all it builds upon. */
function everything(
  name: string,
  requests: ReadonlyMap<string, GroupRequest>,
  groups: ReadonlyMap<string, readonly Package[]>,
): Package[] {
  const upon = requests.get(name)?.upon
  return [...(upon === undefined ? [] : everything(upon, requests, groups)), ...(groups.get(name) ?? [])]
}

const loadRepositories = (repositories: readonly Repository[], env: Env): Promise<LoadedRepository[]> =>
  env.report.step('Read repositories', (report) =>
    Promise.all(
      repositories.map((repository) =>
        repository.directory === undefined
          ? loadRepository(
              repository,
              { store: env.store, now: env.now, offline: env.offline, ...(env.network ? { network: env.network } : {}) },
              report,
            )
          : loadLocalRepository(repository, env.store),
      ),
    ),
  )
