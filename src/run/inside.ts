/**
 * Paths inside a root directory whose symbolic links are not to be trusted.
 *
 * A path is walked as a process with that directory as `/` would walk it: absolute links start again at the root,
 * `..` stops there. The answer never leads outside, whatever the links say.
 */
import { lstatSync, mkdirSync, readlinkSync } from 'node:fs'
import { Fault } from '../base/fault.ts'

const MOST_LINKS = 40

/**
 * Resolves `path` below `root` to a path relative to it (`usr/bin/sh`, the root is ''), following links of all its
 * parts but the last one; with `followLast` of that too. Parts that do not exist are taken as they are.
 */
export function resolveInside(root: string, path: string, options: { followLast?: boolean } = {}): string {
  const ahead = parts(path).reverse()
  const done: string[] = []
  for (let links = 0; ahead.length > 0; ) {
    const part = ahead.pop()!
    if (part === '..') {
      done.pop()
      continue
    }
    const target = ahead.length > 0 || options.followLast ? linkAt([root, ...done, part].join('/')) : undefined
    if (target === undefined) {
      done.push(part)
      continue
    }
    if (++links > MOST_LINKS)
      throw new Fault('format', `Cannot resolve ${path} below ${root}: more than ${MOST_LINKS} symbolic links`)
    if (target.startsWith('/')) done.length = 0
    ahead.push(...parts(target).reverse())
  }
  return done.join('/')
}

/** Makes sure that a directory stands at `path` inside `root`, and returns its path on the host. */
export function makeDirectoryInside(root: string, path: string): string {
  const at = `${root}/${resolveInside(root, path, { followLast: true })}`
  mkdirSync(at, { recursive: true, mode: 0o755 })
  return at
}

const parts = (path: string) => path.split('/').filter((part) => part !== '' && part !== '.')

function linkAt(path: string): string | undefined {
  const stat = lstatSync(path, { throwIfNoEntry: false })
  return stat?.isSymbolicLink() ? readlinkSync(path) : undefined
}
