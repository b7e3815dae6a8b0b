/**
 * Downloads over HTTP(S) and `file:`: bounded in size, time, redirects and parallelism; resumed after interruption.
 *
 * What arrives is checked against the size and SHA-256 known beforehand before it enters the store. Unfinished files lie
 * in `<cache>/partial/<sha256>.<n>.<owner>`; the next process that wants the same bytes goes on where a dead one stopped.
 * A wrong prefix costs one more download and nothing else, because the digest decides in the end.
 */
import { createHash, type Hash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { type FileHandle, open, readdir, rename, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Sha256 } from '../base/digest.ts'
import { Fault } from '../base/fault.ts'
import { formatSize } from '../base/size.ts'
import { isAbandoned, ownTag, UNOWNED } from '../store/owner.ts'
import { diskFault, mkdirs, type Store } from '../store/store.ts'
import { Interruption, type Reply, shown, type Wire, watchdog } from './http.ts'

/** A file whose content is known before it is fetched. */
export interface Wanted {
  url: string
  sha256: Sha256
  sizeBytes: number
}

/** Fetches a file into the store. `onBytes` hears how many of its bytes are here. */
export async function downloadBlob(
  wire: Wire,
  wanted: Wanted,
  store: Store,
  onBytes: (bytes: number) => void = () => {},
): Promise<void> {
  const folder = join(store.cache, 'partial')
  const partial = await claimPartial(folder, wanted)
  try {
    await persistently(
      wire,
      wanted.url,
      () => partial.sizeBytes,
      () => advance(wire, wanted, partial, onBytes),
    )
    await partial.handle.close()
    await store.adopt(partial.file, { digest: wanted.sha256, sizeBytes: wanted.sizeBytes })
  } catch (error) {
    await partial.handle.close().catch(() => {})
    const fault = await diskFault(error, folder, `the ${formatSize(wanted.sizeBytes)} of ${shown(wanted.url)}`)
    const useful = partial.sizeBytes > 0 && fault instanceof Fault && fault.code === 'fetch'
    if (useful) await rename(partial.file, join(folder, `${wanted.sha256}.${++claims}.${UNOWNED}`)).catch(() => {})
    else await rm(partial.file, { force: true })
    throw fault
  }
}

/** What a conditional request brings: the bytes, or word that the ones we have are current. */
export type Answer = { bytes: Buffer; etag?: string; lastModified?: string } | 'unchanged'

/** Fetches a document whose content is not known beforehand (signed metadata) into memory. */
export async function downloadDocument(
  wire: Wire,
  url: string,
  options: { limitBytes: number; etag?: string | undefined; lastModified?: string | undefined },
): Promise<Answer> {
  const headers: Record<string, string> = {}
  if (options.etag !== undefined) headers['if-none-match'] = options.etag
  if (options.lastModified !== undefined) headers['if-modified-since'] = options.lastModified
  return persistently(
    wire,
    url,
    () => 0,
    async () => {
      const dog = watchdog(wire, options.limitBytes)
      try {
        const reply = await wire.open(url, headers, dog.signal)
        if (reply.status === 304) return discarded(reply, 'unchanged' as const)
        if (reply.status !== 200) await refuseStatus(reply)
        const tooLarge = () =>
          new Fault('integrity', `Cannot fetch ${shown(url)}: expected at most ${options.limitBytes} bytes, got more`)
        if ((reply.contentLength ?? 0) > options.limitBytes) throw await discarded(reply, tooLarge())
        const chunks: Uint8Array[] = []
        let size = 0
        for await (const chunk of dog.guard(reply.body)) {
          size += chunk.length
          if (size > options.limitBytes) throw tooLarge()
          chunks.push(chunk)
        }
        return { bytes: Buffer.concat(chunks), ...validators(reply) }
      } finally {
        dog.stop()
      }
    },
  )
}

/** Runs `body` over items, at most `width` at a time. The first error stops new ones from starting, and is thrown when all have ended. */
export async function inParallel<T, R>(items: readonly T[], width: number, body: (item: T) => Promise<R>): Promise<R[]> {
  const results: R[] = []
  const failures: unknown[] = []
  let next = 0
  const lane = async () => {
    while (next < items.length && failures.length === 0) {
      const i = next++
      try {
        results[i] = await body(items[i]!)
      } catch (error) {
        failures.push(error)
      }
    }
  }
  await Promise.all(Array.from({ length: Math.min(width, items.length) }, lane))
  if (failures.length > 0) throw failures[0]
  return results
}

/** A download that lives grows, or is given up, sooner than this. */
const QUIET_MS = 90_000

interface Unfinished {
  file: string
  handle: FileHandle
  sizeBytes: number
  hash: Hash
  /** ETag or Last-Modified of what the bytes so far came from, when this process fetched them. */
  validator?: string | undefined
}
let claims = 0

/** Takes over an abandoned file of the same digest, or begins a new one. Renaming decides between processes. */
async function claimPartial(folder: string, wanted: Wanted): Promise<Unfinished> {
  await mkdirs(folder)
  const file = join(folder, `${wanted.sha256}.${++claims}.${ownTag()}`)
  for (const name of await readdir(folder)) {
    if (!name.startsWith(`${wanted.sha256}.`)) continue
    const found = await stat(join(folder, name)).catch(() => undefined)
    if (!found || !isAbandoned(name.slice(name.lastIndexOf('.') + 1), found.mtimeMs, QUIET_MS)) continue
    if (found.size === 0 || found.size > wanted.sizeBytes) {
      await rm(join(folder, name), { force: true })
      continue
    }
    const mine = await rename(join(folder, name), file).then(
      () => true,
      () => false,
    )
    if (mine) break
  }
  const handle = await open(file, 'a+', 0o600).catch(async (error) =>
    Promise.reject(await diskFault(error, folder, `the ${formatSize(wanted.sizeBytes)} of ${shown(wanted.url)}`)),
  )
  const partial: Unfinished = { file, handle, sizeBytes: 0, hash: createHash('sha256') }
  for await (const chunk of createReadStream(file)) {
    partial.hash.update(chunk)
    partial.sizeBytes += chunk.length
  }
  return partial
}

/** One attempt: asks for what is still missing and takes it in. */
async function advance(wire: Wire, wanted: Wanted, partial: Unfinished, onBytes: (bytes: number) => void): Promise<void> {
  const resumed = partial.sizeBytes > 0
  if (partial.sizeBytes < wanted.sizeBytes || !resumed) {
    const dog = watchdog(wire, wanted.sizeBytes - partial.sizeBytes)
    try {
      const reply = await wire.open(wanted.url, rangeHeaders(partial), dog.signal)
      await begin(reply, wanted, partial)
      await takeIn(dog.guard(reply.body), wanted, partial, onBytes)
    } finally {
      dog.stop()
    }
  }
  if (partial.sizeBytes < wanted.sizeBytes)
    throw new Interruption(`the connection ended after ${partial.sizeBytes} of ${wanted.sizeBytes} bytes`)
  const got = partial.hash.copy().digest('hex')
  if (got === wanted.sha256) return
  await restart(partial)
  if (resumed) throw new Interruption(`what was resumed has SHA-256 ${got}, expected ${wanted.sha256}`)
  throw new Fault('integrity', `Cannot trust ${shown(wanted.url)}: expected SHA-256 ${wanted.sha256}, got ${got}`)
}

function rangeHeaders(partial: Unfinished): Record<string, string> {
  if (partial.sizeBytes === 0) return {}
  const range = { range: `bytes=${partial.sizeBytes}-` }
  return partial.validator === undefined ? range : { ...range, 'if-range': partial.validator }
}

/** Judges the head of a reply. What the server will not resume starts anew. */
async function begin(reply: Reply, wanted: Wanted, partial: Unfinished): Promise<void> {
  if (reply.status === 416) {
    await restart(partial)
    throw await discarded(reply, new Interruption('the server would not resume'))
  }
  if (reply.status === 206) {
    const range = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(reply.header('content-range') ?? '')
    if (!range || Number(range[1]) !== partial.sizeBytes) {
      await restart(partial)
      throw await discarded(
        reply,
        new Interruption(`the server answered with the range "${reply.header('content-range') ?? ''}"`),
      )
    }
    if (range[2] !== '*' && Number(range[2]) !== wanted.sizeBytes)
      throw await discarded(reply, wrongSize(wanted, Number(range[2])))
    return
  }
  if (reply.status !== 200) await refuseStatus(reply)
  if (partial.sizeBytes > 0) await restart(partial)
  if (reply.contentLength !== undefined && reply.contentLength !== wanted.sizeBytes)
    throw await discarded(reply, wrongSize(wanted, reply.contentLength))
  const { etag, lastModified } = validators(reply)
  partial.validator = etag !== undefined && !etag.startsWith('W/') ? etag : lastModified
}

async function takeIn(
  body: AsyncIterable<Uint8Array>,
  wanted: Wanted,
  partial: Unfinished,
  onBytes: (bytes: number) => void,
): Promise<void> {
  for await (const chunk of body) {
    if (partial.sizeBytes + chunk.length > wanted.sizeBytes) throw wrongSize(wanted, undefined)
    await partial.handle.appendFile(chunk)
    partial.hash.update(chunk)
    partial.sizeBytes += chunk.length
    onBytes(partial.sizeBytes)
  }
}

async function restart(partial: Unfinished): Promise<void> {
  await partial.handle.truncate(0)
  partial.sizeBytes = 0
  partial.hash = createHash('sha256')
  partial.validator = undefined
}

const wrongSize = (wanted: Wanted, got: number | undefined) =>
  new Fault('integrity', `Cannot trust ${shown(wanted.url)}: expected ${wanted.sizeBytes} bytes, got ${got ?? 'more'}`)

/** A failed status that may pass is an Interruption; any other is final. */
async function refuseStatus(reply: Reply): Promise<never> {
  const why = `the server answered ${reply.status}`
  if (reply.status >= 500 || reply.status === 408 || reply.status === 429) throw await discarded(reply, new Interruption(why))
  throw await discarded(reply, new Fault('fetch', `Cannot fetch ${reply.url}: ${why}`, { cause: { status: reply.status } }))
}

/** Whether a Fault says that the server has no such file (any more). */
export const isAbsent = (fault: unknown): boolean => {
  if (!(fault instanceof Fault) || fault.code !== 'fetch') return false
  const status = (fault.cause as { status?: unknown } | undefined)?.status
  return status === 404 || status === 410
}

async function discarded<T>(reply: Reply, value: T): Promise<T> {
  await reply.discard()
  return value
}

function validators(reply: Reply): { etag?: string; lastModified?: string } {
  const etag = reply.header('etag')
  const lastModified = reply.header('last-modified')
  return { ...(etag === undefined ? {} : { etag }), ...(lastModified === undefined ? {} : { lastModified }) }
}

/** An attempt that came this much further than any before is progress: the count of failures starts over. */
const PROGRESS_BYTES = 1 << 20

/** Repeats an attempt that was interrupted, waiting twice as long each time. */
async function persistently<T>({ network, ending }: Wire, url: string, at: () => number, attempt: () => Promise<T>): Promise<T> {
  let furthest = at()
  for (let failures = 0; ; ) {
    try {
      return await attempt()
    } catch (error) {
      if (!(error instanceof Interruption)) throw error
      failures = at() - furthest >= PROGRESS_BYTES ? 1 : failures + 1
      furthest = Math.max(furthest, at())
      if (failures > network.retries || ending.signal.aborted)
        throw new Fault('fetch', `Cannot fetch ${shown(url)}: ${error.message} (tried ${failures} times)`, { cause: error })
      await sleep(network.backoffMs * 2 ** (failures - 1))
    }
  }
}
