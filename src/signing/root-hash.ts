/** The signature of a dm-verity root hash, as the kernel and systemd take it from the signature partition. */
import { isSha256, type Sha256, sha256 } from '../base/digest.ts'
import { Fault } from '../base/fault.ts'
import { attachSignature, prepareDetached } from '../formats/cms.ts'
import { type Signer, signDigest } from './signer.ts'

/** The content of the signature partition; `formats/verity` encodes it. */
export interface RootHashSignature {
  rootHash: Sha256
  certificateFingerprint: Sha256
  /** DER PKCS#7, detached. */
  signature: Uint8Array
}

/** Signs the root hash, which is signed as its 64 hexadecimal digits. */
export async function signRootHash(rootHash: Sha256, signer: Signer): Promise<RootHashSignature> {
  if (!isSha256(rootHash))
    throw new Fault('format', `Cannot sign root hash "${rootHash}": expected 64 lower-case hexadecimal digits`)
  const prepared = prepareDetached(Buffer.from(rootHash, 'ascii'))
  const signature = await signDigest(signer, prepared.digest, 'root hash', rootHash)
  return {
    rootHash,
    certificateFingerprint: sha256(signer.certificate),
    signature: attachSignature(prepared, signer.certificate, signature),
  }
}
