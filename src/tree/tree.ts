/**
 * Tree: the files of an image as a value.
 *
 * Paths are relative and without a leading slash (`usr/bin/bash`); the root itself is `''`. A tree is kept in
 * `byPath` order, so every writer that walks it emits the same bytes. Hard links are one `Inode` object under
 * several paths. Content is named, not held: a file on disk or a few bytes in memory.
 */
export type Tree = ReadonlyMap<string, Inode>

interface Common {
  /** Permission bits, `0o7777` at most. */
  mode: number
  uid: number
  gid: number
  /** Whole seconds since 1970. */
  mtime: number
  /** Full names (`security.capability`) to values; sorted by name. Absent where there are none. */
  xattrs?: ReadonlyMap<string, Uint8Array>
}

export type Inode =
  | (Common & { type: 'file'; sizeBytes: number; content: Content })
  | (Common & { type: 'directory' })
  | (Common & { type: 'symlink'; target: string })
  | (Common & { type: 'character' | 'block'; major: number; minor: number })
  | (Common & { type: 'fifo' | 'socket' })

/** Where a file's bytes are. A plain value, so that it can be handed to a worker thread. */
export type Content = { path: string } | { bytes: Uint8Array }

/** Sorts paths so that parents come before their children and siblings are in byte order of their names. */
export function byPath(a: string, b: string): number {
  const x = Buffer.from(a.replaceAll('/', '\0'))
  const y = Buffer.from(b.replaceAll('/', '\0'))
  return Buffer.compare(x, y)
}

/** A tree from entries in any order, with every parent directory present. */
export function treeOf(entries: Iterable<readonly [string, Inode]>, parent: Inode & { type: 'directory' }): Tree {
  const all = new Map(entries)
  for (const path of [...all.keys()]) {
    for (let at = path; at !== ''; ) {
      at = parentOf(at)
      if (all.has(at)) continue
      all.set(at, { ...parent })
    }
  }
  if (!all.has('')) all.set('', { ...parent })
  return new Map([...all].sort(([a], [b]) => byPath(a, b)))
}

export const parentOf = (path: string): string => path.slice(0, Math.max(0, path.lastIndexOf('/')))

export const nameOf = (path: string): string => path.slice(path.lastIndexOf('/') + 1)

/** The part of a tree below `directory`, with paths relative to it. */
export function subtree(tree: Tree, directory: string): Tree {
  const prefix = `${directory}/`
  const found = new Map<string, Inode>()
  for (const [path, inode] of tree) {
    if (path === directory) found.set('', inode)
    else if (path.startsWith(prefix)) found.set(path.slice(prefix.length), inode)
  }
  return found
}
