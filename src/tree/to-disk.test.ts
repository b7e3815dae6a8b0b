import assert from 'node:assert/strict'
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { Fault } from '../base/fault.ts'
import { setXattr } from '../run/xattr.ts'
import { madeDirectory, madeFile, madeSymlink } from './content.ts'
import { readTree } from './from-disk.ts'
import { writeTree } from './to-disk.ts'
import { type Inode, type Tree, treeOf } from './tree.ts'

const EPOCH = 1_700_000_000
const own = { uid: process.getuid!(), gid: process.getgid!() }
const mine = <I extends Inode>(inode: I): I => ({ ...inode, ...own })
const tree = (files: Record<string, Inode>): Tree =>
  treeOf(
    Object.entries(files).map(([path, inode]) => [path, mine(inode)]),
    mine(madeDirectory(EPOCH)),
  )

function folders(t: TestContext): { root: string; outside: string } {
  const dir = mkdtempSync(join(tmpdir(), 'bisque-disk-'))
  t.after(() => rmSync(dir, { recursive: true, force: true }))
  for (const name of ['root', 'outside']) mkdirSync(join(dir, name))
  return { root: join(dir, 'root'), outside: join(dir, 'outside') }
}

test('readTree() gives back what writeTree() wrote: modes, times, links', async (t) => {
  const { root } = folders(t)
  const shared = mine(madeFile('same', EPOCH, 0o640))
  const written = new Map([
    ...tree({
      'usr/bin/x': madeFile('x', EPOCH - 9, 0o4755),
      'usr/lib/empty': madeDirectory(EPOCH, 0o1777),
      'usr/x': madeSymlink('bin/x', EPOCH),
    }),
  ])
  written.set('usr/a', shared).set('usr/b', shared)
  await writeTree(written, root)
  const read = readTree(root)
  assert.deepEqual([...read.keys()].sort(), [...written.keys()].sort())
  for (const [path, inode] of written) {
    const { mode, mtime, type } = read.get(path)!
    assert.deepEqual([type, mode], [inode.type, inode.mode], path)
    if (inode.type !== 'symlink') assert.equal(mtime, inode.mtime, path)
  }
  assert.equal(read.get('usr/a'), read.get('usr/b'))
  assert.equal((read.get('usr/x') as { target: string }).target, 'bin/x')
})

test('writeTree() follows links of the root inside it, and never out of it', async (t) => {
  const { root, outside } = folders(t)
  mkdirSync(join(root, 'usr/lib'), { recursive: true })
  symlinkSync('usr/lib', join(root, 'lib'))
  symlinkSync(outside, join(root, 'escape'))
  symlinkSync('../../../..', join(root, 'climb'))
  await writeTree(new Map([['lib/soup', mine(madeFile('x', EPOCH))]]), root)
  assert.equal(readFileSync(join(root, 'usr/lib/soup'), 'utf8'), 'x')
  await writeTree(
    new Map([
      ['escape/x', mine(madeFile('x', EPOCH))],
      ['climb/y', mine(madeFile('y', EPOCH))],
    ]),
    root,
  )
  assert.deepEqual(readdirSync(outside), [])
  assert.ok(existsSync(join(root, 'y')))
})

test('writeTree() replaces a link in a file’s place instead of writing through it, and refuses to bury a directory', async (t) => {
  const { root, outside } = folders(t)
  writeFileSync(join(outside, 'victim'), 'safe')
  symlinkSync(join(outside, 'victim'), join(root, 'file'))
  await writeTree(new Map([['file', mine(madeFile('new', EPOCH))]]), root)
  assert.equal(readFileSync(join(outside, 'victim'), 'utf8'), 'safe')
  assert.ok(lstatSync(join(root, 'file')).isFile())
  mkdirSync(join(root, 'folder'))
  await assert.rejects(writeTree(new Map([['folder', mine(madeFile('x', EPOCH))]]), root), Fault)
  await assert.rejects(
    writeTree(new Map([['node', { ...madeFile('', EPOCH), type: 'block', major: 8, minor: 0 } as Inode]]), root),
    Fault,
  )
})

test('readTree() keeps extended attributes and what it is told beside the disk', (t) => {
  const { root } = folders(t)
  writeFileSync(join(root, 'f'), '')
  setXattr(join(root, 'f'), 'user.soup', Buffer.from([0, 1, 255]))
  const device: Inode = { type: 'character', mode: 0o666, uid: 0, gid: 0, mtime: EPOCH, major: 1, minor: 3 }
  const read = readTree(root, { extra: new Map([['dev/null', device]]), exclude: (path) => path === 'left' })
  assert.deepEqual(read.get('f')!.xattrs, new Map([['user.soup', Uint8Array.of(0, 1, 255)]]))
  assert.equal(read.get('dev/null'), device)
})
