/** Paths and commands as a person would type them from where they stand. */
import { existsSync } from 'node:fs'
import { basename, join, relative } from 'node:path'

/** A path as short as it gets. */
export function shownPath(path: string): string {
  const short = relative(process.cwd(), path)
  return short === '' ? '.' : short.startsWith('..') ? path : short
}

/** How to call this program: by its name, or in a checkout by the launcher's path. */
export function program(): string {
  const launcher = join(import.meta.dirname, '../../bin/bisque')
  const started = basename(process.argv[1] ?? '')
  return started === 'bisque' && process.argv[1] !== launcher ? 'bisque' : existsSync(launcher) ? shownPath(launcher) : 'bisque'
}
