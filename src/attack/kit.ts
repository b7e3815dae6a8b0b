/** What an attacker has: the image, a stranger's keys, and things forged with them; sometimes the image's own keys. */
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Fault } from '../base/fault.ts'
import { compareVersions } from '../base/version.ts'
import { authenticodeDigest } from '../formats/authenticode.ts'
import { encodeNullCredential } from '../formats/credential.ts'
import type { Architecture } from '../formats/dps.ts'
import { certificateLists, decodeVariableUpdate, EFI_GUID, encodeSignatureLists } from '../formats/esl.ts'
import { formatPcrSignatures, measureSection, PHASE_PATHS, pcrAtPhase, pcrOfSections } from '../formats/pcr.ts'
import { decodePe, extendPe, findSection, patchCertificateTable, replaceSection, sectionContent } from '../formats/pe.ts'
import { measuredSections, splitProfiles } from '../formats/uki.ts'
import { decodeVerity, encodeVeritySignature, verityPartitionUuids } from '../formats/verity.ts'
import type { EditedImage } from '../image/edit.ts'
import { openImage } from '../image/edit.ts'
import { signPe } from '../image/efi-program.ts'
import { writeVerity } from '../image/verity.ts'
import { signIpePolicy } from '../signing/ipe.ts'
import { generateKeys } from '../signing/keys.ts'
import { loadSigners } from '../signing/load.ts'
import { pcrPublicKey, signPcrPolicies } from '../signing/pcr.ts'
import { signRootHash } from '../signing/root-hash.ts'
import type { Signer, Signers } from '../signing/signer.ts'
import type { FirmwareKeys } from '../vm/firmware.ts'

/** What is in the image, as far as attacks need to know. */
export interface Subject {
  path: string
  architecture: Architecture
  /** What firmware starts: a path on the ESP. */
  loader: string
  /** The UKI that is booted. */
  uki: string
  cmdline: string
  /** Of /usr, as the command line pins it. */
  rootHash: string
  /** Whether there is a signature of the root hash. */
  signed: boolean
  /** What the image enrols. */
  enrols: Omit<FirmwareKeys, 'dbx'>
  /** A block of /usr that no boot reads early: in its last tenth. */
  laterBlock: number
  /** Where the kernel lies in the UKI's file, and its certificate table's entry in the kernel. */
  kernel: { offset: number; sizeBytes: number; certificateEntry: number }
}

/** Another /usr: a consistent pair of data and hash tree with a root hash of its own, and a stranger's signature. */
export interface OtherUsr {
  what: string
  rootHash: string
  data: Uint8Array
  hash: Uint8Array
  signature: Uint8Array
}

export interface Kit {
  subject: Subject
  stranger: Signers
  /** The image's own keys, where given. */
  own?: Signers
  other: OtherUsr
  /** An IPE policy called "attack" that allows everything, signed by the stranger. */
  strangePolicy: Uint8Array
}

export interface KitOptions {
  image: string
  /** Folder for what is forged. */
  folder: string
  /** Another version of the image; without one, /usr is changed and given a hash tree of its own. */
  otherImage?: string
  /** Folder of the image's own keys. */
  keys?: string
  /** Seconds since 1970. */
  now: number
}

export async function makeKit({ image, folder, otherImage, keys, now }: KitOptions): Promise<Kit> {
  await mkdir(folder, { recursive: true })
  const subject = readSubject(image)
  const strangers = join(folder, 'stranger')
  await generateKeys(strangers, { commonName: 'Stranger', now: now - 86_400, years: 10 })
  const stranger = await loadSigners(strangers, { epoch: now })
  const own = keys === undefined ? undefined : await loadSigners(keys, { epoch: now })
  const made = otherImage === undefined ? await changedUsr(image, folder) : usrOf(otherImage, image)
  const signature = encodeVeritySignature(await signRootHash(made.rootHash, stranger.verity))
  const strangePolicy = await signIpePolicy(ALLOW_ALL, stranger.verity)
  return { subject, stranger, ...(own ? { own } : {}), other: { ...made, signature }, strangePolicy }
}

const ALLOW_ALL = 'policy_name=attack policy_version=99.0.0\nDEFAULT action=ALLOW\n'

/** Reads what attacks need to know; a Fault where the image is not one that firmware boots from an ESP into a /usr under verity. */
export function readSubject(path: string): Subject {
  using image = openImage(path)
  const files = [...image.espFiles().keys()]
  const loader = files.find((file) => /^EFI\/BOOT\/BOOT(X64|AA64)\.EFI$/i.test(file))
  const [uki] = files.filter((file) => /^EFI\/Linux\/[^/]+\.efi$/i.test(file)).sort((a, b) => compareVersions(b, a))
  if (!loader || !uki) throw cannot(path, `there is no ${loader ? 'UKI in EFI/Linux' : 'boot loader in EFI/BOOT'} on its ESP`)
  const bytes = image.readEsp(uki)
  const pe = decodePe(bytes, uki)
  const [cmdlineSection, linux] = [findSection(pe, '.cmdline'), findSection(pe, '.linux')]
  if (!cmdlineSection || !linux) throw cannot(path, `${uki} has no .cmdline or no .linux section`)
  const cmdline = Buffer.from(sectionContent(bytes, cmdlineSection)).toString()
  const rootHash = cmdline
    .split(/\s+/)
    .findLast((word) => word.startsWith('usrhash='))
    ?.slice(8)
  if (!rootHash) throw cannot(path, `the command line of ${uki} pins no /usr (usrhash=)`)
  const kernel = {
    offset: linux.pointerToRawData,
    sizeBytes: linux.virtualSize,
    certificateEntry: decodePe(sectionContent(bytes, linux), '.linux').at.certificateEntry,
  }
  const architecture = /X64/i.test(loader) ? 'x86-64' : 'arm64'
  const { dataBlocks } = decodeVerity(image.read(image.partition('usr-verity', verityPartitionUuids(rootHash).hash), 0, 4096))
  const laterBlock = Math.floor(dataBlocks * 0.93)
  const signed = image.partitions.some((one) => one.designator === 'usr-verity-sig')
  return { path, architecture, loader, uki, cmdline, rootHash, signed, enrols: enrolledBy(image, path), laterBlock, kernel }
}

const cannot = (path: string, why: string) => new Fault('usage', `Cannot attack ${path}: ${why}`)

function enrolledBy(image: EditedImage, path: string): Subject['enrols'] {
  const read = (name: string) => {
    const file = [...image.espFiles().keys()].find((one) => new RegExp(`^loader/keys/[^/]+/${name}\\.auth$`, 'i').test(one))
    if (!file) throw cannot(path, `it enrols no ${name}, so no firmware would refuse anything for it`)
    return decodeVariableUpdate(image.readEsp(file)).payload
  }
  return { pk: read('PK'), kek: read('KEK'), db: read('db') }
}

/** This image's /usr with one byte changed, under a hash tree of its own that is right. */
async function changedUsr(path: string, folder: string): Promise<Omit<OtherUsr, 'signature'>> {
  using image = openImage(path)
  const data = Buffer.from(image.read(image.partition('usr')))
  const { salt, uuid, dataBlocks } = decodeVerity(image.read(image.partition('usr-verity'), 0, 4096))
  const covered = data.subarray(0, dataBlocks * 4096)
  covered[covered.length - 1]! ^= 1
  const [dataFile, hashFile] = [join(folder, 'usr'), join(folder, 'usr-verity')]
  await writeFile(dataFile, covered)
  const { rootHash } = await writeVerity(dataFile, hashFile, { salt, uuid })
  return { what: '/usr with one byte changed', rootHash, data: covered, hash: await readFile(hashFile) }
}

function usrOf(otherPath: string, path: string): Omit<OtherUsr, 'signature'> {
  const { rootHash } = readSubject(otherPath)
  if (rootHash === readSubject(path).rootHash) throw cannot(path, `${otherPath} is no other version: its /usr is the same`)
  using other = openImage(otherPath)
  const { data, hash } = verityPartitionUuids(rootHash)
  return {
    what: `/usr of ${otherPath.split('/').at(-1)}`,
    rootHash,
    data: other.read(other.partition('usr', data)),
    hash: other.read(other.partition('usr-verity', hash)),
  }
}

/** A program as it was before it was signed. */
export function unsigned(program: Uint8Array): Uint8Array {
  const pe = decodePe(program)
  const { offset, sizeBytes } = pe.certificateTable
  const bare = Buffer.from(sizeBytes === 0 ? program : program.subarray(0, offset))
  patchCertificateTable(bare, pe, { offset: 0, sizeBytes: 0 })
  return bare
}

export const signedBy = (program: Uint8Array, signer: Signer): Promise<Uint8Array> => signPe(unsigned(program), signer)

/** A UKI or addon whose command line reads differently, and is as long. Signatures stay, and no longer fit. */
export function withCmdline(uki: Uint8Array, change: (cmdline: string) => string): Uint8Array {
  const changed = Buffer.from(uki)
  const { pointerToRawData: at, virtualSize } = findSection(decodePe(uki), '.cmdline')!
  const before = changed.subarray(at, at + virtualSize).toString()
  changed.fill(0x20, at, at + virtualSize)
  changed.write(change(before).slice(0, virtualSize), at)
  return changed
}

/** A UKI with an initrd that is longer by a few zeros, or else another os-release: what it measures is not what its policies say. */
export function withOtherInitrd(uki: Uint8Array): Uint8Array {
  const bare = unsigned(uki)
  const pe = decodePe(bare)
  for (const name of ['.initrd', '.osrel']) {
    const section = findSection(pe, name)
    if (section && section.sizeOfRawData - section.virtualSize >= 4)
      return replaceSection(
        bare,
        name,
        Buffer.concat([sectionContent(bare, section), Buffer.alloc(4, name === '.osrel' ? 10 : 0)]),
      )
  }
  throw new Fault('usage', 'Cannot change the initrd of the UKI: its sections have no room')
}

/** A UKI with a stranger's policies for what it measures, and the stranger's key for secrets to be sealed to. */
export async function withPoliciesOf(uki: Uint8Array, stranger: Signer): Promise<Uint8Array> {
  const changed = replaceSection(unsigned(uki), '.pcrpkey', Buffer.from(pcrPublicKey(stranger)))
  const sections = splitProfiles(decodePe(changed).sections)[0]!.map((s) => ({ ...s, sizeBytes: s.virtualSize }))
  const measured = measuredSections(sections).map((s) => measureSection(s.name, sectionContent(changed, s), ['sha256']))
  const start = pcrOfSections('sha256', measured)
  const values = PHASE_PATHS.map((phase) => ({ bank: 'sha256' as const, pcr: pcrAtPhase('sha256', start, phase) }))
  return replaceSection(changed, '.pcrsig', Buffer.from(formatPcrSignatures(await signPcrPolicies(values, stranger))))
}

/** An EFI program that adds to the kernel's command line: sections are all the stub looks at. */
export function forgedAddon(loader: Uint8Array, cmdline: string): Uint8Array {
  const bytes = Buffer.from(cmdline)
  const { head, sizeBytes, offsets } = extendPe(unsigned(loader), [{ name: '.cmdline', sizeBytes: bytes.length, code: false }])
  const addon = Buffer.alloc(sizeBytes)
  addon.set(head)
  addon.set(bytes, offsets[0])
  return addon
}

/** A credential sealed with the key that everyone has. */
export const forgedCredential = (name: string, value: string): Uint8Array =>
  encodeNullCredential(name, Buffer.from(value), { iv: Buffer.alloc(12, 1), time: 1 })

/** A dbx that names this program. */
export const revocationOf = (program: Uint8Array, owner: string): Uint8Array =>
  encodeSignatureLists([{ type: EFI_GUID.certSha256, entries: [{ owner, data: authenticodeDigest(program) }] }])

/** The image's db with a stranger's certificate in it, too: what whoever holds the KEK, or the firmware's menu, can do. */
export function extendedDb(db: Uint8Array, stranger: Signer, owner: string): Uint8Array {
  return Buffer.concat([db, encodeSignatureLists(certificateLists(owner, [stranger.certificate]))])
}
