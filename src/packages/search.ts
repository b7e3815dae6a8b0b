/**
 * The search: truth values for variables under clauses, by conflict-driven clause learning.
 *
 * Two literals of each clause are watched; a broken clause is resolved back to the first unique implication point, what was
 * learned is kept, and the search jumps back to where that says something new. Who calls makes the decisions.
 */
export type Variable = number

/** Twice the variable, plus one when it is denied. */
export type Literal = number
export interface Clause<Origin> {
  literals: Literal[]
  /** What it says, for a clause that was given. */
  origin?: Origin
  /** What it follows from, for one that was learned. */
  from?: Clause<Origin>[]
}

export const yes = (variable: Variable): Literal => variable * 2
export const no = (variable: Variable): Literal => variable * 2 + 1
export const UNKNOWN = 0
export const TRUE = 1
export const FALSE = -1

/** Conflict-driven clause learning. `follow` is called once per variable, when it is first taken, and adds what that implies. */
export function newSearch<Origin>(follow?: (variable: Variable, add: (clause: Clause<Origin>) => void) => void) {
  const values: number[] = []
  const levels: number[] = []
  const reasons: (Clause<Origin> | undefined)[] = []
  const isFollowed: boolean[] = []
  const watches: Clause<Origin>[][] = []
  const trail: Literal[] = []
  const levelStarts: number[] = []
  /** Clauses of one literal that came after a decision: nothing watches them, so they are looked at again after going back. */
  const units: Clause<Origin>[] = []
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
    else if (literals.length === 1 && levelStarts.length > 0) units.push(clause)
    settle(clause)
  }

  /** Draws what follows from a clause whose best literals come first. */
  function settle(clause: Clause<Origin>): void {
    const { literals } = clause
    if (literals.length === 0 || truth(literals[0]!) === FALSE) pending ??= clause
    else if (truth(literals[0]!) === UNKNOWN && (literals.length === 1 || truth(literals[1]!) === FALSE))
      assign(literals[0]!, clause)
  }

  /** Draws every forced conclusion. Returns a clause that is broken, if any. */
  function propagate(): Clause<Origin> | undefined {
    for (const unit of units) settle(unit)
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
