/** A Signer whose key is a PEM file that its owner alone can read, with the certificate in another. */
import { constants, createPrivateKey, createPublicKey, type KeyObject, privateEncrypt } from 'node:crypto'
import { Fault } from '../base/fault.ts'
import { digestInfo, publicKeyOf } from '../formats/x509.ts'
import { certificateProblems, loadCertificate, MIN_RSA_BITS, readPem, wrongKey } from './certificate.ts'
import type { KeyRole, Signer } from './signer.ts'

export interface KeyFiles {
  /** Path of the private key, PEM. */
  key: string
  /** Path of the certificate, PEM. */
  certificate: string
}

export interface SignerUse {
  /** The image's time, seconds since 1970. */
  epoch: number
  /** What the key is to sign; `db` unless given. */
  roles?: readonly KeyRole[]
}

/**
 * Loads a signer and refuses one whose signatures nobody would accept, with all that is wrong with it: a key that others can
 * read, that is none or no RSA key, or not the certificate's; a certificate that has expired or is for other uses.
 */
export async function loadFileSigner(files: KeyFiles, { epoch, roles = ['db'] }: SignerUse): Promise<Signer> {
  const [certificate, key] = await Promise.all([loadCertificate(files.certificate), loadKey(files.key)])
  requireUsable(files.certificate, certificate.raw, { epoch, roles })
  if (!createPublicKey(key).equals(publicKeyOf(certificate.raw)))
    throw new Fault('usage', `Cannot sign with ${files.key}: it is not the key of certificate ${files.certificate}`, {
      hint: `openssl x509 -in ${files.certificate} -noout -pubkey; openssl pkey -in ${files.key} -pubout`,
    })
  return signerOf(key, certificate.raw)
}

/** Refuses a certificate whose signatures nobody would accept, with every reason. */
export function requireUsable(from: string, certificate: Uint8Array, { epoch, roles = ['db'] }: SignerUse): void {
  const problems = certificateProblems(certificate, roles, epoch)
  if (problems.length > 0)
    throw new Fault('usage', problems.map((problem) => `Cannot sign with ${from}: ${problem}`).join('\n'), {
      hint: 'Make new keys in another folder: bisque keys generate --keys DIR',
    })
}

/** A signer of a key held in memory. */
export function signerOf(key: KeyObject, certificate: Uint8Array): Signer {
  return {
    certificate,
    async sign(digest) {
      if (digest.length !== 32) throw new Error(`a SHA-256 digest has 32 bytes, not ${digest.length}`)
      return privateEncrypt({ key, padding: constants.RSA_PKCS1_PADDING }, digestInfo(digest))
    },
  }
}

async function loadKey(path: string): Promise<KeyObject> {
  const text = await readPem(path, { secret: true })
  if (/-----BEGIN ENCRYPTED PRIVATE KEY-----|^Proc-Type: 4,ENCRYPTED/m.test(text))
    throw new Fault('usage', `Cannot read key ${path}: it is encrypted with a passphrase`, {
      hint: `openssl pkey -in ${path} -out ${path}.plain`,
    })
  let key: KeyObject
  try {
    key = createPrivateKey(text)
  } catch {
    // The cause is left out: it could quote the key.
    throw new Fault('format', `Cannot read key ${path}: it is not a PEM private key`)
  }
  const bits = key.asymmetricKeyDetails?.modulusLength ?? 0
  if (key.asymmetricKeyType !== 'rsa' || bits < MIN_RSA_BITS)
    throw new Fault('usage', `Cannot sign with ${path}: ${wrongKey(key.asymmetricKeyType, bits)}`)
  return key
}
