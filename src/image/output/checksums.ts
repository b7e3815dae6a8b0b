/** SHA256SUMS: the digests of artifacts, as `sha256sum --check` takes them. */
import type { Sha256 } from '../../base/digest.ts'
import { Fault } from '../../base/fault.ts'

/** One line for each file, in the order of their names. Folders have no digest: leave them out. */
export function formatChecksums(digests: ReadonlyMap<string, Sha256>): string {
  const names = [...digests.keys()].sort()
  const odd = names.find((name) => /[\n\\/]/.test(name))
  if (odd !== undefined) throw new Fault('usage', `Cannot list ${JSON.stringify(odd)} in SHA256SUMS: it is no plain file name`)
  return names.map((name) => `${digests.get(name)} *${name}\n`).join('')
}
