import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { type Need, type Problem, solve } from './resolve.ts'

/** A small world: for each variable, its needs and conflicts. */
interface World {
  requests: number[][]
  needs: { alternatives: number[]; soft: boolean }[][]
  conflicts: number[][]
}

const SIZE = 9
const variable = fc.nat(SIZE - 1)
const world: fc.Arbitrary<World> = fc.record({
  requests: fc.array(fc.array(variable, { minLength: 1, maxLength: 2 }), { minLength: 1, maxLength: 3 }),
  needs: fc.array(
    fc.array(fc.record({ alternatives: fc.array(variable, { maxLength: 3 }), soft: fc.boolean() }), { maxLength: 3 }),
    { minLength: SIZE, maxLength: SIZE },
  ),
  conflicts: fc.array(fc.array(variable, { maxLength: 2 }), { minLength: SIZE, maxLength: SIZE }),
})

const problemOf = (w: World): Problem<string> => ({
  requests: w.requests.map((alternatives) => ({ alternatives, why: `request ${alternatives}` })),
  consequences: (v) => ({
    needs: w.needs[v]!.map((n): Need<string> => ({ ...n, why: `${v} needs ${n.alternatives}` })),
    conflicts: [{ others: w.conflicts[v]!, why: `${v} excludes ${w.conflicts[v]}` }],
  }),
})

function isSolution(w: World, taken: ReadonlySet<number>): boolean {
  return (
    w.requests.every((r) => r.some((v) => taken.has(v))) &&
    [...taken].every((v) => w.needs[v]!.every((n) => n.soft || n.alternatives.some((a) => taken.has(a)))) &&
    [...taken].every((v) => w.conflicts[v]!.every((o) => o === v || !taken.has(o)))
  )
}

function isSolvable(w: World): boolean {
  for (let bits = 0; bits < 1 << SIZE; bits++) {
    if (isSolution(w, new Set(Array.from({ length: SIZE }, (_, v) => v).filter((v) => bits & (1 << v))))) return true
  }
  return false
}

test('solve() finds an answer exactly when trying everything finds one, and the answer holds', () => {
  fc.assert(
    fc.property(world, (w) => {
      const answer = solve(problemOf(w))
      assert.equal('taken' in answer, isSolvable(w))
      if ('taken' in answer) assert.ok(isSolution(w, new Set(answer.taken)), `${answer.taken}`)
    }),
    { numRuns: 1000 },
  )
})

test('solve() remembers what can never be taken when it learns of two contradictions at once', () => {
  // 5 excludes 0 and so leaves 7, which at once needs 0 and cannot be taken at all.
  const needs = new Map([
    [
      7,
      [
        { alternatives: [0], why: '' },
        { alternatives: [], why: '' },
      ],
    ],
  ])
  const conflicts = new Map([[5, [{ others: [0], why: '' }]]])
  const requests = [
    [5, 1],
    [7, 0],
  ].map((alternatives) => ({ alternatives, why: '' }))
  const consequences = (v: number) => ({ needs: needs.get(v) ?? [], conflicts: conflicts.get(v) ?? [] })
  assert.deepEqual(solve({ requests, consequences }), { taken: [1, 0] })
})

test('solve() takes nothing that no request or need leads to', () => {
  fc.assert(
    fc.property(world, (w) => {
      const answer = solve(problemOf(w))
      if (!('taken' in answer)) return
      const reached = new Set(w.requests.flat())
      for (const v of reached)
        for (const n of w.needs[v]!) for (const a of n.alternatives) if (answer.taken.includes(a)) reached.add(a)
      assert.ok(answer.taken.every((v) => reached.has(v)))
    }),
  )
})

test('solve() explains a contradiction with links of which none can be left out', () => {
  fc.assert(
    fc.property(world, (w) => {
      const answer = solve(problemOf(w))
      if ('taken' in answer) return
      const links = answer.contradiction
      const restrictedTo = (kept: typeof links): World => ({
        requests: kept.filter((l) => l.owner === undefined).map((l) => [...l.alternatives]),
        needs: w.needs.map((_, v) =>
          kept
            .filter((l) => l.owner === v && l.others.length === 0)
            .map((l) => ({ alternatives: [...l.alternatives], soft: false })),
        ),
        conflicts: w.conflicts.map((_, v) => kept.filter((l) => l.owner === v).flatMap((l) => [...l.others])),
      })
      assert.equal(isSolvable(restrictedTo(links)), false)
      for (const link of links) assert.equal(isSolvable(restrictedTo(links.filter((l) => l !== link))), true)
    }),
    { numRuns: 1000 },
  )
})

test('solve() prefers the first alternative, and what is already taken', () => {
  const none = { needs: [], conflicts: [] }
  const needs: Record<number, number[][]> = { 0: [[1, 2]], 3: [[2, 1]], 4: [[5], [6, 5]] }
  const consequences = (v: number) => ({ ...none, needs: (needs[v] ?? []).map((alternatives) => ({ alternatives, why: '' })) })
  const taken = (...wanted: number[]) => solve({ requests: wanted.map((v) => ({ alternatives: [v], why: '' })), consequences })
  assert.deepEqual(taken(0), { taken: [0, 1] })
  assert.deepEqual(taken(0, 3), { taken: [0, 3, 1] })
  assert.deepEqual(taken(0, 2), { taken: [0, 2] })
  assert.deepEqual(taken(4), { taken: [4, 5] })
})

test('solve() gives the same answer each time', () => {
  fc.assert(fc.property(world, (w) => assert.deepEqual(solve(problemOf(w)), solve(problemOf(w)))))
})

test('solve() walks long chains without exhausting the stack', () => {
  const answer = solve({
    requests: [{ alternatives: [0], why: '' }],
    consequences: (v) => ({ needs: v < 50_000 ? [{ alternatives: [v + 1], why: '' }] : [], conflicts: [] }),
  })
  assert.equal('taken' in answer && answer.taken.length, 50_001)
})
