/**
 * The initrd: a tree as the kernel unpacks it into its first root file system.
 *
 * A compressed initrd is a row of compressed frames, each holding a whole cpio archive of its own. The kernel unpacks them
 * one after the other into the same file system, and here they are compressed side by side. Where the row is cut follows
 * from the tree alone, so the bytes do not depend on how many threads there are.
 */
import { readFileSync } from 'node:fs'
import { constants, gzipSync, zstdCompressSync } from 'node:zlib'
import { check, xzSync } from 'node-liblzma'
import { Fault } from '../base/fault.ts'
import { type CpioEntry, cpioPadding, cpioTrailer, encodeCpioHeader, FILE_TYPE } from '../formats/cpio.ts'
import { type Moved, moved, taskOf, type Workers } from '../run/workers.ts'
import type { Content, Inode, Tree } from '../tree/tree.ts'

/** What the kernel unpacks, and `none`, which suits kernel modules that are compressed already. */
export type InitrdCompression = 'zstd' | 'xz' | 'gz' | 'none'

export interface InitrdOptions {
  compression: InitrdCompression
  level?: number
  /** One archive in one frame, which programs other than the kernel read to its end too. */
  whole?: boolean
  workers?: Workers
}

/** Encodes a tree as an initrd. Extended attributes are left out: cpio has none. */
export async function makeInitrd(tree: Tree, options: InitrdOptions): Promise<Uint8Array> {
  const members = membersOf(tree)
  const { compression, workers, level = 6, whole = false } = options
  if (compression === 'none') return encodeArchive(members)
  const frames = await Promise.all(
    (whole ? [members] : groupsOf(members)).map((group) => {
      const argument = { members: group, compression, level }
      return workers ? workers.run(COMPRESS, argument) : compressArchive(argument).result
    }),
  )
  return Buffer.concat(frames)
}

/** The initrd that carries kernel modules only; its files join those of the base initrd. */
export function makeModulesInitrd(modules: Tree, options: Omit<InitrdOptions, 'compression'> = {}): Promise<Uint8Array> {
  const compressed = [...modules.keys()].some((path) => /\.ko\.(?:xz|zst|gz)$/.test(path))
  return makeInitrd(modules, { ...options, compression: compressed ? 'none' : 'zstd' })
}

/** An entry and where its content is; a plain value, so that another thread can take it. */
interface Member extends Omit<CpioEntry, 'ino'> {
  /** Members of one number are hard links. */
  link: number
  content: Content | undefined
}

/** How much goes into one frame: enough to compress well, little enough to keep all threads busy. */
const GROUP_BYTES = 8 << 20

function membersOf(tree: Tree): Member[] {
  const paths = new Map<Inode, number>()
  for (const inode of tree.values()) paths.set(inode, (paths.get(inode) ?? 0) + 1)
  const numbers = new Map<Inode, number>()
  return [...tree].map(([path, inode]) => {
    const first = !numbers.has(inode) || inode.type === 'directory'
    if (first) numbers.set(inode, numbers.size + 1)
    const links = paths.get(inode)!
    const content = first ? contentOf(inode) : undefined
    return {
      name: path === '' ? '.' : path,
      link: numbers.get(inode)!,
      mode: FILE_TYPE[inode.type] | inode.mode,
      uid: inode.uid,
      gid: inode.gid,
      nlink: inode.type === 'directory' ? 2 : links,
      mtime: inode.mtime,
      sizeBytes:
        content === undefined
          ? 0
          : inode.type === 'file'
            ? inode.sizeBytes
            : Buffer.from((inode as { target: string }).target).length,
      rdevMajor: 'major' in inode ? inode.major : 0,
      rdevMinor: 'minor' in inode ? inode.minor : 0,
      content,
    }
  })
}

function contentOf(inode: Inode): Content | undefined {
  if (inode.type === 'file') return inode.sizeBytes > 0 ? inode.content : undefined
  return inode.type === 'symlink' ? { bytes: Buffer.from(inode.target) } : undefined
}

/** Cuts the row. Hard links must stay together, so they come last, in one group, after all directories. */
function groupsOf(members: readonly Member[]): Member[][] {
  const isLink = (member: Member) => member.nlink > 1 && (member.mode & FILE_TYPE.directory) === 0
  const groups: Member[][] = [[]]
  let sizeBytes = 0
  for (const member of members.filter((m) => !isLink(m))) {
    if (sizeBytes > 0 && sizeBytes + member.sizeBytes > GROUP_BYTES) {
      groups.push([])
      sizeBytes = 0
    }
    groups.at(-1)!.push(member)
    sizeBytes += member.sizeBytes + member.name.length + 112
  }
  const links = members.filter(isLink)
  return links.length > 0 ? [...groups, links] : groups
}

interface Compressing {
  members: readonly Member[]
  compression: Exclude<InitrdCompression, 'none'>
  level: number
}

/** Runs in a worker thread. */
export function compressArchive({ members, compression, level }: Compressing): Moved<Uint8Array> {
  const frame = new Uint8Array(COMPRESSORS[compression](encodeArchive(members), level))
  return moved(frame, [frame.buffer])
}

const COMPRESSORS = {
  zstd: (archive: Uint8Array, level: number) =>
    zstdCompressSync(archive, { params: { [constants.ZSTD_c_compressionLevel]: level, [constants.ZSTD_c_checksumFlag]: 1 } }),
  // The kernel's decompressor knows no other check.
  xz: (archive: Uint8Array, level: number) => xzSync(Buffer.from(archive), { check: check.CRC32, preset: Math.min(level, 9) }),
  gz: (archive: Uint8Array, level: number) => gzipSync(archive, { level: Math.min(level, 9) }),
} as const

const COMPRESS = taskOf(import.meta.url, compressArchive)

function encodeArchive(members: readonly Member[]): Uint8Array {
  const numbers = new Map<number, number>()
  const parts: Uint8Array[] = []
  for (const member of members) {
    if (!numbers.has(member.link)) numbers.set(member.link, numbers.size + 1)
    parts.push(encodeCpioHeader({ ...member, ino: numbers.get(member.link)! }))
    if (member.content) parts.push(contentBytes(member, member.content), cpioPadding(member.sizeBytes))
  }
  return Buffer.concat([...parts, cpioTrailer()])
}

function contentBytes(member: Member, content: Content): Uint8Array {
  const bytes = 'bytes' in content ? content.bytes : readFileSync(content.path)
  if (bytes.length !== member.sizeBytes) {
    throw new Fault(
      'integrity',
      `Cannot archive /${member.name}: it had ${member.sizeBytes} bytes when listed, now ${bytes.length}`,
    )
  }
  return bytes
}
