/** The smallest ELF object that says something in `.modinfo`, as a kernel module does. */
export function kernelModule(fields: readonly (readonly [key: string, value: string])[], bits: 32 | 64 = 64): Buffer {
  const wide = bits === 64
  const modinfo = Buffer.from(fields.map(([key, value]) => `${key}=${value}\0`).join(''))
  const names = Buffer.from('\0.modinfo\0.shstrtab\0')
  const headerSize = wide ? 64 : 52
  const sectionSize = wide ? 64 : 40
  const modinfoAt = headerSize
  const namesAt = modinfoAt + modinfo.length
  const sectionsAt = Math.ceil((namesAt + names.length) / 8) * 8
  const file = Buffer.alloc(sectionsAt + 3 * sectionSize)
  const word = (value: number, at: number) => (wide ? file.writeBigUInt64LE(BigInt(value), at) : file.writeUInt32LE(value, at))

  file.set([0x7f, 0x45, 0x4c, 0x46, wide ? 2 : 1, 1, 1])
  file.writeUInt16LE(1, 16) // relocatable
  file.writeUInt16LE(wide ? 62 : 3, 18)
  file.writeUInt32LE(1, 20)
  word(sectionsAt, wide ? 40 : 32)
  file.writeUInt16LE(headerSize, wide ? 52 : 40)
  file.writeUInt16LE(sectionSize, wide ? 58 : 46)
  file.writeUInt16LE(3, wide ? 60 : 48)
  file.writeUInt16LE(2, wide ? 62 : 50)
  file.set(modinfo, modinfoAt)
  file.set(names, namesAt)

  const section = (i: number, name: number, type: number, at: number, size: number) => {
    const header = sectionsAt + i * sectionSize
    file.writeUInt32LE(name, header)
    file.writeUInt32LE(type, header + 4)
    word(at, header + (wide ? 24 : 16))
    word(size, header + (wide ? 32 : 20))
    word(1, header + (wide ? 48 : 32))
  }
  section(1, 1, 1, modinfoAt, modinfo.length)
  section(2, 10, 3, namesAt, names.length)
  return file
}
