/**
 * dm-verity: the superblock and shape of a hash tree, and the partition that holds its root hash's signature.
 *
 * Spec:   https://gitlab.com/cryptsetup/cryptsetup/-/wikis/DMVerity and
 *         https://uapi-group.org/specifications/specs/discoverable_partitions_specification/#verity
 * Oracle: `veritysetup format`, `veritysetup verify`, `veritysetup dump`
 * Limits: hash type 1 (salt first), SHA-256, 4096-byte data and hash blocks, tree right after the superblock.
 *         No forward error correction. Hashing itself is in `image/verity.ts`.
 *
 * On disk: superblock, padded to a block · top level (one block) · … · hashes of the data blocks.
 */
import { Fault } from '../base/fault.ts'
import { guidBytes, guidFrom } from '../base/guid.ts'
import { bytes, constant, reserved, struct, u16le, u32le, u64le } from './struct.ts'

export const VERITY_BLOCK = 4096
export const DIGEST = 32
export const HASHES_PER_BLOCK = VERITY_BLOCK / DIGEST
/** Bytes of the signature partition, as systemd-repart makes it. */
export const VERITY_SIGNATURE_BYTES = 16384
const MAX_SALT = 256

// biome-ignore format: table
const superblock = struct('verity superblock', {
  signature:     constant(Buffer.from('verity\0\0')),
  version:       u32le,
  hashType:      u32le,
  uuid:          bytes(16),
  algorithm:     bytes(32),
  dataBlockSize: u32le,
  hashBlockSize: u32le,
  dataBlocks:    u64le,
  saltBytes:     u16le,
  _reserved:     reserved(6),
  salt:          bytes(MAX_SALT),
  _reserved2:    reserved(168),
})

const ALGORITHM = Buffer.concat([Buffer.from('sha256')], 32)

export interface Verity {
  uuid: string
  salt: Uint8Array
  dataBlocks: number
  /** Of other tools; ours are all of 4096 bytes. */
  dataBlockBytes?: number
  hashBlockBytes?: number
}

/** Where each level of the tree lies, in blocks of the hash device; the lowest, which hashes the data, first. */
export interface VerityTree {
  levels: { startBlock: number; blocks: number }[]
  /** Blocks of the hash device, superblock included. */
  blocks: number
}

/** The first block of the hash device. */
export function encodeVerity(verity: Verity): Uint8Array {
  if (verity.salt.length > MAX_SALT)
    throw new Fault('usage', `Cannot use verity salt of ${verity.salt.length} bytes: at most ${MAX_SALT} fit`)
  const uuid = guidBytes(verity.uuid)
  if (uuid.length !== 16) throw new Fault('usage', `Cannot use "${verity.uuid}" as verity UUID: expected 32 hexadecimal digits`)
  const block = new Uint8Array(VERITY_BLOCK)
  block.set(
    superblock.encode({
      version: 1,
      hashType: 1,
      uuid,
      algorithm: ALGORITHM,
      dataBlockSize: VERITY_BLOCK,
      hashBlockSize: VERITY_BLOCK,
      dataBlocks: verity.dataBlocks,
      saltBytes: verity.salt.length,
      salt: Buffer.concat([verity.salt], MAX_SALT),
    }),
  )
  return block
}

/** Reads the superblock at the start of a hash device. */
export function decodeVerity(start: Uint8Array): Verity {
  const h = superblock.decode(start)
  const expect = (field: keyof typeof h, got: unknown, expected: unknown) => {
    if (got !== expected)
      throw new Fault(
        'format',
        `Cannot read verity superblock.${field} at offset ${superblock.offset(field)}: expected ${expected}, got ${got}`,
      )
  }
  expect('version', h.version, 1)
  expect('hashType', h.hashType, 1)
  expect('algorithm', Buffer.from(h.algorithm).toString('latin1').replace(/\0+$/, ''), 'sha256')
  if (!BLOCK_SIZES.includes(h.dataBlockSize)) expect('dataBlockSize', h.dataBlockSize, VERITY_BLOCK)
  if (!BLOCK_SIZES.includes(h.hashBlockSize)) expect('hashBlockSize', h.hashBlockSize, VERITY_BLOCK)
  if (h.saltBytes > MAX_SALT) expect('saltBytes', h.saltBytes, `at most ${MAX_SALT}`)
  if (h.dataBlocks === 0) expect('dataBlocks', h.dataBlocks, 'at least 1')
  const sizes = {
    ...(h.dataBlockSize === VERITY_BLOCK ? {} : { dataBlockBytes: h.dataBlockSize }),
    ...(h.hashBlockSize === VERITY_BLOCK ? {} : { hashBlockBytes: h.hashBlockSize }),
  }
  return { uuid: guidFrom(h.uuid), salt: h.salt.slice(0, h.saltBytes), dataBlocks: h.dataBlocks, ...sizes }
}

/** What the kernel takes where pages have 4096 bytes; systemd-repart makes the data's those of its file system's sectors. */
const BLOCK_SIZES = [512, 1024, 2048, VERITY_BLOCK]

/** The shape of the tree over so many blocks. A single data block needs none: its digest is the root hash. */
export function verityTree(dataBlocks: number, hashBlockBytes = VERITY_BLOCK): VerityTree {
  const hashes = hashBlockBytes / DIGEST
  const sizes: number[] = []
  for (let n = dataBlocks; n > 1; n = sizes.at(-1)!) sizes.push(Math.ceil(n / hashes))
  let next = 1
  const levels = sizes.map((blocks) => ({ startBlock: 0, blocks }))
  for (const level of levels.toReversed()) {
    level.startBlock = next
    next += level.blocks
  }
  return { levels, blocks: next }
}

/** Bytes a hash device needs for data of so many bytes. */
export const veritySizeBytes = (dataBytes: number): number =>
  verityTree(Math.ceil(dataBytes / VERITY_BLOCK)).blocks * VERITY_BLOCK

/** Partition UUIDs that let the data and hash partitions be found by their root hash: its two halves. */
export function verityPartitionUuids(rootHash: string): { data: string; hash: string } {
  const raw = Buffer.from(checkRootHash(rootHash), 'hex')
  return { data: guidFrom(raw), hash: guidFrom(raw.subarray(16)) }
}

export interface VeritySignature {
  /** 64 lower-case hexadecimal digits; what is signed is this text, without a newline. */
  rootHash: string
  /** SHA-256 of the certificate's DER, 64 lower-case hexadecimal digits. */
  certificateFingerprint?: string
  /** PKCS #7 in DER: detached, without signed attributes. */
  signature: Uint8Array
}

/** The signature partition: JSON padded with NUL bytes. */
export function encodeVeritySignature(value: VeritySignature): Uint8Array {
  const json = JSON.stringify({
    rootHash: checkRootHash(value.rootHash),
    certificateFingerprint:
      value.certificateFingerprint === undefined ? undefined : checkHex(value.certificateFingerprint, 'certificate fingerprint'),
    signature: Buffer.from(value.signature).toString('base64'),
  })
  if (json.length > VERITY_SIGNATURE_BYTES) {
    throw new Fault(
      'format',
      `Cannot store verity signature of ${value.signature.length} bytes: its JSON has ${json.length} bytes, at most ${VERITY_SIGNATURE_BYTES} fit`,
    )
  }
  return Buffer.concat([Buffer.from(json)], VERITY_SIGNATURE_BYTES)
}

/** Reads a signature partition, padded or trimmed. */
export function decodeVeritySignature(partition: Uint8Array): VeritySignature {
  const refuse = (why: string, cause?: unknown) =>
    new Fault('format', `Cannot read verity signature partition: ${why}`, { cause })
  if (partition.length > 4 * 1024 * 1024) throw refuse(`it has ${partition.length} bytes, at most 4 MiB are expected`)
  const nul = partition.indexOf(0)
  const end = nul < 0 ? partition.length : nul
  if (partition.subarray(end).some((byte) => byte !== 0)) throw refuse(`bytes other than NUL follow the JSON at offset ${end}`)
  let value: unknown
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(partition.subarray(0, end)))
  } catch (cause) {
    throw refuse((cause as Error).message, cause)
  }
  if (value === null || typeof value !== 'object') throw refuse('it holds no JSON object')
  const { rootHash, certificateFingerprint, signature } = value as Record<string, unknown>
  if (typeof rootHash !== 'string' || !HEX.test(rootHash)) throw refuse('rootHash is not 64 lower-case hexadecimal digits')
  if (typeof signature !== 'string' || signature === '' || !BASE64.test(signature)) throw refuse('signature is not base64')
  const result = { rootHash, signature: new Uint8Array(Buffer.from(signature, 'base64')) }
  if (certificateFingerprint === undefined) return result
  if (typeof certificateFingerprint !== 'string' || !HEX.test(certificateFingerprint))
    throw refuse('certificateFingerprint is not 64 lower-case hexadecimal digits')
  return { ...result, certificateFingerprint }
}

const HEX = /^[0-9a-f]{64}$/
const BASE64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/

const checkRootHash = (rootHash: string): string => checkHex(rootHash, 'root hash')

function checkHex(hex: string, what: string): string {
  if (!HEX.test(hex)) throw new Fault('usage', `Cannot use "${hex}" as ${what}: expected 64 lower-case hexadecimal digits`)
  return hex
}
