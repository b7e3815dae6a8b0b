import assert from 'node:assert/strict'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { test } from 'node:test'
import { constants, gzipSync, zstdCompressSync } from 'node:zlib'
import { xzSync } from 'node-liblzma'
import { oracle } from '../../test/oracle.ts'
import { encodeAr } from './ar.ts'
import { dataOf, decodeDeb } from './deb.ts'
import { encodeTar } from './tar.ts'

const CONTROL =
  'Package: tiny\nVersion: 1.0-1\nArchitecture: all\nMaintainer: A <a@example.org>\nDescription: small\n  folded\n .\n'
const version = { name: 'debian-binary', data: Buffer.from('2.0\n') }
const control = (files: Parameters<typeof encodeTar>[0] = [{ path: './control', bytes: Buffer.from(CONTROL) }]) => ({
  name: 'control.tar.gz',
  data: gzipSync(encodeTar(files)),
})
const data = { name: 'data.tar', data: encodeTar([{ path: './usr/', type: 'directory', mode: 0o755 }]) }
const deb = (...members: Parameters<typeof encodeAr>[0]) => encodeAr(members)

async function dataBytes(bytes: Uint8Array, options = {}): Promise<Buffer> {
  const chunks: Uint8Array[] = []
  for await (const chunk of dataOf((await decodeDeb(bytes)).data, options)) chunks.push(chunk)
  return Buffer.concat(chunks)
}

test('decodeDeb() reads fields, conffiles, triggers and scripts', async () => {
  const files = [
    { path: './', type: 'directory' as const },
    { path: './control', bytes: Buffer.from(CONTROL) },
    { path: './conffiles', bytes: Buffer.from('/etc/tiny\nremove-on-upgrade /etc/old\n') },
    { path: './triggers', bytes: Buffer.from('# comment\ninterest-noawait /usr/lib/x\nactivate ldconfig\n') },
    { path: './postinst', bytes: Buffer.from('#!/bin/sh\n'), mode: 0o755 },
  ]
  const found = await decodeDeb(deb(version, { name: '_gpgorigin', data: Buffer.from('x') }, control(files), data))
  assert.equal(found.fields.get('Package'), 'tiny')
  assert.deepEqual(found.conffiles, ['/etc/tiny'])
  assert.deepEqual(found.triggers, [
    { verb: 'interest', await: false, name: '/usr/lib/x' },
    { verb: 'activate', await: true, name: 'ldconfig' },
  ])
  assert.equal(found.control.get('postinst')?.mode, 0o755)
})

for (const [name, compress] of [
  ['', (b: Uint8Array) => b],
  ['.gz', gzipSync],
  ['.xz', (b: Uint8Array) => xzSync(Buffer.from(b))],
  ['.zst', (b: Uint8Array) => zstdCompressSync(b, { params: { [constants.ZSTD_c_checksumFlag]: 1 } })],
] as const) {
  test(`dataOf() decompresses data.tar${name}, and refuses it cut short or changed`, async () => {
    const tar = encodeTar([{ path: './a', bytes: Buffer.from(Array.from({ length: 300_000 }, (_, i) => (i * i) % 251)) }])
    const packed = Buffer.from(compress(tar))
    const make = (bytes: Uint8Array) => deb(version, control(), { name: `data.tar${name}`, data: bytes })
    assert.deepEqual(await dataBytes(make(packed)), Buffer.from(tar))
    if (name === '') return
    await assert.rejects(dataBytes(make(packed.subarray(0, packed.length - 20))), { code: 'format', message: /corrupt/ })
    const broken = Buffer.from(packed)
    const middle = packed.length >> 1
    for (let i = middle; i < middle + 8; i++) broken[i] = broken[i]! ^ 0x55
    await assert.rejects(dataBytes(make(broken)), { code: 'format', message: /corrupt/ })
  })
}

test('dataOf() refuses a decompression bomb, early', async () => {
  const bomb = deb(version, control(), { name: 'data.tar.xz', data: xzSync(Buffer.alloc(128 << 20)) })
  assert.ok(bomb.length < 1 << 20)
  await assert.rejects(dataBytes(bomb), { code: 'format', message: /grows beyond/ })
  await assert.rejects(dataBytes(bomb, { mostBytes: 1 << 20 }), { message: /grows beyond 1.0 MiB/ })
})

const file = (name: string, text = 'x') => ({ path: name, bytes: Buffer.from(text) })
const withControl = (...files: Parameters<typeof encodeTar>[0][]) =>
  deb(version, control([file('./control', CONTROL), ...files.flatMap((f) => [...f])]), data)
// biome-ignore format: table
const REFUSED: [why: string, bytes: Uint8Array, message: RegExp][] = [
  ['another version of the format',      deb({ name: 'debian-binary', data: Buffer.from('3.0\n') }, control(), data), /"3.0\\n" is not 2.x/],
  ['members in another order',           deb(version, data, control()),                           /second member is not control.tar/],
  ['a package without data',             deb(version, control()),                                 /third member is not data.tar/],
  ['a compression it does not know',     deb(version, control(), { name: 'data.tar.lz', data: data.data }), /data.tar.lz is not supported/],
  ['a control file that is not there',   deb(version, control([file('./postinst')]), data),       /no control file/],
  ['a control name that leads elsewhere', withControl([file('./../../etc/cron.d/x')]),            /holds file "\.\/\.\.\/\.\.\/etc/],
  ['a control name in a folder',         withControl([file('./info/postinst')]),                  /holds file/],
  ['a link among control files',         withControl([{ path: './postinst', type: 'symlink' as const, target: '/etc/shadow' }]), /holds symlink/],
  ['a control file twice',               withControl([file('./control', CONTROL)]),               /holds control twice/],
  ['a control bomb',                     deb(version, { name: 'control.tar.gz', data: gzipSync(encodeTar([{ path: './control', bytes: Buffer.alloc(20 << 20) }])) }, data), /bytes|grows/],
  ['a package name that is a path',      deb(version, control([file('./control', CONTROL.replace('tiny', '../../x'))]), data), /Package is "\.\.\/\.\.\/x"/],
  ['a conffile that is not absolute',    withControl([file('./conffiles', 'etc/x\n')]),           /no absolute path/],
  ['a trigger name that is a path',      withControl([file('./triggers', 'interest ../../x\n')]), /no trigger/],
  ['a trigger that is dpkg\'s own file', withControl([file('./triggers', 'interest Unincorp\n')]), /no trigger/],
]
for (const [why, bytes, message] of REFUSED)
  test(`decodeDeb() refuses ${why}`, async () => void (await assert.rejects(decodeDeb(bytes), { code: 'format', message })))

oracle('dpkg-deb', 'dpkg-deb reads what encodeAr() and encodeTar() wrote', async (_t, judge) => {
  writeFileSync(`${judge.dir}/tiny.deb`, deb(version, control(), data))
  assert.equal((await judge.run(['dpkg-deb', '--field', 'tiny.deb', 'Version'])).stdout, '1.0-1\n')
  assert.match((await judge.run(['dpkg-deb', '--contents', 'tiny.deb'])).stdout, /^drwxr-xr-x .* \.\/usr\/$/m)
})

for (const kind of ['none', 'gzip', 'xz', 'zstd'] as const) {
  oracle('dpkg-deb', `decodeDeb() reads what dpkg-deb built with -Z${kind}`, async (_t, judge) => {
    mkdirSync(`${judge.dir}/in/DEBIAN`, { recursive: true })
    writeFileSync(`${judge.dir}/in/DEBIAN/control`, CONTROL)
    writeFileSync(`${judge.dir}/in/hello`, 'hello\n'.repeat(1000))
    await judge.run(['dpkg-deb', `-Z${kind}`, '--uniform-compression', '--root-owner-group', '--build', 'in', 'tiny.deb'])
    const bytes = readFileSync(`${judge.dir}/tiny.deb`)
    assert.equal((await decodeDeb(bytes)).data.compression, kind)
    await judge.run(['sh', '-c', 'dpkg-deb --fsys-tarfile tiny.deb > tiny.tar'])
    assert.deepEqual(await dataBytes(bytes), readFileSync(`${judge.dir}/tiny.tar`))
  })
}
