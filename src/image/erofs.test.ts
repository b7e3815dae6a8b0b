import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  readSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { type TestContext, test } from 'node:test'
import fc from 'fast-check'
import { JUDGES, oracle } from '../../test/oracle.ts'
import { Fault } from '../base/fault.ts'
import { Report } from '../base/report.ts'
import { decodeErofs, type Erofs } from '../formats/erofs-decode.ts'
import { readXattrs } from '../run/xattr.ts'
import { type Inode, type Tree, treeOf } from '../tree/tree.ts'
import { type ErofsOptions, writeErofs } from './erofs.ts'

const UUID = '11111111-2222-3333-4444-555566667777'
const ROOT = { type: 'directory', mode: 0o755, uid: 0, gid: 0, mtime: 1_700_000_000 } as const
const common = { mode: 0o644, uid: 0, gid: 0, mtime: 1_700_000_000 }
const quiet = new Report(() => {})
const CHUNK = 128 << 10

const file = (bytes: Uint8Array, more: Partial<Inode> = {}): Inode =>
  ({ ...common, type: 'file', sizeBytes: bytes.length, content: { bytes }, ...more }) as Inode

const temporary = (t: TestContext): string => {
  const dir = mkdtempSync(join(tmpdir(), 'bisque-erofs-'))
  t.after(() => rmSync(dir, { recursive: true, force: true }))
  return dir
}

const write = (tree: Tree, path: string, options: Partial<ErofsOptions> = {}) =>
  writeErofs(tree, path, { uuid: UUID, label: 'usr', compression: 'zstd', workers: 2, ...options }, quiet)

function open(path: string): Erofs {
  const fd = openSync(path, 'r')
  const read = (at: number, n: number) => {
    const bytes = new Uint8Array(n)
    return bytes.subarray(0, readSync(fd, bytes, 0, n, at))
  }
  return decodeErofs(read, statSync(path).size)
}

/** Bytes that no compressor makes smaller, the same every time. */
function noise(length: number, seed = 1): Buffer {
  const bytes = Buffer.alloc(length)
  for (let i = 0, x = seed; i < length; i++) {
    x = (Math.imul(x, 1664525) + 1013904223) >>> 0
    bytes[i] = x >>> 24
  }
  return bytes
}
/** Bytes that compress about as programs do. */
const prose = (length: number): Buffer =>
  Buffer.from(
    Array.from({ length: Math.ceil(length / 16) }, (_, i) => (i * 2654435761).toString(36).padEnd(16)).join(''),
  ).subarray(0, length)

/** Every kind of inode, size and name that has ever been an edge. */
function edges(dir: string): Tree {
  writeFileSync(join(dir, 'on-disk'), Buffer.concat([prose(300_000), noise(200_000), prose(100_000)]))
  const entries: [string, Inode][] = []
  for (const size of [0, 1, 4031, 4032, 4033, 4095, 4096, 4097, 8192, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5]) {
    entries.push([`sizes/prose-${size}`, file(prose(size))])
    entries.push([`sizes/noise-${size}`, file(noise(size))])
    entries.push([`sizes/zeros-${size}`, file(Buffer.alloc(size))])
  }
  const hard = file(prose(10_000), { mode: 0o4755, uid: 1000, gid: 65534 })
  const linked: Inode = { ...common, type: 'symlink', mode: 0o777, target: 'on-disk' }
  const many = new Map(
    Array.from({ length: 60 }, (_, i) => [`user.attribute-${String(i).padStart(3, '0')}`, noise(i, i + 1) as Uint8Array]),
  )
  entries.push(
    ['on-disk', { ...common, type: 'file', sizeBytes: 600_000, content: { path: join(dir, 'on-disk') } }],
    ['hard/one', hard],
    ['hard/two', hard],
    ['three', hard],
    ['link', linked],
    ['link-again', linked],
    ['long-link', { ...common, mode: 0o777, type: 'symlink', target: `${'x/'.repeat(2040)}y` }],
    ['dev/null', { ...common, type: 'character', mode: 0o666, major: 1, minor: 3 }],
    ['dev/big', { ...common, type: 'block', major: 259, minor: 0x12345 }],
    ['dev/fifo', { ...common, type: 'fifo', mode: 0o1600 }],
    ['dev/socket', { ...common, type: 'socket' }],
    ['attributes/capable', file(prose(9000), { xattrs: new Map([['security.capability', CAPABILITY]]) })],
    ['attributes/many', file(Buffer.from('small'), { xattrs: many })],
    ['attributes/large', file(noise(5000), { xattrs: new Map([['user.large', noise(3000)]]) })],
    ['attributes/dir', { ...ROOT, mode: 0o2775, gid: 50, xattrs: new Map([['user.dir', Buffer.from('d')]]) }],
    ['attributes/only-tail-too-long', file(prose(4000), { xattrs: new Map([['user.a', noise(100)]]) })],
    ['!before-dot', file(Buffer.from('!'))],
    ['-before-dot', file(Buffer.from('-'))],
    ['.hidden', file(Buffer.from('.'))],
    [`names/${'n'.repeat(255)}`, file(Buffer.from('long'))],
    ['names/ünïcödé 𝔘', file(Buffer.from('u'), { mtime: 1 })],
    [`${'deep/'.repeat(60)}end`, file(Buffer.from('deep'))],
    ['empty', { ...ROOT, mode: 0o700 }],
  )
  for (let i = 0; i < 5; i++)
    entries.push([`attributes/shared-${i}`, file(prose(i * 3000), { xattrs: new Map([['user.same', Buffer.from('same')]]) })])
  for (let i = 0; i < 1200; i++) entries.push([`thousands/${'-.x'[i % 3]}entry-${i}`, file(Buffer.from(String(i % 40)))])
  return treeOf(entries, ROOT)
}
/** cap_net_raw=ep, revision 2. */
const CAPABILITY = Buffer.from('0100000200200000000000000000000000000000', 'hex')

const contentOf = (inode: Inode & { type: 'file' }): Buffer =>
  'bytes' in inode.content ? Buffer.from(inode.content.bytes) : readFileSync(inode.content.path)

function assertSame(erofs: Erofs, tree: Tree): void {
  assert.deepEqual([...erofs.inodes.keys()].sort(), [...tree.keys()].sort())
  const paths = Map.groupBy(tree, ([path, inode]) => (inode.type === 'directory' ? path : inode))
  for (const [path, inode] of tree) {
    const got = erofs.inodes.get(path)!
    const { type, mode, uid, gid, mtime } = got
    const want = { type: inode.type, mode: inode.mode, uid: inode.uid, gid: inode.gid, mtime: inode.mtime }
    assert.deepEqual({ type, mode, uid, gid, mtime }, want, path)
    assert.deepEqual(
      [...got.xattrs].map(([k, v]) => [k, Buffer.from(v)]),
      [...(inode.xattrs ?? [])].map(([k, v]) => [k, Buffer.from(v)]),
      path,
    )
    if (inode.type === 'symlink') assert.equal(got.target, inode.target)
    if (inode.type === 'character' || inode.type === 'block') assert.deepEqual([got.major, got.minor], [inode.major, inode.minor])
    if (inode.type === 'file') assert.ok(Buffer.concat([...erofs.contents(got)]).equals(contentOf(inode)), `content of ${path}`)
    if (inode.type !== 'directory') assert.equal(got.links, paths.get(inode)!.length, path)
  }
}

for (const compression of ['zstd', 'none'] as const) {
  test(`decodeErofs() gives back what writeErofs() took, with compression ${compression}`, async (t) => {
    const dir = temporary(t)
    const tree = edges(dir)
    const { sizeBytes, blocks } = await write(tree, join(dir, 'image'), { compression })
    assert.equal(sizeBytes, statSync(join(dir, 'image')).size)
    assert.equal(sizeBytes, blocks * 4096)
    assertSame(open(join(dir, 'image')), tree)
  })
}

test('writeErofs() gives the same bytes with one thread as with three', async (t) => {
  const dir = temporary(t)
  const tree = edges(dir)
  await write(tree, join(dir, 'one'), { workers: 1 })
  await write(tree, join(dir, 'three'), { workers: 3 })
  assert.ok(readFileSync(join(dir, 'one')).equals(readFileSync(join(dir, 'three'))))
})

test('writeErofs() stores equal files once', async (t) => {
  const dir = temporary(t)
  const bytes = noise(1 << 20)
  const once = await write(treeOf([['a', file(bytes)]], ROOT), join(dir, 'once'))
  const tree = treeOf(
    [
      ['a', file(bytes)],
      ['b', file(Buffer.from(bytes))],
      ['c', file(noise(1 << 20, 2))],
    ],
    ROOT,
  )
  const more = await write(tree, join(dir, 'more'))
  assert.equal(more.blocks - once.blocks, 256)
  assertSame(open(join(dir, 'more')), tree)
})

test('writeErofs() writes the empty tree', async (t) => {
  const path = join(temporary(t), 'image')
  await write(treeOf([], ROOT), path)
  assert.deepEqual([...open(path).inodes.keys()], [''])
})

test('writeErofs() writes any tree', async (t) => {
  const dir = temporary(t)
  const name = fc
    .string({ unit: fc.constantFrom('a', 'B', '-', '!', '.', ' ', 'é', '~'), minLength: 1, maxLength: 12 })
    .filter((n) => n !== '.' && n !== '..')
  const path = fc.array(name, { minLength: 1, maxLength: 4 }).map((parts) => parts.join('/'))
  const content = fc.tuple(fc.constantFrom(prose, noise), fc.nat(40_000)).map(([make, length]) => make(length))
  const attributes = fc.record({
    mode: fc.nat(0o7777),
    uid: fc.nat(0xffff_ffff),
    gid: fc.nat(0xffff_ffff),
    mtime: fc.nat(0xffff_ffff),
    xattrs: fc
      .dictionary(fc.constantFrom('user.a', 'user.b', 'trusted.c', 'security.d'), fc.uint8Array({ maxLength: 300 }))
      .map((all) => new Map(Object.entries(all).sort())),
  })
  const inode: fc.Arbitrary<Inode> = fc.oneof(
    fc.tuple(attributes, content).map(([more, bytes]) => file(bytes, more)),
    fc.tuple(attributes, name).map(([more, target]) => ({ ...more, type: 'symlink' as const, target })),
    attributes.map((more) => ({ ...more, type: 'fifo' as const })),
  )
  const trees = fc.array(fc.tuple(path, inode), { maxLength: 30 }).map((entries) => {
    const folders = new Set(entries.flatMap(([p]) => p.split('/').map((_, i, parts) => parts.slice(0, i).join('/'))))
    return treeOf(
      entries.filter(([p]) => !folders.has(p)),
      ROOT,
    )
  })
  await fc.assert(
    fc.asyncProperty(trees, fc.constantFrom(8192, 65536), async (tree, chunkBytes) => {
      await write(tree, join(dir, 'image'), { chunkBytes, workers: 1 })
      assertSame(open(join(dir, 'image')), tree)
    }),
    { numRuns: 12 },
  )
})

// ——— Refusals ———

const onDisk = (path: string, sizeBytes: number): Inode => ({ ...common, type: 'file', sizeBytes, content: { path } })
for (const [actual, said] of [
  [70_000, 80_000],
  [80_000, 70_000],
  [10, 20],
  [20, 10],
] as const) {
  test(`writeErofs() refuses a file that has ${actual} bytes where the tree says ${said}, and leaves nothing`, async (t) => {
    const dir = temporary(t)
    writeFileSync(join(dir, 'f'), noise(actual))
    await assert.rejects(write(treeOf([['f', onDisk(join(dir, 'f'), said)]], ROOT), join(dir, 'image')), (e) => {
      assert.ok(e instanceof Fault)
      assert.match(e.message, new RegExp(`/f into EROFS: it has ${actual} bytes, the tree says ${said}`))
      return true
    })
    assert.ok(!existsSync(join(dir, 'image')))
  })
}
test('writeErofs() refuses a file that is gone, and leaves nothing', async (t) => {
  const dir = temporary(t)
  await assert.rejects(write(treeOf([['f', onDisk(join(dir, 'f'), 100_000)]], ROOT), join(dir, 'image')), /Cannot read .*ENOENT/)
  assert.ok(!existsSync(join(dir, 'image')))
})
test('writeErofs() refuses bytes that are fewer than the size', async (t) => {
  const tree = treeOf([['f', { ...file(noise(10)), sizeBytes: 11 } as Inode]], ROOT)
  await assert.rejects(write(tree, join(temporary(t), 'image')), /it has 10 bytes, the tree says 11/)
})
test('writeErofs() refuses an inode whose parent is not a directory of the tree', async (t) => {
  const path = join(temporary(t), 'image')
  await assert.rejects(
    write(
      new Map<string, Inode>([
        ['', ROOT],
        ['a/b', file(noise(1))],
      ]),
      path,
    ),
    /its parent is not in the tree/,
  )
  await assert.rejects(
    write(
      new Map<string, Inode>([
        ['', ROOT],
        ['a', file(noise(1))],
        ['a/b', file(noise(1))],
      ]),
      path,
    ),
    /its parent is not a directory/,
  )
  await assert.rejects(write(new Map(), path), /root directory/)
})
for (const [what, options] of [
  ['level', { level: 23 }],
  ['chunk', { chunkBytes: 5000 }],
  ['chunk', { chunkBytes: 2 << 20 }],
] as const) {
  test(`writeErofs() refuses the ${what} in ${JSON.stringify(options)}`, async (t) => {
    await assert.rejects(
      write(treeOf([], ROOT), join(temporary(t), 'image'), options),
      (e) => e instanceof Fault && e.code === 'usage',
    )
  })
}

// ——— Judges ———

/** Compares what a kernel or a tool shows under `dir` with the tree. */
function assertShown(dir: string, tree: Tree, what: { links: boolean; xattrs: boolean }): void {
  const shown = ['', ...readdirSync(dir, { recursive: true, encoding: 'utf8' })]
  assert.deepEqual(shown.sort(), [...tree.keys()].sort())
  const paths = Map.groupBy(tree, ([path, inode]) => (inode.type === 'directory' ? path : inode))
  for (const [path, inode] of tree) {
    const s = lstatSync(join(dir, path))
    const got = { mode: s.mode & 0o7777, uid: s.uid, gid: s.gid, mtime: Math.floor(s.mtimeMs / 1000) }
    assert.deepEqual(got, { mode: inode.mode, uid: inode.uid, gid: inode.gid, mtime: inode.mtime }, path)
    if (inode.type === 'symlink') assert.equal(readlinkSync(join(dir, path)), inode.target)
    if (inode.type === 'file') assert.ok(readFileSync(join(dir, path)).equals(contentOf(inode)), `content of ${path}`)
    if (inode.type === 'character' || inode.type === 'block') {
      assert.equal(inode.type === 'block', s.isBlockDevice())
      assert.deepEqual([(s.rdev >>> 8) & 0xfff, (s.rdev & 0xff) | ((s.rdev >>> 12) & 0xfff00)], [inode.major, inode.minor])
    }
    assert.equal(s.isFIFO(), inode.type === 'fifo')
    assert.equal(s.isSocket(), inode.type === 'socket')
    if (what.links && inode.type !== 'directory') assert.equal(s.nlink, paths.get(inode)!.length)
    if (what.links && inode.type === 'directory') {
      const inside = [...tree].filter(
        ([p, i]) => p !== '' && i.type === 'directory' && (dirname(p) === '.' ? '' : dirname(p)) === path,
      )
      assert.equal(s.nlink, 2 + inside.length, path)
    }
    if (what.xattrs) {
      const want = [...(inode.xattrs ?? [])].map(([name, value]) => [name, Buffer.from(value).toString('hex')])
      const shown = [...readXattrs(join(dir, path))].map(([name, value]) => [name, Buffer.from(value).toString('hex')])
      assert.deepEqual(shown, want, path)
    }
  }
}

const isRoot = process.getuid?.() === 0
const canMount = isRoot && existsSync('/dev/loop-control')

for (const compression of ['zstd', 'none'] as const) {
  const skip = canMount ? false : 'mounting needs root and loop devices'
  test(`[kernel] mounts the image and shows every file and attribute, with compression ${compression}`, { skip }, async (t) => {
    const dir = temporary(t)
    const tree = edges(dir)
    await write(tree, join(dir, 'image'), { compression })
    mkdirSync(join(dir, 'mounted'))
    execFileSync('mount', ['-t', 'erofs', '-o', 'loop,ro', join(dir, 'image'), join(dir, 'mounted')])
    try {
      assertShown(join(dir, 'mounted'), tree, { links: true, xattrs: true })
    } finally {
      execFileSync('umount', [join(dir, 'mounted')])
    }
  })
}

for (const options of [{}, { chunkBytes: 1 << 20, level: 12 }, { chunkBytes: 8192 }, { compression: 'none' }] as const) {
  oracle('fsck.erofs', `fsck.erofs extracts every file we wrote with ${JSON.stringify(options)}`, async (t, judge) => {
    if (!isRoot) return t.skip('extracting owners needs root')
    // The sandbox makes no device nodes; the kernel's own test has them.
    const tree = new Map([...edges(judge.dir)].filter(([, { type }]) => type !== 'block' && type !== 'character'))
    await write(tree, join(judge.dir, 'image'), options)
    await judge.run(['fsck.erofs', '--extract=out', '--preserve', 'image'])
    assertShown(join(judge.dir, 'out'), tree, { links: false, xattrs: false })
  })
}

oracle('dump.erofs', 'dump.erofs reads the superblock and an inode we wrote', async (_t, judge) => {
  const tree = edges(judge.dir)
  const { blocks } = await write(tree, join(judge.dir, 'image'))
  const { stdout } = await judge.run(['dump.erofs', '-s', 'image'])
  assert.match(stdout, new RegExp(`Filesystem blocks: +${blocks}\n`))
  assert.match(stdout, new RegExp(`UUID: +${UUID}`))
  assert.match(stdout, /compr_algs: +zstd/)
  const inode = (await judge.run(['dump.erofs', '--path=/on-disk', 'image'])).stdout
  assert.match(inode, /Size: 600000/)
  assert.match(inode, /Layout: 1/)
})

// Layouts mkfs.erofs can write and we read: compact and full indexes, plain, chunked; large and single-block extents.
for (const options of [
  ['-zzstd', '-C65536'],
  ['-zzstd'],
  ['-zzstd,12', '-C1048576'],
  ['-zdeflate', '-C32768'],
  ['-zzstd', '-C32768', '-Elegacy-compress'],
  [],
  ['--chunksize=65536'],
  ['-T0', '-Eforce-inode-compact'],
]) {
  oracle('mkfs.erofs', `decodeErofs() reads what mkfs.erofs wrote with "${options.join(' ')}"`, async (_t, judge) => {
    const tree = readable(edges(judge.dir), 200)
    layOnDisk(tree, join(judge.dir, 'source'))
    await judge.run(['mkfs.erofs', '--quiet', '-Uclear', ...options, 'image', 'source'])
    const erofs = open(join(judge.dir, 'image'))
    assert.deepEqual([...erofs.inodes.keys()].sort(), [...tree.keys()].sort())
    for (const [path, inode] of tree) {
      const got = erofs.inodes.get(path)!
      assert.equal(got.mode, inode.mode, path)
      if (inode.type === 'file') assert.ok(Buffer.concat([...erofs.contents(got)]).equals(contentOf(inode)), `content of ${path}`)
    }
  })
}

oracle('mkfs.erofs', 'the image of /usr/lib/systemd is at most 5 % larger than that of mkfs.erofs', async (_t, judge) => {
  const source = join(JUDGES ?? '', 'usr/lib/systemd')
  const entries: [string, Inode][] = []
  for (const found of readdirSync(source, { recursive: true, withFileTypes: true })) {
    const path = join(found.parentPath, found.name)
    if (found.isFile())
      entries.push([
        path.slice(source.length + 1),
        { ...common, type: 'file', sizeBytes: statSync(path).size, content: { path } },
      ])
  }
  const tree = treeOf(entries, ROOT)
  const ours = await write(tree, join(judge.dir, 'ours'))
  await judge.run(['mkfs.erofs', '--quiet', '-zzstd,3', `-C${CHUNK}`, 'theirs', '/usr/lib/systemd'])
  const theirs = statSync(join(judge.dir, 'theirs')).size
  assert.ok(ours.sizeBytes <= theirs * 1.05, `${ours.sizeBytes} bytes, mkfs.erofs needs ${theirs}`)
})

/** Only what an ordinary user could make, files and folders, and the first `limit` of a large folder. */
function readable(tree: Tree, limit: number): Tree {
  const entries: [string, Inode][] = []
  let large = 0
  for (const [path, inode] of tree) {
    if (path.startsWith('thousands/') && ++large > limit) continue
    if (inode.type === 'file') entries.push([path, { ...inode, mode: 0o644 }])
    if (inode.type === 'directory') entries.push([path, { ...inode, mode: 0o755 }])
  }
  return treeOf(entries, ROOT)
}

function layOnDisk(tree: Tree, root: string): void {
  for (const [path, inode] of tree) {
    if (inode.type === 'directory') mkdirSync(join(root, path), { recursive: true })
    if (inode.type === 'file') writeFileSync(join(root, path), contentOf(inode))
    chmodSync(join(root, path), inode.mode)
  }
}
