/**
 * apt's lists of sources: what `/etc/apt/sources.list` and the files beside it say about repositories.
 *
 * Spec:   sources.list(5)
 * Oracle: `apt-get indextargets`
 * Limits: binary packages only (`deb`); options that change what is fetched but not which packages there are have no effect.
 *
 * Everything a file says is either used, said to be without effect, or refused: a source that is not trusted by a key is.
 */
import { Fault } from '../../base/fault.ts'
import { field, parseStanzas } from '../../formats/deb822.ts'

/** One repository as a list of sources names it. */
export interface Source {
  /** Without a trailing slash. */
  url: string
  /** A suite below `dists/`; a path that ends in `/` is a flat repository. */
  suite: string
  components: readonly string[]
  /** Where none are named, any. */
  architectures: readonly string[]
  /** Absolute paths of keyrings, or one armored certificate; undefined where the list leaves it to apt's own keyrings. */
  signedBy: readonly string[] | { certificate: string } | undefined
  checkValidUntil: boolean
  /** `FILE:LINE` or `FILE: stanza N`. */
  where: string
}

export interface Sources {
  sources: Source[]
  /** What is said but has no effect. */
  notes: string[]
}

/** Parses one file by its name: `.sources` in deb822 form, anything else one source a line. Every problem is reported at once. */
export function parseSources(text: string, path: string): Sources {
  const found: Sources = { sources: [], notes: [] }
  const problems: string[] = []
  const read = path.endsWith('.sources') ? readStanzas : readLines
  read(text, path, found, problems)
  if (problems.length === 0) return found
  throw new Fault('recipe', `Cannot read ${path}: ${problems.join('; ')}`)
}

const MAX_SOURCES = 1000

/** What is known of a source in either form: options by their deb822 names in lower case. */
interface Draft {
  types: readonly string[]
  uris: readonly string[]
  suites: readonly string[]
  components: readonly string[]
  options: ReadonlyMap<string, string>
  where: string
}

function readStanzas(text: string, path: string, found: Sources, problems: string[]): void {
  const uncommented = text.replace(/^#.*(\n|$)/gm, '')
  for (const [i, stanza] of parseStanzas(uncommented, path).entries()) {
    const where = `${path}: stanza ${i + 1}`
    if (isNo(field(stanza, 'Enabled'))) continue
    const list = (name: string) => words(field(stanza, name))
    const options = new Map([...stanza].map(([name, value]) => [name.toLowerCase(), value]))
    for (const name of STRUCTURE) options.delete(name.toLowerCase())
    const missing = ['Types', 'URIs', 'Suites'].filter((name) => list(name).length === 0)
    if (missing.length > 0) problems.push(`${where} has no ${missing.join(', ')}`)
    else
      addSources(
        { types: list('Types'), uris: list('URIs'), suites: list('Suites'), components: list('Components'), options, where },
        found,
        problems,
      )
  }
}
const STRUCTURE = ['Types', 'URIs', 'Suites', 'Components', 'Enabled']

/** `deb [ option=value option+=value ] uri suite [component…]` */
function readLines(text: string, path: string, found: Sources, problems: string[]): void {
  for (const [i, raw] of text.split('\n').entries()) {
    const line = raw.replace(/#.*/, '').trim()
    if (line === '') continue
    const where = `${path}:${i + 1}`
    const parts = /^(\S+)\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)((?:\s+\S+)*)$/.exec(line)
    if (!parts) {
      problems.push(`${where}: expected "deb URI SUITE COMPONENT…", got ${JSON.stringify(line.slice(0, 120))}`)
      continue
    }
    const [, type, written, uri, suite, components] = parts as unknown as [
      string,
      string,
      string | undefined,
      string,
      string,
      string,
    ]
    const options = new Map<string, string>()
    for (const option of words(written)) {
      const [, name, value] = /^([A-Za-z-]+)[+-]?=(.*)$/.exec(option) ?? []
      if (name === undefined) problems.push(`${where}: ${JSON.stringify(option)} is no option`)
      else options.set(LONG_NAMES[name.toLowerCase()] ?? name.toLowerCase(), value!.replaceAll(',', ' '))
    }
    addSources({ types: [type], uris: [uri], suites: [suite], components: words(components), options, where }, found, problems)
  }
}
const LONG_NAMES: Readonly<Record<string, string>> = { arch: 'architectures', lang: 'languages', target: 'targets' }

function addSources(draft: Draft, found: Sources, problems: string[]): void {
  const { where, options } = draft
  const unknownType = draft.types.find((type) => type !== 'deb' && type !== 'deb-src')
  if (unknownType !== undefined) problems.push(`${where}: type ${JSON.stringify(unknownType)} is neither deb nor deb-src`)
  if (!draft.types.includes('deb')) return
  for (const name of ['trusted', 'allow-insecure', 'allow-weak', 'allow-downgrade-to-insecure']) {
    if (options.has(name) && !isNo(options.get(name)))
      problems.push(`${where}: ${name} is not possible, because nothing is used that no key signed; name the key with Signed-By`)
  }
  const idle = [...options.keys()].filter((name) => !USED.has(name) && !name.startsWith('x-'))
  if (idle.length > 0) found.notes.push(`${where}: ${idle.join(', ')} without effect`)
  for (const uri of draft.uris) {
    for (const suite of draft.suites) {
      const problem = problemOf(uri, suite, draft.components)
      if (problem !== undefined) problems.push(`${where}: ${problem}`)
      else found.sources.push(sourceOf(draft, uri, suite))
    }
  }
  if (found.sources.length > MAX_SOURCES) throw new Fault('recipe', `Cannot read ${where}: more than ${MAX_SOURCES} sources`)
}
const USED = new Set([
  'signed-by',
  'architectures',
  'check-valid-until',
  'trusted',
  'allow-insecure',
  'allow-weak',
  'allow-downgrade-to-insecure',
  'description',
])

function problemOf(uri: string, suite: string, components: readonly string[]): string | undefined {
  if (!/^https?:\/\/[^\s/]/.test(uri)) return `${JSON.stringify(uri)} is no http:// or https:// URI`
  if (suite.split('/').includes('..') || !/^[A-Za-z0-9./_-]{1,200}$/.test(suite)) return `${JSON.stringify(suite)} is no suite`
  if (components.some((c) => c.split('/').includes('..') || !/^[A-Za-z0-9][A-Za-z0-9./_-]{0,99}$/.test(c)))
    return `${JSON.stringify(components.join(' '))} are no components`
  if (suite.endsWith('/')) return components.length > 0 ? `flat repository ${suite} has no components` : undefined
  return components.length === 0 ? `suite ${suite} needs a component such as main` : undefined
}

function sourceOf({ components, options, where }: Draft, uri: string, suite: string): Source {
  const written = options.get('signed-by')?.trim()
  const isCertificate = written?.includes('-----BEGIN PGP PUBLIC KEY BLOCK-----')
  return {
    url: uri.replace(/\/+$/, ''),
    suite: suite.endsWith('/') ? flatPath(suite) : suite,
    components,
    architectures: words(options.get('architectures')),
    signedBy:
      written === undefined || written === '' ? undefined : isCertificate ? { certificate: unescaped(written) } : words(written),
    checkValidUntil: !isNo(options.get('check-valid-until')),
    where,
  }
}

/** `./` and `/` are the same flat place. */
const flatPath = (suite: string) =>
  `${suite
    .split('/')
    .filter((part) => part !== '' && part !== '.')
    .join('/')}/`

/** In deb822 a blank line of a value is written as a dot. */
const unescaped = (text: string) => `${text.replace(/^[ \t]*\.[ \t]*$/gm, '').replace(/^[ \t]+/gm, '')}\n`

const words = (text: string | undefined): string[] => (text ?? '').split(/\s+/).filter((word) => word !== '')
const isNo = (value: string | undefined) => value !== undefined && /^(no|false|without|off|disable|0)$/i.test(value.trim())
