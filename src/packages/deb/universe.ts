/**
 * The universe of a resolution: Debian's rules, turned into needs and conflicts as far as the solver asks for them.
 *
 * Spec: Debian Policy §7, apt_preferences(5), multiarch of deb-control(5). One architecture; `all` counts as native.
 * Which version of a package may be taken, and which provider of a virtual package is preferred, follows apt: only the
 * candidate, unless a request names another; real packages before providers, then essential and important ones, then by
 * priority, then the one the archive mentions last.
 */
import type { Consequences, Need, Variable } from '../resolve.ts'
import { type Alternatives, formatAlternatives, formatRelation, parseRelations, type Relation } from './dependency.ts'
import { type DebPackage, type PackageIndex, PRIORITIES, type Relationship } from './index.ts'
import { compareVersions, satisfies } from './version.ts'

/** One suite: an index and what decides between it and others. */
export interface Suite {
  repository: { id: string; priority: number; suite: string }
  index: PackageIndex
  /** What preferences say of a version of a package, where they say anything. */
  priorityOf?: (p: { name: string; version: string }) => number | undefined
}

/** A version of a package, with the repositories that offer it, best first. */
export interface Offer {
  variable: Variable
  package: DebPackage
  /** `Repository.id` of the one to fetch it from. */
  repository: string
  /** Ids and suites of all that offer it. */
  releases: readonly string[]
  priority: number
}

/** A sentence of an explanation, made only when it is needed. */
export type Sentence = () => string

export interface Universe {
  /** Every version of a package for this architecture, the candidate first; what is excluded too. */
  offers(name: string): readonly Offer[]
  /** The versions of a package that may be taken, best first: its candidate, or what requests chose instead. */
  allowed(name: string): readonly Offer[]
  /** Makes a version allowed in place of the candidate, or beside what was already chosen. */
  choose(offer: Offer): void
  /** What may be taken to meet a relation, in order of preference. */
  satisfiers(relation: Relation): readonly Offer[]
  /** Real packages that name this in their Provides. */
  providers(name: string): readonly Offer[]
  offer(variable: Variable): Offer
  consequences(variable: Variable): Consequences<Sentence>
  /** The alternatives of a field of a package. */
  relations(offer: Offer, field: Relationship): readonly Alternatives[]
  names(): string[]
  /** For each essential package, the versions that may be taken. */
  essentials(): (readonly Offer[])[]
}

export interface Rules {
  architecture: string
  recommends: boolean
  exclude?: readonly string[]
  prefer?: ReadonlyMap<string, string>
}

export function newUniverse(suites: readonly Suite[], { architecture, recommends, exclude = [], prefer }: Rules): Universe {
  const excluded = new Set(exclude)
  const byVariable: Offer[] = []
  const byName = new Map<string, readonly Offer[]>()
  const chosen = new Map<string, Offer[]>()
  const met = new Map<string, readonly Offer[]>()
  const metBy = new Map<Relation, readonly Offer[]>()
  const provides = new Map<Offer, Map<string, Relation[]>>()
  const parsed = new Map<string, readonly Alternatives[]>()

  function offers(name: string): readonly Offer[] {
    const known = byName.get(name)
    if (known) return known
    const found: Offer[] = []
    for (const { repository, index, priorityOf } of suites) {
      for (const i of index.versions(name)) {
        const pkg = index.record(i)
        const priority = priorityOf?.(pkg) ?? repository.priority
        if (pkg.architecture !== architecture && pkg.architecture !== 'all') continue
        const same = found.find((o) => o.package.version === pkg.version && o.package.architecture === pkg.architecture)
        const releases = [repository.id, repository.suite]
        if (same && same.priority >= priority) same.releases = [...same.releases, ...releases]
        else if (same) {
          Object.assign(same, { package: pkg, repository: repository.id, priority })
          same.releases = [...releases, ...same.releases]
        } else found.push({ variable: -1, package: pkg, repository: repository.id, releases, priority })
      }
    }
    found.sort((a, b) => b.priority - a.priority || compareVersions(b.package.version, a.package.version))
    for (const offer of found) offer.variable = byVariable.push(offer) - 1
    byName.set(name, found)
    return found
  }

  function allowed(name: string): readonly Offer[] {
    if (excluded.has(name)) return []
    const picked = chosen.get(name)
    if (picked) return picked
    const [candidate] = offers(name)
    if (!candidate || candidate.priority <= 0) return []
    const kept = offers(name).find((o) => o.package.version === prefer?.get(name))
    return kept && kept !== candidate ? [kept, candidate] : [candidate]
  }

  function choose(offer: Offer): void {
    const { name } = offer.package
    const before = chosen.get(name) ?? []
    if (!before.includes(offer)) chosen.set(name, [...before, offer])
    met.clear()
    metBy.clear()
  }

  function relations(offer: Offer, field: Relationship): readonly Alternatives[] {
    const text = offer.package[field]
    if (text === '') return NONE
    const known = parsed.get(text)
    if (known) return known
    const lists = parseRelations(text, `${fieldName(field)} of ${titleOf(offer)}`)
    parsed.set(text, lists)
    return lists
  }

  function providers(name: string): readonly Offer[] {
    const names = new Set(suites.flatMap(({ index }) => index.providers(name).map((i) => index.record(i).name)))
    return [...names].flatMap(allowed).filter((offer) => provided(offer, name).length > 0)
  }

  /** How a package provides a name, in the words of its Provides. */
  function provided(offer: Offer, name: string): readonly Relation[] {
    let names = provides.get(offer)
    if (!names) {
      names = Map.groupBy(relations(offer, 'provides').flat(), (r) => r.name)
      provides.set(offer, names)
    }
    return names.get(name) ?? []
  }

  function satisfiers(relation: Relation): readonly Offer[] {
    const known = metBy.get(relation)
    if (known) return known
    const key = formatRelation(relation)
    let found = met.get(key)
    if (!found) {
      found = matches(relation).filter((offer) => suits(offer, relation.qualifier))
      met.set(key, found)
    }
    metBy.set(relation, found)
    return found
  }

  function suits(offer: Offer, qualifier: string | undefined): boolean {
    if (qualifier === undefined || qualifier === architecture) return true
    return qualifier === 'any' && offer.package.multiArch === 'allowed'
  }

  /** Everything that is or provides what a relation names, real packages first, then providers as apt prefers them. */
  function matches({ name, operator, version }: Relation): Offer[] {
    const has = (v: string | undefined) => operator === undefined || (v !== undefined && satisfies(v, operator, version!))
    const real = allowed(name).filter((offer) => has(offer.package.version))
    const others = providers(name).filter((offer) => !real.includes(offer) && provided(offer, name).some((r) => has(r.version)))
    if (others.length < 2) return [...real, ...others]
    const weighed = others.map((offer) => ({ offer, weight: weightOf(offer.package), mention: mentionOf(offer.package.name) }))
    weighed.sort(
      (a, b) =>
        Number(b.offer.package.name === name) - Number(a.offer.package.name === name) ||
        a.weight - b.weight ||
        b.mention - a.mention,
    )
    return [...real, ...weighed.map((w) => w.offer)]
  }

  function mentionOf(name: string): number {
    for (const [i, { index }] of suites.entries()) {
      const at = index.mention(name)
      if (at >= 0) return i * 2 ** 32 + at
    }
    return -1
  }

  function needOf(offer: Offer, field: Relationship, alternatives: Alternatives): Need<Sentence> {
    const found = new Set<Variable>()
    for (const relation of alternatives) for (const { variable } of satisfiers(relation)) found.add(variable)
    const why = () => needSentence(universe, offer, field, alternatives, excluded)
    return field === 'recommends' ? { alternatives: [...found], soft: true, why } : { alternatives: [...found], why }
  }

  function consequences(variable: Variable): Consequences<Sentence> {
    const offer = byVariable[variable]!
    const fields: Relationship[] = recommends ? ['preDepends', 'depends', 'recommends'] : ['preDepends', 'depends']
    const needs = fields.flatMap((field) => relations(offer, field).map((alternatives) => needOf(offer, field, alternatives)))
    const conflicts = (['conflicts', 'breaks'] as const).flatMap((field) =>
      relations(offer, field)
        .flat()
        .flatMap((relation) =>
          matches(relation)
            .filter((other) => other.package.name !== offer.package.name)
            .map((other) => ({ others: [other.variable], why: () => conflictSentence(offer, field, relation, other) })),
        ),
    )
    for (const other of allowed(offer.package.name)) {
      if (other !== offer)
        conflicts.push({
          others: [other.variable],
          why: () => `${titleOf(offer)} and ${titleOf(other)} cannot both be installed.`,
        })
    }
    return { needs, conflicts }
  }

  const universe: Universe = {
    offers,
    allowed,
    choose,
    satisfiers,
    providers,
    offer: (variable) => byVariable[variable]!,
    consequences,
    relations,
    names: () => [...new Set(suites.flatMap(({ index }) => index.names()))],
    essentials() {
      const names = new Set(suites.flatMap(({ index }) => index.essentials().map((i) => index.record(i).name)))
      return [...names].map(allowed).filter((offers) => offers[0]?.package.essential)
    },
  }
  return universe
}

const NONE: readonly Alternatives[] = []

export const titleOf = (offer: Offer): string => `${offer.package.name} ${offer.package.version}`

/** Smaller is preferred: essential, then important, then by priority. */
const weightOf = (p: DebPackage) =>
  (p.essential ? 0 : 100) + (p.essential || p.important ? 0 : 10) + PRIORITIES.indexOf(p.priority)

const FIELD_NAMES: Partial<Record<Relationship, string>> = { preDepends: 'Pre-Depends' }
const fieldName = (field: Relationship) => FIELD_NAMES[field] ?? field[0]!.toUpperCase() + field.slice(1)

/** What holds between a package and what it needs, in words. */
export const VERBS: Readonly<Record<Relationship, string>> = {
  preDepends: 'pre-depends on',
  depends: 'depends on',
  recommends: 'recommends',
  suggests: 'suggests',
  conflicts: 'conflicts with',
  breaks: 'breaks',
  replaces: 'replaces',
  provides: 'provides',
}

function needSentence(
  universe: Universe,
  offer: Offer,
  field: Relationship,
  alternatives: Alternatives,
  excluded: ReadonlySet<string>,
): string {
  const start = `${titleOf(offer)} ${VERBS[field]} ${formatAlternatives(alternatives)}`
  const found = alternatives.flatMap((r) => universe.satisfiers(r).map((o) => ({ o, r })))
  if (found.length === 0) return `${start}, but ${alternatives.map((r) => lackOf(universe, r, excluded)).join(' and ')}.`
  const virtual = found.filter(({ o, r }) => o.package.name !== r.name).map(({ o }) => titleOf(o))
  if (virtual.length === 0) return `${start}.`
  return `${start}, which ${listed([...new Set(virtual)], 'or')} provides.`
}

/** Why nothing meets a relation. */
function lackOf(universe: Universe, relation: Relation, excluded: ReadonlySet<string>): string {
  const { name, qualifier } = relation
  if (excluded.has(name)) return `${name} is excluded`
  const offers = universe.offers(name)
  const fitting = offers.filter(
    (o) => relation.operator === undefined || satisfies(o.package.version, relation.operator, relation.version!),
  )
  const [taken] = universe.allowed(name)
  if (fitting.length > 0 && taken && !fitting.includes(taken)) {
    return `${titleOf(fitting[0]!)} of ${fitting[0]!.repository} yields to ${titleOf(taken)} of ${taken.repository}`
  }
  if (fitting.length > 0 && qualifier !== undefined) return `no ${name} serves as ${formatRelation({ name, qualifier })}`
  if (fitting.length > 0) return `${titleOf(fitting[0]!)} of ${fitting[0]!.repository} has a priority below 1`
  if (offers.length > 0)
    return `only ${listed(
      offers.map((o) => `${titleOf(o)} is offered (${o.repository})`),
      'and',
    )}`
  const providers = universe.providers(name)
  if (providers.length === 0) return `nothing offers ${name}`
  return `${listed(providers.slice(0, 5).map(titleOf), 'and')} provides ${name} without such a version`
}

function conflictSentence(offer: Offer, field: 'conflicts' | 'breaks', relation: Relation, other: Offer): string {
  const start = `${titleOf(offer)} ${VERBS[field]} ${formatRelation(relation)}`
  if (other.package.name !== relation.name) return `${start}, which ${titleOf(other)} provides.`
  return relation.operator === undefined
    ? `${start}.`
    : `${start}, and ${other.package.name} is ${other.package.version} (${other.repository}).`
}

export function listed(items: readonly string[], word: 'and' | 'or'): string {
  if (items.length < 2) return items.join('')
  return `${items.slice(0, -1).join(', ')} ${word} ${items.at(-1)}`
}
