/**
 * Outer compression of artifacts.
 *
 * The input is cut at fixed places and each part compressed by a worker thread into a zstd frame or an xz stream of its
 * own; their row decompresses to the whole. So the bytes do not depend on how many threads there are, and what is held
 * in memory does not depend on how much there is. gzip stays one stream, as not every reader goes on after a first.
 */
import { createReadStream } from 'node:fs'
import { open, rm } from 'node:fs/promises'
import { Readable } from 'node:stream'
import { constants, createGzip, zstdCompressSync } from 'node:zlib'
import { check, xzSync } from 'node-liblzma'
import { Fault } from '../../base/fault.ts'
import { type Moved, moved, startWorkers, taskOf, type Workers } from '../../run/workers.ts'

export type Compression = 'none' | 'zstd' | 'xz' | 'gz'

export interface CompressOptions {
  compression: Compression
  /** 0 to 22 for zstd, to 9 for others; 0 is zstd's default. */
  level: number
  workers?: Workers | number | undefined
}

const EXTENSION = { none: '', zstd: '.zst', xz: '.xz', gz: '.gz' } as const

/** What a compressed file's name ends with. */
export const compressedName = (name: string, compression: Compression): string => `${name}${EXTENSION[compression]}`

/** Compresses a file into a new one beside it that bears the extension; gives its path. The file itself stays. */
export async function compressFile(path: string, options: CompressOptions): Promise<string> {
  const out = compressedName(path, options.compression)
  if (out !== path) await writeCompressed(bytesOf(path), out, options)
  return out
}

/** The file is opened when it is read, so that one that never is stays closed. */
async function* bytesOf(path: string): AsyncGenerator<Uint8Array> {
  yield* createReadStream(path, { highWaterMark: 1 << 20 }) as AsyncIterable<Buffer>
}

/** Writes the compressed input to a new file. On failure there is none. */
export async function writeCompressed(
  input: AsyncIterable<Uint8Array>,
  path: string,
  options: CompressOptions,
): Promise<{ sizeBytes: number }> {
  let sizeBytes = 0
  await using file = await open(path, 'wx')
  try {
    for await (const bytes of compressed(input, options)) {
      for (let done = 0; done < bytes.length; ) done += (await file.write(bytes, done)).bytesWritten
      sizeBytes += bytes.length
    }
  } catch (error) {
    await rm(path, { force: true })
    throw error
  }
  return { sizeBytes }
}

/** The input compressed, as it streams by. */
export async function* compressed(input: AsyncIterable<Uint8Array>, options: CompressOptions): AsyncGenerator<Uint8Array> {
  const { compression, level } = options
  const most = compression === 'zstd' ? 22 : 9
  if (compression !== 'none' && !(Number.isInteger(level) && level >= 0 && level <= most))
    throw new Fault('recipe', `Cannot compress with ${compression} at level ${level}: its levels are 0 to ${most}`)
  if (compression === 'none') yield* input
  else if (compression === 'gz') yield* Readable.from(input).compose(createGzip({ level })) as AsyncIterable<Uint8Array>
  else yield* inParts(input, compression, options)
}

/** What is compressed by itself: enough to compress well, for xz thrice what it looks back on. */
const PART_BYTES = { zstd: 16 << 20, xz: 24 << 20 } as const

async function* inParts(
  input: AsyncIterable<Uint8Array>,
  compression: 'zstd' | 'xz',
  { level, workers: given }: CompressOptions,
): AsyncGenerator<Uint8Array> {
  const pool = typeof given === 'object' ? given : startWorkers(given)
  const under: Promise<Uint8Array>[] = []
  try {
    let count = 0
    for await (const bytes of partsOf(input, PART_BYTES[compression])) {
      const run = pool.run(COMPRESS, { bytes, compression, level })
      run.catch(() => {}) // seen when its turn comes
      under.push(run)
      count++
      if (under.length > pool.size) yield await under.shift()!
    }
    if (count === 0) yield await pool.run(COMPRESS, { bytes: new Uint8Array(0), compression, level })
    while (under.length > 0) yield await under.shift()!
  } finally {
    await Promise.allSettled(under)
    if (pool !== given) await pool.close()
  }
}

interface Part {
  bytes: Uint8Array
  compression: 'zstd' | 'xz'
  level: number
}

/** Runs in a worker thread. */
export function compressPart({ bytes, compression, level }: Part): Moved<Uint8Array> {
  const params = {
    [constants.ZSTD_c_compressionLevel]: level,
    [constants.ZSTD_c_checksumFlag]: 1,
  }
  const made = new Uint8Array(
    compression === 'zstd'
      ? zstdCompressSync(bytes, { params })
      : xzSync(Buffer.from(bytes), { preset: level, check: check.CRC32 }),
  )
  return moved(made, [made.buffer])
}
const COMPRESS = taskOf(import.meta.url, compressPart)

/** The input in parts of one size, but for the last. */
async function* partsOf(input: AsyncIterable<Uint8Array>, partBytes: number): AsyncGenerator<Uint8Array> {
  let part = Buffer.allocUnsafeSlow(partBytes)
  let filled = 0
  for await (const bytes of input) {
    for (let at = 0; at < bytes.length; ) {
      const taken = Math.min(bytes.length - at, partBytes - filled)
      part.set(bytes.subarray(at, at + taken), filled)
      at += taken
      filled += taken
      if (filled < partBytes) continue
      yield part
      part = Buffer.allocUnsafeSlow(partBytes)
      filled = 0
    }
  }
  if (filled > 0) yield part.subarray(0, filled)
}
