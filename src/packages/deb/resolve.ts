/**
 * From requests in the words of apt and mkosi to the packages that meet them.
 *
 * A request is `name`, `name=version`, `name/suite`, a glob (`libtss2-*`), a regular expression (`^libtss2-` or
 * `/libtss2-/`), or `?essential`. Patterns ask for every package they match.
 */
import { Fault } from '../../base/fault.ts'
import type { Package } from '../package.ts'
import { type Link, type Need, solve } from '../resolve.ts'
import type { Alternatives } from './dependency.ts'
import type { Relationship } from './index.ts'
import { listed, newUniverse, type Offer, type Sentence, type Suite, titleOf, type Universe, VERBS } from './universe.ts'

export interface DebRequest {
  packages: readonly string[]
  /** Names that must not be installed. */
  exclude?: readonly string[]
  recommends: boolean
  architecture: string
  /** Ask for every essential package too. On unless set to false. */
  withEssential?: boolean
}

export interface ResolvedPackage extends Package {
  essential: boolean
  installedSizeBytes: number
  source: string
  /** What pulled it in: `requested`, `essential`, or `depends of dbus`. */
  why: string
  /** Names in the set that meet its Depends. */
  depends: readonly string[]
  /** Names in the set that meet its Pre-Depends: configured before it is unpacked. */
  preDepends: readonly string[]
}

/** The packages that meet a request, sorted by name. Throws a Fault that explains why when there are none. */
export function resolveDebian(suites: readonly Suite[], request: DebRequest): { packages: ResolvedPackage[] } {
  const universe = newUniverse(suites, request.architecture, request.recommends, new Set(request.exclude))
  const wanted = understood(universe, request)
  const answer = solve<Sentence>({ requests: wanted.map((w) => w.need), consequences: universe.consequences })
  if ('contradiction' in answer) throw explained(universe, answer.contradiction)
  const taken = answer.taken.map(universe.offer)
  const reasons = reasonsOf(universe, taken, wanted, request.recommends)
  const set = new Set(taken)
  const packages = taken.map((offer) => resolved(universe, offer, set, reasons.get(offer)!))
  return { packages: packages.sort((a, b) => (a.name < b.name ? -1 : 1)) }
}

interface Wanted {
  offer: Offer
  why: string
  need: Need<Sentence>
}

function understood(universe: Universe, request: DebRequest): Wanted[] {
  const problems: { why: string; hint?: string }[] = []
  const wanted = new Map<Offer, Wanted>()
  const want = (offer: Offer, why: string, sentence: string) => {
    if (!wanted.has(offer)) wanted.set(offer, { offer, why, need: { alternatives: [offer.variable], why: () => sentence } })
  }
  const essentials = () => {
    for (const offer of universe.essentials()) want(offer, 'essential', `${titleOf(offer)} is essential.`)
  }
  const excluded = new Set(request.exclude)
  const found: { text: string; offers: readonly Offer[]; release: string | undefined }[] = []
  for (const text of request.packages) {
    if (text === '?essential') continue
    const outcome = read(universe, text, request.architecture, excluded)
    if ('why' in outcome) problems.push(outcome)
    else found.push({ text, ...outcome })
  }
  if (problems.length > 0) {
    const hints = problems.flatMap((p) => p.hint ?? [])
    throw new Fault(
      'resolve',
      `Cannot resolve packages: ${problems.map((p) => p.why).join('; ')}`,
      hints.length > 0 ? { hint: hints.join('; ') } : {},
    )
  }
  for (const { offers, release } of found) for (const offer of offers) if (release !== undefined) universe.choose(offer)
  for (const { offers, release } of found) {
    if (release?.startsWith('/')) for (const offer of offers) follow(universe, offer, release.slice(1), request.recommends)
  }
  if (request.withEssential !== false || request.packages.includes('?essential')) essentials()
  for (const { text, offers } of found) {
    for (const offer of offers)
      want(
        offer,
        'requested',
        text === offer.package.name ? `You asked for ${text}.` : `You asked for ${text}: ${titleOf(offer)}.`,
      )
  }
  return [...wanted.values()]
}

type Outcome = { offers: readonly Offer[]; release: string | undefined } | { why: string; hint?: string }

/** The versions a request names. `release` is set when it names one other than the candidate: `/suite` or `=version`. */
function read(universe: Universe, text: string, architecture: string, excluded: ReadonlySet<string>): Outcome {
  const pattern = patternOf(text)
  if (pattern) {
    if ('why' in pattern) return pattern
    const offers = universe
      .names()
      .filter((name) => pattern.test(name))
      .sort()
      .flatMap((name) => universe.allowed(name).slice(0, 1))
    return offers.length > 0 ? { offers, release: undefined } : { why: `no package matches ${text}` }
  }
  const parts = /^([A-Za-z0-9][A-Za-z0-9+._-]*)(?::([a-z0-9-]+))?(?:([=/])(.+))?$/.exec(text)
  if (!parts) return { why: `${JSON.stringify(text)} is not a package name, name=version, name/suite or pattern` }
  const [, name, qualifier, kind, release] = parts as unknown as [string, string, string?, ('=' | '/')?, string?]
  const offers = universe.offers(name)
  if (qualifier !== undefined && ![architecture, 'any', 'all'].includes(qualifier))
    return { why: `${text} is not of architecture ${architecture}` }
  if (excluded.has(name)) return { why: `${name} is both asked for and excluded` }
  if (offers.length === 0) return unknown(universe, name)
  if (kind === undefined) {
    const [offer] = universe.allowed(name)
    if (offer) return { offers: [offer], release: undefined }
    return {
      why: `${name} is only offered with a priority below 1 (${listed(
        offers.map((o) => o.repository),
        'and',
      )})`,
    }
  }
  const fits = (o: Offer) => (kind === '/' ? o.releases.includes(release!) : matchesVersion(o.package.version, release!))
  const fitting = offers.filter(fits)
  if (fitting.length > 0) return { offers: fitting.slice(0, 1), release: `${kind}${release}` }
  return {
    why: `${text} is not offered, only ${listed(
      offers.map((o) => `${o.package.version} (${o.repository})`),
      'and',
    )}`,
    hint: `Ask for ${name}=${offers[0]!.package.version}`,
  }
}

const matchesVersion = (version: string, wanted: string) =>
  wanted.endsWith('*') ? version.startsWith(wanted.slice(0, -1)) : version === wanted

function patternOf(text: string): RegExp | { why: string } | undefined {
  const between = /^\/(.+)\/$/.exec(text)?.[1]
  const expression = between ?? (text.startsWith('^') || text.endsWith('$') ? text : undefined)
  const glob = /^[A-Za-z0-9+._*?[\]!-]+$/.test(text) && /[*?[]/.test(text)
  if (expression === undefined && !glob) return undefined
  try {
    return new RegExp(
      expression ?? `^${text.replace(/[.+]/g, '\\$&').replace(/\*/g, '.*').replace(/\?/g, '.').replace(/\[!/g, '[^')}$`,
    )
  } catch (error) {
    return { why: `${text} is not a pattern: ${(error as Error).message}` }
  }
}

/** A name that no repository has as a package of its own. A virtual one stands for its provider when it has but one, as in apt. */
function unknown(universe: Universe, name: string): Outcome {
  const providers = universe.providers(name)
  if (providers.length === 1) return { offers: providers, release: undefined }
  if (providers.length > 1) {
    const names = providers.map((o) => o.package.name).sort()
    return {
      why: `${name} is virtual, provided by ${listed(names.slice(0, 10), 'and')}`,
      hint: `Ask for one of them, e.g. ${names[0]}`,
    }
  }
  const near = nearest(name, universe.names())
  const question = near.length > 0 ? ` (did you mean ${listed(near, 'or')}?)` : ''
  return { why: `there is no package ${name}${question}` }
}

/** As apt does for `name/suite`: what the chosen version needs comes from the same suite where the candidate would not do. */
function follow(universe: Universe, from: Offer, release: string, recommends: boolean): void {
  const fields: Relationship[] = recommends ? ['preDepends', 'depends', 'recommends'] : ['preDepends', 'depends']
  const queue = [from]
  const seen = new Set(queue)
  for (const offer of queue) {
    for (const alternatives of fields.flatMap((field) => universe.relations(offer, field))) {
      const met = alternatives.flatMap((r) => universe.satisfiers(r))
      for (const other of met) {
        // What only this suite has is there already; what it needs may not be.
        if (!other.releases.includes(release) || seen.has(other)) continue
        seen.add(other)
        queue.push(other)
      }
      if (met.length > 0) continue
      for (const relation of alternatives) {
        const other = universe.offers(relation.name).find((o) => o.releases.includes(release))
        if (!other || seen.has(other)) continue
        seen.add(other)
        const before = universe.allowed(relation.name)
        universe.choose(other)
        if (before.length === 1 && !universe.satisfiers(relation).includes(other)) continue
        queue.push(other)
        break
      }
    }
  }
}

/** For each package, the first thing that wanted it. */
function reasonsOf(
  universe: Universe,
  taken: readonly Offer[],
  wanted: readonly Wanted[],
  recommends: boolean,
): Map<Offer, string> {
  const reasons = new Map(wanted.map((w) => [w.offer, w.why]))
  const fields: Relationship[] = recommends ? ['preDepends', 'depends', 'recommends'] : ['preDepends', 'depends']
  const set = new Set(taken)
  for (const field of fields) {
    for (const offer of taken) {
      for (const alternatives of universe.relations(offer, field)) {
        const met = meeting(universe, alternatives, set)
        if (met && !reasons.has(met)) reasons.set(met, `${offer.package.name} ${VERBS[field]} it`)
      }
    }
  }
  return reasons
}

/** The package of the set through which a need is met: the first, in order of preference. */
function meeting(universe: Universe, alternatives: Alternatives, set: ReadonlySet<Offer>): Offer | undefined {
  for (const relation of alternatives) for (const offer of universe.satisfiers(relation)) if (set.has(offer)) return offer
  return undefined
}

function resolved(universe: Universe, offer: Offer, set: ReadonlySet<Offer>, why: string): ResolvedPackage {
  const p = offer.package
  const names = (field: Relationship) => {
    const met = universe
      .relations(offer, field)
      .flatMap((alternatives) => meeting(universe, alternatives, set)?.package.name ?? [])
    return [...new Set(met)].filter((name) => name !== p.name).sort()
  }
  return {
    name: p.name,
    version: p.version,
    architecture: p.architecture,
    repository: offer.repository,
    filename: p.filename,
    sizeBytes: p.sizeBytes,
    sha256: p.sha256,
    essential: p.essential,
    installedSizeBytes: p.installedSizeBytes,
    source: p.source,
    why,
    depends: names('depends'),
    preDepends: names('preDepends'),
  }
}

function explained(universe: Universe, links: readonly Link<Sentence>[]): Fault {
  const asked = links.filter((l) => l.owner === undefined).flatMap((l) => l.alternatives.map((v) => universe.offer(v)))
  const names = asked.map((o) => o.package.name)
  const end =
    names.length > 1 ? `So ${listed(names, 'and')} cannot be installed together.` : `So ${names[0]} cannot be installed.`
  const sentences = [...new Set(links.map((l) => l.why()))]
  return new Fault('resolve', `Cannot resolve ${listed(names, 'and')}: ${sentences.join(' ')} ${end}`)
}

/** At most three names that differ little from a mistyped one. */
function nearest(name: string, names: readonly string[]): string[] {
  const limit = Math.max(1, Math.min(3, Math.floor(name.length / 3)))
  return names
    .map((other) => ({ other, far: distance(name, other, limit) }))
    .filter(({ far }) => far <= limit)
    .sort((a, b) => a.far - b.far || (a.other < b.other ? -1 : 1))
    .slice(0, 3)
    .map(({ other }) => other)
}

/** Levenshtein's distance, or more than `limit` as soon as it is known to be. */
function distance(a: string, b: string, limit: number): number {
  if (Math.abs(a.length - b.length) > limit) return limit + 1
  let row = Array.from({ length: b.length + 1 }, (_, i) => i)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      next.push(Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)))
    }
    if (Math.min(...next) > limit) return limit + 1
    row = next
  }
  return row[b.length]!
}
