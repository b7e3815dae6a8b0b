/** Resolves a recipe's packages against its repositories and writes them down as `bisque.lock`. */
import { readFile, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { digestOf } from '../base/digest.ts'
import { Fault } from '../base/fault.ts'
import type { Report } from '../base/report.ts'
import { type LoadedRepository, loadRepository } from '../packages/deb/repository.ts'
import { resolveDebian } from '../packages/deb/resolve.ts'
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
import { DEBIAN_ARCHITECTURES, repositoriesOf } from './distribution.ts'
import type { Env } from './env.ts'
import { type GroupRequest, groupsOf } from './groups.ts'

export const lockPath = (recipe: Recipe): string => join(recipe.directory, 'bisque.lock')

/** What the lock must answer: changes when, and only when, other packages may have to be chosen. */
export function requestOf(recipe: Recipe): string {
  const groups = [...groupsOf(recipe)].map(([name, group]) => {
    const { packages, exclude, ...rest } = group
    return [name, { packages: asSet(packages), exclude: asSet(exclude), ...rest }] as const
  })
  const { distribution, release, architecture, snapshot, repositories } = recipe.settings
  const archive = { distribution, release, architecture, snapshot: snapshot ?? null, repositories: asSet(repositories) }
  return digestOf({ archive, groups: Object.fromEntries(groups) })
}

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
  if (before !== undefined && before.request === request && options.update === undefined) {
    return { path, lock: before, changes: [], written: false }
  }
  const { settings } = recipe
  const keep = before === undefined ? undefined : pinTo(before, options.update ?? [])
  const lock = await env.report.step('Lock packages', (report) =>
    resolveLock(
      {
        request,
        repositories: repositoriesOf(settings),
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
  return lock
}

export async function writeLock(path: string, lock: Lock): Promise<void> {
  const temporary = `${path}.${process.pid}.tmp`
  await writeFile(temporary, formatLock(lock))
  await rename(temporary, path)
}

export interface LockRequest {
  request: string
  repositories: readonly Repository[]
  architecture: string
  groups: ReadonlyMap<string, GroupRequest>
  /** Versions to stay at while they are offered. */
  keep?: ReadonlyMap<string, Pins> | undefined
}

export async function resolveLock(wanted: LockRequest, env: Env): Promise<Lock> {
  const loaded = await loadRepositories(wanted.repositories, env)
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
  loaded: readonly LoadedRepository[],
  wanted: LockRequest,
  report: Report,
): Package[] {
  const there = group.upon === undefined ? [] : everything(group.upon, wanted.groups, groups)
  const prefer = wanted.keep?.get(name)
  try {
    const found = resolveDebian(loaded, {
      packages: group.packages,
      exclude: group.exclude,
      recommends: group.recommends,
      withEssential: group.withBase,
      installed: there,
      architecture: wanted.architecture,
      ...(prefer ? { prefer } : {}),
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
    throw new Fault('resolve', `In [${name}]: ${error.message}`, error.hint === undefined ? {} : { hint: error.hint })
  }
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
        loadRepository(
          repository,
          { store: env.store, now: env.now, offline: env.offline, ...(env.network ? { network: env.network } : {}) },
          report,
        ),
      ),
    ),
  )
