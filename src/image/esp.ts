/** The EFI system partition: what firmware and systemd-boot find, and the FAT that holds it. */
import { type FileHandle, open, stat } from 'node:fs/promises'
import { Fault } from '../base/fault.ts'
import { guidBytes } from '../base/guid.ts'
import type { Architecture } from '../formats/dps.ts'
import { encodeFat, fatSizeFor } from '../formats/fat.ts'
import type { Content } from '../tree/tree.ts'
import { writeContent } from './disk.ts'

export type EspFiles = ReadonlyMap<string, Content & { sizeBytes: number }>

export interface EspContents {
  architecture: Architecture
  /** systemd-boot, signed. */
  systemdBoot: Uint8Array
  uki: Content
  /** Name below EFI/Linux, without `.efi`: `Minimal_1+3-0` counts tries. */
  ukiName: string
  loaderConf: LoaderConf
  /** Signed variable updates with which systemd-boot can enrol Secure Boot keys. */
  keys?: Readonly<Record<'PK' | 'KEK' | 'db', Uint8Array>>
}

export interface LoaderConf {
  /** Seconds the menu waits; 0 hides it. */
  timeout: number | 'menu-force' | 'menu-hidden'
  /** Whether keys on the ESP are enrolled when firmware is in setup mode: `if-safe` only in virtual machines. */
  secureBootEnroll: 'off' | 'manual' | 'if-safe' | 'force'
  editor: boolean
  /** Further lines of loader.conf, as they are. */
  extra?: readonly string[]
}

/** Names as firmware knows them and as systemd has them in its file names. */
const EFI_NAMES = { 'x86-64': ['X64', 'x64'], arm64: ['AA64', 'aa64'] } as const

export async function espTree(contents: EspContents): Promise<EspFiles> {
  const [fallback, name] = EFI_NAMES[contents.architecture]
  if (!/^[A-Za-z0-9._+-]+$/.test(contents.ukiName)) {
    throw new Fault('usage', `Cannot name a UKI "${contents.ukiName}": expected letters, digits, ".", "_", "+" and "-"`)
  }
  const made = (data: string | Uint8Array) => {
    const bytes = Buffer.from(data as Uint8Array)
    return { bytes, sizeBytes: bytes.length }
  }
  const files = new Map<string, Content & { sizeBytes: number }>([
    [`EFI/BOOT/BOOT${fallback}.EFI`, made(contents.systemdBoot)],
    [`EFI/systemd/systemd-boot${name}.efi`, made(contents.systemdBoot)],
    [`EFI/Linux/${contents.ukiName}.efi`, { ...contents.uki, sizeBytes: await sizeOf(contents.uki) }],
    ['loader/loader.conf', made(formatLoaderConf(contents.loaderConf))],
    ['loader/entries.srel', made('type1\n')],
  ])
  for (const [variable, bytes] of Object.entries(contents.keys ?? {})) files.set(`loader/keys/auto/${variable}.auth`, made(bytes))
  return files
}

export function formatLoaderConf({ timeout, secureBootEnroll, editor, extra = [] }: LoaderConf): string {
  const lines = [`timeout ${timeout}`, `secure-boot-enroll ${secureBootEnroll}`, `editor ${editor ? 'yes' : 'no'}`, ...extra]
  return `${lines.join('\n')}\n`
}

const sizeOf = async (content: Content): Promise<number> =>
  'bytes' in content ? content.bytes.length : (await stat(content.path)).size

/** The least a file system for these files takes, a multiple of 1 MiB. */
export function espSizeFor(files: EspFiles, sectorSize: 512 | 4096 = 512): number {
  const sizes = new Map([...files].map(([path, { sizeBytes }]) => [path, sizeBytes]))
  return Math.ceil(fatSizeFor(sizes, sectorSize) / (1 << 20)) * (1 << 20)
}

export interface EspOptions {
  sizeBytes: number
  /** Must be the block size of the disk it will lie on. */
  sectorSize?: 512 | 4096
  label: string
  /** The file system's GUID, of which FAT keeps four bytes. */
  guid: string
  epoch: number
}

/** Writes the file system to a new sparse file at `path`. Files stream through; none is held. */
export async function writeEsp(path: string, files: EspFiles, options: EspOptions): Promise<void> {
  await using esp = await open(path, 'wx')
  await esp.truncate(options.sizeBytes)
  await writeEspInto(esp, 0, files, options)
}

/** Writes the file system into a sparse file that holds zeros from `at` on, such as a disk at its ESP. */
export async function writeEspInto(to: FileHandle, at: number, files: EspFiles, options: EspOptions): Promise<void> {
  const sizes = new Map([...files].map(([name, { sizeBytes }]) => [name, sizeBytes]))
  const layout = encodeFat(sizes, { ...options, volumeId: guidBytes(options.guid).readUInt32BE(0) })
  for (const region of layout.regions) await to.write(region.bytes, 0, region.bytes.length, at + region.offset)
  for (const { path: name, offset, sizeBytes } of layout.files) {
    const written = await writeContent(to, at + offset, sizeBytes, files.get(name)!, name)
    if (written !== sizeBytes)
      throw new Fault('host', `Cannot write ${name} to the ESP: it was ${sizeBytes} bytes, now ${written}`)
  }
}
