import assert from 'node:assert/strict'
import { chmodSync, lstatSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { type TestContext, test } from 'node:test'
import { madeDirectory, madeFile, madeSymlink } from '../tree/content.ts'
import { readTree } from '../tree/from-disk.ts'
import { type Inode, treeOf } from '../tree/tree.ts'
import { writeFolder } from './output/folder.ts'
import { stageTree } from './staging.ts'

const EPOCH = 1_700_000_000
const own = { uid: process.getuid!(), gid: process.getgid!() }
const mine = <I extends Inode>(inode: I): I => ({ ...inode, ...own })

function folder(t: TestContext): string {
  const dir = mkdtempSync(`${tmpdir()}/bisque-staging-`)
  t.after(() => rmSync(dir, { recursive: true, force: true }))
  return dir
}

test('readTree() gives back what writeFolder() wrote, times after the epoch clamped', async (t) => {
  const dir = folder(t)
  const tool = mine({ ...madeFile('soup', EPOCH - 9, 0o4755), xattrs: new Map([['user.soup', Uint8Array.of(0, 1)]]) })
  const tree = treeOf(
    [
      ['usr/a', tool],
      ['usr/b', tool],
      ['usr/late', mine(madeFile('x', EPOCH + 1000))],
      ['usr/link', mine(madeSymlink('a', EPOCH - 3))],
      ['closed', mine(madeDirectory(EPOCH - 1, 0o500))],
      ['closed/f', mine(madeFile('', EPOCH, 0o400))],
      ['p', mine<Inode>({ type: 'fifo', mode: 0o640, uid: 0, gid: 0, mtime: EPOCH })],
      ['s', mine<Inode>({ type: 'socket', mode: 0o640, uid: 0, gid: 0, mtime: EPOCH })],
    ],
    mine(madeDirectory(EPOCH)),
  )
  await writeFolder(tree, `${dir}/out`, { epoch: EPOCH })
  const read = readTree(`${dir}/out`)
  chmodSync(`${dir}/out/closed`, 0o700) // for the test's folder to be removed
  assert.deepEqual(
    [...read.keys()],
    [...tree.keys()].filter((path) => path !== 's'),
  )
  for (const [path, inode] of read) {
    const { mode, mtime, xattrs } = tree.get(path)!
    assert.deepEqual([inode.mode, inode.mtime, inode.xattrs], [mode, Math.min(mtime, EPOCH), xattrs], path)
  }
  assert.equal(read.get('usr/a'), read.get('usr/b'))
})

test('stageTree() shares a file that lies as the tree has it, and copies one that does not', async (t) => {
  const dir = folder(t)
  for (const name of ['same', 'other']) {
    writeFileSync(`${dir}/${name}`, name, { mode: 0o644 })
    utimesSync(`${dir}/${name}`, EPOCH, EPOCH)
  }
  const file = (name: string, mode: number) => mine({ ...madeFile(name, EPOCH, mode), content: { path: `${dir}/${name}` } })
  const tree = treeOf(
    [
      ['same', file('same', 0o644)],
      ['other', file('other', 0o755)],
    ],
    mine(madeDirectory(EPOCH)),
  )
  mkdirSync(`${dir}/out`)
  await stageTree(tree, `${dir}/out`, { epoch: EPOCH, share: true })
  assert.equal(statSync(`${dir}/out/same`).ino, statSync(`${dir}/same`).ino)
  assert.notEqual(statSync(`${dir}/out/other`).ino, statSync(`${dir}/other`).ino)
  assert.equal(statSync(`${dir}/other`).mode & 0o777, 0o644)
  await writeFolder(tree, `${dir}/apart`, { epoch: EPOCH })
  assert.notEqual(lstatSync(`${dir}/apart/same`).ino, statSync(`${dir}/same`).ino)
})

test('writeFolder() refuses device nodes and files that changed, and leaves nothing of a folder that failed', async (t) => {
  const dir = folder(t)
  writeFileSync(`${dir}/f`, 'x')
  const device = mine<Inode>({ type: 'block', mode: 0o600, uid: 0, gid: 0, mtime: EPOCH, major: 8, minor: 0 })
  const changed = mine({ ...madeFile('longer', EPOCH), content: { path: `${dir}/f` } })
  const trees: [Inode, object][] = [
    [device, { code: 'recipe', message: /\/x to disk: it is a block device/ }],
    [changed, { code: 'integrity', message: /6 bytes when listed, now 1/ }],
  ]
  for (const [inode, fault] of trees) {
    const tree = treeOf([['x', inode]], mine(madeDirectory(EPOCH)))
    await assert.rejects(writeFolder(tree, `${dir}/out`, { epoch: EPOCH }), fault)
  }
  assert.deepEqual(readdirSync(dir), ['f'])
  await assert.rejects(writeFolder(treeOf([], mine(madeDirectory(EPOCH))), dir, { epoch: EPOCH }), /EEXIST/)
  assert.deepEqual(readdirSync(dir), ['f'])
})
