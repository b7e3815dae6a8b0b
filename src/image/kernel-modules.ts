/** Chooses kernel modules, for an initrd or an image: by rules, then all they depend on, then the firmware they ask for. */
import { promisify } from 'node:util'
import { gunzip, zstdDecompress } from 'node:zlib'
import { createUnxz } from 'node-liblzma'
import { Fault } from '../base/fault.ts'
import { elfSection, parseModinfo } from '../formats/elf.ts'
import { readContent } from '../tree/content.ts'
import { byPath, nameOf, parentOf, type Tree } from '../tree/tree.ts'
import { chooseFirmware, FIRMWARE, type FirmwareRules, withLinks } from './firmware.ts'
import { MODULE_FILE, type ModuleGlobs, moduleMatcher, normalName as normal } from './module-globs.ts'

export type ModuleRules = ModuleGlobs & FirmwareRules

export type ModuleSelection = ModuleRules & {
  /** `uname -r`; the only one in the tree where absent. */
  kernel?: string
}

export interface SelectedModules {
  /** The modules, firmware and indexes, in their places, with their parent directories. */
  tree: Tree
  modules: string[]
  firmware: string[]
  /** Modules that are asked for by name but neither built in nor a file. */
  missing: string[]
}

/** Far above any module; a compressed one that grows beyond is refused. */
const MAX_MODULE_BYTES = 256 << 20
const READ_AT_ONCE = 8

export async function selectModules(tree: Tree, selection: ModuleSelection): Promise<SelectedModules> {
  const kernel = selection.kernel ?? onlyKernel(tree)
  const directory = `usr/lib/modules/${kernel}`
  const files = moduleFiles(tree, directory)
  if (files.size === 0) {
    throw new Fault('missing', `Cannot select modules of kernel ${kernel}: there are none below /${directory}`)
  }
  const wanted = moduleMatcher(selection)
  const chosen = [...files].filter(([, path]) => wanted(path.slice(directory.length + 1))).map(([name]) => name)
  const { modules, firmware, missing } = await closure(tree, directory, files, chosen)

  const links = modules.flatMap((path) => withLinks(tree, path))
  const paths = new Set([...modules, ...links, ...chooseFirmware(tree, firmware, selection)])
  for (const [path, inode] of tree) {
    if (parentOf(path) === directory && inode.type === 'file' && isIndex(tree, path)) paths.add(path)
  }
  return {
    tree: withParents(tree, paths),
    modules,
    firmware: [...paths].filter((path) => path.startsWith(`${FIRMWARE}/`)).sort(byPath),
    missing,
  }
}

/** The kernels whose modules are in a tree. */
export function kernelVersions(tree: Tree): string[] {
  const found = new Set<string>()
  for (const path of tree.keys()) {
    const [, kernel, rest] = /^usr\/lib\/modules\/([^/]+)\/(.+)/.exec(path) ?? []
    if (kernel && rest && MODULE_FILE.test(rest)) found.add(kernel)
  }
  return [...found].sort()
}

function onlyKernel(tree: Tree): string {
  const kernels = kernelVersions(tree)
  if (kernels.length === 1) return kernels[0]!
  const why = kernels.length === 0 ? 'there is no kernel with modules in the tree' : `the tree has ${kernels.join(' and ')}`
  throw new Fault('missing', `Cannot select kernel modules: ${why}`, {
    hint: 'Install one kernel package, such as linux-image-amd64',
  })
}

/** Module names, with `-` for `_`, to their files. */
function moduleFiles(tree: Tree, directory: string): Map<string, string> {
  const files = new Map<string, string>()
  for (const [path, inode] of tree) {
    if (!path.startsWith(`${directory}/`) || !MODULE_FILE.test(path)) continue
    if (inode.type === 'file' || (inode.type === 'symlink' && withLinks(tree, path).length > 0)) files.set(moduleName(path), path)
  }
  return files
}

const moduleName = (path: string) => normal(nameOf(path).replace(/\..*$/, ''))

/** Text indexes whose binary form is there are of no use to libkmod. */
const isIndex = (tree: Tree, path: string): boolean => nameOf(path).startsWith('modules.') && !tree.has(`${path}.bin`)

interface Needs {
  modules: string[]
  firmware: string[]
}

/** Follows dependencies of the chosen modules, and of those built in, until nothing new turns up. */
async function closure(tree: Tree, directory: string, files: ReadonlyMap<string, string>, chosen: readonly string[]) {
  const read = async (path: string): Promise<Buffer | undefined> => {
    const inode = tree.get(path)
    return inode?.type === 'file' ? Buffer.from(await readContent(inode.content)) : undefined
  }
  const builtin = new Set(lines(await read(`${directory}/modules.builtin`)).map(moduleName))
  const aliases = parseAliases(lines(await read(`${directory}/modules.alias`)))
  const builtinInfo = (await read(`${directory}/modules.builtin.modinfo`)) ?? Buffer.alloc(0)
  const builtinFields = parseModinfo(builtinInfo).map(([key, value]): [string, string] => [
    key.slice(key.indexOf('.') + 1),
    value,
  ])
  const builtinAliases = new Set(builtinFields.filter(([key]) => key === 'alias').map(([, value]) => normal(value)))

  const indexed = hasFirmware(tree) ? undefined : await indexedNeeds((name) => read(`${directory}/${name}`))

  const selected = new Set<string>()
  const missing = new Set<string>()
  const firmware = new Set<string>()
  const request = ({ modules, firmware: wanted }: Needs): string[] => {
    for (const name of wanted) firmware.add(name)
    return modules.flatMap((name) => {
      if (files.has(name)) return [name]
      if (builtin.has(name)) return []
      const targets = aliases.get(name) ?? []
      if (targets.length === 0 && !builtinAliases.has(name)) missing.add(name)
      return targets
    })
  }
  let requested = [...chosen, ...request(needsOf(builtinFields))]
  while (requested.length > 0) {
    const fresh = [...new Set(requested)].filter((name) => files.has(name) && !selected.has(name))
    for (const name of fresh) selected.add(name)
    const needs = await mapSome(fresh, async (name) => indexed?.get(name) ?? needsOf(await modinfo(tree, files.get(name)!)))
    requested = needs.flatMap(request)
  }
  const modules = [...selected].map((name) => files.get(name)!).sort(byPath)
  return { modules, firmware: [...firmware].sort(), missing: [...missing].sort() }
}

const hasFirmware = (tree: Tree): boolean =>
  tree.entries().some(([path, { type }]) => path.startsWith(`${FIRMWARE}/`) && type !== 'directory')

/** What depmod wrote down: as good as the modules themselves where there is no firmware to look for, and much faster. */
async function indexedNeeds(read: (name: string) => Promise<Buffer | undefined>): Promise<Map<string, Needs> | undefined> {
  const dependencies = await read('modules.dep')
  if (!dependencies) return undefined
  const needs = new Map<string, Needs>()
  for (const line of lines(dependencies)) {
    const [path = '', rest = ''] = line.split(':', 2)
    needs.set(moduleName(path), { modules: rest.split(' ').filter(Boolean).map(moduleName), firmware: [] })
  }
  for (const line of [...lines(await read('modules.softdep')), ...lines(await read('modules.weakdep'))]) {
    const [, module, rest] = /^(?:softdep|weakdep) (\S+) (.*)$/.exec(line) ?? []
    if (module && rest) needs.get(normal(module))?.modules.push(...needsOf([['softdep', rest]]).modules)
  }
  return needs
}

const lines = (bytes: Buffer | undefined): string[] => bytes?.toString('utf8').split('\n').filter(Boolean) ?? []

/** Aliases without wildcards: soft dependencies name algorithms, such as `sha256`, by them. */
function parseAliases(text: readonly string[]): Map<string, string[]> {
  const aliases = new Map<string, string[]>()
  for (const line of text) {
    const [, alias, module] = /^alias ([^\s*?[]+) (\S+)$/.exec(line) ?? []
    if (!alias || !module) continue
    const targets = aliases.get(normal(alias)) ?? []
    targets.push(normal(module))
    aliases.set(normal(alias), targets)
  }
  return aliases
}

function needsOf(fields: readonly (readonly [string, string])[]): Needs {
  const modules: string[] = []
  const firmware: string[] = []
  for (const [key, value] of fields) {
    if (key === 'depends') modules.push(...value.split(',').filter(Boolean))
    else if (key === 'softdep' || key === 'weakdep')
      modules.push(...value.split(/\s+/).filter((w) => w !== '' && !w.endsWith(':')))
    else if (key === 'firmware') firmware.push(value.trim())
  }
  return { modules: modules.map(normal), firmware }
}

async function modinfo(tree: Tree, path: string): Promise<[string, string][]> {
  const inode = tree.get(withLinks(tree, path).at(-1) ?? path)
  try {
    if (inode?.type !== 'file') throw new Error('it is no file')
    const section = elfSection(await decompressed(path, await readContent(inode.content)), '.modinfo')
    return section ? parseModinfo(section) : []
  } catch (cause) {
    throw new Fault('format', `Cannot read kernel module /${path}: ${(cause as Error).message}`, { cause })
  }
}

/** The content of a file that its name says is compressed. */
export async function decompressed(path: string, bytes: Uint8Array): Promise<Uint8Array> {
  if (path.endsWith('.gz')) return promisify(gunzip)(bytes, { maxOutputLength: MAX_MODULE_BYTES })
  if (path.endsWith('.zst')) return promisify(zstdDecompress)(bytes, { maxOutputLength: MAX_MODULE_BYTES })
  if (!path.endsWith('.xz')) return bytes
  const stream = createUnxz()
  stream.end(bytes)
  const parts: Uint8Array[] = []
  let sizeBytes = 0
  for await (const part of stream as AsyncIterable<Uint8Array>) {
    sizeBytes += part.length
    if (sizeBytes > MAX_MODULE_BYTES) throw new Error(`it is larger than ${MAX_MODULE_BYTES} bytes`)
    parts.push(part)
  }
  return Buffer.concat(parts)
}

async function mapSome<T, R>(items: readonly T[], body: (item: T) => Promise<R>): Promise<R[]> {
  const results: R[] = []
  let next = 0
  const run = async () => {
    for (let i = next++; i < items.length; i = next++) results[i] = await body(items[i]!)
  }
  await Promise.all(Array.from({ length: READ_AT_ONCE }, run))
  return results
}

/** The inodes at `paths` and all directories above them. */
function withParents(tree: Tree, paths: ReadonlySet<string>): Tree {
  const all = new Set<string>()
  for (const path of paths) {
    for (let at = path; !all.has(at); at = parentOf(at)) {
      all.add(at)
      if (at === '') break
    }
  }
  return new Map([...tree].filter(([path]) => all.has(path)))
}

/**
 * The tree without the modules and firmware that rules leave out and nothing they keep needs. Without rules nothing is left
 * out. Microcode stays: it is no module's. The indexes are depmod's to make anew.
 */
export async function withoutUnusedModules(tree: Tree, rules: ModuleRules): Promise<Tree> {
  const { modules, modulesExclude = [], firmware = [], firmwareExclude = [] } = rules
  if (modules.length + modulesExclude.length + firmware.length + firmwareExclude.length === 0) return tree
  const kept = new Set<string>()
  for (const kernel of kernelVersions(tree)) {
    for (const path of (await selectModules(tree, { ...rules, kernel })).tree.keys()) kept.add(path)
  }
  const left = new Map([...tree].filter(([path, { type }]) => type === 'directory' || kept.has(path) || !isSelectable(path)))
  const occupied = new Set<string>()
  for (const [path, { type }] of left) {
    if (type === 'directory') continue
    for (let at = parentOf(path); at !== '' && !occupied.has(at); at = parentOf(at)) occupied.add(at)
  }
  // Folders of firmware that lost all they held go too.
  const isEmptied = (path: string) => path.startsWith(`${FIRMWARE}/`) && !occupied.has(path) && !isMicrocode(path)
  return new Map([...left].filter(([path, { type }]) => type !== 'directory' || !isEmptied(path)))
}

const isSelectable = (path: string): boolean =>
  path.startsWith(`${FIRMWARE}/`) ? !isMicrocode(path) : path.startsWith('usr/lib/modules/') && MODULE_FILE.test(path)
const isMicrocode = (path: string): boolean => /^usr\/lib\/firmware\/(?:amd|intel)-ucode(?:\/|$)/.test(path)
