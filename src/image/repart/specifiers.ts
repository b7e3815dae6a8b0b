/**
 * systemd's specifiers as partition definitions have them: `%M` stands for the image's id, and so on.
 *
 * Spec: repart.d(5), "Specifiers". What only a running machine knows (`%b`, `%m`, `%v` …) is refused.
 */
import type { Architecture } from '../../formats/dps.ts'

/** Letters to values. A letter that is not there has no value when an image is made. */
export type Specifiers = ReadonlyMap<string, string>

/** The specifiers of an image, from the text of its os-release. */
export function specifiersOf(osRelease: string, architecture: Architecture): Specifiers {
  const values = new Map([
    ['a', architecture],
    ['T', '/tmp'],
    ['V', '/var/tmp'],
  ])
  const fields = parseOsRelease(osRelease)
  for (const [letter, field] of OS_RELEASE) values.set(letter, fields.get(field) ?? '')
  return values
}

/** Replaces every specifier. A message instead of a text where one has no value or is none. */
export function expandSpecifiers(text: string, specifiers: Specifiers): { text: string } | { problem: string } {
  let problem: string | undefined
  const expanded = text.replace(/%(.?)/gsu, (whole, letter: string) => {
    if (letter === '%') return '%'
    const value = specifiers.get(letter)
    if (value === undefined)
      problem ??= MACHINE[letter]
        ? `"${whole}" is ${MACHINE[letter]}, which is not known before the image runs`
        : `"${whole}" is no specifier; write "%%" for a percent sign`
    return value ?? ''
  })
  return problem === undefined ? { text: expanded } : { problem }
}

const OS_RELEASE = [
  ['A', 'IMAGE_VERSION'],
  ['B', 'BUILD_ID'],
  ['M', 'IMAGE_ID'],
  ['o', 'ID'],
  ['w', 'VERSION_ID'],
  ['W', 'VARIANT_ID'],
] as const

const MACHINE: Readonly<Record<string, string>> = {
  b: 'the boot id',
  H: 'the host name',
  l: 'the short host name',
  m: 'the machine id',
  q: 'the pretty host name',
  v: 'the kernel release',
}

/** Assignments of an os-release, quotes undone. */
function parseOsRelease(text: string): Map<string, string> {
  const fields = new Map<string, string>()
  for (const line of text.split('\n')) {
    const [, name, value] = /^([A-Z_0-9]+)=(.*)$/.exec(line.trim()) ?? []
    if (name === undefined || value === undefined) continue
    const quoted = /^(["'])(.*)\1$/.exec(value)
    fields.set(name, quoted ? quoted[2]!.replace(/\\(["'$`\\])/g, '$1') : value)
  }
  return fields
}
