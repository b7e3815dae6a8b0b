import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { sha256 } from '../base/digest.ts'
import { Fault } from '../base/fault.ts'
import {
  diffLocks,
  formatLock,
  formatLockChange,
  formatLocks,
  type Lock,
  type LockedGroup,
  type Locks,
  lockName,
  lockRepository,
  narrowed,
  packagesIn,
  parseLocks,
  pinTo,
  profilesNamed,
  requestDigest,
  snapshotsOf,
  unanswered,
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

const request = requestDigest({ packages: ['bash'] })

const groupOf = (...packages: Package[]): LockedGroup => ({ request, packages })

const lock: Lock = {
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
    ['image', groupOf(packageOf('bash', '5.2.37-2+b3'), packageOf('adduser', '3.152', { architecture: 'all' }))],
    ['initrd', groupOf(packageOf('udev', '257.8-1~deb13u2'))],
    ['tools', groupOf()],
  ]),
}

const text = formatLock(lock)

const withGroup = (group: string, packages: Package[]): Lock => ({
  ...lock,
  groups: new Map([...lock.groups, [group, groupOf(...packages)]]),
})

/** The message of the Fault about the lock after a change to its text. */
function complaint(change: (text: string) => string): string {
  const changed = change(text)
  assert.notEqual(changed, text)
  try {
    parseLocks(changed, 'bisque.lock')
  } catch (error) {
    assert.ok(error instanceof Fault && error.code === 'format', String(error))
    return error.message
  }
  return assert.fail('the lock was accepted')
}

test('formatLock() writes one package a line in a stable order', () => {
  assert.equal(
    text,
    `bisque-lock 2
repository trixie deb amd64 http://deb.debian.org/debian trixie main,non-free-firmware 20260912T075541Z ${sha256('InRelease')}
[image ${request}]
adduser 3.152 all trixie 1234 ${sha256('adduser 3.152')} pool/main/a/adduser/adduser_3.152_amd64.deb
bash 5.2.37-2+b3 amd64 trixie 1234 ${sha256('bash 5.2.37-2+b3')} pool/main/b/bash/bash_5.2.37-2+b3_amd64.deb
[initrd ${request}]
udev 257.8-1~deb13u2 amd64 trixie 1234 ${sha256('udev 257.8-1~deb13u2')} pool/main/u/udev/udev_257.8-1~deb13u2_amd64.deb
[tools ${request}]
`,
  )
  assert.equal(formatLock(withGroup('image', packagesIn(lock, 'image').toReversed())), text)
})

test('parseLocks() reads back what formatLock() wrote', () => {
  const parsed = parseLocks(text, 'bisque.lock')
  assert.equal(formatLocks(parsed), text)
  assert.deepEqual([...parsed.keys()], [''])
  assert.deepEqual(parsed.get('')!.repositories, lock.repositories)
  assert.deepEqual(snapshotsOf(lock), new Map([['trixie', '20260912T075541Z']]))
})

test('parseLocks() reads the groups of sub-images and build scripts, in order of their names after image, initrd and tools', () => {
  const groups = new Map([
    ['image:b', groupOf(packageOf('b'))],
    ...lock.groups,
    ['build', groupOf(packageOf('gcc'))],
    ['image:a', groupOf(packageOf('a'))],
  ])
  const formatted = formatLock({ ...lock, groups })
  const order = [...formatted.matchAll(/^\[(\S+) [0-9a-f]{64}\]$/gm)].map((m) => m[1])
  assert.deepEqual(order, ['image', 'initrd', 'tools', 'build', 'image:a', 'image:b'])
  const parsed = parseLocks(formatted, 'bisque.lock').get('')!
  assert.equal(formatLock(parsed), formatted)
  assert.deepEqual(packagesIn(parsed, 'image:b'), [packageOf('b')])
  assert.deepEqual(packagesIn(parsed, 'image:c'), [])
})

test('parseLocks() reads the locks of several sets of profiles, which know nothing of each other', () => {
  const desktop: Lock = {
    repositories: [{ ...lock.repositories[0]!, snapshot: '20261001T000000Z' }],
    groups: new Map([['image', groupOf(packageOf('bash', '6'), packageOf('profiles'))]]),
  }
  const locks: Locks = new Map([
    ['desktop', desktop],
    ['', lock],
    [lockName(['my own', 'a,b']), desktop],
  ])
  const formatted = formatLocks(locks)
  assert.deepEqual(formatted.match(/^profiles \S+$/gm), ['profiles desktop', 'profiles my%20own,a%2Cb'])
  assert.ok(formatted.startsWith(text), 'the lock without profiles comes first')
  const parsed = parseLocks(formatted, 'bisque.lock')
  assert.equal(formatLocks(parsed), formatted)
  assert.deepEqual(parsed.get('desktop'), desktop)
  assert.deepEqual([...parsed.keys()].map(profilesNamed), [[], ['desktop'], ['my own', 'a,b']])
  assert.equal(lockName(['a', 'b', 'a']), 'a,b')
  const alone = formatLocks(new Map([['desktop', desktop]]))
  assert.deepEqual([...parseLocks(alone, 'bisque.lock').keys()], ['desktop'])
})

test('unanswered() names groups that are absent or were made for another request, whatever else there is', () => {
  const requests = (...all: string[]) => new Map(all.map((name) => [name, request]))
  assert.deepEqual(unanswered(lock, requests('image')), [])
  assert.deepEqual(unanswered(lock, requests('image', 'build')), ['build'])
  assert.deepEqual(
    unanswered(
      lock,
      new Map([
        ['image', requestDigest('other')],
        ['initrd', request],
      ]),
    ),
    ['image'],
  )
  assert.deepEqual([...narrowed(lock, new Set(['image', 'build'])).groups.keys()], ['image'])
})

test('parseLocks() either refuses with a Fault or reads what formats and parses again', () => {
  const pieces = fc.constantFrom(
    '\n',
    ' ',
    'x',
    '../',
    `[image ${request}]`,
    'profiles a',
    '<<<<<<< ',
    '0',
    '-',
    '\0',
    'é',
    'repository ',
  )
  fc.assert(
    fc.property(fc.nat(text.length), fc.nat(8), fc.array(pieces, { maxLength: 3 }), (at, cut, inserted) => {
      const changed = text.slice(0, at) + inserted.join('') + text.slice(at + cut)
      try {
        const formatted = formatLocks(parseLocks(changed, 'x'))
        assert.equal(formatLocks(parseLocks(formatted, 'x')), formatted)
      } catch (error) {
        if (!(error instanceof Fault)) throw error
      }
    }),
    { numRuns: 500 },
  )
})

test('parseLocks() says where it found what it cannot take', () => {
  const cases: [what: RegExp, change: (text: string) => string][] = [
    [
      /^Cannot read the lock:\nbisque.lock:1:1: expected "bisque-lock 2", got "bisque-lock 1"$/,
      (t) => t.replace('lock 2', 'lock 1'),
    ],
    [/:2:12: expected the repository's name, got "-x"/, (t) => t.replace('repository trixie', 'repository -x')],
    [/:2:19: expected its format \(deb, rpm or alpm\), got "tar"/, (t) => t.replace(' deb ', ' tar ')],
    [
      /:2:\d+: expected its URL without a trailing slash, got "http:\/\/x\/"/,
      (t) => t.replace('http://deb.debian.org/debian', 'http://x/'),
    ],
    [/:2:\d+: expected its URL/, (t) => t.replace('http:', 'javascript:')],
    [/:2:\d+: expected its snapshot/, (t) => t.replace('20260912T', '2026-09-12T')],
    [/:3:1: expected a group such as \[image SHA-256\], got "\[image [0-9a-f]{63}\]"/, (t) => t.replace(/\[image ./, '[image ')],
    [/:3:1: expected a group such as \[image SHA-256\], got "\[image\]"/, (t) => t.replace(/\[image .*\]/, '[image]')],
    [/:4:15: expected its architecture, got "\.\."/, (t) => t.replace(' all ', ' .. ')],
    [/:4:19: there is no repository "sid" above/, (t) => t.replace(' all trixie', ' all sid')],
    [/:4:26: expected its size in bytes, got "1e3"/, (t) => t.replace('1234', '1e3')],
    [/:4:26: expected its size in bytes, got "01234"/, (t) => t.replace('1234', '01234')],
    [/:4:31: expected its SHA-256, got "[0-9a-f]{63}"/, (t) => t.replace(sha256('adduser 3.152'), sha256('x').slice(1))],
    [/:4:31: expected its SHA-256/, (t) => t.replace(sha256('adduser 3.152'), sha256('adduser 3.152').toUpperCase())],
    [/:4:96: ".*" is not a path below the repository/, (t) => t.replace('pool/main/a/adduser/', '../../../../etc/')],
    [/:4:96: ".*" is not a path below the repository/, (t) => t.replace('pool/main/a/adduser/', '/etc/')],
    [/:4:\d+: expected the end of the line, got "more"/, (t) => t.replace('_3.152_amd64.deb', '_3.152_amd64.deb more')],
    [/:4:1: expected the package's name, got ""/, (t) => t.replace(/\[image.*\n/, '$&\n')],
    [/:5:1: adduser all appears twice in \[image\]/, (t) => t.replace(/(adduser.*\n)/, '$1$1')],
    [/:3:12: repository trixie appears twice/, (t) => t.replace(/(repository.*\n)/, '$1$1')],
    [/:3:1: expected "repository" or a group .*, got "request x"/, (t) => t.replace('[image', 'request x\n[image')],
    [/:8:1: expected a group further on in order than \[initrd\], got \[image\]/, (t) => t.replace('[tools', '[image')],
    [/:9:1: expected a group further on .* than \[tools\], got \[tools\]/, (t) => `${t}[tools ${request}]\n`],
    [/:10:1: .* than \[build:b\], got \[build:a\]/, (t) => `${t}[build:b ${request}]\n[build:a ${request}]\n`],
    [/:10:1: .* than \[build\], got \[build\]/, (t) => `${t}[build ${request}]\n[build ${request}]\n`],
    [/:9:1: expected a group such as .*, got "\[image:\.\.\/x /, (t) => `${t}[image:../x ${request}]\n`],
    [/:9:10: expected names of profiles, joined by commas, got "a,"/, (t) => `${t}profiles a,\n`],
    [/:9:10: expected names of profiles, joined by commas, got "\.\.\/x"/, (t) => `${t}profiles ../x\n`],
    [/:9:10: expected names of profiles, joined by commas, got ""/, (t) => `${t}profiles\n`],
    [/:10:10: expected profiles further on in order than "b", got "a"/, (t) => `${t}profiles b\nprofiles a\n`],
    [/:10:10: expected profiles further on in order than "a", got "a"/, (t) => `${t}profiles a\nprofiles a\n`],
    [/:11:19: there is no repository "trixie" above/, (t) => `${t}profiles a\n[image ${request}]\n${t.split('\n')[3]}\n`],
    [/:4:1: unresolved merge conflict/, (t) => t.replace(/\[image.*\n/, '$&<<<<<<< HEAD\n')],
    [/:8:1: expected a line break at the end/, (t) => t.slice(0, -1)],
    [/:1:1: expected "bisque-lock 2", got "bisque-lock 2\\r"/, (t) => t.replaceAll('\n', '\r\n')],
    [/:4:4096: expected at most 4096 characters/, (t) => t.replace('adduser', 'a'.repeat(5000))],
  ]
  for (const [what, change] of cases) assert.match(complaint(change), what)
})

test('parseLocks() reports several problems at once, but not without end', () => {
  const message = complaint((t) => t.replaceAll(' amd64 trixie', ' amd64 sid'))
  assert.equal(message.split('\n').length, 3)
  assert.equal(complaint((t) => t.replace(/\[image.*\n/, `$&${'x\n'.repeat(1000)}`)).split('\n').length, 11)
})

test('parseLocks() refuses a text too large to be a lock', () => {
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
    ['image', groupOf(...image)],
    ['initrd', groupOf(packageOf('kmod', '34.2-2'))],
    ['build', groupOf(packageOf('gcc'))],
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
