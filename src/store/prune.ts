/** What the cache holds, and how it is made smaller. */
import { opendir, readFile, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { Store } from './store.ts'

/** What was used within this time may be in use by a running build and stays, unless the caller says otherwise. */
export const KEEP_RECENT_MS = 3_600_000

export interface Usage {
  blobs: number
  blobBytes: number
  /** Remembered results. */
  keys: number
  /** Interrupted downloads and unfinished writes. */
  unfinished: number
  unfinishedBytes: number
}

export interface Pruned {
  removed: number
  removedBytes: number
  keptBytes: number
}

interface Entry {
  file: string
  sizeBytes: number
  usedMs: number
}

export async function usage(store: Store): Promise<Usage> {
  const blobs = await entries(join(store.cache, 'store', 'sha256'))
  const keys = await entries(join(store.cache, 'store', 'keys'))
  const unfinished = await unfinishedIn(store)
  return {
    blobs: blobs.length,
    blobBytes: sum(blobs),
    keys: keys.length,
    unfinished: unfinished.length,
    unfinishedBytes: sum(unfinished),
  }
}

/**
 * Removes blobs not used since `unusedSinceMs` (a time), then the longest unused until at most `maxBytes` are left;
 * also unfinished files and notes about blobs that are gone. What was used in the last `keepRecentMs` stays.
 */
export async function prune(
  store: Store,
  options: { nowMs: number; unusedSinceMs?: number; maxBytes?: number; keepRecentMs?: number },
): Promise<Pruned> {
  const recent = options.nowMs - (options.keepRecentMs ?? KEEP_RECENT_MS)
  const blobs = (await entries(join(store.cache, 'store', 'sha256'))).sort((a, b) => a.usedMs - b.usedMs)
  let kept = sum(blobs)
  const doomed = (await unfinishedIn(store)).filter((entry) => entry.usedMs <= recent)
  for (const blob of blobs) {
    if (blob.usedMs > recent) break
    const old = options.unusedSinceMs !== undefined && blob.usedMs < options.unusedSinceMs
    if (!old && (options.maxBytes === undefined || kept <= options.maxBytes)) continue
    kept -= blob.sizeBytes
    doomed.push(blob)
  }
  for (const entry of doomed) await rm(entry.file, { force: true })
  await forget(store)
  return { removed: doomed.length, removedBytes: sum(doomed), keptBytes: kept }
}

/** Removes notes about blobs that are gone. */
async function forget(store: Store): Promise<void> {
  for (const { file } of await entries(join(store.cache, 'store', 'keys'))) {
    const digest = (await readFile(file, 'latin1').catch(() => '')).slice(0, 64)
    if (!/^[0-9a-f]{64}$/.test(digest) || !(await store.has(digest))) await rm(file, { force: true })
  }
}

const unfinishedIn = async (store: Store) => [
  ...(await entries(join(store.cache, 'store', 'tmp'))),
  ...(await entries(join(store.cache, 'partial'))),
]

/** Every file below a folder. Files that vanish meanwhile are somebody else's progress. */
async function entries(folder: string): Promise<Entry[]> {
  const found: Entry[] = []
  const dir = await opendir(folder, { recursive: true }).catch(() => undefined)
  if (!dir) return found
  for await (const item of dir) {
    if (!item.isFile()) continue
    const file = join(item.parentPath, item.name)
    const info = await stat(file).catch(() => undefined)
    if (info) found.push({ file, sizeBytes: info.size, usedMs: info.mtimeMs })
  }
  return found
}

const sum = (list: readonly Entry[]) => list.reduce((total, entry) => total + entry.sizeBytes, 0)
