import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import fc from 'fast-check'
import { oracle } from '../../test/oracle.ts'
import { TINY_PE, tinyPe } from '../../test/tiny-pe.ts'
import { Fault } from '../base/fault.ts'
import { decodePe, extendPe, findSection, NX_COMPAT, patchCheckSum, replaceSection, sectionContent } from './pe.ts'

const STUB = '/usr/lib/systemd/boot/efi/linuxx64.efi.stub'
const refuses = (why: RegExp) => (e: unknown) => e instanceof Fault && e.code === 'format' && why.test(e.message)

/** The image with these contents as new sections. */
function extended(image: Uint8Array, contents: Record<string, Uint8Array>): Buffer {
  const plan = extendPe(
    image,
    Object.entries(contents).map(([name, content]) => ({ name, sizeBytes: content.length, code: name === '.linux' })),
  )
  const whole = Buffer.alloc(plan.sizeBytes)
  whole.set(plan.head)
  Object.values(contents).forEach((content, i) => whole.set(content, plan.offsets[i]))
  return whole
}

test('decodePe() gives back the sections extendPe() added, to the byte', () => {
  const contents = { '.linux': Buffer.alloc(1000, 1), '.osrel': Buffer.from('ID=x\n'), '.initrd': Buffer.alloc(0x2000, 2) }
  const image = extended(tinyPe(), contents)
  const pe = decodePe(image)
  assert.deepEqual(
    pe.sections.map(({ name }) => name),
    ['.text', '.sbat', '.linux', '.osrel', '.initrd'],
  )
  for (const [name, content] of Object.entries(contents))
    assert.deepEqual(Buffer.from(sectionContent(image, findSection(pe, name)!)), content)
  assert.equal(findSection(pe, '.linux')!.characteristics, 0x4000_0020)
  assert.equal(findSection(pe, '.osrel')!.characteristics, 0x4000_0040)
  assert.equal(image.length % 0x200, 0)
  assert.equal(pe.sizeOfImage, 0x8000)
})

test('replaceSection() puts other content where a section was', () => {
  const image = replaceSection(tinyPe(), '.sbat', Buffer.from('short'))
  assert.equal(Buffer.from(sectionContent(image, findSection(decodePe(image), '.sbat')!)).toString(), 'short')
  assert.equal(image.length, tinyPe().length)
  assert.throws(() => replaceSection(tinyPe(), '.sbat', Buffer.alloc(0x201)), refuses(/has 513 bytes, 512 fit/))
  assert.throws(() => replaceSection(tinyPe(), '.none', Buffer.alloc(1)), refuses(/none of that name/))
})

test('extendPe() clears NX_COMPAT for a kernel that lacks it', () => {
  const { head } = extendPe(tinyPe(), [{ name: '.x', sizeBytes: 1 }], { nxCompat: false })
  assert.equal(decodePe(tinyPe()).dllCharacteristics & NX_COMPAT, NX_COMPAT)
  assert.equal(decodePe(Buffer.concat([head, Buffer.alloc(512)])).dllCharacteristics, 0x60)
})

test('the same sections give the same image, and the old one is not changed', () => {
  const stub = tinyPe()
  assert.deepEqual(extended(stub, { '.x': Buffer.from('1') }), extended(stub, { '.x': Buffer.from('1') }))
  assert.deepEqual(stub, tinyPe())
})

const set32 = (at: number, value: number) => (image: Buffer) => image.writeUInt32LE(value, at)
// biome-ignore format: table
const REFUSED: [string, (image: Buffer) => void, RegExp][] = [
  ['that is not PE',                          (i) => i.fill(0, 0, 2),                         /DOS header\.magic at offset 0: expected 4d5a/],
  ['whose header offset leaves the file',     set32(0x3c, 0xffff_fff0),                       /PE header at offset 4294967280/],
  ['with more sections than headers',         (i) => i.writeUInt16LE(200, TINY_PE.sectionCount), /table of 200 sections ends at 8392, its headers at 4096/],
  ['with headers beyond the file',            set32(TINY_PE.sizeOfHeaders, 0x10_0000),        /headers end at 1048576, the file at 5120/],
  ['with a section beyond the file',          set32(TINY_PE.sbatRawPointer, 0x1400),          /section \.sbat ends at 5632, the file at 5120/],
  ['with overlapping sections',               set32(TINY_PE.sbatRawPointer, 0x1100),          /section \.sbat overlaps section \.text/],
  ['with a section in the headers',           set32(TINY_PE.textRawPointer, 0x200),           /overlaps/],
  ['with sections overlapping in memory',     set32(0x1b0 + 12, 0x2000),                      /section \.sbat overlaps the one before it in memory/],
  ['with sections beyond its size in memory', set32(TINY_PE.sizeOfImage, 0x1000),             /end at address 12\d+, the image at 4096/],
  ['with an alignment of zero',               set32(TINY_PE.sectionAlignment, 0),             /section alignment is 0/],
  ['with a certificate table outside',        (i) => { set32(TINY_PE.certificateEntry, 0x1400)(i); set32(TINY_PE.certificateEntry + 4, 8)(i) }, /certificate table ends at 5128, the file at 5120/],
  ['with half a certificate table',           set32(TINY_PE.certificateEntry, 0x1400),        /either no place or no size/],
  ['for 32-bit machines',                     (i) => i.writeUInt16LE(0x10b, 0x98),            /optional header\.magic at offset 152: expected 0b02, got 0b01/],
]
for (const [what, change, why] of REFUSED)
  test(`decodePe() refuses an image ${what}`, () => {
    const image = tinyPe()
    change(image)
    assert.throws(() => decodePe(image), refuses(why))
  })

test('decodePe() refuses an image cut off anywhere in its headers or sections', () => {
  const image = tinyPe()
  for (const size of [0, 1, 0x40, 0x84, 0xa0, 0x190, 0xfff, 0x1000, 0x13ff])
    assert.throws(() => decodePe(image.subarray(0, size)), Fault, `${size} bytes`)
})

const many = (count: number) =>
  Object.fromEntries(Array.from({ length: count }, (_, i) => [`.s${i}`, Buffer.from(`content ${i}`)]))

test('extendPe() makes the headers longer where they have no room, up to where the first section lies in memory', () => {
  const stub = tinyPe({ sizeOfHeaders: 0x200, text: Buffer.from('code') }) // one more fits behind the two
  const image = extended(stub, many(100))
  const pe = decodePe(image)
  assert.equal(pe.sizeOfHeaders, 0x1200)
  const content = (name: string) => `${sectionContent(image, findSection(pe, name)!)}`
  assert.equal(content('.s99'), 'content 99')
  assert.equal(content('.text'), 'code')
  const inMemory = (bytes: Uint8Array) =>
    decodePe(bytes)
      .sections.slice(0, 2)
      .map((s) => [s.virtualAddress, s.virtualSize])
  assert.deepEqual(inMemory(image), inMemory(stub))
  assert.throws(() => extended(stub, many(200)), refuses(/Cannot add 200 sections to stub: its headers have room for 1/))
  stub.writeUInt32LE(28, TINY_PE.certificateEntry + 20) // it has debug data, found by its place in the file
  assert.throws(() => extended(stub, many(2)), refuses(/its headers have room for 1/))
})

test('extendPe() refuses a stub that is signed, and an image of 4 GiB', () => {
  const stub = Buffer.concat([tinyPe(), Buffer.alloc(8)])
  stub.writeUInt32LE(0x1400, TINY_PE.certificateEntry)
  stub.writeUInt32LE(8, TINY_PE.certificateEntry + 4)
  assert.throws(() => extendPe(stub, [{ name: '.a', sizeBytes: 1 }]), refuses(/signed already/))
  assert.throws(() => extendPe(tinyPe(), [{ name: '.a', sizeBytes: 0xffff_f000 }]), refuses(/larger than 4 GiB/))
  assert.throws(() => extendPe(tinyPe(), [{ name: '.way2long', sizeBytes: 1 }]), refuses(/at most 8 bytes/))
})

test('decodePe() never throws anything but a Fault, whichever bytes change', () => {
  const changes = fc.array(fc.tuple(fc.nat(0x1d8), fc.nat(255)), { minLength: 1, maxLength: 4 })
  fc.assert(
    fc.property(changes, (all) => {
      const image = tinyPe()
      for (const [at, value] of all) image[at] = value
      try {
        for (const section of decodePe(image).sections) sectionContent(image, section)
      } catch (e) {
        assert.ok(e instanceof Fault, String(e))
      }
    }),
    { numRuns: 2000 },
  )
})

oracle('objdump', 'objdump and ukify read the sections we added to the stub', async (_t, judge) => {
  await judge.run(['cp', STUB, 'stub'])
  const stub = readFileSync(join(judge.dir, 'stub'))
  writeFileSync(join(judge.dir, 'x.efi'), extended(stub, { '.linux': Buffer.alloc(5000, 1), '.osrel': Buffer.from('ID=x\n') }))
  const dump = (await judge.run(['objdump', '-h', 'x.efi'])).stdout
  assert.match(dump, /\.linux\s+00001388[\s\S]*READONLY, CODE[\s\S]*\.osrel\s+00000005[\s\S]*READONLY, DATA/)
  const { stdout } = await judge.run(['ukify', 'inspect', 'x.efi', '--json=short'])
  assert.equal(JSON.parse(stdout)['.osrel'].text, 'ID=x\n')
})

oracle('objdump', 'objdump and ukify read a stub whose headers we made longer, and the stub as it was', async (_t, judge) => {
  await judge.run(['cp', STUB, 'stub'])
  const [first, last] = [many(60)['.s0']!, many(60)['.s59']!]
  writeFileSync(
    join(judge.dir, 'x.efi'),
    extended(readFileSync(join(judge.dir, 'stub')), { ...many(60), '.osrel': Buffer.from('ID=x\n') }),
  )
  const disassembled = async (file: string) =>
    (await judge.run(['objdump', '-d', '-j', '.text', file])).stdout.replace(/^.*file format.*$/m, '')
  assert.equal(await disassembled('x.efi'), await disassembled('stub'))
  const { stdout } = await judge.run(['ukify', 'inspect', 'x.efi', '--json=short', '--all'])
  const found = JSON.parse(stdout)
  assert.deepEqual([found['.s0'].size, found['.s59'].size, found['.osrel'].text], [first.length, last.length, 'ID=x\n'])
})

oracle('sbsign', 'our checksum is the one sbsign writes', async (_t, judge) => {
  const make = 'openssl req -x509 -newkey rsa:2048 -nodes -keyout k -out c -subj /CN=x && sbsign --key k --cert c --output s'
  await judge.run(['sh', '-c', `${make} ${STUB}`])
  const theirs = readFileSync(join(judge.dir, 's'))
  const ours = Uint8Array.from(theirs)
  patchCheckSum(ours, decodePe(ours))
  assert.notEqual(decodePe(theirs).checkSum, 0)
  assert.equal(decodePe(ours).checkSum, decodePe(theirs).checkSum)
})
