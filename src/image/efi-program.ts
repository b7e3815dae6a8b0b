/** EFI programs: a stub given sections, written once, in place, and signed for Secure Boot. */
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
import { decodePe, extendPe } from '../formats/pe.ts'
import { type Purpose, type Signer, signDigest, signersInForce } from '../signing/signer.ts'
import type { Content } from '../tree/tree.ts'

const CHUNK_BYTES = 4 << 20

/** A section to be: how large it is, and where its bytes are. One without contents stays zero, for its maker to fill. */
export interface Part {
  name: string
  sizeBytes: number
  /** Whether firmware may enter it in place. */
  code: boolean
  contents: readonly Content[]
  /** Each content is followed by zeros up to a multiple of this. */
  alignment: number
}

/** A section of these contents, one after the other. */
export async function partOf(name: string, contents: readonly Content[]): Promise<Part> {
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

export const textContent = (text: string): Content => ({ bytes: Buffer.from(text) })

/** A program that is laid out and filled, but not signed: in memory with room for a signature behind it. */
export interface Program {
  buffer: Buffer
  sizeBytes: number
  /** Where the content of each part lies. */
  targets: Uint8Array[]
}

/** Lays parts out behind the sections of a stub and fills them. */
export async function layOutProgram(
  stub: Uint8Array,
  parts: readonly Part[],
  options: { nxCompat?: boolean; signer: Signer | undefined },
): Promise<Program> {
  const layout = extendPe(stub, parts, options)
  const buffer = Buffer.alloc(layout.sizeBytes + (options.signer ? signatureRoom(options.signer) : 0))
  buffer.set(layout.head)
  const targets: Uint8Array[] = []
  for (const [i, part] of parts.entries()) {
    const target = buffer.subarray(layout.offsets[i]!, layout.offsets[i]! + part.sizeBytes)
    await fill(part, target)
    targets.push(target)
  }
  return { buffer, sizeBytes: layout.sizeBytes, targets }
}

export interface SignedProgram {
  image: Uint8Array
  /** What firmware compares with db and measures into PCR 4. */
  authenticodeSha256: string
}

/** Signs a program in place; without a signer it stays as it is. */
export async function signProgram(
  program: Omit<Program, 'targets'>,
  signer: Signer | undefined,
  purpose: Purpose,
  signingTime?: number,
): Promise<SignedProgram> {
  let image: Uint8Array = program.buffer.subarray(0, program.sizeBytes)
  decodeSignatures(image, decodePe(image, purpose))
  const digest = authenticodeDigest(image)
  const authenticodeSha256 = digest.toString('hex')
  const prepared = prepareAuthenticode(digest, signingTime)
  // Firmware measures which certificate let a program in, the first it knows: the later one, so that nothing changes when
  // the earlier signature is gone.
  for (const one of signer ? signersInForce(signer).toReversed() : []) {
    const pe = decodePe(image, purpose)
    const signature = await signDigest(one, prepared.digest, purpose, `Authenticode sha256:${authenticodeSha256}`)
    const table = encodeCertificateEntry(image, pe, prepared, { certificate: one.certificate, signature })
    image = attachAuthenticode(program.buffer, image.length, pe, table)
  }
  return { image, authenticodeSha256 }
}

/** Signs an EFI program for Secure Boot: systemd-boot, a kernel. Signatures it has stay. */
export async function signPe(
  image: Uint8Array,
  signer: Signer,
  options: { purpose?: Purpose; signingTime?: number } = {},
): Promise<Uint8Array> {
  const buffer = Buffer.alloc(alignUp(image.length, 8) + signatureRoom(signer))
  buffer.set(image)
  return (await signProgram({ buffer, sizeBytes: image.length }, signer, options.purpose ?? 'EFI program', options.signingTime))
    .image
}

/** More than signatures take, each of which carries its certificate and repeats the issuer. */
const signatureRoom = (signer: Signer) =>
  signersInForce(signer).reduce((sum, { certificate }) => sum + 4096 + 2 * certificate.length, 0)

export async function readWhole(content: Content): Promise<Uint8Array> {
  if ('bytes' in content) return content.bytes
  const target = Buffer.allocUnsafeSlow(await sizeOf(content))
  await fillFrom(content.path, target)
  return target
}

async function sizeOf(content: Content): Promise<number> {
  if ('bytes' in content) return content.bytes.length
  return (await stat(content.path).catch((cause) => unreadable(content.path, cause))).size
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
