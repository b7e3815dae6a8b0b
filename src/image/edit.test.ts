import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { oracle } from '../../test/oracle.ts'
import { planDisk, writeDisk } from './disk.ts'
import { copyImage, editedCopy, openImage } from './edit.ts'
import { writeEspInto } from './esp.ts'

const SEED = '5eed5eed-5eed-4eed-8eed-5eed5eed5eed'
const OTHER = '00000000-1111-4222-8333-444444444444'
const ESP_BYTES = 40 << 20
const USR = randomBytes(8192)

const folder = mkdtempSync(join(tmpdir(), 'bisque-edit-'))
after(() => rmSync(folder, { recursive: true, force: true }))
const good = join(folder, 'good.raw')
await make(good)

async function make(path: string) {
  const files = new Map([
    ['EFI/BOOT/BOOTX64.EFI', { bytes: Buffer.from('a loader'), sizeBytes: 8 }],
    ['loader/loader.conf', { bytes: Buffer.from('timeout 0\n'), sizeBytes: 10 }],
    ['loader/entries/', { bytes: Buffer.alloc(0), sizeBytes: 0 }],
  ])
  const plan = planDisk(
    [
      { type: 'esp', sizeBytes: ESP_BYTES },
      { type: 'usr', label: 'Tiny_1', sizeBytes: USR.length, readOnly: true },
    ],
    { seed: SEED, architecture: 'x86-64' },
  )
  const esp = (disk: Parameters<typeof writeEspInto>[0], at: number) =>
    writeEspInto(disk, at, files, { sizeBytes: ESP_BYTES, label: 'ESP', guid: SEED, epoch: 1_700_000_000 })
  await writeDisk(path, plan, [esp, { bytes: USR }])
}

const copyOf = async (name: string): Promise<string> => {
  const path = join(folder, name)
  await copyImage(good, path)
  return path
}

test('copyImage() gives the same bytes, without the holes', async () => {
  const path = await copyOf('copy.raw')
  assert.ok(readFileSync(path).equals(readFileSync(good)))
  assert.ok(statSync(path).blocks * 512 < 8 << 20)
  await assert.rejects(copyImage(good, path), { code: 'usage', message: /is there already/ })
  await assert.rejects(copyImage(join(folder, 'none'), join(folder, 'x')), { code: 'missing' })
})

test('EditedImage.flipBit() changes one bit of the copy and none of the original', async () => {
  const before = readFileSync(good)
  const path = join(folder, 'flipped.raw')
  await editedCopy(good, path, (image) => image.flipBit(image.partition('usr'), 4097, 3))
  const [a, b] = [readFileSync(good), readFileSync(path)]
  assert.ok(a.equals(before))
  const at = a.findIndex((byte, i) => byte !== b[i])
  assert.equal(a[at]! ^ b[at]!, 8)
  b[at]! ^= 8
  assert.ok(a.equals(b))
})

test('EditedImage.changeEsp() replaces, adds and removes files, and keeps the others and the table', async () => {
  using image = openImage(await copyOf('esp.raw'))
  const partitions = image.partitions
  image.changeEsp({
    'efi/boot/bootx64.efi': Buffer.from('another loader'),
    'loader/loader.conf': undefined,
    'EFI/Linux/big.efi': Buffer.alloc(20 << 20, 7),
    'loader/credentials/x.cred': Buffer.alloc(0),
  })
  assert.deepEqual(image.partitions, partitions)
  const files = new Map([...image.espFiles()].sort())
  assert.deepEqual(
    files,
    new Map([
      ['EFI/BOOT/BOOTX64.EFI', 14],
      ['EFI/Linux/big.efi', 20 << 20],
      ['loader/credentials/x.cred', 0],
    ]),
  )
  assert.equal(Buffer.from(image.readEsp('EFI/BOOT/BOOTX64.EFI')).toString(), 'another loader')
  assert.ok(image.readEsp('EFI/LINUX/BIG.EFI').every((byte) => byte === 7))
  assert.deepEqual(Buffer.from(image.read(image.partition('usr'))), USR)
})

test('EditedImage.addPartition() grows the disk and leaves what was there', async () => {
  const path = await copyOf('grown.raw')
  const size = statSync(path).size
  const bytes = randomBytes(3 << 20)
  {
    using image = openImage(path)
    const made = image.addPartition({ type: 'usr', label: 'Tiny_2', guid: OTHER, bytes })
    assert.equal(made.number, 3)
    image.changePartition(made, { label: 'Tiny_3' })
  }
  using image = openImage(path)
  assert.ok(image.sizeBytes > size)
  assert.deepEqual(Buffer.from(image.read(image.partition('usr', 'Tiny_3'))), bytes)
  assert.deepEqual(Buffer.from(image.read(image.partition('usr', 'Tiny_1'))), USR)
  image.removePartition(image.partition('usr', OTHER))
  assert.equal(image.partitions.length, 2)
})

test('EditedImage says what is not there, and writes beyond no end', async () => {
  using image = openImage(await copyOf('refusals.raw'))
  assert.throws(() => image.partition('usr-verity'), { code: 'missing', message: /0 usr-verity partitions, one wanted/ })
  assert.throws(() => image.write(image.partition('usr'), 8190, Buffer.alloc(3)), { code: 'usage' })
  assert.throws(() => image.flipBit(image.partition('usr'), 1 << 30), { code: 'usage' })
  assert.throws(() => image.readEsp('EFI/none'), { code: 'missing' })
  assert.throws(() => image.changeEsp({ 'EFI/none': undefined }), { code: 'missing' })
  assert.throws(() => image.changeEsp({ 'EFI/huge': Buffer.alloc(50 << 20) }), { code: 'usage', message: /Cannot fit files/ })
  assert.equal(image.espFiles().size, 2)
})

oracle('sfdisk', 'reads the table EditedImage wrote, and fsck.vfat its ESP', async (_t, judge) => {
  const path = join(judge.dir, 'edited.raw')
  await editedCopy(good, path, (image) => {
    image.addPartition({ type: 'usr-verity', label: 'Tiny_2_verity', guid: OTHER, bytes: Buffer.alloc(4096, 1) })
    image.grow(200 << 20)
    image.changeEsp({ 'EFI/Linux/a_1.efi': Buffer.alloc(100_000, 1) })
  })
  const verified = await judge.run(['sfdisk', '--verify', path])
  assert.match(verified.stdout + verified.stderr, /No errors detected/)
  using image = openImage(path)
  assert.equal(image.sizeBytes, 200 << 20)
  const { offset } = image.partition('esp')
  const listed = await judge.run(['mdir', '-/', '-b', '-i', `${path}@@${offset}`])
  assert.match(listed.stdout, /EFI\/Linux\/a_1\.efi/)
  await judge.run(['dd', `if=${path}`, 'of=esp.raw', 'bs=1M', 'iflag=skip_bytes', `skip=${offset}`, `count=${ESP_BYTES >> 20}`])
  await judge.run(['fsck.vfat', '-n', '-v', 'esp.raw'])
})
