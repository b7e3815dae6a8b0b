/** A tree as a tar file. */
import type { Tree } from '../../tree/tree.ts'
import { type CompressOptions, writeCompressed } from './compress.ts'
import { atRest, tarOf } from './tar.ts'

/** Writes the archive of a system at rest to a new file. On failure there is none. */
export const writeTar = (
  tree: Tree,
  path: string,
  options: CompressOptions & { epoch: number },
): Promise<{ sizeBytes: number }> => writeCompressed(tarOf(atRest(tree), options), path, options)
