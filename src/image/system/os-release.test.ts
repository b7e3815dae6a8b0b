import assert from 'node:assert/strict'
import { test } from 'node:test'
import { extensionRelease, parseFields, withFields } from './os-release.ts'

test('withFields() sets a field in its place and appends the ones that were missing', () => {
  assert.equal(
    withFields('NAME="Debian"\nIMAGE_ID=old\nX=1', { IMAGE_ID: 'Soup', IMAGE_VERSION: '2', DEFAULT_HOSTNAME: undefined }),
    'NAME="Debian"\nIMAGE_ID="Soup"\nX=1\nIMAGE_VERSION="2"\n',
  )
})

test('withFields() takes a value as it is, dollar signs and all', () => {
  assert.equal(withFields('A=1\n', { A: '$& $1' }), 'A="$& $1"\n')
})

test('parseFields() takes quotes off and leaves out what is no assignment', () => {
  assert.deepEqual(
    [...parseFields('A="x y"\n# B=1\nC=\'z\'\nnonsense\nD=\n')],
    [
      ['A', 'x y'],
      ['C', 'z'],
      ['D', ''],
    ],
  )
})

test('extensionRelease() keeps what is said already and adds what systemd-sysext checks', () => {
  const system = 'ID=debian\nVERSION_ID="13"\nSYSEXT_LEVEL=2\n'
  const about = { kind: 'sysext', imageId: 'Spoon', imageVersion: '1', architecture: 'x86-64' } as const
  assert.equal(
    extensionRelease('ID=_any\n', system, about),
    'ID=_any\nSYSEXT_LEVEL=2\nVERSION_ID=13\nSYSEXT_ID=Spoon\nSYSEXT_VERSION_ID=1\nSYSEXT_SCOPE=initrd system portable\nARCHITECTURE=x86-64\n',
  )
  assert.match(
    extensionRelease('', '', { ...about, kind: 'confext', scope: 'system' }),
    /^ID=_any\n[\s\S]*CONFEXT_SCOPE=system\n/,
  )
})
