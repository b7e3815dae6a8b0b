import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { test } from 'node:test'
import { oracle } from '../../test/oracle.ts'
import { decodeTar, encodeTar, encodeTarHeader, type TarEntry } from './tar.ts'

interface Read extends TarEntry {
  bytes: Buffer
}

async function read(bytes: Uint8Array, step = bytes.length): Promise<Read[]> {
  const found: Read[] = []
  for await (const { content, ...entry } of decodeTar(pieces(bytes, step))) {
    const whole = Buffer.alloc(entry.sizeBytes)
    for await (const chunk of content()) whole.set(chunk.bytes, chunk.offset)
    found.push({ ...entry, bytes: whole })
  }
  return found
}

async function* pieces(bytes: Uint8Array, step: number) {
  for (let at = 0; at < bytes.length; at += step) yield bytes.subarray(at, at + step)
}

const binary = Uint8Array.from({ length: 256 }, (_, i) => i)
const entries = [
  { path: './', type: 'directory', mode: 0o755 },
  { path: './file', bytes: Buffer.from('hello'), mode: 0o4755, uid: 42, gid: 1000, mtime: 1700000000 },
  { path: `./${'long/'.repeat(60)}name`, bytes: Buffer.alloc(1000, 7) },
  { path: './link', type: 'symlink', target: '/etc/passwd' },
  { path: './hard', type: 'hardlink', target: './file' },
  { path: './null', type: 'character', major: 1, minor: 3, mode: 0o666 },
  { path: './xattr', bytes: Buffer.alloc(0), xattrs: new Map([['user.b', binary]]) },
] as const satisfies Parameters<typeof encodeTar>[0]

test('decodeTar() returns what encodeTar() wrote, in whatever pieces it comes', async () => {
  const bytes = encodeTar(entries)
  for (const step of [bytes.length, 512, 77, 1]) {
    const found = await read(bytes, step)
    for (const [i, entry] of entries.entries()) {
      for (const [key, value] of Object.entries(entry))
        assert.deepEqual(found[i]![key as keyof Read], value, `${entry.path} ${key}`)
    }
  }
  assert.deepEqual(encodeTar(entries), bytes)
})

test('decodeTar() keeps binary attributes as they are', async () => {
  const found = await read(encodeTar(entries))
  assert.deepEqual([...found.at(-1)!.xattrs.get('user.b')!], [...binary])
})

test('encodeTar() keeps numbers and names that no header has room for', async () => {
  const wide = [
    { path: './ü', uid: 5_000_000, gid: 4_294_967_294, mtime: -86_400, bytes: Buffer.from('x') },
    { path: './late', mtime: 2 ** 40, bytes: Buffer.alloc(0) },
    { path: './link', type: 'symlink', target: `${'ü/'.repeat(90)}end` },
  ] as const
  const found = await read(encodeTar(wide))
  for (const [i, entry] of wide.entries()) {
    for (const [key, value] of Object.entries(entry))
      assert.deepEqual(found[i]![key as keyof Read], value, `${entry.path} ${key}`)
  }
  const [large] = [encodeTarHeader({ path: './large', sizeBytes: 9 * 2 ** 30 })]
  for await (const entry of decodeTar(pieces(large, large.length))) {
    assert.equal(entry.sizeBytes, 9 * 2 ** 30)
    break
  }
})

// biome-ignore format: table
const UNWRITABLE: [why: string, entry: Parameters<typeof encodeTarHeader>[0]][] = [
  ['a name with a NUL',               { path: 'a\0b' }],
  ['an attribute whose name has "="', { path: 'a', xattrs: new Map([['user.a=b', Uint8Array.of(1)]]) }],
  ['a mode of too many digits',       { path: 'a', mode: 2 ** 40 }],
]
for (const [why, entry] of UNWRITABLE)
  test(`encodeTarHeader() refuses ${why}`, () => void assert.throws(() => encodeTarHeader(entry), { code: 'format' }))

/** The first header of an archive with one field changed, its checksum made right again. */
function changed(
  at: number,
  text: string | Uint8Array,
  given: Uint8Array = encodeTar([{ path: 'a', bytes: Buffer.from('x') }]),
): Uint8Array {
  const bytes = Buffer.from(given)
  bytes.set(Buffer.from(text as string), at)
  let sum = 8 * 32
  for (let i = 0; i < 512; i++) sum += i >= 148 && i < 156 ? 0 : bytes[i]!
  bytes.write(`${sum.toString(8).padStart(7, '0')}\0`, 148, 'latin1')
  return bytes
}
const one = encodeTar([{ path: 'a', bytes: Buffer.from('x') }])
const withPax = (text: string) =>
  Buffer.concat([changed(156, 'x', encodeTar([{ path: 'p', bytes: Buffer.from(text) }])).subarray(0, 1024), one])
// biome-ignore format: table
const REFUSED: [why: string, bytes: Uint8Array, message: RegExp][] = [
  ['a wrong checksum',             Buffer.concat([Buffer.from('b'), one.subarray(1)]),      /checksum is/],
  ['an archive cut in an entry',   one.subarray(0, 700),                                    /within an entry/],
  ['an archive cut in its end',    one.subarray(0, 1024),                                   /within an entry/],
  ['data after the end',           Buffer.concat([one, one]),                               /data after its end/],
  ['a negative size',              changed(124, Buffer.from('ffffffffffffffffffffffff', 'hex')),  /size -1 is out of range/],
  ['a size beyond 2^53',           changed(124, Buffer.from('80ffffffffffffffffffffff', 'hex')),  /out of range/],
  ['a number in the wrong base',   changed(108, '99999999'),                                /not an octal number/],
  ['an unknown type',              changed(156, 'Z'),                                       /unknown type "Z"/],
  ['an unknown magic',             changed(257, 'ustaR'),                                   /unknown magic/],
  ['a name that is not UTF-8',     changed(0, Uint8Array.of(0xff, 0xfe)),                   /not UTF-8/],
  ['a giant extended header',      changed(156, 'x', changed(124, '77777777777')),          /at most 1048576/],
  ['a pax record that lies',       withPax('99 path=x\n'),                                  /malformed record/],
  ['a pax size of nonsense',       withPax('13 size=1e99\n'),                               /"1e99"/],
  ['overlapping sparse parts',     withPax('32 GNU.sparse.map=0,10,5,10,0,0\n'),  /overlap|described/],
]
for (const [why, bytes, message] of REFUSED)
  test(`decodeTar() refuses ${why}`, async () => void (await assert.rejects(read(bytes), { code: 'format', message })))

oracle('tar', 'tar reads what encodeTar() wrote', async (_t, judge) => {
  writeFileSync(`${judge.dir}/a.tar`, encodeTar(entries))
  const { stdout } = await judge.run(['tar', '--numeric-owner', '-tvf', 'a.tar'])
  assert.match(stdout, /^-rwsr-xr-x 42\/1000 +5 .* \.\/file$/m)
  assert.match(stdout, /^lrw.* \.\/link -> \/etc\/passwd$/m)
  assert.match(stdout, /^c.* 1,3 .*\.\/null$/m)
})

const MAKE = `
set -e
mkdir -p in/d/${'x'.repeat(120)}/y && cd in
printf hello > d/file && ln d/file d/hard && ln -s file d/soft && mkfifo d/pipe
printf data > d/${'x'.repeat(120)}/y/${'z'.repeat(150)}
truncate -s 1M d/holes && printf A | dd of=d/holes bs=1 seek=500000 conv=notrunc status=none
printf B | dd of=d/holes bs=1 seek=900000 conv=notrunc status=none
`
for (const [name, options] of [
  ['v7', '--format=v7'],
  ['ustar', '--format=ustar'],
  ['gnu', '--format=gnu'],
  ['gnu sparse', '--format=gnu --sparse'],
  ['pax sparse 1.0', '--format=pax --sparse'],
  ['pax sparse 0.1', '--format=pax --sparse --sparse-version=0.1'],
]) {
  oracle('tar', `decodeTar() reads what tar wrote in the ${name} form`, async (_t, judge) => {
    await judge.run([
      'sh',
      '-c',
      `${MAKE} ${['v7', 'ustar'].includes(name!) ? 'rm -r d/x* d/pipe;' : ''} tar ${options} --owner=7 --group=8 --sort=name -cf ../a.tar ./d`,
    ])
    const found = new Map(
      (await read(readFileSync(`${judge.dir}/a.tar`), 1000)).map((entry) => [entry.path.replace(/\/$/, ''), entry]),
    )
    assert.equal(found.get('./d')?.type, 'directory')
    assert.equal(`${found.get('./d/file')?.bytes}`, 'hello')
    assert.deepEqual([found.get('./d/hard')?.type, found.get('./d/hard')?.target], ['hardlink', './d/file'])
    assert.deepEqual([found.get('./d/soft')?.type, found.get('./d/soft')?.target], ['symlink', 'file'])
    assert.deepEqual([found.get('./d/file')?.uid, found.get('./d/file')?.gid], [7, 8])
    assert.deepEqual(found.get('./d/holes')?.bytes, readFileSync(`${judge.dir}/in/d/holes`))
    if (!['v7', 'ustar'].includes(name!))
      assert.equal(`${found.get(`./d/${'x'.repeat(120)}/y/${'z'.repeat(150)}`)?.bytes}`, 'data')
  })
}
