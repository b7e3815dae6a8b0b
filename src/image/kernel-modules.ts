/**
 * Chooses kernel modules for an initrd: by ordered globs, then everything they depend on, then the firmware they ask for.
 *
 * The globs are mkosi's: the last one that matches wins, `-` in front excludes, `/fs/nls/` means a directory below
 * `kernel/`, `_` and `-` are the same, `re:` is a regular expression, `default` stands for `DEFAULT_MODULES`.
 */
import { promisify } from 'node:util'
import { gunzip, zstdDecompress } from 'node:zlib'
import { createUnxz } from 'node-liblzma'
import { Fault } from '../base/fault.ts'
import type { Architecture } from '../formats/dps.ts'
import { elfSection, parseModinfo } from '../formats/elf.ts'
import { readContent } from '../tree/content.ts'
import { byPath, type Inode, nameOf, parentOf, type Tree } from '../tree/tree.ts'
import { globExpression, globMatcher, normalGlob, toRegExp } from './module-globs.ts'

export interface ModuleSelection {
  /** `uname -r`; the only one in the tree where absent. */
  kernel?: string
  architecture: Architecture
  modules: readonly string[]
  /** Globs relative to `usr/lib/firmware`: add files no module asks for, or with `-` leave out ones that are. */
  firmware?: readonly string[]
}

export interface SelectedModules {
  /** The modules, firmware and indexes, in their places, with their parent directories. */
  tree: Tree
  modules: string[]
  firmware: string[]
  /** Modules that are asked for by name but neither built in nor a file. */
  missing: string[]
}

/** What a machine needs to find and mount its disks, without knowing which machine it is. */
// biome-ignore format: table
export const DEFAULT_MODULES: readonly string[] = [
  'ahci', 'amd_atl', 'amd_ctl', 'amd-pmc', 'amd64_edac', 'atkbd', 'autofs4', 'binfmt_misc', 'btrfs', 'cdrom', 'cfg80211',
  'configfs', 'crc-ccitt', 'dm-crypt', 'dm-integrity', 'dm-mod', 'dm-multipath', 'dm-raid', 'dm-verity', 'dmi-sysfs',
  'edac_mce_amd', 'efi-pstore', 'efivarfs', 'erofs', 'evdev', 'ext4', 'firmware_attributes_class', 'hid-generic',
  'i2c-algo-bit', 'i2c_hid_acpi', 'i2c-mux', 'i2c-smbus', 'i8042', 'intel_pmc_ssram_telemetry', 'intel_rapl_common',
  'intel-uncore-frequency-common', 'intel-vsec', 'kvm', 'libphy', 'loop', 'mdio_devres', 'mei', 'nvme', 'nvmet-tcp',
  'overlay', 'parport', 'platform_profile', 'pmt_telemetry', 'qemu_fw_cfg', 'raid[0-9]*', 'rapl', 'scsi_mod', 'sd_mod',
  'sr_mod', 'serio', 'sg', 'skx_edac_common', 'squashfs', 'thunderbolt_net', 'tpm_tis', 'tpm_vtpm_proxy', 'typec_ucsi',
  'ucsi_acpi', 'usbhid', 'usb-storage', 'vfat', 'video', 'virtio_balloon', 'virtio_blk', 'virtio_console',
  'virtio_dma_buf', 'virtio_mmio', 'virtio_net', 'virtio_pci', 'virtio_scsi', 'virtio-rng', 'virtiofs', 'vmd',
  'vmw_vsock_virtio_transport', 'vsock', 'watchdog', 'wmi', 'wmi-bmof', 'x_tables', 'xfs', 'xhci-pci-renesas',
  '/fs/nls/', 'crypto/', '-/drivers/crypto/', 'ccp_crypto', 'zram', 'nfnetlink',
]
const DEFAULT_MODULES_ARM64: readonly string[] = ['/drivers/mmc/host/', 'brcmutil', 'udc-core']

const FIRMWARE = 'usr/lib/firmware'
const MODULE_FILE = /\.ko(?:\.(?:gz|xz|zst))?$/
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
  const patterns = compileGlobs(selection.modules, selection.architecture)
  const chosen = [...files].filter(([, path]) => patterns(path.slice(directory.length + 1))).map(([name]) => name)
  const { modules, firmware, missing } = await closure(tree, directory, files, chosen)

  const paths = new Set(modules)
  const firmwarePaths = firmwareFiles(tree, firmware, selection.firmware ?? [])
  for (const path of firmwarePaths) for (const link of resolve(tree, path)?.visited ?? []) paths.add(link)
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
    if (path.startsWith(`${directory}/`) && inode.type === 'file' && MODULE_FILE.test(path)) files.set(moduleName(path), path)
  }
  return files
}

const normal = (name: string) => name.replaceAll('_', '-')
const moduleName = (path: string) => normal(nameOf(path).replace(/\..*$/, ''))

/** Text indexes whose binary form is there are of no use to libkmod. */
const isIndex = (tree: Tree, path: string): boolean => nameOf(path).startsWith('modules.') && !tree.has(`${path}.bin`)

/** Whether a path below `usr/lib/modules/KERNEL` is wanted. */
function compileGlobs(globs: readonly string[], architecture: Architecture): (path: string) => boolean {
  const expanded = globs.flatMap((glob) => {
    if (glob === 'default') return architecture === 'arm64' ? [...DEFAULT_MODULES, ...DEFAULT_MODULES_ARM64] : DEFAULT_MODULES
    if (glob === 'host') {
      throw new Fault('recipe', 'Cannot select the modules this machine has loaded ("host"): the image would not be reproducible')
    }
    return [glob]
  })
  const expressions = expanded.filter((glob) => glob.startsWith('re:')).map((glob) => toRegExp(glob.slice(3)))
  const matches = globMatcher(expanded.filter((glob) => !glob.startsWith('re:')).map(normalGlob))
  return (path) => {
    const below = path.slice(path.indexOf('/') + 1) // an expression sees the path below `kernel/`
    return expressions.some((expression) => expression.test(below)) || matches(normal(path.replace(MODULE_FILE, '')), false)
  }
}

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
  let todo = [...chosen, ...request(needsOf(builtinFields))]
  while (todo.length > 0) {
    const fresh = [...new Set(todo)].filter((name) => files.has(name) && !selected.has(name))
    for (const name of fresh) selected.add(name)
    const needs = await mapSome(fresh, async (name) => indexed?.get(name) ?? needsOf(await modinfo(tree, files.get(name)!)))
    todo = needs.flatMap(request)
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
  const inode = tree.get(path) as Inode & { type: 'file' }
  try {
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

/** Paths of the firmware files that are there, of those asked for and those added by globs. */
function firmwareFiles(tree: Tree, names: readonly string[], globs: readonly string[]): string[] {
  const all = [...tree].filter(([path, { type }]) => path.startsWith(`${FIRMWARE}/`) && (type === 'file' || type === 'symlink'))
  const relative = all.map(([path]) => path.slice(FIRMWARE.length + 1))
  const found = new Set<string>()
  for (const name of names) {
    for (const suffix of ['', '.xz', '.zst']) {
      if (!/[*?[]/.test(name) && resolve(tree, `${FIRMWARE}/${name}${suffix}`)) found.add(name + suffix)
    }
    if (!/[*?[]/.test(name)) continue
    const expression = globExpression(name)
    for (const path of relative) if (expression.test(path) || expression.test(bare(path))) found.add(path)
  }
  const matches = globMatcher(globs)
  const kept = [...found].filter((path) => matches(bare(path), true))
  const added = globs.length === 0 ? [] : relative.filter((path) => matches(bare(path), false))
  return [...new Set([...kept, ...added])].map((path) => `${FIRMWARE}/${path}`)
}

const bare = (path: string): string => path.replace(/\.(?:gz|xz|zst)$/, '')

/** Follows symlinks inside the tree; `visited` has every link on the way and, last, the file. Undefined where it leads nowhere. */
function resolve(tree: Tree, path: string): { visited: string[] } | undefined {
  const visited: string[] = []
  const todo = path.split('/').reverse()
  let current = ''
  for (let hops = 0; todo.length > 0; ) {
    const part = todo.pop()!
    if (part === '' || part === '.') continue
    if (part === '..') {
      current = parentOf(current)
      continue
    }
    const at = current === '' ? part : `${current}/${part}`
    const inode = tree.get(at)
    if (!inode) return undefined
    if (inode.type !== 'symlink') {
      current = at
      continue
    }
    if (++hops > 40) return undefined
    visited.push(at)
    if (inode.target.startsWith('/')) current = ''
    todo.push(...inode.target.split('/').reverse())
  }
  if (tree.get(current)?.type !== 'file') return undefined
  return { visited: [...visited, current] }
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
