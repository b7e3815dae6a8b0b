import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { type TestContext, test } from 'node:test'
import { type Judge, MKFS, oracle } from '../../test/oracle.ts'
import { sha256 } from '../base/digest.ts'
import { Report } from '../base/report.ts'
import { readXattrs } from '../run/xattr.ts'
import { madeDirectory, madeFile, madeSymlink } from '../tree/content.ts'
import { type Inode, type Tree, treeOf } from '../tree/tree.ts'
import { writeDisk } from './disk.ts'
import { fileSystemMaker, makeFileSystem } from './mkfs.ts'
import { rootDefinitions } from './repart/builtin.ts'
import type { FileSystemRequest } from './repart/file-system.ts'
import { contentsOf, fillPartitions } from './repart/fill.ts'
import { planPartitions } from './repart/plan.ts'

const EPOCH = 1_700_000_000
const UUID = '8d0e7f3c-5a0c-4c3e-9a52-0b6a5b1a2c3d'
const LONG = `${'n'.repeat(120)}-ü`
const ROOT_XATTRS = new Map([
  ['user.places', Buffer.from('/\0/usr')],
  ['user.type', Buffer.from('4f68bce3-e8cd-4db1-96e7-fbcaf984b709')],
])

/** Nothing makes these bytes smaller. */
const BIG = Buffer.from(Array.from({ length: 10_000 }, (_, i) => sha256(`${i}`)).join(''), 'hex').subarray(0, 300_000)

/** A tree with what trees can have; `devices` as well where a format has them without being root. */
function sample(devices = true): Tree {
  const tool: Inode = {
    ...madeFile(BIG, EPOCH - 100, 0o4755),
    xattrs: new Map([
      ['security.capability', Uint8Array.from([1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])],
      ['user.soup', Uint8Array.of(0, 61, 255)],
    ]),
  }
  const etc: Inode = { ...madeDirectory(EPOCH - 7, 0o750), uid: 33, gid: 44, xattrs: new Map([['user.d', Buffer.from('d')]]) }
  return treeOf(
    [
      ['', { ...madeDirectory(EPOCH - 50, 0o755), gid: 7, xattrs: ROOT_XATTRS }],
      ['etc', etc],
      ['etc/a b', madeFile('late', EPOCH + 1000, 0o600)],
      ['etc/q"q', { ...madeFile('', EPOCH), xattrs: new Map([['user.q', Buffer.from('q')]]) }],
      ['tmp', madeDirectory(EPOCH, 0o1777)],
      ['usr/bin/tool', tool],
      ['usr/bin/same', tool],
      ['usr/bin/link', madeSymlink('tool', EPOCH - 3)],
      [`usr/${LONG}/${LONG}`, madeFile('', EPOCH)],
      ['var', { ...madeDirectory(EPOCH), uid: 100_000, gid: 3_000_000 }],
      ['p', { type: 'fifo', mode: 0o640, uid: 0, gid: 0, mtime: EPOCH }],
      ...(devices
        ? [['null', { type: 'character', mode: 0o666, uid: 0, gid: 5, mtime: EPOCH, major: 1, minor: 3 }] as [string, Inode]]
        : []),
    ],
    madeDirectory(EPOCH),
  )
}

/** The same, without what a format has not. */
function sampleOf(format: string): Tree {
  if (format !== 'xfs') return sample(format !== 'btrfs')
  const tree = new Map(sample())
  const root = tree.get('')!
  tree.set('', { ...root, xattrs: new Map([['user.type', ROOT_XATTRS.get('user.type')!]]) })
  return tree
}

const plain = { uuid: UUID, label: 'soup', subvolumes: [], sectorSize: 512, epoch: EPOCH } as const
const request = (dir: string, format: string, more: Partial<FileSystemRequest> = {}): FileSystemRequest => ({
  ...plain,
  ...{ format, tree: sample(), out: `${dir}/${format}.img` },
  ...more,
})
const make = (given: FileSystemRequest) => makeFileSystem(given, MKFS!)
const digest = (path: string) => sha256(readFileSync(path))

/** btrfs and xfs are made from files that have the owners of the tree, as root or in the namespace of a build. */
const owning = (t: TestContext): boolean => {
  if (process.getuid!() !== 0) t.skip('needs the owners that a build can give')
  return process.getuid!() === 0
}

/** A test that makes file systems, and has no foreign judge. */
function making(name: string, body: (dir: string, t: TestContext) => Promise<void>): void {
  const skip = MKFS === undefined && !process.env['REQUIRE_ORACLES'] ? 'no mkfs tools; npm test prepares them' : false
  test(name, { skip }, async (t) => {
    const dir = mkdtempSync(`${tmpdir()}/bisque mkfs, "-`) // a name to stumble over
    t.after(() => rmSync(dir, { recursive: true, force: true }))
    await body(dir, t)
  })
}

const debugfs = async (judge: Judge, image: string, command: string): Promise<string> =>
  (await judge.run(['debugfs', '-R', command, image])).stdout

oracle('fsck.ext4', 'fsck and debugfs find the tree in an ext4 file system', async (_t, judge) => {
  const { sizeBytes } = await make(request(judge.dir, 'ext4'))
  assert.equal(statSync(`${judge.dir}/ext4.img`).size, sizeBytes)
  await judge.run(['fsck.ext4', '-fn', 'ext4.img'])
  const superblock = (await judge.run(['dumpe2fs', '-h', 'ext4.img'])).stdout
  assert.match(superblock, new RegExp(`Filesystem UUID: +${UUID}`))
  assert.match(superblock, /volume name: +soup\n[\s\S]*Block size: +4096\n/)
  assert.match(superblock, /Filesystem created: +Tue Nov 14 22:13:20 2023/)
  const list = await debugfs(judge, 'ext4.img', 'ls -l /')
  assert.match(list, /40755 \(2\) +0 +7 +4096 .* \.\n/)
  assert.match(list, /40750 \(2\) +33 +44 +4096 .* etc\n/)
  assert.match(list, /41777 \(2\) .* tmp\n/)
  assert.match(list, /40755 \(2\) +100000 +3000000 .* var\n/)
  assert.match(list, /20666 \(3\) +0 +5 .* null\n/)
  assert.match(list, /10640 \(5\) .* p\n/)
  const tool = await debugfs(judge, 'ext4.img', 'stat /usr/bin/same')
  assert.match(tool, /Mode: +04755[\s\S]*Size: 300000\n[\s\S]*Links: 2[\s\S]*mtime: 0x6553f09c/)
  const attributes = await debugfs(judge, 'ext4.img', 'ea_list /usr/bin/tool')
  assert.match(attributes, /security.capability \(20\)[\s\S]*user.soup \(3\) = 00 3d ff/)
  assert.match(await debugfs(judge, 'ext4.img', 'ea_list /etc'), /user.d \(1\)/)
  assert.match(await debugfs(judge, 'ext4.img', 'ea_list /'), /user.places \(6\) = 2f 00 2f/)
  assert.match(await debugfs(judge, 'ext4.img', 'stat "/etc/a b"'), /mtime: 0x6553f100/)
  assert.match(await debugfs(judge, 'ext4.img', `stat "/usr/${LONG}/${LONG}"`), /Type: regular/)
  await judge.run(['debugfs', '-R', 'dump /usr/bin/tool tool', 'ext4.img'])
  assert.deepEqual(readFileSync(`${judge.dir}/tool`), BIG)
})

oracle('fsck.ext4', 'an ext4 file system has the size it was asked for, and inodes for all', async (_t, judge) => {
  const files = Array.from({ length: 5000 }, (_, i): [string, Inode] => [`d/${i}`, madeFile('', EPOCH)])
  const tree = treeOf(files, madeDirectory(EPOCH))
  await make(request(judge.dir, 'ext4', { tree, sizeBytes: 40 << 20 }))
  assert.equal(statSync(`${judge.dir}/ext4.img`).size, 40 << 20)
  await judge.run(['fsck.ext4', '-fn', 'ext4.img'])
  assert.equal((await debugfs(judge, 'ext4.img', 'ls -l /d')).trim().split('\n').length, 5002)
  const empty = treeOf([], madeDirectory(EPOCH))
  for (const format of ['ext2', 'ext3']) {
    await make(request(judge.dir, format, { tree: empty, sizeBytes: 40 << 20 }))
    await judge.run(['fsck.ext4', '-fn', `${format}.img`])
  }
})

oracle('unsquashfs', 'unsquashfs finds the tree in a squashfs', async (_t, judge) => {
  await make(request(judge.dir, 'squashfs', { compression: 'zstd', compressionLevel: '9' }))
  const { stdout } = await judge.run(['unsquashfs', '-lln', 'squashfs.img'])
  assert.match(stdout, /^drwxr-xr-x 0\/7 .* 2023-11-14 22:12 squashfs-root$/m)
  assert.match(stdout, /^drwxr-x--- 33\/44 .* squashfs-root\/etc$/m)
  assert.match(stdout, /^drwxrwxrwt 0\/0 .* squashfs-root\/tmp$/m)
  assert.match(stdout, /^-rw------- 0\/0 .* 2023-11-14 22:13 squashfs-root\/etc\/a b$/m)
  assert.match(stdout, /^crw-rw-rw- 0\/5 +1, +3 .*\/null$/m)
  assert.match(stdout, /^prw-r----- .*\/p$/m)
  assert.match(stdout, /^drwxr-xr-x 100000\/3000000 .*\/var$/m)
  await judge.run(['sh', '-c', 'unsquashfs -cat squashfs.img usr/bin/same > same'])
  assert.deepEqual(readFileSync(`${judge.dir}/same`), BIG)
  assert.match((await judge.run(['unsquashfs', '-s', 'squashfs.img'])).stdout, /zstd\n\tcompression-level 9/)
})

oracle('btrfs', 'btrfs check and restore find the tree, its subvolumes and links', async (t, judge) => {
  if (!owning(t)) return
  const subvolumes = [
    { path: '/var', readOnly: false, noDataCow: false },
    { path: '/srv/data', readOnly: true, noDataCow: false },
  ]
  const tree = sample(false)
  const options = {
    tree,
    subvolumes,
    defaultSubvolume: '/var',
    compression: 'zstd',
    compressionLevel: '5',
    sectorSize: 512,
  } as const
  const best = await make(request(judge.dir, 'btrfs', { ...options, minimize: 'best' }))
  await judge.run(['btrfs', 'check', 'btrfs.img'])
  rmSync(`${judge.dir}/btrfs.img`)
  const guess = await make(request(judge.dir, 'btrfs', { ...options, minimize: 'guess' }))
  assert.ok(guess.sizeBytes > best.sizeBytes)
  await judge.run(['btrfs', 'check', 'btrfs.img'])
  const roots = (await judge.run(['btrfs', 'inspect-internal', 'dump-tree', '-t', 'root', 'btrfs.img'])).stdout
  assert.match(roots, /name data/)
  assert.match(roots, /RDONLY/)
  mkdirSync(`${judge.dir}/out`)
  await judge.run(['btrfs', 'restore', '-mxS', 'btrfs.img', 'out'])
  assert.deepEqual(readFileSync(`${judge.dir}/out/usr/bin/tool`), BIG)
  assert.equal(statSync(`${judge.dir}/out/usr/bin/tool`).mtimeMs, (EPOCH - 100) * 1000)
  const dump = (await judge.run(['btrfs', 'inspect-internal', 'dump-tree', '-t', 'fs', 'btrfs.img'])).stdout
  assert.match(dump, /size 300000 .*\n.* mode 104755 links 2 uid 0/)
})

oracle('xfs_repair', 'xfs_repair and xfs_db find the tree, its links, times and sticky bits', async (t, judge) => {
  if (!owning(t)) return
  await make(request(judge.dir, 'xfs', { tree: sampleOf('xfs') }))
  await judge.run(['xfs_repair', '-n', 'xfs.img'])
  const print = async (path: string, ...fields: string[]) =>
    (await judge.run(['xfs_db', '-r', '-c', `path ${path}`, '-c', `print ${fields.join(' ')}`, 'xfs.img'])).stdout
  assert.match(await print('/usr/bin/same', 'core.mode core.nlinkv2 core.size'), /0104755\n.* = 2\n.* = 300000\n/)
  assert.match(await print('/usr/bin/tool', 'core.mtime core.ctime'), /22:11:40 2023\n[\s\S]*22:13:20 2023\n/)
  assert.match(await print('/usr/bin', 'core.mtime core.ctime'), /22:13:20 2023\n[\s\S]*22:13:20 2023\n/)
  assert.match(await print('/tmp', 'core.mode'), /041777/)
  assert.match(await print('/', 'core.mode core.gid core.mtime'), /040755\n.* = 7\n.*22:12:30 2023/)
  assert.match(await print('/var', 'core.uid core.gid'), /100000\n.* = 3000000/)
})

oracle('fsck.f2fs', 'fsck.f2fs accepts an empty f2fs', async (_t, judge) => {
  await make(request(judge.dir, 'f2fs', { tree: treeOf([], madeDirectory(EPOCH)), sizeBytes: 64 << 20 }))
  await judge.run(['fsck.f2fs', '--dry-run', 'f2fs.img'])
})

for (const [format, more] of [
  ['ext4', {}],
  ['squashfs', {}],
  ['xfs', { tree: sampleOf('xfs') }],
  ['f2fs', { tree: treeOf([], madeDirectory(EPOCH)), sizeBytes: 64 << 20 }],
] as const) {
  making(`makeFileSystem() gives the same ${format} bytes again`, async (dir, t) => {
    if (format === 'xfs' && !owning(t)) return
    const digests: string[] = []
    for (const name of ['a', 'b']) {
      mkdirSync(`${dir}/${name}`)
      await make(request(`${dir}/${name}`, format, more))
      digests.push(digest(`${dir}/${name}/${format}.img`))
      if (name === 'a') await new Promise((resolve) => setTimeout(resolve, 1100))
    }
    assert.equal(digests[0], digests[1])
  })
}

making('makeFileSystem() leaves nothing behind when it fails', async (dir) => {
  const gone = { ...madeFile('x', EPOCH), content: { path: `${dir}/gone` } }
  writeFileSync(`${dir}/short`, 'x')
  const short = { ...madeFile('xyz', EPOCH), content: { path: `${dir}/short` } }
  const tree = (file: Inode) => treeOf([['file', file]], madeDirectory(EPOCH))
  for (const format of ['ext4', 'squashfs', 'btrfs']) {
    await assert.rejects(make(request(dir, format, { tree: tree(gone) })), /ENOENT/)
    await assert.rejects(make(request(dir, format, { tree: tree(short) })), { code: 'integrity', message: /3 bytes when listed/ })
  }
  assert.deepEqual(readdirSync(dir), ['short'])
})

for (const format of ['squashfs', 'xfs']) {
  making(`makeFileSystem() says which access control lists ${format} does not hold`, async (dir, t) => {
    if (format === 'xfs' && !owning(t)) return
    const acl = new Map([['system.posix_acl_access', Buffer.from('0200000001000700ffffffff', 'hex')]])
    const tree = treeOf([['var/log', { ...madeDirectory(EPOCH), xattrs: acl }]], madeDirectory(EPOCH))
    const { notes } = await make(request(dir, format, { tree }))
    assert.deepEqual(notes, ['left out the access control lists of /var/log'])
  })
}

const DEVICE = treeOf([['sda', { ...madeFile('', EPOCH), type: 'block', major: 8, minor: 0 } as Inode]], madeDirectory(EPOCH))
const LARGE = treeOf([['large', madeFile(new Uint8Array(20 << 20).fill(1), EPOCH)]], madeDirectory(EPOCH))
// biome-ignore format: table
const REFUSED: [why: string, format: string, more: Partial<FileSystemRequest>, message: RegExp][] = [
  ['a format it does not know',         'zfs',      {},                                           /Cannot make a zfs file system: the formats are ext2/],
  ['a size that is no whole block',     'ext4',     { sizeBytes: 5000 },                          /expected a multiple of 4096/],
  ['ext4 that is too small',            'ext4',     { tree: LARGE, sizeBytes: 16 << 20 },         /16.0 MiB are too small for what it holds/],
  ['squashfs that is too small',        'squashfs', { sizeBytes: 4096 },                          /4.0 KiB are too small for what it holds/],
  ['btrfs that is too small',           'btrfs',    { tree: sample(false), sizeBytes: 1 << 20 },  /1.0 MiB are too small for what it holds/],
  ['the least size of ext4',            'ext4',     { minimize: 'best' },                         /Minimize=guess/],
  ['subvolumes of ext4',                'ext4',     { subvolumes: [{ path: '/a', readOnly: false, noDataCow: false }] }, /no subvolumes/],
  ['compression of ext4',               'ext4',     { compression: 'zstd' },                      /never compressed/],
  ['an unknown compression',            'squashfs', { compression: 'zip' },                       /compression zip must be one of gzip/],
  ['a level of what has none',          'squashfs', { compression: 'xz', compressionLevel: '3' }, /compression xz has no levels/],
  ['a default subvolume that is none',  'btrfs',    { defaultSubvolume: '/x' },                   /none of its subvolumes/],
  ['device nodes in btrfs',             'btrfs',    { tree: DEVICE },                             /\/sda to disk: it is a block device/],
  ['odd attributes of folders in xfs',  'xfs',      {},                                           /cannot set user.places of \/, which is no file, to/],
  ['xfs that is too small',             'xfs',      { tree: sampleOf('xfs'), sizeBytes: 16 << 20 }, /16.0 MiB are too small/],
  ['odd names in xfs',                  'xfs',      { tree: treeOf([['a\nb', madeFile('', EPOCH)]], madeDirectory(EPOCH)) }, /cannot have the name "a\\nb"/],
  ['files in f2fs',                     'f2fs',     { sizeBytes: 64 << 20 },                      /cannot be filled/],
]
for (const [why, format, more, message] of REFUSED) {
  making(`makeFileSystem() refuses ${why}`, async (dir, t) => {
    if (/^(?:btrfs|xfs) that is too small/.test(why) && !owning(t)) return
    await assert.rejects(make(request(dir, format, more)), { name: 'Fault', message })
    assert.deepEqual(readdirSync(dir), [])
  })
}

making('the kernel mounts what makeFileSystem() made', async (dir, t) => {
  if (process.getuid!() !== 0 || !existsSync('/dev/loop-control')) return t.skip('needs root and loop devices')
  mkdirSync(`${dir}/mnt`)
  for (const format of ['squashfs', 'ext4', 'xfs', 'btrfs']) {
    await make(request(dir, format, { tree: sampleOf(format) }))
    try {
      execFileSync('mount', ['-t', format, '-o', 'loop,ro', `${dir}/${format}.img`, `${dir}/mnt`], { stdio: 'pipe' })
    } catch (error) {
      return t.skip(`the host does not mount ${format}: ${(error as Error).message.split('\n')[1]}`)
    }
    try {
      assert.deepEqual(readFileSync(`${dir}/mnt/usr/bin/tool`), BIG)
      assert.equal(statSync(`${dir}/mnt/tmp`).mode & 0o7777, 0o1777)
      assert.deepEqual([...readXattrs(`${dir}/mnt/usr/bin/tool`).keys()], ['security.capability', 'user.soup'])
      assert.equal(statSync(`${dir}/mnt/usr/bin/tool`).ino, statSync(`${dir}/mnt/usr/bin/same`).ino)
      const root = [...sampleOf(format).get('')!.xattrs!].map(([name, value]): [string, Uint8Array] => [
        name,
        Uint8Array.from(value),
      ])
      assert.deepEqual(readXattrs(`${dir}/mnt`), new Map(root))
      assert.deepEqual(readXattrs(`${dir}/mnt/etc/q"q`).get('user.q'), Uint8Array.of(113))
      assert.deepEqual(readXattrs(`${dir}/mnt/etc`).get('user.d'), Uint8Array.of(100))
    } finally {
      execFileSync('umount', [`${dir}/mnt`])
    }
  }
})

for (const fileSystem of ['ext4', 'xfs', 'btrfs', 'squashfs']) {
  oracle('systemd-dissect', `systemd-dissect finds a root of ${fileSystem} on a disk`, async (t, judge) => {
    if (['xfs', 'btrfs'].includes(fileSystem) && !owning(t)) return
    mkdirSync(`${judge.dir}/work`)
    const definitions = rootDefinitions({ architecture: 'x86-64', bootable: false, fileSystem })
    const options = { seed: UUID, epoch: EPOCH, work: `${judge.dir}/work`, makeFileSystem: fileSystemMaker(MKFS!) }
    const release = treeOf([...sampleOf(fileSystem), ['usr/lib/os-release', madeFile('ID=soup\n', EPOCH)]], madeDirectory(EPOCH))
    const filled = await fillPartitions(definitions, release, options, new Report(() => {}))
    const plan = planPartitions(definitions, contentsOf(filled), options)
    await writeDisk(`${judge.dir}/disk.raw`, plan, [filled[0]!.source])
    await judge.run(['systemd-dissect', '--validate', 'disk.raw'])
    const [{ start, type }] = JSON.parse((await judge.run(['sfdisk', '--json', 'disk.raw'])).stdout).partitiontable.partitions
    assert.equal(type, '4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709')
    const probe = ['blkid', '-p', '-o', 'value', '-s', 'TYPE', '-O', `${start * 512}`, 'disk.raw']
    assert.equal((await judge.run(probe)).stdout.trim(), fileSystem)
  })
}
