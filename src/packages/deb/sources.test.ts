import assert from 'node:assert/strict'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import fc from 'fast-check'
import { oracle } from '../../../test/oracle.ts'
import { prepareApt } from '../../../test/resolver/apt.ts'
import { Fault } from '../../base/fault.ts'
import { parseSources } from './sources.ts'

const STANZAS = `# SPDX-License-Identifier: MIT
Types: deb deb-src
URIs: http://a.example/debian http://b.example/
Suites: x x-updates
Components: main contrib
Architectures: amd64 arm64
Check-Valid-Until: no
Signed-By: /etc/apt/keyrings/a.gpg

Enabled: no
Types: deb
URIs: http://off.example
Suites: off
Components: main

Types: deb
URIs: http://flat.example/repo/
Suites: /
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mQINBGeRJx8BEADqKZE5kFgSgfWDAyxe00hPpFkallYzPH7w2qHLXAZxeRo3tlHf
 -----END PGP PUBLIC KEY BLOCK-----

Types: deb-src
URIs: http://source.example
Suites: x
Components: main

Types: deb
URIs: http://flat.example/pool
Suites: ./sub/dir/
Targets: Packages
`

const LINES = `# one a line
deb [ arch=amd64,arm64 signed-by=/k.gpg check-valid-until=no lang=de ] http://c.example/debian sid main non-free # so
deb-src http://c.example/debian sid main

deb http://d.example ./
`

function complaint(text: string, path = 'x.sources'): string {
  try {
    parseSources(text, path)
  } catch (error) {
    assert.ok(error instanceof Fault, String(error))
    return error.message
  }
  return assert.fail('it was accepted')
}

test('parseSources() reads stanzas: every URI with every suite, flat places, keys by path or in the file', () => {
  const { sources, notes } = parseSources(STANZAS, 'x.sources')
  const places = sources.map((s) => [s.url, s.suite, s.components.join(' ')])
  assert.deepEqual(places, [
    ['http://a.example/debian', 'x', 'main contrib'],
    ['http://a.example/debian', 'x-updates', 'main contrib'],
    ['http://b.example', 'x', 'main contrib'],
    ['http://b.example', 'x-updates', 'main contrib'],
    ['http://flat.example/repo', '/', ''],
    ['http://flat.example/pool', 'sub/dir/', ''],
  ])
  assert.deepEqual(sources[0]!.signedBy, ['/etc/apt/keyrings/a.gpg'])
  assert.equal(sources[0]!.checkValidUntil, false)
  assert.deepEqual(sources[0]!.architectures, ['amd64', 'arm64'])
  const key = sources[4]!.signedBy as { certificate: string }
  assert.match(key.certificate, /^-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmQIN.*\n-----END PGP PUBLIC KEY BLOCK-----\n$/)
  assert.equal(sources[5]!.signedBy, undefined)
  assert.deepEqual(notes, ['x.sources: stanza 5: targets without effect'])
})

test('parseSources() reads one source a line, with options', () => {
  const { sources, notes } = parseSources(LINES, 'x.list')
  assert.deepEqual(
    sources.map(({ url, suite, components, architectures, checkValidUntil, signedBy }) => ({
      url,
      suite,
      components,
      architectures,
      checkValidUntil,
      signedBy,
    })),
    [
      {
        url: 'http://c.example/debian',
        suite: 'sid',
        components: ['main', 'non-free'],
        architectures: ['amd64', 'arm64'],
        checkValidUntil: false,
        signedBy: ['/k.gpg'],
      },
      { url: 'http://d.example', suite: '/', components: [], architectures: [], checkValidUntil: true, signedBy: undefined },
    ],
  )
  assert.deepEqual(notes, ['x.list:2: languages without effect'])
})

test('parseSources() refuses what no key vouches for, and says where', () => {
  const stanza = (more: string) => `Types: deb\nURIs: http://x\nSuites: x\nComponents: main\n${more}\n`
  assert.match(
    complaint(stanza('Trusted: yes')),
    /x\.sources: stanza 1: trusted is not possible, because nothing is used that no key signed/,
  )
  assert.match(complaint(stanza('Allow-Insecure: yes')), /allow-insecure is not possible/)
  assert.match(complaint('deb [trusted=yes] http://x x main\n', 'x.list'), /x\.list:1: trusted is not possible/)
  assert.equal(parseSources(stanza('Trusted: no'), 'x.sources').sources.length, 1)
})

test('parseSources() refuses places that are none, all at once', () => {
  const message = complaint(
    'deb file:///x ./\ndeb http://x ../../up/ \ndeb http://x sid\ndeb http://x ./ main\ndeb\nrpm http://x x y\n',
    'x.list',
  )
  assert.match(message, /:1: "file:\/\/\/x" is no http/)
  assert.match(message, /:2: "\.\.\/\.\.\/up\/" is no suite/)
  assert.match(message, /:3: suite sid needs a component/)
  assert.match(message, /:4: flat repository \.\/ has no components/)
  assert.match(message, /:5: expected "deb URI SUITE COMPONENT…", got "deb"/)
  assert.match(message, /:6: type "rpm" is neither deb nor deb-src/)
  assert.match(complaint('Types: deb\nSuites: x\n'), /stanza 1 has no URIs/)
  assert.match(complaint('deb http://x x main/../../y\n', 'x.list'), /are no components/)
})

test('parseSources() reads or refuses any text', () => {
  const words = fc.constantFrom(
    'deb',
    ' ',
    '\n',
    'Types: deb',
    'URIs:',
    'http://x',
    '[',
    ']',
    'a=b',
    './',
    '\n\n',
    ' .\n',
    '#',
    ':',
    'é',
  )
  fc.assert(
    fc.property(fc.array(words, { maxLength: 20 }), fc.boolean(), (parts, stanzas) => {
      try {
        parseSources(parts.join(''), stanzas ? 'x.sources' : 'x.list')
      } catch (error) {
        if (!(error instanceof Fault)) throw error
      }
    }),
  )
})

oracle('apt-get', 'parseSources() finds the repositories that apt finds', async (_, judge) => {
  prepareApt(judge.dir, [])
  mkdirSync(join(judge.dir, 'etc/sources.list.d'))
  writeFileSync(join(judge.dir, 'etc/sources.list.d/a.sources'), STANZAS)
  writeFileSync(join(judge.dir, 'etc/sources.list'), LINES.replace(/^deb-src.*\n/m, ''))
  const format = ['--no-release-info', '--format', '$(URI) $(ARCHITECTURE)', 'Created-By: Packages']
  const { stdout } = await judge.run(['env', `APT_CONFIG=${join(judge.dir, 'apt.conf')}`, 'apt-get', 'indextargets', ...format])
  const theirs = stdout
    .split('\n')
    .flatMap((line) => /^(\S*?)(?:\/binary-amd64)?(?:\/\.)*\/Packages (?!all)/.exec(line)?.[1] ?? [])
  const all = [...parseSources(LINES, 'x.list').sources, ...parseSources(STANZAS, 'x.sources').sources]
  const ours = all.flatMap(({ url, suite, components }) =>
    components.length === 0
      ? `${url}/${suite}`.replace(/\/+$/, '')
      : components.map((component) => `${url}/dists/${suite}/${component}`),
  )
  assert.deepEqual(
    new Set(ours),
    new Set(theirs.filter((place) => !/\/binary-(all|arm64)$/.test(place)).map((place) => place.replace('/./', '/'))),
  )
})
