/** A signed IPE policy: the text in a PKCS#7 envelope, as the kernel loads it from `/usr/lib/ipe/<policy_name>.p7b`. */
import { attachSignature, prepareEmbedded } from '../formats/cms.ts'
import { type Signer, signDigest } from './signer.ts'

/** Signs a policy's text as it is. The kernel must find the certificate in its keyrings: UEFI db reaches `.platform`. */
export async function signIpePolicy(policy: string, signer: Signer): Promise<Uint8Array> {
  const prepared = prepareEmbedded(Buffer.from(policy))
  const signature = await signDigest(signer, prepared.digest, 'IPE policy', /\bpolicy_name=(\S{1,200})/.exec(policy)?.[1])
  return attachSignature(prepared, signer.certificate, signature)
}
