/**
 * Release: the signed table of contents of a Debian suite.
 *
 * Spec:   https://wiki.debian.org/DebianRepository/Format
 * Limits: SHA-256 only; MD5Sum and SHA1 lists are not read.
 */
import type { Sha256 } from '../../base/digest.ts'
import { Fault } from '../../base/fault.ts'
import { field, parseStanza, type Stanza } from '../../formats/deb822.ts'
import type { Repository } from '../repository.ts'
import { CLOCK_TOLERANCE_MS } from './signature.ts'

export interface Release {
  suite: string
  codename: string
  origin: string
  label: string
  version: string
  date: Date
  validUntil?: Date
  architectures: readonly string[]
  components: readonly string[]
  acquireByHash: boolean
  /** What apt gives its packages unless told otherwise: 1 where they are not to be taken by themselves, 100 for backports. */
  priority: 1 | 100 | 500
  /** Packages of architecture `all` are in an index of their own, not in every architecture's. */
  separateAll: boolean
  /** Index files by their path below `dists/<suite>/`, or below the folder of a flat repository. */
  files: ReadonlyMap<string, IndexFile>
}

export interface IndexFile {
  sha256: Sha256
  sizeBytes: number
}

const MAX_FILES = 200_000

/** Parses the verified text of a Release file. */
export function parseRelease(text: string, source: string): Release {
  const stanza = parseStanza(text, source)
  const validUntil = field(stanza, 'Valid-Until')
  const architectures = words(field(stanza, 'Architectures'))
  const isYes = (name: string) => field(stanza, name)?.toLowerCase() === 'yes'
  return {
    suite: field(stanza, 'Suite') ?? '',
    codename: field(stanza, 'Codename') ?? '',
    origin: field(stanza, 'Origin') ?? '',
    label: field(stanza, 'Label') ?? '',
    version: field(stanza, 'Version') ?? '',
    date: dateOf(required(stanza, 'Date', source), 'Date', source),
    ...(validUntil === undefined ? {} : { validUntil: dateOf(validUntil, 'Valid-Until', source) }),
    architectures,
    components: words(field(stanza, 'Components')),
    acquireByHash: field(stanza, 'Acquire-By-Hash') === 'yes',
    priority: !isYes('NotAutomatic') ? 500 : isYes('ButAutomaticUpgrades') ? 100 : 1,
    separateAll: architectures.includes('all') && !words(field(stanza, 'No-Support-for-Architecture-all')).includes('Packages'),
    files: filesOf(required(stanza, 'SHA256', source), source),
  }
}

/** Refuses a Release that is not the one asked for, or not of this time. All that is wrong is said at once. */
export function checkRelease(
  release: Release,
  repository: Repository,
  options: { now: Date; allowExpired: boolean },
  source: string,
): void {
  const { suite, architecture } = repository
  const wrong: string[] = []
  if (!isFlat(repository) && release.codename !== suite && release.suite !== suite)
    wrong.push(`expected suite ${suite}, got codename "${release.codename}", suite "${release.suite}"`)
  if (release.date.getTime() > options.now.getTime() + CLOCK_TOLERANCE_MS)
    wrong.push(`it is dated ${stamp(release.date)}, in the future of this machine's ${stamp(options.now)}`)
  if (!options.allowExpired && release.validUntil && release.validUntil < options.now)
    wrong.push(`it was valid until ${stamp(release.validUntil)}, now is ${stamp(options.now)}`)
  if (release.architectures.length > 0 && !release.architectures.includes(architecture))
    wrong.push(`it does not offer architecture ${architecture}, only ${release.architectures.join(' ')}`)
  const absent = repository.components.filter((component) => !offers(release, component))
  if (absent.length > 0) wrong.push(`it does not offer component ${absent.join(', ')}, only ${release.components.join(' ')}`)
  if (wrong.length === 0) return
  // A clock that runs ahead is one way to get here; an archive that stands still is the usual one.
  const isExpiredOnly = wrong.length === 1 && wrong[0]!.startsWith('it was valid until')
  throw new Fault('integrity', `Cannot use ${source}: ${wrong.join('; ')}`, { hint: isExpiredOnly ? EXPIRED : MISMATCH })
}

const EXPIRED =
  'where the archive is known to stand still, accept it with allowExpired: true in recipe.ts, AllowExpired=yes in section [Bisque] of mkosi.local.conf, or --set AllowExpired=yes'
const MISMATCH = 'check the clock of this machine, the suite and components in the recipe, and the mirror'

/** Whether a repository has its packages in one folder, as apt's `/` at the end of a suite says. */
export const isFlat = ({ suite }: Pick<Repository, 'suite'>): boolean => suite.endsWith('/')

/** An index in the smallest form offered, and what it unpacks to. */
export interface PackagesIndex {
  path: string
  file: IndexFile
  unpacked: IndexFile | undefined
}

/** The indexes that hold the packages of a component for an architecture. */
export function packagesIndexes(release: Release, component: string, architecture: string, source: string): PackagesIndex[] {
  const name = `${component}/binary-${architecture}/Packages`
  const own = offered(release, name)
  if (!own) throw new Fault('missing', `Cannot use ${source}: it lists no ${name}.xz, .gz or plain`)
  const all = release.separateAll ? offered(release, `${component}/binary-all/Packages`) : undefined
  return all ? [own, all] : [own]
}

/** The index of a flat repository: packages of all architectures. */
export function flatIndex(release: Release, source: string): PackagesIndex {
  const found = offered(release, 'Packages') ?? offered(release, './Packages')
  if (!found) throw new Fault('missing', `Cannot use ${source}: it lists no Packages.xz, .gz or plain`)
  return found
}

function offered(release: Release, name: string): PackagesIndex | undefined {
  for (const suffix of ['.xz', '.gz', '']) {
    const file = release.files.get(name + suffix)
    if (file) return { path: name + suffix, file, unpacked: release.files.get(name) }
  }
  return undefined
}

/** The security archive calls its components `updates/main`, and their folders `main`. */
const offers = (release: Release, component: string) =>
  release.components.length === 0 || release.components.some((c) => c === component || c.endsWith(`/${component}`))

function filesOf(list: string, source: string): Map<string, IndexFile> {
  const files = new Map<string, IndexFile>()
  for (const line of list.split('\n')) {
    if (line.trim() === '') continue
    const match = /^\s*([0-9a-f]{64})\s+(\d{1,15})\s+(\S+)$/.exec(line)
    if (!match) throw new Fault('format', `Cannot read ${source}: expected "SHA-256 size path", got "${line.slice(0, 120)}"`)
    files.set(match[3]!, { sha256: match[1]!, sizeBytes: Number(match[2]) })
    if (files.size > MAX_FILES) throw new Fault('format', `Cannot read ${source}: more than ${MAX_FILES} files`)
  }
  return files
}

/** `Sat, 12 Sep 2026 07:55:41 UTC`; only UTC, as the archive writes it. */
function dateOf(text: string, name: string, source: string): Date {
  const shape = /^[A-Z][a-z]{2}, +\d{1,2} [A-Z][a-z]{2} \d{4} \d\d?:\d\d:\d\d (UTC|GMT|Z|\+0000)$/
  const ms = shape.test(text) ? Date.parse(text.replace(/(UTC|Z|\+0000)$/, 'GMT')) : Number.NaN
  if (Number.isNaN(ms)) throw new Fault('format', `Cannot read ${source}: ${name} "${text.slice(0, 60)}" is not a date in UTC`)
  return new Date(ms)
}

function required(stanza: Stanza, name: string, source: string): string {
  const value = field(stanza, name)
  if (value === undefined) throw new Fault('format', `Cannot read ${source}: it has no ${name} field`)
  return value
}

const words = (text: string | undefined) => (text ?? '').split(/\s+/).filter((word) => word !== '')
const stamp = (date: Date) => date.toISOString().replace('.000', '')
