/** Symbolic links, followed inside a tree and never out of it: what lies above the root is the root. */
import { parentOf } from './tree.ts'

/** As much of an entry as it takes to follow links. */
export interface Linked {
  readonly type: string
  /** Of a symlink. */
  readonly target?: string
}

export interface Followed {
  /** Where the path leads, without a leading slash; the root is `''`. */
  path: string
  /** Every link on the way, in order. */
  links: string[]
  /** Whether all of the way is there. */
  exists: boolean
}

/** The kernel gives up after as many. */
const MAX_LINKS = 40

/** Follows a path to its end. Undefined where it goes in a circle, or through something that is no directory. */
export function followLinks(entries: ReadonlyMap<string, Linked>, path: string): Followed | undefined {
  const left = path.split('/').reverse()
  const links: string[] = []
  let at = ''
  let exists = true
  while (left.length > 0) {
    const name = left.pop()!
    if (name === '' || name === '.') continue
    if (name === '..') {
      at = parentOf(at)
      continue
    }
    const next = at === '' ? name : `${at}/${name}`
    const entry = entries.get(next)
    if (entry?.type !== 'symlink') {
      if (entry === undefined) exists = false
      else if (entry.type !== 'directory' && left.some((part) => part !== '' && part !== '.')) return undefined
      at = next
      continue
    }
    if (links.length === MAX_LINKS) return undefined
    links.push(next)
    const target = entry.target ?? ''
    if (target.startsWith('/')) at = ''
    left.push(...target.split('/').reverse())
  }
  return { path: at, links, exists }
}

/** The place of what a path leads to; undefined where it leads nowhere. */
export function placeOf(entries: ReadonlyMap<string, Linked>, path: string): string | undefined {
  const followed = followLinks(entries, path)
  return followed?.exists ? followed.path : undefined
}
