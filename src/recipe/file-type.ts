/** Types whose values are files: of the host, absolute after loading, and in the image. In text some must be there. */
import { existsSync, readdirSync, statSync } from 'node:fs'
import { basename, isAbsolute, join, normalize, resolve } from 'node:path'
import { Fault } from '../base/fault.ts'
import { wildcard } from '../base/wildcard.ts'
import { list, type Pairs, type Place, pairs, refuse, scalar, type Type, words } from './type.ts'

/** Exactly one of the host's paths, absolute after loading. In text `~` and `$NAME` stand for folders of the caller's. */
export const path: Type<string> = {
  ...scalar('a path', (value, place) =>
    typeof value === 'string' && value !== '' && !value.includes('\0') ? resolve(place.directory, value) : undefined,
  ),
  parse: (text, place) => path.check(expandPath(text, place), place),
}

const expandVariables = (text: string, { env }: Place): string =>
  text.replace(/\$(?:(\w+)|\{([^}]*)\})/g, (whole, bare, braced) => env[bare ?? braced] ?? whole)

function expandPath(text: string, place: Place): string {
  const { env } = place
  const expanded = expandVariables(text, place)
  return /^~(?=\/|$)/.test(expanded) && env['HOME'] ? env['HOME'] + expanded.slice(1) : expanded
}

/** Of a type whose values are paths or trees: in text only such as are there. A recipe.ts may name what a script makes later. */
export function present<T extends string | TreeSource, I>(of: Type<T, undefined, I>, kind?: 'folder'): Type<T, undefined, I> {
  const parse = (text: string, place: Place): T => {
    const value = of.parse(text, place)
    const file = typeof value === 'string' ? value : value.source
    const stat = statSync(file, { throwIfNoEntry: false })
    if (stat && (kind === undefined || stat.isDirectory())) return value
    throw new Fault('recipe', stat ? `${file} is not a folder` : `${file} does not exist`)
  }
  return { ...of, parse }
}

/** A path, or one of a few words. */
export function pathOr(...constants: readonly string[]): Type<string> {
  const read = (from: Type<string>['parse']) => (value: string, place: Place) =>
    constants.includes(value) ? value : from(value, place)
  const expected = `a path, or ${constants.map((word) => `"${word}"`).join(' or ')}`
  return { ...path, expected, parse: read(path.parse), check: read(path.check as Type<string>['parse']) as Type<string>['check'] }
}

/** Where a key or certificate is: a path, or the URI of one in a token, of which nothing is expanded. */
export const keyPlace: Type<string> = (() => {
  const read = (from: Type<string>['parse']) => (value: string, place: Place) =>
    typeof value === 'string' && /^pkcs11:/i.test(value) ? value : from(value, place)
  return {
    ...path,
    expected: 'a path or pkcs11: URI',
    parse: read(path.parse),
    check: read(path.check as Type<string>['parse']) as Type<string>['check'],
  }
})()

/** Paths, in text also wildcards, which stand for what is there in order of names. What is not there counts for nothing. */
export const globs: Type<readonly string[], readonly string[], readonly string[]> = {
  expected: 'a list (each element a path)',
  merge: 'append',
  absent: [],
  separator: 'comma or space',
  parse: (text, place) => words(text, 'comma or space').flatMap((word) => matches(word, place)),
  check: (value, place) => list(path).check(value, place),
}

/** Folder by folder, so that nothing is walked that the pattern does not name. Hidden files match only a name that begins so. */
function matches(text: string, place: Place): string[] {
  let found = [text.startsWith('/') ? '/' : place.directory]
  for (const part of text.split('/').filter((name) => name !== '')) {
    const pattern = /[*?[]/.test(part) ? wildcard(part) : undefined
    found = found.flatMap((folder) =>
      (pattern === undefined ? [part] : namesIn(folder).filter((name) => isSeen(name, part) && pattern(name)))
        .map((name) => join(folder, name))
        .filter((file) => existsSync(file)),
    )
  }
  return found.sort()
}

const isSeen = (name: string, pattern: string): boolean => pattern.startsWith('.') || !name.startsWith('.')
const namesIn = (folder: string): string[] => (statSync(folder).isDirectory() ? readdirSync(folder) : [])

/** A path inside the image. */
export const imagePath: Type<string> = scalar('an absolute path in the image', (value) =>
  typeof value === 'string' && isAbsolute(value) && !value.includes('\0') ? normalize(value) : undefined,
)

/** A wildcard for paths inside the image; it counts from its root with and without a slash in front. */
export const imageGlob: Type<string> = scalar('a path in the image, with wildcards', (value) =>
  typeof value === 'string' && value !== '' && !value.includes('\0') ? `/${value.replace(/^\/+/, '')}` : undefined,
)

export interface TreeSource {
  /** A folder or archive of the host. */
  source: string
  /** Where its content goes in the image; of build sources, where scripts see it, which may be nowhere in particular. */
  target: string
}

/** `source` or `source:target`. */
export const treeSource: Type<TreeSource, undefined, string | { source: string; target?: string }> = {
  ...scalar('a path, or "source:/target"', (value, place) => {
    const text = typeof value === 'string' ? value : undefined
    const colon = text?.lastIndexOf(':/') ?? -1
    const parts =
      text !== undefined
        ? { source: colon > 0 ? text.slice(0, colon) : text, target: colon > 0 ? text.slice(colon + 1) : '/' }
        : { target: '/', ...(value as Partial<TreeSource> | null) }
    if (typeof parts.source !== 'string' || parts.source === '' || typeof parts.target !== 'string') return undefined
    return isAbsolute(parts.target)
      ? { source: resolve(place.directory, parts.source), target: normalize(parts.target) }
      : undefined
  }),
  parse(text, place) {
    const { source, target = '/' } = splitTree(text)
    return isAbsolute(target) && source !== ''
      ? { source: path.parse(source, place), target: normalize(expandVariables(target, place)) }
      : refuse('a path, or "source:/target"', text)
  },
}

/** `source` or `source:target`, whose target may be relative to where scripts run. */
export const sourceTree: Type<TreeSource, undefined, string | { source: string; target?: string }> = {
  ...scalar('a path, or "source:target"', (value, place) => {
    const parts = typeof value === 'string' ? splitTree(value) : { ...(value as Partial<TreeSource> | null) }
    if (typeof parts.source !== 'string' || parts.source === '' || typeof (parts.target ?? '') !== 'string') return undefined
    return { source: resolve(place.directory, parts.source), target: parts.target ?? '' }
  }),
  parse(text, place) {
    const { source, target = '' } = splitTree(text)
    return source === '' ? refuse('a path, or "source:target"', text) : { source: path.parse(source, place), target }
  },
}

function splitTree(text: string): { source: string; target?: string } {
  const colon = text.indexOf(':')
  return colon < 0 ? { source: text } : { source: text.slice(0, colon), target: text.slice(colon + 1) }
}

/** A credential of the running image: its text, or the file that holds it (or prints it, where it is executable). */
export type Credential = { name: string; value: string } | { name: string; path: string }

/** In text `NAME=VALUE …`, or a file or a folder of files named as the credentials; in TypeScript an object. */
export const credentials: Type<readonly Credential[], readonly Credential[], Pairs | readonly Credential[]> = {
  expected: 'an object of strings',
  merge: 'append',
  absent: [],
  separator: 'quoted space',
  parse(text, place) {
    if (text === '' || text.includes('=')) {
      const cut = (word: string): number => (word.includes('=') ? word.indexOf('=') : word.length)
      return words(text, 'quoted space').flatMap((word) =>
        word === '' ? [] : [{ name: word.slice(0, cut(word)).trim(), value: word.slice(cut(word) + 1).trim() }],
      )
    }
    const file = resolve(place.directory, text)
    if (!existsSync(file)) return refuse('NAME=VALUE, or a file or folder that is there', text)
    if (!statSync(file).isDirectory()) return [{ name: basename(file), path: file }]
    const files = readdirSync(file).filter((name) => !statSync(join(file, name), { throwIfNoEntry: false })?.isDirectory())
    return files.sort().map((name) => ({ name, path: join(file, name) }))
  },
  check(value, place) {
    if (!Array.isArray(value)) {
      return Object.entries(pairs().check(value, place)).map(([name, element]) => ({ name, value: element }))
    }
    return value.map((element: Partial<{ name: string; value: string; path: string }> | null) => {
      const { name, value: text, path: file } = element ?? {}
      if (typeof name !== 'string' || (typeof text !== 'string' && typeof file !== 'string'))
        return refuse('a credential', element)
      return typeof file === 'string' ? { name, path: resolve(place.directory, file) } : { name, value: text! }
    })
  },
}
