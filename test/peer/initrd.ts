// What the kernel unpacks from an initrd: archives one after the other, bare or compressed.
import { createHash } from 'node:crypto'
import { zstdDecompressSync } from 'node:zlib'
import { type CpioMember, cpioSize, decodeCpio, FILE_TYPE, isCpio, S_IFMT } from '../../src/formats/cpio.ts'
import { ownersByName, type ReadAccounts } from './accounts.ts'
import type { Facts, Found } from './compare.ts'

const ZSTD = 0xfd2fb528

/** Every file by its path, later archives over earlier ones; hard links have the content of the first. */
export function membersOf(bytes: Buffer): Map<string, CpioMember> {
  const found = new Map<string, CpioMember>()
  for (const archive of archivesOf(bytes)) {
    const members = decodeCpio(archive)
    const contents = new Map(members.filter(({ sizeBytes }) => sizeBytes > 0).map((member) => [member.ino, member.content]))
    for (const member of members) {
      const shared = member.nlink > 1 ? contents.get(member.ino) : undefined
      found.set(member.name, { ...member, content: shared ?? member.content })
    }
  }
  return found
}

export const initrdAccounts =
  (members: ReadonlyMap<string, CpioMember>): ReadAccounts =>
  (file) =>
    Buffer.from(members.get(`etc/${file}`)?.content ?? []).toString()

export function initrdFiles(members: ReadonlyMap<string, CpioMember>): Found {
  const owner = ownersByName(initrdAccounts(members))
  return new Map([...members].map(([path, member]) => [path, factsOf(member, owner(member.uid, member.gid))]))
}

function factsOf({ mode, content }: CpioMember, owner: string): Facts {
  const type = Object.entries(FILE_TYPE).find(([, bits]) => bits === (mode & S_IFMT))?.[0] ?? 'unknown'
  const common = { type, mode: (mode & 0o7777).toString(8), owner }
  if (type === 'symlink') return { ...common, target: Buffer.from(content).toString() }
  if (type !== 'file') return common
  const digest = createHash('sha256').update(content).digest('hex').slice(0, 16)
  return { ...common, size: String(content.length), content: digest }
}

function archivesOf(bytes: Buffer): Uint8Array[] {
  const archives: Uint8Array[] = []
  for (let at = 0; at < bytes.length; ) {
    if (bytes[at] === 0) at++
    else if (isCpio(bytes, at)) {
      const size = cpioSize(bytes.subarray(at))
      archives.push(bytes.subarray(at, at + size))
      at += size
    } else if (bytes.readUInt32LE(at) === ZSTD) {
      const pieces: Buffer[] = []
      for (; at + 4 <= bytes.length && bytes.readUInt32LE(at) === ZSTD; ) {
        const size = zstdFrameSize(bytes, at)
        pieces.push(zstdDecompressSync(bytes.subarray(at, at + size)))
        at += size
      }
      archives.push(Buffer.concat(pieces))
    } else throw new Error(`an initrd has neither an archive nor a zstd frame at ${at}`)
  }
  return archives
}

/** Source: RFC 8878, 3.1.1: header, blocks up to the last, checksum. */
function zstdFrameSize(bytes: Buffer, start: number): number {
  const descriptor = bytes[start + 4]!
  const single = (descriptor >> 5) & 1
  const contentSize = [single, 2, 4, 8][descriptor >> 6]!
  let at = start + 5 + (single ? 0 : 1) + [0, 1, 2, 4][descriptor & 3]! + contentSize
  for (let last = false; !last; ) {
    const header = bytes.readUIntLE(at, 3)
    last = (header & 1) === 1
    at += 3 + (((header >> 1) & 3) === 1 ? 1 : header >> 3)
  }
  return at + ((descriptor >> 2) & 1 ? 4 : 0) - start
}
