import assert from 'node:assert/strict'
import { test } from 'node:test'
import { reads, refuses, refusesText, takes } from '../../test/setting-types.ts'
import * as file from './file-type.ts'
import * as type from './type.ts'

test('boolean reads mkosi’s words and takes only true and false from TypeScript', () => {
  for (const word of ['yes', 'true', 'on', '1', 'y', 't', 'YES']) reads(type.boolean, word, true)
  for (const word of ['no', 'false', 'off', '0', 'n', 'f']) reads(type.boolean, word, false)
  takes(type.boolean, false, false)
  assert.equal(refuses(type.boolean, 'yes'), 'expected true or false, got "yes"')
  assert.equal(refusesText(type.boolean, 'perhaps'), 'expected yes or no, got "perhaps"')
})

test('feature adds auto', () => {
  reads(type.feature, 'auto', 'auto')
  reads(type.feature, 'off', false)
  takes(type.feature, 'auto', 'auto')
  assert.equal(refuses(type.feature, 'on'), 'expected true, false or "auto", got "on"')
})

test('always() refuses the other value and says why', () => {
  const checked = type.always(true, 'nothing unsigned is used')
  takes(checked, true, true)
  assert.equal(refuses(checked, false), 'cannot be switched off: nothing unsigned is used')
  assert.equal(refusesText(checked, 'no'), 'cannot be switched off: nothing unsigned is used')
  assert.equal(refuses(type.always(false, 'it would differ'), true), 'cannot be switched on: it would differ')
})

test('integer keeps its bounds and refuses fractions, signs and words', () => {
  reads(type.integer(0), '12', 12)
  takes(type.integer(1, 22), 22, 22)
  assert.equal(refuses(type.integer(1, 22), 23), 'expected a whole number from 1 to 22, got 23')
  assert.equal(refuses(type.integer(0), 1.5), 'expected a whole number from 0, got 1.5')
  assert.equal(refuses(type.integer(0), '1'), 'expected a whole number from 0, got "1"')
  for (const text of ['-1', '1e3', '0x10', '', 'one', '99999999999999999999']) refusesText(type.integer(0), text)
})

test('oneOf reads the number from text', () => {
  reads(type.oneOf(512, 4096), '4096', 4096)
  takes(type.oneOf(512, 4096), 512, 512)
  assert.equal(refuses(type.oneOf(512, 4096), 1024), 'expected one of 512, 4096, got 1024')
})

test('size takes bytes and text with a unit', () => {
  reads(type.size, '1G', 1024 ** 3)
  takes(type.size, 4096, 4096)
  assert.equal(refuses(type.size, -1), 'expected a size such as "512M", got -1')
  assert.equal(refusesText(type.size, 'much'), 'expected a size such as "512M", got "much"')
})

test('guid and mode take the forms people write', () => {
  reads(type.guid, '3C1D2F0A52F54C1C9A3F2F9F6C6C1B0E', '3c1d2f0a-52f5-4c1c-9a3f-2f9f6c6c1b0e')
  reads(type.mode, '0644', 0o644)
  takes(type.mode, 0o600, 0o600)
  refuses(type.guid, 'random')
  refuses(type.mode, '888')
})

test('choice names what it expects, the nearest, and what is only not supported yet', () => {
  const compression = type.choice(['none', 'zstd'], { yes: 'zstd', no: 'none', also: { zst: 'zstd' }, later: ['xz'] })
  reads(compression, 'yes', 'zstd')
  reads(compression, 'zst', 'zstd')
  takes(compression, false, 'none')
  takes(compression, 'xz', 'xz')
  assert.equal(compression.unsupported!('xz'), '"xz" is known but not supported yet; supported: none, zstd')
  assert.equal(compression.unsupported!('zstd'), undefined)
  assert.equal(refuses(compression, 'zsdt'), 'expected one of none, zstd, got "zsdt"; did you mean "zstd"?')
  assert.equal(refuses(compression, 7), 'expected one of none, zstd, got 7')
})

test('password tells hashed from plain and refuses what would break /etc/shadow', () => {
  reads(type.password, 'secret', { value: 'secret', hashed: false })
  takes(type.password, 'hashed:$y$j9T$abc', { value: '$y$j9T$abc', hashed: true })
  takes(type.password, '', { value: '', hashed: false })
  refuses(type.password, 'a\nroot2::0:0')
  refuses(type.password, 'a:b')
})

test('list splits as mkosi does and says which element is wrong', () => {
  reads(type.list(type.string), 'a, b\n c', ['a', 'b', 'c'])
  reads(type.list(type.string, 'space'), 'console=ttyS0,115200 quiet', ['console=ttyS0,115200', 'quiet'])
  reads(type.list(type.string, 'quoted space'), `a "b c" d\\ e 'f"g'`, ['a', 'b c', 'd e', 'f"g'])
  takes(type.list(file.path), ['x'], ['/recipe/x'])
  assert.equal(refuses(type.list(type.string), 5), 'expected a list of strings, got 5')
  assert.equal(refuses(type.list(type.string), 'systemd'), 'expected a list of strings, got "systemd"')
  assert.equal(refuses(type.list(type.string), ['a', 5]), 'expected strings in the list, got 5')
  assert.equal(refusesText(type.list(type.string, 'quoted space'), 'a "b'), 'expected balanced quotes, got "a \\"b"')
})

test('listOr takes yes and no for whole lists', () => {
  const split = type.listOr(type.choice(['uki', 'partitions']), ['uki', 'partitions'], [])
  reads(split, 'yes', ['uki', 'partitions'])
  reads(split, 'uki', ['uki'])
  takes(split, false, [])
  refuses(split, ['kernels'])
})

test('pairs reads KEY=value with quotes and takes a bare KEY from the environment', () => {
  reads(type.pairs(true), 'A=1 B="x y" HOME', { A: '1', B: 'x y', HOME: '/home/ada' })
  takes(type.pairs(), { A: '1' }, { A: '1' })
  assert.equal(refuses(type.pairs(), { A: 1 }), 'expected an object of strings, got A: 1')
  assert.equal(refuses(type.pairs(), ['A=1']), 'expected an object of strings, got ["A=1"]')
  reads(type.pairs(), 'HOME A=', { HOME: '', A: '' })
  assert.equal(refusesText(type.pairs(), '=x'), 'expected KEY=value, got "=x"')
})

test('a value that cannot be written as JSON is still named', () => {
  const ring: { self?: unknown } = {}
  ring.self = ring
  assert.equal(refuses(type.string, ring), 'expected a string, got [object Object]')
  assert.equal(
    refuses(type.string, () => 1),
    'expected a string, got a function',
  )
  assert.equal(refuses(type.string, 1n), 'expected a string, got 1n')
  assert.match(refuses(type.integer(), 'x'.repeat(1000)), /…$/)
})

test('a size in text counts whole blocks of 4096 bytes, as mkosi’s do', () => {
  reads(type.size, '1.5G', 1.5 * 1024 ** 3)
  reads(type.size, '5000', 8192)
  reads(type.size, '1K', 4096)
  takes(type.size, 5000, 5000)
  refusesText(type.size, '0')
  refusesText(type.size, '-1G')
})

test('feature knows mkosi’s own words too', () => {
  reads(type.feature, 'enabled', true)
  reads(type.feature, 'disabled', false)
  reads(type.boolean, 'always', true)
  reads(type.boolean, 'never', false)
})

test('values that cannot be built are read, and say what to do instead', () => {
  reads(type.keySource, 'engine:pkcs11', 'engine:pkcs11')
  assert.equal(type.keySource.unsupported!('engine:pkcs11'), undefined)
  assert.match(type.keySource.unsupported!('provider:tpm2')!, /use file or provider:pkcs11$/)
  assert.equal(type.keySource.unsupported!('file'), undefined)
  refusesText(type.keySource, 'token:1')
  const list = type.list(type.choice(['json'], { later: ['changelog'] }))
  reads(list, 'json changelog', ['json', 'changelog'])
  assert.match(list.unsupported!(['json', 'changelog'])!, /"changelog" is known/)
  assert.equal(list.unsupported!(['json']), undefined)
  const never = type.refusing(type.boolean, (on) => (on ? 'not yet' : undefined))
  assert.equal(never.unsupported!(true), 'not yet')
  assert.match(refusesText(type.seed, 'random'), /leave it out/)
})

test('words() splits as Python’s shlex does: tabs stay, quotes join, a backslash keeps what follows', () => {
  const split = (text: string) => type.words(text, 'quoted space')
  assert.deepEqual(split('a\tb c'), ['a\tb', 'c'])
  assert.deepEqual(split(`a"b c"'d e'f`), ['ab cd ef'])
  assert.deepEqual(split('"a\\"b\\\\c\\d"'), ['a"b\\c\\d'])
  assert.deepEqual(split("'a\\b'"), ['a\\b'])
  assert.deepEqual(split('a\\ b\\\nc'), ['a b\nc'])
  assert.deepEqual(split('"" a'), ['', 'a'])
  assert.deepEqual(split(''), [])
  assert.deepEqual(type.words('a\tb', 'space'), ['a\tb'])
  assert.deepEqual(type.words('a,\tb', 'comma or space'), ['a', 'b'])
})

test('packageOrder puts names before files before conditions', () => {
  assert.deepEqual(['b', '(a or b)', '/x.deb', 'a', 'B'].sort(type.packageOrder), ['B', 'a', 'b', '/x.deb', '(a or b)'])
})
