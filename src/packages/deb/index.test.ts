import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { Fault } from '../../base/fault.ts'
import { indexPackages, openIndex } from './index.ts'

const SUM = 'ab'.repeat(32)
const TEXT = `Package: postfix
Version: 3.10-1
Architecture: amd64
Multi-Arch: foreign
Source: postfix-source (3.10)
Priority: standard
Section: mail
Installed-Size: 4000
Depends: libc6 (>= 2.38), adduser | sysuser
Provides: mail-transport-agent, default-mta (= 1)
Conflicts: mail-transport-agent
Filename: pool/main/p/postfix/postfix_3.10-1_amd64.deb
Size: 5000000000
SHA256: ${SUM}
Description: Postfix é
 and a long text
 .
 that is not kept

Package: libc6
Version: 2.41-12
Architecture: amd64
essential: yes
Protected: yes
Filename: pool/libc6.deb
Size: 1
SHA256: ${SUM}
`
const stanza = (fields: Record<string, string>) => {
  const all = { Package: 'a', Version: '1', Architecture: 'all', Filename: 'a.deb', Size: '1', SHA256: SUM, ...fields }
  return Object.entries(all)
    .map(([name, value]) => `${name}: ${value}\n`)
    .join('')
}
const refused = (fields: Record<string, string>, why: RegExp) =>
  assert.throws(
    () => indexPackages(Buffer.from(stanza(fields))),
    (e) => e instanceof Fault && e.code === 'format' && why.test(e.message),
  )

test('openIndex() gives every field that resolving and fetching need', () => {
  const index = openIndex(indexPackages(Buffer.from(TEXT)))
  assert.equal(index.count, 2)
  assert.deepEqual(index.record(index.versions('postfix')[0]!), {
    name: 'postfix',
    version: '3.10-1',
    architecture: 'amd64',
    filename: 'pool/main/p/postfix/postfix_3.10-1_amd64.deb',
    source: 'postfix-source (3.10)',
    section: 'mail',
    description: 'Postfix é',
    preDepends: '',
    depends: 'libc6 (>= 2.38), adduser | sysuser',
    conflicts: 'mail-transport-agent',
    breaks: '',
    recommends: '',
    suggests: '',
    replaces: '',
    provides: 'mail-transport-agent, default-mta (= 1)',
    sizeBytes: 5_000_000_000,
    sha256: SUM,
    installedSizeBytes: 4_096_000,
    priority: 'standard',
    multiArch: 'foreign',
    essential: false,
    important: false,
  })
  assert.deepEqual(index.essentials(), [1])
  assert.equal(index.record(1).important, true)
})

test('openIndex() finds names, providers and the order of mention', () => {
  const index = openIndex(indexPackages(Buffer.from(TEXT)))
  assert.deepEqual(index.versions('libc6'), [1])
  assert.deepEqual(index.versions('adduser'), [])
  assert.deepEqual(index.providers('default-mta'), [0])
  assert.deepEqual(index.providers('postfix'), [])
  assert.deepEqual(index.names(), ['postfix', 'libc6'])
  const mentions = ['postfix', 'libc6', 'adduser', 'sysuser', 'mail-transport-agent', 'default-mta'].map(index.mention)
  assert.deepEqual(mentions, [0, 1, 2, 3, 4, 5])
  assert.equal(index.mention('nonesuch'), -1)
})

test('openIndex() reads an index of nothing', () => {
  const index = openIndex(indexPackages(new Uint8Array(0)))
  assert.equal(index.count, 0)
  assert.deepEqual(index.versions('a'), [])
})

test('indexPackages() makes the same bytes each time', () => {
  assert.deepEqual(indexPackages(Buffer.from(TEXT)), indexPackages(Buffer.from(TEXT)))
})

test('indexPackages() refuses a package that cannot be fetched safely, and names it', () => {
  refused({ Filename: '../../etc/passwd' }, /package a: its Filename "..\/..\/etc\/passwd" does not stay inside/)
  refused({ Filename: '/etc/passwd' }, /Filename/)
  refused({ Filename: 'pool//x' }, /Filename/)
  refused({ SHA256: 'ab' }, /SHA256/)
  refused({ Size: '-1' }, /Size/)
  refused({ Size: '1e9' }, /Size/)
  refused({ Version: '' }, /its Version "" is missing/)
  refused({ Version: '1 2' }, /its Version "1 2"/)
  refused({ Version: 'a:1' }, /its Version "a:1"/)
  refused({ Architecture: '' }, /its Architecture is missing/)
  refused({ Package: '../a' }, /its name is not one/)
  refused({ Package: '-a' }, /its name is not one/)
})

test('openIndex() refuses an index that is cut, grown or of another version', () => {
  const bytes = indexPackages(Buffer.from(TEXT))
  const corrupt = (changed: Uint8Array) =>
    assert.throws(
      () => openIndex(changed),
      (e) => e instanceof Fault && e.code === 'integrity' && /Cannot open a package index/.test(e.message),
    )
  corrupt(bytes.slice(0, 10))
  corrupt(bytes.slice(0, -8))
  corrupt(Buffer.concat([bytes, new Uint8Array(8)]))
  corrupt(Uint8Array.from(bytes, (b, i) => (i === 0 ? b ^ 1 : b)))
  corrupt(Uint8Array.from(bytes, (b, i) => (i === 4 ? 99 : b)))
  corrupt(Uint8Array.from(bytes, (b, i) => (i === 11 ? 255 : b)))
})

test('openIndex() survives any change of bytes: it refuses, or answers within its bounds', () => {
  const bytes = indexPackages(Buffer.from(TEXT))
  const change = fc.tuple(fc.nat(bytes.length - 1), fc.nat(255))
  fc.assert(
    fc.property(fc.array(change, { minLength: 1, maxLength: 4 }), (changes) => {
      const changed = Uint8Array.from(bytes)
      for (const [at, byte] of changes) changed[at] = byte
      try {
        const index = openIndex(changed)
        for (let i = 0; i < index.count; i++) index.versions(index.record(i).name)
        index.providers('default-mta').map(index.record)
        index.names()
      } catch (error) {
        assert.ok(error instanceof Fault, String(error))
      }
    }),
    { numRuns: 500 },
  )
})
