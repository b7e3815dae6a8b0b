/**
 * Store: blobs by their SHA-256 in the cache, and what is known about them by key.
 *
 *   store/sha256/ab/cdef…   a blob, read-only; its name is its digest
 *   store/keys/<digest>     `<digest of a blob> <size>`: the result of the work whose inputs have this digest
 *   store/tmp/<n>.<owner>   unfinished; swept once its process is gone
 *
 * Several processes may share a store without a lock: a blob appears under its name by rename, complete, and the same
 * name always means the same bytes. Nothing is fsynced: a machine that loses power may leave a short blob, which is
 * noticed like any other damage, because whoever takes a blob out checks it (`verified`, `read`) and gets it anew. A damaged
 * blob stays until a whole one replaces it: removing it could hit the whole one another process just put there.
 */
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { chmod, mkdir, open, readdir, readFile, rename, rm, stat, statfs, utimes, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { isSha256, type Sha256, sha256 } from '../base/digest.ts'
import { Fault } from '../base/fault.ts'
import { formatSize } from '../base/size.ts'
import { isAbandoned, ownTag } from './owner.ts'

export interface Blob {
  digest: Sha256
  sizeBytes: number
}

export interface Store {
  /** The cache folder the store lies in. */
  readonly cache: string
  /** Where a blob lies or would lie. Says nothing about whether it is there. */
  path(digest: Sha256): string
  /** Whether a blob is there with this size. Cheap; does not read it. */
  has(digest: Sha256, sizeBytes?: number): Promise<boolean>
  /** The path of a blob whose bytes were just checked; `undefined` when it is missing or damaged, so put it (again). */
  verified(digest: Sha256, sizeBytes?: number): Promise<string | undefined>
  /** The checked bytes of a blob; `undefined` when it is missing or damaged, so put it (again). */
  read(digest: Sha256): Promise<Buffer | undefined>
  /** Stores bytes. `expected` is checked before they get their name. */
  put(bytes: Uint8Array | AsyncIterable<Uint8Array>, expected?: Partial<Blob>): Promise<Blob>
  /** Moves in a file of the same file system that the caller hashed himself and gives away. */
  adopt(file: string, blob: Blob): Promise<void>
  /** What `remember` noted under a key, when that blob is still there in full. */
  recall(key: Sha256): Promise<Blob | undefined>
  /** Notes that the work with these inputs (`digestOf` them) resulted in this blob. */
  remember(key: Sha256, blob: Blob): Promise<void>
}

/** Opens (and makes) the store of a cache, and sweeps what dead processes left unfinished. */
export async function openStore(cache: string): Promise<Store> {
  const root = join(cache, 'store')
  for (const folder of ['sha256', 'keys', 'tmp']) await mkdirs(join(root, folder))
  await sweep(join(root, 'tmp'))
  return storeIn(cache, root)
}

function storeIn(cache: string, root: string): Store {
  const path = (digest: Sha256) => join(root, 'sha256', named(digest).slice(0, 2), digest.slice(2))
  const keyPath = (key: Sha256) => join(root, 'keys', named(key))
  const temporary = () => join(root, 'tmp', `${++unfinished}.${ownTag()}`)

  const store: Store = {
    cache,
    path,
    async has(digest, sizeBytes) {
      const size = await sizeOf(path(digest))
      return size !== undefined && (sizeBytes === undefined || size === sizeBytes)
    },
    async verified(digest, sizeBytes) {
      const file = path(digest)
      const size = await sizeOf(file)
      if (size === undefined) return undefined
      const intact = (sizeBytes === undefined || size === sizeBytes) && (await hashOf(file)) === digest
      if (!intact) return undefined
      await touch(file)
      return file
    },
    async read(digest) {
      const file = path(digest)
      const bytes = await readFile(file).catch(ifMissing)
      if (bytes === undefined) return undefined
      if (sha256(bytes) !== digest) return undefined
      await touch(file)
      return bytes
    },
    async put(bytes, expected = {}) {
      const file = temporary()
      try {
        const blob = await writeHashed(file, bytes instanceof Uint8Array ? [bytes] : bytes)
        refuseOther(blob, expected)
        await moveIn(file, path(blob.digest))
        return blob
      } catch (error) {
        throw await diskFault(error, root, `a blob of ${known(bytes, expected)}`)
      } finally {
        await rm(file, { force: true })
      }
    },
    async adopt(file, blob) {
      await moveIn(file, path(blob.digest))
    },
    async recall(key) {
      const note = await readFile(keyPath(key), 'latin1').catch(ifMissing)
      const match = /^([0-9a-f]{64}) (\d{1,15})\n$/.exec(note ?? '')
      if (!match) return undefined
      const blob = { digest: match[1]!, sizeBytes: Number(match[2]) }
      return (await store.has(blob.digest, blob.sizeBytes)) ? blob : undefined
    },
    async remember(key, blob) {
      const file = temporary()
      try {
        await writeFile(file, `${named(blob.digest)} ${blob.sizeBytes}\n`, { flag: 'wx' })
        await rename(file, keyPath(key))
      } catch (error) {
        throw await diskFault(error, root, 'a note')
      } finally {
        await rm(file, { force: true })
      }
    },
  }
  return store
}
let unfinished = 0

/** SHA-256 of a file's bytes. */
export async function hashOf(file: string): Promise<Sha256> {
  if ((await stat(file)).size <= AT_ONCE_BYTES) return sha256(await readFile(file))
  const h = createHash('sha256')
  for await (const chunk of createReadStream(file, { highWaterMark: 1 << 20 })) h.update(chunk)
  return h.digest('hex')
}
/** Files up to this size are read whole: hashing them in one call takes half the time. */
const AT_ONCE_BYTES = 32 << 20

/**
 * Turns what the file system says about a full, read-only or foreign folder into a Fault; passes anything else through.
 * `option` is how the user chose the folder.
 */
export async function diskFault(error: unknown, folder: string, what: string, option = '--cache DIR'): Promise<unknown> {
  const code = (error as NodeJS.ErrnoException | undefined)?.code
  if (code === 'ENOSPC' || code === 'EDQUOT') {
    const free = await statfs(folder).then(
      (fs) => formatSize(fs.bavail * fs.bsize),
      () => 'an unknown amount',
    )
    const why = code === 'EDQUOT' ? 'the disk quota is used up' : 'the disk is full'
    return new Fault('host', `Cannot write ${what} to ${folder}: ${why}, ${free} is free there`, {
      hint: `bisque cache prune, or choose another disk with ${option}`,
      cause: error,
    })
  }
  const why = REFUSALS[code ?? '']
  if (why === undefined) return error
  const hint = `choose a folder of your own with ${option}`
  return new Fault('host', `Cannot write ${what} to ${folder}: ${why}`, { hint, cause: error })
}

const REFUSALS: Record<string, string | undefined> = {
  EACCES: 'permission denied',
  EPERM: 'permission denied',
  EROFS: 'read-only file system',
  ENOTDIR: 'not a folder',
  EEXIST: 'a file is in its place',
}

export async function mkdirs(folder: string): Promise<void> {
  try {
    await makeFolder(folder)
  } catch (error) {
    throw await diskFault(error, dirname(folder), `the folder ${folder}`)
  }
}

/** Makes a folder and those above it. Node's own way of doing so never ends below a folder that takes none, such as /proc. */
export async function makeFolder(folder: string): Promise<void> {
  if (await madeOrThere(folder)) return
  await makeFolder(dirname(folder))
  if (await madeOrThere(folder)) return
  const hint = 'choose a folder of your own'
  throw new Fault('host', `Cannot make the folder ${folder}: ${dirname(folder)} takes none`, { hint })
}

/** Makes a folder, unless it is there. False where the one above it is missing, or takes none. */
async function madeOrThere(folder: string): Promise<boolean> {
  try {
    await mkdir(folder)
    return true
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT') return false
    if (code === 'EEXIST' && (await stat(folder)).isDirectory()) return true
    throw error
  }
}

async function writeHashed(file: string, chunks: Iterable<Uint8Array> | AsyncIterable<Uint8Array>): Promise<Blob> {
  const h = createHash('sha256')
  let sizeBytes = 0
  const handle = await open(file, 'wx', 0o600)
  try {
    for await (const chunk of chunks) {
      h.update(chunk)
      sizeBytes += chunk.length
      await handle.writeFile(chunk)
    }
  } finally {
    await handle.close()
  }
  return { digest: h.digest('hex'), sizeBytes }
}

function refuseOther(got: Blob, expected: Partial<Blob>): void {
  if (expected.sizeBytes !== undefined && expected.sizeBytes !== got.sizeBytes) {
    throw new Fault('integrity', `Cannot store blob: expected ${expected.sizeBytes} bytes, got ${got.sizeBytes}`)
  }
  if (expected.digest !== undefined && expected.digest !== got.digest) {
    throw new Fault('integrity', `Cannot store blob: expected SHA-256 ${expected.digest}, got ${got.digest}`)
  }
}

async function moveIn(file: string, to: string): Promise<void> {
  await mkdirs(dirname(to))
  await chmod(file, 0o444)
  await rename(file, to)
}

/** Marks a blob as used now; `prune` goes by that. A cache we may only read stays usable. */
const touch = (file: string) => {
  const now = new Date()
  return utimes(file, now, now).catch(() => {})
}

async function sweep(folder: string): Promise<void> {
  for (const name of await readdir(folder)) {
    const mtimeMs = await stat(join(folder, name)).then((s) => s.mtimeMs, ifMissing)
    if (mtimeMs !== undefined && isAbandoned(name.slice(name.lastIndexOf('.') + 1), mtimeMs)) {
      await rm(join(folder, name), { force: true, recursive: true })
    }
  }
}

const sizeOf = (file: string): Promise<number | undefined> => stat(file).then((s) => (s.isFile() ? s.size : undefined), ifMissing)

function ifMissing(error: NodeJS.ErrnoException): undefined {
  if (error.code === 'ENOENT' || error.code === 'ENOTDIR') return undefined
  throw error
}

function named(digest: Sha256): Sha256 {
  if (!isSha256(digest)) throw new Fault('integrity', `Cannot name a blob "${digest}": expected 64 lower-case hexadecimal digits`)
  return digest
}

const known = (bytes: unknown, expected: Partial<Blob>) => {
  const size = bytes instanceof Uint8Array ? bytes.length : expected.sizeBytes
  return size === undefined ? 'unknown size' : formatSize(size)
}
