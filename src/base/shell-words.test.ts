import assert from 'node:assert/strict'
import { test } from 'node:test'
import { shellWords } from './shell-words.ts'

test('shellWords() quotes what a shell would take apart, and nothing else', () => {
  assert.equal(shellWords(['bisque', 'build', '--set', 'A=b']), 'bisque build --set A=b')
  assert.equal(shellWords(['', 'a b', "it's", '$HOME', 'a;b']), `'' 'a b' 'it'\\''s' '$HOME' 'a;b'`)
})
