/** A tree as a cpio archive: what the kernel takes for an initrd. */
import { writeFile } from 'node:fs/promises'
import type { Workers } from '../../run/workers.ts'
import type { Tree } from '../../tree/tree.ts'
import { makeInitrd } from '../initrd.ts'
import { clampTimes } from '../usr.ts'
import { type Compression, writeCompressed } from './compress.ts'

export interface CpioOptions {
  epoch: number
  compression: Compression
  level: number
  workers: Workers
}

/** Writes the archive to a new file. */
export async function writeCpio(tree: Tree, path: string, options: CpioOptions): Promise<void> {
  const { epoch, compression, level, workers } = options
  const clamped = clampTimes(tree, epoch)
  if (compression === 'zstd' && level > 0) {
    await writeFile(path, await makeInitrd(clamped, { compression, level, workers }), { flag: 'wx' })
    return
  }
  const archive = await makeInitrd(clamped, { compression: 'none', workers })
  const once = async function* () {
    yield archive
  }
  await writeCompressed(once(), path, { compression, level, workers })
}
