/** Making and checking dm-verity hash trees: blocks are hashed by worker threads, a megabyte at a time. */
import { hash } from 'node:crypto'
import { closeSync, fstatSync, openSync, readSync, writeSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { type Extent, placesIn } from '../base/extent.ts'
import { Fault } from '../base/fault.ts'
import { DIGEST, decodeVerity, encodeVerity, VERITY_BLOCK, verityPartitionUuids, verityTree } from '../formats/verity.ts'
import { type Moved, moved, taskOf, type Workers, withWorkers } from '../run/workers.ts'

/**
 * Writes the hash device of the data at `dataPath`, whose size must be a multiple of 4096.
 * On failure there is no file at `hashPath`. `workers`: a pool to share, or how many threads to start.
 */
export async function writeVerity(
  dataPath: string,
  hashPath: string,
  options: { salt: Uint8Array; uuid: string; workers?: Workers | number | undefined },
): Promise<{ rootHash: string; sizeBytes: number }> {
  const dataBytes = sizeOf(dataPath)
  if (dataBytes === 0 || dataBytes % VERITY_BLOCK !== 0)
    throw new Fault(
      'usage',
      `Cannot protect ${dataPath} with verity: it has ${dataBytes} bytes, expected a multiple of ${VERITY_BLOCK}`,
    )
  const { salt } = options
  const dataBlocks = dataBytes / VERITY_BLOCK
  const superblock = encodeVerity({ uuid: options.uuid, salt, dataBlocks })
  const { levels, blocks } = verityTree(dataBlocks)
  const fd = openSync(hashPath, 'w')
  try {
    writeAll(fd, superblock, 0)
    let digests = await withWorkers(threadsFor(dataBytes, options.workers), (workers) =>
      hashFile(workers, opened(dataPath), dataBlocks, salt),
    )
    for (const level of levels) {
      const bytes = new Uint8Array(level.blocks * VERITY_BLOCK)
      bytes.set(digests)
      writeAll(fd, bytes, level.startBlock * VERITY_BLOCK)
      digests = hashBlocks(bytes, salt)
    }
    return { rootHash: Buffer.from(digests).toString('hex'), sizeBytes: blocks * VERITY_BLOCK }
  } catch (error) {
    await rm(hashPath, { force: true })
    throw error
  } finally {
    closeSync(fd)
  }
}

/** The bytes of a device: a file, or parts of one behind each other: a partition of a disk image, a file in a file system. */
export type Device = string | { path: string; extents: readonly Extent[] }

/**
 * Checks every block of the data and of the tree against the root hash. A Fault names what is wrong: the first
 * blocks that differ and how many there are.
 */
export async function verifyVerity(
  dataDevice: Device,
  hashDevice: Device,
  rootHash: string,
  options: { workers?: Workers | number | undefined } = {},
): Promise<void> {
  verityPartitionUuids(rootHash) // refuses what is no root hash
  const data = opened(dataDevice)
  const hash = opened(hashDevice)
  const readTree = (offset: number, sizeBytes: number) => readPlaces(hash.path, hash.places(offset, sizeBytes), sizeBytes)
  const { salt, dataBlocks, dataBlockBytes = VERITY_BLOCK, hashBlockBytes = VERITY_BLOCK } = decodeVerity(readTree(0, 512))
  const tree = verityTree(dataBlocks, hashBlockBytes)
  if (data.sizeBytes < dataBlocks * dataBlockBytes)
    throw new Fault(
      'integrity',
      `Cannot trust ${data.path}: it has ${data.sizeBytes} bytes, its verity superblock says ${dataBlocks * dataBlockBytes}`,
    )
  if (hash.sizeBytes < tree.blocks * hashBlockBytes)
    throw new Fault(
      'integrity',
      `Cannot trust ${hash.path}: it has ${hash.sizeBytes} bytes, its tree needs ${tree.blocks * hashBlockBytes}`,
    )

  let expected: Uint8Array = Buffer.from(rootHash, 'hex')
  for (const [n, level] of [...tree.levels.entries()].reverse()) {
    const bytes = readTree(level.startBlock * hashBlockBytes, level.blocks * hashBlockBytes)
    const what =
      n === tree.levels.length - 1 ? `root hash ${rootHash} does not match ${hash.path}` : `level ${n} of its hash tree is wrong`
    compare(data.path, hashBlocks(bytes, salt, hashBlockBytes), expected, what)
    const digests = (n === 0 ? dataBlocks : tree.levels[n - 1]!.blocks) * DIGEST
    if (bytes.subarray(digests).some((byte) => byte !== 0))
      throw new Fault('integrity', `Cannot trust ${hash.path}: level ${n} of its tree is not padded with zeros`)
    expected = bytes.subarray(0, digests)
  }
  const digests = await withWorkers(threadsFor(data.sizeBytes, options.workers), (workers) =>
    hashFile(workers, data, dataBlocks, salt, dataBlockBytes),
  )
  compare(data.path, digests, expected, 'its blocks do not match their digests')
}

interface Opened {
  path: string
  sizeBytes: number
  places: ReturnType<typeof placesIn>
}

function opened(device: Device): Opened {
  if (typeof device === 'string') return opened({ path: device, extents: [{ offset: 0, sizeBytes: sizeOf(device) }] })
  const { path, extents } = device
  return { path, sizeBytes: extents.reduce((sum, one) => sum + one.sizeBytes, 0), places: placesIn(extents) }
}

const RUN_BYTES = 1 << 20

interface Run {
  path: string
  places: readonly Extent[]
  sizeBytes: number
  salt: Uint8Array
  blockBytes: number
}

/** Task: digests of the blocks of a part of a file. */
export function hashRun(run: Run): Moved<Uint8Array> {
  scratch ??= Buffer.allocUnsafeSlow(RUN_BYTES)
  const digests = hashBlocks(readPlaces(run.path, run.places, run.sizeBytes, scratch), run.salt, run.blockBytes)
  return moved(digests, [digests.buffer])
}

/** Each thread's own, used again for every run: fresh memory would cost as much as the hashing. */
let scratch: Buffer<ArrayBuffer> | undefined

/** Small data is not worth a second thread's start. */
const threadsFor = (dataBytes: number, workers: Workers | number | undefined): Workers | number | undefined =>
  workers ?? (dataBytes <= 4 * RUN_BYTES ? 1 : undefined)

/** Digests of so many blocks of a device: 32 bytes for each, which are held. */
async function hashFile(
  workers: Workers,
  from: Opened,
  blocks: number,
  salt: Uint8Array,
  blockBytes = VERITY_BLOCK,
): Promise<Uint8Array<ArrayBuffer>> {
  const sizeBytes = blocks * blockBytes
  const digests = new Uint8Array(blocks * DIGEST)
  const next = { offset: 0 }
  const feed = async () => {
    while (next.offset < sizeBytes) {
      const { offset } = next
      next.offset += RUN_BYTES
      const length = Math.min(RUN_BYTES, sizeBytes - offset)
      const run = { path: from.path, places: from.places(offset, length), sizeBytes: length, salt, blockBytes }
      digests.set(await workers.run(taskOf(import.meta.url, hashRun), run), (offset / blockBytes) * DIGEST)
    }
  }
  await Promise.all(Array.from({ length: 2 * workers.size }, feed))
  return digests
}

/** SHA-256 of salt and block, for each block. */
function hashBlocks(bytes: Uint8Array, salt: Uint8Array, blockBytes = VERITY_BLOCK): Uint8Array<ArrayBuffer> {
  const salted = Buffer.alloc(salt.length + blockBytes)
  salted.set(salt)
  const digests = Buffer.from(new ArrayBuffer((bytes.length / blockBytes) * DIGEST))
  for (let at = 0, out = 0; at < bytes.length; at += blockBytes, out += DIGEST) {
    salted.set(bytes.subarray(at, at + blockBytes), salt.length)
    digests.write(hash('sha256', salted, 'binary'), out, 'latin1')
  }
  return digests
}

function compare(dataPath: string, got: Uint8Array, expected: Uint8Array, what: string): void {
  if (Buffer.compare(got, expected) === 0) return
  const wrong: number[] = []
  for (let at = 0; at < got.length; at += DIGEST) {
    if (Buffer.compare(got.subarray(at, at + DIGEST), expected.subarray(at, at + DIGEST)) !== 0) wrong.push(at / DIGEST)
  }
  const list = wrong.slice(0, 8).join(', ') + (wrong.length > 8 ? ', …' : '')
  throw new Fault('integrity', `Cannot trust ${dataPath}: ${what} (${wrong.length} of ${got.length / DIGEST} blocks: ${list})`)
}

function sizeOf(path: string): number {
  const fd = open(path)
  try {
    return fstatSync(fd).size
  } finally {
    closeSync(fd)
  }
}

function open(path: string): number {
  try {
    return openSync(path, 'r')
  } catch (cause) {
    throw new Fault('missing', `Cannot read ${path}: ${(cause as Error).message}`, { cause })
  }
}

/** So many bytes, which these places of a file hold. */
function readPlaces(
  path: string,
  places: readonly Extent[],
  sizeBytes: number,
  into = Buffer.allocUnsafeSlow(sizeBytes),
): Uint8Array {
  const fd = open(path)
  try {
    let at = 0
    for (const { offset, sizeBytes: length } of places) {
      readInto(path, fd, into.subarray(at, at + length), offset)
      at += length
    }
    if (at < sizeBytes) throw new Fault('integrity', `Cannot read ${path}: ${at} bytes are there, expected ${sizeBytes}`)
    return into.subarray(0, sizeBytes)
  } finally {
    closeSync(fd)
  }
}

function readInto(path: string, fd: number, bytes: Uint8Array, offset: number): void {
  for (let at = 0; at < bytes.length; ) {
    const got = readSync(fd, bytes, at, bytes.length - at, offset + at)
    if (got === 0)
      throw new Fault('integrity', `Cannot read ${path}: it ends at ${offset + at}, expected ${offset + bytes.length}`)
    at += got
  }
}

function writeAll(fd: number, bytes: Uint8Array, position: number): void {
  for (let at = 0; at < bytes.length; ) at += writeSync(fd, bytes, at, bytes.length - at, position + at)
}
