/** Signed TPM policies over PCR 11: what lets a machine unseal its secrets with any UKI this key vouches for. */
import { type PcrBank, type PcrPolicy, policyDigest, publicKeyFingerprint, signedPolicy } from '../formats/pcr.ts'
import { publicKeyOf, sha256Bytes } from '../formats/x509.ts'
import { type Signer, signDigest, signersInForce } from './signer.ts'

/** A value PCR 11 is allowed to have. */
export interface PcrValue {
  bank: PcrBank
  pcr: Uint8Array
  /** What the policy is for alone. */
  reference?: string
}

/** Policies of every signer in force: a machine looks for those of the key its secrets are sealed to. */
export async function signPcrPolicies(values: readonly PcrValue[], signer: Signer): Promise<PcrPolicy[]> {
  const policies: PcrPolicy[] = []
  for (const one of signersInForce(signer)) {
    const keyFingerprint = publicKeyFingerprint(publicKeyOf(one.certificate))
    for (const { bank, pcr, reference } of values) {
      const policy = policyDigest(bank, pcr)
      const about = `PCR 11 ${bank}:${Buffer.from(pcr).toString('hex')}`
      const meant = { policy, ...(reference === undefined ? {} : { reference }) }
      const signature = await signDigest(one, sha256Bytes(signedPolicy(meant)), 'PCR policy', about)
      policies.push({ bank, keyFingerprint, ...meant, signature })
    }
  }
  return policies
}

/**
 * `.pcrpkey`: the key that machines seal new secrets to, PEM. It is the successor's where there is one: what is sealed today
 * must open with later images, which have its policies alone. Secrets sealed before name their key themselves.
 */
export const pcrPublicKey = (signer: Signer): string =>
  publicKeyOf(signersInForce(signer).at(-1)!.certificate).export({ type: 'spki', format: 'pem' }) as string
