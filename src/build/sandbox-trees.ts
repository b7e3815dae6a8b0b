/** What apt would read from the sandbox trees of a recipe: sources with their keys, preferences, configuration. */
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join, normalize } from 'node:path'
import { Fault } from '../base/fault.ts'
import { parseAptConf } from '../packages/deb/apt-conf.ts'
import { debianKeyring } from '../packages/deb/debian.ts'
import { type Preference, parsePreferences } from '../packages/deb/preferences.ts'
import { joinKeyrings } from '../packages/deb/signature.ts'
import { parseSources, type Source } from '../packages/deb/sources.ts'
import type { TreeSource } from '../recipe/file-type.ts'

export interface AptTrees {
  /** Each with the keys that may sign it. */
  sources: (Source & { name: string; keyring: Uint8Array })[]
  /** Whether these take the place of the distribution's own repositories. */
  replaceOwn: boolean
  preferences: Preference[]
  /** `Acquire::Check-Valid-Until "false"` */
  allowExpired: boolean
  /** What has no effect, for the report. */
  notes: string[]
}

export function readAptTrees(trees: readonly TreeSource[]): AptTrees {
  const found: AptTrees = { sources: [], replaceOwn: false, preferences: [], allowExpired: false, notes: [] }
  const files = filesOf(trees)
  for (const [path, file] of files
    .in('/etc/apt/sources.list.d', /^[\w.-]+\.(list|sources)$/)
    .concat(files.at('/etc/apt/sources.list'))) {
    const { sources, notes } = parseSources(textOf(file), path)
    const name = path.replace(/.*\//, '').replace(/\.[a-z]+$/, '')
    found.sources.push(...sources.map((source) => ({ ...source, name, keyring: keyringOf(source, files) })))
    found.notes.push(...notes)
    // mkosi writes its own file of this name only where there is none.
    if (path === '/etc/apt/sources.list.d/mkosi.sources') found.replaceOwn = true
  }
  const preferences = [...files.at('/etc/apt/preferences'), ...files.in('/etc/apt/preferences.d', /^[\w-]+(\.pref)?$/)]
  for (const [path, file] of preferences) found.preferences.push(...parsePreferences(textOf(file), path))
  for (const [path, file] of [...files.in('/etc/apt/apt.conf.d', /^[\w-]+(\.conf)?$/), ...files.at('/etc/apt/apt.conf')])
    readConf(parseAptConf(textOf(file), path), path, found)
  return found
}

function readConf(options: readonly [string, string][], path: string, found: AptTrees): void {
  for (const [name, value] of options) {
    const key = name.toLowerCase().replace(/::$/, '')
    if (key === 'acquire::check-valid-until') {
      found.allowExpired = /^(no|false|without|off|disable|0)$/i.test(value)
      if (found.allowExpired) found.notes.push(`${path}: metadata past its Valid-Until is accepted`)
    } else if (key === 'apt::install-recommends') found.notes.push(`${path}: ${name} without effect: WithRecommends= decides`)
    else found.notes.push(`${path}: ${name} without effect`)
  }
}

/** A file of the host, by the path it has in the trees. */
type Found = [path: string, file: string]

interface Files {
  at(path: string): Found[]
  in(folder: string, pattern: RegExp): Found[]
}

/** The files of all trees, each over those before it. */
function filesOf(trees: readonly TreeSource[]): Files {
  const isFile = (file: string) => statSync(file, { throwIfNoEntry: false })?.isFile() ?? false
  for (const { source } of trees) {
    if (statSync(source, { throwIfNoEntry: false }) === undefined)
      throw new Fault('recipe', `Cannot read sandbox tree ${source}: it is not there`)
    if (isFile(source) && /\.(tar|tar\.\w+|tgz|raw)$/.test(source))
      throw new Fault('recipe', `Cannot read sandbox tree ${source}: archives are not supported, expected a folder or one file`)
  }
  const places = (path: string) =>
    trees.toReversed().flatMap(({ source, target }) => {
      const root = target === '/' ? '' : target.replace(/\/+$/, '')
      return path === root ? [source] : path.startsWith(`${root}/`) ? [join(source, path.slice(root.length))] : []
    })
  const at = (path: string): Found[] => {
    const file = places(path).find(isFile)
    return file === undefined ? [] : [[path, file]]
  }
  return {
    at,
    in(folder, pattern) {
      const below = places(folder).flatMap((place) =>
        statSync(place, { throwIfNoEntry: false })?.isDirectory() ? readdirSync(place) : [],
      )
      const single = trees.flatMap(({ target }) => (target.startsWith(`${folder}/`) ? [target.slice(folder.length + 1)] : []))
      const names = [...new Set([...below, ...single])].filter((name) => pattern.test(name) && !name.includes('/'))
      return names.sort().flatMap((name) => at(`${folder}/${name}`))
    },
  }
}

const MAX_BYTES = 4 << 20

function textOf(file: string): string {
  if (statSync(file).size > MAX_BYTES) throw new Fault('recipe', `Cannot read ${file}: expected at most ${MAX_BYTES} bytes`)
  return readFileSync(file, 'utf8')
}

/** Debian's own keyring has a place where every source list looks for it, and is at hand here. */
const DEBIAN_KEYRING = /^\/usr\/share\/keyrings\/debian-archive-keyring\.(gpg|pgp|asc)$/

function keyringOf({ signedBy, where }: Source, files: Files): Uint8Array {
  if (signedBy === undefined) {
    const own = [...files.in('/etc/apt/trusted.gpg.d', /\.(gpg|asc)$/), ...files.at('/etc/apt/trusted.gpg')]
    return joinKeyrings([...own.map(([, file]) => readFileSync(file)), debianKeyring()])
  }
  if ('certificate' in signedBy) return Buffer.from(signedBy.certificate)
  return joinKeyrings(
    signedBy.map((path) => {
      if (!path.startsWith('/'))
        throw new Fault('recipe', `Cannot use ${where}: Signed-By ${path} is no absolute path of a keyring`, {
          hint: 'put the key into the sandbox tree below etc/apt/keyrings/, and its path there into Signed-By',
        })
      const [found] = files.at(normalize(path))
      if (found !== undefined) return readFileSync(found[1])
      if (DEBIAN_KEYRING.test(path)) return debianKeyring()
      throw new Fault('recipe', `Cannot use ${where}: its keyring ${path} is not in the sandbox trees`, {
        hint: `copy the keyring to mkosi.sandbox${path}`,
      })
    }),
  )
}
