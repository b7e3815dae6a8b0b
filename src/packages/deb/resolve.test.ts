import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { Fault } from '../../base/fault.ts'
import { parseRelations, type Relation } from './dependency.ts'
import { indexPackages, openIndex } from './index.ts'
import type { DebRequest } from './request.ts'
import { type ResolvedPackage, resolveDebian } from './resolve.ts'
import type { Suite } from './universe.ts'
import { satisfies } from './version.ts'

/** A suite from short notes: `name version | Field: value | Field: value`. */
function suite(notes: string, id = 'trixie', priority = 500): Suite {
  const stanzas = notes
    .trim()
    .split('\n')
    .map((line) => {
      const [title, ...fields] = line.trim().split(/ ; /)
      const [name, version] = title!.split(' ')
      return `Package: ${name}\nVersion: ${version}\nArchitecture: amd64\nFilename: ${name}.deb\nSize: 1\nSHA256: ${'0'.repeat(64)}\n${fields.join('\n')}\n`
    })
  return { repository: { id, suite: id, priority }, index: openIndex(indexPackages(Buffer.from(stanzas.join('\n')))) }
}

const ask = (suites: Suite | Suite[], packages: string, options: Partial<DebRequest> = {}): ResolvedPackage[] =>
  resolveDebian([suites].flat(), { packages: packages.split(' '), recommends: false, architecture: 'amd64', ...options }).packages

const names = (...args: Parameters<typeof ask>) =>
  ask(...args)
    .map((p) => p.name)
    .join(' ')
const versions = (...args: Parameters<typeof ask>) =>
  ask(...args)
    .map((p) => `${p.name}=${p.version}@${p.repository}`)
    .join(' ')

function refusal(...args: Parameters<typeof ask>): Fault {
  try {
    ask(...args)
  } catch (error) {
    assert.ok(error instanceof Fault && error.code === 'resolve', String(error))
    return error
  }
  assert.fail('it was solved')
}

test('resolveDebian() takes what Depends and Pre-Depends need, and says what wanted it', () => {
  const world = suite(`
    a 1 ; Depends: b (>= 1), c
    b 2 ; Pre-Depends: libc6
    c 1
    libc6 1
    d 1`)
  assert.deepEqual(
    ask(world, 'a').map((p) => [p.name, p.why, p.depends, p.preDepends]),
    [
      ['a', 'requested', ['b', 'c'], []],
      ['b', 'a depends on it', [], ['libc6']],
      ['c', 'a depends on it', [], []],
      ['libc6', 'b pre-depends on it', [], []],
    ],
  )
})

test('resolveDebian() prefers the first alternative, and one that is asked for before it', () => {
  const world = suite(`
    a 1 ; Depends: b | c
    b 1
    c 1`)
  assert.equal(names(world, 'a'), 'a b')
  assert.equal(names(world, 'a c'), 'a c')
})

test('resolveDebian() holds versions to the five relations', () => {
  const world = suite(`
    b 2
    lt 1 ; Depends: b (<< 2)
    le 1 ; Depends: b (<= 2)
    eq 1 ; Depends: b (= 2)
    ge 1 ; Depends: b (>= 2)
    gt 1 ; Depends: b (>> 2)`)
  assert.equal(names(world, 'le eq ge'), 'b eq ge le')
  assert.match(refusal(world, 'lt').message, /lt 1 depends on b \(<< 2\), but only b 2 is offered \(trixie\)/)
  assert.match(refusal(world, 'gt').message, /gt 1 depends on b \(>> 2\), but only b 2 is offered/)
})

test('resolveDebian() chooses a provider by essential, importance and priority, then the last mentioned', () => {
  const world = suite(`
    w 1 ; Depends: essential
    x 1 ; Depends: important
    y 1 ; Depends: standard
    z 1 ; Depends: optional
    a 1 ; Provides: standard, important, essential, optional ; Priority: standard
    b 1 ; Provides: important, essential ; Protected: yes
    c 1 ; Provides: essential ; Essential: yes
    d 1 ; Provides: standard, important, essential
    e 1 ; Provides: optional ; Priority: standard`)
  const provider = (wanted: string) => names(world, wanted, { withEssential: false })
  assert.equal(provider('w'), 'c w')
  assert.equal(provider('x'), 'b x')
  assert.equal(provider('y'), 'a y')
  assert.equal(provider('z'), 'e z')
})

test('resolveDebian() lets only a versioned Provides meet a versioned relation', () => {
  const world = suite(`
    a 1 ; Depends: api (>= 2)
    plain 1 ; Provides: api
    old 1 ; Provides: api (= 1)
    new 1 ; Provides: api (= 2)`)
  assert.equal(names(world, 'a'), 'a new')
})

test('resolveDebian() exempts a package from its own conflicts, but no other provider', () => {
  const world = suite(`
    postfix 3 ; Provides: mta ; Conflicts: mta
    exim 4 ; Provides: mta ; Conflicts: mta`)
  assert.equal(names(world, 'postfix'), 'postfix')
  assert.equal(
    refusal(world, 'postfix exim').message,
    'Cannot resolve postfix and exim: You asked for postfix. You asked for exim. postfix 3 conflicts with mta, which exim 4 provides. So postfix and exim cannot be installed together.',
  )
})

test('resolveDebian() heeds Breaks and versioned conflicts, and leaves unversioned providers out of them', () => {
  const world = suite(`
    a 1 ; Breaks: b (<< 2)
    b 1
    c 1 ; Conflicts: v (<< 9)
    d 1 ; Provides: v
    e 1 ; Provides: v (= 3)`)
  assert.match(
    refusal(world, 'a b').message,
    /a 1 breaks b \(<< 2\), and b is 1 \(trixie\)\. So a and b cannot be installed together\.$/,
  )
  assert.equal(names(world, 'c d'), 'c d')
  assert.match(refusal(world, 'c e').message, /conflicts with v \(<< 9\), which e 1 provides/)
})

test('resolveDebian() takes the second alternative where the first conflicts, however deep', () => {
  const world = suite(`
    a 1 ; Depends: b | c, z
    b 1 ; Depends: deep
    deep 1 ; Conflicts: z
    c 1
    z 1`)
  assert.equal(names(world, 'a'), 'a c z')
})

test('resolveDebian() ignores Replaces and Enhances', () => {
  const world = suite(`
    a 1 ; Replaces: b ; Enhances: c
    b 1`)
  assert.equal(names(world, 'a b'), 'a b')
})

test('resolveDebian() meets :any only with a package that allows it', () => {
  const world = suite(`
    a 1 ; Depends: python3:any
    b 1 ; Depends: libx:any
    c 1 ; Depends: libx:amd64
    d 1 ; Depends: libx:i386
    python3 3 ; Multi-Arch: allowed
    libx 1 ; Multi-Arch: same`)
  assert.equal(names(world, 'a'), 'a python3')
  assert.match(refusal(world, 'b').message, /b 1 depends on libx:any, but no libx serves as libx:any/)
  assert.equal(names(world, 'c'), 'c libx')
  assert.match(refusal(world, 'd').message, /libx:i386/)
})

test('resolveDebian() leaves packages of other architectures alone', () => {
  const world = suite('a 1 ; Depends: b')
  const foreign = suite('b 1')
  assert.match(refusal([world, foreign], 'a', { architecture: 'arm64' }).message, /there is no package a/)
})

test('resolveDebian() adds recommended packages where they fit, and never fails for them', () => {
  const world = suite(`
    a 1 ; Recommends: b, missing, bad, c | d
    b 1 ; Recommends: e
    bad 1 ; Conflicts: a
    c 1 ; Depends: missing
    d 1
    e 1`)
  assert.equal(names(world, 'a'), 'a')
  assert.equal(names(world, 'a', { recommends: true }), 'a b d e')
})

test('resolveDebian() includes the essential packages unless told not to', () => {
  const world = suite(`
    base 1 ; Essential: yes ; Depends: libc6
    libc6 1
    a 1`)
  assert.equal(names(world, 'a'), 'a base libc6')
  assert.equal(names(world, 'a', { withEssential: false }), 'a')
  assert.equal(names(world, '?essential', { withEssential: false }), 'base libc6')
})

const STABLE = suite('a 1 ; Depends: lib\nlib 1\nb 1 ; Depends: lib (= 1)')
const SECURITY = suite('lib 1.1', 'trixie-security')
const BACKPORTS = suite('a 2 ; Depends: lib (>= 2)\nlib 2', 'trixie-backports', 100)
const ALL = [STABLE, SECURITY, BACKPORTS]

test('resolveDebian() takes the candidate: highest priority, then highest version', () => {
  assert.equal(versions(ALL, 'a'), 'a=1@trixie lib=1.1@trixie-security')
})

test('resolveDebian() takes another version where a request names it, and its suite for what that needs', () => {
  assert.equal(versions(ALL, 'a/trixie-backports'), 'a=2@trixie-backports lib=2@trixie-backports')
  assert.equal(versions(ALL, 'lib=1'), 'lib=1@trixie')
  assert.equal(versions(ALL, 'lib=1*'), 'lib=1.1@trixie-security')
  assert.equal(versions(ALL, 'b lib/trixie'), 'b=1@trixie lib=1@trixie')
})

test('resolveDebian() explains that a version yields to the candidate', () => {
  assert.equal(
    refusal(ALL, 'a=2').message,
    'Cannot resolve a: You asked for a=2: a 2. a 2 depends on lib (>= 2), but lib 2 of trixie-backports yields to lib 1.1 of trixie-security. So a cannot be installed.',
  )
})

test('resolveDebian() stays at preferred versions, and leaves them where a request needs another', () => {
  const world = [suite('a 1 ; Depends: lib (= 1)\nlib 1\nc 1'), suite('a 2 ; Depends: lib (= 2)\nlib 2\nc 2', 'new')]
  const stay = (entries: Record<string, string>) => ({ prefer: new Map(Object.entries(entries)) })
  assert.equal(versions(world, 'a c', stay({ a: '1', lib: '1', c: '1' })), 'a=1@trixie c=1@trixie lib=1@trixie')
  assert.equal(versions(world, 'a c', stay({ lib: '1', c: '1' })), 'a=2@new c=1@trixie lib=2@new')
  assert.equal(versions(world, 'a c', stay({ a: '0', lib: '0', c: '0' })), 'a=2@new c=2@new lib=2@new')
  assert.equal(versions(world, 'a lib/trixie', stay({ lib: '2', a: '1' })), 'a=1@trixie lib=1@trixie')
})

test('resolveDebian() lets a request for a version stand beside one for the bare name', () => {
  assert.equal(versions(ALL, 'lib lib/trixie-backports'), 'lib=2@trixie-backports')
})

test('resolveDebian() refuses two versions of one package', () => {
  assert.match(refusal(ALL, 'lib=1 lib=2').message, /lib 1 and lib 2 cannot both be installed/)
})

test('resolveDebian() never takes what has a priority below 1', () => {
  assert.match(refusal([suite('a 1', 'sid', -1)], 'a').message, /a is only offered with a priority below 1 \(sid\)/)
})

test('resolveDebian() takes every match of a pattern', () => {
  const world = suite('libtss2-esys 1\nlibtss2-mu0 1\nlibtss2-rc0 1\nother 1')
  assert.equal(names(world, '^libtss2-(mu|rc)'), 'libtss2-mu0 libtss2-rc0')
  assert.equal(names(world, '/tss2-e/'), 'libtss2-esys')
  assert.equal(names(world, 'libtss2-*0'), 'libtss2-mu0 libtss2-rc0')
  assert.match(refusal(world, '^nothing').message, /no package matches \^nothing/)
  assert.match(refusal(world, '^(').message, /is not a pattern/)
})

test('resolveDebian() names every unknown package at once, with the nearest names', () => {
  const { message } = refusal(suite('systemd 1\nudev 1'), 'sytemd udev ../x nothing-like-it')
  assert.equal(
    message,
    'Cannot resolve packages: there is no package sytemd (did you mean systemd?); "../x" is not a package name, name=version, name/suite or pattern; there is no package nothing-like-it',
  )
})

test('resolveDebian() says which version is offered instead of one that is not', () => {
  const fault = refusal(STABLE, 'a=9')
  assert.equal(fault.message, 'Cannot resolve packages: a=9 is not offered, only 1 (trixie)')
  assert.equal(fault.hint, 'Ask for a=1')
})

test('resolveDebian() takes the one provider of a virtual package, and asks which of several', () => {
  const world = suite('one 1 ; Provides: v, w\ntwo 1 ; Provides: w')
  assert.equal(names(world, 'v'), 'one')
  assert.match(refusal(world, 'w').message, /w is virtual, provided by one and two/)
})

test('resolveDebian() installs nothing that is excluded', () => {
  const world = suite('a 1 ; Depends: b | c\nb 1\nc 1\nd 1 ; Depends: b')
  assert.equal(names(world, 'a', { exclude: ['b'] }), 'a c')
  assert.match(refusal(world, 'd', { exclude: ['b'] }).message, /d 1 depends on b, but b is excluded/)
  assert.match(refusal(world, 'b', { exclude: ['b'] }).message, /b is both asked for and excluded/)
})

test('resolveDebian() explains a chain from the request to what is missing', () => {
  const world = suite(`
    foo 1.2 ; Depends: bar
    bar 3 ; Depends: libbar (>= 2) | libbaz
    libbar 1.9
    unrelated 1 ; Depends: missing`)
  assert.equal(
    refusal(world, 'foo').message,
    'Cannot resolve foo: You asked for foo. foo 1.2 depends on bar. bar 3 depends on libbar (>= 2) | libbaz, but only libbar 1.9 is offered (trixie) and nothing offers libbaz. So foo cannot be installed.',
  )
})

const NAMES = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h']
const relation = fc
  .tuple(fc.constantFrom(...NAMES, 'v', 'w'), fc.constantFrom('', '', '', ' (>= 2)', ' (<< 2)', ' (= 1)'))
  .map(([name, version]) => `${name}${version}`)
const field = (name: string, members: fc.Arbitrary<string>, maxLength: number) =>
  fc.array(members, { maxLength }).map((list) => (list.length === 0 ? [] : [`${name}: ${list.join(', ')}`]))
const packageNote = (name: string) =>
  fc
    .tuple(
      fc.constantFrom('1', '2', '3'),
      field(
        'Depends',
        fc.array(relation, { minLength: 1, maxLength: 3 }).map((list) => list.join(' | ')),
        2,
      ),
      field('Recommends', relation, 1),
      field('Conflicts', relation, 1),
      field('Provides', fc.constantFrom('v', 'w (= 2)', 'w'), 1),
    )
    .map(([version, ...fields]) => [`${name} ${version}`, ...fields.flat()].join(' ; '))
const universe = fc.tuple(...NAMES.map(packageNote)).map((notes) => notes.join('\n'))

/** Does a set of packages keep all its promises? Written without looking at the resolver. */
function isConsistent(world: Suite, set: ReadonlySet<string>): boolean {
  const members = [...set].map((name) => world.index.record(world.index.versions(name)[0]!))
  const meets = (r: Relation) =>
    members.filter(
      (p) =>
        (p.name === r.name && (!r.operator || satisfies(p.version, r.operator, r.version!))) ||
        parseRelations(p.provides)
          .flat()
          .some(
            (v) =>
              v.name === r.name && (!r.operator || (v.version !== undefined && satisfies(v.version, r.operator, r.version!))),
          ),
    )
  return members.every(
    (p) =>
      parseRelations(p.depends).every((alternatives) => alternatives.some((r) => meets(r).length > 0)) &&
      parseRelations(p.conflicts)
        .flat()
        .every((r) => meets(r).every((other) => other === p)),
  )
}

test('resolveDebian() solves small universes exactly when some set of packages keeps all promises', () => {
  fc.assert(
    fc.property(
      universe,
      fc.uniqueArray(fc.constantFrom(...NAMES), { minLength: 1, maxLength: 2 }),
      fc.boolean(),
      (notes, wanted, recommends) => {
        const world = suite(notes)
        let solvable = false
        for (let bits = 0; bits < 256 && !solvable; bits++) {
          const set = new Set(NAMES.filter((_, i) => bits & (1 << i)))
          solvable = wanted.every((name) => set.has(name)) && isConsistent(world, set)
        }
        try {
          const set = new Set(ask(world, wanted.join(' '), { recommends }).map((p) => p.name))
          assert.ok(isConsistent(world, set), [...set].join(' '))
          assert.ok(wanted.every((name) => set.has(name)))
        } catch (error) {
          if (!(error instanceof Fault)) throw error
          assert.ok(!solvable, error.message)
        }
      },
    ),
    { numRuns: 300 },
  )
})
