import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseStanzas } from '../formats/deb822.ts'
import { withDependants } from './remove.ts'

const stanza = (name: string, fields = '', status = 'install ok installed') =>
  `Package: ${name}\nStatus: ${status}\nArchitecture: amd64\n${fields}\n`

const status = parseStanzas(
  [
    stanza('soup', 'Depends: spoon (>= 1) | ladle, pot\n'),
    stanza('spoon', 'Provides: cutlery\n'),
    stanza('ladle'),
    stanza('pot', 'Multi-Arch: same\n'),
    stanza('table', 'Pre-Depends: cutlery\n'),
    stanza('house', 'Depends: table, nothing-that-is-here\n'),
    stanza('gone', 'Depends: pot\n', 'deinstall ok config-files'),
  ].join('\n'),
)

test('withDependants() takes what needs a removed package with it, as far as that goes', () => {
  assert.deepEqual(withDependants(status, ['spoon']).sort(), ['house', 'spoon', 'table'])
  assert.deepEqual(withDependants(status, ['spoon', 'ladle']).sort(), ['house', 'ladle', 'soup', 'spoon', 'table'])
})

test('withDependants() names a package as dpkg does where several architectures may be there', () => {
  assert.deepEqual(withDependants(status, ['pot']).sort(), ['pot:amd64', 'soup'])
})

test('withDependants() finds nothing for packages that are not installed', () => {
  assert.deepEqual(withDependants(status, ['gone', 'never-heard-of']), [])
})
