/** Boot entries inside a unified kernel image: files of `mkosi.uki-profiles/`, or written out in recipe.ts. */
import { readFileSync, statSync } from 'node:fs'
import { Fault } from '../base/fault.ts'
import { nearest } from '../base/nearest.ts'
import { path } from './file-type.ts'
import { parseIni } from './mkosi/ini.ts'
import { boolean, list, type Pairs, type Place, pairs, refuse, scalar, string, type Type, words } from './type.ts'

/** A further boot entry inside a unified kernel image. */
export interface UkiProfile {
  /** What boot loaders show: `ID`, `TITLE`. */
  profile: Readonly<Record<string, string>>
  /** Arguments of its own, behind those of all entries. */
  cmdline: readonly string[]
  /** Whether its PCR values are signed, so that what is sealed to a signed policy opens for it. */
  signExpectedPcr: boolean
  /** The file it was read from. */
  source?: string
}

export type UkiProfileInput = Partial<Omit<UkiProfile, 'source'>> & Pick<UkiProfile, 'profile'>

/** In text the path of a file with a section [UKIProfile]; in TypeScript also the profile itself. */
export const ukiProfile: Type<UkiProfile, undefined, string | UkiProfileInput> = {
  ...scalar('a path, or an object with profile, cmdline and signExpectedPcr', (value, place) => {
    if (typeof value === 'string') return readUkiProfile(path.check(value, place), place)
    const { profile, cmdline = [], signExpectedPcr = true, source } = (value ?? {}) as Partial<UkiProfile>
    if (profile === undefined || typeof signExpectedPcr !== 'boolean') return undefined
    const checked = { profile: pairs().check(profile, place), cmdline: list(string).check(cmdline, place), signExpectedPcr }
    return source === undefined ? checked : { ...checked, source }
  }),
  parse: (text, place) => readUkiProfile(path.parse(text, place), place),
}

function readUkiProfile(file: string, place: Place): UkiProfile {
  const stat = statSync(file, { throwIfNoEntry: false })
  if (!stat?.isFile() || stat.size > 1 << 20) refuse('a file that is there, of at most 1M', file)
  const read: { -readonly [K in keyof UkiProfile]: UkiProfile[K] } = {
    profile: {},
    cmdline: [],
    signExpectedPcr: true,
    source: file,
  }
  const problems: string[] = []
  const sections = parseIni(readFileSync(file, 'utf8'), ({ line, column, message }) => {
    problems.push(`${file}:${line}:${column}: ${message}`)
  })
  for (const section of sections) {
    if (section.name === 'UKIProfile' || section.name.startsWith('X-') || section.name === '') continue
    problems.push(`${file}:${section.line}:${section.column}: unknown section [${section.name}]; expected [UKIProfile]`)
  }
  for (const entry of sections.filter((section) => section.name === 'UKIProfile').flatMap((s) => s.entries)) {
    const { name, value, line, column } = entry
    if (name === 'Profile') read.profile = value === '' ? {} : { ...read.profile, ...profileLines(value) }
    else if (name === 'Cmdline') read.cmdline = value === '' ? [] : [...read.cmdline, ...words(value, 'space')]
    else if (name === 'SignExpectedPcr') {
      try {
        read.signExpectedPcr = value === '' ? true : boolean.parse(value, place)
      } catch (error) {
        problems.push(`${file}:${line}:${column}: ${name}: ${(error as Error).message}`)
      }
    } else {
      const near = nearest(name, ['Profile', 'Cmdline', 'SignExpectedPcr'])
      problems.push(`${file}:${line}:${column}: unknown setting "${name}"${near ? `; did you mean "${near}"?` : ''}`)
    }
  }
  if (problems.length > 0) throw new Fault('recipe', problems.join('; '))
  return read
}

const profileLines = (text: string): Pairs =>
  Object.fromEntries(
    text.split('\n').flatMap((line) => {
      const equals = line.includes('=') ? line.indexOf('=') : line.length
      return line === '' ? [] : [[line.slice(0, equals).trim(), line.slice(equals + 1).trim()]]
    }),
  )
