/**
 * Unix `ar` archives, as `.deb` files use them.
 *
 * Spec:   deb(5), ar(5) — https://manpages.debian.org/trixie/dpkg-dev/deb.5.en.html
 * Oracle: `ar t`, `ar p` (binutils), `dpkg-deb --info`
 * Limits: short member names only (no GNU `//` table, no BSD `#1/`), no symbol table.
 *
 * On disk: magic · for each member a header of 60 bytes, the data, a newline where the data's size is odd.
 */
import { Fault } from '../base/fault.ts'

const MAGIC = Buffer.from('!<arch>\n')
const HEADER_SIZE = 60
/** More members than any archive of ours has; a list that never ends is refused. */
const MOST_MEMBERS = 64

export interface ArMember {
  name: string
  data: Uint8Array
}

export function encodeAr(members: readonly ArMember[], mtime = 0): Uint8Array {
  const parts: Uint8Array[] = [MAGIC]
  for (const { name, data } of members) {
    if (Buffer.byteLength(name) > 16) throw new Fault('format', `Cannot store ar member "${name}": names have at most 16 bytes`)
    const fields = [
      name.padEnd(16),
      `${mtime}`.padEnd(12),
      '0'.padEnd(6),
      '0'.padEnd(6),
      '100644'.padEnd(8),
      `${data.length}`.padEnd(10),
    ]
    parts.push(Buffer.from(`${fields.join('')}\`\n`), data)
    if (data.length % 2 === 1) parts.push(Buffer.from('\n'))
  }
  return Buffer.concat(parts)
}

export function decodeAr(bytes: Uint8Array): ArMember[] {
  const file = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  if (!file.subarray(0, MAGIC.length).equals(MAGIC))
    throw new Fault('format', 'Cannot read ar archive: it does not begin with "!<arch>"')
  const members: ArMember[] = []
  for (let at = MAGIC.length; at < file.length; ) {
    if (members.length === MOST_MEMBERS) throw new Fault('format', `Cannot read ar archive: more than ${MOST_MEMBERS} members`)
    const { name, sizeBytes } = decodeHeader(file, at)
    const start = at + HEADER_SIZE
    if (sizeBytes > file.length - start) {
      throw new Fault(
        'format',
        `Cannot read ar member "${name}" at offset ${at}: it has ${sizeBytes} bytes, the file ${file.length - start} more`,
      )
    }
    members.push({ name, data: file.subarray(start, start + sizeBytes) })
    at = start + sizeBytes + (sizeBytes % 2)
  }
  return members
}

function decodeHeader(file: Buffer, at: number): { name: string; sizeBytes: number } {
  if (file.length - at < HEADER_SIZE)
    throw new Fault('format', `Cannot read ar header at offset ${at}: need ${HEADER_SIZE} bytes, have ${file.length - at}`)
  const header = file.toString('latin1', at, at + HEADER_SIZE)
  if (header.slice(58) !== '`\n')
    throw new Fault('format', `Cannot read ar header at offset ${at}: it does not end with the mark`)
  const name = header.slice(0, 16).trimEnd().replace(/\/$/, '')
  const size = header.slice(48, 58).trimEnd()
  if (!/^[\x21-\x7e]+$/.test(name)) throw new Fault('format', `Cannot read ar header at offset ${at}: the name is not printable`)
  if (!/^\d+$/.test(size))
    throw new Fault('format', `Cannot read ar member "${name}" at offset ${at}: size "${size}" is not a number`)
  return { name, sizeBytes: Number(size) }
}
