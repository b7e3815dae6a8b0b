/** Signed TPM policies over PCR 11: what lets a machine unseal its secrets with any UKI this key vouches for. */
import { type PcrBank, type PcrPolicy, policyDigest, publicKeyFingerprint } from '../formats/pcr.ts'
import { publicKeyOf, sha256Bytes } from '../formats/x509.ts'
import { type Signer, signDigest } from './signer.ts'

/** A value PCR 11 is allowed to have. */
export interface PcrValue {
  bank: PcrBank
  pcr: Uint8Array
}

export async function signPcrPolicies(values: readonly PcrValue[], signer: Signer): Promise<PcrPolicy[]> {
  const keyFingerprint = publicKeyFingerprint(publicKeyOf(signer.certificate))
  const policies: PcrPolicy[] = []
  for (const { bank, pcr } of values) {
    const policy = policyDigest(bank, pcr)
    const signature = await signDigest(
      signer,
      sha256Bytes(policy),
      'PCR policy',
      `PCR 11 ${bank}:${Buffer.from(pcr).toString('hex')}`,
    )
    policies.push({ bank, keyFingerprint, policy, signature })
  }
  return policies
}

/** `.pcrpkey`: the key the policies are checked with, PEM. */
export const pcrPublicKey = (signer: Signer): string =>
  publicKeyOf(signer.certificate).export({ type: 'spki', format: 'pem' }) as string
