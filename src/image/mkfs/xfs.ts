/**
 * xfs by mkfs.xfs, from a prototype file: a list of the tree whose files are read from where they are staged.
 *
 * Prototypes know no hard links, sticky bits, times and attributes of folders, which xfs_db adds afterwards. What the programs take from the clock
 * and from chance, a preloaded library makes constant.
 */
import { existsSync, readdirSync } from 'node:fs'
import { mkdir, writeFile } from 'node:fs/promises'
import { Fault } from '../../base/fault.ts'
import { guidBytes } from '../../base/guid.ts'
import { alignUp } from '../../base/size.ts'
import { readXattrs, setXattr } from '../../run/xattr.ts'
import { type Inode, nameOf, parentOf, type Tree } from '../../tree/tree.ts'
import type { FileSystemRequest } from '../repart/file-system.ts'
import { stageContent } from '../staging.ts'
import { checkPlain, cutLabel, makeSparse, type Place, refuse, rootOf, runTool, tooSmall } from './tool.ts'

const LABEL_BYTES = 12
const LEAST_BYTES = 300 << 20
const LOG_BYTES = 64 << 20
const MOST_ATTEMPTS = 4

export async function makeXfs(request: FileSystemRequest, place: Place): Promise<void> {
  checkPlain(request)
  if (request.minimize === 'best') throw refuse(request, 'its least size is not known: take Minimize=guess')
  await mkdir(`${place.work}/files`)
  await writeFile(`${place.work}/proto`, await protoOf(request, place.work))
  const { sizeBytes } = request
  if (sizeBytes !== undefined) {
    const outcome = await populate(request, place, sizeBytes)
    if (outcome !== undefined) throw tooSmall(request, outcome)
  } else await populateGuessed(request, place)
  await addMissing(request, place)
}

async function populateGuessed(request: FileSystemRequest, place: Place): Promise<void> {
  let guess = Math.max(LEAST_BYTES, alignUp(2 * bytesOf(request.tree) + LOG_BYTES, 1 << 20))
  for (let attempt = 0; ; attempt++) {
    const outcome = await populate(request, place, guess)
    if (outcome === undefined) return
    if (attempt === MOST_ATTEMPTS) throw refuse(request, outcome)
    guess = alignUp(guess * 1.25, 1 << 20)
  }
}

function bytesOf(tree: Tree): number {
  let bytes = 0
  for (const inode of tree.values()) bytes += 1024 + (inode.type === 'file' ? alignUp(inode.sizeBytes, 4096) : 0)
  return bytes
}

/** The prototype: one line for each inode, a `$` behind the last of a directory. Contents go into the folder `files` of `work`. */
async function protoOf(request: FileSystemRequest, work: string): Promise<string> {
  const { tree } = request
  const lines = ['/', '0 0', `${modeOf(rootOf(tree))}`]
  const open: string[] = ['']
  for (const [path, inode] of tree) {
    if (path === '' || inode.type === 'socket' || isLink(tree, path, inode)) continue
    for (; open.at(-1) !== parentOf(path); open.pop()) lines.push('$')
    lines.push(`${protoName(request, path)} ${modeOf(inode)}${await rest(request, work, path, inode, lines.length)}`)
    if (inode.type === 'directory') open.push(path)
  }
  return `${[...lines, ...open.map(() => '$')].join('\n')}\n`
}

const LETTER = { file: '-', directory: 'd', symlink: 'l', character: 'c', block: 'b', fifo: 'p', socket: '' } as const

/** Type, set-id bits, permissions and owner. */
function modeOf({ type, mode, uid, gid }: Inode): string {
  const [suid, sgid] = [mode & 0o4000 ? 'u' : '-', mode & 0o2000 ? 'g' : '-']
  return `${LETTER[type]}${suid}${sgid}${(mode & 0o777).toString(8).padStart(3, '0')} ${uid} ${gid}`
}

/** A name as one word: mkfs.xfs turns slashes back into spaces. */
function protoName(request: FileSystemRequest, path: string): string {
  const name = nameOf(path)
  if (/[\t\n\v\f\r]|^:|^\$$/.test(name)) throw refuse(request, `a prototype cannot have the name ${JSON.stringify(path)}`)
  return name.replaceAll(' ', '/')
}

async function rest(request: FileSystemRequest, work: string, path: string, inode: Inode, number: number): Promise<string> {
  if (inode.type === 'character' || inode.type === 'block') return ` ${inode.major} ${inode.minor}`
  if (inode.type === 'symlink') {
    if (/\s|^:/.test(inode.target)) throw refuse(request, `a prototype cannot have a link to ${JSON.stringify(inode.target)}`)
    return ` ${inode.target}`
  }
  if (inode.type !== 'file') return ''
  const staged = `${work}/files/${number}`
  // mkfs.xfs copies the attributes a file has on disk: they must be those of the tree.
  const { content, xattrs } = inode
  await stageContent(staged, path, inode, !xattrs?.size && 'path' in content && readXattrs(content.path).size === 0)
  for (const [name, value] of inode.xattrs ?? []) setXattr(staged, name, value)
  return ` files/${number}` // relative, as the folder's own name may have spaces
}

async function populate(request: FileSystemRequest, place: Place, sizeBytes: number): Promise<string | undefined> {
  const { uuid, label, sectorSize } = request
  await makeSparse(place.image, sizeBytes)
  const argv = [
    ...[...steady(request, place), 'mkfs.xfs', '-q', '-f', '-m', `uuid=${uuid},crc=1,bigtime=1`, '-s', `size=${sectorSize}`],
    ...['-L', cutLabel(label, LABEL_BYTES), '-p', 'proto,slashes_are_spaces=1', place.image],
  ]
  const { exitCode, stderr } = await runTool(place, argv, { allowFailure: true })
  const said = stderr.trim().split('\n')[0]!
  if (exitCode === 0) return undefined
  if (/No space left|too small|must be (?:at least|larger)|size of at least/i.test(stderr)) return said
  throw new Fault('tool', `Cannot make xfs file system ${label}: ${said || `exit code ${exitCode}`}`)
}

/** What stands before a program so that it finds neither the clock nor chance. */
const steady = ({ uuid, epoch }: FileSystemRequest, { tools }: Place): string[] => [
  'env',
  `LD_PRELOAD=${fakeTimeIn(tools)}`,
  `FAKETIME=${new Date(epoch * 1000).toISOString().slice(0, 19).replace('T', ' ')}`,
  `FAKERANDOM_SEED=0x${guidBytes(uuid).subarray(0, 8).toString('hex')}`,
]

function fakeTimeIn(tools: string): string {
  for (const folder of readdirSync(`${tools}/usr/lib`)) {
    const path = `/usr/lib/${folder}/faketime/libfaketime.so.1`
    if (existsSync(`${tools}${path}`)) return path
  }
  throw new Fault('missing', `Cannot make an xfs file system: the tools at ${tools} have no libfaketime`)
}

const firsts = new WeakMap<Tree, Map<Inode, string>>()

/** Whether a path is a further name of a file. */
function isLink(tree: Tree, path: string, inode: Inode): boolean {
  return inode.type !== 'directory' && firstPaths(tree).get(inode) !== path
}

/** The first path of every inode. */
function firstPaths(tree: Tree): Map<Inode, string> {
  let found = firsts.get(tree)
  if (found === undefined) {
    found = new Map()
    for (const [path, inode] of tree) if (!found.has(inode)) found.set(inode, path)
    firsts.set(tree, found)
  }
  return found
}

/** Hard links and attributes, then sticky bits and times, as the former change times. */
async function addMissing(request: FileSystemRequest, place: Place): Promise<void> {
  const { tree, epoch, label } = request
  const numbers = await inodeNumbers(place)
  const numberOf = (path: string) => {
    const found = numbers.get(path)
    if (found === undefined) throw new Fault('tool', `Cannot make xfs file system ${label}: /${path} is not in it`)
    return found
  }
  const [links, changes]: [string[], string[]] = [[], []]
  for (const [path, inode] of tree) {
    if (inode.type === 'socket') continue
    if (isLink(tree, path, inode)) {
      if (/\s/.test(nameOf(path))) throw refuse(request, `a hard link cannot have the name ${JSON.stringify(path)}`)
      links.push(`inode ${numberOf(parentOf(path))}`, `link -i ${numberOf(firstPaths(tree).get(inode)!)} ${nameOf(path)}`)
      continue
    }
    const attributes = inode.type === 'file' ? [] : [...(inode.xattrs ?? [])].filter(([name]) => !WHERE_IT_LIES.test(name))
    if (attributes.length > 0)
      links.push(`inode ${numberOf(path)}`, ...attributes.map((xattr) => setAttribute(request, path, xattr)))
    const time = Math.min(inode.mtime, epoch)
    if (!(inode.mode & 0o1000) && time === epoch) continue
    changes.push(`inode ${numberOf(path)}`, `write core.mtime.sec ${bigTime(time)}`)
    if (inode.mode & 0o1000) changes.push(`write core.mode 0${(TYPE_BITS[inode.type] | inode.mode).toString(8)}`)
  }
  if (links.length + changes.length === 0) return
  const input = `${[...links, ...changes, 'quit'].join('\n')}\n`
  await runTool(place, [...steady(request, place), 'xfs_db', '-x', place.image], { input })
}

/** On which partition the file system may lie: ends in a zero, which xfs_db cannot set. Without it systemd does not ask. */
const WHERE_IT_LIES = /^user\.validatefs\./

const NAMESPACE = { user: '-u', trusted: '-r', security: '-s' } as const

/** The command that sets an attribute. Its value is one word; those of files, which may be anything, are copied by mkfs.xfs. */
function setAttribute(request: FileSystemRequest, path: string, [name, value]: [string, Uint8Array]): string {
  const [, namespace, rest] = /^(user|trusted|security)\.(\S+)$/.exec(name) ?? []
  const text = Buffer.from(value).toString('latin1')
  if (rest === undefined || !/^[!-~]+$/.test(text))
    throw refuse(request, `xfs_db cannot set ${name} of /${path}, which is no file, to ${JSON.stringify(text)}`)
  return `attr_set ${NAMESPACE[namespace as keyof typeof NAMESPACE]} ${rest} ${text}`
}

/** A time as it is on disk: nanoseconds since the end of 1901. */
const bigTime = (seconds: number): bigint => (BigInt(seconds) + (1n << 31n)) * 1_000_000_000n

const TYPE_BITS = {
  fifo: 0o010000,
  character: 0o020000,
  directory: 0o040000,
  block: 0o060000,
  file: 0o100000,
  symlink: 0o120000,
  socket: 0o140000,
} as const

/** The number of every inode, by path; the root's is told apart. */
async function inodeNumbers(place: Place): Promise<Map<string, string>> {
  const commands = ['sb 0', 'print rootino', 'blockget -n', 'ncheck'].flatMap((command) => ['-c', command])
  const { stdout } = await runTool(place, ['xfs_db', '-r', ...commands, place.image])
  const numbers = new Map([['', /^rootino = (\d+)$/m.exec(stdout)?.[1] ?? '']])
  for (const line of stdout.split('\n')) {
    const match = /^\s*(\d+) (.*)$/.exec(line)
    if (match) numbers.set(match[2]!.replace(/\/?\.$/, ''), match[1]!)
  }
  return numbers
}
