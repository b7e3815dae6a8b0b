/** The keys a build signs with: those it is given, or ones made beside the recipe on first use. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { Fault } from '../base/fault.ts'
import { publicKeyOf } from '../formats/x509.ts'
import type { Recipe } from '../recipe/recipe.ts'
import { generateKeys, loadOwner, loadSigners } from '../signing/keys.ts'
import type { Signers } from '../signing/signer.ts'
import type { Trust } from '../verify/image.ts'
import type { Env } from './env.ts'

export interface Signing {
  /** Folder of the keys. */
  directory: string
  signers: Signers
  /** GUID under which the certificates are entered into firmware. */
  owner: string
}

export async function keysFor(recipe: Recipe, given: string | undefined, env: Env): Promise<Signing> {
  const directory = given ?? join(recipe.directory, 'keys')
  const now = Math.floor(env.now.getTime() / 1000)
  if (!existsSync(directory)) {
    if (given !== undefined) {
      throw new Fault('missing', `Cannot sign: there are no keys in ${given}`, { hint: `bisque keys generate --keys ${given}` })
    }
    await env.report.step('Generate keys', async (report) => {
      await generateKeys(directory, { commonName: recipe.settings.imageId ?? 'image', now, years: 10 })
      report.tell({ type: 'note', level: 'info', message: `new signing keys in ${directory}: keep them secret, and keep them` })
    })
  }
  return { directory, signers: await loadSigners(directory, { epoch: now }), owner: await loadOwner(directory) }
}

/** Whom an image signed so must trust: these keys, and no others. */
export function trustOf({ signers: { pk, kek, db, verity, pcr } }: Signing): Trust {
  const only = (signer: Signers[keyof Signers]) => [signer.certificate]
  return { pk: only(pk), kek: only(kek), db: only(db), verity: only(verity), pcr: [publicKeyOf(pcr.certificate)] }
}
