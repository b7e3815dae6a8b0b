import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { kernelModule } from '../../test/kernel-module.ts'
import { oracle } from '../../test/oracle.ts'
import { elfReferences, elfSection, parseModinfo } from './elf.ts'

const FIELDS = [
  ['license', 'GPL'],
  ['depends', 'one,two'],
  ['firmware', 'vendor/first.bin'],
  ['firmware', 'vendor/second.bin'],
  ['softdep', 'pre: sha256'],
  ['parm', 'debug:a=b (int)'],
] as const

test('parseModinfo() gives back what a module of either width says', () => {
  for (const bits of [32, 64] as const) {
    assert.deepEqual(parseModinfo(elfSection(kernelModule(FIELDS, bits), '.modinfo')!), FIELDS)
  }
  assert.equal(elfSection(kernelModule(FIELDS), '.nothing'), undefined)
})

test('elfSection() refuses files that lie about themselves', () => {
  const refuses = (why: RegExp, change: (bytes: Buffer) => unknown) => {
    const bytes = kernelModule(FIELDS)
    const changed = change(bytes)
    assert.throws(() => elfSection(Buffer.isBuffer(changed) ? changed : bytes, '.modinfo'), why)
  }
  const sections = (bytes: Buffer) => Number(bytes.readBigUInt64LE(40))
  refuses(/ELF identity\.magic at offset 0: expected 7f454c46/, (b) => b.writeUInt8(0, 0))
  refuses(/need 16 bytes, have 4/, (b) => b.subarray(0, 4))
  refuses(/width 9/, (b) => b.writeUInt8(9, 4))
  refuses(/byte order 2/, (b) => b.writeUInt8(2, 5))
  refuses(/larger than 2\^53/, (b) => b.writeBigUInt64LE(2n ** 60n, 40))
  refuses(/they end at \d+, the file at/, (b) => b.writeUInt16LE(0xfe00, 60))
  refuses(/65535 section headers/, (b) => b.writeUInt16LE(0xffff, 60))
  refuses(/section 7 of names is not there/, (b) => b.writeUInt16LE(7, 62))
  refuses(/Cannot read ELF section at offset 64: need 1099511627776 bytes/, (b) =>
    b.writeBigUInt64LE(2n ** 40n, sections(b) + 64 + 32),
  )
})

test('elfReferences() finds nothing where there are no symbols, and refuses 32 bits', () => {
  assert.equal(elfReferences(kernelModule(FIELDS), 'printk'), 0)
  assert.throws(() => elfReferences(kernelModule(FIELDS, 32), 'printk'), /expected 64 bits/)
})

oracle('readelf', 'elfReferences() counts what readelf counts', async (_t, judge) => {
  writeFileSync(join(judge.dir, 'a.s'), '.text\nh: call f@PLT\ncall f@PLT\ncall g@PLT\nret\n')
  await judge.run(['as', '--64', '-o', 'a.o', 'a.s'])
  const { stdout } = await judge.run(['readelf', '-rW', 'a.o'])
  const object = readFileSync(join(judge.dir, 'a.o'))
  const counted = (name: string) => stdout.split('\n').filter((line) => new RegExp(` ${name} `).test(line)).length
  assert.equal(counted('f'), 2)
  for (const name of ['f', 'g', 'h', 'absent']) assert.equal(elfReferences(object, name), counted(name), name)
})

oracle('modinfo', 'modinfo reads the module our tests are made with', async (_t, judge) => {
  writeFileSync(join(judge.dir, 'some.ko'), kernelModule(FIELDS))
  const { stdout } = await judge.run(['modinfo', '-F', 'firmware', './some.ko'])
  assert.equal(stdout, 'vendor/first.bin\nvendor/second.bin\n')
})

oracle('readelf', 'elfSection() finds what readelf finds in a program', async (_t, judge) => {
  const { stdout } = await judge.run(['sh', '-c', 'cp /usr/bin/readelf program && readelf -p .interp program'])
  const interpreter = Buffer.from(elfSection(readFileSync(join(judge.dir, 'program')), '.interp')!).toString()
  assert.match(stdout, new RegExp(interpreter.slice(0, -1)))
  assert.ok(interpreter.endsWith('\0'))
})
