/** Firmware's variables, small. */

/** A store of 4 KiB in a volume of 8 KiB, with the headers as OVMF builds them. */
export function emptyVariables(): Uint8Array {
  const flash = new Uint8Array(0x2000).fill(0xff)
  const header = Buffer.alloc(0x64)
  header.write('8d2bf1ff96768b4ca9852747075b4f50', 16, 'hex')
  header.writeBigUInt64LE(0x2000n, 32)
  header.write('_FVH', 40)
  header.writeUInt32LE(0x0004feff, 44)
  header.writeUInt16LE(0x48, 48)
  header[55] = 2
  header.writeUInt32LE(2, 56)
  header.writeUInt32LE(0x1000, 60)
  let sum = 0
  for (let at = 0; at < 0x48; at += 2) sum += header.readUInt16LE(at)
  header.writeUInt16LE(-sum & 0xffff, 50)
  header.write('782cf3aa7b949a43a1802e144ec37792', 0x48, 'hex')
  header.writeUInt32LE(0x1000 - 0x48, 0x58)
  header[0x5c] = 0x5a
  header[0x5d] = 0xfe
  flash.set(header)
  return flash
}
