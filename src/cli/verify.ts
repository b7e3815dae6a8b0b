/** `bisque verify`: reads whom to trust, refuses what is no plain disk image, and checks the rest. */
import { closeSync, existsSync, openSync, readSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Fault } from '../base/fault.ts'
import type { Report } from '../base/report.ts'
import { publicKeyOf } from '../formats/x509.ts'
import { loadCertificate } from '../signing/certificate.ts'
import { NEXT_FOLDER } from '../signing/load.ts'
import type { KeyRole } from '../signing/signer.ts'
import { inspectImage, type Trust } from '../verify/image.ts'
import { formatVerifyPage, type Verified } from '../verify/page.ts'
import { shownPath } from './shown.ts'

export interface VerifyPlan {
  /** Folder of the certificates to judge by. */
  trust: string | undefined
  /** Seconds since 1970. */
  now: number
}

/** Checks one image after the other. A Fault where one cannot be read at all; what is wrong with it is a link. */
export async function verifyAll(
  images: readonly string[],
  { trust: folder, now }: VerifyPlan,
  report: Report,
): Promise<Verified[]> {
  const trust = folder === undefined ? undefined : await loadTrust(folder)
  for (const path of images) refuseOthers(path)
  const verified: Verified[] = []
  for (const path of images) {
    const { links, facts } = await report.step(`Verify ${shownPath(path)}`, (report) =>
      inspectImage(path, { trust, now }, report),
    )
    verified.push({ path: shownPath(path), links, facts })
  }
  return verified
}

export async function writeVerifyPage(path: string, images: readonly Verified[], program: string): Promise<void> {
  await writeFile(path, formatVerifyPage(images, { program })).catch((cause: Error) => {
    throw new Fault('host', `Cannot write ${path}: ${cause.message}`, { cause })
  })
}

/** The certificates in a folder of keys; mkosi's have one for all roles. While a rotation is open, those of both sides. */
export async function loadTrust(folder: string): Promise<Trust> {
  const single = join(folder, 'mkosi.crt')
  const forAll = !existsSync(join(folder, 'db.crt')) && existsSync(single)
  const of = async (role: KeyRole): Promise<Uint8Array[]> => {
    const paths = forAll ? [single] : [join(folder, `${role}.crt`), join(folder, NEXT_FOLDER, `${role}.crt`)]
    const there = paths.filter((path, i) => i === 0 || existsSync(path))
    return Promise.all(there.map(async (path) => (await loadCertificate(path)).raw))
  }
  const [pk, kek, db, verity, pcr] = await Promise.all([of('pk'), of('kek'), of('db'), of('verity'), of('pcr')])
  return { pk: pk.slice(-1), kek, db, verity, pcr: pcr.map(publicKeyOf) }
}

/** Starts of files that hold no disk as it is, and how to get at it. */
const OTHERS: readonly [magic: string, what: string, hint: (path: string) => string][] = [
  ['28b52ffd', 'compressed with zstd', (path) => `zstd -d --sparse ${path}`],
  ['fd377a585a00', 'compressed with xz', (path) => `xz -dk ${path}`],
  ['1f8b', 'compressed with gzip', (path) => `gunzip -k ${path}`],
  ['425a68', 'compressed with bzip2', (path) => `bunzip2 -k ${path}`],
  ['514649fb', 'a qcow2 image', (path) => `qemu-img convert -O raw ${path} ${path}.raw`],
  ['4b444d56', 'a VMDK image', (path) => `qemu-img convert -O raw ${path} ${path}.raw`],
  ['76686478', 'a VHDX image', (path) => `qemu-img convert -O raw ${path} ${path}.raw`],
]

/** File systems and parts of a disk that are no disk: offset, magic, and what they are. */
const PARTS: readonly [offset: number, magic: string, what: string][] = [
  [1024, 'e2e1f5e0', 'an EROFS file system'],
  [0, '68737173', 'a squashfs file system'],
  [0, '7665726974790000', 'a tree of dm-verity'],
  [0, Buffer.from('{"rootHash"').toString('hex'), 'the signature of a root hash'],
]

/** A chain is judged as a whole: parts of it, and packed images, are refused with the way to go on. */
function refuseOthers(path: string): void {
  const head = beginningOf(path)
  const found = OTHERS.find(([magic]) => head.toString('hex', 0, magic.length / 2) === magic)
  if (found)
    throw new Fault('format', `Cannot verify ${shownPath(path)}: it is ${found[1]}, and only plain disk images are read`, {
      hint: found[2](shownPath(path)),
    })
  const hasTable = [512, 4096].some((sector) => head.toString('latin1', sector, sector + 8) === 'EFI PART')
  const part = PARTS.find(([offset, magic]) => head.toString('hex', offset, offset + magic.length / 2) === magic)?.[2]
  const alone = head.toString('latin1', 0, 2) === 'MZ' ? 'an EFI program' : part
  if (alone !== undefined && !hasTable)
    throw new Fault('format', `Cannot verify ${shownPath(path)}: it is ${alone} by itself, and the chain is a whole disk's`, {
      hint: 'give the disk image (.raw) that it is a part of',
    })
}

function beginningOf(path: string): Buffer {
  const bytes = Buffer.alloc(8192)
  try {
    const fd = openSync(path, 'r')
    try {
      return bytes.subarray(0, readSync(fd, bytes, 0, bytes.length, 0))
    } finally {
      closeSync(fd)
    }
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT')
      throw new Fault('missing', `Cannot verify ${shownPath(path)}: it does not exist`, { hint: 'bisque build', cause })
    throw new Fault('host', `Cannot verify ${shownPath(path)}: ${(cause as Error).message}`, { cause })
  }
}
