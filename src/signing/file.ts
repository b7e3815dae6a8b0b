/** A Signer whose key is a PEM file that its owner alone can read, with the certificate in another. */
import { constants, createPrivateKey, createPublicKey, type KeyObject, privateEncrypt, type X509Certificate } from 'node:crypto'
import { open, readFile } from 'node:fs/promises'
import { Fault } from '../base/fault.ts'
import { digestInfo, publicKeyOf, readCertificate } from '../formats/x509.ts'
import type { Signer } from './signer.ts'

export interface KeyFiles {
  /** Path of the private key, PEM. */
  key: string
  /** Path of the certificate, PEM. */
  certificate: string
}

/** Far above any PEM file with one key or certificate. */
const MAX_PEM_BYTES = 1 << 20

/**
 * Loads a signer and refuses one whose signatures nobody would accept: key and certificate that do not belong together, a
 * certificate that has expired at `epoch` (the image's time, seconds since 1970), a key that others can read.
 * The start of validity is not checked: an image's time may well lie before its keys were made, and neither firmware nor
 * the kernel looks.
 */
export async function loadFileSigner(files: KeyFiles, options: { epoch: number }): Promise<Signer> {
  const certificate = await loadCertificate(files.certificate)
  const key = await loadKey(files.key)
  const expires = certificate.validToDate.getTime() / 1000
  if (expires < options.epoch)
    throw new Fault(
      'usage',
      `Cannot sign with ${files.certificate}: certificate expired ${day(expires)}, image time is ${day(options.epoch)}`,
      { hint: 'Make new keys in another folder: bisque keys generate --keys DIR' },
    )
  if (!createPublicKey(key).equals(publicKeyOf(certificate.raw)))
    throw new Fault('usage', `Cannot sign with ${files.key}: it is not the key of certificate ${files.certificate}`)
  return signerOf(key, certificate.raw)
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

export async function loadCertificate(path: string): Promise<X509Certificate> {
  const text = await readPem(path, { secret: false })
  const count = text.split('-----BEGIN CERTIFICATE-----').length - 1
  if (count !== 1) throw new Fault('format', `Cannot read certificate ${path}: it holds ${count} PEM certificates, expected one`)
  try {
    return readCertificate(text)
  } catch (cause) {
    throw new Fault('format', `Cannot read certificate ${path}: ${(cause as Error).message}`, { cause })
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
  if (key.asymmetricKeyType !== 'rsa' || bits < 2048)
    throw new Fault(
      'usage',
      `Cannot sign with ${path}: it is a key of type ${key.asymmetricKeyType}${bits ? `, ${bits} bits` : ''}, firmware needs RSA of 2048 bits or more`,
    )
  return key
}

async function readPem(path: string, options: { secret: boolean }): Promise<string> {
  const kind = options.secret ? 'key' : 'certificate'
  try {
    await using file = await open(path, 'r')
    const { mode, size } = await file.stat()
    if (options.secret && (mode & 0o077) !== 0)
      throw new Fault('host', `Cannot use key ${path}: others may read or write it (mode ${(mode & 0o777).toString(8)})`, {
        hint: `chmod 600 ${path}`,
      })
    if (size > MAX_PEM_BYTES) throw new Fault('format', `Cannot read ${kind} ${path}: ${size} bytes are too many for a PEM file`)
    return await readFile(file, 'utf8')
  } catch (cause) {
    if (cause instanceof Fault) throw cause
    const { code } = cause as NodeJS.ErrnoException
    if (code === 'ENOENT')
      throw new Fault('missing', `Cannot read ${kind} ${path}: there is no such file`, {
        hint: 'bisque keys generate --keys DIR',
        cause,
      })
    throw new Fault('host', `Cannot read ${kind} ${path}: ${(cause as Error).message}`, { cause })
  }
}

const day = (seconds: number) => new Date(seconds * 1000).toISOString().slice(0, 10)
