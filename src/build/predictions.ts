/** What the TPM of a machine that boots the finished image will hold, from the files of its ESP. */
import { decodeVariableUpdate, SECURE_BOOT_VARIABLES, type SecureBootVariable } from '../formats/esl.ts'
import { fallbackPath } from '../image/boot-loader.ts'
import { type PcrPredictions, predictPcrs } from '../image/measured.ts'
import { readContent } from '../tree/content.ts'
import type { Boot } from './boot.ts'

/** Undefined where there is no UKI of ours: what others measure is not known. */
export async function predictionsOf({ files, kernel }: Boot): Promise<PcrPredictions | undefined> {
  if (!kernel?.uki) return undefined
  const read = async (path: string) => {
    const inode = files.get(path)
    return inode?.type === 'file' ? await readContent(inode.content) : undefined
  }
  const keys: Partial<Record<SecureBootVariable, Uint8Array>> = {}
  for (const name of Object.keys(SECURE_BOOT_VARIABLES) as SecureBootVariable[]) {
    const update = await read(`efi/loader/keys/auto/${name}.auth`)
    if (update) keys[name] = decodeVariableUpdate(update).payload
  }
  const fallback = await read(fallbackPath('x86-64'))
  const loader = fallback && Buffer.compare(fallback, kernel.uki.bytes) !== 0 ? fallback : undefined
  return predictPcrs({ loader, uki: kernel.uki.bytes, keys: keys.PK ? keys : undefined })
}
