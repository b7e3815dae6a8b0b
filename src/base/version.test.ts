import assert from 'node:assert/strict'
import { test } from 'node:test'
import { compareVersions } from './version.ts'

// biome-ignore format: table
const RISING = [
  '~', '~1', '', '1~rc1', '1', '1-1', '1^post', '1.1', '1.9', '1.10', '6.12.48+deb13-amd64', '6.12.107',
  '6.12.107+deb13-amd64', '7.0', '7a', '7b',
]

test('compareVersions() orders versions as the version format specification does', () => {
  for (const [i, a] of RISING.entries())
    for (const [j, b] of RISING.entries())
      assert.equal(Math.sign(compareVersions(a, b)), Math.sign(i - j), `"${a}" against "${b}"`)
})

test('compareVersions() finds versions equal that differ in zeros and separators', () => {
  for (const [a, b] of [
    ['1.02', '1.2'],
    ['1_2', '1+2'],
    ['0a', 'a'],
  ] as const)
    assert.equal(compareVersions(a, b), 0, `${a} and ${b}`)
})
