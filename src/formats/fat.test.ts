import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import {
  closeSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import fc from 'fast-check'
import { oracle } from '../../test/oracle.ts'
import { decodeFat, encodeFat, type FatOptions, fatSizeFor, readFat } from './fat.ts'
import type { ReadAt } from './struct.ts'

const MIB = 1 << 20
const EPOCH = 1_763_856_001

const FILES = new Map<string, Buffer>([
  ['EFI/BOOT/BOOTX64.EFI', Buffer.alloc(100_000, 'boot')],
  ['EFI/systemd/systemd-bootx64.efi', Buffer.alloc(100_000, 'boot')],
  ['EFI/Linux/Minimal_1+3-0_a-rather-long-name.x86-64.efi', Buffer.alloc(1_000_003, 'uki')],
  ['EFI/Linux/Grüße aus Köln.efi', Buffer.from('unicode')],
  ['loader/loader.conf', Buffer.from('timeout 3\n')],
  ['loader/loader.config', Buffer.from('the same alias but for its tail\n')],
  ['loader/entries.srel', Buffer.from('type1\n')],
  ['loader/keys/auto/PK.auth', Buffer.alloc(0)],
  ['exactly13char', Buffer.from('a long name that fills its piece')],
  ...Array.from({ length: 60 }, (_, i): [string, Buffer] => [`many/file number ${i}.txt`, Buffer.from(`${i}`)]),
])
const OPTIONS: FatOptions = { sizeBytes: 64 * MIB, label: 'ESP', volumeId: 0xb7c2c602, epoch: EPOCH }

const sizes = (files: ReadonlyMap<string, Buffer>) => new Map([...files].map(([path, bytes]) => [path, bytes.length]))

/** The whole file system in memory. */
function image(files: ReadonlyMap<string, Buffer>, options: FatOptions): Buffer {
  const layout = encodeFat(sizes(files), options)
  const bytes = Buffer.alloc(layout.sizeBytes)
  for (const region of layout.regions) bytes.set(region.bytes, region.offset)
  for (const file of layout.files) bytes.set(files.get(file.path)!, file.offset)
  return bytes
}

const readerOf =
  (bytes: Buffer): ReadAt =>
  (offset, sizeBytes) =>
    bytes.subarray(offset, offset + sizeBytes)

const contents = (bytes: Buffer): Map<string, Buffer> => {
  const read = readerOf(bytes)
  const files = decodeFat(read).entries.filter((entry) => entry.type === 'file')
  return new Map(files.map((entry) => [entry.path, Buffer.from(readFat(read, entry))]))
}

const sorted = (files: ReadonlyMap<string, Buffer>) => [...files].sort(([a], [b]) => (a < b ? -1 : 1))

test('decodeFat() gives back what encodeFat() took', () => {
  const bytes = image(FILES, OPTIONS)
  assert.deepEqual(sorted(contents(bytes)), sorted(FILES))
  const fat = decodeFat(readerOf(bytes))
  assert.deepEqual(
    { bits: fat.bits, size: fat.sizeBytes, sector: fat.sectorSize, label: fat.label, id: fat.volumeId },
    { bits: 32, size: 64 * MIB, sector: 512, label: 'ESP', id: 0xb7c2c602 },
  )
  for (const entry of fat.entries) assert.equal(entry.mtime, EPOCH - 1, 'two seconds are the resolution')
})

test('decodeFat() gives back whatever names and sizes encodeFat() accepts', () => {
  const name = fc.stringMatching(/^[a-zA-Z0-9 ._+~-]{0,30}[a-zA-Z0-9]$/).filter((text) => text !== '.' && text !== '..')
  const path = fc.array(name, { minLength: 1, maxLength: 3 }).map((names) => names.join('/'))
  const paths = fc.uniqueArray(path, { maxLength: 12, selector: (text) => text.toUpperCase() })
  const sample = fc.record({ paths, size: fc.nat(3000) })
  fc.assert(
    fc.property(sample, ({ paths, size }) => {
      const files = new Map(paths.map((path, i) => [path, Buffer.alloc(size * i, path)]))
      let bytes: Buffer
      try {
        bytes = image(files, { ...OPTIONS, sizeBytes: 40 * MIB })
      } catch (error) {
        assert.match((error as Error).message, /is the same name as/)
        return
      }
      assert.deepEqual(sorted(contents(bytes)), sorted(files))
    }),
    { numRuns: 25, seed: 7 },
  )
})

test('encodeFat() makes directories that hold nothing, once', () => {
  const bytes = image(
    new Map([
      ['loader/', Buffer.alloc(0)],
      ['EFI/Linux/', Buffer.alloc(0)],
      ['loader/x', Buffer.from('x')],
    ]),
    OPTIONS,
  )
  assert.deepEqual(
    decodeFat(readerOf(bytes)).entries.map(({ path, type }) => [path, type]),
    [
      ['EFI', 'directory'],
      ['EFI/Linux', 'directory'],
      ['loader', 'directory'],
      ['loader/x', 'file'],
    ],
  )
  assert.throws(
    () =>
      encodeFat(
        new Map([
          ['a', 1],
          ['A/', 0],
        ]),
        OPTIONS,
      ),
    /it is the same name as A/,
  )
})

test('decodeFat() gives back names beyond the basic plane', () => {
  const files = new Map([['EFI/🚀.efi', Buffer.from('mtools cannot read this one')]])
  assert.deepEqual(contents(image(files, OPTIONS)), files)
})

test('encodeFat() gives the same bytes whatever the order of its files', () => {
  const shuffled = new Map([...FILES].reverse())
  assert.deepEqual(encodeFat(sizes(shuffled), OPTIONS), encodeFat(sizes(FILES), OPTIONS))
})

test('fatSizeFor() is the smallest size that encodeFat() accepts', () => {
  for (const [files, sectorSize] of [
    [new Map<string, number>(), 512],
    [new Map<string, number>(), 4096],
    [new Map([['a', 33 * MIB]]), 512],
    [new Map([['a', 300 * MIB]]), 512],
    [new Map([['a', 300 * MIB]]), 4096],
    [new Map([['a', 4095 * MIB]]), 512],
  ] as const) {
    const sizeBytes = fatSizeFor(files, sectorSize)
    encodeFat(files, { ...OPTIONS, sizeBytes, sectorSize })
    assert.throws(() => encodeFat(files, { ...OPTIONS, sizeBytes: sizeBytes - 16 * 4096, sectorSize }), /Cannot (fit|make)/)
  }
})

test('encodeFat() refuses names and sizes that FAT cannot hold', () => {
  const refuses = (path: string, why: RegExp, size = 1) => assert.throws(() => encodeFat(new Map([[path, size]]), OPTIONS), why)
  refuses('../escape', /empty or relative component/)
  refuses('/absolute', /empty or relative component/)
  refuses('a:b', /":" is not allowed/)
  refuses('line\nbreak', /"\\n" is not allowed/)
  refuses('dir./file', /must not end in a dot/)
  refuses('x'.repeat(256), /at most 255/)
  refuses('\ud800', /at most 255 UTF-16 units/)
  refuses('big', /smaller than 4 GiB/, 2 ** 32)
  refuses('big', /they need 262145 clusters of 512 bytes/, 128 * MIB)
  for (const pair of [
    ['EFI/a', 'efi/b'],
    ['a', 'A'],
    ['a', 'A/b'],
  ]) {
    assert.throws(() => encodeFat(new Map(pair.map((path) => [path, 0])), OPTIONS), /is the same name as/)
  }
  assert.throws(() => encodeFat(new Map(), { ...OPTIONS, label: 'lower' }), /Cannot use FAT label/)
  assert.throws(() => encodeFat(new Map(), { ...OPTIONS, sizeBytes: 8 * MIB }), /needs at least \d+ bytes/)
  assert.throws(() => encodeFat(new Map(), { ...OPTIONS, sizeBytes: 64 * MIB + 1 }), /multiple of the sector size/)
})

/** Damages a copy of a good image. */
function damaged(change: (bytes: Buffer, at: { table: (cluster: number) => number; cluster: (n: number) => number }) => void) {
  const bytes = image(new Map([['dir/file with a long name', Buffer.alloc(2000, 1)]]), OPTIONS)
  const tableSize = bytes.readUInt32LE(36) * 512
  const cluster = (n: number) => 32 * 512 + 2 * tableSize + (n - 2) * 512
  change(bytes, { table: (n) => 32 * 512 + n * 4, cluster })
  return () => decodeFat(readerOf(bytes))
}

/** Writes one table entry into both copies. */
function link(bytes: Buffer, at: number, value: number): void {
  bytes.writeUInt32LE(value, at)
  bytes.writeUInt32LE(value, at + bytes.readUInt32LE(36) * 512)
}

test('decodeFat() refuses a cluster chain that loops', () => {
  assert.throws(
    damaged((b, at) => link(b, at.table(5), 4)),
    /chain of dir\/file with a long name: cluster 4 is used twice/,
  )
  assert.throws(
    damaged((b, at) => link(b, at.table(2), 2)),
    /chain of root directory: cluster 2 is used twice/,
  )
})

test('decodeFat() refuses a directory that contains itself', () => {
  assert.throws(
    damaged((b, at) => b.writeUInt16LE(2, at.cluster(2) + 2 * 32 + 26)),
    /chain of dir: cluster 2 is used twice/,
  )
})

test('decodeFat() refuses a chain that leaves the volume', () => {
  assert.throws(
    damaged((b, at) => link(b, at.table(4), 0x0ffffff0)),
    /cluster 268435440 is not between 2 and/,
  )
  assert.throws(
    damaged((b, at) => link(b, at.table(4), 0)),
    /cluster 0 is not between/,
  )
})

test('decodeFat() refuses tables that differ', () => {
  assert.throws(
    damaged((b, at) => b.writeUInt32LE(9, at.table(9))),
    /its copies differ/,
  )
})

test('decodeFat() refuses a size that its clusters do not hold', () => {
  const fileEntry = (at: { cluster: (n: number) => number }) => at.cluster(3) + 2 * 32 + 2 * 32
  assert.throws(
    damaged((b, at) => b.writeUInt32LE(0xffff_ffff, fileEntry(at) + 28)),
    /its size is 4294967295, its clusters hold 2048/,
  )
})

test('decodeFat() refuses a long name whose checksum is wrong', () => {
  assert.throws(
    damaged((b, at) => (b[at.cluster(3) + 2 * 32 + 13]! ^= 1)),
    /a long name does not belong to the entry after it/,
  )
})

test('decodeFat() refuses a name with a slash in it', () => {
  const at32 = (at: { cluster: (n: number) => number }) => at.cluster(3) + 3 * 32 + 1
  assert.throws(
    damaged((b, at) => b.write('/', at32(at), 'utf16le')),
    /is no name/,
  )
})

test('decodeFat() refuses a boot sector that lies', () => {
  const refuses = (why: RegExp, change: (b: Buffer) => void) => assert.throws(damaged(change), why)
  refuses(/does not end in 55aa/, (b) => (b[510] = 0))
  refuses(/sector size is 0/, (b) => b.writeUInt16LE(0, 11))
  refuses(/cluster size is 3 sectors/, (b) => (b[13] = 3))
  refuses(/it has 9 tables/, (b) => (b[16] = 9))
  refuses(/leave no room/, (b) => b.writeUInt32LE(20, 32))
  refuses(/table is too short/, (b) => b.writeUInt32LE(1, 36))
  assert.throws(() => decodeFat(readerOf(Buffer.alloc(100))), /need 512 bytes, have 100/)
})

function writeImage(path: string, files: ReadonlyMap<string, Buffer>, options: FatOptions): void {
  const layout = encodeFat(sizes(files), options)
  const fd = openSync(path, 'w')
  ftruncateSync(fd, layout.sizeBytes)
  for (const region of layout.regions) writeSync(fd, region.bytes, 0, region.bytes.length, region.offset)
  for (const file of layout.files) writeSync(fd, files.get(file.path)!, 0, file.sizeBytes, file.offset)
  closeSync(fd)
}

for (const [sectorSize, sizeMiB] of [
  [512, 64],
  [512, 300],
  [4096, 300],
] as const) {
  oracle('fsck.vfat', `fsck.vfat finds nothing wrong with ${sizeMiB} MiB in sectors of ${sectorSize}`, async (_t, judge) => {
    const path = join(judge.dir, 'esp.img')
    writeImage(path, FILES, { ...OPTIONS, sizeBytes: sizeMiB * MIB, sectorSize })
    const { stdout } = await judge.run(['fsck.vfat', '-n', '-v', path])
    assert.match(stdout, new RegExp(`${FILES.size + 9} files, `))
    assert.doesNotMatch(stdout, /differ|wrong|error|dirty|orphan|Reclaimed|Leaving|Correct/)
  })
}

oracle('mcopy', 'mtools read every file we wrote', async (_t, judge) => {
  const path = join(judge.dir, 'esp.img')
  writeImage(path, FILES, OPTIONS)
  mkdirSync(join(judge.dir, 'out'))
  await judge.run(['mcopy', '-s', '-n', '-i', path, '::/', 'out'])
  const out = join(judge.dir, 'out')
  const found = readdirSync(out, { recursive: true, encoding: 'utf8' }).filter((file) => statSync(join(out, file)).isFile())
  assert.deepEqual(found.sort(), [...FILES.keys()].sort())
  for (const [file, bytes] of FILES) assert.ok(readFileSync(join(out, file)).equals(bytes), file)
  assert.match((await judge.run(['minfo', '-i', path, '::'])).stdout, /serial number: B7C2C602/)
  assert.match((await judge.run(['mdir', '-i', path, '::/loader'])).stdout, /LOADER~1 CON\s+10 2025-11-23 .*loader\.conf/)
})

oracle('mount', 'the kernel mounts what we wrote', async (t, judge) => {
  const path = join(judge.dir, 'esp.img')
  writeImage(path, FILES, OPTIONS)
  const script =
    'mkdir mnt && mount -t vfat -o loop,ro,utf8,tz=UTC "$0" mnt && cd mnt && find . -type f -exec sha256sum {} +; umount ../mnt'
  const { stdout, stderr } = await judge.run(['sh', '-c', script, path], { allowFailure: true })
  if (/unknown filesystem type|loop device|superuser|only root|not permitted|permission denied/i.test(stderr))
    return t.skip('this kernel cannot mount vfat here')
  const expected = sorted(FILES).map(([file, bytes]) => `${createHash('sha256').update(bytes).digest('hex')}  ./${file}`)
  assert.deepEqual(stdout.trim().split('\n').sort(), expected.sort(), stderr)
})

oracle('mkfs.vfat', 'decodeFat() reads what mkfs.vfat and mcopy wrote', async (_t, judge) => {
  mkdirSync(join(judge.dir, 'in/EFI/Linux'), { recursive: true })
  writeFileSync(join(judge.dir, 'in/EFI/Linux/Some long name.efi'), Buffer.alloc(300_000, 'x'))
  writeFileSync(join(judge.dir, 'in/EFI/lower'), 'text')
  for (const [bits, sizeMiB] of [
    [12, 4],
    [16, 32],
    [32, 64],
  ] as const) {
    const path = join(judge.dir, `fat${bits}.img`)
    await judge.run(['mkfs.vfat', '-F', `${bits}`, '-n', 'FOREIGN', '-i', 'cafebabe', '-C', path, `${sizeMiB * 1024}`])
    await judge.run(['mcopy', '-s', '-i', path, 'in/EFI', '::/'])
    const bytes = readFileSync(path)
    const fat = decodeFat(readerOf(bytes))
    assert.deepEqual([fat.bits, fat.label, fat.volumeId], [bits, 'FOREIGN', 0xcafebabe])
    assert.deepEqual(sorted(contents(bytes)), [
      ['EFI/Linux/Some long name.efi', Buffer.alloc(300_000, 'x')],
      ['EFI/lower', Buffer.from('text')],
    ])
  }
})
