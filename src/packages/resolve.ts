/**
 * The solver: which variables to take so that every need is met and no conflict remains.
 *
 * It knows nothing of any distribution. A variable is a version of a package; what follows from taking one is asked for
 * when it is first taken. The search learns from conflicts, so that an answer is found whenever there is one. Decisions walk
 * the needs depth first in the order given and take the first alternative that is not excluded, which is how a package
 * manager's greedy search chooses where nothing conflicts.
 */
import { Fault } from '../base/fault.ts'
import { type Clause, FALSE, newSearch, no, UNKNOWN, type Variable, yes } from './search.ts'

export type { Variable }

/** One of the alternatives must be taken (or, when soft, is taken if possible); the first is preferred. */
export interface Need<Why> {
  alternatives: readonly Variable[]
  soft?: boolean
  why: Why
}

/** What is wanted in an earlier stage is taken, with all it needs, before a later stage is looked at. */
export interface Request<Why> extends Need<Why> {
  stage?: number
}

/** At most one of the variable it follows from and these may be taken. */
export interface Conflict<Why> {
  others: readonly Variable[]
  why: Why
}

export interface Consequences<Why> {
  needs: readonly Need<Why>[]
  conflicts: readonly Conflict<Why>[]
}

export interface Problem<Why> {
  /** What is wanted; all alternatives of one are equally wanted, the first preferred. */
  requests: readonly Request<Why>[]
  consequences(variable: Variable): Consequences<Why>
}

/** One link of an explanation: `owner` (absent for requests) implies one of `alternatives`, or excludes `others`. */
export interface Link<Why> {
  owner?: Variable
  alternatives: readonly Variable[]
  others: readonly Variable[]
  why: Why
}

export type Answer<Why> =
  /** In the order in which they were taken. */
  | { taken: Variable[] }
  /** A smallest set of facts that cannot all hold, from the requests outwards. */
  | { contradiction: Link<Why>[] }

const MAX_CONFLICTS = 200_000

export function solve<Why>(problem: Problem<Why>): Answer<Why> {
  const followed = new Map<Variable, Consequences<Why>>()
  const search = newSearch<Link<Why>>((variable, add) => {
    const found = problem.consequences(variable)
    followed.set(variable, found)
    for (const need of found.needs) if (!need.soft) add(clauseOf(linkOf(need, variable)))
    for (const conflict of found.conflicts)
      for (const other of conflict.others) {
        if (other !== variable) add(clauseOf({ owner: variable, alternatives: [], others: [other], why: conflict.why }))
      }
  })
  for (const request of problem.requests) if (!request.soft) search.add(clauseOf(linkOf(request)))

  const walk = newWalk(problem.requests, (variable) => followed.get(variable)!.needs)
  for (let conflicts = 0; ; ) {
    const conflict = search.propagate()
    if (conflict) {
      if (++conflicts > MAX_CONFLICTS)
        throw new Fault('resolve', `Cannot resolve packages: gave up after ${MAX_CONFLICTS} conflicts`)
      if (!search.learn(conflict)) return { contradiction: inOrder(smallest(search.origins(conflict))) }
      walk.back(search.level())
      continue
    }
    const choice = walk.next(search.value)
    if (choice === undefined) return { taken: walk.taken() }
    search.decide(choice)
  }
}

const linkOf = <Why>(need: Need<Why>, owner?: Variable): Link<Why> =>
  owner === undefined
    ? { alternatives: need.alternatives, others: [], why: need.why }
    : { owner, alternatives: need.alternatives, others: [], why: need.why }

function clauseOf<Why>(link: Link<Why>): Clause<Link<Why>> {
  const literals = link.alternatives.map(yes)
  for (const other of link.others) literals.push(no(other))
  if (link.owner !== undefined) literals.unshift(no(link.owner))
  return { literals, origin: link }
}

/**
 * The order of decisions: depth first through the needs of what is taken, as it stood before each decision.
 * Only what this walk takes belongs to the answer; a variable that merely follows is taken when a need is met by it.
 */
function newWalk<Why>(wanted: readonly Request<Why>[], needsOf: (variable: Variable) => readonly Need<Why>[]) {
  interface Frame {
    needs: readonly Need<Why>[]
    at: number
    next: Frame | undefined
  }
  const stages = [...new Set([0, ...wanted.map((request) => request.stage ?? 0)])]
    .sort((a, b) => a - b)
    .map((stage) => wanted.filter((request) => (request.stage ?? 0) === stage))
  let stage = 0
  let frame: Frame | undefined = { needs: stages[stage]!, at: 0, next: undefined }
  const order: Variable[] = []
  const isTaken = new Set<Variable>()
  const isVisited = new Set<Variable>()
  const visits: Variable[] = []
  const saved: { frame: Frame | undefined; stage: number; phase: 'requests' | 'needs'; taken: number; visits: number }[] = []
  let phase: 'requests' | 'needs' = 'requests'

  const take = (variable: Variable) => {
    if (isTaken.has(variable)) return
    isTaken.add(variable)
    order.push(variable)
  }
  const visit = (variable: Variable) => {
    isVisited.add(variable)
    visits.push(variable)
    frame = { needs: needsOf(variable), at: 0, next: frame }
  }

  /** The next variable to decide, after taking all that needs no decision. */
  function next(value: (variable: Variable) => number): Variable | undefined {
    while (frame) {
      const need: Need<Why> | undefined = frame.needs[frame.at]
      const isRequest = frame.next === undefined
      if (!need) {
        if (isRequest && phase === 'requests') {
          // All that is asked for is taken before the needs of any of it are looked at.
          phase = 'needs'
          frame = { needs: stages[stage]!, at: 0, next: undefined }
        } else if (isRequest && stage + 1 < stages.length) {
          phase = 'requests'
          frame = { needs: stages[++stage]!, at: 0, next: undefined }
        } else frame = frame.next
        continue
      }
      const chosen: Variable | undefined =
        need.alternatives.find((v) => isTaken.has(v)) ?? need.alternatives.find((v) => value(v) !== FALSE)
      if (chosen !== undefined && value(chosen) === UNKNOWN) {
        saved.push({ frame, stage, phase, taken: order.length, visits: visits.length })
        return chosen
      }
      const isNew = chosen !== undefined && !isTaken.has(chosen)
      frame = { needs: frame.needs, at: frame.at + 1, next: frame.next }
      if (isNew) take(chosen)
      if (chosen !== undefined && (isRequest ? phase === 'needs' && !isVisited.has(chosen) : isNew)) visit(chosen)
    }
    return undefined
  }

  function back(level: number): void {
    const state = saved[level]
    if (!state) return
    saved.length = level
    frame = state.frame
    for (const variable of order.splice(state.taken)) isTaken.delete(variable)
    for (const variable of visits.splice(state.visits)) isVisited.delete(variable)
    stage = state.stage
    phase = state.phase
  }

  return { next, back, taken: () => order }
}

/** Drops links while the rest still cannot hold, coarsely first. */
function smallest<Why>(links: Link<Why>[]): Link<Why>[] {
  let kept = links
  for (let chunk = Math.ceil(kept.length / 2); chunk >= 1; chunk = chunk === 1 ? 0 : Math.ceil(chunk / 2)) {
    for (let at = 0; at < kept.length; ) {
      const rest = kept.toSpliced(at, chunk)
      if (holds(rest)) at += chunk
      else kept = rest
    }
  }
  return kept
}

function holds<Why>(links: readonly Link<Why>[]): boolean {
  const search = newSearch<Link<Why>>()
  const variables = new Set<Variable>()
  for (const link of links) {
    search.add(clauseOf(link))
    for (const v of [...link.alternatives, ...link.others, ...(link.owner === undefined ? [] : [link.owner])]) variables.add(v)
  }
  for (;;) {
    const conflict = search.propagate()
    if (conflict) {
      if (!search.learn(conflict)) return false
      continue
    }
    const free = variables.values().find((v) => search.value(v) === UNKNOWN)
    if (free === undefined) return true
    search.decide(free, no(free))
  }
}

/** Requests first, then what each variable implies, nearest to the requests first. */
function inOrder<Why>(links: readonly Link<Why>[]): Link<Why>[] {
  const requests = links.filter((link) => link.owner === undefined)
  const ordered: Link<Why>[] = []
  const placed = new Set<Link<Why>>()
  const reached = new Set<Variable>()
  const place = (link: Link<Why>) => {
    if (placed.has(link)) return
    placed.add(link)
    ordered.push(link)
    for (const v of link.alternatives) reached.add(v)
  }
  for (const request of requests) place(request)
  for (const variable of reached) {
    for (const link of links) if (link.owner === variable && link.others.length === 0) place(link)
  }
  for (const link of links) place(link)
  return ordered
}
