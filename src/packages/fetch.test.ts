import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import type { ServerResponse } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { pathToFileURL } from 'node:url'
import { promisify } from 'node:util'
import { type Answer, sendFile, serve } from '../../test/server.ts'
import { sha256 } from '../base/digest.ts'
import { Fault, type FaultCode } from '../base/fault.ts'
import { type Event, Report } from '../base/report.ts'
import { openStore } from '../store/store.ts'
import { type FetchOptions, fetchPackages, isSafeFilename, isSuperseded, supersededBy, timestampOf } from './fetch.ts'
import type { Package } from './package.ts'
import type { Repository } from './repository.ts'

const quiet = new Report(() => {})
const quick = { retries: 2, backoffMs: 5, stallTimeoutMs: 10_000, graceMs: 60_000 }

function scratch(t: TestContext): string {
  const dir = mkdtempSync(join(tmpdir(), 'bisque-fetch-'))
  t.after(() => rmSync(dir, { recursive: true, force: true }))
  return dir
}

const packageOf = (name: string, bytes: Uint8Array): Package => ({
  name,
  version: '1.0',
  architecture: 'amd64',
  repository: 'test',
  filename: `pool/${name}.deb`,
  sizeBytes: bytes.length,
  sha256: sha256(bytes),
})

const repositoryAt = (url: string, changes: Partial<Repository> = {}): Repository => ({
  id: 'test',
  format: 'deb',
  url,
  suite: 'test',
  components: ['main'],
  architecture: 'amd64',
  keyring: new Uint8Array(0),
  priority: 500,
  ...changes,
})

/** Serves packages of these contents, and returns how to fetch them into a fresh store. */
async function mirror(t: TestContext, contents: Record<string, Uint8Array>, answers: Record<string, Answer> = {}) {
  const files = new Map(Object.entries(contents).map(([name, bytes]) => [`pool/${name}.deb`, bytes]))
  const server = await serve(t, files, answers)
  const store = await openStore(scratch(t))
  const packages = Object.entries(contents).map(([name, bytes]) => packageOf(name, bytes))
  const fetch = (options: Partial<FetchOptions> = {}, changes: Partial<Repository> = {}, report = quiet) =>
    fetchPackages(packages, [repositoryAt(server.url, changes)], { store, network: quick, ...options }, report)
  return { files, server, store, packages, fetch }
}

const faulty = (code: FaultCode, message: RegExp) => (error: unknown) => {
  assert.ok(error instanceof Fault, String(error))
  assert.match(error.message, message)
  assert.equal(error.code, code)
  return true
}

const filesIn = (dir: string) =>
  existsSync(dir)
    ? readdirSync(dir, { recursive: true, withFileTypes: true })
        .filter((entry) => entry.isFile())
        .map((entry) => join(entry.parentPath, entry.name))
    : []

/** Answers with these bytes in this many pieces, then does `then`. */
const inPart =
  (bytes: Uint8Array, upTo: number, declared: number | undefined, then: (response: ServerResponse) => void): Answer =>
  (_path, _request, response) => {
    response.writeHead(200, declared === undefined ? {} : { 'content-length': declared })
    response.write(bytes.subarray(0, upTo), () => then(response))
  }

const LARGE = Buffer.alloc(400_000, 'large and boring ')

test('fetchPackages() gets every package into the store and tells its progress', async (t) => {
  const contents = Object.fromEntries(Array.from({ length: 30 }, (_, i) => [`p${i}`, Buffer.alloc(1000 + i, `${i}`)]))
  const { packages, fetch, store } = await mirror(t, contents)
  const events: Event[] = []
  const fetched = await fetch({}, {}, new Report((event) => events.push(event)))
  assert.deepEqual(
    fetched.map((p) => p.name),
    packages.map((p) => p.name),
  )
  for (const p of fetched) assert.deepEqual(await readFile(p.file), contents[p.name])
  const total = packages.reduce((sum, p) => sum + p.sizeBytes, 0)
  assert.deepEqual(events.at(-1), { type: 'progress', step: 0, done: total, total, unit: 'bytes' })
  assert.deepEqual(filesIn(join(store.cache, 'partial')), [])
})

test('fetchPackages() keeps at most `parallel` requests in flight', async (t) => {
  const contents = Object.fromEntries(Array.from({ length: 12 }, (_, i) => [`p${i}`, Buffer.from(`${i}`)]))
  let now = 0
  let most = 0
  const { fetch } = await mirror(t, contents, {
    '*': (path, _request, response) => {
      most = Math.max(most, ++now)
      setTimeout(() => response.end(contents[path.slice(5, -4)], () => now--), 20)
    },
  })
  await fetch({ network: { ...quick, parallel: 3 } })
  assert.equal(most, 3)
})

test('fetchPackages() takes from the cache what is there', async (t) => {
  const { server, fetch } = await mirror(t, { a: Buffer.from('a'), b: Buffer.from('b') })
  await fetch()
  server.requests.length = 0
  await fetch()
  await fetch({ offline: true })
  assert.deepEqual(server.requests, [])
})

test('fetchPackages() detects a corrupt cache entry and fetches it again', async (t) => {
  const { server, store, packages, fetch } = await mirror(t, { a: Buffer.from('aaaa'), b: Buffer.from('bbbb') })
  await fetch()
  for (const change of ['aaaX', 'aa']) {
    const file = store.path(packages[0]!.sha256)
    chmodSync(file, 0o644)
    writeFileSync(file, change)
    server.requests.length = 0
    const fetched = await fetch()
    assert.deepEqual(server.requests, ['GET /pool/a.deb'])
    assert.equal((await readFile(fetched[0]!.file)).toString(), 'aaaa')
  }
})

test('fetchPackages() lists offline all that is missing', async (t) => {
  const { fetch } = await mirror(t, { a: Buffer.from('a'), b: Buffer.from('b') })
  await assert.rejects(
    fetch({ offline: true }),
    faulty('fetch', /offline: 2 packages \(2 B\) not in the cache: a 1.0 amd64, b 1.0 amd64/),
  )
})

test('fetchPackages() names the first of many that are missing offline, and how large they all are', async (t) => {
  const { fetch } = await mirror(t, Object.fromEntries([...'abcdefg'].map((name) => [name, Buffer.from(name)])))
  await assert.rejects(
    fetch({ offline: true }),
    faulty('fetch', /: 7 packages \(7 B\) not in the cache: a 1\.0 amd64, .*, e 1\.0 amd64 and 2 more$/),
  )
})

test('fetchPackages() refuses a file with other bytes, and keeps nothing of it', async (t) => {
  const { files, store, fetch } = await mirror(t, { a: Buffer.from('aaaa'), b: Buffer.from('bbbb') })
  files.set('pool/a.deb', Buffer.from('AAAA'))
  await assert.rejects(
    fetch(),
    faulty('integrity', /Cannot trust http.*\/pool\/a.deb: expected SHA-256 [0-9a-f]{64}, got [0-9a-f]{64}/),
  )
  assert.deepEqual(
    filesIn(store.cache).map((file) => file.slice(-6)),
    [sha256('bbbb').slice(-6)],
  )
})

test('fetchPackages() refuses a file that is shorter or longer', async (t) => {
  const { files, store, fetch } = await mirror(t, { a: Buffer.from('aaaa') })
  for (const other of ['aaa', 'aaaaa']) {
    files.set('pool/a.deb', Buffer.from(other))
    await assert.rejects(fetch(), faulty('integrity', new RegExp(`expected 4 bytes, got ${other.length}`)))
  }
  assert.deepEqual(filesIn(store.cache), [])
})

test('fetchPackages() names every package that is wrong', async (t) => {
  const { files, fetch } = await mirror(t, { a: Buffer.from('aaaa'), b: Buffer.from('bbbb'), c: Buffer.from('cccc') })
  files.set('pool/a.deb', Buffer.from('AAAA'))
  files.set('pool/c.deb', Buffer.from('CCCC'))
  await assert.rejects(fetch(), faulty('integrity', /pool\/a.deb.*\n.*pool\/c.deb/))
})

test('fetchPackages() resumes a body that ended early', async (t) => {
  const cut = inPart(LARGE, 150_000, LARGE.length, (response) => response.destroy())
  let first = true
  const { server, fetch } = await mirror(
    t,
    { a: LARGE },
    {
      'pool/a.deb': (path, request, response) => {
        if (first) cut(path, request, response)
        else sendFile(LARGE, request, response)
        first = false
      },
    },
  )
  const [fetched] = await fetch()
  assert.deepEqual(await readFile(fetched!.file), LARGE)
  assert.equal(server.requests.length, 2)
  assert.match(server.requests[1]!, /^GET \/pool\/a.deb bytes=[1-9]\d+-$/)
})

test('fetchPackages() starts anew where the server does not resume, or resumes elsewhere', async (t) => {
  const answers: Record<string, Answer> = {
    'the whole file': (_path, _request, response) => response.end(LARGE),
    'another range first': (() => {
      let lied = false
      return (_path, request, response) => {
        if (request.headers.range === undefined) return response.end(LARGE)
        if (lied) return response.end(LARGE)
        lied = true
        response.writeHead(206, { 'content-range': `bytes 7-${LARGE.length - 1}/${LARGE.length}` }).end(LARGE.subarray(7))
      }
    })(),
    'not satisfiable': (_path, request, response) =>
      request.headers.range === undefined ? response.end(LARGE) : response.writeHead(416).end(),
    'other bytes': (_path, request, response) => {
      if (request.headers.range === undefined) return response.end(LARGE)
      const start = Number(/\d+/.exec(request.headers.range)![0])
      const range = `bytes ${start}-${LARGE.length - 1}/${LARGE.length}`
      response.writeHead(206, { 'content-range': range }).end(Buffer.alloc(LARGE.length - start, 'x'))
    },
  }
  for (const [what, answer] of Object.entries(answers)) {
    let first = true
    const cut = inPart(LARGE, 150_000, LARGE.length, (response) => response.destroy())
    const { fetch } = await mirror(
      t,
      { a: LARGE },
      {
        'pool/a.deb': (path, request, response) => {
          ;(first ? cut : answer)(path, request, response)
          first = false
        },
      },
    )
    const [fetched] = await fetch()
    assert.deepEqual(await readFile(fetched!.file), LARGE, what)
  }
})

test('fetchPackages() resumes only what is still the same file at the server', async (t) => {
  let first = true
  const conditions: unknown[] = []
  const { fetch } = await mirror(
    t,
    { a: LARGE },
    {
      'pool/a.deb': (_path, request, response) => {
        conditions.push(request.headers['if-range'])
        if (!first) return sendFile(LARGE, request, response)
        first = false
        response.writeHead(200, { etag: '"old"', 'content-length': LARGE.length })
        response.write(Buffer.alloc(150_000, 'old'), () => response.destroy())
      },
    },
  )
  const [fetched] = await fetch()
  assert.deepEqual(await readFile(fetched!.file), LARGE)
  assert.deepEqual(conditions, [undefined, '"old"'])
})

test('a later process resumes what a killed one left', async (t) => {
  const stuck = inPart(LARGE, 200_000, LARGE.length, () => {})
  let first = true
  const { server, store, packages, fetch } = await mirror(
    t,
    { a: LARGE },
    {
      'pool/a.deb': (path, request, response) => {
        if (first) stuck(path, request, response)
        else sendFile(LARGE, request, response)
        first = false
      },
    },
  )
  const child = fetchInChild(store.cache, packages, server.url)
  t.after(() => child.kill('SIGKILL'))
  const partial = join(store.cache, 'partial')
  while (filesIn(partial).every((file) => statSize(file) < 200_000)) await new Promise((resolve) => setTimeout(resolve, 20))
  child.kill('SIGKILL')
  await new Promise((resolve) => child.once('exit', resolve))
  const [fetched] = await fetch()
  assert.deepEqual(await readFile(fetched!.file), LARGE)
  assert.deepEqual(server.requests, ['GET /pool/a.deb', 'GET /pool/a.deb bytes=200000-'])
  assert.deepEqual(filesIn(partial), [])
})

test('a later call resumes what a failed one gave up', async (t) => {
  let broken = true
  const cut = inPart(LARGE, 100_000, LARGE.length, (response) => response.destroy())
  const { server, fetch } = await mirror(
    t,
    { a: LARGE },
    {
      'pool/a.deb': (path, request, response) => {
        if (!broken) sendFile(LARGE, request, response)
        else if (request.headers.range === undefined) cut(path, request, response)
        else response.destroy()
      },
    },
  )
  await assert.rejects(fetch(), faulty('fetch', /Cannot fetch .*\/pool\/a.deb: .* \(tried 3 times\)/))
  broken = false
  await fetch()
  assert.match(server.requests.at(-1)!, /bytes=[1-9]\d+-$/)
})

test('two processes fetch the same packages into the same store', async (t) => {
  const contents = Object.fromEntries(Array.from({ length: 20 }, (_, i) => [`p${i}`, Buffer.alloc(50_000 + i, `${i}`)]))
  const { server, store, packages, fetch } = await mirror(t, contents)
  const children = [fetchInChild(store.cache, packages, server.url), fetchInChild(store.cache, packages, server.url)]
  const codes = await Promise.all(children.map((child) => new Promise((resolve) => child.once('exit', resolve))))
  assert.deepEqual(codes, [0, 0])
  await fetch({ offline: true })
  assert.deepEqual(filesIn(join(store.cache, 'partial')), [])
})

test('fetchPackages() does not repeat a 404, and says what to do when packages are gone', async (t) => {
  const { files, server, fetch } = await mirror(t, { a: Buffer.from('a'), b: Buffer.from('b'), c: Buffer.from('c') })
  files.delete('pool/a.deb')
  files.delete('pool/c.deb')
  await assert.rejects(fetch(), (error: unknown) => {
    assert.ok(error instanceof Fault)
    assert.equal(error.code, 'fetch')
    assert.equal(error.hint, 'bisque lock --update')
    assert.equal(isSuperseded(error), true)
    assert.deepEqual(supersededBy(error), ['a 1.0 amd64', 'c 1.0 amd64'])
    assert.match(error.message, /Cannot fetch 2 packages of the lock: .*: a 1.0 amd64, c 1.0 amd64/)
    return true
  })
  assert.equal(server.requests.length, 3)
})

test('fetchPackages() takes from the snapshot archive what the mirror dropped', async (t) => {
  const { files, server, packages } = await mirror(t, { a: Buffer.from('a'), b: Buffer.from('b') })
  files.delete('pool/b.deb')
  files.set('snapshot/20261123T060000Z/pool/b.deb', Buffer.from('b'))
  const options = { snapshots: new Map([['test', '20261123T060000Z']]), network: quick }
  const repository = repositoryAt(server.url, { snapshotUrl: `${server.url}/snapshot/{timestamp}` })
  await fetchPackages(packages, [repository], { ...options, store: await openStore(scratch(t)) }, quiet)
  assert.equal(server.requests.at(-1), 'GET /snapshot/20261123T060000Z/pool/b.deb')
  files.delete('snapshot/20261123T060000Z/pool/b.deb')
  files.set('snapshot/20261123T180000Z/pool/b.deb', Buffer.from('b'))
  await fetchPackages(packages, [repository], { ...options, store: await openStore(scratch(t)) }, quiet)
  assert.equal(server.requests.at(-1), 'GET /snapshot/20261123T180000Z/pool/b.deb')
})

test('fetchPackages() says which packages are gone when the snapshot archive is out of reach', async (t) => {
  const { files, server, packages } = await mirror(t, { a: Buffer.from('a'), b: Buffer.from('b') })
  files.delete('pool/b.deb')
  const store = await openStore(scratch(t))
  const options = { store, snapshots: new Map([['test', '20261123T060000Z']]), network: quick }
  const repository = repositoryAt(server.url, { snapshotUrl: 'http://127.0.0.1:1/{timestamp}' })
  await assert.rejects(fetchPackages(packages, [repository], options, quiet), (error: unknown) => {
    assert.deepEqual(supersededBy(error), ['b 1.0 amd64'])
    return faulty('fetch', /Cannot fetch 1 package of the lock.*\n.*answered 404; Cannot fetch http:\/\/127.0.0.1:1/)(error)
  })
})

test('fetchPackages() asks a snapshot archive that is out of reach only once or so', async (t) => {
  const contents = Object.fromEntries(Array.from({ length: 40 }, (_, i) => [`p${i}`, Buffer.from(`${i}`)]))
  const { files, server, packages } = await mirror(t, contents)
  files.clear()
  const snapshot = await serve(t, new Map(), { '*': (_path, request) => request.socket.destroy() })
  const options = { store: await openStore(scratch(t)), snapshots: new Map([['test', '20261123T060000Z']]) }
  const repository = repositoryAt(server.url, { snapshotUrl: `${snapshot.url}/{timestamp}` })
  const fetching = fetchPackages(packages, [repository], { ...options, network: { ...quick, parallel: 2 } }, quiet)
  await assert.rejects(fetching, (error: unknown) => supersededBy(error).length === 40)
  assert.ok(snapshot.requests.length <= 2 * 3, `${snapshot.requests.length} requests`)
})

test('fetchPackages() does not go on for ever with a server that breaks every resumption', async (t) => {
  const big = Buffer.alloc(3 << 20, 'x')
  const cut = inPart(big, 2 << 20, big.length, (response) => response.destroy())
  const { server, fetch } = await mirror(
    t,
    { a: big },
    {
      'pool/a.deb': (path, request, response) => {
        if (request.headers.range === undefined) return cut(path, request, response)
        const start = Number(/\d+/.exec(request.headers.range)![0])
        const range = `bytes ${start}-${big.length - 1}/${big.length}`
        response.writeHead(206, { 'content-range': range }).end(Buffer.alloc(big.length - start, 'y'))
      },
    },
  )
  await assert.rejects(fetch(), faulty('fetch', /what was resumed has SHA-256|ended|closed|aborted/))
  assert.ok(server.requests.length < 10, `${server.requests.length} requests`)
})

test('fetchPackages() does not call a mirror that is out of reach superseded', async (t) => {
  const store = await openStore(scratch(t))
  const packages = [packageOf('a', Buffer.from('a'))]
  const fetching = fetchPackages(packages, [repositoryAt('http://127.0.0.1:1')], { store, network: quick }, quiet)
  await assert.rejects(
    fetching,
    (error: unknown) => !isSuperseded(error) && faulty('fetch', /127.0.0.1:1.*ECONNREFUSED|bad port/)(error),
  )
})

test('fetchPackages() tries again after a 500, and gives up on a permanent one', async (t) => {
  let failures = 2
  const { server, fetch } = await mirror(
    t,
    { a: Buffer.from('a') },
    {
      'pool/a.deb': (_path, request, response) => {
        if (failures-- > 0) response.writeHead(500).end('sorry')
        else sendFile(Buffer.from('a'), request, response)
      },
    },
  )
  await fetch()
  assert.equal(server.requests.length, 3)
  const permanent = await mirror(
    t,
    { a: Buffer.from('a') },
    { '*': (_path, _request, response) => response.writeHead(503).end() },
  )
  await assert.rejects(permanent.fetch(), faulty('fetch', /answered 503 \(tried 3 times\)/))
  assert.equal(permanent.server.requests.length, 3)
})

test('fetchPackages() gives up on a server that stalls, before or within the body', async (t) => {
  const network = { ...quick, stallTimeoutMs: 250 }
  const silent = await mirror(t, { a: LARGE }, { '*': () => {} })
  await assert.rejects(silent.fetch({ network }), faulty('fetch', /nothing arrived for 0.25 s \(tried 3 times\)/))
  const frozen = await mirror(t, { a: LARGE }, { '*': inPart(LARGE, 1000, LARGE.length, () => {}) })
  await assert.rejects(frozen.fetch({ network }), faulty('fetch', /nothing arrived for 0.25 s \(tried 3 times\)/))
})

test('fetchPackages() gives up on a body that trickles', async (t) => {
  const trickle: Answer = (_path, _request, response) => {
    const timer = setInterval(() => response.write('x'), 20)
    response.on('close', () => clearInterval(timer))
  }
  const { fetch } = await mirror(t, { a: LARGE }, { '*': trickle })
  const network = { ...quick, retries: 0, graceMs: 100, minBytesPerSecond: 4_000_000 }
  await assert.rejects(fetch({ network }), faulty('fetch', /more slowly than 4000000 bytes\/s/))
})

test('fetchPackages() stops reading a body that does not end', async (t) => {
  let sent = 0
  const { store, fetch } = await mirror(
    t,
    { a: LARGE },
    {
      '*': (_path, _request, response) => {
        const push = () => {
          while (!response.destroyed && response.write(LARGE)) sent += LARGE.length
          if (!response.destroyed) response.once('drain', push)
        }
        push()
      },
    },
  )
  await assert.rejects(fetch(), faulty('integrity', /expected 400000 bytes, got more/))
  assert.ok(sent < 64 << 20)
  assert.deepEqual(filesIn(store.cache), [])
})

test('fetchPackages() is not fooled by a Content-Length that lies', async (t) => {
  const more = await mirror(t, { a: LARGE }, { '*': inPart(LARGE, LARGE.length, 1 << 30, (response) => response.end()) })
  await assert.rejects(more.fetch(), faulty('integrity', /expected 400000 bytes, got 1073741824/))
  const right = await mirror(t, { a: LARGE }, { '*': inPart(LARGE, 1000, LARGE.length, (response) => response.destroy()) })
  await assert.rejects(right.fetch(), faulty('fetch', /tried 3 times/))
  const early = await mirror(t, { a: LARGE }, { '*': inPart(LARGE, 1000, undefined, (response) => response.end()) })
  await assert.rejects(early.fetch(), faulty('fetch', /the connection ended after 1000 of 400000 bytes/))
})

test('fetchPackages() follows redirects, but not in circles, to other protocols or to files', async (t) => {
  const to =
    (location: string): Answer =>
    (_path, _request, response) =>
      response.writeHead(302, { location }).end()
  const once = await mirror(t, { a: LARGE }, { 'pool/a.deb': to('/elsewhere/a.deb') })
  once.files.set('elsewhere/a.deb', LARGE)
  await once.fetch()
  const loop = await mirror(t, { a: LARGE }, { '*': to('/pool/a.deb') })
  await assert.rejects(loop.fetch(), faulty('fetch', /more than 5 redirects/))
  assert.equal(loop.server.requests.length, 6)
  for (const location of ['file:///etc/passwd', 'ftp://example.org/a.deb', 'gopher:x']) {
    const away = await mirror(t, { a: LARGE }, { '*': to(location) })
    await assert.rejects(away.fetch(), faulty('fetch', /it redirects to ".*", expected http or https/))
  }
})

test('fetchPackages() goes through the proxy it is given', async (t) => {
  const asked: string[] = []
  const proxy = await serve(t, new Map(), {
    '*': (_path, request, response) => {
      asked.push(request.url!)
      response.end('a')
    },
  })
  const fetch = async (noProxy: string) => {
    const network = { ...quick, httpProxy: proxy.url, noProxy }
    const repository = repositoryAt('http://mirror.invalid/debian')
    await fetchPackages([packageOf('a', Buffer.from('a'))], [repository], { store: await openStore(scratch(t)), network }, quiet)
  }
  await fetch('')
  assert.deepEqual(asked, ['http://mirror.invalid/debian/pool/a.deb'])
  await assert.rejects(fetch('mirror.invalid'), faulty('fetch', /Cannot fetch http:\/\/mirror.invalid/))
})

test('fetchPackages() ends what is under way when a download fails for good', async (t) => {
  const { fetch } = await mirror(
    t,
    { a: Buffer.from('a'), b: LARGE },
    {
      'pool/a.deb': (_path, _request, response) => response.writeHead(403).end(),
      'pool/b.deb': inPart(LARGE, 1000, LARGE.length, () => {}),
    },
  )
  const started = performance.now()
  await assert.rejects(fetch({ network: quick }), faulty('fetch', /pool\/a.deb: the server answered 403/))
  assert.ok(performance.now() - started < 5000)
})

test('fetchPackages() reads a mirror on disk', async (t) => {
  const dir = scratch(t)
  mkdirSync(join(dir, 'pool'))
  writeFileSync(join(dir, 'pool', 'a.deb'), LARGE)
  const store = await openStore(scratch(t))
  const repository = repositoryAt(pathToFileURL(dir).href)
  const [fetched] = await fetchPackages([packageOf('a', LARGE)], [repository], { store }, quiet)
  assert.deepEqual(await readFile(fetched!.file), LARGE)
  const missing = fetchPackages([packageOf('b', Buffer.from('b'))], [repository], { store, network: quick }, quiet)
  await assert.rejects(missing, (error: unknown) => isSuperseded(error))
})

test('fetchPackages() refuses a file URL of another machine', async (t) => {
  const store = await openStore(scratch(t))
  const fetching = fetchPackages([packageOf('a', LARGE)], [repositoryAt('file://elsewhere/mirror')], { store }, quiet)
  await assert.rejects(fetching, faulty('fetch', /Cannot read file:\/\/elsewhere\/mirror/))
})

test('fetchPackages() refuses a filename that leaves the repository', async (t) => {
  const { server, store } = await mirror(t, {})
  for (const filename of [
    '../../../etc/passwd',
    'pool/../../x',
    '/etc/passwd',
    'pool//x',
    'pool/.x',
    'a b',
    'a\\b',
    'a\nb',
    '',
  ]) {
    const p = { ...packageOf('a', Buffer.from('a')), filename }
    await assert.rejects(
      fetchPackages([p], [repositoryAt(server.url)], { store }, quiet),
      faulty('integrity', /is not a path below/),
    )
  }
  assert.deepEqual(server.requests, [])
  assert.equal(isSafeFilename('pool/main/g/g++/g++_4%3a13.2.0-7~exp1+b2_amd64.deb'), true)
})

test('fetchPackages() refuses a package of a repository the recipe does not name', async (t) => {
  const { store } = await mirror(t, {})
  await assert.rejects(
    fetchPackages([packageOf('a', Buffer.from('a'))], [], { store }, quiet),
    faulty('recipe', /repository "test"/),
  )
})

test('fetchPackages() says beforehand that the disk has no room', async (t) => {
  const { store, server } = await mirror(t, {})
  const p = { ...packageOf('a', Buffer.from('a')), sizeBytes: 2 ** 52 }
  const fetching = fetchPackages([p], [repositoryAt(server.url)], { store }, quiet)
  await assert.rejects(fetching, faulty('host', /1 package need.* 4096.0 TiB, .* free in /))
})

test('a disk that fills up during a download is one clear Fault, and the partial file makes room', async (t) => {
  const big = Buffer.alloc(3 << 20, 'x')
  const server = await serve(t, new Map([['a.deb', big]]))
  const dir = scratch(t)
  const here = (file: string) => JSON.stringify(new URL(file, import.meta.url).href)
  const script = `
    const { openStore } = await import(${here('../store/store.ts')})
    const { downloadBlob } = await import(${here('download.ts')})
    const { withWire } = await import(${here('http.ts')})
    const { readdirSync } = await import('node:fs')
    const store = await openStore(${JSON.stringify(dir)})
    const wanted = { url: '${server.url}/a.deb', sha256: '${sha256(big)}', sizeBytes: ${big.length} }
    const fault = await withWire({}, (wire) => downloadBlob(wire, wanted, store)).catch((error) => error)
    const files = readdirSync(${JSON.stringify(dir)}, { recursive: true, withFileTypes: true }).filter((e) => e.isFile()).length
    console.log(JSON.stringify({ name: fault.name, code: fault.code, message: fault.message, files }))`
  const mount = 'mount -t tmpfs -o size=1m tmpfs "$0" && exec "$@"'
  const argv = [
    '--user',
    '--map-root-user',
    '--mount',
    'sh',
    '-c',
    mount,
    dir,
    process.execPath,
    '--input-type=module',
    '-e',
    script,
  ]
  const { stdout } = await promisify(execFile)('unshare', argv).catch((error) => {
    if (!/Operation not permitted|Permission denied/.test(error.stderr)) throw error
    return { stdout: '' }
  })
  if (stdout === '') return t.skip('user namespaces are not permitted here')
  const said = JSON.parse(stdout)
  assert.deepEqual([said.name, said.code, said.files], ['Fault', 'host', 0])
  assert.match(said.message, /Cannot write the 3.0 MiB of http.*a.deb to .*partial: the disk is full, .* free there/)
})

test('timestampOf() writes a moment as snapshot archives do', () => {
  assert.equal(timestampOf(new Date('2026-09-12T07:55:41Z')), '20260912T075541Z')
})

const statSize = (file: string): number => statSync(file, { throwIfNoEntry: false })?.size ?? 0

function fetchInChild(cache: string, packages: readonly Package[], url: string) {
  const script = `
    const { openStore } = await import(${JSON.stringify(new URL('../store/store.ts', import.meta.url).href)})
    const { fetchPackages } = await import(${JSON.stringify(new URL('fetch.ts', import.meta.url).href)})
    const { Report } = await import(${JSON.stringify(new URL('../base/report.ts', import.meta.url).href)})
    const repository = { ...${JSON.stringify(repositoryAt(url))}, keyring: new Uint8Array(0) }
    const store = await openStore(${JSON.stringify(cache)})
    await fetchPackages(${JSON.stringify(packages)}, [repository], { store }, new Report(() => {}))`
  return spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: ['ignore', 'ignore', 'inherit'] })
}
