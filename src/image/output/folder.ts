/** A tree as a folder. */
import { mkdir, rm } from 'node:fs/promises'
import type { Tree } from '../../tree/tree.ts'
import { stageTree } from '../staging.ts'

/** Writes a tree into a new folder, whose files are its own. On failure there is none. */
export async function writeFolder(tree: Tree, path: string, options: { epoch: number }): Promise<void> {
  await mkdir(path)
  try {
    await stageTree(tree, path, options)
  } catch (error) {
    await rm(path, { recursive: true, force: true })
    throw error
  }
}
