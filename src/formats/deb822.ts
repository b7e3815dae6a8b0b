/**
 * deb822: the stanzas of Debian's control files (Packages, Release, a package's control, dpkg's status).
 *
 * Spec:   deb822(5), Debian Policy §5.1
 * Oracle: `apt-cache dumpavail`, `grep-dctrl`
 * Limits: no comment lines, no signatures (take the signed text out of InRelease first).
 *
 * A stanza is a run of `Name: value` lines; a line that begins with a space or tab continues the value above it. Blank
 * lines separate stanzas. A value is kept as its lines joined by `\n`, each continuation without its first blank, so
 * that a folded description keeps its ` .` lines and `formatStanzas` gives back what `parseStanzas` took.
 */
import { Fault } from '../base/fault.ts'

/** Field names as written, in file order, to values. Look fields up with `field`: their names ignore case. */
export type Stanza = ReadonlyMap<string, string>

/** More than any archive needs, and little enough to refuse nonsense early. */
export const MAX_FIELDS = 1000
const MAX_STANZA_BYTES = 32 << 20

/** The value of a field, whatever the case of its name. */
export function field(stanza: Stanza, name: string): string | undefined {
  const exact = stanza.get(name)
  if (exact !== undefined) return exact
  const wanted = name.toLowerCase()
  for (const [key, value] of stanza) if (key.toLowerCase() === wanted) return value
  return undefined
}

/** Every stanza of a text. `source` names the text in a Fault. */
export function parseStanzas(text: string | Uint8Array, source = 'deb822 text'): Stanza[] {
  const bytes = typeof text === 'string' ? Buffer.from(text) : Buffer.from(text.buffer, text.byteOffset, text.length)
  const stanzas: Stanza[] = []
  let stanza = new Map<string, string>()
  let seen = new Set<string>()
  walk(bytes, source, {
    field(nameAt, nameEnd, valueAt, valueEnd, line) {
      const name = bytes.toString('latin1', nameAt, nameEnd)
      if (seen.has(name.toLowerCase())) throw refusal(source, line, `field ${name} appears twice in one stanza`)
      seen.add(name.toLowerCase())
      stanza.set(name, unfolded(bytes.toString('utf8', valueAt, valueEnd)))
    },
    end() {
      stanzas.push(stanza)
      stanza = new Map()
      seen = new Set()
    },
  })
  return stanzas
}

/** The one stanza of a text that must hold exactly one (Release, a package's control). */
export function parseStanza(text: string | Uint8Array, source = 'deb822 text'): Stanza {
  const [stanza, ...more] = parseStanzas(text, source)
  if (!stanza || more.length > 0)
    throw new Fault('format', `Cannot read ${source}: expected one stanza, found ${stanza ? more.length + 1 : 'none'}`)
  return stanza
}

/** Text that `parseStanzas` reads back as the same values. */
export function formatStanzas(stanzas: Iterable<Stanza>): string {
  return Array.from(stanzas, formatStanza).join('\n')
}

function formatStanza(stanza: Stanza): string {
  let text = ''
  for (const [name, value] of stanza) {
    if (!/^[!-9;-~]+$/.test(name) || /^[#-]/.test(name))
      throw new Fault('format', `Cannot write field ${JSON.stringify(name)}: not a field name`)
    const lines = value.split('\n')
    if (lines.slice(1).some((line) => /^\s*$/.test(line)) || /[\0\r]/.test(value))
      throw new Fault('format', `Cannot write field ${name}: a line of its value is blank (write a blank line as ".")`)
    text += lines[0] === '' ? `${name}:` : `${name}: ${lines[0]}`
    for (const line of lines.slice(1)) text += `\n ${line}`
    text += '\n'
  }
  return text
}

/**
 * Visits the stanzas of a large text without making strings: for each, `spans[2 * i]` and `spans[2 * i + 1]` are the
 * offsets of the value of `fields[i]` (start and end, outer blanks trimmed, folds as they stand), or -1 where it is absent.
 * `spans` is the same array every time. Returns the number of stanzas.
 */
export function scanStanzas(
  bytes: Uint8Array,
  fields: readonly string[],
  visit: (spans: Int32Array, stanza: number) => void,
  source = 'deb822 text',
): number {
  const buckets = byHash(fields)
  const spans = new Int32Array(fields.length * 2).fill(-1)
  let stanza = 0
  walk(bytes, source, {
    field(nameAt, nameEnd, valueAt, valueEnd, line) {
      for (const i of buckets[hashOf(bytes, nameAt, nameEnd)]!) {
        if (!isName(bytes, nameAt, nameEnd, fields[i]!)) continue
        if (spans[2 * i] !== -1) throw refusal(source, line, `field ${fields[i]} appears twice in one stanza`)
        spans[2 * i] = valueAt
        spans[2 * i + 1] = valueEnd
      }
    },
    end() {
      visit(spans, stanza++)
      spans.fill(-1)
    },
  })
  return stanza
}

interface Visitor {
  field(nameAt: number, nameEnd: number, valueAt: number, valueEnd: number, line: number): void
  end(): void
}

const NUL = 0
const TAB = 9
const NEWLINE = 10
const RETURN = 13
const SPACE = 32
const HASH = 35
const DASH = 45
const COLON = 58

/** The one reader of lines: checks the shape of every line and hands out whole fields. */
function walk(bytes: Uint8Array, source: string, visitor: Visitor): void {
  const size = bytes.length
  let at = 0
  let line = 1
  let stanzaAt = 0
  let fields = 0
  while (at < size) {
    if (bytes[at] === NEWLINE || (bytes[at] === RETURN && bytes[at + 1] === NEWLINE)) {
      at += bytes[at] === NEWLINE ? 1 : 2
      if (fields > 0) visitor.end()
      fields = 0
      stanzaAt = at
      line++
      continue
    }
    const nameAt = at
    at = endOfName(bytes, at, source, line)
    const nameEnd = at++
    const started = line
    while (isBlank(bytes[at])) at++
    const valueAt = at
    let end = at
    for (;;) {
      for (; at < size && bytes[at] !== NEWLINE; at++) {
        if (bytes[at]! > SPACE) end = at + 1
        else if (bytes[at] === NUL) throw refusal(source, line, 'a NUL byte')
      }
      at++
      line++
      if (at >= size || !isBlank(bytes[at])) break
      if (isBlankLine(bytes, at)) throw refusal(source, line, 'a continuation line without text')
    }
    if (++fields > MAX_FIELDS) throw refusal(source, started, `more than ${MAX_FIELDS} fields in one stanza`)
    if (at - stanzaAt > MAX_STANZA_BYTES) throw refusal(source, started, `a stanza larger than ${MAX_STANZA_BYTES} bytes`)
    visitor.field(nameAt, nameEnd, valueAt, Math.max(valueAt, end), started)
  }
  if (fields > 0) visitor.end()
}

/** Offset of the colon after a field name. */
function endOfName(bytes: Uint8Array, at: number, source: string, line: number): number {
  const first = bytes[at]!
  if (isBlank(first)) throw refusal(source, line, 'a continuation line without a field above it')
  let i = at
  while (bytes[i] !== COLON) {
    const c = bytes[i]
    if (c === undefined || c <= SPACE || c >= 127) throw refusal(source, line, 'expected "Name: value"')
    i++
  }
  if (i === at || first === DASH || first === HASH) throw refusal(source, line, 'not a field name')
  return i
}

const isBlank = (c: number | undefined) => c === SPACE || c === TAB

function isBlankLine(bytes: Uint8Array, at: number): boolean {
  let i = at
  while (isBlank(bytes[i]) || bytes[i] === RETURN) i++
  return i >= bytes.length || bytes[i] === NEWLINE
}

/** The lines of a raw value, without trailing blanks and without the one blank that marks a continuation. */
function unfolded(raw: string): string {
  if (!raw.includes('\n')) return raw
  return raw
    .split('\n')
    .map((line, i) => (i === 0 ? line : line.slice(1)).trimEnd())
    .join('\n')
}

function byHash(fields: readonly string[]): number[][] {
  const buckets: number[][] = Array.from({ length: 256 }, () => [])
  fields.forEach((name, i) => buckets[hashOf(Buffer.from(name), 0, name.length)]!.push(i))
  return buckets
}

/** A hash of a name that ignores the case of its letters. */
const hashOf = (bytes: Uint8Array, at: number, end: number): number =>
  ((bytes[at]! | 32) * 31 + (bytes[end - 1]! | 32) * 7 + (end - at)) & 255

function isName(bytes: Uint8Array, at: number, end: number, name: string): boolean {
  if (end - at !== name.length) return false
  for (let i = 0; i < name.length; i++) {
    const a = bytes[at + i]!
    const b = name.charCodeAt(i)
    if (a !== b && ((a | 32) !== (b | 32) || (a | 32) < 97 || (a | 32) > 122)) return false
  }
  return true
}

const refusal = (source: string, line: number, why: string) => new Fault('format', `Cannot read ${source}, line ${line}: ${why}`)
