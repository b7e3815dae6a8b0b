import assert from 'node:assert/strict'
import { linkSync, mkdirSync, readFileSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import fc from 'fast-check'
import { oracle } from '../../test/oracle.ts'
import { type CpioMember, cpioPadding, cpioSize, cpioTrailer, decodeCpio, encodeCpioHeader } from './cpio.ts'

const PLAIN = { uid: 0, gid: 0, nlink: 1, mtime: 1_763_856_000, rdevMajor: 0, rdevMinor: 0 }
const member = (ino: number, name: string, mode: number, text = '', more: Partial<CpioMember> = {}): CpioMember => {
  const content = new Uint8Array(Buffer.from(text))
  return { ...PLAIN, ino, name, mode, sizeBytes: content.length, content, ...more }
}
const MEMBERS = [
  member(1, '.', 0o40755, '', { nlink: 2 }),
  member(2, 'dev', 0o40755, '', { nlink: 2 }),
  member(3, 'dev/console', 0o20600, '', { rdevMajor: 5, rdevMinor: 1 }),
  member(4, 'dev/fifo', 0o10644),
  member(5, 'dev/sda', 0o60660, '', { rdevMajor: 8, gid: 6 }),
  member(6, 'init', 0o120777, 'usr/lib/systemd/systemd'),
  member(7, 'linked', 0o100644, 'twice', { nlink: 2 }),
  member(7, 'linked again', 0o100644, '', { nlink: 2 }),
  member(8, 'ödd', 0o104755, 'x', { uid: 1000 }),
]

const archive = (members: readonly CpioMember[]): Buffer =>
  Buffer.concat([...members.flatMap((m) => [encodeCpioHeader(m), m.content, cpioPadding(m.sizeBytes)]), cpioTrailer()])

const plain = (members: CpioMember[]) => members.map((m) => ({ ...m, content: Buffer.from(m.content).toString() }))

test('decodeCpio() gives back what was encoded', () => {
  assert.deepEqual(plain(decodeCpio(archive(MEMBERS))), plain(MEMBERS))
  assert.equal(cpioSize(archive(MEMBERS)), archive(MEMBERS).length)
})

test('decodeCpio() gives back any names and contents', () => {
  const name = fc.string({ minLength: 1, maxLength: 40, unit: 'binary' }).filter((s) => !s.includes('\0') && s.isWellFormed())
  fc.assert(
    fc.property(fc.array(fc.tuple(name, fc.string({ maxLength: 40 })), { maxLength: 5 }), (files) => {
      const members = files
        .filter(([path]) => path !== 'TRAILER!!!')
        .map(([path, text], i) => member(i + 1, path, 0o100644, text))
      assert.deepEqual(plain(decodeCpio(archive(members))), plain(members))
    }),
    { seed: 7, numRuns: 40 },
  )
})

test('decodeCpio() reads archives that follow each other', () => {
  const two = Buffer.concat([archive(MEMBERS.slice(0, 2)), Buffer.alloc(512), archive(MEMBERS.slice(2))])
  assert.equal(decodeCpio(two).length, MEMBERS.length)
})

test('encoding gives the same bytes each time', () => {
  assert.deepEqual(archive(MEMBERS), archive(structuredClone(MEMBERS)))
})

test('encodeCpioHeader() refuses what a header cannot hold', () => {
  assert.throws(() => encodeCpioHeader(member(1, '', 0o100644)), /a name has 1 to 4095 bytes/)
  assert.throws(() => encodeCpioHeader(member(1, 'a\0b', 0o100644)), /none of them 0/)
  assert.throws(() => encodeCpioHeader({ ...member(1, 'big', 0o100644), sizeBytes: 2 ** 32 }), /sizeBytes is 4294967296/)
  assert.throws(() => encodeCpioHeader({ ...member(1, 'old', 0o100644), mtime: -1 }), /mtime is -1/)
})

test('decodeCpio() refuses damaged archives', () => {
  const good = archive([member(1, 'file', 0o100644, 'text!')])
  const refuses = (why: RegExp, change: (bytes: Buffer) => unknown) => {
    const copy = Buffer.from(good)
    const changed = change(copy)
    assert.throws(() => decodeCpio(Buffer.isBuffer(changed) ? changed : copy), why)
  }
  refuses(/expected 070701, got "070707"/, (b) => b.write('070707'))
  refuses(/other than hexadecimal/, (b) => b.write('xyz', 20))
  refuses(/need 4294967411 bytes|need \d+ bytes, have/, (b) => b.write('FFFFFFFF', 54))
  refuses(/the name has 4294967295 bytes/, (b) => b.write('FFFFFFFF', 94))
  refuses(/the name has 0 bytes/, (b) => b.write('00000000', 94))
  refuses(/the name does not end at its 0/, (b) => b.write('fi\0e', 110))
  refuses(/padding is not zero/, (b) => b.writeUInt8(1, 116 + 5))
  refuses(/need 121 bytes, have 116/, (b) => b.subarray(0, b.length - 8))
  refuses(/a multiple of 4/, (b) => Buffer.concat([Buffer.alloc(2), b]))
  refuses(/expected 070701/, (b) => Buffer.concat([b, Buffer.alloc(8), Buffer.alloc(120, 'x')]))
  refuses(/the sum of file is 0, computed 486/, (b) => b.write('070702'))
})

oracle('cpio', 'cpio and bsdtar list the archive we wrote', async (_t, judge) => {
  const path = join(judge.dir, 'archive')
  writeFileSync(path, archive(MEMBERS))
  const expected = [
    /^drwxr-xr-x\s+2 root\s+root\s+0 Nov 23\s+2025 \.$/,
    /^drwxr-xr-x .* dev$/,
    /^crw-------\s+1 root\s+root\s+5,\s+1 .* dev\/console$/,
    /^prw-r--r-- .* dev\/fifo$/,
    /^brw-rw----\s+1 root\s+disk\s+8,\s+0 .* dev\/sda$/,
    /^lrwxrwxrwx .* init -> usr\/lib\/systemd\/systemd$/,
    /^-rw-r--r--\s+2 .* 5 .* linked$/,
    /^-rw-r--r--\s+2 .* linked again$/,
    /^-rwsr-xr-x\s+1 1000 .* ödd$/,
  ]
  const { stdout } = await judge.run(['cpio', '-itv', '--quiet', '-F', path])
  stdout
    .trim()
    .split('\n')
    .forEach((line, i) => assert.match(line, expected[i]!))
  await judge.run(['sh', '-c', 'mkdir out && bsdtar -xf archive -C out --exclude dev'])
  assert.equal(readFileSync(join(judge.dir, 'out/linked again'), 'utf8'), 'twice')
})

oracle('cpio', 'decodeCpio() reads what cpio wrote', async (_t, judge) => {
  const at = (name: string) => join(judge.dir, name)
  mkdirSync(at('in'))
  writeFileSync(at('in/a'), 'hard')
  linkSync(at('in/a'), at('in/b'))
  symlinkSync('a', at('in/c'))
  for (const name of ['in/a', 'in']) utimesSync(at(name), 1_763_856_000, 1_763_856_000)
  for (const format of ['newc', 'crc']) {
    const list = "printf 'in\\0in/a\\0in/b\\0in/c\\0' | cpio --create --null --reproducible --renumber-inodes --quiet --format="
    await judge.run(['sh', '-c', `${list}${format} > archive`])
    const members = decodeCpio(readFileSync(at('archive')))
    assert.deepEqual(
      members.map((m) => [m.name, m.mode & 0o170000, m.nlink, m.ino, Buffer.from(m.content).toString()]),
      [
        ['in', 0o40000, 2, 0, ''],
        ['in/a', 0o100000, 2, 1, ''],
        ['in/b', 0o100000, 2, 1, 'hard'],
        ['in/c', 0o120000, 1, 2, 'a'],
      ],
    )
  }
})
