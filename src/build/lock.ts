/** The lock of a recipe in `bisque.lock`: read, checked against what the recipe asks for, and written. */
import { readFile, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Sha256 } from '../base/digest.ts'
import { Fault } from '../base/fault.ts'
import { listingDigest, listPackages } from '../packages/deb/local.ts'
import {
  allPackages,
  diffLocks,
  formatLocks,
  type Lock,
  type LockChange,
  type Locks,
  lockName,
  narrowed,
  parseLocks,
  pinTo,
  profilesNamed,
  unanswered,
} from '../packages/lock.ts'
import type { Recipe } from '../recipe/recipe.ts'
import { archivesOf, DEBIAN_ARCHITECTURES, localRepositories } from './distribution.ts'
import type { Env } from './env.ts'
import { groupsOf } from './groups.ts'
import { kernelless } from './kernelless.ts'
import { requestsOf } from './requests.ts'
import { resolveLock } from './resolve.ts'

export const lockPath = (recipe: Recipe): string => join(recipe.directory, 'bisque.lock')

export interface LockOptions {
  /** Packages to bring up to date while the others stay, or all of them. Absent: only what the recipe's change asks for. */
  update?: readonly string[] | 'all'
}

export interface LockResult {
  path: string
  /** With the groups that the recipe asks for. */
  lock: Lock
  /** Against the lock there was; empty for a first lock. */
  changes: LockChange[]
  written: boolean
}

/** Reads a lock file; undefined where there is none. */
export async function loadLocks(path: string): Promise<Locks | undefined> {
  let text: string
  try {
    text = await readFile(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
  return parseLocks(text, path)
}

/**
 * The lock in a file that a recipe with these requests is built from: the one of its profiles; where they have none, another
 * that answers all the same, as profiles often leave the packages alone.
 */
export const lockAmong = (locks: Locks, recipe: Recipe, requests: ReadonlyMap<string, Sha256>): Lock | undefined =>
  locks.get(lockName(recipe.profiles)) ?? [...locks.values()].find((lock) => unanswered(lock, requests).length === 0)

/**
 * Resolves and writes the lock of a recipe and its profiles; those of other profiles are left as they are. A lock that still
 * answers is left alone, too, unless an update is asked for.
 */
export async function lockRecipe(recipe: Recipe, options: LockOptions, env: Env): Promise<LockResult> {
  const path = lockPath(recipe)
  const locks = (await loadLocks(path)) ?? new Map<string, Lock>()
  const requests = requestsOf(recipe)
  const wanted = new Set(requests.keys())
  const there = lockAmong(locks, recipe, requests)
  const { repositories, preferences, notes } = archivesOf(recipe)
  for (const message of notes) env.report.tell({ type: 'note', level: 'info', message })
  if (there !== undefined && options.update === undefined && (await answers(recipe, there, requests))) {
    warnOfKernelless(recipe, there, env)
    return { path, lock: narrowed(there, wanted), changes: [], written: false }
  }
  const name = lockName(recipe.profiles)
  // Packages that other profiles have, too, are of the versions that they have.
  const before = there ?? [...locks.values()][0]
  const lock = await env.report.step('Lock packages', (report) =>
    resolveLock(
      {
        repositories,
        preferences,
        groups: groupsOf(recipe),
        requests,
        keep: before === undefined ? undefined : pinTo(before, options.update ?? []),
        architecture: DEBIAN_ARCHITECTURES[recipe.settings.architecture],
      },
      { ...env, report },
    ),
  )
  await writeLocks(path, new Map([...kept(locks, recipe, options, env), [name, lock]]))
  warnOfKernelless(recipe, lock, env)
  const changes = before === undefined ? [] : diffLocks(locks.get(name) ?? narrowed(before, wanted), lock)
  return { path, lock, changes, written: true }
}

const answers = async (recipe: Recipe, lock: Lock, requests: ReadonlyMap<string, Sha256>): Promise<boolean> =>
  unanswered(lock, requests).length === 0 && (await changedFolders(recipe, lock)).length === 0

/** The locks of a file that stay: an update of everything drops those of profiles that the recipe has no more. */
function kept(locks: Locks, { knownProfiles }: Recipe, { update }: LockOptions, { report }: Env): [string, Lock][] {
  if (update !== 'all') return [...locks]
  return [...locks].filter(([name]) => {
    const gone = profilesNamed(name).filter((profile) => !knownProfiles.includes(profile))
    if (gone.length > 0)
      report.tell({ type: 'note', level: 'info', message: `dropped the lock of ${name}: the recipe has no profile ${gone[0]}` })
    return gone.length === 0
  })
}

function warnOfKernelless(recipe: Recipe, lock: Lock, { report }: Env): void {
  for (const { image, group } of kernelless(recipe, lock)) {
    const title = image === 'main' ? 'the image' : image
    const message = `no package of [${group}] is a kernel, which ${title} needs to boot: add one such as linux-image-amd64`
    report.tell({ type: 'note', level: 'warning', message })
  }
}

/** The lock a build may use: there, and made for this recipe. Never resolves. */
export async function requireLock(recipe: Recipe): Promise<Lock> {
  const path = lockPath(recipe)
  const locks = await loadLocks(path)
  const hint = ['bisque lock', recipe.directory, ...new Set(recipe.profiles.map((profile) => `--profile ${profile}`))].join(' ')
  if (locks === undefined) throw new Fault('missing', `Cannot build: there is no ${path}`, { hint })
  const requests = requestsOf(recipe)
  const lock = lockAmong(locks, recipe, requests)
  if (lock === undefined) {
    const profiles = recipe.profiles.length === 0 ? 'the recipe without profiles' : `profile ${recipe.profiles.join(', ')}`
    throw new Fault('missing', `Cannot build: ${path} has no packages for ${profiles}`, { hint })
  }
  const open = unanswered(lock, requests).map((group) => `[${group}]`)
  if (open.length > 0) {
    const wanted = `packages or repositories than the recipe asks for now in ${open.join(', ')}`
    throw new Fault('resolve', `Cannot build: ${path} was made for other ${wanted}`, { hint })
  }
  const [changed] = (await changedFolders(recipe, lock)).filter(({ isVolatile }) => !isVolatile)
  if (changed !== undefined)
    throw new Fault('resolve', `Cannot build: ${path} was made for other packages in ${changed.folder}: ${changed.how}`, { hint })
  return narrowed(lock, new Set(requests.keys()))
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
      const pinned = new Map(allPackages(lock).flatMap((p) => (p.repository === id ? [[p.filename, p.sha256]] : [])))
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

export async function writeLocks(path: string, locks: Locks): Promise<void> {
  const temporary = `${path}.${process.pid}.tmp`
  await writeFile(temporary, formatLocks(locks))
  await rename(temporary, path)
}
