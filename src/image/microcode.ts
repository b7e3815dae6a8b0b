/** Early microcode: an uncompressed cpio that must be the first thing in what the kernel gets as initrd. */
import { Fault } from '../base/fault.ts'
import { madeDirectory, madeFile, readContent } from '../tree/content.ts'
import { type Inode, nameOf, type Tree, treeOf } from '../tree/tree.ts'
import { makeInitrd } from './initrd.ts'
import { decompressed } from './kernel-modules.ts'

const VENDORS = [
  {
    directory: 'usr/lib/firmware/intel-ucode',
    file: /^[0-9a-f]{2}-[0-9a-f]{2}-[0-9a-f]{2}(?:\.initramfs)?(?:\.(?:xz|zst))?$/,
    magic: Buffer.from([1, 0, 0, 0]), // header version
    target: 'GenuineIntel.bin',
  },
  {
    directory: 'usr/lib/firmware/amd-ucode',
    file: /^microcode_amd\w*\.bin(?:\.(?:xz|zst))?$/,
    magic: Buffer.from('DMA\0'),
    target: 'AuthenticAMD.bin',
  },
] as const

/** Joins the microcode files of a tree, by vendor and in the order of their names; undefined where there are none. */
export async function makeMicrocode(tree: Tree, epoch: number): Promise<Uint8Array | undefined> {
  const entries: [string, Inode][] = []
  for (const vendor of VENDORS) {
    const parts: Uint8Array[] = []
    for (const [path, inode] of tree) {
      const name = nameOf(path)
      if (inode.type !== 'file' || path !== `${vendor.directory}/${name}` || !vendor.file.test(name)) continue
      const bytes = await decompressed(path, await readContent(inode.content))
      if (!vendor.magic.equals(bytes.subarray(0, 4))) {
        throw new Fault('format', `Cannot use microcode /${path}: expected it to begin with ${vendor.magic.toString('hex')}`)
      }
      parts.push(bytes)
    }
    if (parts.length > 0) entries.push([`kernel/x86/microcode/${vendor.target}`, madeFile(Buffer.concat(parts), epoch)])
  }
  return entries.length === 0 ? undefined : makeInitrd(treeOf(entries, madeDirectory(epoch)), { compression: 'none' })
}
