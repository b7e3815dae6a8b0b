/** From what a lock is to answer to packages: repositories are read, and every group is resolved against them. */
import { type Sha256, sha256 } from '../base/digest.ts'
import { Fault } from '../base/fault.ts'
import type { Report } from '../base/report.ts'
import { formatStanzas } from '../formats/deb822.ts'
import { installedStanzas } from '../packages/deb/database.ts'
import { type DebPackage, indexPackages, openIndex, type PackageIndex } from '../packages/deb/index.ts'
import { loadLocalRepository } from '../packages/deb/local.ts'
import { type Preference, priorityOf } from '../packages/deb/preferences.ts'
import { type LoadedRepository, loadRepository } from '../packages/deb/repository.ts'
import { resolveDebian } from '../packages/deb/resolve.ts'
import type { Suite } from '../packages/deb/universe.ts'
import { inLockOrder, type Lock, lockRepository, type Pins } from '../packages/lock.ts'
import type { Package } from '../packages/package.ts'
import type { Repository } from '../packages/repository.ts'
import type { Env } from './env.ts'
import type { GroupRequest } from './groups.ts'

export interface LockRequest {
  repositories: readonly Repository[]
  preferences?: readonly Preference[]
  architecture: string
  groups: ReadonlyMap<string, GroupRequest>
  /** The digest of what each group asks for. */
  requests: ReadonlyMap<string, Sha256>
  /** Versions to stay at while they are offered. */
  keep?: ReadonlyMap<string, Pins> | undefined
}

export async function resolveLock(wanted: LockRequest, env: Env): Promise<Lock> {
  const loaded = (await loadRepositories(wanted.repositories, env)).map((one) => ranked(one, wanted.preferences ?? []))
  const groups = new Map<string, Package[]>()
  for (const [name, group] of wanted.groups) {
    groups.set(
      name,
      await env.report.step(`Resolve ${name}`, (report) => resolveGroup(name, group, groups, loaded, wanted, report)),
    )
  }
  const answers = [...groups].map(([name, packages]) => [name, { request: wanted.requests.get(name)!, packages }] as const)
  const repositories = loaded.map(({ repository, release }) => lockRepository(repository, release))
  return inLockOrder({ repositories, groups: new Map(answers) })
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

const BASE = 'base tree'

/** The packages of a base tree, as a suite whose packages cost nothing and are never fetched. */
export function databaseOf(folder: string): (Suite & { digest: Sha256 }) | undefined {
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
