import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { sha256 } from '../base/digest.ts'
import { Fault } from '../base/fault.ts'
import {
  diffLocks,
  formatLock,
  formatLockChange,
  type Lock,
  lockRepository,
  packagesIn,
  parseLock,
  pinTo,
  requestDigest,
  snapshotsOf,
} from './lock.ts'
import type { Package } from './package.ts'

const packageOf = (name: string, version = '1.0', changes: Partial<Package> = {}): Package => ({
  name,
  version,
  architecture: 'amd64',
  repository: 'trixie',
  filename: `pool/main/${name[0]}/${name}/${name}_${version}_amd64.deb`,
  sizeBytes: 1234,
  sha256: sha256(`${name} ${version}`),
  ...changes,
})

const lock: Lock = {
  request: requestDigest({ packages: ['bash'] }),
  repositories: [
    {
      id: 'trixie',
      format: 'deb',
      architecture: 'amd64',
      url: 'http://deb.debian.org/debian',
      suite: 'trixie',
      components: ['main', 'non-free-firmware'],
      snapshot: '20260912T075541Z',
      digest: sha256('InRelease'),
    },
  ],
  groups: new Map([
    ['image', [packageOf('bash', '5.2.37-2+b3'), packageOf('adduser', '3.152', { architecture: 'all' })]],
    ['initrd', [packageOf('udev', '257.8-1~deb13u2')]],
    ['tools', []],
  ]),
}

const text = formatLock(lock)

const withGroup = (group: string, packages: Package[]): Lock => ({
  ...lock,
  groups: new Map([...lock.groups, [group, packages]]),
})

/** The message of the Fault about the lock after a change to its text. */
function complaint(change: (text: string) => string): string {
  const changed = change(text)
  assert.notEqual(changed, text)
  try {
    parseLock(changed, 'bisque.lock')
  } catch (error) {
    assert.ok(error instanceof Fault && error.code === 'format', String(error))
    return error.message
  }
  return assert.fail('the lock was accepted')
}

test('formatLock() writes one package a line in a stable order', () => {
  assert.equal(
    text,
    `bisque-lock 1
request ${lock.request}
repository trixie deb amd64 http://deb.debian.org/debian trixie main,non-free-firmware 20260912T075541Z ${sha256('InRelease')}
[image]
adduser 3.152 all trixie 1234 ${sha256('adduser 3.152')} pool/main/a/adduser/adduser_3.152_amd64.deb
bash 5.2.37-2+b3 amd64 trixie 1234 ${sha256('bash 5.2.37-2+b3')} pool/main/b/bash/bash_5.2.37-2+b3_amd64.deb
[initrd]
udev 257.8-1~deb13u2 amd64 trixie 1234 ${sha256('udev 257.8-1~deb13u2')} pool/main/u/udev/udev_257.8-1~deb13u2_amd64.deb
[tools]
`,
  )
  assert.equal(formatLock(withGroup('image', packagesIn(lock, 'image').toReversed())), text)
})

test('parseLock() reads back what formatLock() wrote', () => {
  assert.equal(formatLock(parseLock(text, 'bisque.lock')), text)
  assert.deepEqual(parseLock(text, 'bisque.lock').repositories, lock.repositories)
  assert.deepEqual(snapshotsOf(lock), new Map([['trixie', '20260912T075541Z']]))
})

test('parseLock() reads the groups of sub-images and build scripts, in order of their names after the three of every lock', () => {
  const groups = new Map([
    ['image:b', [packageOf('b')]],
    ...lock.groups,
    ['build', [packageOf('gcc')]],
    ['image:a', [packageOf('a')]],
  ])
  const formatted = formatLock({ ...lock, groups })
  assert.deepEqual(formatted.match(/^\[.*\]$/gm), ['[image]', '[initrd]', '[tools]', '[build]', '[image:a]', '[image:b]'])
  const parsed = parseLock(formatted, 'bisque.lock')
  assert.equal(formatLock(parsed), formatted)
  assert.deepEqual(packagesIn(parsed, 'image:b'), [packageOf('b')])
  assert.deepEqual(packagesIn(parsed, 'image:c'), [])
})

test('parseLock() either refuses with a Fault or reads what formats and parses again', () => {
  const pieces = fc.constantFrom('\n', ' ', 'x', '../', '[image]', '<<<<<<< ', '0', '-', '\0', 'é', 'repository ')
  fc.assert(
    fc.property(fc.nat(text.length), fc.nat(8), fc.array(pieces, { maxLength: 3 }), (at, cut, inserted) => {
      const changed = text.slice(0, at) + inserted.join('') + text.slice(at + cut)
      try {
        const formatted = formatLock(parseLock(changed, 'x'))
        assert.equal(formatLock(parseLock(formatted, 'x')), formatted)
      } catch (error) {
        if (!(error instanceof Fault)) throw error
      }
    }),
    { numRuns: 500 },
  )
})

test('parseLock() says where it found what it cannot take', () => {
  const cases: [what: RegExp, change: (text: string) => string][] = [
    [
      /^Cannot read the lock:\nbisque.lock:1:1: expected "bisque-lock 1", got "bisque-lock 2"/,
      (t) => t.replace('lock 1', 'lock 2'),
    ],
    [/:2:1: expected "request" and the SHA-256/, (t) => t.replace(/request ./, 'request ')],
    [/:3:12: expected the repository's name, got "-x"/, (t) => t.replace('repository trixie', 'repository -x')],
    [/:3:19: expected its format \(deb, rpm or alpm\), got "tar"/, (t) => t.replace(' deb ', ' tar ')],
    [
      /:3:\d+: expected its URL without a trailing slash, got "http:\/\/x\/"/,
      (t) => t.replace('http://deb.debian.org/debian', 'http://x/'),
    ],
    [/:3:\d+: expected its URL/, (t) => t.replace('http:', 'javascript:')],
    [/:3:\d+: expected its snapshot/, (t) => t.replace('20260912T', '2026-09-12T')],
    [/:5:15: expected its architecture, got "\.\."/, (t) => t.replace(' all ', ' .. ')],
    [/:5:19: there is no repository "sid" above/, (t) => t.replace(' all trixie', ' all sid')],
    [/:5:26: expected its size in bytes, got "1e3"/, (t) => t.replace('1234', '1e3')],
    [/:5:26: expected its size in bytes, got "01234"/, (t) => t.replace('1234', '01234')],
    [/:5:31: expected its SHA-256, got "[0-9a-f]{63}"/, (t) => t.replace(sha256('adduser 3.152'), sha256('x').slice(1))],
    [/:5:31: expected its SHA-256/, (t) => t.replace(sha256('adduser 3.152'), sha256('adduser 3.152').toUpperCase())],
    [/:5:96: ".*" is not a path below the repository/, (t) => t.replace('pool/main/a/adduser/', '../../../../etc/')],
    [/:5:96: ".*" is not a path below the repository/, (t) => t.replace('pool/main/a/adduser/', '/etc/')],
    [/:5:\d+: expected the end of the line, got "more"/, (t) => t.replace('_3.152_amd64.deb', '_3.152_amd64.deb more')],
    [/:5:1: expected the package's name, got ""/, (t) => t.replace('[image]\n', '[image]\n\n')],
    [/:6:1: adduser all appears twice in \[image\]/, (t) => t.replace(/(adduser.*\n)/, '$1$1')],
    [/:4:12: repository trixie appears twice/, (t) => t.replace(/(repository.*\n)/, '$1$1')],
    [/:4:1: expected \[image\], got "\[initrd\]"/, (t) => t.replace('[image]', '[initrd]')],
    [/:10:1: expected no further group, or .*, got "\[tools\]"/, (t) => `${t}[tools]\n`],
    [/:11:1: expected no further group, or .*, got "\[build:a\]"/, (t) => `${t}[build:b]\n[build:a]\n`],
    [/:11:1: expected no further group, or .*, got "\[build\]"/, (t) => `${t}[build]\n[build]\n`],
    [/:10:1: expected no further group, or .*, got "\[image:\.\.\/x\]"/, (t) => `${t}[image:../x]\n`],
    [/:9:1: expected \[tools\], got the end of the file/, (t) => t.replace('[tools]\n', '')],
    [/:5:1: unresolved merge conflict/, (t) => t.replace('[image]\n', '[image]\n<<<<<<< HEAD\n')],
    [/:9:1: expected a line break at the end/, (t) => t.slice(0, -1)],
    [/:1:1: expected "bisque-lock 1", got "bisque-lock 1\\r"/, (t) => t.replaceAll('\n', '\r\n')],
    [/:5:4096: expected at most 4096 characters/, (t) => t.replace('adduser', 'a'.repeat(5000))],
  ]
  for (const [what, change] of cases) assert.match(complaint(change), what)
})

test('parseLock() reports several problems at once, but not without end', () => {
  const message = complaint((t) => t.replaceAll(' amd64 trixie', ' amd64 sid'))
  assert.equal(message.split('\n').length, 3)
  assert.equal(complaint((t) => t.replace('[image]\n', `[image]\n${'x\n'.repeat(1000)}`)).split('\n').length, 11)
})

test('parseLock() refuses a text too large to be a lock', () => {
  assert.match(
    complaint((t) => t + 'x'.repeat(17 << 20)),
    /expected at most 16777216/,
  )
})

test('lockRepository() keeps the moment, and no password', () => {
  const repository = {
    ...lock.repositories[0]!,
    url: 'https://user:secret@mirror.example/debian',
    keyring: new Uint8Array(0),
    priority: 500,
  }
  const locked = lockRepository(repository, { date: new Date('2026-09-12T07:55:41Z'), digest: sha256('InRelease') })
  assert.deepEqual(locked, { ...lock.repositories[0]!, url: 'https://mirror.example/debian' })
})

test('requestDigest() does not depend on the order of keys, but on every value', () => {
  assert.equal(requestDigest({ a: 1, b: [2] }), requestDigest({ b: [2], a: 1 }))
  assert.notEqual(requestDigest({ a: 1, b: [2] }), requestDigest({ a: 1, b: [3] }))
})

test('diffLocks() tells what was added, removed, changed and rebuilt', () => {
  const image = [
    packageOf('bash', '5.2.37-2+b4'),
    packageOf('adduser', '3.152', { architecture: 'all', sha256: sha256('other') }),
  ]
  const groups = new Map([
    ...lock.groups,
    ['image', image],
    ['initrd', [packageOf('kmod', '34.2-2')]],
    ['build', [packageOf('gcc')]],
  ])
  const after: Lock = { ...lock, groups }
  const changes = diffLocks(lock, after)
  assert.deepEqual(changes.map(formatLockChange), [
    '  adduser 3.152 (rebuilt)',
    '  bash 5.2.37-2+b3 → 5.2.37-2+b4',
    '+ kmod 34.2-2',
    '- udev 257.8-1~deb13u2',
    '+ gcc 1.0',
  ])
  assert.deepEqual(
    changes.map((change) => change.group),
    ['image', 'image', 'initrd', 'initrd', 'build'],
  )
  assert.deepEqual(diffLocks(lock, lock), [])
})

test('pinTo() keeps all but the named packages where they are', () => {
  assert.deepEqual(pinTo(lock, ['bash']).get('image'), new Map([['adduser', '3.152']]))
  assert.deepEqual(pinTo(lock, []).get('initrd'), new Map([['udev', '257.8-1~deb13u2']]))
  assert.equal(pinTo(lock, 'all').size, 0)
  assert.throws(() => pinTo(lock, ['bahs', 'udev']), /Cannot update bahs: not in the lock/)
})
