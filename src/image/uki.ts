/** The UKI: kernel, initrd and command line in the distribution's stub, with signed PCR policies, signed for Secure Boot. */
import { open, stat } from 'node:fs/promises'
import { Fault } from '../base/fault.ts'
import { alignUp } from '../base/size.ts'
import {
  attachAuthenticode,
  authenticodeDigest,
  decodeSignatures,
  encodeCertificateEntry,
  prepareAuthenticode,
} from '../formats/authenticode.ts'
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
import { decodePe, extendPe, findSection, NX_COMPAT, replaceSection, sectionContent } from '../formats/pe.ts'
import { checkUkiTexts, composeSbat, splitProfiles, UKI_FILE_ORDER, UKI_SBAT } from '../formats/uki.ts'
import { publicKeyOf } from '../formats/x509.ts'
import { type PcrValue, pcrPublicKey, signPcrPolicies } from '../signing/pcr.ts'
import { type Signer, type Signers, signDigest } from '../signing/signer.ts'
import type { Content } from '../tree/tree.ts'

export interface UkiInput {
  /** The distribution's `linux*.efi.stub`. */
  stub: Content
  kernel: Content
  /** cpio archives, concatenated in this order. */
  initrds: readonly Content[]
  /** Uncompressed cpio with early microcode. */
  microcode?: Content
  /** Text of os-release. */
  osRelease: string
  cmdline: string
  /** `uname -r` of the kernel. */
  uname: string
  /** SBAT text of this UKI, instead of the line for UKIs as such. */
  sbat?: string
  /** BMP. */
  splash?: Content
  /** The first is the default one. Each is a choice in the boot menu and may have a command line of its own. */
  profiles?: readonly UkiProfile[]
  signers: Pick<Signers, 'db' | 'pcr'>
  /** PCR banks to sign policies for; `['sha256']` when not given. */
  banks?: readonly PcrBank[]
  /** Seconds since 1970 to put into the signature; when not given it carries no time. */
  signingTime?: number
}

export interface UkiProfile {
  id: string
  title?: string
  cmdline?: string
}

/** PCR 11 in hexadecimal, by phase path and bank. */
export type PcrTable = Record<string, Partial<Record<PcrBank, string>>>

export interface Uki {
  bytes: Uint8Array
  /** What PCR 11 will be when the default profile is booted. */
  pcr11: PcrTable
  /** The same for each profile; empty when the UKI has none. */
  profiles: { id: string; pcr11: PcrTable }[]
  /** What firmware compares with db and measures into PCR 4. */
  authenticodeSha256: string
  sections: { name: string; sizeBytes: number }[]
}

/** Makes and signs a UKI. The same input gives the same bytes. It is written once, in place, into memory of its size. */
export async function makeUki(input: UkiInput): Promise<Uki> {
  const banks = input.banks ?? ['sha256']
  checkInput(input, banks)
  const kernel = await readContent(input.kernel)
  const nxCompat = (decodePe(kernel, 'kernel').dllCharacteristics & NX_COMPAT) !== 0
  const plainStub = await readContent(input.stub)
  const sbat = sbatOf([plainStub, kernel], input.sbat ?? UKI_SBAT)
  const stub = replaceSection(plainStub, '.sbat', sbat)

  const parts = await planParts(input, kernel, banks)
  const layout = extendPe(stub, parts, { nxCompat })
  const buffer = Buffer.alloc(layout.sizeBytes + signatureRoom(input.signers.db))
  buffer.set(layout.head)
  const placed: PlacedPart[] = []
  for (const [i, part] of parts.entries()) {
    const target = buffer.subarray(layout.offsets[i]!, layout.offsets[i]! + part.sizeBytes)
    await fill(part, target)
    // .pcrsig is still zero here, and is not measured.
    placed.push({ ...measureSection(part.name, target, part.name === '.pcrsig' ? [] : banks), target })
  }

  const inStub = measureSection('.sbat', sbat, banks)
  const tables = await signProfiles([inStub, ...placed], banks, input.signers.pcr)
  const signed = await signInPlace(buffer, layout.sizeBytes, input.signers.db, 'UKI', input.signingTime)
  return {
    bytes: signed.image,
    pcr11: tables[0]!,
    profiles: (input.profiles ?? []).map(({ id }, i) => ({ id, pcr11: tables[i]! })),
    authenticodeSha256: signed.digest,
    sections: [inStub, ...placed].map(({ name, sizeBytes }) => ({ name, sizeBytes })),
  }
}

/** Signs an EFI program for Secure Boot: systemd-boot, or an addon. Signatures it has stay. */
export async function signPe(image: Uint8Array, signer: Signer, options: { signingTime?: number } = {}): Promise<Uint8Array> {
  const buffer = Buffer.alloc(alignUp(image.length, 8) + signatureRoom(signer))
  buffer.set(image)
  const { image: signed } = await signInPlace(buffer, image.length, signer, 'EFI program', options.signingTime)
  return signed
}

/** More than a signature takes, which carries its certificate and repeats the issuer. */
const signatureRoom = ({ certificate }: Signer) => 4096 + 2 * certificate.length

const CHUNK_BYTES = 4 << 20

/** A section to be: how large it is, and where its bytes are. `.pcrsig` is filled in when the others are measured. */
interface Part {
  name: string
  sizeBytes: number
  /** Whether firmware may enter it in place. */
  code: boolean
  contents: readonly Content[]
  /** Each content is followed by zeros up to a multiple of this. */
  alignment: number
}

type PlacedPart = MeasuredSection & { target: Uint8Array }

async function planParts(input: UkiInput, kernel: Uint8Array, banks: readonly PcrBank[]): Promise<Part[]> {
  const sources: Partial<Record<string, readonly Content[]>> = {
    '.osrel': [textContent(input.osRelease)],
    '.cmdline': [textContent(input.cmdline)],
    '.uname': [textContent(input.uname)],
    '.splash': input.splash ? [input.splash] : [],
    '.pcrpkey': [textContent(pcrPublicKey(input.signers.pcr))],
    '.linux': [{ bytes: kernel }],
    '.initrd': input.initrds,
    '.ucode': input.microcode ? [input.microcode] : [],
  }
  const base = await Promise.all(UKI_FILE_ORDER.map((name) => partOf(name, sources[name] ?? [])))
  const signatures = { ...(await partOf('.pcrsig', [])), sizeBytes: pcrSignaturesSize(input.signers.pcr, banks) }
  const profiles = await Promise.all(
    (input.profiles ?? []).map(async (profile) => [
      await partOf('.profile', [textContent(profileText(profile))]),
      await partOf('.cmdline', profile.cmdline === undefined ? [] : [textContent(profile.cmdline)]),
      signatures,
    ]),
  )
  const parts = [...base, ...(profiles.length > 0 ? profiles.flat() : [signatures])]
  return parts.filter((part) => part.sizeBytes > 0)
}

async function partOf(name: string, contents: readonly Content[]): Promise<Part> {
  // An initrd's first archive may be followed by another only at a multiple of four bytes.
  const alignment = contents.length > 1 ? 4 : 1
  const sizes = await Promise.all(contents.map(sizeOf))
  return {
    name,
    code: name === '.linux',
    contents,
    alignment,
    sizeBytes: sizes.reduce((sum, size) => sum + alignUp(size, alignment), 0),
  }
}

/** The size of `.pcrsig` text before there are signatures: all its values have sizes known beforehand. */
function pcrSignaturesSize(signer: Signer, banks: readonly PcrBank[]): number {
  const bits = publicKeyOf(signer.certificate).asymmetricKeyDetails?.modulusLength ?? 0
  const policies = banks.flatMap((bank) =>
    PHASE_PATHS.map((_, i) => ({
      bank,
      keyFingerprint: '0'.repeat(64),
      policy: Buffer.alloc(32, i),
      signature: Buffer.alloc(Math.ceil(bits / 8)),
    })),
  )
  return formatPcrSignatures(policies).length
}

/** Writes the `.pcrsig` of every profile, and gives back what each makes of PCR 11. */
async function signProfiles(
  sections: readonly (MeasuredSection | PlacedPart)[],
  banks: readonly PcrBank[],
  signer: Signer,
): Promise<PcrTable[]> {
  const tables: PcrTable[] = []
  for (const effective of splitProfiles(sections)) {
    const { table, values } = measureProfile(effective, banks)
    const text = Buffer.from(formatPcrSignatures(await signPcrPolicies(values, signer)))
    const target = effective.find((part): part is PlacedPart => part.name === '.pcrsig' && 'target' in part)?.target
    if (text.length !== target?.length) throw new Error(`.pcrsig has ${text.length} bytes, ${target?.length} were planned`)
    target.set(text)
    tables.push(table)
  }
  return tables
}

function measureProfile(
  sections: readonly MeasuredSection[],
  banks: readonly PcrBank[],
): { table: PcrTable; values: PcrValue[] } {
  const table: PcrTable = Object.fromEntries(PHASE_PATHS.map((path) => [path, {}]))
  const values = banks.flatMap((bank) => {
    const afterStub = pcrOfSections(bank, sections)
    return PHASE_PATHS.map((path) => {
      const pcr = pcrAtPhase(bank, afterStub, path)
      table[path]![bank] = Buffer.from(pcr).toString('hex')
      return { bank, pcr }
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

async function signInPlace(
  buffer: Uint8Array,
  imageSize: number,
  signer: Signer,
  what: string,
  signingTime: number | undefined,
): Promise<{ image: Uint8Array; digest: string }> {
  const image = buffer.subarray(0, imageSize)
  const pe = decodePe(image, what)
  decodeSignatures(image, pe)
  const digest = authenticodeDigest(image, pe)
  const prepared = prepareAuthenticode(digest, signingTime)
  const signature = await signDigest(signer, prepared.digest, what)
  const table = encodeCertificateEntry(image, pe, prepared, { certificate: signer.certificate, signature })
  return { image: attachAuthenticode(buffer, imageSize, pe, table), digest: digest.toString('hex') }
}

function checkInput(input: UkiInput, banks: readonly PcrBank[]): void {
  checkUkiTexts({ cmdline: input.cmdline, uname: input.uname })
  const profiles = input.profiles ?? []
  for (const { id, title, cmdline } of profiles) {
    checkUkiTexts({ cmdline: cmdline ?? '', uname: input.uname })
    if (!/^[\w.-]+$/.test(id)) throw new Fault('recipe', `Cannot make UKI: profile id "${id}" must be letters, digits, _ . -`)
    if (/["\\$`\n\r\0]/.test(title ?? ''))
      throw new Fault('recipe', `Cannot make UKI: the title of profile ${id} has a character that a quoted value cannot hold`)
  }
  const twice = profiles.find(({ id }, i) => profiles.findIndex((other) => other.id === id) !== i)
  if (twice) throw new Fault('recipe', `Cannot make UKI: there are two profiles with id ${twice.id}`)
  if (banks.length === 0 || new Set(banks).size !== banks.length || banks.some((bank) => !Object.hasOwn(PCR_BANKS, bank)))
    throw new Fault(
      'recipe',
      `Cannot make UKI: PCR banks "${banks.join(' ')}" must be some of ${Object.keys(PCR_BANKS).join(', ')}`,
    )
}

function profileText({ id, title }: UkiProfile): string {
  return `ID=${id}\n${title === undefined ? '' : `TITLE="${title}"\n`}`
}

const textContent = (text: string): Content => ({ bytes: Buffer.from(text) })

async function sizeOf(content: Content): Promise<number> {
  if ('bytes' in content) return content.bytes.length
  return (await stat(content.path).catch((cause) => unreadable(content.path, cause))).size
}

async function readContent(content: Content): Promise<Uint8Array> {
  if ('bytes' in content) return content.bytes
  const target = Buffer.allocUnsafeSlow(await sizeOf(content))
  await fillFrom(content.path, target)
  return target
}

async function fill(part: Part, target: Uint8Array): Promise<void> {
  let at = 0
  for (const content of part.contents) {
    const size = await sizeOf(content)
    if (at + size > target.length) throw new Fault('integrity', `Cannot make UKI: the content of ${part.name} grew meanwhile`)
    const place = target.subarray(at, at + size)
    if ('bytes' in content) place.set(content.bytes)
    else await fillFrom(content.path, place)
    at += alignUp(size, part.alignment)
  }
  if (part.contents.length > 0 && at !== target.length)
    throw new Fault('integrity', `Cannot make UKI: the content of ${part.name} shrank meanwhile`)
}

async function fillFrom(path: string, target: Uint8Array): Promise<void> {
  await using file = await open(path, 'r').catch((cause) => unreadable(path, cause))
  for (let at = 0; at < target.length; ) {
    const { bytesRead } = await file.read(target, at, Math.min(CHUNK_BYTES, target.length - at), at)
    if (bytesRead === 0) throw new Fault('integrity', `Cannot make UKI: ${path} became shorter meanwhile`)
    at += bytesRead
  }
}

function unreadable(path: string, cause: unknown): never {
  const missing = (cause as NodeJS.ErrnoException).code === 'ENOENT'
  throw new Fault(missing ? 'missing' : 'host', `Cannot make UKI: ${(cause as Error).message}`, {
    cause,
    ...(missing ? { hint: `ls -l ${path}` } : {}),
  })
}
