/**
 * Measured boot: what a machine's TPM is going to hold once it has booted an image, before any machine has.
 *
 * Everything follows from the bytes on the ESP: boot loader, UKI, and the keys that are enrolled from there. What depends on
 * a machine is not guessed: a value is left out where it cannot be known, and `ASSUMED` says what the others rest on.
 */
import { createHash, X509Certificate } from 'node:crypto'
import { authenticodeDigest, checkAuthenticode } from '../formats/authenticode.ts'
import { cpioPadding, cpioTrailer, encodeCpioHeader, FILE_TYPE } from '../formats/cpio.ts'
import {
  decodeSignatureLists,
  decodeVariableUpdate,
  EFI_GUID,
  SECURE_BOOT_VARIABLES,
  type SecureBootVariable,
} from '../formats/esl.ts'
import { encodeVariableData } from '../formats/event-log.ts'
import { extendPcr, measureSection, PHASE_PATHS, pcrAtPhase, pcrOfSections } from '../formats/pcr.ts'
import { decodePe, findSection, sectionContent } from '../formats/pe.ts'
import { guid } from '../formats/struct.ts'
import { splitProfiles, UKI_SECTIONS } from '../formats/uki.ts'
import { sha256Bytes } from '../formats/x509.ts'
import { fallbackPath } from './boot-loader.ts'
import { MAIN_PROFILE } from './uki-profiles.ts'

/**
 * What firmware has of Secure Boot. `enrolled`: the image's keys, and it enforces them. `disabled`: the same keys, and
 * somebody switched it off. `setup`: no keys yet. `none`: it knows nothing of Secure Boot.
 */
export const FIRMWARE_STATES = ['enrolled', 'disabled', 'setup', 'none'] as const
export type FirmwareState = (typeof FIRMWARE_STATES)[number]

/** Values of PCRs, SHA-256 bank, in hexadecimal. */
export interface PcrPredictions {
  bank: 'sha256'
  /** What the values rest on, for people. */
  assumed: readonly string[]
  /** By the state of the firmware; a state in which it would refuse to start the image is absent. */
  firmware: Partial<Record<FirmwareState, { pcr4: string; pcr7?: string }>>
  /** By profile of the UKI, the default one first. */
  profiles: ProfilePcrs[]
}

export interface ProfilePcrs {
  id: string
  /** When the kernel starts. Absent where stub or kernel are none whose measurements are known. */
  pcr9?: string
  /** By phase path. */
  pcr11: Record<string, string>
  pcr12: string
}

export const ASSUMED = [
  'firmware starts the boot loader from the first boot option it tries, and no driver of a device before it',
  'PK, KEK, db and dbx hold what the image enrols and nothing else; without its dbx, dbx is empty',
  'nothing is added by addons, credentials and extensions on the ESP, a command line from the boot menu, or SMBIOS strings',
] as const

export interface MeasuredBoot {
  /** The boot loader; undefined where firmware starts the UKI itself. */
  loader?: Uint8Array | undefined
  uki: Uint8Array
  /** Signature lists of what the image enrols; undefined where it enrols nothing. */
  keys?: Partial<Record<SecureBootVariable, Uint8Array>> | undefined
}

/** The same from the files of an ESP, as firmware and systemd-boot find them there. */
export async function predictFromEsp(
  read: (path: string) => Promise<Uint8Array | undefined>,
  uki: Uint8Array,
): Promise<PcrPredictions> {
  const keys: Partial<Record<SecureBootVariable, Uint8Array>> = {}
  for (const name of Object.keys(SECURE_BOOT_VARIABLES) as SecureBootVariable[]) {
    const update = await read(`loader/keys/auto/${name}.auth`)
    if (update) keys[name] = decodeVariableUpdate(update).payload
  }
  const first = await read(fallbackPath('x86-64').replace(/^efi\//, ''))
  const loader = first && Buffer.compare(first, uki) !== 0 ? first : undefined
  return predictPcrs({ loader, uki, keys: keys.PK ? keys : undefined })
}

export function predictPcrs(boot: MeasuredBoot): PcrPredictions {
  const uki = readUki(boot.uki)
  const programs = [...(boot.loader ? [boot.loader] : []), boot.uki]
  const digests = programs.map((bytes) => authenticodeDigest(bytes))
  const authorities = boot.keys?.db && programs.map((bytes) => authorityOf(bytes, boot.keys!.db!))
  const firmware: PcrPredictions['firmware'] = {}
  for (const state of FIRMWARE_STATES) {
    const enforces = state === 'enrolled'
    // The stub keeps firmware from judging a kernel that it vouches for itself, and so from measuring it.
    const loadsKernel = !enforces && uki.version < LOADS_KERNEL_ITSELF_SINCE
    const pcr4 = predictPcr4([...digests, ...(loadsKernel ? [authenticodeDigest(uki.kernel)] : [])])
    if (enforces && (!programs.every(isSigned) || authorities?.includes(undefined))) continue
    const known = state === 'setup' || state === 'none' || authorities !== undefined
    firmware[state] = { pcr4, ...(known ? { pcr7: predictPcr7(state, boot.keys ?? {}, authorities ?? []) } : {}) }
  }
  return {
    bank: 'sha256',
    assumed: ASSUMED,
    firmware,
    profiles: uki.profiles.map((one, i) => profilePcrs(uki, one, i, boot.loader !== undefined)),
  }
}

const isSigned = (program: Uint8Array): boolean => checkAuthenticode(program).length > 0

/** PCR 4 when firmware has started these programs, given by their Authenticode digests. */
export const predictPcr4 = (programs: readonly Uint8Array[]): string =>
  replayed([sha256Bytes(Buffer.from('Calling EFI Application from Boot Option')), SEPARATOR, ...programs])

/**
 * PCR 7: the keys, and behind the separator each entry of db that a program was let in by, once. `authorities` are those
 * entries, with their owners.
 */
export function predictPcr7(
  state: FirmwareState,
  keys: Partial<Record<SecureBootVariable, Uint8Array>>,
  authorities: readonly (Uint8Array | undefined)[],
): string {
  const enrolled = state === 'enrolled' || state === 'disabled'
  const secureBoot = state === 'none' ? [] : [state === 'enrolled' ? 1 : 0]
  const variable = (name: string, vendor: string, data: Uint8Array) => sha256Bytes(encodeVariableData({ name, vendor, data }))
  const held = Object.entries(SECURE_BOOT_VARIABLES).map(([name, vendor]) =>
    variable(name, vendor, (enrolled && keys[name as SecureBootVariable]) || new Uint8Array()),
  )
  const used = state === 'enrolled' ? authorities.filter((one) => one !== undefined) : []
  const distinct = used.filter((one, i) => used.findIndex((other) => Buffer.compare(one, other) === 0) === i)
  return replayed([
    variable('SecureBoot', EFI_GUID.global, Uint8Array.from(secureBoot)),
    ...held,
    SEPARATOR,
    ...distinct.map((entry) => variable('db', EFI_GUID.securityDatabase, entry)),
  ])
}

/** PCR 9: the command line, then all initrds in one, as the kernel finds them. */
export const predictPcr9 = (commandLine: string, initrd: Uint8Array): string =>
  replayed([sha256Bytes(utf16(commandLine)), initrd])

/** PCR 12: a profile that was chosen, by number. A boot loader asks for it in words, which it measures before the stub does. */
export const predictPcr12 = (profile: number, byLoader: boolean): string =>
  replayed(profile === 0 ? [] : [...(byLoader ? [`@${profile}`] : []), `${profile}`].map((word) => sha256Bytes(utf16(word))))

const SEPARATOR = sha256Bytes(Buffer.alloc(4))

/** The stub passes text to the kernel, and to the TPM, as UTF-16 with a zero at the end. */
const utf16 = (text: string): Buffer => Buffer.from(`${text}\0`, 'utf16le')

const replayed = (digests: readonly Uint8Array[]): string =>
  hex(digests.reduce<Uint8Array>((pcr, digest) => extendPcr('sha256', pcr, digest), Buffer.alloc(32)))

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')

/**
 * The entry of db, with its owner, that firmware lets a program in by: the first one that is its signer's certificate or
 * issued it. Signatures are tried in the order they have in the program.
 */
function authorityOf(program: Uint8Array, db: Uint8Array): Uint8Array | undefined {
  const entries = decodeSignatureLists(db).flatMap(({ type, entries }) => (type === EFI_GUID.certX509 ? entries : []))
  for (const { certificate, problems } of checkAuthenticode(program)) {
    if (!certificate || problems.length > 0) continue
    const found = entries.find(({ data }) => Buffer.compare(data, certificate) === 0 || isIssuedBy(certificate, data))
    if (found) return signatureData(found)
  }
  return undefined
}

/** EFI_SIGNATURE_DATA: an entry of a list with its owner. */
function signatureData({ owner, data }: { owner: string; data: Uint8Array }): Uint8Array {
  const bytes = new Uint8Array(guid.size + data.length)
  guid.write(new DataView(bytes.buffer), 0, owner)
  bytes.set(data, guid.size)
  return bytes
}

function isIssuedBy(certificate: Uint8Array, issuer: Uint8Array): boolean {
  try {
    const [own, other] = [new X509Certificate(certificate), new X509Certificate(issuer)]
    return own.checkIssued(other) && own.verify(other.publicKey)
  } catch {
    return false // what is no certificate lets nobody in
  }
}

interface ReadUki {
  /** Of its stub. */
  version: number
  kernel: Uint8Array
  profiles: Held[][]
}

interface Held {
  name: string
  sizeBytes: number
  content: Uint8Array
}

function readUki(bytes: Uint8Array): ReadUki {
  const pe = decodePe(bytes, 'UKI')
  const sections = pe.sections
    .filter(({ name }) => (UKI_SECTIONS as readonly string[]).includes(name))
    .map((section): Held => ({ name: section.name, sizeBytes: section.virtualSize, content: sectionContent(bytes, section) }))
  const profiles = splitProfiles(sections)
  const magic = findSection(pe, '.sdmagic')
  const text = magic ? Buffer.from(sectionContent(bytes, magic)).toString('latin1') : ''
  return {
    version: Number(/systemd-stub (\d+)/.exec(text)?.[1] ?? Number.NaN),
    kernel: contentOf(profiles[0]!, '.linux'),
    profiles,
  }
}

const contentOf = (profile: readonly Held[], name: string): Uint8Array =>
  profile.find((section) => section.name === name)?.content ?? new Uint8Array()

const textOf = (profile: readonly Held[], name: string): string => Buffer.from(contentOf(profile, name)).toString()

/** From this version on, the stub starts the kernel without firmware's help. */
const LOADS_KERNEL_ITSELF_SINCE = 258

function profilePcrs(uki: ReadUki, profile: readonly Held[], number: number, byLoader: boolean): ProfilePcrs {
  const sections = profile.map(({ name, content }) => measureSection(name, content, name === '.pcrsig' ? [] : ['sha256']))
  const afterStub = pcrOfSections('sha256', sections)
  return {
    id: /^ID=["']?([^"'\n]*)/m.exec(textOf(profile, '.profile'))?.[1] ?? MAIN_PROFILE.id,
    ...(measuresAsKnown(uki, profile) ? { pcr9: predictPcr9(textOf(profile, '.cmdline').trimEnd(), initrdDigest(profile)) } : {}),
    pcr11: Object.fromEntries(PHASE_PATHS.map((path) => [path, hex(pcrAtPhase('sha256', afterStub, path))])),
    pcr12: predictPcr12(number, byLoader),
  }
}

/**
 * Stubs before 257 hand on other files; from 262 on there is a secret of the machine among them. Of kernels, the ones since
 * 6.12 have been seen to measure the command line and the initrd.
 */
function measuresAsKnown({ version }: ReadUki, profile: readonly Held[]): boolean {
  const [major = 0, minor = 0] = textOf(profile, '.uname').split('.').map(Number)
  return version >= 257 && version < 262 && (major > 6 || (major === 6 && minor >= 12))
}

/** Of what the stub hands to the kernel as initrd: the UKI's own, and sections of it as files below /.extra. */
function initrdDigest(profile: readonly Held[]): Uint8Array {
  const files: [section: string, name: string][] = [
    ['.pcrsig', 'tpm2-pcr-signature.json'],
    ['.pcrpkey', 'tpm2-pcr-public-key.pem'],
    ['.osrel', 'os-release'],
    ['.profile', 'profile'],
  ]
  const own = ['.ucode', '.initrd'].map((name) => contentOf(profile, name))
  const extra = files.flatMap(([section, name]) => {
    const content = contentOf(profile, section)
    return content.length > 0 ? [extraCpio(name, content)] : []
  })
  const hash = createHash('sha256')
  for (const part of [...own, ...extra]) hash.update(part).update(cpioPadding(part.length))
  return hash.digest()
}

/** The stub's archive of one file below /.extra. Its digits are lower-case, but for those of the trailer. */
function extraCpio(name: string, content: Uint8Array): Uint8Array {
  const common = { uid: 0, gid: 0, nlink: 1, mtime: 0, rdevMajor: 0, rdevMinor: 0 }
  const folder = { ...common, name: '.extra', ino: 1, mode: FILE_TYPE.directory | 0o555, sizeBytes: 0 }
  const file = { ...common, name: `.extra/${name}`, ino: 2, mode: FILE_TYPE.file | 0o444, sizeBytes: content.length }
  const header = (entry: typeof folder) =>
    Buffer.from(Buffer.from(encodeCpioHeader(entry)).toString('latin1').toLowerCase(), 'latin1')
  return Buffer.concat([header(folder), header(file), content, cpioPadding(content.length), cpioTrailer()])
}
