import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { oracle } from '../../../test/oracle.ts'
import { Report } from '../../base/report.ts'
import { encodeAr } from '../../formats/ar.ts'
import { encodeTar } from '../../formats/tar.ts'
import { readTree } from '../../tree/from-disk.ts'
import { type Rules, unpackData, unpackPackages } from './unpack.ts'

type Files = Parameters<typeof encodeTar>[0]

function roots(t: TestContext): { root: string; outside: string } {
  const dir = mkdtempSync(join(tmpdir(), 'bisque-unpack-'))
  t.after(() => rmSync(dir, { recursive: true, force: true }))
  for (const name of ['root', 'outside']) mkdirSync(`${dir}/${name}`)
  return { root: `${dir}/root`, outside: `${dir}/outside` }
}

/** Without root there are no other owners to give; everything else is the same. */
const rules: Rules = { ownerless: process.getuid?.() !== 0 }

async function* once(bytes: Uint8Array) {
  yield bytes
}
const unpack = (root: string, files: Files, more: Rules = {}) => unpackData(root, once(encodeTar(files)), { ...rules, ...more })
const file = (path: string, text = 'x') => ({ path, bytes: Buffer.from(text) })
const directory = (path: string) => ({ path, type: 'directory' as const, mode: 0o755 })
const link = (path: string, target: string) => ({ path, type: 'symlink' as const, target })
const hard = (path: string, target: string) => ({ path, type: 'hardlink' as const, target })

// biome-ignore format: table
const REFUSED: [why: string, files: Files, message: RegExp][] = [
  ['a path with ..',                        [file('./usr/../../outside/x')],                          /may lead elsewhere/],
  ['a path that ends in ..',                [directory('./usr/..')],                                  /may lead elsewhere/],
  ['a hard link to a path with ..',         [hard('./x', '../outside/secret')],                       /may lead elsewhere/],
  ['a hard link to what is not there',      [hard('./x', './nothing')],                               /not there/],
  ['a path it has twice',                   [file('./a'), file('./a')],                               /holds it twice/],
  ['a file where a directory is',           [directory('./a'), directory('./a/b'), file('./a/b/c'), { ...file('./a/b'), type: 'fifo' as const }], /twice|directory stands/],
  ['a root that is no directory',           [link('./', '/etc')],                                     /it is a symlink/],
  ['a path with a newline',                 [file('./a\n/etc/passwd')],                               /may lead elsewhere/],
  ['a loop of links',                       [link('./a', 'b'), link('./b', 'a'), file('./a/x')],      /symbolic links/],
]
for (const [why, files, message] of REFUSED) {
  test(`unpackData() refuses ${why}`, async (t) => {
    const { root, outside } = roots(t)
    await assert.rejects(unpack(root, files), { code: 'format', message })
    assert.deepEqual(readdirSync(outside), [])
  })
}

test('unpackData() puts absolute names below the root', async (t) => {
  const { root } = roots(t)
  const { paths } = await unpack(root, [file('/etc/x')])
  assert.deepEqual(paths, ['/etc/x'])
  assert.ok(existsSync(`${root}/etc/x`))
})

test('unpackData() keeps links that lead outside, and never writes through them', async (t) => {
  const { root, outside } = roots(t)
  writeFileSync(`${outside}/secret`, 'secret')
  await unpack(root, [link('./absolute', outside), link('./relative', '../outside'), link('./file', `${outside}/secret`)])
  await unpack(root, [file('./absolute/a'), file('./relative/b'), file('./file')])
  assert.deepEqual(readdirSync(outside), ['secret'])
  assert.equal(readFileSync(`${outside}/secret`, 'utf8'), 'secret')
  assert.equal(readlinkSync(`${root}/absolute`), outside)
  assert.ok(existsSync(`${root}${outside}/a`), 'an absolute link starts again at the root')
  assert.ok(existsSync(`${root}/outside/b`), '.. stops at the root')
  assert.ok(lstatSync(`${root}/file`).isFile(), 'a link in the place of a file is replaced')
})

test('unpackData() makes no hard link to a file outside, through whatever link', async (t) => {
  const { root, outside } = roots(t)
  writeFileSync(`${outside}/secret`, 'secret')
  symlinkSync(outside, `${root}/out`)
  await assert.rejects(unpack(root, [hard('./x', './out/secret')]), { message: /not there/ })
  assert.equal(statSync(`${outside}/secret`).nlink, 1)
})

test('unpackData() follows a link to a directory where a package has the directory, as dpkg does for /bin', async (t) => {
  const { root } = roots(t)
  await unpack(root, [directory('./usr'), directory('./usr/bin'), link('./bin', 'usr/bin')])
  await unpack(root, [directory('./bin'), file('./bin/sh')])
  assert.equal(readlinkSync(`${root}/bin`), 'usr/bin')
  assert.ok(existsSync(`${root}/usr/bin/sh`))
})

test('unpackData() keeps setuid bits and lists who has them', { skip: process.getuid?.() !== 0 && 'needs root' }, async (t) => {
  const { root } = roots(t)
  const { setuid } = await unpack(root, [
    { ...file('./su'), mode: 0o4755 },
    { ...file('./write'), mode: 0o2755, gid: 5 },
  ])
  assert.deepEqual(setuid, ['/su', '/write'])
  assert.equal(statSync(`${root}/su`).mode & 0o7777, 0o4755)
  await unpack(root, [{ ...file('./tool'), mode: 0o4755 }], { ownerless: true })
  assert.equal(statSync(`${root}/tool`).mode & 0o7777, 0o755)
})

test('unpackData() records device nodes instead of making them', async (t) => {
  const { root } = roots(t)
  const { devices } = await unpack(root, [{ path: './dev/null', type: 'character', major: 1, minor: 3, mode: 0o666 }])
  assert.deepEqual([...devices], [['dev/null', { type: 'character', mode: 0o666, uid: 0, gid: 0, mtime: 0, major: 1, minor: 3 }]])
  assert.equal(existsSync(`${root}/dev/null`), false)
})

test('unpackData() puts conffiles beside their place, follows diversions and leaves out what is excluded', async (t) => {
  const { root } = roots(t)
  await unpack(root, [file('./etc/conf'), file('./bin/sh'), file('./doc/x')], {
    conffiles: new Set(['/etc/conf']),
    diverted: (path) => (path === '/bin/sh' ? '/bin/sh.distrib' : undefined),
    exclude: (path) => path.startsWith('/doc/'),
  })
  assert.deepEqual([...readTree(root).keys()], ['', 'bin', 'bin/sh.distrib', 'etc', 'etc/conf.dpkg-new'])
})

const CONTROL = Buffer.from('Package: tool\nVersion: 1\nArchitecture: amd64\n')
const deb = (files: Files, control = CONTROL) =>
  encodeAr([
    { name: 'debian-binary', data: Buffer.from('2.0\n') },
    { name: 'control.tar', data: encodeTar([{ path: './control', bytes: control }]) },
    { name: 'data.tar', data: encodeTar(files) },
  ])

test('unpackPackages() names the package in a Fault, and refuses one that is not what it was fetched as', async (t) => {
  const { root, outside } = roots(t)
  const fetched = (bytes: Uint8Array) => {
    writeFileSync(`${outside}/a.deb`, bytes)
    return {
      name: 'tool',
      version: '1',
      architecture: 'amd64',
      repository: 'r',
      filename: 'a',
      sizeBytes: bytes.length,
      sha256: '',
      file: `${outside}/a.deb`,
    }
  }
  await assert.rejects(unpackPackages(root, [fetched(deb([file('./../x')]))], new Report(() => {})), {
    message: /^Cannot unpack tool 1 amd64: /,
  })
  await unpackPackages(root, [fetched(deb([directory('./lib'), file('./lib/x')]))], new Report(() => {}))
  assert.ok(existsSync(`${root}/usr/lib/x`))
})

/** Everything about a tree but the times of its directories, which change as files are put into them. */
const facts = (root: string) =>
  [...readTree(root)].map(([path, { mtime, ...inode }]) => [
    path,
    inode.type === 'directory' ? '' : mtime,
    'content' in inode && 'path' in inode.content
      ? { ...inode, content: createHash('sha1').update(readFileSync(inode.content.path)).digest('hex') }
      : inode,
  ])

const MAKE = `
set -e
mkdir -p in/DEBIAN in/usr/bin in/etc && cd in
printf 'Package: tool\\nVersion: 1\\nArchitecture: amd64\\nMaintainer: a <a@b>\\nDescription: x\\n' > DEBIAN/control
printf tool > usr/bin/tool && ln usr/bin/tool usr/bin/hard && ln -s tool usr/bin/soft && mkfifo usr/pipe
chown 42:43 usr/bin/tool && chmod 4751 usr/bin/tool && touch -d @1600000000 usr/bin/tool && mkdir -m 2775 var
truncate -s 3M usr/holes && printf A | dd of=usr/holes bs=1 seek=2000000 conv=notrunc status=none
`
for (const kind of ['none', 'gzip', 'xz', 'zstd']) {
  oracle('dpkg-deb', `unpackData() gives the tree that dpkg-deb --extract gives, with -Z${kind}`, async (t, judge) => {
    if (process.getuid?.() !== 0) return t.skip('needs root')
    await judge.run([
      'sh',
      '-c',
      `${MAKE} cd .. && dpkg-deb -Z${kind} --build in a.deb && mkdir theirs ours && dpkg-deb --extract a.deb theirs`,
    ])
    await judge.run(['sh', '-c', 'dpkg-deb --fsys-tarfile a.deb > a.tar'])
    await unpackData(`${judge.dir}/ours`, once(readFileSync(`${judge.dir}/a.tar`)), {})
    assert.deepEqual(
      facts(`${judge.dir}/ours`).filter(([path]) => path !== ''),
      facts(`${judge.dir}/theirs`).filter(([path]) => path !== ''),
    )
  })
}
