/**
 * Loads a Debian repository: signed metadata first, then the indexes it vouches for, compiled and cached.
 *
 * A repository that did not change costs one request for its InRelease, which the server may answer with 304. Everything
 * else is named by digest and comes from the store. Cached metadata is verified again each time, against today's keyring.
 */
import { pipeline } from 'node:stream/promises'
import { createGunzip } from 'node:zlib'
import { createUnxz } from 'node-liblzma'
import { digestOf, type Sha256, sha256 } from '../../base/digest.ts'
import { Fault } from '../../base/fault.ts'
import type { Report } from '../../base/report.ts'
import { formatSize } from '../../base/size.ts'
import type { Store } from '../../store/store.ts'
import { downloadBlob, downloadDocument, inParallel, isAbsent } from '../download.ts'
import { type Network, shown, type Wire, withWire } from '../http.ts'
import type { Repository } from '../repository.ts'
import { indexPackages, openIndex, type PackageIndex } from './index.ts'
import { checkRelease, flatIndex, type IndexFile, isFlat, packagesIndexes, parseRelease, type Release } from './release.ts'
import { openInRelease, openRelease } from './signature.ts'

export interface LoadOptions {
  store: Store
  now: Date
  /** Use what is cached and nothing else. */
  offline?: boolean
  network?: Partial<Network>
}

export interface LoadedRepository {
  repository: Repository
  /** All components. */
  index: PackageIndex
  release: {
    date: Date
    codename: string
    suite: string
    origin: string
    label: string
    version: string
    /** SHA-256 of InRelease, or of Release where there is no InRelease. */
    digest: Sha256
  }
}

export async function loadRepository(repository: Repository, options: LoadOptions, report: Report): Promise<LoadedRepository> {
  return withWire(options.network, async (wire) => {
    const { release, digest } = await loadRelease(wire, repository, options, report)
    const index = await loadIndex(wire, repository, release, options, report)
    const { date, codename, suite, origin, label, version } = release
    const ranked = { ...repository, priority: repository.priority === 500 ? release.priority : repository.priority }
    return { repository: ranked, index, release: { date, codename, suite, origin, label, version, digest } }
  })
}

/** The signed files of a suite as they were fetched, and what the server said to ask for them again. */
interface Signed {
  /** SHA-256 of InRelease or Release in the store. */
  document: Sha256
  /** SHA-256 of Release.gpg. */
  signature?: Sha256
  etag?: string
  lastModified?: string
}

const MAX_RELEASE_BYTES = 32 << 20
const MAX_INDEX_BYTES = 1 << 30
/** What xz may use to unpack an index. `xz -9` needs 65 MiB. */
const XZ_MEMORY_BYTES = 256 << 20

async function loadRelease(
  wire: Wire,
  repository: Repository,
  options: LoadOptions,
  report: Report,
): Promise<{ release: Release; digest: Sha256 }> {
  const { store } = options
  const key = digestOf({ what: 'deb release', url: repository.url, suite: repository.suite })
  const cached = await recallSigned(store, key)
  if (options.offline) {
    if (!cached) throw notCached(repository, 'its metadata')
    const release = await openSigned(store, cached, repository, options)
    if (release.validUntil && release.validUntil < options.now)
      report.tell({
        type: 'note',
        level: 'warning',
        message: `${repository.id} was valid until ${release.validUntil.toISOString()}`,
      })
    return { release, digest: cached.document }
  }
  const fetched = await fetchSigned(wire, repository, cached, store)
  const release = await openSigned(store, fetched, repository, options)
  const known = cached && cached.document !== fetched.document ? await stillGood(store, cached, repository, options) : undefined
  if (known && known.date > release.date) {
    const message = `${shown(repository.url)} offers ${repository.suite} of ${release.date.toISOString()}, older than what it offered before`
    report.tell({ type: 'note', level: 'warning', message: `${message}; going on with the newer one` })
    checkRelease(known, repository, { now: options.now, allowExpired: repository.allowExpired ?? false }, sourceOf(repository))
    return { release: known, digest: cached!.document }
  }
  await store.remember(key, await store.put(Buffer.from(JSON.stringify(fetched))))
  return { release, digest: fetched.document }
}

async function recallSigned(store: Store, key: Sha256): Promise<Signed | undefined> {
  const blob = await store.recall(key)
  const text = blob && (await store.read(blob.digest))
  if (!text) return undefined
  const signed = JSON.parse(text.toString()) as Signed
  const whole = (await store.has(signed.document)) && (signed.signature === undefined || (await store.has(signed.signature)))
  return whole ? signed : undefined
}

async function fetchSigned(wire: Wire, repository: Repository, cached: Signed | undefined, store: Store): Promise<Signed> {
  const base = baseOf(repository)
  const ask = { limitBytes: MAX_RELEASE_BYTES, etag: cached?.etag, lastModified: cached?.lastModified }
  try {
    const answer = await downloadDocument(
      wire,
      `${base}/InRelease`,
      cached?.signature === undefined ? ask : { limitBytes: MAX_RELEASE_BYTES },
    )
    if (answer === 'unchanged') return cached!
    const { bytes, ...validators } = answer
    return { document: (await store.put(bytes)).digest, ...validators }
  } catch (error) {
    if (!isAbsent(error)) throw error
  }
  const release = await downloadDocument(wire, `${base}/Release`, { limitBytes: MAX_RELEASE_BYTES })
  const signature = await downloadDocument(wire, `${base}/Release.gpg`, { limitBytes: MAX_RELEASE_BYTES }).catch((error) => {
    if (!isAbsent(error)) throw error
    throw new Fault('integrity', `Cannot trust ${shown(base)}: it has neither InRelease nor Release.gpg, so nothing is signed`)
  })
  if (release === 'unchanged' || signature === 'unchanged')
    throw new Fault('fetch', `Cannot fetch ${shown(base)}/Release: it answered 304 unasked`)
  return { document: (await store.put(release.bytes)).digest, signature: (await store.put(signature.bytes)).digest }
}

/** Verifies and checks signed metadata. Nothing of it is read before its signature holds. */
async function openSigned(store: Store, signed: Signed, repository: Repository, options: LoadOptions): Promise<Release> {
  const release = await readSigned(store, signed, repository, options)
  const allowExpired = (repository.allowExpired ?? false) || (options.offline ?? false)
  checkRelease(release, repository, { now: options.now, allowExpired }, sourceOf(repository))
  return release
}

/** What was cached, unless today's keyring no longer vouches for it. */
async function stillGood(
  store: Store,
  signed: Signed,
  repository: Repository,
  options: LoadOptions,
): Promise<Release | undefined> {
  try {
    return await readSigned(store, signed, repository, options)
  } catch (error) {
    if (error instanceof Fault) return undefined
    throw error
  }
}

async function readSigned(store: Store, signed: Signed, repository: Repository, options: LoadOptions): Promise<Release> {
  const source = sourceOf(repository)
  const trust = {
    keyring: repository.keyring,
    now: options.now,
    allowExpired: (repository.allowExpired ?? false) || (options.offline ?? false),
    source,
  }
  const document = await store.read(signed.document)
  const signature = signed.signature === undefined ? undefined : await store.read(signed.signature)
  if (!document || (signed.signature !== undefined && !signature))
    throw new Fault('integrity', `Cannot read ${source}: it is damaged in the cache`)
  const text = signature ? await openRelease(document, signature, trust) : await openInRelease(document, trust)
  return parseRelease(text, source)
}

async function loadIndex(
  wire: Wire,
  repository: Repository,
  release: Release,
  options: LoadOptions,
  report: Report,
): Promise<PackageIndex> {
  const { store } = options
  const source = sourceOf(repository)
  const parts = isFlat(repository)
    ? [flatIndex(release, source)]
    : repository.components.flatMap((component) => packagesIndexes(release, component, repository.architecture, source))
  const key = digestOf({ what: 'deb index', packages: parts.map((part) => part.file.sha256) })
  const known = await recallIndex(store, key)
  if (known) return known
  let here = 0
  const total = parts.reduce((sum, part) => sum + part.file.sizeBytes, 0)
  const texts = await inParallel(parts, 2, async (part) => {
    const packed = await fetchIndex(wire, repository, release, part, options)
    here += part.file.sizeBytes
    report.tell({ type: 'progress', done: here, total, unit: 'bytes' })
    return unpackIndex(packed, part.path, part.unpacked, source)
  })
  const text = texts.length === 1 ? texts[0]! : Buffer.concat(texts.flatMap((text) => [text, Buffer.from('\n')]))
  const compiled = indexPackages(text, `${source} Packages`)
  await store.remember(key, await store.put(compiled))
  return openIndex(compiled)
}

/** A compiled index of another version of the format, or a damaged one, is as good as none. */
async function recallIndex(store: Store, key: Sha256): Promise<PackageIndex | undefined> {
  const blob = await store.recall(key)
  const bytes = blob && (await store.read(blob.digest))
  if (!bytes) return undefined
  try {
    return openIndex(bytes)
  } catch (error) {
    if (error instanceof Fault) return undefined
    throw error
  }
}

async function fetchIndex(
  wire: Wire,
  repository: Repository,
  release: Release,
  part: { path: string; file: IndexFile },
  options: LoadOptions,
): Promise<Buffer> {
  const { store } = options
  const cached = await store.read(part.file.sha256)
  if (cached) return cached
  if (options.offline) throw notCached(repository, part.path)
  if (part.file.sizeBytes > MAX_INDEX_BYTES) throw tooLarge(sourceOf(repository), part.path, part.file.sizeBytes)
  const base = baseOf(repository)
  const byHash = `${base}/${part.path.slice(0, part.path.lastIndexOf('/') + 1)}by-hash/SHA256/${part.file.sha256}`
  const plain = `${base}/${part.path}`
  try {
    await downloadBlob(wire, { ...part.file, url: release.acquireByHash ? byHash : plain }, store)
  } catch (error) {
    if (!release.acquireByHash || !isAbsent(error)) throw error
    await downloadBlob(wire, { ...part.file, url: plain }, store)
  }
  const bytes = await store.read(part.file.sha256)
  if (!bytes) throw new Fault('integrity', `Cannot read ${shown(plain)}: it was damaged in the cache as soon as it was there`)
  return bytes
}

/** Unpacks an index into no more than the Release says it holds. */
async function unpackIndex(packed: Buffer, path: string, unpacked: IndexFile | undefined, source: string): Promise<Buffer> {
  const limit = unpacked?.sizeBytes ?? MAX_INDEX_BYTES
  if (limit > MAX_INDEX_BYTES) throw tooLarge(source, path, limit)
  if (!/\.[xg]z$/.test(path)) return packed
  const decoder = path.endsWith('.xz') ? createUnxz({ memlimit: XZ_MEMORY_BYTES }) : createGunzip({ chunkSize: 1 << 18 })
  const chunks: Buffer[] = []
  let size = 0
  try {
    await pipeline([packed], decoder, async (output: AsyncIterable<Buffer>) => {
      for await (const chunk of output) {
        size += chunk.length
        if (size > limit)
          throw new Fault('integrity', `Cannot trust ${source}: ${path} unpacks to more than the ${limit} bytes expected`)
        chunks.push(chunk)
      }
    })
  } catch (cause) {
    if (cause instanceof Fault) throw cause
    throw new Fault('format', `Cannot unpack ${path} of ${source}: ${(cause as Error).message}`, { cause })
  }
  const bytes = Buffer.concat(chunks)
  const got = sha256(bytes)
  if (unpacked && (bytes.length !== unpacked.sizeBytes || got !== unpacked.sha256))
    throw new Fault('integrity', `Cannot trust ${source}: ${path} unpacks to SHA-256 ${got}, expected ${unpacked.sha256}`)
  return bytes
}

/** Where a repository's metadata lies. */
const baseOf = ({ url, suite }: Repository) =>
  isFlat({ suite }) ? `${url}/${suite}`.replace(/\/+$/, '') : `${url}/dists/${suite}`

const sourceOf = (repository: Repository) => `${shown(repository.url)} ${repository.suite}`

const tooLarge = (source: string, path: string, size: number) =>
  new Fault(
    'integrity',
    `Cannot use ${source}: ${path} holds ${formatSize(size)}, expected at most ${formatSize(MAX_INDEX_BYTES)}`,
  )

const notCached = (repository: Repository, what: string) =>
  new Fault('fetch', `Cannot load ${sourceOf(repository)} offline: ${what} is not in the cache`, {
    hint: 'run the same command once without --offline',
  })
