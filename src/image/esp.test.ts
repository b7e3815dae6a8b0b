import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { oracle } from '../../test/oracle.ts'
import { decodeFat, readFat } from '../formats/fat.ts'
import { planDisk, writeDisk } from './disk.ts'
import { type EspFiles, espSizeFor, formatLoaderConf, writeEsp, writeEspInto } from './esp.ts'

const FILES: EspFiles = new Map(
  Object.entries({
    'EFI/BOOT/BOOTX64.EFI': Buffer.alloc(130_000, 'systemd-boot'),
    'EFI/Linux/Minimal_1+3-0.efi': Buffer.alloc(5_000_000, 'uki'),
    'EFI/systemd/systemd-bootx64.efi': Buffer.alloc(130_000, 'systemd-boot'),
    'loader/entries.srel': Buffer.from('type1\n'),
    'loader/keys/auto/KEK.auth': Buffer.from('kek'),
    'loader/keys/auto/PK.auth': Buffer.from('pk'),
    'loader/keys/auto/db.auth': Buffer.from('db'),
    'loader/loader.conf': Buffer.from(formatLoaderConf({ timeout: 3, secureBootEnroll: 'force', editor: false })),
  }).map(([path, bytes]) => [path, { bytes, sizeBytes: bytes.length }]),
)
const OPTIONS = { label: 'ESP', guid: 'b7c2c602-0000-4000-8000-000000000000', epoch: 1_763_856_000 }

function scratch(t: TestContext): string {
  const dir = mkdtempSync(join(tmpdir(), 'bisque-esp-'))
  t.after(() => rmSync(dir, { recursive: true, force: true }))
  return dir
}

test('writeEsp() writes what firmware and systemd-boot look for, and takes space for nothing else', async (t) => {
  const dir = scratch(t)
  const uki = Buffer.alloc(5_000_000, 'from a file')
  writeFileSync(join(dir, 'uki'), uki)
  const files: EspFiles = new Map([...FILES, ['EFI/Linux/Minimal_1+3-0.efi', { path: join(dir, 'uki'), sizeBytes: uki.length }]])
  const path = join(dir, 'esp.raw')
  await writeEsp(path, files, { ...OPTIONS, sizeBytes: 200 << 20 })
  const image = readFileSync(path)
  const read = (offset: number, sizeBytes: number) => image.subarray(offset, offset + sizeBytes)
  const fat = decodeFat(read)
  assert.equal(fat.volumeId, 0xb7c2c602)
  const found = new Map(fat.entries.filter((e) => e.type === 'file').map((e) => [e.path, Buffer.from(readFat(read, e))]))
  assert.deepEqual([...found.keys()].sort(), [...FILES.keys()])
  assert.ok(found.get('EFI/Linux/Minimal_1+3-0.efi')!.equals(uki))
  assert.equal(`${found.get('loader/loader.conf')}`, 'timeout 3\nsecure-boot-enroll force\neditor no\n')
  assert.ok(statSync(path).blocks * 512 < 6 << 20)
})

test('writeEsp() gives the same bytes each time', async (t) => {
  const dir = scratch(t)
  const sizeBytes = espSizeFor(FILES)
  for (const name of ['a', 'b']) await writeEsp(join(dir, name), FILES, { ...OPTIONS, sizeBytes })
  assert.ok(readFileSync(join(dir, 'a')).equals(readFileSync(join(dir, 'b'))))
})

test('writeEspInto() writes into a disk what writeEsp() writes to a file', async (t) => {
  const dir = scratch(t)
  const sizeBytes = espSizeFor(FILES)
  const plan = planDisk([{ type: 'esp', sizeBytes }], { seed: OPTIONS.guid, architecture: 'x86-64' })
  const options = { ...OPTIONS, sizeBytes }
  await writeEsp(join(dir, 'esp'), FILES, options)
  await writeDisk(join(dir, 'copied'), plan, [{ path: join(dir, 'esp') }])
  await writeDisk(join(dir, 'direct'), plan, [(disk, offset) => writeEspInto(disk, offset, FILES, options)])
  assert.ok(readFileSync(join(dir, 'copied')).equals(readFileSync(join(dir, 'direct'))))
})

test('writeEsp() says how large the ESP must be', async (t) => {
  const files: EspFiles = new Map([['uki', { bytes: Buffer.alloc(40 << 20), sizeBytes: 40 << 20 }]])
  await assert.rejects(writeEsp(join(scratch(t), 'esp'), files, { ...OPTIONS, sizeBytes: 36 << 20 }), (error: any) => {
    assert.match(error.message, /Cannot fit files into a FAT file system of 37748736 bytes/)
    assert.match(error.hint, /at least \d+ bytes large/)
    return true
  })
})

oracle('fsck.vfat', 'fsck.vfat finds nothing wrong with the smallest ESP for its files', async (_t, judge) => {
  const path = join(judge.dir, 'esp.raw')
  await writeEsp(path, FILES, { ...OPTIONS, sizeBytes: espSizeFor(FILES) })
  const { stdout } = await judge.run(['fsck.vfat', '-n', '-v', path])
  assert.match(stdout, /16 files, /)
  assert.equal((await judge.run(['mtype', '-i', path, '::/loader/entries.srel'])).stdout, 'type1\n')
})
