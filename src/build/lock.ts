/** Resolves a recipe's packages against its repositories and writes them down as `bisque.lock`. */
import { readFile, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { digestOf } from '../base/digest.ts'
import { Fault } from '../base/fault.ts'
import type { Report } from '../base/report.ts'
import { type LoadedRepository, loadRepository } from '../packages/deb/repository.ts'
import { resolveDebian } from '../packages/deb/resolve.ts'
import { diffLocks, formatLock, type Lock, type LockChange, lockRepository, parseLock, pinTo } from '../packages/lock.ts'
import type { Package } from '../packages/package.ts'
import type { Repository } from '../packages/repository.ts'
import { type Recipe, requestDigest } from '../recipe/recipe.ts'
import { DEBIAN_ARCHITECTURES, initrdPackagesOf, repositoriesOf } from './distribution.ts'
import type { Env } from './env.ts'

export const lockPath = (recipe: Recipe): string => join(recipe.directory, 'bisque.lock')

/** What the lock must answer: changes when, and only when, other packages may have to be chosen. */
export const requestOf = (recipe: Recipe): string =>
  digestOf({ settings: requestDigest(recipe), initrd: initrdPackagesOf(recipe.settings) })

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
  const groups = {
    image: { packages: settings.packages, exclude: settings.removePackages, recommends: settings.withRecommends },
    initrd: { packages: initrdPackagesOf(settings), recommends: false },
    tools: { packages: settings.toolsTreePackages, recommends: false, withEssential: false },
  }
  const keep = before === undefined ? undefined : pinTo(before, options.update ?? [])
  const lock = await env.report.step('Lock packages', (report) =>
    resolveLock(
      {
        request,
        repositories: repositoriesOf(settings),
        groups,
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

interface Group {
  packages: readonly string[]
  exclude?: readonly string[]
  recommends: boolean
  withEssential?: boolean
}

export interface LockRequest {
  request: string
  repositories: readonly Repository[]
  architecture: string
  groups: Readonly<Record<'image' | 'initrd' | 'tools', Group>>
  /** Versions to stay at while they are offered. */
  keep?: ReturnType<typeof pinTo> | undefined
}

export async function resolveLock(wanted: LockRequest, env: Env): Promise<Lock> {
  const loaded = await loadRepositories(wanted.repositories, env)
  const resolve = (name: 'image' | 'initrd' | 'tools', report: Report): Package[] => {
    const group = wanted.groups[name]
    if (group.packages.length === 0 && group.withEssential === false) return []
    const found = resolveDebian(loaded, {
      ...group,
      architecture: wanted.architecture,
      ...(wanted.keep ? { prefer: wanted.keep[name] } : {}),
    })
    report.tell({ type: 'progress', done: found.packages.length, unit: 'packages' })
    return found.packages.map(({ name, version, architecture, repository, filename, sizeBytes, sha256 }) => ({
      name,
      version,
      architecture,
      repository,
      filename,
      sizeBytes,
      sha256,
    }))
  }
  const [image, initrd, tools] = [
    await env.report.step('Resolve image', (report) => resolve('image', report)),
    await env.report.step('Resolve initrd', (report) => resolve('initrd', report)),
    resolve('tools', env.report),
  ]
  return {
    request: wanted.request,
    repositories: loaded.map(({ repository, release }) => lockRepository(repository, release)),
    image,
    initrd,
    tools,
  }
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
