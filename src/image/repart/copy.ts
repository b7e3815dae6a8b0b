/**
 * The files of one partition: what `CopyFiles=`, `MakeDirectories=` and `MakeSymlinks=` take from the finished root tree.
 *
 * Spec: repart.d(5). Paths of the source are followed inside the tree, never out of it.
 */
import { Fault } from '../../base/fault.ts'
import { madeDirectory, madeSymlink } from '../../tree/content.ts'
import { placeOf } from '../../tree/links.ts'
import { byPath, type Inode, nameOf, parentOf, type Tree } from '../../tree/tree.ts'
import { clampTimes } from '../usr.ts'
import type { CopyFiles, Definition } from './definition.ts'

export interface CopyOptions {
  /** Later times of the tree become this one. */
  epoch: number
  /** Attributes the root directory gets besides its own. */
  rootXattrs?: ReadonlyMap<string, Uint8Array>
  /** Told what was not there to be copied. */
  note?: (message: string) => void
}

/** The files of a definition's partition. `definitions` are all of the disk: where others are mounted, nothing is copied. */
export function partitionTree(
  definition: Definition,
  definitions: readonly Definition[],
  tree: Tree,
  options: CopyOptions,
): Tree {
  const supplement = definitions.find(({ supplementFor }) => supplementFor === definition.name)
  const merged = supplement ? mergedWith(definition, supplement) : definition
  const out = new Map<string, Inode>([['', rootOf(merged, tree, options)]])
  const state: Copying = { definition: merged, definitions, tree, out, options }
  for (const copy of merged.copyFiles) copyOne(state, copy)
  for (const path of merged.makeDirectories) ensureDirectory(state, path, 'MakeDirectories')
  for (const { path, target } of merged.makeSymlinks) makeSymlink(state, path, target)
  return clampTimes(new Map([...out].sort(([a], [b]) => byPath(a, b))), options.epoch)
}

/** What is only there while a system runs. */
const VOLATILE = ['/proc', '/sys', '/dev', '/tmp', '/run', '/var/tmp']

interface Copying {
  definition: Definition
  definitions: readonly Definition[]
  tree: Tree
  out: Map<string, Inode>
  options: CopyOptions
}

function mergedWith(target: Definition, supplement: Definition): Definition {
  const joined = <K extends 'copyFiles' | 'excludeFiles' | 'excludeFilesTarget' | 'makeDirectories'>(key: K) => {
    const own = new Set(target[key].map((one) => JSON.stringify(one)))
    return [...target[key], ...supplement[key].filter((one) => !own.has(JSON.stringify(one)))]
  }
  return {
    ...target,
    copyFiles: joined('copyFiles') as CopyFiles[],
    excludeFiles: joined('excludeFiles') as string[],
    excludeFilesTarget: joined('excludeFilesTarget') as string[],
    makeDirectories: joined('makeDirectories') as string[],
  }
}

/** The root directory: as the first directory that is copied to it, or one of our own. */
function rootOf(definition: Definition, tree: Tree, { epoch, rootXattrs }: CopyOptions): Inode {
  const places = definition.copyFiles.filter(({ target }) => target === '/').map(({ source }) => placeOf(tree, source))
  const first = places
    .flatMap((place) => (place === undefined ? [] : [tree.get(place)]))
    .find((inode) => inode?.type === 'directory')
  const root: Inode = first ? { ...first } : madeDirectory(epoch)
  if (rootXattrs === undefined || rootXattrs.size === 0) return root
  const xattrs = [...(root.xattrs ?? []), ...rootXattrs].sort(([a], [b]) => Buffer.compare(Buffer.from(a), Buffer.from(b)))
  return { ...root, xattrs: new Map(xattrs) }
}

function copyOne(state: Copying, copy: CopyFiles): void {
  const { tree, out, definition, options } = state
  const excluded = exclusions(state, copy)
  if (excluded === 'all') return
  const place = placeOf(tree, copy.source)
  if (place === undefined) {
    options.note?.(`${definition.name}: there is no ${copy.source} to copy`)
    return
  }
  const source = tree.get(place) ?? madeDirectory(options.epoch)
  if (source.type === 'directory') {
    if (excluded.directories.get(place) === 'all') return
    const target = targetDirectory(state, copy, source)
    if (!excluded.directories.has(place)) copyBelow(state, place, target, excluded)
    return
  }
  if (source.type !== 'file') throw cannot(state, `${copy.source} is neither a file nor a directory`)
  if (excluded.files.has(source) || isBelow(place, excluded)) return
  if (copy.target === '/') throw cannot(state, `${copy.source} is a file and cannot become the root of the file system`)
  const at = joined(ensureDirectory(state, parentPath(copy.target), 'CopyFiles'), nameOf(copy.target))
  if (out.has(at)) throw cannot(state, `${copy.target} is there already; copy ${copy.source} to another place`)
  add(state, at, source)
}

/** The directory in the partition that a directory is copied to: what is there, or a new one like the source. */
function targetDirectory(state: Copying, { target }: CopyFiles, source: Inode): string {
  const there = placeOf(state.out, target)
  if (there === undefined) {
    const at = joined(ensureDirectory(state, parentPath(target), 'CopyFiles'), nameOf(target))
    if (state.out.has(at)) throw cannot(state, `${target} is a symlink that leads nowhere`)
    add(state, at, source)
    return at
  }
  if (state.out.get(there)!.type !== 'directory') throw cannot(state, `${target} is a file already, a directory is copied to it`)
  return there
}

function copyBelow(state: Copying, from: string, to: string, excluded: Exclusions): void {
  const { tree, out } = state
  const prefix = from === '' ? '' : `${from}/`
  const closed = new Set<string>()
  for (const [path, inode] of tree) {
    if (path === '' || path === from || !path.startsWith(prefix)) continue
    const parent = parentOf(path)
    if (closed.has(parent)) {
      if (inode.type === 'directory') closed.add(path)
      continue
    }
    if (inode.type === 'directory') {
      const how = excluded.directories.get(path)
      if (how !== undefined) closed.add(path)
      if (how === 'all') continue
    } else if (excluded.files.has(inode)) continue
    const at = joined(to, path.slice(prefix.length))
    const there = out.get(at)
    const bothDirectories = there?.type === 'directory' && inode.type === 'directory'
    if (there && !bothDirectories && (there.type === 'directory' || inode.type === 'directory'))
      throw cannot(state, `/${at} is a directory in one place that is copied and a file in another`)
    if (!bothDirectories) out.set(at, inode)
  }
}

/** What is not copied: directories by their place in the tree, files by themselves, so under every name they have. */
interface Exclusions {
  directories: Map<string, 'all' | 'contents'>
  files: Set<Inode>
}

function exclusions(state: Copying, { source, target }: CopyFiles): Exclusions | 'all' {
  const { definition, definitions, tree } = state
  const found: Exclusions = { directories: new Map(), files: new Set() }
  const add = (path: string, how: 'all' | 'contents') => {
    const place = placeOf(tree, path)
    if (place === undefined) return
    const inode = tree.get(place)
    if (inode === undefined || inode.type === 'directory') {
      if (!found.directories.has(place)) found.directories.set(place, how)
    } else found.files.add(inode)
  }
  const howOf = (path: string) => (path.endsWith('/') ? 'contents' : 'all')
  for (const path of VOLATILE) add(path, 'contents')
  for (const path of definition.excludeFiles) {
    if (below(source, path) !== undefined) return 'all'
    add(path, howOf(path))
  }
  for (const path of definition.excludeFilesTarget) {
    if (below(target, path) !== undefined) return 'all'
    const rest = below(path, target)
    if (rest !== undefined) add(`${source}/${rest}`, howOf(path))
  }
  if (definition.type.designator === 'root' && target === '/') {
    const mounted = definitions.filter(({ type }) => type.designator !== 'root').flatMap(({ type }) => type.mountPoints)
    for (const path of [...mounted, ...VOLATILE]) add(`${source}/${path}`, 'contents')
  }
  return found
}

/** Whether a directory above a file is left out. */
function isBelow(place: string, { directories }: Exclusions): boolean {
  for (let at = place; at !== ''; ) {
    at = parentOf(at)
    if (directories.has(at)) return true
  }
  return false
}

/** What is left of a path below another, by components; undefined where it is not below. */
function below(path: string, above: string): string | undefined {
  const [names, prefix] = [path, above].map((one) => one.split('/').filter((name) => name !== '')) as [string[], string[]]
  return prefix.every((name, i) => names[i] === name) ? names.slice(prefix.length).join('/') : undefined
}

/** Makes a directory and those above it, where they are missing, and gives its place. Symlinks on the way are followed. */
function ensureDirectory(state: Copying, path: string, setting: string): string {
  const { out, options } = state
  let at = ''
  for (const name of path.split('/').filter((part) => part !== '')) {
    const next = joined(at, name)
    const inode = out.get(next)
    if (inode === undefined) add(state, next, madeDirectory(options.epoch))
    const place = inode?.type === 'symlink' ? placeOf(out, next) : next
    if (place === undefined || out.get(place)!.type !== 'directory')
      throw cannot(
        state,
        `${setting}=${path} needs the directory /${next}, which is ${inode?.type === 'symlink' ? 'a symlink that leads to none' : 'a file'}`,
      )
    at = place
  }
  return at
}

function makeSymlink(state: Copying, path: string, target: string): void {
  const parent = placeOf(state.out, parentPath(path))
  if (parent === undefined || state.out.get(parent)!.type !== 'directory')
    throw cannot(state, `there is no directory for the symlink ${path}; add MakeDirectories=${parentPath(path)}`)
  const at = joined(parent, nameOf(path))
  if (state.out.has(at)) throw cannot(state, `the symlink ${path} cannot be made, as ${path} is there already`)
  add(state, at, madeSymlink(target, state.options.epoch))
}

/** Adds an inode, by which the directory it is in changes now. What a copied directory holds does not change it. */
function add({ out, options }: Copying, at: string, inode: Inode): void {
  out.set(at, inode)
  const parent = parentOf(at)
  out.set(parent, { ...out.get(parent)!, mtime: options.epoch })
}

const parentPath = (path: string): string => parentOf(path) || '/'
const joined = (directory: string, name: string): string => (directory === '' ? name : `${directory}/${name}`)

const cannot = ({ definition }: Copying, why: string): Fault =>
  new Fault('recipe', `Cannot copy files into partition ${definition.name}: ${why}`)
