/** Globs over a root on disk, as `RemoveFiles=` has them: `*`, `?`, `[…]` within a name, `**` for any folders. */
import { lstatSync, readdirSync } from 'node:fs'
import { resolveInside } from '../../run/inside.ts'

/**
 * Paths below `root` that a glob names, without a leading slash. Links in the literal part are followed inside the root,
 * so `/lib/x` is found where `lib` is a link; what `*` and `**` pass is not.
 */
export function findGlob(root: string, glob: string): string[] {
  const parts = glob.split('/').filter((part) => part !== '' && part !== '.')
  const found = new Set<string>()
  walk(root, '', parts, found)
  found.delete('')
  return [...found].sort()
}

function walk(root: string, folder: string, parts: readonly string[], found: Set<string>): void {
  const [part, ...rest] = parts
  if (part === undefined) {
    found.add(folder)
    return
  }
  if (part === '**') {
    walk(root, folder, rest, found)
    for (const name of namesIn(root, folder)) {
      const path = joined(folder, name)
      if (lstatSync(`${root}/${path}`).isDirectory()) walk(root, path, parts, found)
    }
    return
  }
  if (!/[*?[]/.test(part)) {
    const path = rest.length === 0 ? joined(folder, part) : resolveInside(root, `/${joined(folder, part)}`, { followLast: true })
    if (part !== '..' && isFolder(root, folder) && lstatSync(`${root}/${path}`, { throwIfNoEntry: false }))
      walk(root, path, rest, found)
    return
  }
  const pattern = namePattern(part)
  for (const name of namesIn(root, folder)) {
    const path = joined(folder, name)
    if (pattern.test(name) && (rest.length === 0 || lstatSync(`${root}/${path}`).isDirectory())) walk(root, path, rest, found)
  }
}

const joined = (folder: string, name: string): string => (folder === '' ? name : `${folder}/${name}`)

function namesIn(root: string, folder: string): string[] {
  return isFolder(root, folder) ? readdirSync(`${root}/${folder}`).sort() : []
}

const isFolder = (root: string, folder: string): boolean =>
  lstatSync(`${root}/${folder}`, { throwIfNoEntry: false })?.isDirectory() === true

/** A whole name. A bracket that is never closed stands for itself. */
function namePattern(glob: string): RegExp {
  const source = glob.replace(/\[(!?)(\]?[^\]]*)\]|[\s\S]/g, (text: string, not: string | undefined, set: string | undefined) => {
    if (set !== undefined && set !== '') return `[${not === '!' ? '^' : ''}${set.replace(/[\\\]^[]/g, '\\$&')}]`
    return text === '*' ? '.*' : text === '?' ? '.' : text.replace(/[.+^${}()|[\]\\/-]/g, '\\$&')
  })
  return new RegExp(`^${source}$`, 's')
}
