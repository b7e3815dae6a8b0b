/** The EFI system partition: the FAT that holds what firmware and systemd-boot find, and systemd-boot's settings. */
import { type FileHandle, open } from 'node:fs/promises'
import { Fault } from '../base/fault.ts'
import { guidBytes } from '../base/guid.ts'
import { encodeFat, fatSizeFor } from '../formats/fat.ts'
import type { Content } from '../tree/tree.ts'
import { writeContent } from './disk.ts'

export type EspFiles = ReadonlyMap<string, Content & { sizeBytes: number }>

export interface LoaderConf {
  /** Seconds the menu waits; 0 hides it. */
  timeout: number | 'menu-force' | 'menu-hidden'
  /** Whether keys on the ESP are enrolled when firmware is in setup mode: `if-safe` only in virtual machines. */
  secureBootEnroll: 'off' | 'manual' | 'if-safe' | 'force'
  editor: boolean
  /** Further lines of loader.conf, as they are. */
  extra?: readonly string[]
}

export function formatLoaderConf({ timeout, secureBootEnroll, editor, extra = [] }: LoaderConf): string {
  const lines = [`timeout ${timeout}`, `secure-boot-enroll ${secureBootEnroll}`, `editor ${editor ? 'yes' : 'no'}`, ...extra]
  return `${lines.join('\n')}\n`
}

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
