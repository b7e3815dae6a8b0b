/** Running the mkfs programs of a tools tree, and what their makers share. */
import { open } from 'node:fs/promises'
import { Fault } from '../../base/fault.ts'
import { formatSize } from '../../base/size.ts'
import type { RunOptions } from '../../run/process.ts'
import { runInSandbox } from '../../run/sandbox.ts'
import type { Inode, Tree } from '../../tree/tree.ts'
import type { FileSystemRequest } from '../repart/file-system.ts'

/** Where a file system is made: a scratch folder, and the file in it that becomes the result. */
export interface Place {
  tools: string
  work: string
  image: string
}

/** Runs a program of the tools tree; it sees the scratch folder at its own path. */
export async function runTool(
  { tools, work }: Place,
  argv: readonly string[],
  options: { env?: Record<string, string>; input?: NonNullable<RunOptions['input']>; allowFailure?: boolean } = {},
): Promise<{ exitCode: number; stdout: string; stderr: string }> {
  const { env = {}, ...rest } = options
  return runInSandbox(
    {
      root: tools,
      tmpfs: ['/tmp', '/run', '/var/tmp'],
      binds: [{ source: work, target: work, writable: true }],
      workdir: work,
      env: { PATH: '/usr/sbin:/usr/bin', LC_ALL: 'C.UTF-8', TZ: 'UTC', ...env },
    },
    argv,
    rest,
  )
}

/** A new sparse file. */
export async function makeSparse(path: string, sizeBytes: number): Promise<void> {
  await using file = await open(path, 'w')
  await file.truncate(sizeBytes)
}

/** The beginning of a label that takes no more bytes than a file system has for it, cut between characters. */
export function cutLabel(label: string, mostBytes: number): string {
  let cut = ''
  for (const char of label) {
    if (Buffer.byteLength(cut + char) > mostBytes) break
    cut += char
  }
  return cut
}

/** A choice that a file system does not have. */
export function refuse(request: FileSystemRequest, why: string): Fault {
  return new Fault('recipe', `Cannot make ${request.format} file system ${request.label}: ${why}`)
}

export function tooSmall(request: FileSystemRequest, why: string): Fault {
  return refuse(request, `${formatSize(request.sizeBytes!)} are too small for what it holds, ${why}`)
}

/** Refuses what only btrfs has. */
export function checkPlain(request: FileSystemRequest): void {
  if (request.subvolumes.length > 0 || request.defaultSubvolume !== undefined) throw refuse(request, 'it has no subvolumes')
  if (request.format !== 'squashfs' && request.compression !== undefined) throw refuse(request, 'it is never compressed')
}

export function rootOf(tree: Tree): Inode {
  const root = tree.get('')
  if (root?.type !== 'directory') throw new Error('a tree has a directory at its root')
  return root
}

/** The tree without access control lists, which a file system does not have, or its maker cannot give it; and a word on them. */
export function withoutAcls(tree: Tree): { tree: Tree; notes: string[] } {
  const bare = new Map<Inode, Inode>()
  const lost: string[] = []
  for (const [path, inode] of tree) {
    const kept = [...(inode.xattrs ?? [])].filter(([name]) => !name.startsWith('system.'))
    if (kept.length === (inode.xattrs?.size ?? 0) || bare.has(inode)) continue
    lost.push(`/${path}`)
    const { xattrs: _, ...rest } = inode
    bare.set(inode, kept.length === 0 ? rest : { ...rest, xattrs: new Map(kept) })
  }
  if (lost.length === 0) return { tree, notes: [] }
  const more = lost.length > 3 ? ` and ${lost.length - 3} more` : ''
  return {
    tree: new Map([...tree].map(([path, inode]) => [path, bare.get(inode) ?? inode])),
    notes: [`left out the access control lists of ${lost.slice(0, 3).join(', ')}${more}`],
  }
}
