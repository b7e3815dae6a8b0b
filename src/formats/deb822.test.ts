import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { oracle } from '../../test/oracle.ts'
import { Fault } from '../base/fault.ts'
import { field, formatStanzas, parseStanza, parseStanzas, scanStanzas } from './deb822.ts'

const TEXT = `Package: bash
Version: 5.2.37-2+b5
Depends: base-files (>= 2.1.12),
 debianutils (>= 5.6-0.1)
Description: GNU Bourne Again SHell
 Bash is an sh-compatible command language interpreter.
 .
  Indented further.

package: dash
VERSION:0.5.12-12
SHA256:
 00ff 12 a
 11ff 13 b
`

const name = fc.stringMatching(/^[A-Za-z][A-Za-z0-9-]{0,20}$/)
const line = fc.stringMatching(/^[!-~é]([ -~é]{0,30}[!-~é])?$/)
const value = fc
  .tuple(fc.oneof(line, fc.constant('')), fc.array(line, { maxLength: 3 }))
  .map(([a, rest]) => [a, ...rest].join('\n'))
const stanza = fc.uniqueArray(fc.tuple(name, value), { minLength: 1, maxLength: 6, selector: ([n]) => n.toLowerCase() })

const show = (name: string) => `\${${name}}`

const refused = (text: string, why: RegExp) =>
  assert.throws(
    () => parseStanzas(text, 'Packages'),
    (e) => e instanceof Fault && e.code === 'format' && why.test(e.message),
  )

test('parseStanzas() reads folded values and keeps the lines of a description', () => {
  const [bash, dash] = parseStanzas(TEXT)
  assert.equal(bash!.get('Depends'), 'base-files (>= 2.1.12),\ndebianutils (>= 5.6-0.1)')
  assert.equal(
    bash!.get('Description'),
    'GNU Bourne Again SHell\nBash is an sh-compatible command language interpreter.\n.\n Indented further.',
  )
  assert.equal(field(dash!, 'Version'), '0.5.12-12')
  assert.equal(field(dash!, 'sha256'), '\n00ff 12 a\n11ff 13 b')
  assert.equal(field(dash!, 'Depends'), undefined)
})

test('parseStanzas() gives back what formatStanzas() took', () => {
  fc.assert(
    fc.property(fc.array(stanza, { maxLength: 4 }), (stanzas) => {
      const maps = stanzas.map((s) => new Map(s))
      assert.deepEqual(parseStanzas(formatStanzas(maps)), maps)
    }),
  )
})

test('scanStanzas() finds the same values as parseStanzas()', () => {
  const bytes = Buffer.from(TEXT)
  const seen: (string | undefined)[][] = []
  const count = scanStanzas(bytes, ['Package', 'Version', 'Depends'], (spans) => {
    seen.push([0, 1, 2].map((i) => (spans[2 * i]! < 0 ? undefined : bytes.toString('utf8', spans[2 * i], spans[2 * i + 1]))))
  })
  assert.equal(count, 2)
  assert.deepEqual(seen, [
    ['bash', '5.2.37-2+b5', 'base-files (>= 2.1.12),\n debianutils (>= 5.6-0.1)'],
    ['dash', '0.5.12-12', undefined],
  ])
})

test('parseStanzas() accepts several blank lines, no final newline, and carriage returns', () => {
  assert.deepEqual(parseStanzas('\n\nA: 1\r\n\r\n\n\nB: 2'), [new Map([['A', '1']]), new Map([['B', '2']])])
  assert.deepEqual(parseStanzas(''), [])
})

test('parseStanzas() refuses lines that are neither a field nor a continuation, and names them', () => {
  refused(' orphan\n', /Cannot read Packages, line 1: a continuation line without a field/)
  refused('A: 1\n\n lost\n', /line 3: a continuation line without a field/)
  refused('A: 1\nnonsense\n', /line 2: expected "Name: value"/)
  refused('A: 1\nB', /line 2: expected "Name: value"/)
  refused(': 1\n', /line 1: not a field name/)
  refused('-----BEGIN: x\n', /not a field name/)
  refused('A: 1\n  \n b\n', /line 2: a continuation line without text/)
  refused('A: 1\0\n', /NUL/)
  refused('A: 1\nB: 2\na: 3\n', /line 3: field a appears twice/)
})

test('parseStanzas() refuses a stanza with more fields than any package has', () => {
  refused(Array.from({ length: 1001 }, (_, i) => `F${i}: x\n`).join(''), /more than 1000 fields/)
})

test('parseStanza() refuses two stanzas and none', () => {
  assert.throws(() => parseStanza('A: 1\n\nB: 2\n', 'control'), /Cannot read control: expected one stanza, found 2/)
  assert.throws(() => parseStanza('', 'control'), /found none/)
})

test('formatStanzas() refuses a value that would end its stanza early', () => {
  assert.throws(() => formatStanzas([new Map([['A', 'x\n\nEvil: 1']])]), /Cannot write field A/)
  assert.throws(() => formatStanzas([new Map([['A: b\nC', 'x']])]), /not a field name/)
})

oracle('dpkg-query', 'dpkg-query reads the status file we wrote', async (_, judge) => {
  const { mkdirSync, writeFileSync } = await import('node:fs')
  mkdirSync(`${judge.dir}/updates`)
  mkdirSync(`${judge.dir}/info`)
  const description = 'a test\nwith a long text\n.\n  and a list'
  const fields = { Package: 'foo', Status: 'install ok installed', Maintainer: 'x', Architecture: 'amd64', Version: '1:2-3' }
  writeFileSync(
    `${judge.dir}/status`,
    formatStanzas([new Map(Object.entries({ ...fields, Depends: 'a,\nb (>= 2)', Description: description }))]),
  )
  const format = ['Package', 'Version', 'Depends', 'Description'].map(show).join('|')
  const { stdout } = await judge.run(['dpkg-query', `--admindir=${judge.dir}`, '-W', '-f', format])
  assert.equal(stdout, 'foo|1:2-3|a, b (>= 2)|a test\n with a long text\n .\n   and a list')
})

oracle('dpkg-query', 'parseStanzas() reads the database that dpkg itself wrote', async (_, judge) => {
  const root = `${judge.dir}/root`
  const build =
    'mkdir -p p/DEBIAN root/var/lib/dpkg/info root/var/lib/dpkg/updates; touch root/var/lib/dpkg/status; cd p; cat >DEBIAN/control'
  for (const name of ['soup', 'stock']) {
    const control = `Package: ${name}\nVersion: 1:2~rc1-${name.length}\nArchitecture: all\nMaintainer: A Cook <cook@example.org>\nDescription: ${name}\n Long text,\n .\n after a blank line.\n`
    await judge.run(['sh', '-c', `cd ${judge.dir}; ${build}`], { input: control })
    await judge.run([
      'sh',
      '-c',
      `cd ${judge.dir}; dpkg-deb --build p ${name}.deb && dpkg --root=${root} --force-not-root --force-script-chrootless --log=/dev/null --unpack ${name}.deb`,
    ])
  }
  const listed = await judge.run([
    'dpkg-query',
    `--admindir=${root}/var/lib/dpkg`,
    '-W',
    '-f',
    `${show('Package')} ${show('Version')}\n`,
  ])
  const ours = parseStanzas((await judge.run(['cat', `${root}/var/lib/dpkg/status`])).stdout, 'status').map(
    (s) => `${s.get('Package')} ${s.get('Version')}`,
  )
  assert.equal(ours.length, 2)
  assert.deepEqual(ours.sort(), listed.stdout.trim().split('\n').sort())
})
