/**
 * PCR 11: what the TPM will hold after a UKI started, and the policies signed for it.
 *
 * Spec:   systemd-measure(1), systemd-stub(7); TPM 2.0 Part 1 §19.7 (policies), Part 3 §23.7 (PolicyPCR)
 * Oracle: `systemd-measure calculate|sign`, `openssl dgst -sha256 -verify`
 * Limits: policies are over PCR 11 alone and hashed with SHA-256, the only ones systemd makes; RSA keys.
 */
import { createHash, type KeyObject } from 'node:crypto'
import { Fault } from '../base/fault.ts'
import { measuredSections } from './uki.ts'
import { sha256Bytes } from './x509.ts'

export const PCR_KERNEL_BOOT = 11

/** Banks by name, with the TPM's number of their hash. */
// biome-ignore format: table
export const PCR_BANKS = {
  sha1:   { algorithm: 0x0004, sizeBytes: 20 },
  sha256: { algorithm: 0x000b, sizeBytes: 32 },
  sha384: { algorithm: 0x000c, sizeBytes: 48 },
  sha512: { algorithm: 0x000d, sizeBytes: 64 },
} as const
export type PcrBank = keyof typeof PCR_BANKS

/** How far the boot has come: the words userspace measures, joined by colons. These four are what systemd signs. */
export const PHASE_PATHS = [
  'enter-initrd',
  'enter-initrd:leave-initrd',
  'enter-initrd:leave-initrd:sysinit',
  'enter-initrd:leave-initrd:sysinit:ready',
] as const

const TPM2_CC_POLICY_PCR = 0x0000_017f

export const extendPcr = (bank: PcrBank, pcr: Uint8Array, digest: Uint8Array): Uint8Array<ArrayBuffer> =>
  Uint8Array.from(createHash(bank).update(pcr).update(digest).digest())

/** A section as the stub measures it. */
export interface MeasuredSection {
  name: string
  sizeBytes: number
  /** The hash of its content for each bank that is asked for. */
  digests: Partial<Record<PcrBank, Uint8Array>>
}

export function measureSection(name: string, content: Uint8Array, banks: readonly PcrBank[]): MeasuredSection {
  const digests = Object.fromEntries(banks.map((bank) => [bank, createHash(bank).update(content).digest()]))
  return { name, sizeBytes: content.length, digests }
}

/** PCR 11 when the stub has measured these sections (of one profile) and nothing else. */
export function pcrOfSections(bank: PcrBank, sections: readonly MeasuredSection[]): Uint8Array {
  let pcr = new Uint8Array(PCR_BANKS[bank].sizeBytes)
  for (const { name, digests } of measuredSections(sections)) {
    const digest = digests[bank]
    if (!digest) throw new Error(`section ${name} was not measured for ${bank}`)
    pcr = extendPcr(bank, pcr, createHash(bank).update(`${name}\0`).digest())
    pcr = extendPcr(bank, pcr, digest)
  }
  return pcr
}

/** PCR 11 at the end of a phase path, from what it is when the stub is done. */
export function pcrAtPhase(bank: PcrBank, afterStub: Uint8Array, phasePath: string): Uint8Array {
  let pcr = Uint8Array.from(afterStub)
  for (const word of phasePath.split(':')) {
    if (!/^[a-z0-9-]+$/.test(word)) throw new Fault('usage', `Cannot measure phase path "${phasePath}": "${word}" is no phase`)
    pcr = extendPcr(bank, pcr, createHash(bank).update(word).digest())
  }
  return pcr
}

/** The digest of the TPM policy "PCR 11 of this bank has this value". */
export function policyDigest(bank: PcrBank, pcr: Uint8Array): Buffer {
  const command = Buffer.alloc(4)
  command.writeUInt32BE(TPM2_CC_POLICY_PCR)
  const selection = Buffer.from([0, 0, 0, 1, 0, 0, 3, 0, 0, 0])
  selection.writeUInt16BE(PCR_BANKS[bank].algorithm, 4)
  selection[7 + (PCR_KERNEL_BOOT >> 3)]! |= 1 << (PCR_KERNEL_BOOT & 7)
  return sha256Bytes(Buffer.concat([Buffer.alloc(32), command, selection, sha256Bytes(pcr)]))
}

/** One signed policy. */
export interface PcrPolicy {
  bank: PcrBank
  /** SHA-256 of the key as PKCS#1, see `publicKeyFingerprint()`. */
  keyFingerprint: string
  policy: Uint8Array
  /** What it is for, where that is not just anything: secrets that name a reference take only policies with it. */
  reference?: string
  /** Over the bytes of `signedPolicy()`. */
  signature: Uint8Array
}

/** What a policy's signature is made over: the policy, and the digest of what it is for, which an empty reference has none of. */
export const signedPolicy = ({ policy, reference = '' }: Pick<PcrPolicy, 'policy' | 'reference'>): Buffer =>
  Buffer.concat([policy, ...(reference === '' ? [] : [sha256Bytes(Buffer.from(reference))])])

/** `.pcrsig`: the signed policies as systemd reads them. Equal policies (phases with equal PCRs) appear once. */
export function formatPcrSignatures(policies: readonly PcrPolicy[]): string {
  const banks: Record<string, { pcrs: number[]; pkfp: string; ref?: string; pol: string; sig: string }[]> = {}
  for (const { bank, keyFingerprint, policy, reference, signature } of policies) {
    banks[bank] ??= []
    const pol = Buffer.from(policy).toString('hex')
    if (banks[bank].some((entry) => entry.pol === pol && entry.pkfp === keyFingerprint && entry.ref === reference)) continue
    const sig = Buffer.from(signature).toString('base64')
    const ref = reference === undefined ? {} : { ref: reference }
    banks[bank].push({ pcrs: [PCR_KERNEL_BOOT], pkfp: keyFingerprint, ...ref, pol, sig })
  }
  return JSON.stringify(banks)
}

const MAX_POLICIES = 4096

/** Reads `.pcrsig` text. Entries for other PCRs, of unknown banks or not signed yet are left out. */
export function parsePcrSignatures(text: string): PcrPolicy[] {
  const policies: PcrPolicy[] = []
  for (const [bank, entries] of Object.entries(parseObject(text))) {
    if (!isBank(bank)) continue
    if (!Array.isArray(entries) || entries.length > MAX_POLICIES)
      throw new Fault('format', `Cannot read .pcrsig: ${bank} is not a list of at most ${MAX_POLICIES} policies`)
    for (const [i, entry] of entries.entries()) {
      const { pcrs, pkfp, ref, pol, sig } = (entry ?? {}) as Record<string, unknown>
      if (sig === undefined || !Array.isArray(pcrs) || pcrs.length !== 1 || pcrs[0] !== PCR_KERNEL_BOOT) continue
      const signed = typeof sig === 'string' && /^[A-Za-z0-9+/]+=*$/.test(sig)
      if (!isDigest(pkfp) || !isDigest(pol) || !signed || !(ref === undefined || typeof ref === 'string'))
        throw new Fault('format', `Cannot read .pcrsig: entry ${i} of ${bank} lacks a sound pkfp, pol or sig`)
      const reference = ref === undefined ? {} : { reference: ref }
      const [policy, signature] = [Buffer.from(pol, 'hex'), Buffer.from(sig, 'base64')]
      policies.push({ bank, keyFingerprint: pkfp, policy, ...reference, signature })
    }
  }
  return policies
}

/** What systemd names a policy key by: SHA-256 of its PKCS#1 form, not of its SubjectPublicKeyInfo. */
export const publicKeyFingerprint = (key: KeyObject): string =>
  sha256Bytes(key.export({ type: 'pkcs1', format: 'der' })).toString('hex')

export const isBank = (name: string): name is PcrBank => Object.hasOwn(PCR_BANKS, name)

const isDigest = (value: unknown): value is string => typeof value === 'string' && /^[0-9a-f]{64}$/.test(value)

function parseObject(text: string): object {
  try {
    const value: unknown = JSON.parse(text.replace(/[\0\s]+$/, ''))
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value
  } catch (cause) {
    throw new Fault('format', `Cannot read .pcrsig: ${(cause as Error).message}`, { cause })
  }
  throw new Fault('format', 'Cannot read .pcrsig: it is not a JSON object')
}
