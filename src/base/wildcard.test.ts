import assert from 'node:assert/strict'
import { test } from 'node:test'
import { wildcard } from './wildcard.ts'

const matches = (pattern: string, ...names: string[]) => {
  for (const name of names) assert.ok(wildcard(pattern)(name), `${pattern} should match ${name}`)
}
const misses = (pattern: string, ...names: string[]) => {
  for (const name of names) assert.ok(!wildcard(pattern)(name), `${pattern} should not match ${name}`)
}

test('wildcard() knows stars, question marks and sets, and takes everything else as it is', () => {
  matches('a*', 'a', 'ab', 'a\nb')
  misses('a*', 'ba')
  matches('?.conf', 'x.conf')
  misses('?.conf', 'xyconf', '.conf')
  matches('[a-c]x', 'ax', 'cx')
  misses('[a-c]x', 'dx')
  matches('[!a-c]x', 'dx', '-x')
  misses('[!a-c]x', 'bx')
  matches('[]x]', ']', 'x')
  matches('a+(b)^$|{2}\\d', 'a+(b)^$|{2}\\d')
  matches('[', '[')
  matches('[a-', '[a-')
  matches('[a^]', '^')
  misses('[c-a]', 'b', 'c')
  matches('[!c-a]', 'b')
})

test('wildcard() fails fast on many stars', () => {
  const start = performance.now()
  misses(`${'*'.repeat(5000)}b`, 'a'.repeat(5000))
  misses('*a*a*a*b', 'a'.repeat(200))
  misses(`${'*a'.repeat(60)}b`, 'a'.repeat(5000))
  assert.ok(performance.now() - start < 1000)
})
