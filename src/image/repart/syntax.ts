/**
 * The syntax of systemd's configuration files: sections of `Name=value`, with the place of each for messages.
 *
 * Spec: systemd.syntax(7). A line that ends in a backslash goes on in the next one; comments begin a line with `#` or `;`.
 */

export interface Assignment {
  section: string
  name: string
  value: string
  line: number
  /** Of the name and of the value, from 1. */
  column: number
  valueColumn: number
}

export interface SyntaxProblem {
  line: number
  column: number
  message: string
}

/** The assignments of a file, in order. Sections whose names begin with `X-` are someone else's and are left out. */
export function parseSyntax(text: string, problem: (problem: SyntaxProblem) => void): Assignment[] {
  const assignments: Assignment[] = []
  let section: string | undefined
  for (const { text: whole, line } of logicalLines(text)) {
    const content = whole.trim()
    const column = whole.length - whole.trimStart().length + 1
    if (content.startsWith('[')) {
      if (!content.endsWith(']')) problem({ line, column, message: `section header "${content}" does not end in "]"` })
      section = content.replace(/^\[|\]$/g, '')
      continue
    }
    const equals = content.indexOf('=')
    if (equals <= 0) {
      problem({ line, column, message: `"${content}" is neither a section nor Name=value` })
      continue
    }
    const name = content.slice(0, equals).trimEnd()
    if (section === undefined) problem({ line, column, message: `${name}= stands before any section; put [Partition] above it` })
    if (section === undefined || section.startsWith('X-')) continue
    const behind = content.slice(equals + 1)
    const valueColumn = column + equals + 1 + behind.length - behind.trimStart().length
    assignments.push({ section, name, value: behind.trim(), line, column, valueColumn })
  }
  return assignments
}

/** Lines without comments and empty ones, each joined with those it goes on in. */
function* logicalLines(text: string): Generator<{ text: string; line: number }> {
  let open: { text: string; line: number } | undefined
  for (const [i, line] of text
    .replace(/^\ufeff/, '')
    .split(/\r?\n/)
    .entries()) {
    if (/^\s*[#;]/.test(line)) continue
    const goesOn = /(?<!\\)(?:\\\\)*\\$/.test(line)
    const part = goesOn ? `${line.slice(0, -1)} ` : line
    open = open === undefined ? { text: part, line: i + 1 } : { ...open, text: open.text + part }
    if (goesOn) continue
    if (open.text.trim() !== '') yield open
    open = undefined
  }
  if (open !== undefined && open.text.trim() !== '') yield open
}

/** Words separated by blanks; quotes keep blanks together, backslashes stay. Undefined where a quote is left open. */
export const splitWords = (text: string): string[] | undefined =>
  split(text, /\s/, { coalesce: true, quotes: true, escapes: false })

/** Fields separated by colons: C escapes are undone, so that `\:` is a colon. Undefined where an escape or quote is wrong. */
export const splitFields = (text: string, { quotes = false } = {}): string[] | undefined =>
  split(text, /:/, { coalesce: false, quotes, escapes: true })

function split(
  text: string,
  separator: RegExp,
  { coalesce, quotes, escapes }: { coalesce: boolean; quotes: boolean; escapes: boolean },
): string[] | undefined {
  const words: string[] = []
  let word: string | undefined
  let quote = ''
  for (let i = 0; i < text.length; i++) {
    const c = text[i]!
    if (escapes && c === '\\') {
      const escaped = ESCAPE.exec(text.slice(i + 1))
      if (!escaped) return undefined
      word = (word ?? '') + unescaped(escaped[0])
      i += escaped[0].length
    } else if (quote !== '') {
      if (c === quote) quote = ''
      else word = (word ?? '') + c
    } else if (quotes && (c === '"' || c === "'")) {
      quote = c
      word ??= ''
    } else if (separator.test(c)) {
      if (word !== undefined || !coalesce) words.push(word ?? '')
      word = undefined
    } else word = (word ?? '') + c
  }
  if (quote !== '') return undefined
  if (word !== undefined || (!coalesce && text !== '')) words.push(word ?? '')
  return words
}

const ESCAPE = /^(?:[abfnrtvs\\"':]|x[0-9a-fA-F]{2})/
const LETTERS: Readonly<Record<string, string>> = { a: '\x07', b: '\b', f: '\f', n: '\n', r: '\r', t: '\t', v: '\v', s: ' ' }

const unescaped = (code: string): string =>
  code[0] === 'x' ? String.fromCharCode(Number.parseInt(code.slice(1), 16)) : (LETTERS[code] ?? code)
