/** A tree as an EFI program: the initrd of a UKI that is a system by itself, or of an addon. */
import type { Tree } from '../../tree/tree.ts'
import { type AddonInput, makeAddon } from '../addon.ts'
import { makeUki, type Uki, type UkiInput } from '../uki.ts'
import { type CpioOptions, cpioOf } from './cpio.ts'

/** A UKI whose only initrd is the tree. */
export async function makeTreeUki(tree: Tree, input: Omit<UkiInput, 'initrds'>, options: CpioOptions): Promise<Uki> {
  return makeUki({ ...input, initrds: [{ bytes: await cpioOf(tree, options) }] })
}

/** An addon with the tree as initrd, unless there is nothing in it. */
export async function makeTreeAddon(tree: Tree, input: Omit<AddonInput, 'initrds'>, options: CpioOptions): Promise<Uint8Array> {
  return makeAddon({ ...input, ...(tree.size > 1 ? { initrds: [{ bytes: await cpioOf(tree, options) }] } : {}) })
}
