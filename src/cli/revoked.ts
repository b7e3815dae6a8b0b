/** What `keys revoke` is given, told apart by its content: EFI programs, disk images for their UKIs, certificates. */

import { open, readFile } from 'node:fs/promises'
import { basename } from 'node:path'
import { dayOf } from '../base/day.ts'
import { Fault } from '../base/fault.ts'
import { authenticodeDigest } from '../formats/authenticode.ts'
import { designatorOf } from '../formats/dps.ts'
import { decodeFat } from '../formats/fat.ts'
import { decodeGpt } from '../formats/gpt.ts'
import { decodePe } from '../formats/pe.ts'
import { parseCertificate } from '../signing/certificate.ts'
import type { Revocation } from '../signing/revocations.ts'
import { openDisk, readFile as readFatFile, readWithin } from '../verify/disk.ts'

/** Far above any UKI. */
const MAX_PROGRAM_BYTES = 1 << 30
const MAX_CERTIFICATE_BYTES = 1 << 20

/** Revocations as of `now`, in seconds since 1970. */
export async function revocationsOf(files: readonly string[], now: number): Promise<Revocation[]> {
  const on = dayOf(now)
  return (await Promise.all(files.map((file) => revocationsIn(file, on)))).flat()
}

async function revocationsIn(path: string, on: string): Promise<Revocation[]> {
  const name = basename(path)
  const { start, sizeBytes } = await beginningOf(path)
  if (start.toString('latin1', 0, 2) === 'MZ' && sizeBytes <= MAX_PROGRAM_BYTES) {
    const image = await readFile(path)
    return [{ name, on, program: authenticodeDigest(image, decodePe(image, name)).toString('hex') }]
  }
  if ([512, 4096].some((at) => start.toString('latin1', at, at + 8) === 'EFI PART'))
    return ukisOf(path).map((uki) => ({ ...uki, on }))
  if (start.toString('latin1').includes('-----BEGIN CERTIFICATE-----') && sizeBytes <= MAX_CERTIFICATE_BYTES) {
    const { raw, subject } = parseCertificate(await readFile(path, 'utf8'), path)
    return [{ name: subject.replaceAll('\n', ', '), on, certificate: raw.toString('base64') }]
  }
  throw new Fault('format', `Cannot revoke ${path}: it is no EFI program, no disk image and no certificate`, {
    hint: 'bisque keys revoke OLD.efi',
  })
}

async function beginningOf(path: string): Promise<{ start: Buffer; sizeBytes: number }> {
  try {
    await using file = await open(path, 'r')
    const { buffer, bytesRead } = await file.read(Buffer.alloc(16 << 10), 0, 16 << 10, 0)
    return { start: buffer.subarray(0, bytesRead), sizeBytes: (await file.stat()).size }
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException
    throw new Fault(code === 'ENOENT' ? 'missing' : 'host', `Cannot revoke ${path}: ${message}`, { cause })
  }
}

/** The UKIs on a disk's ESP. Its boot loader stays: other versions have the same one. */
function ukisOf(path: string): { name: string; program: string }[] {
  using disk = openDisk(path)
  const { partitions, sectorSize } = decodeGpt(disk.read)
  const esp = partitions.find(({ type }) => designatorOf(type)?.designator === 'esp')
  if (!esp) throw new Fault('format', `Cannot revoke ${path}: it has no ESP`)
  const sizeBytes = (esp.lastLba - esp.firstLba + 1) * sectorSize
  const read = readWithin(disk, { offset: esp.firstLba * sectorSize, sizeBytes })
  const ukis = decodeFat(read, sizeBytes).entries.filter((file) => file.type === 'file' && UKI_PATH.test(file.path))
  if (ukis.length === 0) throw new Fault('format', `Cannot revoke ${path}: there is no UKI on its ESP`)
  return ukis.map((file) => {
    const image = readFatFile(file, read, MAX_PROGRAM_BYTES)
    return { name: basename(file.path), program: authenticodeDigest(image, decodePe(image, file.path)).toString('hex') }
  })
}

const UKI_PATH = /^EFI\/Linux\/[^/]+\.efi$/i
