/** Hashing large files on another thread. */
import { createHash } from 'node:crypto'
import { closeSync, openSync, readSync } from 'node:fs'
import type { Sha256 } from '../base/digest.ts'
import { taskOf } from './workers.ts'

const CHUNK = 1 << 20

/** SHA-256 of a file's bytes. Runs in a worker thread. */
export function hashFile(path: string): Sha256 {
  const fd = openSync(path, 'r')
  try {
    const hash = createHash('sha256')
    const chunk = Buffer.allocUnsafeSlow(CHUNK)
    for (let read = readSync(fd, chunk); read > 0; read = readSync(fd, chunk)) hash.update(chunk.subarray(0, read))
    return hash.digest('hex')
  } finally {
    closeSync(fd)
  }
}

export const HASH_FILE = taskOf(import.meta.url, hashFile)
