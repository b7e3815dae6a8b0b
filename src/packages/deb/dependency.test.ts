import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { Fault } from '../../base/fault.ts'
import { formatRelations, parseRelations, type Relation } from './dependency.ts'

const relation: fc.Arbitrary<Relation> = fc
  .record({
    name: fc.stringMatching(/^[a-z0-9][a-z0-9+.-]{1,10}$/),
    qualifier: fc.option(fc.constantFrom('any', 'amd64', 'native')),
    versioned: fc.option(
      fc.record({
        operator: fc.constantFrom('<<', '<=', '=', '>=', '>>'),
        version: fc.stringMatching(/^[0-9][0-9a-z.+~:-]{0,8}$/),
      }),
    ),
    architectures: fc.option(fc.constantFrom(['linux-any'], ['!i386', '!armhf'])),
    profiles: fc.option(fc.constantFrom('<!nocheck>', '<!nodoc> <cross>')),
  })
  .map(({ name, qualifier, versioned, architectures, profiles }) => ({
    name,
    ...(qualifier && { qualifier }),
    ...(versioned as { operator: '='; version: string } | null),
    ...(architectures && { architectures }),
    ...(profiles && { profiles }),
  }))

test('parseRelations() reads lists of alternatives with versions and architectures', () => {
  assert.deepEqual(parseRelations('libc6 (>= 2.38), default-mta | mail-transport-agent,python3:any (<< 3.14)'), [
    [{ name: 'libc6', operator: '>=', version: '2.38' }],
    [{ name: 'default-mta' }, { name: 'mail-transport-agent' }],
    [{ name: 'python3', qualifier: 'any', operator: '<<', version: '3.14' }],
  ])
})

test('parseRelations() reads folded fields, stray commas and the old spelling of relations', () => {
  assert.deepEqual(parseRelations('a(<1),\n b ( > 2:1-1 ) |\tc ,\n'), [
    [{ name: 'a', operator: '<=', version: '1' }],
    [{ name: 'b', operator: '>=', version: '2:1-1' }, { name: 'c' }],
  ])
  assert.deepEqual(parseRelations(''), [])
})

test('parseRelations() gives back what formatRelations() took', () => {
  fc.assert(
    fc.property(fc.array(fc.array(relation, { minLength: 1, maxLength: 3 }), { maxLength: 4 }), (lists) => {
      assert.deepEqual(parseRelations(formatRelations(lists)), lists)
    }),
  )
})

test('parseRelations() refuses what is no relation', () => {
  for (const text of [
    'a b',
    'a (1)',
    'a (>= )',
    'a (== 1)',
    'a |',
    '| a',
    'a (>= 1',
    '-a',
    'a:',
    'a;b',
    'a (>= 1) (<< 2)',
    '$(x)',
  ]) {
    assert.throws(
      () => parseRelations(text, 'Depends of x'),
      (e) => e instanceof Fault && /Cannot read Depends of x: .* is not a relation/.test(e.message),
      text,
    )
  }
})

test('parseRelations() is not slowed down by endless blanks', () => {
  const started = performance.now()
  assert.throws(() => parseRelations(`a ${' '.repeat(500_000)}!`))
  assert.throws(() => parseRelations(`a [${'! '.repeat(50_000)}`))
  assert.throws(() => parseRelations('a'.repeat(2_000_000)), /at most/)
  assert.ok(performance.now() - started < 2000)
})
