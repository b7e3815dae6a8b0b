/**
 * In which order packages are installed into an empty root.
 *
 * Spec: Debian Policy §7.2 (Pre-Depends), §3.8 (Essential).
 * First, all at once, the essential packages with everything they depend on: until they are configured nothing can be
 * relied upon. Then, level by level, packages whose Pre-Depends are configured, as far as their Depends go with them.
 */
import { field, type Stanza } from '../../formats/deb822.ts'
import { type Alternatives, parseRelations } from './dependency.ts'

export interface Batch<P> {
  packages: P[]
  /** Are dependencies among these left unmet when they are configured? dpkg must then be told to look away. */
  force: boolean
}

export function planBatches<P extends { fields: Stanza }>(packages: readonly P[]): Batch<P>[] {
  const graph = graphOf(packages)
  const first = closure(
    graph,
    packages.filter((p) => field(p.fields, 'Essential') === 'yes'),
  )
  const batches: Batch<P>[] = first.size > 0 ? [{ packages: inOrder(graph, first), force: false }] : []
  const done = new Set(first)
  let rest = packages.filter((p) => !done.has(p))
  while (rest.length > 0) {
    const ready = readyAmong(graph, rest, done)
    const force = ready.size === 0
    const batch = force ? new Set(rest) : ready
    batches.push({ packages: inOrder(graph, batch), force })
    for (const p of batch) done.add(p)
    rest = rest.filter((p) => !done.has(p))
  }
  return batches
}

interface Graph<P> {
  /** For each group of alternatives a package needs, the given packages that satisfy it. Groups nobody satisfies are left out. */
  preDepends: Map<P, P[][]>
  depends: Map<P, P[][]>
}

function graphOf<P extends { fields: Stanza }>(packages: readonly P[]): Graph<P> {
  const providers = new Map<string, P[]>()
  const provide = (name: string, p: P) => providers.set(name, [...(providers.get(name) ?? []), p])
  for (const p of packages) {
    provide(field(p.fields, 'Package')!, p)
    for (const relation of relations(p, 'Provides').flat()) provide(relation.name, p)
  }
  const groups = (p: P, name: string) =>
    relations(p, name)
      .map((alternatives) => [...new Set(alternatives.flatMap((one) => providers.get(one.name) ?? []))])
      .filter((group) => group.length > 0 && !group.includes(p))
  return {
    preDepends: new Map(packages.map((p) => [p, groups(p, 'Pre-Depends')])),
    depends: new Map(packages.map((p) => [p, groups(p, 'Depends')])),
  }
}

function relations(p: { fields: Stanza }, name: string): Alternatives[] {
  const text = field(p.fields, name)
  return text === undefined ? [] : parseRelations(text, `${name} of ${field(p.fields, 'Package')}`)
}

function closure<P>(graph: Graph<P>, from: readonly P[]): Set<P> {
  const found = new Set<P>()
  const waiting = [...from]
  for (let p = waiting.pop(); p !== undefined; p = waiting.pop()) {
    if (found.has(p)) continue
    found.add(p)
    for (const group of [...graph.preDepends.get(p)!, ...graph.depends.get(p)!]) waiting.push(...group)
  }
  return found
}

function readyAmong<P>(graph: Graph<P>, rest: readonly P[], done: ReadonlySet<P>): Set<P> {
  const ready = new Set(rest.filter((p) => graph.preDepends.get(p)!.every((group) => group.some((q) => done.has(q)))))
  for (let before = -1; before !== ready.size; ) {
    before = ready.size
    for (const p of ready) {
      if (!graph.depends.get(p)!.every((group) => group.some((q) => done.has(q) || ready.has(q)))) ready.delete(p)
    }
  }
  return ready
}

/** Depended-on packages first, as far as there are no cycles; otherwise in the given order. */
function inOrder<P>(graph: Graph<P>, batch: ReadonlySet<P>): P[] {
  const ordered = new Set<P>()
  const entered = new Set<P>()
  for (const start of graph.depends.keys()) {
    if (!batch.has(start)) continue
    const stack: { p: P; needs: Iterator<P> }[] = []
    const enter = (p: P) => {
      if (!batch.has(p) || entered.has(p)) return
      entered.add(p)
      stack.push({ p, needs: [...graph.preDepends.get(p)!, ...graph.depends.get(p)!].flat()[Symbol.iterator]() })
    }
    enter(start)
    for (let top = stack.at(-1); top; top = stack.at(-1)) {
      const next = top.needs.next()
      if (!next.done) enter(next.value)
      else {
        ordered.add(top.p)
        stack.pop()
      }
    }
  }
  return [...ordered]
}
