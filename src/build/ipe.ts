/** The IPE policy of an image: what it adds to the initrd, to the command line and to the system. */
import { makeInitrd } from '../image/initrd.ts'
import { ipeInitrd } from '../image/ipe/initrd.ts'
import { ipePolicies } from '../image/ipe/policy.ts'
import type { ImageRecipe } from '../recipe/recipe.ts'
import type { Settings } from '../recipe/schema.ts'
import { signIpePolicy } from '../signing/ipe.ts'
import type { NamedInitrd } from './boot.ts'
import type { Signing } from './keys.ts'

/** An initrd with the signed policy and what insists on it; none where the image has no policy. */
export async function ipeInitrds({ settings }: ImageRecipe, signing: Signing, epoch: number): Promise<NamedInitrd[]> {
  const { ipe, ipePolicy, imageId, output } = settings
  if (ipe === 'off') return []
  const { name, text, booted } = ipePolicies({ imageId: imageId ?? output, ipePolicy })
  const signer = signing.signers.verity
  const [signed, signedBooted] = [await signIpePolicy(text, signer), await signIpePolicy(booted.text, signer)]
  const tree = ipeInitrd({
    mode: ipe as 'enforce',
    name,
    text,
    signed,
    booted: { name: booted.name, signed: signedBooted },
    epoch,
  })
  return [{ name: 'ipe.initrd', content: { bytes: await makeInitrd(tree, { compression: 'none' }) } }]
}

/** Words of the command line. */
export const ipeWords = ({ ipe }: Settings): string[] => (ipe === 'off' ? [] : [`ipe.enforce=${ipe === 'enforce' ? 1 : 0}`])
