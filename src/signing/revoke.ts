/** Withdrawing what a trusted key signed: images, and certificates of keys that are no longer ours. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { loadOwner } from './keys.ts'
import { FINISHING_FOLDER, requireFolder } from './load.ts'
import { type Access, makeUpdates, type WrittenUpdates } from './offline-updates.ts'
import { addRevocations, type Revocation, revocationLists, unknownRevocations } from './revocations.ts'
import { freeNumber, interrupted } from './rotation.ts'

/** Revokes programs and certificates: remembers them for later images, and writes the update for machines that run. */
export async function revoke(
  directory: string,
  revocations: readonly Revocation[],
  plan: Access & { now: number },
): Promise<WrittenUpdates & { fresh: Revocation[] }> {
  await requireFolder(directory)
  if (existsSync(join(directory, FINISHING_FOLDER))) throw interrupted(directory)
  const fresh = await unknownRevocations(directory, revocations)
  if (fresh.length === 0) return { fresh, updates: [] }
  const lists = revocationLists(await loadOwner(directory), fresh)
  const name = `${await freeNumber(directory)}-revoke`
  const written = await makeUpdates(directory, { what: name, ...plan }, async ({ load }) => [
    { name, changes: [{ name: 'dbx', append: true, lists, signer: await load(directory, 'kek') }] },
  ])
  if (!written.wanted) await addRevocations(directory, fresh)
  return { fresh, ...written }
}
