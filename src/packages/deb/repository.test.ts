import assert from 'node:assert/strict'
import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { gzipSync } from 'node:zlib'
import fc from 'fast-check'
import { xzSync } from 'node-liblzma'
import { revokeKey } from 'openpgp'
import {
  type ArchiveOptions,
  archiveRepository,
  clearSign,
  detachSign,
  makeArchive,
  makeKey,
  NOW,
  releaseText,
} from '../../../test/archive.ts'
import { oracle } from '../../../test/oracle.ts'
import { type Answer, serve } from '../../../test/server.ts'
import { sha256 } from '../../base/digest.ts'
import { Fault, type FaultCode } from '../../base/fault.ts'
import { type Event, Report } from '../../base/report.ts'
import { openStore } from '../../store/store.ts'
import type { Repository } from '../repository.ts'
import { DEBIAN_MIRROR, debianRepositories } from './debian.ts'
import { type LoadOptions, loadRepository } from './repository.ts'
import { openInRelease } from './signature.ts'

const quiet = new Report(() => {})
const key = await makeKey()
const stranger = await makeKey('Stranger')
const quick = { retries: 1, backoffMs: 5, stallTimeoutMs: 10_000 }

function scratch(t: TestContext): string {
  const dir = mkdtempSync(join(tmpdir(), 'bisque-repository-'))
  t.after(() => rmSync(dir, { recursive: true, force: true }))
  return dir
}

/** Serves an archive and returns how to load it. */
async function archive(t: TestContext, options: Partial<ArchiveOptions> = {}, answers: Record<string, Answer> = {}) {
  const files = await makeArchive({ keys: [key], ...options })
  const server = await serve(t, files, answers)
  const store = await openStore(scratch(t))
  const load = (changes: Partial<Repository> = {}, more: Partial<LoadOptions> = {}, report = quiet) =>
    loadRepository(archiveRepository(server.url, key.certificate, changes), { store, now: NOW, network: quick, ...more }, report)
  return { files, server, store, load }
}

const faulty = (code: FaultCode, message: RegExp) => (error: unknown) => {
  assert.ok(error instanceof Fault, String(error))
  assert.match(error.message, message)
  assert.equal(error.code, code)
  return true
}

test('loadRepository() verifies and indexes an archive', async (t) => {
  const { files, server, load } = await archive(t, { packages: [{ name: 'hello' }, { name: 'jq', version: '1.7.1-6' }] })
  const { index, release } = await load()
  assert.equal(index.count, 2)
  assert.equal(index.record(index.versions('jq')[0]!).version, '1.7.1-6')
  assert.equal(release.codename, 'test')
  assert.equal(release.date.toISOString(), '2026-11-23T06:00:00.000Z')
  assert.equal(release.digest, sha256(files.get('dists/test/InRelease')!))
  assert.match(server.requests[1]!, /by-hash\/SHA256\/[0-9a-f]{64}$/)
})

test('loadRepository() asks once, conditionally, for an unchanged repository and not at all offline', async (t) => {
  const { server, load } = await archive(t)
  await load()
  server.requests.length = 0
  await load()
  assert.deepEqual(server.requests, ['GET /dists/test/InRelease'])
  server.requests.length = 0
  assert.equal((await load({}, { offline: true })).index.count, 1)
  assert.deepEqual(server.requests, [])
})

test('loadRepository() names what is not cached when offline', async (t) => {
  const { load } = await archive(t)
  await assert.rejects(load({}, { offline: true }), faulty('fetch', /offline: its metadata is not in the cache/))
})

test('loadRepository() says offline that cached metadata has expired, and goes on', async (t) => {
  const { load } = await archive(t)
  await load()
  const events: Event[] = []
  const later = { now: new Date('2027-02-01T00:00:00Z') }
  await load({}, { ...later, offline: true }, new Report((event) => events.push(event)))
  assert.ok(events.some((event) => event.type === 'note' && /valid until 2026-11-30/.test(event.message)))
  await assert.rejects(load({}, later), faulty('integrity', /valid until 2026-11-30T06:00:00Z, now is 2027-02-01T00:00:00Z/))
})

test('loadRepository() accepts one good signature among others', async (t) => {
  const { load } = await archive(t, { keys: [stranger, key] })
  assert.equal((await load()).index.count, 1)
})

test('loadRepository() refuses a signature by a key outside the keyring', async (t) => {
  const { load } = await archive(t, { keys: [stranger] })
  await assert.rejects(load(), faulty('integrity', /no signature is good: key [0-9A-F]{16}: not in the keyring/))
})

test('loadRepository() refuses signed text that was changed', async (t) => {
  const { files, load } = await archive(t)
  const text = files.get('dists/test/InRelease')!.toString()
  files.set('dists/test/InRelease', Buffer.from(text.replace('Suite: testing', 'Suite: testinG')))
  await assert.rejects(load(), faulty('integrity', /no signature is good: .*digest did not match/))
})

test('loadRepository() refuses metadata without a signature', async (t) => {
  const { files, load } = await archive(t)
  files.set('dists/test/InRelease', Buffer.from(releaseText({}, [])))
  await assert.rejects(load(), faulty('integrity', /line 1: expected -----BEGIN PGP SIGNED MESSAGE/))
  files.delete('dists/test/InRelease')
  files.set('dists/test/Release', Buffer.from(releaseText({}, [])))
  await assert.rejects(load(), faulty('integrity', /neither InRelease nor Release.gpg/))
})

test('loadRepository() takes Release and Release.gpg where there is no InRelease', async (t) => {
  const { files, load } = await archive(t)
  const inRelease = files.get('dists/test/InRelease')!.toString()
  const text = `${/\n\n([\s\S]*?)\n-----BEGIN PGP SIGNATURE/.exec(inRelease)![1]!}\n`
  files.delete('dists/test/InRelease')
  files.set('dists/test/Release', Buffer.from(text))
  files.set('dists/test/Release.gpg', Buffer.from(await detachSign(text, [key])))
  assert.equal((await load()).index.count, 1)
  assert.equal((await load({}, { offline: true })).index.count, 1)
  files.set('dists/test/Release', Buffer.from(text.replace('Suite: testing', 'Suite: other')))
  await assert.rejects(load(), faulty('integrity', /no signature is good/))
})

test('loadRepository() refuses text outside the signed block', async (t) => {
  const { files, load } = await archive(t)
  const good = files.get('dists/test/InRelease')!.toString()
  const evil = releaseText({ Codename: 'evil' }, [])
  const attempts = {
    before: `${evil}\n${good}`,
    after: `${good}\n${evil}`,
    'in the headers': good.replace('Hash: ', `Suite: evil\nHash: `),
    'in a comment header': good.replace('Hash: ', `Comment: x\nHash: `),
    'between body and signature': good.replace(
      '-----BEGIN PGP SIGNATURE',
      '-----BEGIN PGP MESSAGE-----\n-----BEGIN PGP SIGNATURE',
    ),
    'in a second message': `${good}\n${good}`,
  }
  for (const [where, text] of Object.entries(attempts)) {
    files.set('dists/test/InRelease', Buffer.from(text))
    await assert.rejects(load(), faulty('integrity', /Cannot trust .* test: line \d+: /), where)
  }
})

test('loadRepository() refuses a signature block with nothing in it', async (t) => {
  const { files, load } = await archive(t)
  const good = files.get('dists/test/InRelease')!.toString()
  const empty = '-----BEGIN PGP SIGNATURE-----\n\n=twTO\n-----END PGP SIGNATURE-----\n'
  files.set('dists/test/InRelease', Buffer.from(good.replace(/-----BEGIN PGP SIGNATURE[\s\S]*/, empty)))
  await assert.rejects(load(), faulty('integrity', /not signed|signature is unreadable/))
})

test('loadRepository() refuses a key that expired, unless the archive is frozen', async (t) => {
  const brief = await makeKey('Brief', { keyExpirationTime: 330 * 86_400 }) // until 2026-11-27
  const { load } = await archive(t, { keys: [brief], release: { 'Valid-Until': undefined } })
  const keyring = brief.certificate
  assert.equal((await load({ keyring })).index.count, 1)
  const now = new Date('2026-12-24T00:00:00Z')
  await assert.rejects(load({ keyring }, { now }), faulty('integrity', /expired/))
  assert.equal((await load({ keyring, allowExpired: true }, { now })).index.count, 1)
})

test('loadRepository() refuses a key that was revoked', async (t) => {
  const burnt = await makeKey('Burnt')
  const { load } = await archive(t, { keys: [burnt] })
  assert.equal((await load({ keyring: burnt.certificate })).index.count, 1)
  const { publicKey } = await revokeKey({ key: burnt.sign, date: new Date('2026-11-01T00:00:00Z'), format: 'object' })
  const keyring = Buffer.from(publicKey.armor())
  await assert.rejects(load({ keyring }), faulty('integrity', /revoked/))
  await assert.rejects(load({ keyring, allowExpired: true }), faulty('integrity', /revoked/))
})

test('loadRepository() refuses a keyring that holds no key', async (t) => {
  const { load } = await archive(t)
  await assert.rejects(load({ keyring: new Uint8Array(0) }), faulty('recipe', /Cannot use the keyring/))
  await assert.rejects(load({ keyring: Buffer.from('nonsense') }), faulty('recipe', /Cannot use the keyring/))
})

test('loadRepository() refuses metadata past its Valid-Until, unless the archive is frozen', async (t) => {
  const { load } = await archive(t, { release: { 'Valid-Until': 'Mon, 23 Nov 2026 11:00:00 UTC' } })
  await assert.rejects(load(), faulty('integrity', /valid until 2026-11-23T11:00:00Z, now is 2026-11-23T12:00:00Z/))
  assert.equal((await load({ allowExpired: true })).index.count, 1)
})

test('loadRepository() refuses a Date in the future', async (t) => {
  const { load } = await archive(t, { release: { Date: 'Mon, 23 Nov 2026 13:00:00 UTC' } })
  await assert.rejects(load(), faulty('integrity', /dated 2026-11-23T13:00:00Z, in the future/))
})

test('loadRepository() says at once that suite, architecture and component are not those asked for', async (t) => {
  const { load } = await archive(t, { release: { Codename: 'other', Architectures: 'arm64', Components: 'contrib' } })
  await assert.rejects(
    load(),
    faulty('integrity', /expected suite test, got codename "other", suite "testing"; .*architecture amd64.*component main/),
  )
})

test('loadRepository() finds the components of the security archive', async (t) => {
  const { load } = await archive(t, { release: { Components: 'updates/main' } })
  assert.equal((await load()).index.count, 1)
})

test('loadRepository() refuses a tampered, shorter or longer Packages', async (t) => {
  const changes: Record<string, (bytes: Buffer) => Buffer> = {
    tampered: (bytes) => Buffer.from(bytes.map((byte, i) => (i === 40 ? byte ^ 1 : byte))),
    shorter: (bytes) => bytes.subarray(1),
    longer: (bytes) => Buffer.concat([bytes, Buffer.from('x')]),
  }
  for (const [name, change] of Object.entries(changes)) {
    const { load } = await archive(t, { tamper: (_path, bytes) => change(bytes) })
    await assert.rejects(load(), faulty('integrity', /Cannot trust http.*: expected (\d+ bytes|SHA-256)/), name)
  }
})

test('loadRepository() takes the plain name where by-hash is not served', async (t) => {
  const { files, server, load } = await archive(t)
  for (const path of files.keys()) if (path.includes('by-hash')) files.delete(path)
  assert.equal((await load()).index.count, 1)
  assert.equal(server.requests.at(-1), 'GET /dists/test/main/binary-amd64/Packages.xz')
})

test('loadRepository() reads gzip and plain indexes where there is no xz', async (t) => {
  for (const suffixes of [['.gz'], ['']] as const) {
    const { load } = await archive(t, { suffixes })
    assert.equal((await load()).index.count, 1)
  }
})

test('loadRepository() reads packages of architecture all from their own index where the archive keeps them apart', async (t) => {
  const { files, load } = await archive(t)
  const other = await makeArchive({ keys: [key], packages: [{ name: 'docs', architecture: 'all' }] })
  const indexes = [
    ['main/binary-amd64/Packages', files.get('dists/test/main/binary-amd64/Packages')!],
    ['main/binary-all/Packages', other.get('dists/test/main/binary-amd64/Packages')!],
  ] as const
  const listed = indexes.map(([path, bytes]) => ` ${sha256(bytes)} ${bytes.length} ${path}`)
  for (const [path, bytes] of indexes) files.set(`dists/test/${path}`, bytes)
  for (const [support, count] of [
    [undefined, 2],
    ['Packages', 1],
  ] as const) {
    const fields = { Architectures: 'all amd64', 'Acquire-By-Hash': undefined, 'No-Support-for-Architecture-all': support }
    files.set('dists/test/InRelease', Buffer.from(await clearSign(releaseText(fields, listed), [key])))
    assert.equal((await load()).index.count, count)
  }
})

test('loadRepository() joins the indexes of several components, also empty ones', async (t) => {
  const { files, load } = await archive(t)
  const bytes = files.get('dists/test/main/binary-amd64/Packages')!
  const listed = [
    ` ${sha256(bytes)} ${bytes.length} main/binary-amd64/Packages`,
    ` ${sha256('')} 0 contrib/binary-amd64/Packages`,
  ]
  files.set('dists/test/contrib/binary-amd64/Packages', Buffer.alloc(0))
  files.set('dists/test/InRelease', Buffer.from(await clearSign(releaseText({ 'Acquire-By-Hash': undefined }, listed), [key])))
  assert.equal((await load({ components: ['main', 'contrib'] })).index.count, 1)
  assert.equal((await load({ components: ['contrib'] })).index.count, 0)
  await assert.rejects(
    load({ components: ['main'], architecture: 'arm64' }),
    faulty('missing', /lists no main\/binary-arm64\/Packages/),
  )
})

test('loadRepository() refuses Release text that is not one', async (t) => {
  const { files, load } = await archive(t)
  const texts: [RegExp, string][] = [
    [/has no Date/, releaseText({ Date: undefined }, [])],
    [/Date "yesterday" is not a date in UTC/, releaseText({ Date: 'yesterday' }, [])],
    [/Date ".*\+0200" is not a date in UTC/, releaseText({ Date: 'Mon, 23 Nov 2026 06:00:00 +0200' }, [])],
    [
      /has no SHA256/,
      'Date: Mon, 23 Nov 2026 06:00:00 UTC\nMD5Sum:\n d41d8cd98f00b204e9800998ecf8427e 0 main/binary-amd64/Packages\n',
    ],
    [/expected "SHA-256 size path", got/, releaseText({}, [' d41d8cd98f00b204e9800998ecf8427e 0 main/binary-amd64/Packages'])],
  ]
  for (const [what, text] of texts) {
    files.set('dists/test/InRelease', Buffer.from(await clearSign(text, [key])))
    await assert.rejects(load(), faulty('format', what))
  }
})

test('loadRepository() shows no password in a Fault', async (t) => {
  const { server, load } = await archive(t, { keys: [stranger] })
  const url = server.url.replace('//', '//user:secret@')
  await assert.rejects(
    load({ url }),
    (error: Fault) => !/secret/.test(`${error.message} ${error.hint}`) && /127.0.0.1/.test(error.message),
  )
  await assert.rejects(load({ url: `${url}/nowhere` }), (error: Fault) => !/secret/.test(error.message))
})

test('loadRepository() stops unpacking a Packages that is a decompression bomb', async (t) => {
  const bomb = Buffer.alloc(8 << 20)
  for (const [suffix, packed] of [
    ['.xz', xzSync(bomb)],
    ['.gz', gzipSync(bomb)],
  ] as const) {
    const listed = [
      ` ${sha256(packed)} ${packed.length} main/binary-amd64/Packages${suffix}`,
      ` ${sha256('x')} 1 main/binary-amd64/Packages`,
    ]
    const inRelease = await clearSign(releaseText({ 'Acquire-By-Hash': 'no' }, listed), [key])
    const { files, load } = await archive(t)
    files.set('dists/test/InRelease', Buffer.from(inRelease))
    files.set(`dists/test/main/binary-amd64/Packages${suffix}`, packed)
    await assert.rejects(load(), faulty('integrity', /unpacks to more than the 1 bytes expected/))
  }
})

test('loadRepository() refuses an index that is not in the format its name says', async (t) => {
  const packed = Buffer.from('neither xz nor gzip')
  for (const suffix of ['.xz', '.gz']) {
    const listed = [` ${sha256(packed)} ${packed.length} main/binary-amd64/Packages${suffix}`]
    const { files, load } = await archive(t)
    files.set('dists/test/InRelease', Buffer.from(await clearSign(releaseText({ 'Acquire-By-Hash': undefined }, listed), [key])))
    files.set(`dists/test/main/binary-amd64/Packages${suffix}`, packed)
    await assert.rejects(load(), faulty('format', /Cannot unpack main\/binary-amd64\/Packages/))
  }
})

test('loadRepository() does not go back to older metadata than it saw', async (t) => {
  const { files, load } = await archive(t)
  const { release } = await load()
  const older = await makeArchive({ keys: [key], release: { Date: 'Sun, 22 Nov 2026 06:00:00 UTC' } })
  files.set('dists/test/InRelease', older.get('dists/test/InRelease')!)
  const events: Event[] = []
  const again = await load({}, {}, new Report((event) => events.push(event)))
  assert.equal(again.release.digest, release.digest)
  assert.ok(events.some((event) => event.type === 'note' && /older than what it offered before/.test(event.message)))
})

test('loadRepository() mends a damaged cache', async (t) => {
  const { store, load } = await archive(t)
  await load()
  for (const file of readdirSync(join(store.cache, 'store', 'sha256'), { recursive: true, withFileTypes: true })) {
    if (!file.isFile()) continue
    chmodSync(join(file.parentPath, file.name), 0o644)
    writeFileSync(join(file.parentPath, file.name), '{"document":1}')
  }
  assert.equal((await load()).index.count, 1)
})

test('loadRepository() bounds InRelease', async (t) => {
  const { load } = await archive(
    t,
    {},
    {
      'dists/test/InRelease': (_path, _request, response) => {
        const chunk = Buffer.alloc(1 << 20, 'x')
        const push = () => {
          while (!response.destroyed && response.write(chunk));
          if (!response.destroyed) response.once('drain', push)
        }
        push()
      },
    },
  )
  await assert.rejects(load(), faulty('integrity', /expected at most 33554432 bytes, got more/))
})

test('openInRelease() gives the text that was signed or a Fault, whatever is done to the file', async () => {
  const text = releaseText({}, [` ${sha256('x')} 1 main/binary-amd64/Packages`, '- dashed', '-----BEGIN PGP SIGNATURE-----'])
  const good = await clearSign(text, [key])
  const trust = { keyring: key.certificate, now: NOW, source: 'fuzz' }
  const signed = await openInRelease(Buffer.from(good), trust)
  assert.equal(signed.trimEnd(), text.trimEnd())
  const pieces = fc.constantFrom(
    '\n',
    '- ',
    '-',
    ' ',
    '=',
    '\r\n',
    '\0',
    'é',
    '-----BEGIN PGP SIGNED MESSAGE-----\n',
    '-----BEGIN PGP SIGNATURE-----\n',
  )
  await fc.assert(
    fc.asyncProperty(fc.nat(good.length), fc.nat(40), fc.array(pieces, { maxLength: 3 }), async (at, cut, inserted) => {
      const changed = good.slice(0, at) + inserted.join('') + good.slice(at + cut)
      const got = await openInRelease(Buffer.from(changed), trust).catch((error) => error)
      if (got instanceof Fault) assert.equal(got.code, 'integrity')
      else assert.equal(got, signed)
    }),
    { numRuns: 300 },
  )
})

oracle('gpgv', 'accepts and refuses the same InRelease as openInRelease() does', async (t, judge) => {
  const { files } = await archive(t)
  const good = files.get('dists/test/InRelease')!.toString()
  const [, body, signature] = /SHA512\n\n([\s\S]*?)\n(-----BEGIN PGP SIGNATURE[\s\S]*)/.exec(good)!
  const cases: Record<string, string> = {
    good,
    'changed text': good.replace('testing', 'testinG'),
    'changed signature': good.replace(
      signature!,
      signature!.replace(/[A-Za-z](?=[^\n]*\n=)/, (c) => (c === 'A' ? 'B' : 'A')),
    ),
    'stripped signature': body!,
    'by a stranger': await clearSign(body!, [stranger]),
    'by both': await clearSign(body!, [stranger, key]),
    'trailing blanks': good.replace('Suite: testing\n', 'Suite: testing  \t\n'),
    'CRLF lines': good.replaceAll('\n', '\r\n'),
    'a dash at the start of a line': await clearSign(`- dash\n-dash\n${body}`, [key]),
  }
  writeFileSync(join(judge.dir, 'key.asc'), key.certificate)
  await judge.run(['gpg', '--homedir', judge.dir, '--dearmor', '-o', 'key.gpg', 'key.asc'])
  for (const [name, text] of Object.entries(cases)) {
    writeFileSync(join(judge.dir, 'InRelease'), text)
    const verdict = await judge.run(['gpgv', '--keyring', './key.gpg', '--output', 'signed', 'InRelease'], { allowFailure: true })
    const trust = { keyring: key.certificate, now: NOW, source: name }
    const ours = await openInRelease(Buffer.from(text), trust).then(
      () => true,
      (error) => !(error instanceof Fault && error.code === 'integrity'),
    )
    // gpgv wants every signature to be good, apt and we want one
    if (name === 'by both') assert.equal(ours, true)
    else assert.equal(ours, verdict.exitCode === 0, `${name}: ${verdict.stderr}`)
  }
})

oracle('gpg', 'signs as archives do; openInRelease() takes SHA-256 and refuses SHA-1 and MD5', async (_t, judge) => {
  const gpg = (...argv: string[]) =>
    judge.run(['gpg', '--homedir', judge.dir, '--batch', '--pinentry-mode', 'loopback', '--passphrase', '', ...argv])
  await gpg('--faked-system-time', '20260101T000000', '--quick-generate-key', 'weak@example.org', 'rsa2048', 'sign', '0')
  const keyring = Buffer.from((await gpg('--armor', '--export')).stdout)
  writeFileSync(join(judge.dir, 'Release'), `${releaseText({}, [])}- dashed\n-----BEGIN PGP SIGNATURE-----\ntrailing \t\n`)
  const trust = { keyring, now: NOW, source: 'gpg' }
  const signed = async (digest: string) => {
    await gpg(
      '--yes',
      '--faked-system-time',
      '20261101T000000',
      '--digest-algo',
      digest,
      '--allow-weak-digest-algos',
      '--clear-sign',
      'Release',
    )
    return openInRelease(readFileSync(join(judge.dir, 'Release.asc')), trust)
  }
  assert.match(await signed('SHA256'), /- dashed\n-----BEGIN PGP SIGNATURE-----\ntrailing$/)
  await assert.rejects(signed('SHA1'), faulty('integrity', /Insecure message hash algorithm: SHA1/))
})

const reachable = await fetch(`${DEBIAN_MIRROR}/dists/trixie/InRelease`, {
  method: 'HEAD',
  signal: AbortSignal.timeout(5000),
}).then(
  (response) => response.ok,
  () => false,
)
const real = { skip: reachable ? false : 'deb.debian.org is not reachable' }

test("Debian's own archives verify with the embedded keys, and with no other", real, async () => {
  const architecture = 'amd64'
  const repositories = [
    ...debianRepositories({ release: 'trixie', architecture, backports: true }),
    ...debianRepositories({ release: 'forky', architecture, updates: false, security: false }),
    ...debianRepositories({ release: 'sid', architecture }),
  ]
  await Promise.all(
    repositories.map(async (repository) => {
      const response = await fetch(`${repository.url}/dists/${repository.suite}/InRelease`)
      const bytes = new Uint8Array(await response.arrayBuffer())
      const trust = { keyring: repository.keyring, now: new Date(), source: repository.id }
      assert.match(await openInRelease(bytes, trust), new RegExp(`^Codename: ${repository.suite}$`, 'm'))
      await assert.rejects(
        openInRelease(bytes, { ...trust, keyring: key.certificate }),
        faulty('integrity', /not in the keyring/),
      )
    }),
  )
})

test('loadRepository() loads a real archive', real, async (t) => {
  const store = await openStore(scratch(t))
  const security = debianRepositories({ release: 'trixie', architecture: 'amd64' })[2]!
  const { release, index } = await loadRepository(security, { store, now: new Date() }, quiet)
  assert.equal(release.codename, 'trixie-security')
  assert.ok(index.count > 100)
})
