/** Single faults for a finished image: parts of it changed, and all around them made and signed anew, so that nothing else is wrong. */
import assert from 'node:assert/strict'
import { hash } from 'node:crypto'
import { LAYOUT, SUPERBLOCK_OFFSET, superblock } from '../src/formats/erofs.ts'
import { decodeErofs, type Erofs, type ErofsInode } from '../src/formats/erofs-decode.ts'
import { decodePe, findSection, patchCertificateTable, replaceSection, sectionContent } from '../src/formats/pe.ts'
import { UKI_FILE_ORDER } from '../src/formats/uki.ts'
import {
  DIGEST,
  decodeVerity,
  encodeVeritySignature,
  VERITY_BLOCK,
  verityPartitionUuids,
  verityTree,
} from '../src/formats/verity.ts'
import type { EditedImage } from '../src/image/edit.ts'
import { signPe } from '../src/image/efi-program.ts'
import { makeInitrd } from '../src/image/initrd.ts'
import { makeUki, type UkiInput } from '../src/image/uki.ts'
import { signRootHash } from '../src/signing/root-hash.ts'
import type { Signers } from '../src/signing/signer.ts'
import { madeDirectory, madeFile } from '../src/tree/content.ts'
import { type Inode, treeOf } from '../src/tree/tree.ts'
import type { Link } from '../src/verify/image.ts'

/** What does not hold, and the problem that was found. */
export const problemsOf = (links: readonly Link[]): Record<string, string> =>
  Object.fromEntries(links.filter(({ ok }) => !ok).map(({ name, problem }) => [name, problem!]))

/** Just these links do not hold, for these reasons. */
export function assertProblems(links: readonly Link[], expected: Readonly<Record<string, RegExp>>): void {
  const problems = problemsOf(links)
  assert.deepEqual(Object.keys(problems).sort(), Object.keys(expected).sort(), JSON.stringify(problems, null, 2))
  for (const [name, why] of Object.entries(expected)) assert.match(problems[name]!, why)
}

/** What a UKI was made of, to make it again. */
export function ukiInput(bytes: Uint8Array, signers: Signers): UkiInput {
  const pe = decodePe(bytes)
  const content = (name: string): Uint8Array => {
    const section = findSection(pe, name)
    assert.ok(section, `the UKI has ${name}`)
    return sectionContent(bytes, section)
  }
  const text = (name: string) => Buffer.from(content(name)).toString('utf8').replace(/\0+$/, '')
  return {
    stub: { bytes: stubOf(bytes) },
    kernel: { bytes: content('.linux') },
    initrds: [{ bytes: content('.initrd') }],
    ...{ osRelease: text('.osrel'), cmdline: text('.cmdline'), uname: text('.uname'), signers },
  }
}

/** The program as it was before sections were put behind its own. */
function stubOf(uki: Uint8Array): Uint8Array {
  const pe = decodePe(uki)
  const added = [...UKI_FILE_ORDER, '.pcrsig', '.profile'] as readonly string[]
  const own = pe.sections.filter(({ name }) => !added.includes(name))
  const end = Math.max(...own.map((s) => s.pointerToRawData + s.sizeOfRawData))
  const stub = Buffer.from(uki.subarray(0, end))
  patchCertificateTable(stub, pe, { offset: 0, sizeBytes: 0 })
  const header = stub.readUInt32LE(0x3c)
  stub.writeUInt16LE(own.length, header + 6)
  const last = own.reduce((a, b) => (a.virtualAddress > b.virtualAddress ? a : b))
  stub.writeUInt32LE(Math.ceil((last.virtualAddress + last.virtualSize) / 4096) * 4096, header + 24 + 56)
  return stub
}

export type Overlay = Readonly<Record<string, string | Uint8Array | Partial<Inode>>>

/** A UKI made again with something else in it; an overlay is one more archive behind its initrd. */
export async function ukiWith(
  uki: Uint8Array,
  signers: Signers,
  change: Partial<UkiInput> & { overlay?: Overlay },
): Promise<Uint8Array> {
  const { overlay, ...rest } = change
  const input = ukiInput(uki, signers)
  const initrds = overlay ? [...input.initrds, { bytes: await archiveOf(overlay) }] : input.initrds
  return (await makeUki({ ...input, initrds, ...rest })).bytes
}

/** A UKI made again as with the stub of systemd 262: with a policy for the initrd alone. `.pcrsig` is changed before it is signed. */
export async function ukiWithReference(uki: Uint8Array, signers: Signers, change: (text: string) => string): Promise<Uint8Array> {
  const stub = Buffer.from(stubOf(uki))
  const at = stub.indexOf('systemd-stub 2')
  assert.ok(at >= 0, 'the stub says its version')
  stub.write('262', at + 'systemd-stub '.length)
  const made = await ukiWith(uki, signers, { stub: { bytes: stub }, signers: { pcr: signers.pcr } })
  const section = findSection(decodePe(made), '.pcrsig')
  assert.ok(section, 'the UKI has .pcrsig')
  const text = Buffer.from(sectionContent(made, section)).toString('utf8')
  return signPe(replaceSection(made, '.pcrsig', Buffer.from(change(text))), signers.db)
}

function archiveOf(overlay: Overlay): Promise<Uint8Array> {
  const files = Object.entries(overlay).map(([path, spec]): [string, Inode] => {
    if (typeof spec === 'string' || spec instanceof Uint8Array) return [path, madeFile(spec, 0)]
    return [path, { ...madeFile('', 0), ...spec } as Inode]
  })
  return makeInitrd(treeOf(files, madeDirectory(0)), { compression: 'none' })
}

/** /usr as it lies on the disk, with what can be changed in its place. */
export interface UsrFiles {
  chmod(path: string, mode: number): void
  /** Of a small file that is kept as it is; at most as long as it was. */
  write(path: string, content: string): void
  /** Changes bytes of the first such file that is kept as it is. */
  damage(pattern: RegExp): void
}

/** Changes files of /usr; the hash tree, the root hash, its signature and the UKI that pins it follow. */
export async function changeUsr(
  image: EditedImage,
  uki: string,
  signers: Signers,
  change: (files: UsrFiles) => void,
): Promise<void> {
  const usr = image.partition('usr')
  const blocks = new Set<number>()
  const erofs = decodeErofs((offset, sizeBytes) => image.read(usr, offset, sizeBytes), usr.sizeBytes)
  const patch = (offset: number, bytes: Uint8Array) => {
    assert.ok(offset >= VERITY_BLOCK, 'the superblock has a checksum')
    image.write(usr, offset, bytes)
    for (let at = offset; at < offset + bytes.length; at++) blocks.add(Math.floor(at / VERITY_BLOCK))
  }
  change(usrFiles(image.read(usr, 0, VERITY_BLOCK), erofs, patch))
  const rootHash = rehash(image, [...blocks])
  const uuids = verityPartitionUuids(rootHash)
  image.changePartition(usr, { guid: uuids.data })
  image.changePartition(image.partition('usr-verity'), { guid: uuids.hash })
  image.write(image.partition('usr-verity-sig'), 0, encodeVeritySignature(await signRootHash(rootHash, signers.verity)))
  const bytes = image.readEsp(uki)
  const { cmdline } = ukiInput(bytes, signers)
  image.changeEsp({ [uki]: await ukiWith(bytes, signers, { cmdline: cmdline.replace(/usrhash=\w+/, `usrhash=${rootHash}`) }) })
}

function usrFiles(start: Uint8Array, erofs: Erofs, patch: (offset: number, bytes: Uint8Array) => void): UsrFiles {
  const { metaBlock } = superblock.decode(start, SUPERBLOCK_OFFSET)
  const find = (path: string): ErofsInode => {
    const inode = erofs.inodes.get(path)
    assert.ok(inode, `/usr/${path} is there`)
    return inode
  }
  const inodeAt = ({ nid }: ErofsInode) => metaBlock * VERITY_BLOCK + nid * 32
  return {
    chmod(path, mode) {
      const inode = find(path)
      const type = { file: 0o100000, directory: 0o040000 }[inode.type as 'file' | 'directory']
      patch(inodeAt(inode) + 4, Uint8Array.of((type | mode) & 0xff, (type | mode) >> 8))
    },
    write(path, content) {
      const inode = find(path)
      const bytes = Buffer.from(content)
      assert.equal(inode.layout, LAYOUT.inline, `/usr/${path} is kept beside its inode`)
      assert.ok(inode.sizeBytes < 4096 && bytes.length <= inode.sizeBytes, `/usr/${path} has ${inode.sizeBytes} bytes`)
      const size = Buffer.alloc(4)
      size.writeUInt32LE(bytes.length)
      patch(inodeAt(inode) + 8, size)
      patch(inode.besideAt, bytes)
    },
    damage(pattern) {
      const whole = ({ type, layout, sizeBytes }: ErofsInode) =>
        type === 'file' && (layout === LAYOUT.plain || (layout === LAYOUT.inline && sizeBytes > VERITY_BLOCK))
      const [, inode] = [...erofs.inodes].find(([path, one]) => pattern.test(path) && whole(one)) ?? []
      assert.ok(inode, `a file ${pattern} is kept as it is`)
      patch(inode.where * VERITY_BLOCK + 100, Uint8Array.of(0x55, 0xaa, 0x55, 0xaa))
    },
  }
}

/** Brings the digests of changed blocks up to date, from the bottom to the top, and gives back the root hash. */
export function rehash(image: EditedImage, changed: readonly number[]): string {
  const [usr, tree] = [image.partition('usr'), image.partition('usr-verity')]
  const { salt, dataBlocks } = decodeVerity(image.read(tree, 0, VERITY_BLOCK))
  const digest = (block: Uint8Array) => hash('sha256', Buffer.concat([salt, block]), 'buffer')
  let below = { blocks: changed, read: (n: number) => image.read(usr, n * VERITY_BLOCK, VERITY_BLOCK) }
  for (const { startBlock } of verityTree(dataBlocks).levels) {
    for (const n of below.blocks) image.write(tree, startBlock * VERITY_BLOCK + n * DIGEST, digest(below.read(n)))
    const blocks = [...new Set(below.blocks.map((n) => Math.floor((n * DIGEST) / VERITY_BLOCK)))]
    below = { blocks, read: (n) => image.read(tree, (startBlock + n) * VERITY_BLOCK, VERITY_BLOCK) }
  }
  return digest(below.read(0)).toString('hex')
}
