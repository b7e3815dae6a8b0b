/**
 * Writing a package's files below a root directory, the way dpkg does.
 *
 * Nothing a package or an earlier one says leads outside the root: every parent directory is resolved as a process
 * with that root as `/` would, files are created only where nothing is, and links are never followed to write.
 * Directories that exist stay as they are, also where a symbolic link leads to them (`/bin` → `usr/bin`).
 */
import {
  chmodSync,
  closeSync,
  constants,
  fchmodSync,
  fchownSync,
  ftruncateSync,
  futimesSync,
  lchownSync,
  linkSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  type Stats,
  symlinkSync,
  writeSync,
} from 'node:fs'
import { Fault } from '../../base/fault.ts'
import type { Report } from '../../base/report.ts'
import { type Deb, dataOf, decodeDeb, decodeDebData } from '../../formats/deb.ts'
import { field } from '../../formats/deb822.ts'
import { decodeTar, type TarFile } from '../../formats/tar.ts'
import { resolveInside } from '../../run/inside.ts'
import { makeFifo } from '../../run/libc.ts'
import { setXattr } from '../../run/xattr.ts'
import type { Inode } from '../../tree/tree.ts'
import { type FetchedPackage, packageId } from '../package.ts'

/** What decides where and how a package's files are written. All of it may be left out. */
export interface Rules {
  /** Leaves out a path (`/usr/share/man/man1/ls.1.gz`). */
  exclude?: (path: string, type: TarFile['type']) => boolean
  /** Where a path goes instead, by diversion. */
  diverted?: (path: string) => string | undefined
  /** Owner and mode an administrator chose. */
  override?: (path: string) => { uid: number; gid: number; mode: number } | undefined
  /** Asked before anything but a directory is written. False leaves it out; throws where another package's file stands. */
  claim?: (path: string) => boolean
  /** Conffiles go to `PATH.dpkg-new`, for dpkg to put in place when it configures the package. */
  conffiles?: ReadonlySet<string>
  /** Owners are left alone: everything belongs to whoever unpacks. */
  ownerless?: boolean
}

export interface Unpacked {
  /** Every path of the package, `/.` first, in the package's order. */
  paths: string[]
  /** Device nodes, which user namespaces may not make, by path relative to the root. */
  devices: Map<string, Inode>
  /** Files that run with their owner's or group's rights. */
  setuid: string[]
  files: number
  bytes: number
}

/** Unpacks packages without running any of their scripts: enough for a tree of tools. The root is created. */
export async function unpackPackages(root: string, packages: readonly FetchedPackage[], report: Report): Promise<void> {
  mergeUsr(root, packages[0]?.architecture ?? 'amd64')
  let done = 0
  await eachData(packages, async (_, data) => {
    await unpackData(root, data, { ownerless: true })
    report.tell({ type: 'progress', done: ++done, total: packages.length, unit: 'packages' })
  })
}

/** Hands over the data of packages one after the other, decompressing the next few on other threads in the meantime. */
export async function eachData<P extends FetchedPackage>(
  packages: readonly P[],
  body: (p: P, data: AsyncIterable<Uint8Array>) => Promise<void>,
): Promise<void> {
  const ahead: { data: AsyncIterable<Uint8Array>; sizeBytes: number }[] = []
  let next = 0
  for (const p of packages) {
    const isRoom = () => ahead.length < MOST_AHEAD && ahead.reduce((sum, one) => sum + one.sizeBytes, 0) < MOST_AHEAD_BYTES
    while (next < packages.length && (ahead.length === 0 || isRoom())) {
      const from = packages[next++]!
      const data = naming(from, () => decodeDebData(readFileSync(from.file)))
      ahead.push({ data: dataOf(data, { aheadBytes: AHEAD_BYTES }), sizeBytes: data.bytes.length })
    }
    try {
      await body(p, ahead.shift()!.data)
    } catch (error) {
      throw error instanceof Fault && error.code === 'format' ? named(p, error) : error
    }
  }
}

const MOST_AHEAD = 4
const MOST_AHEAD_BYTES = 64 << 20
const AHEAD_BYTES = 16 << 20

/** What a package says of itself. */
export type Control = Omit<Deb, 'data'>

/** Reads the control part of a fetched package and checks that it is the one it is taken for. */
export async function loadControl(p: FetchedPackage): Promise<Control> {
  try {
    const { data: _, ...control } = await decodeDeb(readFileSync(p.file))
    const [name, version, architecture] = ['Package', 'Version', 'Architecture'].map((key) => field(control.fields, key)!)
    const found = packageId({ name: name!, version: version!, architecture: architecture! })
    if (found !== packageId(p)) throw new Fault('format', `it says to be ${found}`)
    return control
  } catch (error) {
    throw error instanceof Fault ? named(p, error) : error
  }
}

function naming<T>(p: FetchedPackage, body: () => T): T {
  try {
    return body()
  } catch (error) {
    throw error instanceof Fault ? named(p, error) : error
  }
}

const named = (p: FetchedPackage, fault: Fault) =>
  new Fault(fault.code, `Cannot unpack ${packageId(p)}: ${fault.message}`, { cause: fault })

/** Creates the links that make `/bin`, `/lib` and their kin parts of `/usr`, where nothing stands. */
export function mergeUsr(root: string, architecture: string): void {
  mkdirSync(root, { recursive: true })
  for (const name of ['bin', 'sbin', 'lib', ...(['amd64', 'x86_64'].includes(architecture) ? ['lib64'] : [])]) {
    if (lstatSync(`${root}/${name}`, { throwIfNoEntry: false })) continue
    mkdirSync(`${root}/usr/${name}`, { recursive: true, mode: 0o755 })
    symlinkSync(`usr/${name}`, `${root}/${name}`)
  }
}

/** Writes the files of a data.tar below `root`. */
export async function unpackData(root: string, data: AsyncIterable<Uint8Array>, rules: Rules): Promise<Unpacked> {
  const place = new Place(root, rules)
  const result: Unpacked = { paths: [], devices: new Map(), setuid: [], files: 0, bytes: 0 }
  const seen = new Set<string>()
  for await (const entry of decodeTar(data)) {
    const path = normalized(entry.path)
    if (path === '/.' && entry.type !== 'directory') throw new Fault('format', `Cannot unpack /: it is a ${entry.type}`)
    if (rules.exclude?.(path, entry.type)) continue
    if (seen.has(path)) {
      if (entry.type === 'directory') continue
      throw new Fault('format', `Cannot unpack ${path}: the package holds it twice`)
    }
    seen.add(path)
    if (entry.type !== 'directory' && rules.claim?.(path) === false) continue
    result.paths.push(path)
    if (path === '/.') continue
    await place.put(path, entry, result)
  }
  return result
}

/** `./usr/bin/` → `/usr/bin`; the root is `/.`, as dpkg lists it. */
function normalized(path: string): string {
  const parts = path.split('/').filter((part) => part !== '' && part !== '.')
  if (parts.includes('..') || path.includes('\0') || path.includes('\n')) {
    throw new Fault('format', `Cannot unpack ${JSON.stringify(path)}: it may lead elsewhere`)
  }
  return parts.length === 0 ? '/.' : `/${parts.join('/')}`
}

/** One package being put below a root. Resolved parents are remembered until a link or directory changes what they mean. */
class Place {
  readonly #root: string
  readonly #rules: Rules
  readonly #parents = new Map<string, string>()
  /** Where conffiles and diverted files were put, for hard links to them. */
  readonly #moved = new Map<string, string>()

  constructor(root: string, rules: Rules) {
    this.#root = root
    this.#rules = rules
  }

  async put(path: string, entry: TarFile, result: Unpacked): Promise<void> {
    const override = this.#rules.override?.(path)
    if (override) Object.assign(entry, override)
    if (entry.type === 'directory') return this.#directory(path, entry)
    const target = this.#targetOf(path)
    if (target !== path) this.#moved.set(path, target)
    const at = this.#resolve(target)
    if (!this.#makeRoom(path, at, entry)) return
    if (entry.type === 'file') await this.#file(at, entry, result)
    else if (entry.type === 'symlink') this.#symlink(at, entry)
    else if (entry.type === 'hardlink') this.#hardlink(path, at, entry)
    else if (entry.type === 'fifo') this.#fifo(at, entry)
    else result.devices.set(at.slice(this.#root.length + 1), deviceOf(entry, entry.type))
    if (entry.type === 'file' && entry.mode & 0o6000) result.setuid.push(path)
  }

  #targetOf(path: string): string {
    const diverted = this.#rules.diverted?.(path) ?? path
    return this.#rules.conffiles?.has(path) ? `${diverted}.dpkg-new` : diverted
  }

  /** The path on the host at which `path` is to be created; its parents exist from here on. */
  #resolve(path: string): string {
    const slash = path.lastIndexOf('/')
    return `${this.#parent(path.slice(0, slash))}/${path.slice(slash + 1)}`
  }

  #parent(path: string): string {
    const known = this.#parents.get(path)
    if (known !== undefined) return known
    const inside = resolveInside(this.#root, path, { followLast: true })
    const at = inside === '' ? this.#root : `${this.#root}/${inside}`
    if (at !== this.#root && !isDirectory(at)) makeDirectories(this.#root, inside)
    this.#parents.set(path, at)
    return at
  }

  #directory(path: string, entry: TarFile): void {
    const at = this.#resolve(path)
    const there = lstatSync(at, { throwIfNoEntry: false })
    if (there?.isDirectory()) return
    if (there?.isSymbolicLink()) {
      const inside = resolveInside(this.#root, at.slice(this.#root.length), { followLast: true })
      if (isDirectory(`${this.#root}/${inside}`)) return
    }
    if (there) {
      rmSync(at)
      this.#parents.clear()
    }
    mkdirSync(at, 0o700)
    if (!this.#rules.ownerless) lchownSync(at, entry.uid, entry.gid)
    chmodSync(at, this.#modeOf(entry))
    setXattrs(at, entry, this.#rules.ownerless)
  }

  /** Takes away what stands at a path. False where it may stay: a link to the directory that is there. */
  #makeRoom(path: string, at: string, entry: TarFile): boolean {
    const there = lstatSync(at, { throwIfNoEntry: false })
    if (!there) return true
    if (there.isDirectory()) {
      if (entry.type === 'symlink' && this.#leadsTo(at, entry.target)) return false
      throw new Fault('format', `Cannot unpack ${path}: a directory stands there, the package has a ${entry.type}`)
    }
    rmSync(at)
    if (there.isSymbolicLink()) this.#parents.clear()
    return true
  }

  #leadsTo(at: string, target: string): boolean {
    const inside = at.slice(this.#root.length)
    const from = target.startsWith('/') ? target : `${inside.slice(0, inside.lastIndexOf('/'))}/${target}`
    return `${this.#root}/${resolveInside(this.#root, from, { followLast: true })}` === at
  }

  async #file(at: string, entry: TarFile, result: Unpacked): Promise<void> {
    const fd = openSync(at, CREATE, 0o600)
    try {
      let end = 0
      for await (const { offset, bytes } of entry.content()) {
        writeAll(fd, bytes, offset)
        end = offset + bytes.length
      }
      if (end < entry.sizeBytes) ftruncateSync(fd, entry.sizeBytes)
      if (!this.#rules.ownerless) fchownSync(fd, entry.uid, entry.gid)
      fchmodSync(fd, this.#modeOf(entry))
      futimesSync(fd, entry.mtime, entry.mtime)
    } finally {
      closeSync(fd)
    }
    setXattrs(at, entry, this.#rules.ownerless)
    result.files++
    result.bytes += entry.sizeBytes
  }

  #symlink(at: string, entry: TarFile): void {
    if (entry.target === '' || entry.target.includes('\0'))
      throw new Fault('format', `Cannot unpack ${entry.path}: the link has no target`)
    symlinkSync(entry.target, at)
    if (!this.#rules.ownerless) lchownSync(at, entry.uid, entry.gid)
    lutimesSync(at, entry.mtime, entry.mtime)
    this.#parents.clear()
  }

  #hardlink(path: string, at: string, entry: TarFile): void {
    const target = normalized(entry.target)
    const from = this.#resolve(this.#moved.get(target) ?? this.#targetOf(target))
    const there = lstatSync(from, { throwIfNoEntry: false })
    if (!there || there.isDirectory())
      throw new Fault(
        'format',
        `Cannot unpack ${path}: it is a hard link to ${target}, which is ${there ? 'a directory' : 'not there'}`,
      )
    linkSync(from, at)
  }

  #fifo(at: string, entry: TarFile): void {
    makeFifo(at)
    if (!this.#rules.ownerless) lchownSync(at, entry.uid, entry.gid)
    chmodSync(at, this.#modeOf(entry))
    lutimesSync(at, entry.mtime, entry.mtime)
  }

  /** Without owners, nothing may take on the rights of one. */
  #modeOf(entry: TarFile): number {
    return this.#rules.ownerless ? (entry.mode & 0o777) | 0o600 : entry.mode
  }
}

const CREATE = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW

function writeAll(fd: number, bytes: Uint8Array, offset: number): void {
  try {
    for (let done = 0; done < bytes.length; ) done += writeSync(fd, bytes, done, bytes.length - done, offset + done)
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code
    if (code === 'ENOSPC' || code === 'EDQUOT') throw new Fault('host', 'Cannot unpack packages: the disk is full', { cause })
    throw cause
  }
}

function setXattrs(at: string, entry: TarFile, ownerless = false): void {
  for (const [name, value] of entry.xattrs) {
    if (ownerless || !/^(security\.capability|user\.)/.test(name)) continue
    setXattr(at, name, value)
  }
}

function deviceOf(entry: TarFile, type: 'character' | 'block'): Inode {
  const { mode, uid, gid, mtime, major, minor } = entry
  return { type, mode, uid, gid, mtime, major, minor }
}

const isDirectory = (path: string): boolean =>
  Boolean((lstatSync(path, { throwIfNoEntry: false }) as Stats | undefined)?.isDirectory())

/** Parents a package forgot to ship. `inside` is resolved: none of its parts is a link. */
function makeDirectories(root: string, inside: string): void {
  let at = root
  for (const part of inside.split('/')) {
    at += `/${part}`
    const there = lstatSync(at, { throwIfNoEntry: false })
    if (there?.isDirectory()) continue
    if (there) throw new Fault('format', `Cannot unpack /${inside}: ${at.slice(root.length)} is no directory`)
    mkdirSync(at, 0o755)
    chmodSync(at, 0o755)
  }
}
