import assert from 'node:assert/strict'
import { test } from 'node:test'
import { lineWith } from './machine.ts'

test('lineWith() gives the line of the match, without the menu that was drawn before it', () => {
  const text = 'one\n\u2500\u2500\u2500 Boot in 1 s. \u2500\u2500\u2500../boot.c:1@start: Error loading x: Access denied\ntwo'
  assert.equal(lineWith(text, /Error loading \S+: Access denied/), '../boot.c:1@start: Error loading x: Access denied')
  assert.equal(lineWith(text, /^two$/m), 'two')
  assert.equal(lineWith(text, /three/), undefined)
})
