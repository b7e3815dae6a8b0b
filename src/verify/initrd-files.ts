/** What an initrd unpacks to, as the kernel does it: archive upon archive, in memory that a bomb does not fill. */
import { pipeline } from 'node:stream/promises'
import { createGunzip, createZstdDecompress } from 'node:zlib'
import { createUnxz } from 'node-liblzma'
import { Fault } from '../base/fault.ts'
import { formatSize } from '../base/size.ts'
import { type CpioEntry, FILE_TYPE, S_IFMT } from '../formats/cpio.ts'
import { type CpioSink, type CpioStream, readCpioStream } from '../formats/cpio-stream.ts'
import { type InitrdMember, initrdMemberAt } from '../formats/initrd.ts'
import { type FileEntry, type Files, filesOf } from './holes/files.ts'

const MAX_MEMBERS = 1024
const MAX_UNPACKED_BYTES = 4 * 2 ** 30
const MAX_ENTRIES = 200_000
const MAX_NAME_BYTES = 32 << 20
/** Larger files are there, and cannot be read. */
const MAX_KEPT_FILE_BYTES = 8 << 20
const MAX_KEPT_BYTES = 128 << 20
const PIECE = 1 << 20

const TYPES = new Map(Object.entries(FILE_TYPE).map(([type, bits]) => [bits as number, type as FileEntry['type']]))

/** What may still be unpacked, of all initrds of an image. */
export interface InitrdBudget {
  unpackedBytes: number
}

/** Unpacks all of an initrd; a Fault where the kernel would stop, or where it is larger than any honest one. */
export async function readInitrd(
  bytes: Uint8Array,
  budget: InitrdBudget = { unpackedBytes: MAX_UNPACKED_BYTES },
): Promise<{ files: Files; members: number; unpackedBytes: number }> {
  const tree = collectTree()
  let unpackedBytes = 0
  let members = 0
  const stream = readCpioStream(tree.sink)
  const counted: CpioStream = {
    get open() {
      return stream.open
    },
    push(chunk) {
      unpackedBytes += chunk.length
      budget.unpackedBytes -= chunk.length
      if (unpackedBytes > MAX_UNPACKED_BYTES || budget.unpackedBytes < 0)
        throw new Fault(
          'format',
          `Cannot unpack initrd: it has more than ${formatSize(Math.min(MAX_UNPACKED_BYTES, unpackedBytes))}`,
        )
      return stream.push(chunk)
    },
  }
  for (let at = 0; ; ) {
    const member = initrdMemberAt(bytes, at)
    if (!member) break
    if (++members > MAX_MEMBERS) throw new Fault('format', `Cannot unpack initrd: it has more than ${MAX_MEMBERS} members`)
    at = member.compression === 'none' ? unpackPlain(bytes, member, counted) : await unpackMember(bytes, member, counted)
    if (stream.open)
      throw new Fault('format', `Cannot unpack initrd: the archive in the member at offset ${member.offset} has no end`)
  }
  return { files: tree.files(), members, unpackedBytes }
}

/** Gives back where the plain archives end. */
function unpackPlain(bytes: Uint8Array, { offset, sizeBytes }: InitrdMember, stream: CpioStream): number {
  for (let done = 0; done < sizeBytes; ) {
    const piece = bytes.subarray(offset + done, offset + Math.min(done + PIECE, sizeBytes))
    const took = stream.push(piece)
    done += took
    if (took < piece.length) return offset + done
  }
  return offset + sizeBytes
}

/** Gives back where the compressed member ends. */
async function unpackMember(bytes: Uint8Array, member: InitrdMember, stream: CpioStream): Promise<number> {
  const { compression, offset, sizeBytes } = member
  const input = bytes.subarray(offset, offset + sizeBytes)
  const decoder = compression === 'zstd' ? createZstdDecompress() : compression === 'xz' ? createUnxz() : createGunzip()
  try {
    await pipeline(pieces(input), decoder, async (output: AsyncIterable<Uint8Array>) => {
      for await (const chunk of output)
        if (stream.push(chunk) !== chunk.length) throw new Fault('format', 'something other than archives is in it')
    })
  } catch (cause) {
    if (cause instanceof Fault && !cause.message.startsWith('something')) throw cause
    throw new Fault('format', `Cannot unpack ${compression} member of initrd at offset ${offset}: ${(cause as Error).message}`, {
      cause,
    })
  }
  // Members of gzip follow each other inside one decoder; what it leaves begins with no magic of its own.
  return offset + (compression === 'gzip' ? consumedBy(decoder, input.length) : sizeBytes)
}

const consumedBy = (decoder: object, most: number): number => {
  const { bytesWritten } = decoder as { bytesWritten?: number }
  return typeof bytesWritten === 'number' && bytesWritten > 0 ? Math.min(bytesWritten, most) : most
}

function* pieces(bytes: Uint8Array): Generator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += PIECE) yield bytes.subarray(at, at + PIECE)
}

interface Kept extends FileEntry {
  content?: Uint8Array | undefined
}

function collectTree(): { sink: CpioSink; files(): Files } {
  const entries = new Map<string, Kept>()
  const links = new Map<string, Kept>()
  let keptBytes = 0
  let nameBytes = 0
  const sink: CpioSink = {
    wants({ mode, sizeBytes, name }) {
      nameBytes += name.length
      const type = mode & S_IFMT
      if (type === FILE_TYPE.symlink) return sizeBytes <= 4096
      if (type !== FILE_TYPE.file || sizeBytes > MAX_KEPT_FILE_BYTES || keptBytes + sizeBytes > MAX_KEPT_BYTES) return false
      keptBytes += sizeBytes
      return true
    },
    entry(entry, content) {
      if (entries.size >= MAX_ENTRIES || nameBytes > MAX_NAME_BYTES)
        throw new Fault('format', `Cannot unpack initrd: it has more than ${MAX_ENTRIES} entries, or very long names`)
      const path = pathOf(entry.name)
      if (path !== undefined) entries.set(path, withLinks(entry, content, links))
    },
  }
  return { sink, files: () => filesOf('initrd', entries, (path) => entries.get(path)?.content) }
}

/** Names that hard links share have one content, which any of them may bring. */
function withLinks(entry: CpioEntry, content: Uint8Array | undefined, links: Map<string, Kept>): Kept {
  const made = keptOf(entry, content)
  if (made.type !== 'file' || entry.nlink < 2) return made
  const id = `${entry.ino}`
  const first = links.get(id)
  if (!first) {
    links.set(id, made)
    return made
  }
  if (entry.sizeBytes > 0) Object.assign(first, { content, sizeBytes: entry.sizeBytes })
  return first
}

function keptOf({ mode, uid, gid, sizeBytes }: CpioEntry, content: Uint8Array | undefined): Kept {
  const type = TYPES.get(mode & S_IFMT) ?? 'file'
  const base = { type, mode: mode & 0o7777, uid, gid, sizeBytes }
  if (type === 'symlink') return { ...base, target: content ? Buffer.from(content).toString('utf8') : '' }
  return type === 'file' ? { ...base, content } : base
}

/** Relative, without `.`; undefined for a name that leads out of the root. */
function pathOf(name: string): string | undefined {
  const parts = name.split('/').filter((part) => part !== '' && part !== '.')
  return parts.includes('..') ? undefined : parts.join('/')
}
