/** Contents of files in a Tree: reading them, and making small ones. */
import { readFile } from 'node:fs/promises'
import { Fault } from '../base/fault.ts'
import type { Content, Inode, Tree } from './tree.ts'

/** Largest file read whole: configuration and databases, never payload. */
const WHOLE_LIMIT = 64 << 20

export async function readContent(content: Content): Promise<Uint8Array> {
  return 'bytes' in content ? content.bytes : await readFile(content.path)
}

/** The text of a file of the tree; undefined where there is none. */
export async function readText(tree: Tree, path: string): Promise<string | undefined> {
  const inode = tree.get(path)
  if (inode?.type !== 'file') return undefined
  if (inode.sizeBytes > WHOLE_LIMIT) {
    throw new Fault(
      'format',
      `Cannot read /${path} as text: it has ${inode.sizeBytes} bytes, at most ${WHOLE_LIMIT} are expected`,
    )
  }
  return Buffer.from(await readContent(inode.content)).toString('utf8')
}

/** A file made by Bisque itself: owned by root, given as text or bytes. */
export function madeFile(data: string | Uint8Array, mtime: number, mode = 0o644): Inode & { type: 'file' } {
  const bytes = typeof data === 'string' ? Buffer.from(data) : data
  return { type: 'file', mode, uid: 0, gid: 0, mtime, sizeBytes: bytes.length, content: { bytes } }
}

export const madeDirectory = (mtime: number, mode = 0o755): Inode & { type: 'directory' } => ({
  type: 'directory',
  mode,
  uid: 0,
  gid: 0,
  mtime,
})

export const madeSymlink = (target: string, mtime: number): Inode & { type: 'symlink' } => ({
  type: 'symlink',
  mode: 0o777,
  uid: 0,
  gid: 0,
  mtime,
  target,
})
