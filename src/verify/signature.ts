/** The signature of a root hash: who vouches for it, and whether that counts for the kernel or only for userspace. */
import { X509Certificate } from 'node:crypto'
import { sha256 } from '../base/digest.ts'
import { Fault } from '../base/fault.ts'
import { certificateOf, checkSigner, decodeSignedData, type SignedData, type SignerInfo } from '../formats/cms.ts'
import { decodeVeritySignature, type VeritySignature } from '../formats/verity.ts'
import { decodeIssuerAndSerial } from '../formats/x509.ts'
import { type Disk, type DiskPartition, readWithin } from './disk.ts'
import type { Anchor } from './facts.ts'
import type { Files } from './holes/files.ts'
import type { Finding } from './link.ts'
import { includesBytes, judgeValidity, leadsTo, nameOf, sameBytes } from './trust.ts'

const MAX_SIGNATURE_PARTITION_BYTES = 4 << 20
const SIGN = 'sign the root hash with the verity key: bisque build does'

export interface RootHashSigners {
  signers: Uint8Array[]
  forKernel: boolean
}

/** Judges the signature partition of a root hash. `initrd`: where userspace's own certificates lie. */
export function checkRootHashSignature(
  disk: Disk,
  partitions: readonly DiskPartition[],
  rootHash: string,
  anchor: Anchor,
  initrds: readonly Files[],
  now: number,
  finding: Finding,
): RootHashSigners {
  const { wrong } = finding
  const none = { signers: [], forKernel: false }
  const { found, broken } = readSignatures(disk, partitions)
  const value = found.find((one) => one.rootHash === rootHash)
  if (!value) {
    for (const problem of broken) wrong(problem)
    const there = found.map((one) => one.rootHash).join(', ') || 'none'
    wrong(`no signature partition is for ${rootHash}: there is ${there}`, SIGN)
    return none
  }
  const signed = decodeSignedData(value.signature)
  if (signed.signers.length !== 1) wrong(`it has ${signed.signers.length} signers, expected 1`)
  const judged = signed.signers.map((signer) => judgeSigner(value, signed, signer, anchor, initrds, now, finding))
  return {
    signers: judged.flatMap(({ certificate }) => (certificate ? [certificate] : [])),
    forKernel: judged.length > 0 && judged.every(({ forKernel }) => forKernel),
  }
}

/** A disk in use has one for each slot, and empty ones: only the one that counts must be sound. */
export function readSignatures(disk: Disk, partitions: readonly DiskPartition[]): { found: VeritySignature[]; broken: string[] } {
  const found: VeritySignature[] = []
  const broken: string[] = []
  for (const partition of partitions) {
    try {
      if (partition.sizeBytes > MAX_SIGNATURE_PARTITION_BYTES)
        throw new Fault('format', `partition ${partition.number} has ${partition.sizeBytes} bytes, expected at most 4 MiB`)
      const bytes = readWithin(disk, partition)(0, partition.sizeBytes)
      if (bytes.some((byte) => byte !== 0)) found.push(decodeVeritySignature(bytes))
    } catch (error) {
      if (!(error instanceof Fault) || error.code === 'host') throw error
      broken.push(error.message)
    }
  }
  return { found, broken }
}

function judgeSigner(
  value: VeritySignature,
  signed: SignedData,
  signer: SignerInfo,
  anchor: Anchor,
  initrds: readonly Files[],
  now: number,
  finding: Finding,
): { certificate?: Uint8Array; forKernel: boolean } {
  const { evidence, wrong } = finding
  const names = (one: Uint8Array) => {
    const { issuer, serialNumber } = decodeIssuerAndSerial(one)
    return sameBytes(issuer, signer.issuer) && sameBytes(serialNumber, signer.serialNumber)
  }
  const carried = certificateOf(signed, signer)
  const byKernel =
    anchor.verity.find(names) ?? (carried && leadsTo(carried, anchor.verity, signed.certificates) ? carried : undefined)
  // Whoever says whom to trust is not answered with whom the image itself lets in.
  const byUserspace = byKernel || anchor.from === 'given' ? undefined : userspaceCertificates(initrds).find(names)
  const certificate = byKernel ?? byUserspace
  if (!certificate) {
    wrong('its signer is no trusted verity certificate', anchor.from === 'image' ? 'enrol the certificate in db' : SIGN)
    return { forKernel: false }
  }
  const problems = checkSigner(signed, signer, certificate, Buffer.from(value.rootHash))
  for (const problem of problems) wrong(problem, SIGN)
  judgeValidity(certificate, now, finding)
  if (includesBytes(anchor.revoked.certificates, certificate)) wrong('dbx revokes its signer: the kernel refuses it')
  if ((value.certificateFingerprint ?? sha256(certificate)) !== sha256(certificate))
    wrong(`certificateFingerprint is ${value.certificateFingerprint}, the signer's is ${sha256(certificate)}`)
  evidence(`PKCS#7 over the root hash by ${nameOf(certificate)}`)
  if (byUserspace)
    evidence(
      'verified by systemd with a certificate of verity.d in the signed initrd, not by the kernel: for IPE, dmverity_signature is FALSE',
    )
  return problems.length > 0 ? { forKernel: false } : { certificate, forKernel: byKernel !== undefined }
}

/** `verity.d/*.crt` of the initrds, which the UKI's signature covers. */
function userspaceCertificates(initrds: readonly Files[]): Uint8Array[] {
  const all: Uint8Array[] = []
  for (const files of initrds)
    for (const folder of ['etc/verity.d', 'usr/local/lib/verity.d', 'usr/lib/verity.d'])
      for (const name of files.names(folder).slice(0, 64)) {
        const bytes = name.endsWith('.crt') ? files.bytes(`${folder}/${name}`, 1 << 16) : undefined
        try {
          if (bytes) all.push(new X509Certificate(bytes).raw)
        } catch {
          // systemd passes over it as well.
        }
      }
  return all
}
