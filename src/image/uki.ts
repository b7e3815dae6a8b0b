/** The UKI: kernel, initrd and command line in the distribution's stub, with signed PCR policies, signed for Secure Boot. */
import { promisify } from 'node:util'
import { gunzip } from 'node:zlib'
import { Fault } from '../base/fault.ts'
import {
  formatPcrSignatures,
  type MeasuredSection,
  measureSection,
  PCR_BANKS,
  type PcrBank,
  PHASE_PATHS,
  pcrAtPhase,
  pcrOfSections,
} from '../formats/pcr.ts'
import { decodePe, findSection, NX_COMPAT, replaceSection, sectionContent } from '../formats/pe.ts'
import { checkUkiTexts, composeSbat, splitProfiles, UKI_FILE_ORDER, UKI_SBAT } from '../formats/uki.ts'
import { publicKeyOf } from '../formats/x509.ts'
import { type PcrValue, pcrPublicKey, signPcrPolicies } from '../signing/pcr.ts'
import { type Signer, type Signers, signersInForce } from '../signing/signer.ts'
import type { Content } from '../tree/tree.ts'
import { layOutProgram, type Part, partOf, readWhole, signPe, signProgram, textContent } from './efi-program.ts'
import { checkProfiles, MAIN_PROFILE, type UkiProfile } from './uki-profiles.ts'

export interface UkiInput {
  /** The distribution's `linux*.efi.stub`. */
  stub: Content
  kernel: Content
  /** cpio archives, concatenated in this order. */
  initrds: readonly Content[]
  /** Uncompressed cpios with early microcode, concatenated. */
  microcode?: Content | readonly Content[]
  /** Text of os-release. */
  osRelease: string
  cmdline: string
  /** `uname -r` of the kernel. */
  uname: string
  /** SBAT text of this UKI, instead of the line for UKIs as such. */
  sbat?: string
  /** BMP. */
  splash?: Content
  /** Further choices in the boot menu, each with a command line of its own, behind the one that is booted by default. */
  profiles?: readonly UkiProfile[]
  /** Without `db` the UKI is not signed; without `pcr` it has no PCR policies. */
  signers: Partial<Pick<Signers, 'db' | 'pcr'>>
  /** Whether the kernel inside is signed too, for what starts it by way of firmware, or takes it out. */
  signKernel?: boolean
  /** PCR banks to sign policies for; `['sha256']` when not given. */
  banks?: readonly PcrBank[]
  /** Seconds since 1970 to put into signatures; when not given they carry no time. */
  signingTime?: number
}

/** PCR 11 in hexadecimal, by phase path and bank. */
export type PcrTable = Record<string, Partial<Record<PcrBank, string>>>

export interface Uki {
  bytes: Uint8Array
  /** What PCR 11 will be when the default profile is booted. */
  pcr11: PcrTable
  /** The same for each profile, the default one first; empty when the UKI has none. */
  profiles: { id: string; pcr11: PcrTable }[]
  /** What firmware compares with db and measures into PCR 4. */
  authenticodeSha256: string
  /** The kernel as it lies inside, and all initrds in one. */
  kernel: Uint8Array
  initrd: Uint8Array
  sections: { name: string; sizeBytes: number }[]
}

/** Makes and signs a UKI. The same input gives the same bytes. It is written once, in place, into memory of its size. */
export async function makeUki(given: UkiInput): Promise<Uki> {
  const banks = given.banks ?? ['sha256']
  checkInput(given, banks)
  const plainStub = await readWhole(given.stub)
  const version = stubVersion(plainStub)
  const input = fitToStub(given, version)
  const { db } = input.signers
  const kernel = await kernelOf(input)
  const nxCompat = (decodePe(kernel, 'kernel').dllCharacteristics & NX_COMPAT) !== 0
  const sbat = sbatOf([plainStub, kernel], input.sbat ?? UKI_SBAT)
  const stub = replaceSection(plainStub, '.sbat', sbat)

  const moments = version >= REFERENCES_SINCE && version < Infinity ? [...MOMENTS, IN_INITRD] : MOMENTS
  const parts = await planParts(input, kernel, banks, moments)
  const program = await layOutProgram(stub, parts, { nxCompat, signer: db })
  const placed = parts.map((part, i): PlacedPart => {
    const target = program.targets[i]!
    // .pcrsig is still zero here, and is not measured.
    return { ...measureSection(part.name, target, part.name === '.pcrsig' ? [] : banks), target }
  })

  const inStub = measureSection('.sbat', sbat, banks)
  const tables = await signProfiles([inStub, ...placed], banks, moments, input.signers.pcr)
  const signed = await signProgram(program, db, 'UKI', input.signingTime)
  const ids = input.profiles?.length ? [MAIN_PROFILE, ...input.profiles].map(({ id }) => id) : []
  return {
    bytes: signed.image,
    pcr11: tables[0]!,
    profiles: ids.map((id, i) => ({ id, pcr11: tables[i]! })),
    authenticodeSha256: signed.authenticodeSha256,
    kernel,
    initrd: placed.find(({ name }) => name === '.initrd')?.target ?? new Uint8Array(),
    sections: [inStub, ...placed].map(({ name, sizeBytes }) => ({ name, sizeBytes })),
  }
}

/** When a policy holds, and what it is for. */
interface Moment {
  phasePath: string
  reference?: string
}

const MOMENTS: readonly Moment[] = PHASE_PATHS.map((phasePath) => ({ phasePath }))

/**
 * What the initrd alone may do: define the TPM's indexes that later stand for further PCRs. It comes last, as what does not
 * know of references takes the first policy that fits.
 */
const IN_INITRD: Moment = { phasePath: 'enter-initrd', reference: 'initrd' }
const REFERENCES_SINCE = 262

function stubVersion(stub: Uint8Array): number {
  const section = findSection(decodePe(stub, 'stub'), '.sdmagic')
  const magic = section ? Buffer.from(sectionContent(stub, section)).toString('latin1') : ''
  return Number(/systemd-stub (\d+)/.exec(magic)?.[1] ?? Number.POSITIVE_INFINITY)
}

/** What older stubs do not know yet is put where they look for it, or refused. */
function fitToStub(input: UkiInput, version: number): UkiInput {
  if (version < PROFILES_SINCE && input.profiles?.length) {
    const why = `profiles need systemd-stub ${PROFILES_SINCE} or newer, the image has ${version}`
    throw new Fault('recipe', `Cannot make UKI: ${why}`, { hint: 'leave out UnifiedKernelImageProfiles=' })
  }
  if (version >= MICROCODE_SINCE) return input
  const { microcode = [], ...rest } = input
  return { ...rest, initrds: [...[microcode].flat(), ...input.initrds] }
}

/** The versions of systemd-stub that first read `.ucode` and `.profile`. */
const MICROCODE_SINCE = 256
const PROFILES_SINCE = 257

type PlacedPart = MeasuredSection & { target: Uint8Array }

/** Far above any kernel; a compressed one that grows beyond is refused. */
const MAX_KERNEL_BYTES = 1 << 30

/** The kernel as firmware can start it. Some architectures' kernels come compressed. */
async function kernelOf({ kernel, signKernel, signers, signingTime }: UkiInput): Promise<Uint8Array> {
  const read = await readWhole(kernel)
  const plain = read[0] === 0x1f && read[1] === 0x8b ? await gunzipped(read) : read
  return signKernel && signers.db ? signPe(plain, signers.db, signingTime === undefined ? {} : { signingTime }) : plain
}

async function gunzipped(kernel: Uint8Array): Promise<Uint8Array> {
  try {
    return await promisify(gunzip)(kernel, { maxOutputLength: MAX_KERNEL_BYTES })
  } catch (cause) {
    throw new Fault('format', `Cannot make UKI: the kernel does not decompress: ${(cause as Error).message}`, { cause })
  }
}

async function planParts(
  input: UkiInput,
  kernel: Uint8Array,
  banks: readonly PcrBank[],
  moments: readonly Moment[],
): Promise<Part[]> {
  const { pcr } = input.signers
  const sources: Partial<Record<string, readonly Content[]>> = {
    '.osrel': [textContent(input.osRelease)],
    '.cmdline': [textContent(input.cmdline)],
    '.uname': [textContent(input.uname)],
    '.splash': input.splash ? [input.splash] : [],
    '.pcrpkey': pcr ? [textContent(pcrPublicKey(pcr))] : [],
    '.linux': [{ bytes: kernel }],
    '.initrd': input.initrds,
    '.ucode': [input.microcode ?? []].flat(),
  }
  const base = await Promise.all(UKI_FILE_ORDER.map((name) => partOf(name, sources[name] ?? [])))
  const signatures = pcr ? [{ ...(await partOf('.pcrsig', [])), sizeBytes: pcrSignaturesSize(pcr, banks, moments) }] : []
  const profiles = await Promise.all(
    (input.profiles ?? []).map(async ({ text, cmdline, signed }) => [
      await partOf('.profile', [textContent(text)]),
      await partOf('.cmdline', [textContent(cmdline)]),
      ...(signed ? signatures : []),
    ]),
  )
  // All before the first `.profile` is shared. The default profile has nothing of its own but its policies.
  const main = profiles.length > 0 ? [await partOf('.profile', [textContent(MAIN_PROFILE.text)])] : []
  return [...base, ...main, ...signatures, ...profiles.flat()].filter((part) => part.sizeBytes > 0)
}

/** The size of `.pcrsig` text before there are signatures: all its values have sizes known beforehand. */
function pcrSignaturesSize(signer: Signer, banks: readonly PcrBank[], moments: readonly Moment[]): number {
  const policies = signersInForce(signer).flatMap(({ certificate }, by) => {
    const bits = publicKeyOf(certificate).asymmetricKeyDetails?.modulusLength ?? 0
    return banks.flatMap((bank) =>
      moments.map(({ reference }, i) => ({
        bank,
        ...(reference === undefined ? {} : { reference }),
        keyFingerprint: String(by).repeat(64),
        policy: Buffer.alloc(32, i),
        signature: Buffer.alloc(Math.ceil(bits / 8)),
      })),
    )
  })
  return formatPcrSignatures(policies).length
}

/** Writes the `.pcrsig` of every profile that has one, and gives back what each profile makes of PCR 11. */
async function signProfiles(
  sections: readonly (MeasuredSection | PlacedPart)[],
  banks: readonly PcrBank[],
  moments: readonly Moment[],
  signer: Signer | undefined,
): Promise<PcrTable[]> {
  const tables: PcrTable[] = []
  for (const effective of splitProfiles(sections)) {
    const { table, values } = measureProfile(effective, banks, moments)
    tables.push(table)
    const target = effective.find((part): part is PlacedPart => part.name === '.pcrsig' && 'target' in part)?.target
    if (!target || !signer) continue
    const text = Buffer.from(formatPcrSignatures(await signPcrPolicies(values, signer)))
    if (text.length !== target.length) throw new Error(`.pcrsig has ${text.length} bytes, ${target.length} were planned`)
    target.set(text)
  }
  return tables
}

function measureProfile(
  sections: readonly MeasuredSection[],
  banks: readonly PcrBank[],
  moments: readonly Moment[],
): { table: PcrTable; values: PcrValue[] } {
  const table: PcrTable = Object.fromEntries(PHASE_PATHS.map((path) => [path, {}]))
  const values = banks.flatMap((bank) => {
    const afterStub = pcrOfSections(bank, sections)
    return moments.map(({ phasePath, reference }) => {
      const pcr = pcrAtPhase(bank, afterStub, phasePath)
      table[phasePath]![bank] = Buffer.from(pcr).toString('hex')
      return { bank, pcr, ...(reference === undefined ? {} : { reference }) }
    })
  })
  return { table, values }
}

/** The SBAT lines of every part, and the UKI's own. A kernel without a `.sbat` section adds none. */
function sbatOf(images: readonly Uint8Array[], own: string): Uint8Array {
  const texts = images.flatMap((image) => {
    const section = findSection(decodePe(image), '.sbat')
    return section ? [Buffer.from(sectionContent(image, section)).toString('utf8')] : []
  })
  return Buffer.from(composeSbat([...texts, own]))
}

function checkInput(input: UkiInput, banks: readonly PcrBank[]): void {
  checkUkiTexts({ cmdline: input.cmdline, uname: input.uname })
  checkProfiles(input.profiles ?? [])
  if (banks.length === 0 || new Set(banks).size !== banks.length || banks.some((bank) => !Object.hasOwn(PCR_BANKS, bank)))
    throw new Fault(
      'recipe',
      `Cannot make UKI: PCR banks "${banks.join(' ')}" must be some of ${Object.keys(PCR_BANKS).join(', ')}`,
    )
}
