/** From a recipe to the packages its lock pins, fetched and verified. */
import { fetchPackages, isSuperseded, supersededBy } from '../packages/fetch.ts'
import { allPackages, formatLockChange, type Lock, snapshotsOf } from '../packages/lock.ts'
import type { FetchedPackage } from '../packages/package.ts'
import type { Recipe } from '../recipe/recipe.ts'
import { repositoriesOf } from './distribution.ts'
import type { Env } from './env.ts'
import { buildGroupOf, groupOf } from './groups.ts'
import { type ChangedFolder, changedFolders, loadLocks, lockAmong, lockPath, lockRecipe, requireLock } from './lock.ts'
import { requestsOf } from './requests.ts'

/** Packages by group of the lock. */
export type LockedPackages = ReadonlyMap<string, readonly FetchedPackage[]>

/** What an image is installed from, by its name in the recipe: `main`, `default-initrd`, a sub-image's. */
export const packagesOf = (locked: LockedPackages, image: string): readonly FetchedPackage[] => locked.get(groupOf(image)) ?? []

/** What the build scripts of an image see beside its packages. */
export const buildPackagesOf = (locked: LockedPackages, image: string): readonly FetchedPackage[] =>
  locked.get(buildGroupOf(image)) ?? []

/**
 * The recipe's lock. A first build of the recipe, or of profiles with packages of their own, writes it, as a step of its own;
 * a lock made for another request is a Fault.
 */
export async function lockFor(recipe: Recipe, env: Env): Promise<Lock> {
  const locks = await loadLocks(lockPath(recipe))
  if (locks !== undefined && lockAmong(locks, recipe, requestsOf(recipe)) !== undefined) {
    const lock = await requireLock(recipe)
    const changed = await changedFolders(recipe, lock)
    return changed.length === 0 ? lock : renewed(recipe, changed, env)
  }
  const { lock, path } = await lockRecipe(recipe, {}, env)
  env.report.tell({ type: 'note', level: 'info', message: `wrote ${path}: commit it, and the next build uses the same packages` })
  return lock
}

/** A lock whose volatile packages were built anew since. */
async function renewed(recipe: Recipe, changed: readonly ChangedFolder[], env: Env): Promise<Lock> {
  const { lock, path, changes } = await lockRecipe(recipe, {}, env)
  const folders = changed.map(({ folder }) => folder).join(', ')
  const what = changes.map((change) => formatLockChange(change).trim()).join(', ') || 'no package is another'
  env.report.tell({ type: 'note', level: 'info', message: `${folders} changed; updated ${path}: ${what}` })
  return lock
}

export async function fetchLocked(
  recipe: Recipe,
  lock: Lock,
  options: { relock: boolean },
  env: Env,
): Promise<{ lock: Lock; packages: LockedPackages }> {
  try {
    return { lock, packages: await fetchGroups(recipe, lock, env) }
  } catch (error) {
    if (!options.relock || !isSuperseded(error)) throw error
    const gone = supersededBy(error).map((id) => id.split(' ')[0]!)
    const renewed = await lockRecipe(recipe, { update: [...new Set(gone)] }, env)
    const message = `the mirror dropped ${gone.join(', ')}; updated ${renewed.path}`
    env.report.tell({ type: 'note', level: 'warning', message })
    return { lock: renewed.lock, packages: await fetchGroups(recipe, renewed.lock, env) }
  }
}

function fetchGroups(recipe: Recipe, lock: Lock, env: Env): Promise<LockedPackages> {
  const all = allPackages(lock)
  return env.report.step('Fetch packages', async (report) => {
    const fetched = await fetchPackages(
      all,
      repositoriesOf(recipe),
      { store: env.store, offline: env.offline, snapshots: snapshotsOf(lock), ...(env.network ? { network: env.network } : {}) },
      report,
    )
    const rest = [...fetched]
    return new Map([...lock.groups].map(([group, { packages }]) => [group, rest.splice(0, packages.length)]))
  })
}
