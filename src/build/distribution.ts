/** What a recipe's distribution means: its repositories, and what prefers one to another. */
import { basename, relative } from 'node:path'
import { type DebianOptions, debianRepositories } from '../packages/deb/debian.ts'
import type { Preference } from '../packages/deb/preferences.ts'
import type { Repository } from '../packages/repository.ts'
import type { Recipe } from '../recipe/recipe.ts'
import { readAptTrees } from './sandbox-trees.ts'

/** The distribution's word for an architecture. */
export const DEBIAN_ARCHITECTURES = { 'x86-64': 'amd64' } as const

/** Where a recipe's packages come from, and what prefers one to another. */
export interface Archives {
  repositories: Repository[]
  preferences: readonly Preference[]
  /** What has no effect, for the report. */
  notes: readonly string[]
}

export function archivesOf(recipe: Recipe): Archives {
  const { settings } = recipe
  const { sources, replaceOwn, preferences, allowExpired, notes } = readAptTrees(settings.sandboxTrees)
  const own = replaceOwn ? [] : ownRepositories(recipe)
  const ids = new Set(own.map((repository) => repository.id))
  const architecture = DEBIAN_ARCHITECTURES[settings.architecture]
  const added = sources
    .filter((source) => source.architectures.length === 0 || source.architectures.includes(architecture))
    .map(({ name, url, suite, components, keyring, checkValidUntil }): Repository => {
      const expired = checkValidUntil ? {} : { allowExpired: true }
      return { id: freeId(name, ids), format: 'deb', url, suite, components, architecture, keyring, priority: 500, ...expired }
    })
  const local = localRepositories(recipe, ids).map(({ repository }) => repository)
  const mayExpire = settings.allowExpired || allowExpired
  const repositories = [...own, ...added, ...local].map((r) => (mayExpire ? { ...r, allowExpired: true } : r))
  return { repositories, preferences, notes }
}

export const repositoriesOf = (recipe: Recipe): Repository[] => archivesOf(recipe).repositories

/** The distribution's repositories, without those for debugging symbols. */
function ownRepositories(recipe: Recipe): Repository[] {
  const { release, architecture, repositories: components, mirror, snapshot } = recipe.settings
  const options: DebianOptions = {
    release,
    architecture: DEBIAN_ARCHITECTURES[architecture],
    components: [...new Set(['main', ...components])],
  }
  if (isFolder(recipe)) return mirrored(options, mirror?.replace(/\/+$/, ''), snapshot)
  const repositories = debianRepositories({ ...options, ...(mirror === undefined ? {} : { mirror }) })
  if (snapshot === undefined) return repositories
  // A snapshot stands still: its metadata is as valid as on its day, for ever.
  return repositories.map((r) => ({ ...r, url: r.snapshotUrl!.replace('{timestamp}', snapshot), allowExpired: true }))
}

/** In mkosi's words a mirror is a server, with the archives in folders of their usual names. */
function mirrored(options: DebianOptions, mirror: string | undefined, snapshot: string | undefined): Repository[] {
  const places = mirror === undefined ? {} : { mirror: `${mirror}/debian`, securityMirror: `${mirror}/debian-security` }
  if (snapshot === undefined) return debianRepositories({ ...options, ...places })
  return debianRepositories({ ...options, updates: false }).map((r) => {
    const url = r.snapshotUrl!.replace('{timestamp}', snapshot)
    return { ...r, url: mirror === undefined ? url : url.replace(/^https:\/\/[^/]+/, mirror), allowExpired: true }
  })
}

/** Folders of packages of the recipe's own; they win over all that others offer. */
export function localRepositories(
  recipe: Recipe,
  taken: Set<string> = new Set(),
): { repository: Repository & { directory: string }; isVolatile: boolean }[] {
  const { packageDirectories, volatilePackageDirectories, architecture } = recipe.settings
  const folders = new Map([
    ...volatilePackageDirectories.map((directory) => [directory, true] as const),
    ...packageDirectories.map((directory) => [directory, false] as const),
  ])
  return [...folders].map(([directory, isVolatile]) => ({
    repository: {
      id: freeId(basename(directory), taken),
      format: 'deb',
      url: `file:${encodeURI(relative(recipe.directory, directory)) || '.'}`,
      suite: '/',
      components: [],
      architecture: DEBIAN_ARCHITECTURES[architecture],
      keyring: new Uint8Array(0),
      priority: 1100,
      directory,
    },
    isVolatile,
  }))
}

/** A short name for a repository, of the characters that the lock has for it, that no other has. */
function freeId(name: string, taken: Set<string>): string {
  const plain =
    name
      .replace(/[^A-Za-z0-9._-]+/g, '-')
      .replace(/^[^A-Za-z0-9]+/, '')
      .slice(0, 80) || 'repository'
  let id = plain
  for (let n = 2; taken.has(id); n++) id = `${plain}-${n}`
  taken.add(id)
  return id
}

/** Whether a recipe is a folder in mkosi's format. */
export const isFolder = (recipe: Pick<Recipe, 'file'>): boolean => basename(recipe.file) === 'mkosi.conf'
