/** The kernels of an image: which there are, what their boot entries are called, and the command line they get. */
import { Fault } from '../base/fault.ts'
import { compareVersions } from '../base/version.ts'
import { decodePe } from '../formats/pe.ts'
import { readContent, readText } from '../tree/content.ts'
import { byPath, type Content, type Inode, nameOf, parentOf, type Tree } from '../tree/tree.ts'

export interface Kernel {
  /** `uname -r`. */
  version: string
  /** Path of the image in the tree. */
  path: string
  content: Content
}

const MODULES = 'usr/lib/modules'

/** The kernels of a tree, newest first. A kernel is what lies beside its modules and is called vmlinuz, or else vmlinux. */
export async function kernelsOf(tree: Tree): Promise<Kernel[]> {
  const versions = new Map<string, string[]>()
  for (const path of tree.keys()) {
    const version = nameOf(parentOf(path))
    if (path === `${MODULES}/${version}/${nameOf(path)}` && /^vmlinu[xz]/.test(nameOf(path)))
      versions.set(version, [...(versions.get(version) ?? []), path])
  }
  const kernels: Kernel[] = []
  for (const version of [...versions.keys()].sort((a, b) => compareVersions(b, a) || byPath(a, b))) {
    const paths = versions.get(version)!
    const images = [
      ...paths.filter((path) => /^vmlinuz/.test(nameOf(path))),
      ...paths.filter((path) => /^vmlinux/.test(nameOf(path))),
    ]
    for (const path of images) {
      const inode = tree.get(path)!
      if (inode.type !== 'file' || (await isUki(inode.content))) continue
      kernels.push({ version, path, content: inode.content })
      break
    }
  }
  return kernels
}

/** Some distributions ship whole UKIs under a kernel's name. */
async function isUki(content: Content): Promise<boolean> {
  const bytes = await readContent(content)
  if (bytes[0] !== 0x4d || bytes[1] !== 0x5a) return false
  const names = new Set(decodePe(bytes, 'kernel').sections.map(({ name }) => name))
  return ['.linux', '.sdmagic', '.osrel'].every((name) => names.has(name))
}

/** Kernels in /boot, as Debian has them, put beside their modules as well. */
export function withKernelsInPlace(tree: Tree): Tree {
  const placed = new Map<string, Inode>()
  for (const [path, inode] of tree) {
    const [, name, version] = /^boot\/(vmlinu[xz])-([^/]+)$/.exec(path) ?? []
    const place = `${MODULES}/${version}/${name}`
    if (inode.type !== 'file' || tree.get(`${MODULES}/${version}`)?.type !== 'directory' || tree.get(place)?.type === 'file')
      continue
    placed.set(place, inode)
  }
  return placed.size === 0 ? tree : new Map([...tree, ...placed].sort(([a], [b]) => byPath(a, b)))
}

/** The configuration of each kernel in /boot, put beside its modules, where it is part of /usr: what the chain rests on can be read there. */
export function withKernelConfigs(tree: Tree): Tree {
  const placed = new Map<string, Inode>()
  for (const [path, inode] of tree) {
    const [, version] = /^boot\/config-([^/]+)$/.exec(path) ?? []
    const place = `${MODULES}/${version}/config`
    if (inode.type === 'file' && tree.get(`${MODULES}/${version}`)?.type === 'directory' && !tree.has(place))
      placed.set(place, inode)
  }
  return placed.size === 0 ? tree : new Map([...tree, ...placed].sort(([a], [b]) => byPath(a, b)))
}

/** What the names of boot entries begin with: what the tree says, its machine id, or the id of its image or distribution. */
export async function entryToken(tree: Tree): Promise<string> {
  for (const path of ['etc/kernel/entry-token', 'usr/lib/kernel/entry-token']) {
    const [line = ''] = ((await readText(tree, path)) ?? '').split('\n')
    if (isFileName(line)) return line
  }
  const machineId = ((await readText(tree, 'etc/machine-id')) ?? '').trim()
  if (/^[0-9a-f]{32}$/.test(machineId) && !/^0+$/.test(machineId)) return machineId
  const release = (await readText(tree, 'etc/os-release')) ?? (await readText(tree, 'usr/lib/os-release')) ?? ''
  for (const field of ['IMAGE_ID', 'ID']) {
    const value = new RegExp(`^${field}=(["']?)(.*)\\1\\s*$`, 'm').exec(release)?.[2] ?? ''
    if (isFileName(value)) return value
  }
  throw new Fault('recipe', 'Cannot name boot entries: os-release has neither IMAGE_ID nor ID', { hint: 'set ImageId=' })
}

const isFileName = (name: string): boolean => /^[^/\0-\x1f\x7f]{1,255}$/.test(name) && name !== '.' && name !== '..'

export interface EntryName {
  /** `UnifiedKernelImageFormat=`; token and kernel, and the root hash where there is one, by default. */
  format?: string | undefined
  token: string
  kernel: string
  rootHash?: string | undefined
}

/** The name of a kernel's boot entry. In a format `&e` stands for the token, `&k` the kernel, `&h` the root hash, `&&` `&`. */
export function entryName({ format, token, kernel, rootHash }: EntryName): string {
  const wanted = format ?? (rootHash === undefined ? '&e-&k' : '&e-&k-&h')
  const values: Readonly<Record<string, string>> = { '&': '&', e: token, k: kernel, h: rootHash ?? '' }
  const name = wanted.replace(/&([&a-zA-Z])/g, (whole, letter: string) => {
    if (values[letter] === undefined)
      throw new Fault('recipe', `Cannot name the UKI "${wanted}": expected &&, &e, &k or &h, not ${whole}`)
    return values[letter]
  })
  if (!/^[^/\\:*?"<>|\0-\x1f\x7f]{1,250}$/.test(name))
    throw new Fault('recipe', `Cannot name the UKI "${name}": FAT has no such name`, { hint: 'set UnifiedKernelImageFormat=' })
  return name
}

export interface CommandLineInput {
  /** Of the verity partition that the system is on. */
  rootHash?: { name: 'roothash' | 'usrhash'; value: string } | undefined
  /** `KernelCommandLine=`. */
  words: readonly string[]
  /** The disk's partitions, for `root=PARTUUID` and `mount.usr=PARTUUID` where there is no root hash. */
  partitions?: readonly { type: string; uuid: string }[]
}

/** The words of the kernel command line: the tree's own, the root hash, the recipe's. */
export async function kernelCommandLine(tree: Tree, { rootHash, words, partitions = [] }: CommandLineInput): Promise<string[]> {
  const own = (await readText(tree, 'etc/kernel/cmdline')) ?? (await readText(tree, 'usr/lib/kernel/cmdline'))
  const line = own === undefined ? [] : [own.trim().replaceAll(/\s*\n\s*/g, ' ')]
  if (rootHash) return [...line, `${rootHash.name}=${rootHash.value}`, ...words]
  const uuids = [
    ['root', partitions.find(({ type }) => type.startsWith('root'))?.uuid],
    ['mount.usr', partitions.find(({ type }) => type.startsWith('usr'))?.uuid],
  ] as const
  return [...line, ...words].map((word) => {
    const uuid = uuids.find(([name]) => word === `${name}=PARTUUID`)?.[1]
    return uuid === undefined ? word : `${word}=${uuid}`
  })
}
