/**
 * In which order packages may be installed.
 *
 * A package is unpacked only when its Pre-Depends, and all that those need, are configured; it is configured after its
 * Depends. Packages that need each other in a circle stand together, in the order of their names.
 */
import type { ResolvedPackage } from './resolve.ts'

type Ordered = Pick<ResolvedPackage, 'name' | 'depends' | 'preDepends'>

/** All packages, each after those it needs, as far as circles allow. */
export const installOrder = <P extends Ordered>(packages: readonly P[]): P[] => installBatches(packages).flat()

/**
 * Packages in batches: unpack and configure one whole batch, then the next. Whatever a package pre-depends on is in an
 * earlier batch (unless they pre-depend on each other), and within a batch packages stand after what they depend on.
 */
export function installBatches<P extends Ordered>(packages: readonly P[]): P[][] {
  const byName = new Map(packages.toSorted((a, b) => (a.name < b.name ? -1 : 1)).map((p) => [p.name, p]))
  const circles = circlesOf(byName)
  const circleOf = new Map(circles.flatMap((members, i) => members.map((p) => [p.name, i] as const)))
  const levels: number[] = []
  const batches: P[][] = []
  circles.forEach((members, i) => {
    let level = 0
    for (const { depends, preDepends } of members) {
      // Circles come after what they need, so that these levels are known.
      for (const name of depends) level = Math.max(level, levels[circleOf.get(name) ?? i] ?? 0)
      for (const name of preDepends) {
        const other = circleOf.get(name) ?? i
        if (other !== i) level = Math.max(level, levels[other]! + 1)
      }
    }
    levels.push(level)
    const batch = batches[level] ?? []
    batches[level] = batch
    batch.push(...members)
  })
  return batches
}

/** Strongly connected components in dependency order (Tarjan's algorithm, without recursion: chains may be long). */
function circlesOf<P extends Ordered>(byName: ReadonlyMap<string, P>): P[][] {
  const found: P[][] = []
  const indexes = new Map<string, number>()
  const lows = new Map<string, number>()
  const stack: string[] = []
  const isOpen = new Set<string>()
  for (const root of byName.keys()) {
    if (indexes.has(root)) continue
    const calls = [enter(root)]
    while (calls.length > 0) {
      const call = calls.at(-1)!
      const next = call.needs.pop()
      if (next !== undefined) {
        if (!indexes.has(next)) calls.push(enter(next))
        else if (isOpen.has(next)) lower(call.name, indexes.get(next)!)
        continue
      }
      calls.pop()
      if (calls.length > 0) lower(calls.at(-1)!.name, lows.get(call.name)!)
      if (lows.get(call.name) === indexes.get(call.name)) close(call.name)
    }
  }
  return found

  function enter(name: string) {
    indexes.set(name, indexes.size)
    lows.set(name, indexes.get(name)!)
    stack.push(name)
    isOpen.add(name)
    const { preDepends, depends } = byName.get(name)!
    return { name, needs: [...preDepends, ...depends].filter((n) => byName.has(n)).reverse() }
  }

  function lower(name: string, to: number): void {
    if (to < lows.get(name)!) lows.set(name, to)
  }

  function close(name: string): void {
    const members = stack.splice(stack.lastIndexOf(name))
    for (const member of members) isOpen.delete(member)
    found.push(members.sort().map((member) => byName.get(member)!))
  }
}
