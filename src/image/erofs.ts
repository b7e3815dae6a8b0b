/**
 * A tree as an EROFS file system.
 *
 * File data is read, compressed and hashed by worker threads in runs of about a megabyte and written in the order
 * of the tree, so the bytes do not depend on how many threads there are, and memory does not depend on how much
 * there is to write. Files of equal bytes share their blocks.
 */
import { hash } from 'node:crypto'
import { closeSync, fstatSync, ftruncateSync, openSync, readSync, writeSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { constants, zstdCompressSync } from 'node:zlib'
import { Fault } from '../base/fault.ts'
import type { Report } from '../base/report.ts'
import { alignUp } from '../base/size.ts'
import {
  BLOCK,
  type ErofsLayout,
  type ErofsNode,
  type ErofsPlan,
  encodeInode,
  encodeRest,
  encodeSuperblock,
  inlineTailBytes,
  layOutErofs,
  MAX_CHUNK,
  planErofs,
} from '../formats/erofs.ts'
import { type Moved, moved, taskOf, type Workers, withWorkers } from '../run/workers.ts'
import { type Content, type Inode, nameOf, parentOf, type Tree } from '../tree/tree.ts'

export interface ErofsOptions {
  uuid: string
  /** Volume name, at most 15 bytes. */
  label?: string | undefined
  compression: 'zstd' | 'none'
  /** zstd level, 1 to 22; 3 unless given. */
  level?: number | undefined
  /** Bytes compressed together: more make a smaller image and slower random reads. 128 KiB unless given. */
  chunkBytes?: number | undefined
  /** A pool to share, or how many threads to start; one per processor unless given. */
  workers?: Workers | number | undefined
}

/**
 * Writes `tree` to a new file at `path`, a multiple of 4096 bytes long. On failure there is no file.
 * A file of the tree whose size is no longer what the tree says is a Fault.
 */
export async function writeErofs(
  tree: Tree,
  path: string,
  options: ErofsOptions,
  report: Report,
): Promise<{ sizeBytes: number; blocks: number }> {
  const settings = checkOptions(options)
  const { nodes, contents } = nodesOf(tree)
  const plan = planErofs(nodes)
  const fd = openSync(path, 'w')
  try {
    return await withWorkers(options.workers, async (workers) => {
      const state: Writing = { fd, workers, plan, contents, settings, report, nextBlock: 1, compressed: false }
      await writeData(state)
      const layout = layOutErofs(plan, state.nextBlock)
      await writeMetadata(state, layout)
      const { compressed } = state
      writeAll(fd, encodeSuperblock(layout, { ...options, label: options.label ?? '', compressed }), 0)
      ftruncateSync(fd, layout.endBlock * BLOCK)
      return { sizeBytes: layout.endBlock * BLOCK, blocks: layout.endBlock }
    })
  } catch (error) {
    await rm(path, { force: true })
    throw error
  } finally {
    closeSync(fd)
  }
}

/** Bytes of input that go to a thread at a time. */
const RUN_BYTES = 1 << 20

interface Settings {
  zstd: boolean
  level: number
  chunkBytes: number
}

interface Writing {
  readonly fd: number
  readonly workers: Workers
  readonly plan: ErofsPlan
  /** Content of each node that is a file. */
  readonly contents: readonly (Content | undefined)[]
  readonly settings: Settings
  readonly report: Report
  nextBlock: number
  /** Whether any file is stored compressed. */
  compressed: boolean
}

function checkOptions(options: ErofsOptions): Settings {
  const { level = 3, chunkBytes = 128 << 10 } = options
  if (!Number.isInteger(level) || level < 1 || level > 22)
    throw new Fault('usage', `Cannot compress EROFS with zstd level ${level}: expected 1 to 22`)
  if (!Number.isInteger(chunkBytes) || chunkBytes < BLOCK || chunkBytes > MAX_CHUNK || chunkBytes % BLOCK !== 0) {
    throw new Fault(
      'usage',
      `Cannot compress EROFS in chunks of ${chunkBytes} bytes: expected a multiple of ${BLOCK} up to ${MAX_CHUNK}`,
    )
  }
  return { zstd: options.compression === 'zstd', level, chunkBytes }
}

type FileNode = ErofsNode & { kind: { type: 'file' } }
type DirectoryNode = ErofsNode & { kind: { type: 'directory' } }

/** The tree as a list of inodes, the root first. One inode object under several paths is one node. */
function nodesOf(tree: Tree): { nodes: ErofsNode[]; contents: (Content | undefined)[] } {
  const nodes: ErofsNode[] = []
  const contents: (Content | undefined)[] = []
  const directories = new Map<string, { index: number; node: DirectoryNode }>()
  const linked = new Map<Inode, number>()
  for (const [path, inode] of tree) {
    const parent = path === '' ? undefined : directories.get(parentOf(path))
    if (path !== '' && !parent) {
      const known = tree.has(parentOf(path)) ? 'not a directory, or comes after it' : 'not in the tree'
      throw new Fault('format', `Cannot make EROFS of /${path}: its parent is ${known}`)
    }
    let index = inode.type === 'directory' ? undefined : linked.get(inode)
    if (index === undefined) {
      index = nodes.length
      if (inode.type === 'file' && 'bytes' in inode.content && inode.content.bytes.length !== inode.sizeBytes)
        throw changed(`/${path}`, inode.content.bytes.length, inode.sizeBytes)
      const node = nodeOf(inode, parent?.index ?? 0)
      nodes.push(node)
      contents.push(inode.type === 'file' ? inode.content : undefined)
      if (inode.type === 'directory') directories.set(path, { index, node: node as DirectoryNode })
      else linked.set(inode, index)
    }
    parent?.node.kind.entries.push({ name: nameOf(path), node: index })
  }
  return { nodes, contents }
}

function nodeOf(inode: Inode, parent: number): ErofsNode {
  const { mode, uid, gid, mtime, xattrs } = inode
  return { mode, uid, gid, mtime, xattrs, kind: kindOf(inode, parent) }
}

function kindOf(inode: Inode, parent: number): ErofsNode['kind'] {
  switch (inode.type) {
    case 'file':
      return { type: 'file', sizeBytes: inode.sizeBytes, data: { layout: 'flat', startBlock: 0, inlineTail: false } }
    case 'directory':
      return { type: 'directory', parent, entries: [] }
    case 'symlink':
      return { type: 'symlink', target: inode.target }
    case 'character':
    case 'block':
      return { type: inode.type, major: inode.major, minor: inode.minor }
    default:
      return { type: inode.type }
  }
}

// ——— File data ———

/** A part of a file that is read in one go. */
interface Piece {
  content: Content
  /** Size of the whole file, to notice that it changed. */
  fileBytes: number
  offset: number
  sizeBytes: number
  compress: boolean
  /** The file has a size others have too, so its digest is wanted. */
  digest: boolean
}

interface Run {
  pieces: Piece[]
  level: number
}

interface RunResult {
  /** Blocks of all pieces, one after the other. */
  data: Uint8Array<ArrayBuffer>
  /** Blocks of each piece. */
  blocks: Uint16Array
  /** Digest of each piece; empty where none was wanted. */
  digests: string[]
}

/** A file being written: what is known of the pieces that came back so far. */
interface OpenFile {
  index: number
  startBlock: number
  blocks: number[]
  digests: string[]
  /** Number of pieces in all. */
  pieces: number
}

/** Puts the bytes of all files that do not fit beside their inodes into blocks, and notes where. */
async function writeData(state: Writing): Promise<void> {
  const { plan, report } = state
  const total = plan.nodes.reduce((sum, { kind }) => sum + (kind.type === 'file' ? kind.sizeBytes : 0), 0)
  const seen = new Map<string, FileNode>()
  const open: OpenFile[] = []
  let done = 0
  await inOrder(
    runs(state, open),
    state.workers,
    (run) => state.workers.run(taskOf(import.meta.url, packRun), run),
    ({ pieces }, result) => {
      let at = 0
      pieces.forEach((piece, i) => {
        const end = at + result.blocks[i]! * BLOCK
        const file = open[0]!
        if (file.blocks.length === 0) file.startBlock = state.nextBlock
        file.blocks.push(result.blocks[i]!)
        file.digests.push(result.digests[i]!)
        writeAll(state.fd, result.data.subarray(at, end), state.nextBlock * BLOCK)
        state.nextBlock += result.blocks[i]!
        at = end
        done += piece.sizeBytes
        if (file.blocks.length === file.pieces) settle(state, open.shift()!, seen)
      })
      result.data.buffer.transfer(0) // frees a megabyte now, not when the collector finds it
      report.tell({ type: 'progress', done, total, unit: 'bytes' })
    },
  )
}

/** Pieces of all files, gathered into runs. Each file that has any is added to `open`. */
function* runs(state: Writing, open: OpenFile[]): Generator<Run> {
  const { plan, contents, settings } = state
  const bySize = new Map<number, number>()
  for (const { kind } of plan.nodes) if (kind.type === 'file') bySize.set(kind.sizeBytes, (bySize.get(kind.sizeBytes) ?? 0) + 1)
  let pieces: Piece[] = []
  let gathered = 0
  for (let index = 0; index < plan.nodes.length; index++) {
    const { kind } = plan.nodes[index]!
    if (kind.type !== 'file') continue
    const compress = settings.zstd && kind.sizeBytes > BLOCK
    const tail = compress ? 0 : inlineTailBytes(plan, index, kind.sizeBytes)
    kind.data = { layout: 'flat', startBlock: 0, inlineTail: tail > 0 }
    const outside = kind.sizeBytes - tail
    if (outside === 0) continue
    open.push({ index, startBlock: 0, blocks: [], digests: [], pieces: Math.ceil(outside / settings.chunkBytes) })
    const digest = bySize.get(kind.sizeBytes)! > 1
    for (let offset = 0; offset < outside; offset += settings.chunkBytes) {
      const sizeBytes = Math.min(settings.chunkBytes, outside - offset)
      const content = portable(contents[index]!, offset, sizeBytes)
      pieces.push({ content, fileBytes: kind.sizeBytes, offset, sizeBytes, compress, digest })
      gathered += sizeBytes
      if (gathered < RUN_BYTES) continue
      yield { pieces, level: settings.level }
      pieces = []
      gathered = 0
    }
  }
  if (pieces.length > 0) yield { pieces, level: settings.level }
}

/** All of a file is written: notes where, or takes it back when the same bytes are there already. */
function settle(state: Writing, file: OpenFile, seen: Map<string, FileNode>): void {
  const { plan, settings } = state
  const node = plan.nodes[file.index] as FileNode
  const { sizeBytes } = node.kind
  const total = file.blocks.reduce((sum, n) => sum + n, 0)
  const { startBlock } = file
  if (settings.zstd && sizeBytes > BLOCK) {
    if (total < Math.ceil(sizeBytes / BLOCK)) {
      const chunkBlocks = Uint16Array.from(file.blocks)
      node.kind.data = { layout: 'chunks', startBlock, chunkBytes: settings.chunkBytes, chunkBlocks }
    } else {
      const inlineTail = inlineTailBytes(plan, file.index, sizeBytes) > 0
      node.kind.data = { layout: 'flat', startBlock, inlineTail }
      if (inlineTail) state.nextBlock--
    }
  } else node.kind.data = { ...node.kind.data, startBlock }

  if (file.digests[0] !== '') {
    const { data } = node.kind
    const key = `${sizeBytes} ${data.layout} ${data.layout === 'flat' && data.inlineTail} ${hash('sha256', file.digests.join())}`
    const same = seen.get(key)
    if (same) {
      node.kind.data = same.kind.data
      state.nextBlock = startBlock
    } else seen.set(key, node)
  }
  if (node.kind.data.layout === 'chunks') state.compressed = true
}

/** Task: reads pieces, compresses those that gain by it, and gives their blocks. */
export function packRun(run: Run): Moved<RunResult> {
  const data = new Uint8Array(run.pieces.reduce((sum, piece) => sum + alignUp(piece.sizeBytes, BLOCK), 0))
  const blocks = new Uint16Array(run.pieces.length)
  const digests: string[] = []
  let at = 0
  withReader((read) => {
    run.pieces.forEach((piece, i) => {
      const input = data.subarray(at, at + piece.sizeBytes)
      read(piece, input)
      digests.push(piece.digest ? hash('sha256', input, 'base64') : '')
      const raw = alignUp(piece.sizeBytes, BLOCK)
      const packed = piece.compress && raw > BLOCK ? compressed(input, run.level) : input
      const needed = alignUp(packed.length, BLOCK)
      if (packed === input || needed >= piece.sizeBytes) {
        at += raw
        blocks[i] = raw / BLOCK
        return
      }
      // A compressed chunk lies at the end of its blocks.
      data.fill(0, at, at + raw)
      data.set(packed, at + needed - packed.length)
      at += needed
      blocks[i] = needed / BLOCK
    })
  })
  return moved({ data: data.subarray(0, at), blocks, digests }, [data.buffer, blocks.buffer])
}

/** One frame whose window is its content: what the kernel expects of a chunk. */
const compressed = (input: Uint8Array, level: number): Uint8Array =>
  zstdCompressSync(input, { params: { [constants.ZSTD_c_compressionLevel]: level } })

// ——— Metadata ———

/** Nodes whose metadata is written together. */
interface Stretch {
  first: number
  end: number
  /** Where their metadata begins. */
  from: number
  sizeBytes: number
}

/** Writes all inodes with what lies beside them, and the blocks after them. Tails of files are read only now. */
async function writeMetadata(state: Writing, layout: ErofsLayout): Promise<void> {
  const { fd, plan, contents, workers } = state
  const base = layout.metaBlock * BLOCK
  const tailOf = (index: number): Piece | undefined => {
    const { kind } = plan.nodes[index]!
    if (kind.type !== 'file' || kind.data.layout !== 'flat' || !kind.data.inlineTail) return undefined
    const sizeBytes = kind.sizeBytes % BLOCK
    const offset = kind.sizeBytes - sizeBytes
    const content = portable(contents[index]!, offset, sizeBytes)
    return { content, fileBytes: kind.sizeBytes, offset, sizeBytes, compress: false, digest: false }
  }
  await inOrder(
    stretches(layout),
    workers,
    async ({ first, end }) => {
      const nodes = [...layout.order.subarray(first, end)]
      const pieces = nodes.map(tailOf).filter((piece) => piece !== undefined)
      return pieces.length === 0 ? new Uint8Array(0) : await workers.run(taskOf(import.meta.url, readPieces), pieces)
    },
    ({ first, end, from, sizeBytes }, tails) => {
      const out = new Uint8Array(sizeBytes)
      let at = 0
      for (const index of layout.order.subarray(first, end)) {
        const tail = tailOf(index)?.sizeBytes ?? 0
        encodeInode(layout, index, out, layout.offsets[index]! - from, tail > 0 ? tails.subarray(at, at + tail) : undefined)
        at += tail
      }
      writeAll(fd, out, base + from)
    },
  )
  let at = base + (layout.xattrBlock - layout.metaBlock) * BLOCK
  for (const block of encodeRest(layout)) {
    writeAll(fd, block, at)
    at += block.length
  }
}

function* stretches(layout: ErofsLayout): Generator<Stretch> {
  const { order, offsets, sizes } = layout
  for (let first = 0; first < order.length; ) {
    const from = offsets[order[first]!]!
    let end = first
    let until = from
    while (end < order.length && until - from < RUN_BYTES) {
      until = offsets[order[end]!]! + sizes[order[end]!]!
      end++
    }
    yield { first, end, from, sizeBytes: until - from }
    first = end
  }
}

/** Task: the bytes of pieces, one after the other. */
export function readPieces(pieces: Piece[]): Moved<Uint8Array> {
  const data = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.sizeBytes, 0))
  let at = 0
  withReader((read) => {
    for (const piece of pieces) {
      read(piece, data.subarray(at, at + piece.sizeBytes))
      at += piece.sizeBytes
    }
  })
  return moved(data, [data.buffer])
}

// ——— Reading and writing ———

/** Hands out a function that reads pieces; the last file stays open for the next piece. */
function withReader(body: (read: (piece: Piece, into: Uint8Array) => void) => void): void {
  let path: string | undefined
  let fd = -1
  try {
    body((piece, into) => {
      if ('bytes' in piece.content) return into.set(piece.content.bytes)
      if (piece.content.path !== path) {
        if (fd >= 0) closeSync(fd)
        fd = -1
        fd = openFile(piece.content.path)
        path = piece.content.path
      }
      const size = fstatSync(fd).size
      if (size !== piece.fileBytes) throw changed(path, size, piece.fileBytes)
      for (let at = 0; at < into.length; ) {
        const got = readSync(fd, into, at, into.length - at, piece.offset + at)
        if (got === 0) throw changed(path, piece.offset + at, piece.fileBytes)
        at += got
      }
    })
  } finally {
    if (fd >= 0) closeSync(fd)
  }
}

function openFile(path: string): number {
  try {
    return openSync(path, 'r')
  } catch (cause) {
    throw new Fault('missing', `Cannot read ${path}: ${(cause as Error).message}`, { cause })
  }
}

const changed = (path: string, now: number, then: number): Fault =>
  new Fault('integrity', `Cannot write ${path} into EROFS: it has ${now} bytes, the tree says ${then}`)

/** The part of a content that a piece needs: bytes in memory are copied to the other thread. */
function portable(content: Content, offset: number, sizeBytes: number): Content {
  if ('path' in content) return content
  return { bytes: content.bytes.slice(offset, offset + sizeBytes) }
}

/** Starts work as threads get free, and takes results in the order of the items. */
async function inOrder<A, R>(
  items: Iterable<A>,
  workers: Workers,
  start: (item: A) => Promise<R>,
  take: (item: A, result: R) => void,
): Promise<void> {
  const under: { item: A; result: Promise<R> }[] = []
  const takeFirst = async () => {
    const { item, result } = under.shift()!
    take(item, await result)
  }
  try {
    for (const item of items) {
      const result = start(item)
      result.catch(() => {}) // looked at when its turn comes
      under.push({ item, result })
      if (under.length >= 3 * workers.size) await takeFirst()
    }
    while (under.length > 0) await takeFirst()
  } catch (error) {
    await Promise.allSettled(under.map(({ result }) => result))
    throw error
  }
}

function writeAll(fd: number, bytes: Uint8Array, position: number): void {
  for (let at = 0; at < bytes.length; ) at += writeSync(fd, bytes, at, bytes.length - at, position + at)
}
