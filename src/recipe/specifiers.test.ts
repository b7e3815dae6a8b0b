import assert from 'node:assert/strict'
import { test } from 'node:test'
import { expandDelayedSpecifiers, expandSpecifiers } from './specifiers.ts'

const AROUND = { fileDirectory: '/r/mkosi.conf.d', directory: '/r/conf', mainDirectory: '/r', image: 'one' }
const VALUES: Readonly<Record<string, unknown>> = {
  ...{ distribution: 'debian', release: 'sid', architecture: 'x86-64', format: 'disk' },
  ...{ output: 'out', outputDirectory: '/o', imageId: 'Id' },
}

test('expandSpecifiers() knows every specifier', () => {
  const expand = (text: string) => expandSpecifiers(text, (key) => VALUES[key], AROUND)
  assert.equal(expand('%d %r %a %t %o %O %i'), 'debian sid x86-64 disk out /o Id')
  assert.equal(expand('%C %P %D %I %F'), '/r/mkosi.conf.d /r/conf /r one ext4')
  assert.equal(expand('%% %%d 100%%'), '% %d 100%')
  assert.equal(
    expandSpecifiers('%F', () => 'fedora', AROUND),
    'btrfs',
  )
  assert.throws(() => expand('%z'), { name: 'Fault', message: /unknown specifier "%z"/ })
  assert.throws(() => expand('100%'), { name: 'Fault', message: /unknown specifier "%"/ })
})

test('expandSpecifiers() leaves out what says nothing, and tells so, when asked to', () => {
  const told: string[] = []
  const text = expandSpecifiers(
    'a%v-%z-100%',
    (key) => VALUES[key],
    AROUND,
    (why) => told.push(why),
  )
  assert.equal(text, 'a--100%')
  assert.deepEqual(told, [
    '"%v" is left out, because ImageVersion is not set yet',
    'unknown specifier "%z"; write "%%" for a percent sign',
  ])
})

test('a value that a specifier stands for is not expanded again', () => {
  assert.equal(
    expandSpecifiers('%i', () => '%d', AROUND),
    '%d',
  )
})

test('expandDelayedSpecifiers() replaces what is known when a thing is made', () => {
  assert.equal(expandDelayedSpecifiers('&e-&k-&x-&&-& &1', { e: 'Entry', k: '6.12' }), 'Entry-6.12--&-& &1')
})
