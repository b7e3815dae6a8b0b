/** The smallest PE32+ that can be a stub or a kernel in a test: `.text` and `.sbat`, with room for more sections. */
export interface TinyPe {
  machine?: number
  nxCompat?: boolean
  sizeOfHeaders?: number
  sbat?: string
  text?: Uint8Array
}

/** Where the fields lie that tests change to make the image wrong. */
// biome-ignore format: table
export const TINY_PE = {
  sectionCount: 0x80 + 6, sectionAlignment: 0x98 + 32, sizeOfImage: 0x98 + 56, sizeOfHeaders: 0x98 + 60, checkSum: 0x98 + 64,
  certificateEntry: 0x98 + 144, sectionTable: 0x188, textRawSize: 0x188 + 16, textRawPointer: 0x188 + 20, sbatRawPointer: 0x1b0 + 20,
} as const

export function tinyPe(options: TinyPe = {}): Buffer {
  const headers = options.sizeOfHeaders ?? 0x1000
  const image = Buffer.alloc(headers + 0x400)
  image.write('MZ')
  image.writeUInt32LE(0x80, 0x3c)
  image.write('PE\0\0', 0x80)
  image.writeUInt16LE(options.machine ?? 0x8664, 0x84)
  image.writeUInt16LE(2, TINY_PE.sectionCount)
  image.writeUInt16LE(240, 0x94)
  image.writeUInt16LE(0x022e, 0x96)
  image.writeUInt16LE(0x020b, 0x98)
  image.writeUInt32LE(0x1000, TINY_PE.sectionAlignment)
  image.writeUInt32LE(0x200, 0x98 + 36)
  image.writeUInt32LE(0x4000, TINY_PE.sizeOfImage)
  image.writeUInt32LE(headers, TINY_PE.sizeOfHeaders)
  image.writeUInt16LE(10, 0x98 + 68)
  image.writeUInt16LE(options.nxCompat === false ? 0x60 : 0x160, 0x98 + 70)
  image.writeUInt32LE(16, 0x98 + 108)
  const sbat = Buffer.from(
    options.sbat ?? 'sbat,1,SBAT Version,sbat,1,https://example.org/\ntiny,1,Tiny,tiny,1,https://example.org/\n',
  )
  section(image, 0, '.text', options.text?.length ?? 0x10, headers)
  section(image, 1, '.sbat', sbat.length, headers + 0x200)
  image.set(options.text ?? Buffer.alloc(0x10, 0x90), headers)
  image.set(sbat, headers + 0x200)
  return image
}

function section(image: Buffer, index: number, name: string, size: number, pointer: number): void {
  const at = TINY_PE.sectionTable + index * 40
  image.write(name, at)
  image.writeUInt32LE(size, at + 8)
  image.writeUInt32LE(0x1000 * (index + 2), at + 12)
  image.writeUInt32LE(0x200, at + 16)
  image.writeUInt32LE(pointer, at + 20)
  image.writeUInt32LE(0x4000_0040, at + 36)
}
