/** What each group of a recipe's lock must answer: its digest changes when, and only when, other packages may have to be chosen. */
import type { Sha256 } from '../base/digest.ts'
import { requestDigest } from '../packages/lock.ts'
import type { Recipe } from '../recipe/recipe.ts'
import { localRepositories } from './distribution.ts'
import { type GroupRequest, groupsOf } from './groups.ts'
import { databaseOf } from './resolve.ts'
import { readAptTrees } from './sandbox-trees.ts'

/** The digest of what is asked for, by group of the lock. */
export function requestsOf(recipe: Recipe): Map<string, Sha256> {
  const archive = archiveOf(recipe)
  const requests = new Map<string, Sha256>()
  for (const [name, group] of groupsOf(recipe)) {
    // A group asks for something else once what it builds upon does.
    const upon = group.upon === undefined ? {} : { upon: requests.get(group.upon) }
    requests.set(name, requestDigest({ archive, group: { ...plainGroup(group), ...upon } }))
  }
  return requests
}

function plainGroup({ packages, exclude, later, bases, ...rest }: GroupRequest) {
  return {
    ...rest,
    packages: asSet(packages),
    exclude: asSet(exclude),
    ...(later === undefined ? {} : { later: asSet(later) }),
    // what is there in base trees, by what their databases say
    ...(bases === undefined ? {} : { bases: bases.map((folder) => databaseOf(folder)?.digest ?? null) }),
  }
}

/** Where packages come from. Which mirror it is decides nothing. */
function archiveOf(recipe: Recipe) {
  const { distribution, release, architecture, snapshot, repositories, sandboxTrees } = recipe.settings
  const { sources, replaceOwn, preferences } = readAptTrees(sandboxTrees)
  const local = localRepositories(recipe).map(({ repository }) => repository.url)
  const places = sources.map(({ url, suite, components, architectures }) => ({ url, suite, components, architectures }))
  const further =
    places.length + preferences.length + local.length === 0 ? {} : { places, replaceOwn, preferences: plain(preferences), local }
  return { distribution, release, architecture, snapshot: snapshot ?? null, repositories: asSet(repositories), ...further }
}

/** A value with text where it has patterns and maps. */
const plain = (value: unknown): unknown =>
  JSON.parse(JSON.stringify(value, (_, part) => (part instanceof RegExp ? String(part) : part instanceof Map ? [...part] : part)))

/** Order and repetition decide nothing. */
const asSet = (values: readonly string[]): string[] => [...new Set(values)].sort()
