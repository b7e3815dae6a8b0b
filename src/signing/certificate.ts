/** Certificates of signers: read from PEM files or DER, and judged by what their key is to sign. */

import type { X509Certificate } from 'node:crypto'
import { open, readFile } from 'node:fs/promises'
import { dayOf } from '../base/day.ts'
import { Fault } from '../base/fault.ts'
import { keyUsageOf, OID, publicKeyOf, readCertificate } from '../formats/x509.ts'
import type { KeyRole } from './signer.ts'

/** Far above any PEM file with one key or certificate. */
const MAX_PEM_BYTES = 1 << 20

export async function loadCertificate(path: string): Promise<X509Certificate> {
  return parseCertificate(await readPem(path, { secret: false }), path)
}

/** One certificate in PEM. */
export function parseCertificate(text: string, from: string): X509Certificate {
  const count = text.split('-----BEGIN CERTIFICATE-----').length - 1
  if (count !== 1) throw new Fault('format', `Cannot read certificate ${from}: it holds ${count} PEM certificates, expected one`)
  try {
    return readCertificate(text)
  } catch (cause) {
    throw new Fault('format', `Cannot read certificate ${from}: ${(cause as Error).message}`, { cause })
  }
}

/**
 * Why nobody would accept signatures of this certificate's key made for these roles at `epoch` (the image's time, seconds
 * since 1970); empty when all is well. The start of validity is not checked: an image's time may well lie before its keys
 * were made, and neither firmware nor the kernel looks. Nor is CA: firmware and the kernel are given each signer's own
 * certificate, and none signs by way of another.
 */
export function certificateProblems(certificate: Uint8Array, roles: readonly KeyRole[], epoch: number): string[] {
  const read = readCertificate(certificate)
  const problems: string[] = []
  const expires = read.validToDate.getTime() / 1000
  if (expires < epoch) problems.push(`certificate expired ${dayOf(expires)}, image time is ${dayOf(epoch)}`)
  const key = publicKeyOf(certificate)
  const bits = key.asymmetricKeyDetails?.modulusLength ?? 0
  if (key.asymmetricKeyType !== 'rsa' || bits < MIN_RSA_BITS) problems.push(wrongKey(key.asymmetricKeyType, bits))
  const signs = roles.filter((role) => role !== 'pcr') // a TPM knows the key alone
  if (signs.length === 0) return problems
  const usage = keyUsageOf(certificate)
  if (usage !== undefined && !usage.includes('digitalSignature'))
    problems.push(`its certificate is for ${usage.join(', ') || 'nothing'} only (key usage), signing needs digitalSignature`)
  const extended = read.keyUsage as string[] | undefined
  const code = signs.filter((role) => role === 'db' || role === 'verity')
  if (code.length > 0 && extended !== undefined && !extended.some((one) => one === OID.codeSigning || one === ANY_USAGE))
    problems.push(
      `its certificate is for ${extended.join(', ')} only (extended key usage), ${code.join(' and ')} needs codeSigning`,
    )
  return problems
}

export const MIN_RSA_BITS = 2048
const ANY_USAGE = '2.5.29.37.0'

/** What is wrong with a key that is no RSA key, or a short one. */
export const wrongKey = (type: string | undefined, bits: number): string =>
  `it is a key of type ${type}${bits ? `, ${bits} bits` : ''}, firmware needs RSA of ${MIN_RSA_BITS} bits or more`

/** A PEM file; a secret one must be its owner's alone. */
export async function readPem(path: string, options: { secret: boolean }): Promise<string> {
  return readSmall(path, { ...options, kind: options.secret ? 'key' : 'certificate' })
}

/** A small text file; a secret one must be its owner's alone. */
export async function readSmall(path: string, { secret, kind }: { secret: boolean; kind: string }): Promise<string> {
  try {
    await using file = await open(path, 'r')
    const { mode, size } = await file.stat()
    if (secret && (mode & 0o077) !== 0)
      throw new Fault('host', `Cannot use ${kind} ${path}: others may read or write it (mode ${(mode & 0o777).toString(8)})`, {
        hint: `chmod 600 ${path}`,
      })
    if (size > MAX_PEM_BYTES) throw new Fault('format', `Cannot read ${kind} ${path}: ${size} bytes are too many for such a file`)
    return await readFile(file, 'utf8')
  } catch (cause) {
    if (cause instanceof Fault) throw cause
    const { code } = cause as NodeJS.ErrnoException
    if (code === 'ENOENT')
      throw new Fault('missing', `Cannot read ${kind} ${path}: there is no such file`, {
        ...(kind === 'key' || kind === 'certificate' ? { hint: 'bisque keys generate --keys DIR' } : {}),
        cause,
      })
    throw new Fault('host', `Cannot read ${kind} ${path}: ${(cause as Error).message}`, { cause })
  }
}
