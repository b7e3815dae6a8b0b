/** The ESP and XBOOTLDR: what files are there, which of them are programs, and what these are. */
import { Fault } from '../base/fault.ts'
import { formatSize } from '../base/size.ts'
import { type AuthenticodeSignature, authenticodeDigest, checkAuthenticode } from '../formats/authenticode.ts'
import { decodeFat, type FatEntry } from '../formats/fat.ts'
import { decodePe, findSection, type Pe, sectionContent } from '../formats/pe.ts'
import { type Disk, type DiskPartition, diskOfFile, readFile, readWithin } from './disk.ts'
import type { EspFile, ProgramKind } from './facts.ts'
import { checkLink, type Finding, type Link } from './link.ts'

/** An EFI program is read whole: it is hashed in parts and in an order of its own. */
const MAX_PROGRAM_BYTES = 512 << 20
const MAX_PROGRAMS = 256
/** Of all programs together: hashing them takes time. */
const MAX_ALL_PROGRAM_BYTES = 4 * 2 ** 30
const MAX_BOOT_PARTITIONS = 4

export interface BootFile extends EspFile {
  /** Begins like a program, or is called like one. */
  isProgram: boolean
  /** The file as a disk of its own. */
  disk(): Disk
}

/** A program as its bytes tell, before anybody asks whom to trust. */
export interface Program {
  file: BootFile
  /** What could be read of it; a reason where it could not. */
  read?: ProgramRead
  problem?: string
}

export interface ProgramRead {
  pe: Pe
  digest: string
  signatures: AuthenticodeSignature[]
  kind: ProgramKind
  version?: string
}

/** Files of every ESP and XBOOTLDR partition there is. */
export async function readBootPartitions(disk: Disk, partitions: readonly DiskPartition[], links: Link[]): Promise<BootFile[]> {
  const all: BootFile[] = []
  const isBoot = ({ designator }: DiskPartition) => designator === 'esp' || designator === 'xbootldr'
  for (const partition of partitions.filter(isBoot).slice(0, MAX_BOOT_PARTITIONS)) {
    const name = partition.designator === 'esp' ? 'ESP' : 'XBOOTLDR'
    const files = await checkLink(links, 'firmware', name, (finding) => readFiles(disk, partition, finding))
    all.push(...(files ?? []))
  }
  return all
}

function readFiles(disk: Disk, partition: DiskPartition, { evidence, wrong }: Finding): BootFile[] {
  const read = readWithin(disk, partition)
  const fat = decodeFat(read, partition.sizeBytes)
  const startsLikeOne = ({ extents, sizeBytes }: FatEntry) =>
    sizeBytes >= 2 && Buffer.from(read(extents[0]!.offset, 2)).toString('latin1') === 'MZ'
  const files = fat.entries
    .filter(({ type }) => type === 'file')
    .map(
      (entry): BootFile => ({
        partition: partition.designator as BootFile['partition'],
        path: entry.path,
        sizeBytes: entry.sizeBytes,
        read: (limitBytes) => readFile(entry, read, limitBytes),
        isProgram: /\.efi$/i.test(entry.path) || startsLikeOne(entry),
        disk: () => diskOfFile(disk, partition, entry),
      }),
    )
  const programs = files.filter(({ isProgram }) => isProgram).length
  evidence(`FAT${fat.bits}, ${files.length} files, ${programs} EFI programs`)
  if (programs > MAX_PROGRAMS) wrong(`${programs} EFI programs are more than the ${MAX_PROGRAMS} that are checked`)
  return files
}

/** Every program, in the order of the file systems. Their bytes are not held: a UKI is read again where its sections are looked at. */
export function readPrograms(files: readonly BootFile[]): Program[] {
  let left = MAX_ALL_PROGRAM_BYTES
  const programs = files.filter(({ isProgram }) => isProgram).slice(0, MAX_PROGRAMS)
  return programs.map((file) => {
    try {
      left -= file.sizeBytes
      if (left < 0)
        throw new Fault('format', `not checked: all programs together have more than ${formatSize(MAX_ALL_PROGRAM_BYTES)}`)
      return { file, read: readProgram(file) }
    } catch (error) {
      if (error instanceof Fault && error.code === 'host') throw error
      return { file, problem: (error as Error).message }
    }
  })
}

export const programBytes = (file: EspFile): Uint8Array => file.read(MAX_PROGRAM_BYTES)

function readProgram(file: BootFile): ProgramRead {
  const bytes = programBytes(file)
  const pe = decodePe(bytes, file.path)
  const version = loaderInfo(bytes, pe)
  const signatures = checkAuthenticode(bytes)
  return {
    ...{ pe, digest: authenticodeDigest(bytes, pe).toString('hex'), signatures, kind: kindOf(file.path, pe, version) },
    ...(version === undefined ? {} : { version }),
  }
}

/** `systemd-boot 257.8`: what programs of systemd say of themselves. */
function loaderInfo(bytes: Uint8Array, pe: Pe): string | undefined {
  const section = findSection(pe, '.sdmagic')
  const text = section && Buffer.from(sectionContent(bytes, section).subarray(0, 256)).toString('latin1')
  return /#### LoaderInfo: ([\x20-\x7e]*?) ####/.exec(text ?? '')?.[1]
}

function kindOf(path: string, pe: Pe, version = ''): ProgramKind {
  if (findSection(pe, '.linux')) return 'UKI'
  if (version.startsWith('systemd-boot')) return 'systemd-boot'
  return version.startsWith('systemd-addon') || /\.addon\.efi$/i.test(path) ? 'addon' : 'program'
}

/** Where systemd-boot looks for UKIs; addons lie below folders of their own or are called so. */
export const isMeantAsUki = (path: string): boolean => /^EFI\/Linux\/[^/]+\.efi$/i.test(path) && !/\.addon\.efi$/i.test(path)
