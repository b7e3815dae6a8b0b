import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { zstdDecompressSync } from 'node:zlib'
import { oracle } from '../../test/oracle.ts'
import { type CpioMember, cpioSize, decodeCpio } from '../formats/cpio.ts'
import { withWorkers } from '../run/workers.ts'
import { madeDirectory, madeFile, madeSymlink } from '../tree/content.ts'
import { type Inode, type Tree, treeOf } from '../tree/tree.ts'
import { makeInitrd, makeModulesInitrd } from './initrd.ts'
import { asInitrd } from './initrd-tree.ts'
import { makeMicrocode } from './microcode.ts'

const EPOCH = 1_763_856_000

function sample(): Tree {
  const linked = madeFile('one inode', EPOCH)
  const plain = { mode: 0o600, uid: 0, gid: 5, mtime: EPOCH }
  return treeOf(
    [
      ['init', madeSymlink('usr/lib/systemd/systemd', EPOCH)],
      ['a/first', linked],
      ['z/second', linked],
      ['dev/console', { ...plain, type: 'character', major: 5, minor: 1 }],
      ['run/fifo', { ...plain, type: 'fifo' }],
      ['empty', madeFile('', EPOCH)],
      ...Array.from({ length: 5 }, (_, i): [string, Inode] => [`blob${i}`, madeFile(Buffer.alloc(3 << 20, `blob ${i}`), EPOCH)]),
    ],
    madeDirectory(EPOCH),
  )
}

/** The archive in each frame of a row, taken one by one as the kernel does. */
function archivesOf(initrd: Uint8Array): Buffer[] {
  const archives: Buffer[] = []
  for (let at = 0; at < initrd.length; ) {
    const { buffer, engine } = zstdDecompressSync(initrd.subarray(at), { info: true }) as unknown as {
      buffer: Buffer
      engine: { bytesWritten: number }
    }
    archives.push(buffer)
    at += engine.bytesWritten
  }
  return archives
}

const membersOf = (initrd: Uint8Array): CpioMember[] => archivesOf(initrd).flatMap((archive) => decodeCpio(archive))

test('makeInitrd() holds every inode of the tree once, directories before what is in them', async () => {
  const tree = sample()
  const members = membersOf(await makeInitrd(tree, { compression: 'zstd' }))
  assert.deepEqual(members.map((m) => m.name).sort(), [...tree.keys()].map((path) => path || '.').sort())
  const seen = new Set<string>()
  for (const { name } of members) {
    const parent = name.includes('/') ? name.slice(0, name.lastIndexOf('/')) : '.'
    assert.ok(name === '.' || seen.has(parent), `${parent} comes before ${name}`)
    seen.add(name)
  }
  const by = new Map(members.map((m) => [m.name, m]))
  assert.equal(by.get('a/first')!.ino, by.get('z/second')!.ino)
  assert.deepEqual([by.get('a/first')!.nlink, by.get('z/second')!.sizeBytes], [2, 0])
  assert.equal(Buffer.from(by.get('init')!.content).toString(), 'usr/lib/systemd/systemd')
  assert.equal(by.get('dev/console')!.mode, 0o20600)
})

test('makeInitrd() gives the same bytes with and without workers', async () => {
  const alone = await makeInitrd(sample(), { compression: 'zstd' })
  await withWorkers(2, async (workers) => {
    assert.ok(Buffer.from(await makeInitrd(sample(), { compression: 'zstd', workers })).equals(alone))
  })
})

test('makeInitrd() cuts a large tree into frames that are each a whole archive', async () => {
  const archives = archivesOf(await makeInitrd(sample(), { compression: 'zstd' }))
  assert.equal(archives.length, 4, 'three of up to 8 MiB and one of hard links')
  for (const archive of archives) assert.equal(cpioSize(archive), archive.length)
})

test('makeInitrd() refuses a file that changed since it was listed', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'bisque-initrd-'))
  t.after(() => rmSync(dir, { recursive: true }))
  writeFileSync(join(dir, 'file'), 'longer than before')
  const inode: Inode = { ...madeFile('before', EPOCH), content: { path: join(dir, 'file') } }
  const tree = treeOf([['file', inode]], madeDirectory(EPOCH))
  await assert.rejects(makeInitrd(tree, { compression: 'none' }), /Cannot archive \/file: it had 6 bytes when listed, now 18/)
})

test('makeModulesInitrd() leaves compressed modules as they are', async () => {
  const tree = treeOf([['usr/lib/modules/1/kernel/a.ko.xz', madeFile('xz', EPOCH)]], madeDirectory(EPOCH))
  assert.equal(decodeCpio(await makeModulesInitrd(tree)).length, 7)
})

oracle('cpio', 'cpio, bsdtar and lsinitramfs read the initrd we wrote', async (_t, judge) => {
  writeFileSync(join(judge.dir, 'initrd'), await makeInitrd(sample(), { compression: 'none' }))
  const { stdout } = await judge.run(['cpio', '-itv', '--quiet', '-F', 'initrd'])
  assert.match(stdout, /^crw-------\s+1 root\s+tty\s+5,\s+1 .* dev\/console$/m)
  assert.match(stdout, /^-rw-r--r--\s+2 root .* z\/second$/m)
  await judge.run(['sh', '-c', 'mkdir out && bsdtar -xf initrd -C out --exclude dev'])
  assert.equal(readFileSync(join(judge.dir, 'out/z/second'), 'utf8'), 'one inode')
  assert.ok(readFileSync(join(judge.dir, 'out/blob4')).equals(Buffer.alloc(3 << 20, 'blob 4')))
  assert.match((await judge.run(['lsinitramfs', join(judge.dir, 'initrd')])).stdout, /^blob4$/m)
})

oracle('xz', 'xz and gzip take all frames as one file, and the kernel the check of xz', async (_t, judge) => {
  for (const compression of ['xz', 'gz'] as const) {
    writeFileSync(join(judge.dir, `initrd.${compression}`), await makeInitrd(sample(), { compression, level: 1 }))
    const tool = compression === 'xz' ? 'xz' : 'gzip'
    const list = ['sh', '-c', `${tool} -dc initrd.${compression} > initrd && cpio -it --quiet < initrd`]
    assert.match((await judge.run(list)).stdout, /^a$/m)
  }
  assert.match((await judge.run(['xz', '--list', '--verbose', 'initrd.xz'])).stdout, /CRC32/)
})

oracle('zstd', 'zstd takes all frames as one file', async (_t, judge) => {
  writeFileSync(join(judge.dir, 'initrd.zst'), await makeInitrd(sample(), { compression: 'zstd' }))
  await judge.run(['zstd', '-q', '-t', 'initrd.zst'])
  assert.match((await judge.run(['zstd', '-l', 'initrd.zst'])).stdout, /^\s+4\s+0\s/m)
})

const system = (more: [string, Inode][] = []): Tree => {
  const at = (path: string): [string, Inode] => [path, madeFile(path, EPOCH)]
  return treeOf(
    [
      'usr/lib/os-release',
      'usr/lib/systemd/systemd',
      'usr/lib/systemd/catalog/systemd.catalog',
      'usr/lib/systemd/system/initrd.target.wants/kept.service',
      'usr/lib/modules/6.12/kernel/a.ko',
      'usr/share/doc/bash/copyright',
      'usr/share/docile',
      'etc/systemd/system/multi-user.target.wants/cron.service',
      'etc/machine-id',
      'var/lib/dpkg/status',
      'dev/null',
      'boot/vmlinuz-6.12',
    ]
      .map(at)
      .concat(more),
    madeDirectory(EPOCH),
  )
}

test('asInitrd() adds what the kernel and systemd look for, and leaves the rest as it is', () => {
  const overlay = treeOf([['usr/lib/extra', madeFile('extra', EPOCH)]], madeDirectory(0, 0o700))
  const tree = asInitrd(system(), { epoch: EPOCH, overlay })
  assert.deepEqual(
    [...tree.keys()].filter((path) => !system().has(path)),
    ['etc/initrd-release', 'init', 'usr/lib/extra'],
  )
  assert.equal(tree.get('usr')!.mode, 0o755)
  const own = system([['init', madeFile('#!/bin/sh', EPOCH, 0o755)]])
  assert.equal(asInitrd(own, { epoch: EPOCH }).get('init')!.type, 'file')
})

test('makeMicrocode() joins the files of each vendor in order and leaves out the rest', async () => {
  const intel = (text: string) => Buffer.concat([Uint8Array.of(1, 0, 0, 0), Buffer.from(text)])
  const entries: [string, Inode][] = [
    ['usr/lib/firmware/intel-ucode/06-55-04', madeFile(intel('b'), 0)],
    ['usr/lib/firmware/intel-ucode/06-4f-01.initramfs', madeFile(intel('a'), 0)],
    ['usr/lib/firmware/intel-ucode/README', madeFile('text', 0)],
    ['usr/lib/firmware/intel-ucode/list/06-00-00', madeFile('text', 0)],
    ['usr/lib/firmware/amd-ucode/microcode_amd_fam17h.bin', madeFile('DMA\0amd', 0)],
    ['usr/lib/firmware/amd-ucode/microcode_amd_fam17h.bin.asc', madeFile('text', 0)],
  ]
  const made = async (list: [string, Inode][]) => makeMicrocode(treeOf(list, madeDirectory(0)), EPOCH)
  const microcode = (await made(entries))!
  assert.deepEqual(await made(entries.toReversed()), microcode)
  assert.deepEqual(
    decodeCpio(microcode).map((m) => [m.name, Buffer.from(m.content).toString('latin1')]),
    [
      ['.', ''],
      ['kernel', ''],
      ['kernel/x86', ''],
      ['kernel/x86/microcode', ''],
      ['kernel/x86/microcode/AuthenticAMD.bin', 'DMA\0amd'],
      ['kernel/x86/microcode/GenuineIntel.bin', '\x01\0\0\0a\x01\0\0\0b'],
    ],
  )
  assert.equal(await made([]), undefined)
  const wrong: [string, Inode][] = [['usr/lib/firmware/amd-ucode/microcode_amd.bin', madeFile('text', 0)]]
  await assert.rejects(made(wrong), /Cannot use microcode \/usr\S+: expected it to begin with 444d4100/)
})
