/**
 * The solver: which variables to take so that every need is met and no conflict remains.
 *
 * It knows nothing of any distribution. A variable is a version of a package; what follows from taking one is asked for
 * when it is first taken. Search is conflict-driven (watched literals, first unique implication point, backjumping), so an
 * answer is found whenever there is one. Decisions walk the needs depth first in the order given and take the first
 * alternative that is not excluded, which is how a package manager's greedy search chooses where nothing conflicts.
 */
import { Fault } from '../base/fault.ts'

export type Variable = number

/** One of the alternatives must be taken (or, when soft, is taken if possible); the first is preferred. */
export interface Need<Why> {
  alternatives: readonly Variable[]
  soft?: boolean
  why: Why
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
  requests: readonly Need<Why>[]
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
function newWalk<Why>(requests: readonly Need<Why>[], needsOf: (variable: Variable) => readonly Need<Why>[]) {
  interface Frame {
    needs: readonly Need<Why>[]
    at: number
    next: Frame | undefined
  }
  let frame: Frame | undefined = { needs: requests, at: 0, next: undefined }
  const order: Variable[] = []
  const isTaken = new Set<Variable>()
  const isVisited = new Set<Variable>()
  const visits: Variable[] = []
  const saved: { frame: Frame | undefined; phase: 'requests' | 'needs'; taken: number; visits: number }[] = []
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
          frame = { needs: requests, at: 0, next: undefined }
        } else frame = frame.next
        continue
      }
      const chosen: Variable | undefined =
        need.alternatives.find((v) => isTaken.has(v)) ?? need.alternatives.find((v) => value(v) !== FALSE)
      if (chosen !== undefined && value(chosen) === UNKNOWN) {
        saved.push({ frame, phase, taken: order.length, visits: visits.length })
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
    phase = state.phase
  }

  return { next, back, taken: () => order }
}

// --- the search itself -------------------------------------------------------------------------------------------------

type Literal = number
interface Clause<Origin> {
  literals: Literal[]
  /** What it says, for a clause that was given. */
  origin?: Origin
  /** What it follows from, for one that was learned. */
  from?: Clause<Origin>[]
}

const yes = (variable: Variable): Literal => variable * 2
const no = (variable: Variable): Literal => variable * 2 + 1
const UNKNOWN = 0
const TRUE = 1
const FALSE = -1

/** Conflict-driven clause learning. `follow` is called once per variable, when it is first taken, and adds what that implies. */
function newSearch<Origin>(follow?: (variable: Variable, add: (clause: Clause<Origin>) => void) => void) {
  const values: number[] = []
  const levels: number[] = []
  const reasons: (Clause<Origin> | undefined)[] = []
  const isFollowed: boolean[] = []
  const watches: Clause<Origin>[][] = []
  const trail: Literal[] = []
  const levelStarts: number[] = []
  let head = 0
  let pending: Clause<Origin> | undefined

  const value = (variable: Variable): number => values[variable] ?? UNKNOWN
  const truth = (literal: Literal): number => (literal & 1 ? -value(literal >> 1) : value(literal >> 1))
  const watchersOf = (literal: Literal) => (watches[literal] ??= [])

  function assign(literal: Literal, reason: Clause<Origin> | undefined): void {
    const variable = literal >> 1
    values[variable] = literal & 1 ? FALSE : TRUE
    levels[variable] = levelStarts.length
    reasons[variable] = reason
    trail.push(literal)
  }

  /** Later is better to watch: free literals first, then those that became false last. */
  const rank = (literal: Literal) => (truth(literal) === FALSE ? levels[literal >> 1]! : Number.MAX_SAFE_INTEGER)

  function add(clause: Clause<Origin>): void {
    const { literals } = clause
    for (let place = 0; place < Math.min(2, literals.length); place++) {
      let best = place
      for (let i = place + 1; i < literals.length; i++) if (rank(literals[i]!) > rank(literals[best]!)) best = i
      const swapped = literals[place]!
      literals[place] = literals[best]!
      literals[best] = swapped
    }
    if (literals.length > 1) for (const literal of literals.slice(0, 2)) watchersOf(literal).push(clause)
    if (literals.length === 0 || truth(literals[0]!) === FALSE) pending ??= clause
    else if (truth(literals[0]!) === UNKNOWN && (literals.length === 1 || truth(literals[1]!) === FALSE))
      assign(literals[0]!, clause)
  }

  /** Draws every forced conclusion. Returns a clause that is broken, if any. */
  function propagate(): Clause<Origin> | undefined {
    while (head < trail.length && !pending) {
      const literal = trail[head++]!
      const variable = literal >> 1
      if (follow && !(literal & 1) && !isFollowed[variable]) {
        isFollowed[variable] = true
        follow(variable, add)
      }
      pending ??= visit(literal ^ 1)
    }
    const conflict = pending
    pending = undefined
    return conflict
  }

  /** Looks at the clauses that watch a literal which has become false. */
  function visit(falsified: Literal): Clause<Origin> | undefined {
    const list = watchersOf(falsified)
    let kept = 0
    let broken: Clause<Origin> | undefined
    for (let n = 0; n < list.length; n++) {
      const clause = list[n]!
      const { literals } = clause
      if (broken === undefined) {
        if (literals[0] === falsified) {
          literals[0] = literals[1]!
          literals[1] = falsified
        }
        if (truth(literals[0]!) !== TRUE) {
          let other = 2
          while (other < literals.length && truth(literals[other]!) === FALSE) other++
          if (other < literals.length) {
            literals[1] = literals[other]!
            literals[other] = falsified
            watchersOf(literals[1]!).push(clause)
            continue
          }
          if (truth(literals[0]!) === FALSE) broken = clause
          else assign(literals[0]!, clause)
        }
      }
      list[kept++] = clause
    }
    list.length = kept
    return broken
  }

  function backTo(level: number): void {
    if (level >= levelStarts.length) return
    for (const literal of trail.splice(levelStarts[level]!)) {
      values[literal >> 1] = UNKNOWN
      reasons[literal >> 1] = undefined
    }
    levelStarts.length = level
    head = trail.length
  }

  /** Learns from a broken clause and goes back to where what was learned says something new. False: there is no answer. */
  function learn(conflict: Clause<Origin>): boolean {
    const deepest = conflict.literals.reduce((max, l) => Math.max(max, levels[l >> 1]!), 0)
    backTo(deepest)
    if (deepest === 0) return false
    const seen = new Set<Variable>()
    const learned: Clause<Origin> = { literals: [], from: [] }
    let clause: Clause<Origin> = conflict
    let open = 0
    let at = trail.length
    for (;;) {
      learned.from!.push(clause)
      for (const literal of clause.literals) {
        const variable = literal >> 1
        if (truth(literal) !== FALSE || seen.has(variable)) continue
        seen.add(variable)
        if (levels[variable] === deepest) open++
        else if (levels[variable]! > 0) learned.literals.push(literal)
        else if (reasons[variable]) learned.from!.push(reasons[variable]!)
      }
      do at--
      while (!(seen.has(trail[at]! >> 1) && levels[trail[at]! >> 1] === deepest))
      if (--open === 0) break
      clause = reasons[trail[at]! >> 1]!
    }
    const asserting = trail[at]! ^ 1
    const target = learned.literals.reduce((max, l) => Math.max(max, levels[l >> 1]!), 0)
    learned.literals.unshift(asserting)
    backTo(target)
    add(learned)
    return true
  }

  /** The given clauses from which a broken clause of level 0 follows. */
  function origins(conflict: Clause<Origin>): Origin[] {
    const seen = new Set<Clause<Origin>>([conflict])
    const found = new Set<Origin>()
    for (const clause of seen) {
      if (clause.origin !== undefined) found.add(clause.origin)
      for (const parent of clause.from ?? []) seen.add(parent)
      for (const literal of clause.literals) {
        const variable = literal >> 1
        if (value(variable) !== UNKNOWN && levels[variable] === 0 && reasons[variable]) seen.add(reasons[variable]!)
      }
    }
    return [...found]
  }

  function decide(variable: Variable, literal = yes(variable)): void {
    levelStarts.push(trail.length)
    assign(literal, undefined)
  }

  return { add, propagate, learn, decide, origins, value, level: () => levelStarts.length }
}

// --- explanations ------------------------------------------------------------------------------------------------------

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
