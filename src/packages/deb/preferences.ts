/**
 * apt's preferences: which version of a package is the candidate.
 *
 * Spec:   apt_preferences(5)
 * Oracle: `apt-cache policy`
 * Limits: `Pin: release` knows a, n, o, l, c and v; no `src:` names.
 *
 * A record that names packages goes before one for all (`Package: *`); among each kind the first that matches decides.
 */
import { Fault } from '../../base/fault.ts'
import { field, parseStanzas, type Stanza } from '../../formats/deb822.ts'

export interface Preference {
  /** What it is for; undefined for every package. */
  names: readonly RegExp[] | undefined
  pin:
    | { is: 'release'; fields: ReadonlyMap<ReleaseField, string> }
    | { is: 'origin'; host: string }
    | { is: 'version'; pattern: RegExp }
  priority: number
}

/** `any`: a name that may be the archive's or the codename. */
type ReleaseField = 'any' | 'a' | 'n' | 'o' | 'l' | 'c' | 'v'

/** What a pin may ask of a repository. */
export interface Pinned {
  /** Host of its URL; empty for packages of this machine. */
  host: string
  /** By the letters of `Pin: release`: archive (suite), codename, origin, label, component, version. */
  release: Readonly<Partial<Record<Exclude<ReleaseField, 'any'>, string>>>
}

export function parsePreferences(text: string, path: string): Preference[] {
  const problems: string[] = []
  const found: Preference[] = []
  for (const [i, stanza] of parseStanzas(text.replace(/^#.*(\n|$)/gm, ''), path).entries()) {
    const read = readStanza(stanza)
    if (typeof read === 'string') problems.push(`record ${i + 1}: ${read}`)
    else found.push(read)
  }
  if (problems.length > 0) throw new Fault('recipe', `Cannot read ${path}: ${problems.join('; ')}`)
  return found
}

/** The priority of a version of a package from a repository; undefined where no preference says anything. */
export function priorityOf(
  preferences: readonly Preference[],
  { name, version }: { name: string; version: string },
  from: Pinned,
): number | undefined {
  const holds = (p: Preference) =>
    p.pin.is === 'version'
      ? p.pin.pattern.test(version)
      : p.pin.is === 'origin'
        ? p.pin.host === from.host
        : [...p.pin.fields].every(([key, value]) => isOf(from, key, matcher(value)))
  const specific = preferences.find((p) => p.names?.some((pattern) => pattern.test(name)) && holds(p))
  return (specific ?? preferences.find((p) => p.names === undefined && holds(p)))?.priority
}

const isOf = ({ release }: Pinned, key: ReleaseField, pattern: RegExp) =>
  key === 'any' ? [release.a, release.n].some((name) => pattern.test(name ?? '')) : pattern.test(release[key] ?? '')

function readStanza(stanza: Stanza): Preference | string {
  const [packages, pin, written] = ['Package', 'Pin', 'Pin-Priority'].map((name) => field(stanza, name)?.trim())
  if (packages === undefined || pin === undefined || written === undefined) return 'expected Package, Pin and Pin-Priority'
  const priority = Number(written)
  if (!/^-?\d{1,5}$/.test(written) || Math.abs(priority) > 32767) return `Pin-Priority ${JSON.stringify(written)} is no number`
  const names = packages.split(/\s+/)
  if (names.some((name) => name.startsWith('src:'))) return 'src: names are not supported'
  const read = readPin(pin)
  if (typeof read === 'string') return read
  if (read.is === 'version' && names.includes('*')) return 'Pin: version needs names of packages'
  return {
    names: names.includes('*') ? undefined : names.map((name) => matcher(name.replace(/:(any|native)$/, ''))),
    pin: read,
    priority,
  }
}

function readPin(pin: string): Preference['pin'] | string {
  const [, kind, rest] = /^(release|origin|version)\s+(.+)$/.exec(pin) ?? []
  if (kind === undefined) return `Pin ${JSON.stringify(pin)} is none of release, origin and version`
  const text = rest!.trim()
  if (kind === 'origin') return { is: 'origin', host: text.replace(/^"(.*)"$/, '$1') }
  if (kind === 'version') return { is: 'version', pattern: matcher(text) }
  const fields = new Map<ReleaseField, string>()
  for (const part of text.split(',').map((part) => part.trim())) {
    const [, key, value] = /^([anolcv])\s*=\s*(.*)$/.exec(part) ?? []
    if (key !== undefined) fields.set(key as ReleaseField, value!.replace(/^"(.*)"$/, '$1'))
    else if (!part.includes('=') && /^\d/.test(part)) fields.set('v', part)
    else if (!part.includes('=')) fields.set('any', part)
    else return `Pin: release ${JSON.stringify(part)} is not supported`
  }
  return { is: 'release', fields }
}

/** A name, a glob, or a regular expression between slashes. */
function matcher(text: string): RegExp {
  const expression = /^\/(.+)\/i?$/.exec(text)?.[1]
  try {
    if (expression !== undefined) return new RegExp(expression)
    return new RegExp(
      `^${text
        .replace(/[.+^${}()|\\]/g, '\\$&')
        .replace(/\*/g, '.*')
        .replace(/\?/g, '.')
        .replace(/\[!/g, '[^')}$`,
    )
  } catch (error) {
    throw new Fault('recipe', `Cannot read preferences: ${text} is not a pattern: ${(error as Error).message}`)
  }
}
