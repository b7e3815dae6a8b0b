import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { test } from 'node:test'
import { oracle } from '../../../test/oracle.ts'
import { decodeTar, type TarEntry } from '../../formats/tar.ts'
import { madeDirectory, madeFile, madeSymlink } from '../../tree/content.ts'
import { type Inode, type Tree, treeOf } from '../../tree/tree.ts'
import { atRest, tarOf } from './tar.ts'

const EPOCH = 1_700_000_000
const LONG = `${'n'.repeat(150)}/ü`

function sample(): Tree {
  const tool: Inode = {
    ...madeFile(Buffer.alloc(700_000, 'soup'), EPOCH - 100, 0o4755),
    xattrs: new Map([['user.soup', Uint8Array.of(0, 61, 10, 255)]]),
  }
  return treeOf(
    [
      ['usr/bin/tool', tool],
      ['usr/bin/same', tool],
      ['usr/bin/link', madeSymlink('tool', EPOCH)],
      [`usr/${LONG}`, madeFile('x', EPOCH + 500)],
      ['var', { ...madeDirectory(EPOCH, 0o1777), uid: 3_000_000, gid: 44 }],
      ['null', { type: 'character', mode: 0o666, uid: 0, gid: 5, mtime: EPOCH, major: 1, minor: 3 }],
      ['p', { type: 'fifo', mode: 0o640, uid: 0, gid: 0, mtime: -5 }],
      ['s', { type: 'socket', mode: 0o640, uid: 0, gid: 0, mtime: 0 }],
    ],
    madeDirectory(EPOCH),
  )
}

async function bytesOf(input: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const parts: Uint8Array[] = []
  for await (const bytes of input) parts.push(bytes)
  return Buffer.concat(parts)
}

async function* once(bytes: Uint8Array) {
  yield bytes
}

test('decodeTar() finds the tree in what tarOf() wrote, in its order', async () => {
  const tree = sample()
  const entries: TarEntry[] = []
  for await (const { content, ...entry } of decodeTar(once(await bytesOf(tarOf(tree, { epoch: EPOCH }))))) {
    if (entry.path === './usr/bin/same') {
      const whole = Buffer.alloc(entry.sizeBytes)
      for await (const chunk of content()) whole.set(chunk.bytes, chunk.offset)
      assert.deepEqual(whole, Buffer.alloc(700_000, 'soup'))
    }
    entries.push(entry)
  }
  const paths = [...tree.keys()].filter((path) => path !== 's')
  assert.deepEqual(
    entries.map(({ path }) => path.replace(/^\.\//, '').replace(/\/$/, '')),
    paths,
  )
  const of = (path: string) => entries[paths.indexOf(path)]!
  assert.deepEqual([of('usr/bin/tool').type, of('usr/bin/tool').target], ['hardlink', './usr/bin/same'])
  assert.deepEqual([...of('usr/bin/same').xattrs], [['user.soup', Uint8Array.of(0, 61, 10, 255)]])
  assert.deepEqual([of('usr/bin/same').mode, of('usr/bin/same').mtime], [0o4755, EPOCH - 100])
  assert.equal(of(`usr/${LONG}`).mtime, EPOCH)
  assert.deepEqual([of('var').uid, of('var').gid, of('var').mode], [3_000_000, 44, 0o1777])
  assert.deepEqual([of('null').type, of('null').major, of('null').minor], ['character', 1, 3])
  assert.deepEqual([of('p').type, of('p').mtime], ['fifo', -5])
})

test('tarOf() gives the same bytes again, wherever the content lies', async (t) => {
  const dir = mkdtempSync(`${tmpdir()}/bisque-tar-`)
  t.after(() => rmSync(dir, { recursive: true }))
  const there = sample()
  for (const [i, inode] of [...new Set(there.values())].entries()) {
    if (inode.type !== 'file' || !('bytes' in inode.content)) continue
    writeFileSync(`${dir}/${i}`, inode.content.bytes)
    inode.content = { path: `${dir}/${i}` }
  }
  assert.deepEqual(await bytesOf(tarOf(there)), await bytesOf(tarOf(sample())))
})

test('tarOf() refuses a file whose size is no longer what the tree says', async (t) => {
  const dir = mkdtempSync(`${tmpdir()}/bisque-tar-`)
  t.after(() => rmSync(dir, { recursive: true }))
  for (const sizeBytes of [10, 400_000]) {
    for (const actual of [sizeBytes - 1, sizeBytes + 1]) {
      writeFileSync(`${dir}/f`, Buffer.alloc(actual))
      const tree = treeOf([['f', { ...madeFile('', EPOCH), sizeBytes, content: { path: `${dir}/f` } }]], madeDirectory(EPOCH))
      await assert.rejects(bytesOf(tarOf(tree)), { code: 'integrity', message: new RegExp(`${sizeBytes} bytes when listed`) })
    }
  }
})

test('atRest() keeps folders of the running system and leaves out what is in them', () => {
  const file = madeFile('', EPOCH)
  const tree = treeOf(
    ['dev/null', 'proc/x', 'tmp/x', 'var/tmp/y', 'var/lib/z', 'runner/x'].map((path) => [path, file]),
    madeDirectory(EPOCH),
  )
  const kept = ['', 'dev', 'proc', 'runner', 'runner/x', 'tmp', 'var', 'var/lib', 'var/lib/z', 'var/tmp']
  assert.deepEqual([...atRest(tree).keys()], kept)
})

oracle('tar', 'tar extracts what tarOf() wrote', async (_t, judge) => {
  writeFileSync(`${judge.dir}/a.tar`, await bytesOf(tarOf(new Map([...sample()].filter(([path]) => path !== 'null')))))
  const { stdout } = await judge.run(['tar', '--numeric-owner', '--xattrs', '-tvvf', 'a.tar'])
  assert.match(stdout, /^-rwsr-xr-x\* 0\/0 +700000 .* \.\/usr\/bin\/same\n +x: +4 user.soup$/m)
  assert.match(stdout, /^hrwsr-xr-x.* \.\/usr\/bin\/tool link to \.\/usr\/bin\/same$/m)
  assert.match(stdout, /^drwxrwxrwt +3000000\/44 .* \.\/var\/$/m)
  mkdirSync(`${judge.dir}/out`)
  await judge.run(['tar', '--no-same-owner', '-C', 'out', '-xf', 'a.tar'])
  assert.equal(statSync(`${judge.dir}/out/usr/bin/tool`).ino, statSync(`${judge.dir}/out/usr/bin/same`).ino)
  assert.equal(readFileSync(`${judge.dir}/out/usr/${LONG}`, 'utf8'), 'x')
})
