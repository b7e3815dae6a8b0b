import assert from 'node:assert/strict'
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { oracle } from '../../../test/oracle.ts'
import { prepareApt } from '../../../test/resolver/apt.ts'
import { Fault } from '../../base/fault.ts'
import { parseAptConf } from './apt-conf.ts'
import { type Pinned, parsePreferences, priorityOf } from './preferences.ts'

const PREFERENCES = `# who goes first
Package: *
Pin: release a=testing
Pin-Priority: 400

Package: systemd* udev
Pin: release n=forky, o=Debian
Pin-Priority: 990

Package: *
Pin: origin "obs.example"
Pin-Priority: 600

Package: /^lib.*-dev$/
Pin: version 2.*
Pin-Priority: -1

Package: *
Pin: release forky
Pin-Priority: 300
`

const FORKY: Pinned = { host: 'deb.example', release: { a: 'testing', n: 'forky', o: 'Debian', l: 'Debian' } }
const OBS: Pinned = { host: 'obs.example', release: {} }

// biome-ignore format: table
const CASES: [name: string, version: string, from: Pinned, expected: number | undefined][] = [
  ['systemd',     '1.0', FORKY, 990],
  ['systemd-dev', '1.0', FORKY, 990],
  ['bash',        '1.0', FORKY, 400],
  ['bash',        '1.0', OBS,   600],
  ['udev',        '1.0', OBS,   600],
  ['libx-dev',    '2.1', FORKY, -1],
  ['libx-dev',    '1.0', FORKY, 400],
  ['bash',        '1.0', { host: 'other.example', release: { a: 'stable', n: 'trixie' } }, undefined],
]

test('priorityOf() lets records for packages go before those for all, and the first that matches decide', () => {
  const preferences = parsePreferences(PREFERENCES, 'preferences')
  for (const [name, version, from, expected] of CASES)
    assert.equal(priorityOf(preferences, { name, version }, from), expected, name)
})

test('parsePreferences() says which record it cannot take', () => {
  const complaint = (text: string) => {
    try {
      parsePreferences(text, 'etc/apt/preferences')
    } catch (error) {
      assert.ok(error instanceof Fault && error.code === 'recipe', String(error))
      return error.message
    }
    return assert.fail('it was accepted')
  }
  assert.match(
    complaint('Package: *\nPin: release a=x\n'),
    /^Cannot read etc\/apt\/preferences: record 1: expected Package, Pin and Pin-Priority/,
  )
  assert.match(complaint('Package: *\nPin: release a=x\nPin-Priority: high\n'), /Pin-Priority "high" is no number/)
  assert.match(
    complaint('Package: *\nPin: colour red\nPin-Priority: 1\n'),
    /Pin "colour red" is none of release, origin and version/,
  )
  assert.match(complaint('Package: *\nPin: release q=x\nPin-Priority: 1\n'), /Pin: release "q=x" is not supported/)
  assert.match(complaint('Package: src:x\nPin: version 1\nPin-Priority: 1\n'), /src: names are not supported/)
  assert.match(complaint('Package: *\nPin: version 1\nPin-Priority: 1\n'), /Pin: version needs names/)
  assert.match(complaint('Package: /(/\nPin: version 1\nPin-Priority: 1\n'), /is not a pattern/)
})

oracle('apt-cache', 'priorityOf() gives versions the priorities that apt gives them', async (_, judge) => {
  prepareApt(judge.dir, [])
  writeFileSync(join(judge.dir, 'etc/preferences.d/x'), PREFERENCES)
  writeFileSync(
    join(judge.dir, 'etc/sources.list'),
    'deb [trusted=yes] http://deb.example/debian forky main\ndeb [trusted=yes] http://obs.example/x ./\n',
  )
  const release = 'Origin: Debian\nLabel: Debian\nSuite: testing\nCodename: forky\nDate: Mon, 23 Nov 2026 06:00:00 UTC\n'
  const stanza = (name: string, version: string) =>
    `Package: ${name}\nVersion: ${version}\nArchitecture: amd64\nFilename: ${name}.deb\nSize: 1\nSHA256: ${'0'.repeat(64)}\n`
  const packages = (from: Pinned) =>
    CASES.flatMap(([name, version, place]) => (place === from ? stanza(name, version) : [])).join('\n')
  const lists = join(judge.dir, 'state/lists')
  mkdirSync(lists, { recursive: true })
  writeFileSync(join(lists, 'deb.example_debian_dists_forky_Release'), release)
  writeFileSync(join(lists, 'deb.example_debian_dists_forky_main_binary-amd64_Packages'), packages(FORKY))
  writeFileSync(join(lists, 'obs.example_x_._Release'), 'Date: Mon, 23 Nov 2026 06:00:00 UTC\n')
  writeFileSync(join(lists, 'obs.example_x_._Packages'), packages(OBS))
  assert.equal(readdirSync(lists).length, 5)
  const names = [...new Set(CASES.map(([name]) => name))]
  const { stdout } = await judge.run(['env', `APT_CONFIG=${join(judge.dir, 'apt.conf')}`, 'apt-cache', 'policy', ...names])
  const theirs: string[] = []
  let [name, version] = ['', '']
  for (const line of stdout.split('\n')) {
    name = /^(\S+):$/.exec(line)?.[1] ?? name
    version = /^ {5}(\S+) (-?\d+)$/.exec(line)?.[1] ?? version
    // The priority of a version is its own where a record names the package, else that of where it is from.
    const own = /^ {5}\S+ (-?\d+)$/.exec(line)?.[1]
    if (own !== undefined) theirs.push(`${name} ${version} ${own}`)
  }
  const preferences = parsePreferences(PREFERENCES, 'x')
  const best = new Map<string, number>()
  for (const [name, version, from] of CASES.slice(0, -1)) {
    const key = `${name} ${version}`
    best.set(key, Math.max(best.get(key) ?? -Infinity, priorityOf(preferences, { name, version }, from)!))
  }
  assert.deepEqual(theirs.sort(), [...best].map(([key, priority]) => `${key} ${priority}`).sort())
})

const CONF = `// apt's own way to write
Acquire::Check-Valid-Until "false";
APT {
  Install-Recommends "true"; # so
  Architectures { "amd64"; "i386"; };
  Periodic::Enable 0;
};
/* Acquire::Off "1"; */
DPkg::Options:: "--force-confold";
`

test('parseAptConf() reads options in blocks, lists and without quotes', () => {
  assert.deepEqual(parseAptConf(CONF, 'apt.conf'), [
    ['Acquire::Check-Valid-Until', 'false'],
    ['APT::Install-Recommends', 'true'],
    ['APT::Architectures', 'amd64'],
    ['APT::Architectures', 'i386'],
    ['APT::Periodic::Enable', '0'],
    ['DPkg::Options::', '--force-confold'],
  ])
})

test('parseAptConf() says where it cannot read on', () => {
  assert.throws(() => parseAptConf('A {\n  B "1";\n', 'x.conf'), /Cannot read x\.conf:3: A { is not closed/)
  assert.throws(() => parseAptConf('A "1";\n}\n', 'x.conf'), /Cannot read x\.conf:2: there is nothing to close/)
  assert.throws(() => parseAptConf('A "1\n";\n', 'x.conf'), /Cannot read x\.conf:1: /)
  assert.throws(() => parseAptConf('A {'.repeat(1000), 'x.conf'), /more than 100 blocks/)
})

oracle('apt-config', 'parseAptConf() reads what apt reads', async (_, judge) => {
  writeFileSync(join(judge.dir, 'x.conf'), CONF)
  const { stdout } = await judge.run(['env', 'APT_CONFIG=/dev/null', 'apt-config', '-c', join(judge.dir, 'x.conf'), 'dump'])
  for (const [name, value] of parseAptConf(CONF, 'x.conf')) {
    const plain = name.replace(/::$/, '')
    assert.ok(stdout.includes(`${plain} "${value}";`) || stdout.includes(`${plain}:: "${value}";`), name)
  }
})
