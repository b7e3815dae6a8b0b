/** Addons: signed EFI programs that add to a UKI's command line, initrd, devicetree or microcode, and start nothing. */
import { Fault } from '../base/fault.ts'
import { decodePe, findSection, replaceSection } from '../formats/pe.ts'
import { ADDON_SBAT, checkUkiTexts } from '../formats/uki.ts'
import type { Signer } from '../signing/signer.ts'
import type { Content } from '../tree/tree.ts'
import { layOutProgram, partOf, readWhole, signProgram, textContent } from './efi-program.ts'

export interface AddonInput {
  /** The distribution's `addon*.efi.stub`. */
  stub: Content
  cmdline?: string
  /** `uname -r` of the only kernel it is for. */
  uname?: string
  devicetree?: Content
  /** cpio archives, concatenated in this order. */
  initrds?: readonly Content[]
  /** Uncompressed cpio with early microcode. */
  microcode?: Content
  /** SBAT text of this addon, instead of the line for addons as such. */
  sbat?: string
  /** Without one it is not signed, and loaded only where Secure Boot is off. */
  signer?: Signer | undefined
  /** Seconds since 1970 to put into the signature; when not given it carries no time. */
  signingTime?: number
}

/** Makes and signs an addon. The same input gives the same bytes. */
export async function makeAddon(input: AddonInput): Promise<Uint8Array> {
  const { cmdline = '', uname = '', devicetree, microcode, signer } = input
  checkUkiTexts({ cmdline, uname })
  const contents: [string, readonly Content[]][] = [
    ['.cmdline', [textContent(cmdline)]],
    ['.dtb', devicetree ? [devicetree] : []],
    ['.uname', [textContent(uname)]],
    ['.initrd', input.initrds ?? []],
    ['.ucode', microcode ? [microcode] : []],
  ]
  const parts = await Promise.all(contents.map(([name, of]) => partOf(name, of)))
  const held = parts.filter(({ sizeBytes }) => sizeBytes > 0)
  if (!held.some(({ name }) => name !== '.uname'))
    throw new Fault('recipe', 'Cannot make addon: it would add nothing', {
      hint: 'set KernelCommandLine=, or add files to the image',
    })

  const plain = await readWhole(input.stub)
  const sbat = Buffer.from(input.sbat ?? ADDON_SBAT)
  const inStub = findSection(decodePe(plain, 'addon stub'), '.sbat') !== undefined
  const stub = inStub ? replaceSection(plain, '.sbat', sbat) : plain
  const all = inStub ? held : [...held, await partOf('.sbat', [{ bytes: sbat }])]
  const program = await layOutProgram(stub, all, { signer })
  return (await signProgram(program, signer, 'addon', input.signingTime)).image
}
