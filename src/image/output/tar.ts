/** A tree as a tar archive: in the order of the tree, every owner, attribute and hard link kept, nothing of the host in it. */
import { createReadStream, readFileSync } from 'node:fs'
import { Fault } from '../../base/fault.ts'
import { encodeTarHeader, TAR_END, type TarEntryGiven, tarPadding } from '../../formats/tar.ts'
import type { Inode, Tree } from '../../tree/tree.ts'

export interface TarOptions {
  /** Times later than this become it, in seconds since 1970. */
  epoch?: number
}

/** The archive as it is made. Files stream through; sockets are left out, as they mean nothing elsewhere. */
export async function* tarOf(tree: Tree, options: TarOptions = {}): AsyncGenerator<Uint8Array> {
  const linked = new Map<Inode, string>()
  let held: Uint8Array[] = []
  let heldBytes = 0
  const hold = (bytes: Uint8Array) => {
    held.push(bytes)
    heldBytes += bytes.length
  }
  const release = () => {
    const bytes = Buffer.concat(held)
    held = []
    heldBytes = 0
    return bytes
  }
  for (const [path, inode] of tree) {
    if (inode.type === 'socket') continue
    const name = nameIn(path, inode)
    const first = inode.type === 'directory' ? undefined : linked.get(inode)
    hold(encodeTarHeader(entryOf(name, inode, first, options.epoch)))
    if (first === undefined && inode.type !== 'directory') linked.set(inode, name)
    if (first === undefined && inode.type === 'file' && inode.sizeBytes > 0) {
      if (inode.sizeBytes > SMALL_BYTES) yield release()
      for await (const bytes of contentOf(path, inode)) {
        if (inode.sizeBytes > SMALL_BYTES) yield bytes
        else hold(bytes)
      }
      hold(tarPadding(inode.sizeBytes))
    }
    if (heldBytes > PIECE_BYTES) yield release()
  }
  hold(TAR_END)
  yield release()
}

/** Files up to this size are read whole, and go out together. */
const SMALL_BYTES = 256 << 10
const PIECE_BYTES = 1 << 20

const nameIn = (path: string, inode: Inode) => `./${path}${inode.type === 'directory' && path !== '' ? '/' : ''}`

function entryOf(path: string, inode: Inode, first: string | undefined, epoch = Number.POSITIVE_INFINITY): TarEntryGiven {
  const { mode, uid, gid } = inode
  const common = { path, mode, uid, gid, mtime: Math.min(inode.mtime, epoch), xattrs: new Map(inode.xattrs) }
  if (first !== undefined) return { ...common, type: 'hardlink', target: first, xattrs: new Map() }
  if (inode.type === 'file') return { ...common, type: 'file', sizeBytes: inode.sizeBytes }
  if (inode.type === 'symlink') return { ...common, type: 'symlink', target: inode.target }
  if (inode.type === 'character' || inode.type === 'block') {
    return { ...common, type: inode.type, major: inode.major, minor: inode.minor }
  }
  return { ...common, type: inode.type === 'fifo' ? 'fifo' : 'directory' }
}

async function* contentOf(path: string, inode: Inode & { type: 'file' }): AsyncGenerator<Uint8Array> {
  const { content, sizeBytes } = inode
  let got = 0
  if ('bytes' in content) {
    got = content.bytes.length
    if (got === sizeBytes) yield content.bytes
  } else if (sizeBytes <= SMALL_BYTES) {
    const bytes = readFileSync(content.path) // waiting for a thread would take longer than reading
    got = bytes.length
    if (got === sizeBytes) yield bytes
  } else {
    for await (const bytes of createReadStream(content.path, { highWaterMark: PIECE_BYTES }) as AsyncIterable<Buffer>) {
      got += bytes.length
      if (got <= sizeBytes) yield bytes
    }
  }
  if (got !== sizeBytes)
    throw new Fault('integrity', `Cannot archive /${path}: it had ${sizeBytes} bytes when listed, now ${got}`)
}

/** Folders whose content belongs to the running system: archives for other machines keep the folders alone. */
const OF_THE_RUNNING_SYSTEM = ['dev', 'proc', 'sys', 'tmp', 'run', 'var/tmp']

/** The tree without what only a running system has a use for. */
export const atRest = (tree: Tree): Tree =>
  new Map([...tree].filter(([path]) => !OF_THE_RUNNING_SYSTEM.some((folder) => path.startsWith(`${folder}/`))))
