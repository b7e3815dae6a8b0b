import { merge, object } from '@optique/core/constructs'
import { message } from '@optique/core/message'
import { multiple } from '@optique/core/modifiers'
import { argument, command, constant } from '@optique/core/primitives'
import { string } from '@optique/core/valueparser'
import { formatLockChange, type LockChange } from '../../packages/lock.ts'
import { examples, offlineOption, recipeOptions, toggle } from '../options.ts'
import { openEnv, type Run } from '../session.ts'
import { shownPath } from '../shown.ts'

export const parser = command(
  'lock',
  merge(
    object({ verb: constant('lock') }),
    recipeOptions,
    object({
      update: toggle('--update', message`Resolve anew: all packages, or only those named after the recipe.`),
      packages: multiple(
        argument(string({ metavar: 'PACKAGE' }), {
          description: message`With --update: packages to take the newest version of.`,
        }),
      ),
      offline: offlineOption,
    }),
  ),
  {
    brief: message`Resolve packages and write bisque.lock`,
    description: message`Resolve the recipe's packages and pin each by version, size and SHA-256 in bisque.lock beside it. A lock that still fits the recipe is left alone, and so are those of other profiles in the same file.`,
    footer: examples(
      ['bisque lock', 'write bisque.lock for the recipe in this folder'],
      ['bisque lock --profile desktop', 'write the packages of a profile beside those of others'],
      ['bisque lock --update', 'take the newest version of everything'],
      ['bisque lock . --update openssl libssl3t64', 'take the newest version of two packages'],
    ),
  },
)

export interface LockVerbOptions {
  recipe: string
  profiles: readonly string[]
  set: readonly string[]
  update: boolean
  packages: readonly string[]
  offline: boolean
}

export const run: Run<LockVerbOptions> = async (options, session) => {
  const { Fault } = await import('../../base/fault.ts')
  if (options.packages.length > 0 && !options.update) {
    throw new Fault('usage', `Cannot lock: "${options.packages[0]}" is a package to update, but --update is not given`, {
      hint: `bisque lock ${options.recipe} --update ${options.packages.join(' ')}`,
    })
  }
  const { loadRecipe } = await import('../../recipe/recipe.ts')
  const recipe = await loadRecipe(options.recipe, { profiles: options.profiles, set: options.set, env: session.environment })
  const { lockRecipe } = await import('../../build/lock.ts')
  const update = options.update ? (options.packages.length > 0 ? options.packages : ('all' as const)) : undefined
  const env = await openEnv(session, options)
  const { path, lock, changes, written } = await lockRecipe(recipe, update === undefined ? {} : { update }, env)
  const counts = Object.fromEntries([...lock.groups].map(([group, { packages }]) => [group, packages.length]))
  const text = [
    ...changeLines(changes),
    `${written ? 'Wrote' : 'Nothing to change in'} ${shownPath(path)}`,
    ...Object.entries(counts).map(([group, n]) => `  ${titleOf(group)} ${n === 1 ? '1 package' : `${n} packages`}`),
  ].join('\n')
  return { result: { path, written, counts, changes }, text }
}

function changeLines(changes: readonly LockChange[]): string[] {
  const lines: string[] = []
  for (const [i, change] of changes.entries()) {
    if (change.group !== changes[i - 1]?.group) lines.push(`${titleOf(change.group)}:`)
    lines.push(`  ${formatLockChange(change)}`)
  }
  return lines
}

/** What a group of the lock is to people: `image`, the name of a sub-image, `build scripts of base`. */
function titleOf(group: string): string {
  const [kind, name] = group.split(':')
  if (kind === 'build') return name === undefined ? 'build scripts' : `build scripts of ${name}`
  return name ?? group
}
