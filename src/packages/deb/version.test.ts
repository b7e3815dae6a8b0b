import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { oracle } from '../../../test/oracle.ts'
import { compareVersions, formatVersion, type Operator, parseVersion, satisfies } from './version.ts'

const part = fc.stringMatching(/^[0-9a-zA-Z.+~]{0,6}$/)
const version = fc
  .tuple(fc.constantFrom('', '0:', '1:', '12:'), fc.nat(30), part, fc.option(fc.stringMatching(/^[0-9a-zA-Z.+~]{1,5}$/)))
  .map(([epoch, n, rest, revision]) => `${epoch}${n}${rest}${revision === null ? '' : `-${revision}`}`)

test('compareVersions() orders versions as Debian does', () => {
  const rising = [
    '1.0~~',
    '1.0~~a',
    '1.0~',
    '1.0~rc1',
    '1.0-1~bpo',
    '1.0-1',
    '1.0-1+b1',
    '1.0-2',
    '1.0a',
    '1.0+b1',
    '1.0.1',
    '1.2',
    '1.10',
    '0:2',
    '1:0.1',
  ]
  for (const [i, a] of rising.entries()) {
    for (const [j, b] of rising.entries()) assert.equal(Math.sign(compareVersions(a, b)), Math.sign(i - j), `${a} against ${b}`)
  }
})

test('compareVersions() finds versions equal that are written differently', () => {
  for (const [a, b] of [
    ['1', '1-0'],
    ['0:1.0', '1.0'],
    ['1.01', '1.1'],
    ['1.0-01', '1.0-1'],
    ['1-2-3', '1-2-3'],
  ] as const) {
    assert.equal(compareVersions(a, b), 0, `${a} and ${b}`)
  }
})

test('compareVersions() is a total order', () => {
  fc.assert(
    fc.property(version, version, version, (a, b, c) => {
      assert.equal(Math.sign(compareVersions(a, b)), -Math.sign(compareVersions(b, a)))
      if (compareVersions(a, b) <= 0 && compareVersions(b, c) <= 0) assert.ok(compareVersions(a, c) <= 0)
    }),
  )
})

test('satisfies() knows the five relations', () => {
  const held = (a: string, b: string) => (['<<', '<=', '=', '>=', '>>'] as Operator[]).filter((o) => satisfies(a, o, b))
  assert.deepEqual(held('1', '2'), ['<<', '<='])
  assert.deepEqual(held('1', '1-0'), ['<=', '=', '>='])
  assert.deepEqual(held('2', '1'), ['>=', '>>'])
})

test('formatVersion() writes what parseVersion() read', () => {
  for (const text of ['1', '1:2.3-4', '1.0-rc1-2', '2:1:3-1']) assert.equal(formatVersion(parseVersion(text)), text)
  assert.deepEqual(parseVersion('1:2-3-4'), { epoch: 1, upstream: '2-3', revision: '4' })
})

test('parseVersion() refuses what is no version', () => {
  for (const text of ['', 'a1', '1 2', '1-', '-1', ':1', 'x:1', '1_2', '1-2:3', '99999999999:1'])
    assert.throws(() => parseVersion(text), /Cannot read version/, text)
})

oracle('dpkg', 'dpkg agrees with compareVersions() on random versions', async (_, judge) => {
  const pairs = fc.sample(fc.tuple(version, version), { numRuns: 250, seed: 822 })
  pairs.push(['1.0~rc1', '1.0'], ['1.0-1', '1.0-1+b1'], ['1.0', '1.0-0'], ['1.2+', '1.2a'], ['1.2.', '1.2a'], ['a', '1'])
  const script =
    'while read -r a b; do for o in lt eq gt; do dpkg --compare-versions "$a" $o "$b" 2>/dev/null && echo $o && break; done; done'
  const { stdout } = await judge.run(['sh', '-c', script], { input: pairs.map((p) => `${p.join(' ')}\n`).join('') })
  const ours = pairs.map(([a, b]) => ['lt', 'eq', 'gt'][Math.sign(compareVersions(a, b)) + 1])
  assert.deepEqual(ours, stdout.trim().split('\n'))
})
