/**
 * The folder between a build and those who hold its keys:
 *
 *   requests.json                           what is to be signed, round by round, and what it was made from
 *   1-db-boot-loader.3f2a91c04e5d7a10.digest   32 bytes to sign
 *   1-db-boot-loader.3f2a91c04e5d7a10.sig      their signature, put there by whoever signs
 *   db.crt                                  certificates, to check signatures with
 *   sign.sh, README.md                      how to sign, with nothing but openssl
 *
 * It may have been anywhere in between: names are never taken from it, and every signature is checked before it is used.
 */
import { constants } from 'node:fs'
import { mkdir, open, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Sha256 } from '../base/digest.ts'
import { Fault } from '../base/fault.ts'
import { publicKeyOf, verifyDigest } from '../formats/x509.ts'
import { type AskedKey, keyOf } from './offline.ts'
import {
  digestName,
  formatRequests,
  keyName,
  parseRequests,
  REQUESTS_FILE,
  type SigningRequest,
  type SigningRequests,
  signatureName,
} from './offline-requests.ts'
import { readmeOf, SIGN_SCRIPT } from './offline-script.ts'

/** Signatures that are wanted before what they are for can be made, or before more can be asked for. */
export interface SigningRound {
  folder: string
  round: number
  /** All of this round. */
  requests: SigningRequest[]
  /** Those of them that have no right signature yet. */
  open: SigningRequest[]
}

/** Far above the requests of any image. */
const MAX_JSON_BYTES = 16 << 20

/** The requests in a folder; undefined where there is no folder, or nothing in it. */
export async function loadRequests(folder: string): Promise<SigningRequests | undefined> {
  const text = await readBounded(join(folder, REQUESTS_FILE), MAX_JSON_BYTES)
  if (text !== undefined) return parseRequests(text.toString('utf8'))
  const names = await readdir(folder).catch((cause: NodeJS.ErrnoException) => {
    if (cause.code === 'ENOENT') return []
    throw new Fault('host', `Cannot use ${folder}: ${cause.message}`, { cause })
  })
  // Where an earlier attempt was interrupted there may be some of what it was about to write.
  if (names.every((name) => OWN_FILES.test(name))) return undefined
  throw new Fault('usage', `Cannot use ${folder} for requests: it has no ${REQUESTS_FILE}, and is not empty`, {
    hint: 'bisque sign prepare --to ANOTHER_DIR',
  })
}

const OWN_FILES = /^\.?(?:\d+-[a-z0-9-]+\.[0-9a-f]{16}\.(?:digest|sig)|[a-z]+(?:-next)?\.crt|sign\.sh|README\.md)(?:\.new)?$/

/** Writes everything but signatures, `requests.json` last: what it names is there. */
export async function writeRequests(
  folder: string,
  all: SigningRequests,
  certificates: ReadonlyMap<Sha256, Uint8Array>,
): Promise<void> {
  try {
    await mkdir(folder, { recursive: true })
    for (const request of all.requests) {
      await put(folder, digestName(request), Buffer.from(request.digest, 'hex'))
      const certificate = certificates.get(request.certificate)
      if (certificate !== undefined) await put(folder, `${keyName(request)}.crt`, Buffer.from(pemOf(certificate)))
    }
    await put(folder, 'sign.sh', Buffer.from(SIGN_SCRIPT), 0o755)
    await put(folder, 'README.md', Buffer.from(readmeOf(all.requests)))
    await put(folder, REQUESTS_FILE, Buffer.from(formatRequests(all)))
  } catch (cause) {
    if (cause instanceof Fault) throw cause
    throw new Fault('host', `Cannot write requests to ${folder}: ${(cause as Error).message}`, { cause })
  }
}

/** Under its name at once, or not at all. A name that somebody made a link is replaced, not followed. */
async function put(folder: string, name: string, bytes: Uint8Array, mode = 0o644): Promise<void> {
  const temporary = join(folder, `.${name}.new`)
  await rm(temporary, { force: true })
  await writeFile(temporary, bytes, { flag: 'wx', mode })
  await rename(temporary, join(folder, name))
}

function pemOf(der: Uint8Array): string {
  const lines =
    Buffer.from(der)
      .toString('base64')
      .match(/.{1,64}/g) ?? []
  return `-----BEGIN CERTIFICATE-----\n${lines.join('\n')}\n-----END CERTIFICATE-----\n`
}

/** What was put beside the digests. */
export interface Signatures {
  /** Those that are right, checked against their certificates. */
  good: Map<AskedKey, Uint8Array>
  /** Those that are not, and why. */
  wrong: { request: SigningRequest; why: string }[]
  /** Those that are not there yet. */
  absent: SigningRequest[]
  /** Files that look like signatures and belong to no request. */
  extra: string[]
}

/** Reads and checks every signature. Requests whose certificate is not among `certificates` are left out. */
export async function readSignatures(
  folder: string,
  requests: readonly SigningRequest[],
  certificates: ReadonlyMap<Sha256, Uint8Array>,
): Promise<Signatures> {
  const found: Signatures = { good: new Map(), wrong: [], absent: [], extra: [] }
  for (const request of requests) {
    const certificate = certificates.get(request.certificate)
    if (certificate === undefined) continue
    const sizeBytes = Math.ceil((publicKeyOf(certificate).asymmetricKeyDetails?.modulusLength ?? 0) / 8)
    const bytes = await readSignature(folder, request)
    if (bytes === undefined) found.absent.push(request)
    else {
      const why = typeof bytes === 'string' ? bytes : problemOf(bytes, request, requests, certificate, sizeBytes)
      if (why === undefined) found.good.set(keyOf(request), bytes as Buffer)
      else found.wrong.push({ request, why })
    }
  }
  const known = new Set(requests.map(signatureName))
  found.extra = (await readdir(folder)).filter((name) => name.endsWith('.sig') && !known.has(name)).sort()
  return found
}

/** A signature's bytes, or why there are none to be had; undefined where there is no file. */
async function readSignature(folder: string, request: SigningRequest): Promise<Buffer | string | undefined> {
  try {
    return await readBounded(join(folder, signatureName(request)), 64 << 10)
  } catch (error) {
    if (error instanceof Fault && error.code === 'format') return error.message.replace(/^.*?: /, '')
    throw error
  }
}

function problemOf(
  bytes: Buffer,
  request: SigningRequest,
  requests: readonly SigningRequest[],
  certificate: Uint8Array,
  sizeBytes: number,
): string | undefined {
  const key = `a signature by ${keyName(request)} has ${sizeBytes}`
  if (bytes.length === 0) return 'is empty'
  if (bytes.length !== sizeBytes)
    return /^[\w+/=\s]+$/.test(bytes.toString('latin1'))
      ? `is ${bytes.length} bytes of text: ${key}, raw bytes and not base64 or hexadecimal digits`
      : `has ${bytes.length} bytes: ${key}`
  if (verifyDigest(certificate, Buffer.from(request.digest, 'hex'), bytes)) return undefined
  const other = requests.find((one) => verifyDigest(certificate, Buffer.from(one.digest, 'hex'), bytes))
  return other === undefined
    ? `is no signature of this digest by the key of ${keyName(request)}.crt`
    : `is the signature of another digest, ${digestName(other)}`
}

/** A file's bytes, or undefined where there is none. Neither links nor devices, and nothing large. */
async function readBounded(path: string, maxBytes: number): Promise<Buffer | undefined> {
  try {
    await using file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
    const stat = await file.stat()
    if (!stat.isFile()) throw new Fault('format', `Cannot read ${path}: is no file`)
    if (stat.size > maxBytes) throw new Fault('format', `Cannot read ${path}: has ${stat.size} bytes, which are too many`)
    return await readFile(file)
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    if (cause instanceof Fault) throw cause
    if (code === 'ENOENT') return undefined
    if (code === 'ELOOP') throw new Fault('format', `Cannot read ${path}: is a link`, { cause })
    throw new Fault('host', `Cannot read ${path}: ${(cause as Error).message}`, { cause })
  }
}
