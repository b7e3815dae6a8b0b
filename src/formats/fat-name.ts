/**
 * Names on FAT: long ones in UTF-16 pieces, and the 8.3 alias each must have.
 *
 * Spec:   Microsoft "FAT: General Overview of On-Disk Format" 1.03 (fatgen103), long file names
 * Oracle: `mdir`, `fsck.vfat -n`
 * Limits: Writes names in upper case that fit 8.3 as they are, every other as a long name.
 */
import { Fault } from '../base/fault.ts'
import { bytes, type Of, struct, u8, u16le } from './struct.ts'

/** An entry with these attributes is a piece of a long name. */
export const LONG_NAME_ATTRIBUTES = 0x0f

// biome-ignore format: table
export const longEntry = struct('FAT long name entry', {
  order:             u8, // from 1; 0x40 marks the last piece, which comes first
  first:             bytes(10),
  attributes:        u8,
  type:              u8,
  checksum:          u8,
  second:            bytes(12),
  cluster:           u16le,
  third:             bytes(4),
})

export type LongEntry = Of<typeof longEntry>

/** Refuses a name that FAT cannot hold, or that means another place. */
export function checkName(name: string, path: string): void {
  const bad = /["*:<>?\\|\x00-\x1f\x7f]/.exec(name)?.[0]
  const why =
    name === '' || name === '.' || name === '..'
      ? 'it has an empty or relative component'
      : bad
        ? `${JSON.stringify(bad)} is not allowed there`
        : /[. ]$/.test(name)
          ? 'names must not end in a dot or space there'
          : name.length > 255 || !name.isWellFormed()
            ? 'names are at most 255 UTF-16 units there'
            : undefined
  if (why) throw new Fault('usage', `Cannot store ${JSON.stringify(path)} on FAT: ${why}`)
}

/** How many entries a name takes besides its alias. */
export const longNamePieces = (name: string): number => (EXACT_SHORT.test(name) ? 0 : Math.ceil(name.length / 13))
const EXACT_SHORT = /^[A-Z0-9!#$%&'()@^_`{}~-]{1,8}(?:\.[A-Z0-9!#$%&'()@^_`{}~-]{1,3})?$/

/** The 8.3 name of each long name: itself where it is one, else `BASIS~1.EXT`. */
export function aliasesFor(names: readonly string[]): Uint8Array[] {
  const reserved = new Set(names.map((name) => name.toUpperCase()))
  const taken = new Set<string>()
  return names.map((name) => {
    const dot = name.replace(/^\.+/, (dots) => '_'.repeat(dots.length)).lastIndexOf('.')
    const clean = (text: string) =>
      text
        .replace(/[. ]/g, '')
        .toUpperCase()
        .replace(/[^A-Z0-9!#$%&'()@^_`{}~-]/g, '_')
    const base = clean(dot < 0 ? name : name.slice(0, dot)) || '_'
    const extension = dot < 0 ? '' : clean(name.slice(dot + 1)).slice(0, 3)
    for (let n = 0; ; n++) {
      const tail = n === 0 ? '' : `~${n}`
      const short = `${base.slice(0, 8 - tail.length)}${tail}`
      const whole = extension ? `${short}.${extension}` : short
      const fits = n > 0 || whole === name.toUpperCase()
      if (!fits || taken.has(whole) || (reserved.has(whole) && whole !== name.toUpperCase())) continue
      taken.add(whole)
      return Buffer.from(short.padEnd(8) + extension.padEnd(3), 'latin1')
    }
  })
}

const checksum = (alias: Uint8Array): number => alias.reduce((sum, c) => (((sum & 1) << 7) + (sum >> 1) + c) & 0xff, 0)

/** The pieces of a long name, last one first. A name that does not fill the last piece ends in 0, then all ones. */
export function longName(name: string, alias: Uint8Array): Uint8Array {
  const pieces = longNamePieces(name)
  const units = Buffer.alloc(pieces * 26, 0xff)
  units.write(name, 'utf16le')
  if (name.length * 2 < units.length) units.writeUInt16LE(0, name.length * 2)
  const parts: Uint8Array[] = []
  for (let i = pieces; i > 0; i--) {
    const piece = units.subarray((i - 1) * 26, i * 26)
    const order = i === pieces ? i | 0x40 : i
    const text = { first: piece.subarray(0, 10), second: piece.subarray(10, 22), third: piece.subarray(22) }
    parts.push(
      longEntry.encode({ order, ...text, attributes: LONG_NAME_ATTRIBUTES, type: 0, checksum: checksum(alias), cluster: 0 }),
    )
  }
  return Buffer.concat(parts)
}

/** Joins pieces in the order they are on disk; undefined where they do not belong to the alias after them. */
export function longNameOf(pieces: readonly LongEntry[], alias: Uint8Array): string | undefined {
  const sum = checksum(alias)
  if ((pieces.at(-1)!.order & 0x3f) !== 1 || pieces.some((piece) => piece.checksum !== sum)) return undefined
  const units = Buffer.concat(pieces.toReversed().flatMap((piece) => [piece.first, piece.second, piece.third]))
  return units.toString('utf16le').replace(/\0\uffff*$/, '')
}
