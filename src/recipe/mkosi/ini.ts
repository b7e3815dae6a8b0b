/**
 * The syntax of mkosi's files: sections of `Name=value`, values that go on in indented lines, comments from `#` to a line's end.
 *
 * Spec: systemd.syntax(7) as mkosi narrows it: no quoting, no backslashes at line ends; the indentation that all lines share
 * does not count. Beyond mkosi: a line that starts with `;` is a comment.
 */

export interface IniEntry {
  section: string
  name: string
  /** Lines joined with a newline, each without the blanks around it. */
  value: string
  /** Of the name; both from 1. */
  line: number
  column: number
}

export interface IniSection {
  name: string
  line: number
  column: number
  entries: IniEntry[]
}

export interface IniProblem {
  line: number
  column: number
  message: string
}

/** Reads a file's text. What cannot be read is told through `problem`, and reading goes on behind it. */
export function parseIni(text: string, problem: (problem: IniProblem) => void): IniSection[] {
  const lines = text.split(/\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]/)
  const margin = commonIndent(lines)
  const sections: IniSection[] = []
  let entry: IniEntry | undefined
  for (const [index, whole] of lines.entries()) {
    const hash = whole.indexOf('#')
    const line = (hash < 0 ? whole : whole.slice(0, hash)).slice(margin.length)
    const content = line.trim()
    if (content === '') continue
    const at = { line: index + 1, column: margin.length + line.indexOf(content[0]!) + 1 }
    if (entry && /^\s/.test(line)) {
      entry.value += `\n${content}`
      continue
    }
    if (content.startsWith(';')) continue
    entry = undefined
    if (content.startsWith('[')) {
      const section = sectionOf(content, at, problem)
      sections.push({ name: section, ...at, entries: [] })
      continue
    }
    const found = entryOf(content, sections.at(-1), at, problem)
    if (!found) continue
    sections.at(-1)!.entries.push(found)
    entry = found
  }
  return sections
}

type At = { line: number; column: number }

/** The section's name; one that cannot be read is the empty name, whose entries nobody asks for. */
function sectionOf(content: string, at: At, problem: (problem: IniProblem) => void): string {
  const name = content.endsWith(']') ? content.slice(1, -1).trim() : ''
  if (!content.endsWith(']')) problem({ ...at, message: `"${shortened(content)}" is not a section: expected [Name]` })
  else if (name === '') problem({ ...at, message: 'a section needs a name between its brackets' })
  return name
}

function entryOf(
  content: string,
  section: IniSection | undefined,
  at: At,
  problem: (problem: IniProblem) => void,
): IniEntry | undefined {
  const equals = content.indexOf('=')
  const name = content.slice(0, Math.max(equals, 0)).trim()
  if (section === undefined) problem({ ...at, message: `"${shortened(content)}" stands before the first section` })
  else if (equals < 0) problem({ ...at, message: `"${shortened(content)}" is not a setting: expected Name=value` })
  else if (name === '') problem({ ...at, message: `"${shortened(content)}" has no name before its "="` })
  else return { section: section.name, name, value: content.slice(equals + 1).trim(), ...at }
  return undefined
}

/** What all lines that are not blank begin with, of blanks. */
function commonIndent(lines: readonly string[]): string {
  let common: string | undefined
  for (const line of lines) {
    if (line.trim() === '') continue
    const indent = /^[ \t]*/.exec(line)![0]
    if (common === undefined) common = indent
    let same = 0
    while (same < common.length && common[same] === indent[same]) same++
    common = common.slice(0, same)
    if (common === '') break
  }
  return common ?? ''
}

const shortened = (text: string): string => (text.length > 60 ? `${text.slice(0, 57)}…` : text)
