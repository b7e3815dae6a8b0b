/** What the TPM of a machine that boots the finished image will hold, from the files of its ESP. */
import { type PcrPredictions, predictFromEsp } from '../image/measured.ts'
import { readContent } from '../tree/content.ts'
import type { Boot } from './boot.ts'

/** Undefined where there is no UKI of ours: what others measure is not known. */
export async function predictionsOf({ files, kernel }: Boot): Promise<PcrPredictions | undefined> {
  if (!kernel?.uki) return undefined
  const read = async (path: string) => {
    const inode = files.get(`efi/${path}`)
    return inode?.type === 'file' ? await readContent(inode.content) : undefined
  }
  return predictFromEsp(read, kernel.uki.bytes)
}
