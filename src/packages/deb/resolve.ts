/** From requests to the packages that meet them, chosen as apt would choose; or to an explanation of why there are none. */
import { Fault } from '../../base/fault.ts'
import type { Package } from '../package.ts'
import { type Link, solve } from '../resolve.ts'
import type { Alternatives } from './dependency.ts'
import type { Relationship } from './index.ts'
import { type DebRequest, readRequests, type Wanted } from './request.ts'
import { listed, newUniverse, type Offer, type Sentence, type Suite, type Universe, VERBS } from './universe.ts'

export interface ResolvedPackage extends Package {
  essential: boolean
  installedSizeBytes: number
  source: string
  /** What pulled it in: `requested`, `essential`, or `dbus depends on it`. */
  why: string
  /** Names in the set that meet its Depends. */
  depends: readonly string[]
  /** Names in the set that meet its Pre-Depends: configured before it is unpacked. */
  preDepends: readonly string[]
}

/** The packages that meet a request, sorted by name. Throws a Fault that explains why when there are none. */
export function resolveDebian(suites: readonly Suite[], request: DebRequest): { packages: ResolvedPackage[] } {
  const universe = newUniverse(suites, request)
  const wanted = readRequests(universe, request)
  const answer = solve<Sentence>({ requests: wanted.map((w) => w.need), consequences: universe.consequences })
  if ('contradiction' in answer) throw explained(universe, answer.contradiction)
  const taken = answer.taken.map(universe.offer)
  const reasons = reasonsOf(universe, taken, wanted, request.recommends)
  const set = new Set(taken)
  const packages = taken.map((offer) => resolved(universe, offer, set, reasons.get(offer)!))
  return { packages: packages.sort((a, b) => (a.name < b.name ? -1 : 1)) }
}

/** For each package, the first thing that wanted it. */
function reasonsOf(
  universe: Universe,
  taken: readonly Offer[],
  wanted: readonly Wanted[],
  recommends: boolean,
): Map<Offer, string> {
  const reasons = new Map<Offer, string>(wanted.flatMap((w) => w.offers.map((offer) => [offer, w.why] as const)))
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
  const names = [...new Set(asked.map((o) => o.package.name))]
  const end =
    names.length > 1 ? `So ${listed(names, 'and')} cannot be installed together.` : `So ${names[0]} cannot be installed.`
  const sentences = [...new Set(links.map((l) => l.why()))]
  return new Fault('resolve', `Cannot resolve ${listed(names, 'and')}: ${sentences.join(' ')} ${end}`)
}
