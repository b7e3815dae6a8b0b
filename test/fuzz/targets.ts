/** Every decoder that reads what strangers wrote, as one function of bytes that answers with the shape of what it found. */
import { crc32 } from 'node:zlib'
import { Fault } from '../../src/base/fault.ts'
import { decodeAr } from '../../src/formats/ar.ts'
import { checkAuthenticode } from '../../src/formats/authenticode.ts'
import { checkSigner, decodeSignedData } from '../../src/formats/cms.ts'
import { decodeCpio } from '../../src/formats/cpio.ts'
import { decodeCredentialSeal } from '../../src/formats/credential.ts'
import { dataOf, decodeDeb } from '../../src/formats/deb.ts'
import { parseStanzas } from '../../src/formats/deb822.ts'
import { derReader, formatOid, parseDerTime, TAG } from '../../src/formats/der.ts'
import { elfSection, parseModinfo } from '../../src/formats/elf.ts'
import { SUPERBLOCK_OFFSET, superblock, superblockChecksum } from '../../src/formats/erofs.ts'
import { decodeErofs } from '../../src/formats/erofs-decode.ts'
import { decodeSignatureLists, decodeVariableUpdate } from '../../src/formats/esl.ts'
import {
  decodeFirmwareLog,
  decodeTaggedData,
  decodeVariableData,
  parseUserspaceLog,
  replayEvents,
} from '../../src/formats/event-log.ts'
import { decodeFat, readFat } from '../../src/formats/fat.ts'
import { decodeGpt } from '../../src/formats/gpt.ts'
import { lintIpePolicy, parseIpePolicy } from '../../src/formats/ipe-policy.ts'
import { decodeVariables } from '../../src/formats/ovmf-vars.ts'
import { parsePcrSignatures } from '../../src/formats/pcr.ts'
import { decodePe, sectionContent } from '../../src/formats/pe.ts'
import type { ReadAt } from '../../src/formats/struct.ts'
import { decodeSwap } from '../../src/formats/swap.ts'
import { decodeTar } from '../../src/formats/tar.ts'
import { splitProfiles } from '../../src/formats/uki.ts'
import { decodeVerity, decodeVeritySignature } from '../../src/formats/verity.ts'
import { decodeIssuerAndSerial, publicKeyOf } from '../../src/formats/x509.ts'
import { parseFields } from '../../src/image/system/os-release.ts'
import { parsePreferences } from '../../src/packages/deb/preferences.ts'
import { parseRelease } from '../../src/packages/deb/release.ts'
import { parseSources } from '../../src/packages/deb/sources.ts'
import { parseLocks } from '../../src/packages/lock.ts'
import { parseIni } from '../../src/recipe/mkosi/ini.ts'
import { parseRequests } from '../../src/signing/offline-requests.ts'
import { parsePkcs11Uri } from '../../src/signing/pkcs11-uri.ts'
import { parseRevocations } from '../../src/signing/revocations.ts'
import { parseGroup, parsePasswd } from '../../src/tree/accounts.ts'
import { parseUnit } from '../../src/verify/holes/files.ts'
import { fingerprints } from '../../src/verify/holes/updates.ts'
import { readInitrd } from '../../src/verify/initrd-files.ts'

export interface Target {
  /** Answers with a shape: inputs of another shape are worth keeping. */
  run(input: Uint8Array): string | Promise<string>
  /** Makes checksums right again, so that more than the checksum is tried. */
  repair?(input: Uint8Array): Uint8Array
  /** What the format is made of. */
  words?: readonly (string | Uint8Array)[]
  /** How many of a hundred thousand executions; by speed, 100 000 for most. */
  share?: number
}

const DEB822 = ['\n', ': ', 'Package: ', 'Version: ', ' ', '\n\n', '-----BEGIN PGP SIGNED MESSAGE-----\n', '\r\n', '#', '.']

const DER_WORDS = [
  '3080',
  '30820000',
  '0000',
  '020100',
  '3084ffffffff',
  'a000',
  '0609608648016503040201',
  '0500',
  '1780',
  '3181',
].map((hex) => Uint8Array.from(Buffer.from(hex, 'hex')))

export const TARGETS: Readonly<Record<string, Target>> = {
  ar: {
    run: (input) => shape(decodeAr(input).length),
    words: ['!<arch>\n', '`\n', '/', '//', '#1/20', '-1', '99999999999'],
  },
  authenticode: { run: (input) => shape(checkAuthenticode(input).length), words: ['.text', '.sbat'], share: 50_000 },
  cms: {
    run: (input) => {
      const signed = decodeSignedData(input)
      const problems = signed.signers.flatMap((signer) => checkSigner(signed, signer, signed.certificates[0] ?? new Uint8Array()))
      return `${shape(signed.signers.length)} ${problems.length}`
    },
    words: DER_WORDS,
  },
  cpio: { run: (input) => shape(decodeCpio(input).length), words: ['070701', '070702', 'TRAILER!!!', 'FFFFFFFF', '../'] },
  credential: {
    run(input) {
      const { keys, pcrs, policyPcrs } = decodeCredentialSeal(Buffer.from(Buffer.from(input).toString('base64')))
      return `${keys?.join()} ${shape(pcrs.length + policyPcrs.length)}`
    },
  },
  deb: {
    async run(input) {
      const deb = await decodeDeb(input)
      let sizeBytes = 0
      for await (const chunk of dataOf(deb.data)) sizeBytes += chunk.length
      return shape(sizeBytes)
    },
    words: ['debian-binary', 'control.tar', 'data.tar', '.xz', '.zst', '.gz', './control'],
    share: 2_000,
  },
  deb822: { run: (input) => shape(parseStanzas(input).length), words: DEB822 },
  der: { run: (input) => shape(walkDer(input, 0)), words: DER_WORDS },
  elf: { run: (input) => shape(parseModinfo(elfSection(input, '.modinfo') ?? new Uint8Array()).length), words: ['.modinfo\0'] },
  erofs: { run: erofs, repair: repairErofs, words: [Uint8Array.of(0xff, 0xff, 0xff, 0xff)], share: 20_000 },
  esl: { run: (input) => shape(decodeSignatureLists(input).length) },
  fat: { run: fat, words: ['..         ', '.          ', Uint8Array.of(0xff, 0x0f), Uint8Array.of(0xe5)], share: 50_000 },
  gpt: {
    run: gpt,
    repair: repairGpt,
    words: ['EFI PART'],
    share: 50_000,
  },
  ini: { run: (input) => shape(parseIni(textOf(input), () => {}).length), words: ['[', ']', '=', '\n ', '#', ';', '\\'] },
  lock: {
    run: (input) => shape(parseLocks(textOf(input), 'bisque.lock').size),
    words: ['\n', ' ', 'repository ', 'group ', 'profiles '],
  },
  'os-release': { run: (input) => shape(parseFields(textOf(input)).size), words: ['=', '"', "'", '\\', '$', '`', '\n'] },
  passwd: {
    run: (input) => shape(parsePasswd(textOf(input)).length + parseGroup(textOf(input)).length),
    words: [':', '\n', '-1', '4294967296'],
  },
  'pcr-signatures': {
    run: (input) => shape(parsePcrSignatures(textOf(input)).length),
    words: ['{', '}', '[', ']', '"sha256"', '"pcrs"', '"pol"', '"sig"', '"pkfp"', '11', '1e999', 'null', '__proto__'],
  },
  pe: {
    run(input) {
      const { sections } = decodePe(input)
      for (const section of sections) sectionContent(input, section)
      return `${shape(sections.length)} ${splitProfiles(sections).length}`
    },
    words: ['PE\0\0', 'MZ', '.linux\0\0', '.profile', '.initrd\0'],
  },
  preferences: {
    run: (input) => shape(parsePreferences(textOf(input), 'p').length),
    words: [...DEB822, 'Pin: release ', 'Pin-Priority: '],
  },
  release: {
    run: (input) => shape(parseRelease(textOf(input), 'Release').files.size),
    words: [...DEB822, 'SHA256:', 'Date: ', ' 99999999999 '],
  },
  'signature-partition': {
    run: (input) => shape(decodeVeritySignature(input).signature.length),
    words: ['{"', '"', ':', 'rootHash', '\\u0000', '\0'],
  },
  sources: {
    run: (input) => shape(JSON.stringify(parseSources(textOf(input), 's')).length),
    words: [...DEB822, 'deb [', '] ', 'Signed-By: '],
  },
  swap: { run: (input) => shape(decodeSwap(input).label.length), words: ['SWAPSPACE2'] },
  tar: {
    run: tar,
    repair: repairTar,
    words: ['ustar\0', 'ustar  \0', '././@LongLink', 'path=', '20 path=a\n', 'SCHILY.xattr.', 'size='],
    share: 20_000,
  },
  'variable-update': { run: (input) => shape(decodeVariableUpdate(input).payload.length), words: DER_WORDS },
  variables: { run: (input) => shape(decodeVariables(input).length), words: [Uint8Array.of(0xaa, 0x55, 0x3f, 0)] },
  verity: { run: (input) => shape(decodeVerity(input).dataBlocks), words: ['verity\0\0', 'sha256\0'] },
  'event-log': {
    run(input) {
      const log = decodeFirmwareLog(input)
      for (const { data } of log.events) for (const decode of [decodeTaggedData, decodeVariableData]) attempt(() => decode(data))
      for (const bank of log.banks) attempt(() => replayEvents(bank, log.events))
      return shape(log.events.length)
    },
    words: ['Spec ID Event03\0', Uint8Array.of(0x0b, 0), Uint8Array.of(4, 0), Uint8Array.of(0xff, 0xff, 0xff, 0xff)],
  },
  initrd: {
    run: async (input) => shape((await readInitrd(input)).members),
    words: ['070701', 'TRAILER!!!', Uint8Array.of(0x28, 0xb5, 0x2f, 0xfd)],
    share: 10_000,
  },
  'ipe-policy': {
    run(input) {
      const problems = lintIpePolicy(textOf(input))
      const isRefused = problems.some(({ severity }) => severity === 'error')
      const policy = attempt(() => parseIpePolicy(textOf(input)))
      if ((policy === undefined) !== isRefused) throw new Error('the linter and the parser disagree')
      return `${shape(problems.length)} ${problems[0]?.message.replace(/".*|\d.*/, '')}`
    },
    words: [
      'policy_name=',
      'policy_version=',
      'DEFAULT ',
      'op=',
      'EXECUTE',
      'KMODULE',
      'action=',
      'ALLOW',
      'DENY',
      'dmverity_signature=TRUE',
      '\n',
      '#',
      ' ',
      '0.0.1',
      '65536',
    ],
  },
  keyring: {
    run: (input) => shape(fingerprints(input).length),
    words: [Uint8Array.of(0x99), Uint8Array.of(0xc6, 0xff), Uint8Array.of(4)],
  },
  'pkcs11-uri': {
    run: (input) => Object.keys(parsePkcs11Uri(textOf(input))).join(),
    words: ['pkcs11:', ';', '?', '&', '%00', '%zz', 'token=', 'object=', 'id=', 'module-path=', 'pin-source='],
  },
  revocations: {
    run: (input) => shape(parseRevocations(textOf(input), 'r').length),
    words: ['{', '}', '[', ']', '"name":', '"program":', 'null'],
  },
  'sign-requests': {
    run: (input) => shape(parseRequests(textOf(input)).requests.length),
    words: ['{', '}', '[', ']', '"requests":', '"digest":', '../', 'null'],
  },
  unit: { run: (input) => shape(parseUnit(textOf(input)).length), words: ['[Service]\n', '=', '\\\n', '#', ';', '\n'] },
  'userspace-log': {
    run: (input) => shape(parseUserspaceLog(textOf(input)).length),
    words: ['\x1e', '\n', '{"pcr":', 'null', '1e999', '"digests":['],
  },
  x509: {
    run(input) {
      decodeIssuerAndSerial(input)
      return publicKeyOf(input).asymmetricKeyType ?? 'none'
    },
    words: DER_WORDS,
  },
}

/** What it answers, or nothing where it refuses. */
function attempt<T>(body: () => T): T | undefined {
  try {
    return body()
  } catch (error) {
    if (error instanceof Fault) return undefined
    throw error
  }
}

const textOf = (input: Uint8Array): string => Buffer.from(input.buffer, input.byteOffset, input.length).toString('utf8')

/** 0, 1, 2, 4, 8 …: how many there are, roughly. */
const shape = (count: number): string => `about 2^${Math.ceil(Math.log2(count + 1))}`

const readerOf =
  (input: Uint8Array): ReadAt =>
  (offset, sizeBytes) =>
    input.subarray(offset, offset + sizeBytes)

function walkDer(input: Uint8Array, depth: number): number {
  const reader = derReader(input, 'DER')
  let count = 0
  while (reader.peek() !== undefined) {
    const element = reader.take('element')
    count++
    if (element.tag === TAG.oid) formatOid(element.content)
    if (element.tag === TAG.utcTime || element.tag === TAG.time) parseDerTime(element)
    if ((element.tag & 0x20) !== 0 && depth < 64) count += walkDer(element.content, depth + 1)
  }
  return count
}

function erofs(input: Uint8Array): string {
  const image = decodeErofs(readerOf(input), input.length)
  let sizeBytes = 0
  for (const inode of image.inodes.values()) {
    if (inode.type !== 'file' || inode.sizeBytes > 16 << 20) continue
    for (const piece of image.contents(inode)) sizeBytes += piece.length
  }
  return `${shape(image.inodes.size)} ${shape(sizeBytes)}`
}

function repairErofs(input: Uint8Array): Uint8Array {
  if (input.length < 4096) return input
  const block = input.slice(0, 4096)
  new DataView(input.buffer, input.byteOffset).setUint32(
    SUPERBLOCK_OFFSET + superblock.offset('checksum'),
    superblockChecksum(block),
    true,
  )
  return input
}

/** A device of which the input is the beginning, and the rest empty. */
const FAT_BYTES = 4 << 20

function fat(input: Uint8Array): string {
  const read: ReadAt = (offset, sizeBytes) => {
    if (offset + sizeBytes > FAT_BYTES) return new Uint8Array(0)
    const bytes = new Uint8Array(sizeBytes)
    bytes.set(input.subarray(Math.min(offset, input.length), offset + sizeBytes))
    return bytes
  }
  const { entries, bits } = decodeFat(read, FAT_BYTES)
  for (const entry of entries) if (entry.type === 'file') readFat(read, entry)
  return `${bits} ${shape(entries.length)}`
}

/** Sectors of a disk of which the input is both copies of the table, without what lies between them. */
export const GPT_SECTORS = 2200
const PRIMARY_BYTES = 34 * 512
const BACKUP_AT = (GPT_SECTORS - 33) * 512

function gpt(input: Uint8Array): string {
  const read: ReadAt = (offset, sizeBytes) => {
    const at = offset < BACKUP_AT ? offset : offset - BACKUP_AT + PRIMARY_BYTES
    return input.subarray(at, at + sizeBytes)
  }
  return shape(decodeGpt(read).partitions.length)
}

/** Both copies: the entries' checksum, then the header's. */
function repairGpt(input: Uint8Array): Uint8Array {
  const view = Buffer.from(input.buffer, input.byteOffset, input.length)
  for (const { header, entries } of [
    { header: 512, entries: 1024 },
    { header: input.length - 512, entries: PRIMARY_BYTES },
  ]) {
    if (header < 512 || header + 92 > input.length) continue
    const entriesBytes = view.readUInt32LE(header + 80) * view.readUInt32LE(header + 84)
    view.writeUInt32LE(crc32(view.subarray(entries, Math.min(entries + entriesBytes, input.length))), header + 88)
    view.writeUInt32LE(0, header + 16)
    view.writeUInt32LE(crc32(view.subarray(header, header + 92)), header + 16)
  }
  return input
}

async function tar(input: Uint8Array): Promise<string> {
  const source = async function* () {
    yield input
  }
  let files = 0
  let sizeBytes = 0
  for await (const file of decodeTar(source())) {
    files++
    for await (const chunk of file.content()) sizeBytes += chunk.bytes.length
  }
  return `${shape(files)} ${shape(sizeBytes)}`
}

/** Every block that could be a header gets the checksum of one. */
function repairTar(input: Uint8Array): Uint8Array {
  for (let at = 0; at + 512 <= input.length; at += 512) {
    const block = input.subarray(at, at + 512)
    if (block[257] !== 0x75 || block[258] !== 0x73) continue // "us" of "ustar"
    block.fill(0x20, 148, 156)
    const sum = block.reduce((total, byte) => total + byte, 0)
    block.set(Buffer.from(`${sum.toString(8).padStart(6, '0')}\0 `), 148)
  }
  return input
}
