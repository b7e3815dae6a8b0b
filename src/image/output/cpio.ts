/** A tree as a cpio archive: what the kernel takes for an initrd. */
import { writeFile } from 'node:fs/promises'
import type { Workers } from '../../run/workers.ts'
import type { Tree } from '../../tree/tree.ts'
import { makeInitrd } from '../initrd.ts'
import { clampTimes } from '../usr.ts'
import type { Compression } from './compress.ts'

export interface CpioOptions {
  epoch: number
  compression: Compression
  level: number
  workers?: Workers
}

/** The archive, held whole: it is unpacked into memory when it is used. */
export const cpioOf = (tree: Tree, { epoch, ...options }: CpioOptions): Promise<Uint8Array> =>
  makeInitrd(clampTimes(tree, epoch), { ...options, whole: true })

/** Writes the archive to a new file. */
export async function writeCpio(tree: Tree, path: string, options: CpioOptions): Promise<void> {
  await writeFile(path, await cpioOf(tree, options), { flag: 'wx' })
}
