/**
 * Requests for packages, in the words of apt and mkosi.
 *
 * A request is `name`, `name=version`, `name/suite`, a glob (`libtss2-*`), a regular expression (`^libtss2-` or
 * `/libtss2-/`), or `?essential`. Patterns ask for every package they match.
 */
import { Fault } from '../../base/fault.ts'
import { nearest } from '../../base/nearest.ts'
import type { Package } from '../package.ts'
import type { Request } from '../resolve.ts'
import type { Relationship } from './index.ts'
import { listed, type Offer, type Sentence, titleOf, type Universe } from './universe.ts'

export interface DebRequest {
  packages: readonly string[]
  /** Asked for once these are there with all they need. */
  later?: readonly string[]
  /** Names that must not be installed. */
  exclude?: readonly string[]
  recommends: boolean
  architecture: string
  /** Packages that are there already and stay as they are. */
  installed?: readonly Pick<Package, 'name' | 'version' | 'architecture'>[]
  /** Take every essential package with all it needs first. On unless set to false. */
  withEssential?: boolean
  /** Versions to stay at, by name, as long as they are offered and nothing asked for needs another. */
  prefer?: ReadonlyMap<string, string>
}

/** A request as the solver takes it. */
export interface Wanted {
  offers: readonly Offer[]
  why: 'installed' | 'essential' | 'requested'
  need: Request<Sentence>
}

/** What a request asks for: names, any allowed version of each, or one version, from a suite when it names that. */
type Reading = { names: readonly string[] } | { offer: Offer; suite?: string }
type Problem = { why: string; hint?: string }

/** Reads all requests, and makes the versions they name the ones to take. Everything wrong with them is reported at once. */
export function readRequests(universe: Universe, request: DebRequest): Wanted[] {
  const readings: (Reading & { text: string; stage: number })[] = []
  const problems: Problem[] = []
  const installed = (request.installed ?? []).map((p) => installedOffer(universe, p))
  for (const offer of installed) universe.choose(offer)
  for (const [stage, texts] of [request.packages, request.later ?? []].entries()) {
    for (const text of texts) {
      if (text === '?essential') continue
      const reading = read(universe, text, request)
      if ('why' in reading) problems.push(reading)
      else readings.push({ text, stage: stage + 1, ...reading })
    }
  }
  if (problems.length > 0) throw refusal(problems)
  for (const reading of readings) if ('offer' in reading) universe.choose(reading.offer)
  for (const reading of readings)
    if ('suite' in reading && reading.suite !== undefined) follow(universe, reading.offer, reading.suite, request.recommends)

  const wanted = new Map<string, Wanted>()
  const want = (offers: readonly Offer[], why: Wanted['why'], sentence: string, stage = 0) => {
    const key = offers.map((o) => o.variable).join()
    if (!wanted.has(key))
      wanted.set(key, { offers, why, need: { alternatives: offers.map((o) => o.variable), stage, why: () => sentence } })
  }
  for (const offer of installed) want([offer], 'installed', `${titleOf(offer)} is there already.`)
  if (request.withEssential !== false || request.packages.includes('?essential')) {
    for (const offers of universe.essentials()) want(offers, 'essential', `${titleOf(offers[0]!)} is essential.`)
  }
  for (const reading of readings) {
    const { text, stage } = reading
    if ('offer' in reading) want([reading.offer], 'requested', `You asked for ${text}: ${titleOf(reading.offer)}.`, stage)
    else
      for (const name of reading.names)
        want(universe.allowed(name), 'requested', `You asked for ${text === name ? text : `${text}: ${name}`}.`, stage)
  }
  return [...wanted.values()]
}

function installedOffer(
  universe: Universe,
  { name, version, architecture }: Pick<Package, 'name' | 'version' | 'architecture'>,
): Offer {
  const offer = universe.offers(name).find((o) => o.package.version === version && o.package.architecture === architecture)
  if (offer) return offer
  throw new Fault(
    'resolve',
    `Cannot resolve packages: ${name} ${version} ${architecture}, which is there already, is not offered`,
  )
}

function refusal(problems: readonly Problem[]): Fault {
  const hints = problems.flatMap((p) => p.hint ?? [])
  const message = `Cannot resolve packages: ${problems.map((p) => p.why).join('; ')}`
  return new Fault('resolve', message, hints.length > 0 ? { hint: hints.join('; ') } : {})
}

function read(universe: Universe, text: string, { architecture, exclude = [] }: DebRequest): Reading | Problem {
  const pattern = patternOf(text)
  if (pattern) {
    if ('why' in pattern) return pattern
    const names = universe.names().filter((name) => pattern.test(name) && universe.allowed(name).length > 0)
    return names.length > 0 ? { names: names.sort() } : { why: `no package matches ${text}` }
  }
  const parts = /^([A-Za-z0-9][A-Za-z0-9+._-]*)(?::([a-z0-9-]+))?(?:([=/])(.+))?$/.exec(text)
  if (!parts) return { why: `${JSON.stringify(text)} is not a package name, name=version, name/suite or pattern` }
  const [, name, qualifier, kind, release] = parts as unknown as [string, string, string?, ('=' | '/')?, string?]
  if (qualifier !== undefined && ![architecture, 'any', 'all'].includes(qualifier))
    return { why: `${text} is not of architecture ${architecture}` }
  if (exclude.includes(name)) return { why: `${name} is both asked for and excluded` }
  const offers = universe.offers(name)
  if (offers.length === 0) return virtualOrUnknown(universe, name)
  const places = (say: (o: Offer) => string) => listed(offers.map(say), 'and')
  if (kind === undefined) {
    if (universe.allowed(name).length > 0) return { names: [name] }
    return { why: `${name} is only offered with a priority below 1 (${places((o) => o.repository)})` }
  }
  const fits = (o: Offer) => (kind === '/' ? o.releases.includes(release!) : matchesVersion(o.package.version, release!))
  const offer = offers.find(fits)
  if (offer) return kind === '/' ? { offer, suite: release! } : { offer }
  const why = `${text} is not offered, only ${places((o) => `${o.package.version} (${o.repository})`)}`
  return { why, hint: `Ask for ${name}=${offers[0]!.package.version}` }
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
function virtualOrUnknown(universe: Universe, name: string): Reading | Problem {
  const providers = [...new Set(universe.providers(name).map((o) => o.package.name))].sort()
  if (providers.length === 1) return { names: providers }
  if (providers.length > 1) {
    return {
      why: `${name} is virtual, provided by ${listed(providers.slice(0, 10), 'and')}`,
      hint: `Ask for one of them, e.g. ${providers[0]}`,
    }
  }
  const near = nearest(name, universe.names())
  return { why: `there is no package ${name}${near === undefined ? '' : ` (did you mean ${near}?)`}` }
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
