import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { oracle } from '../../test/oracle.ts'
import type { Designator } from '../formats/dps.ts'
import { decodeFat, readFat } from '../formats/fat.ts'
import { decodeGpt, encodeGpt } from '../formats/gpt.ts'
import { verityPartitionUuids } from '../formats/verity.ts'
import { gptOf, type Partition, planDisk, writeDisk } from './disk.ts'
import { fileSystemGuid } from './repart/guid.ts'

const MIB = 1 << 20
const OPTIONS = { seed: '11111111-2222-3333-4444-555566667777', architecture: 'x86-64' } as const
const ROOT_HASH = '0a64d6a3'.repeat(4) + '5f00c0de'.repeat(4)
const { data, hash } = verityPartitionUuids(ROOT_HASH)
const TRIO: Partition[] = [
  { type: 'esp', label: 'esp', sizeBytes: 40 * MIB },
  { type: 'usr-verity-sig', label: 'Minimal_1_verity_sig', sizeBytes: 16384 },
  { type: 'usr-verity', label: 'Minimal_1_verity', sizeBytes: 100_000, guid: hash },
  { type: 'usr', label: 'Minimal_1', sizeBytes: 3 * MIB + 1, guid: data, readOnly: true },
]

function scratch(t: TestContext): string {
  const dir = mkdtempSync(join(tmpdir(), 'bisque-disk-'))
  t.after(() => rmSync(dir, { recursive: true, force: true }))
  return dir
}

test('planDisk() places partitions one after the other from 1 MiB on, in whole grains', () => {
  const plan = planDisk(TRIO, OPTIONS)
  assert.deepEqual(
    plan.partitions.map((p) => [p.typeName, p.offset, p.sizeBytes]),
    [
      ['esp', MIB, 40 * MIB],
      ['usr-x86-64-verity-sig', 41 * MIB, 16384],
      ['usr-x86-64-verity', 41 * MIB + 16384, 102_400],
      ['usr-x86-64', 41 * MIB + 118_784, 3 * MIB + 4096],
    ],
  )
  assert.equal(plan.partitions[3]!.guid, '0a64d6a3-0a64-d6a3-0a64-d6a30a64d6a3')
  assert.deepEqual(planDisk(TRIO, OPTIONS), plan)
})

test('planDisk() refuses a partition without size and a grain that is no power of two', () => {
  assert.throws(() => planDisk([{ type: 'esp', sizeBytes: 0 }], OPTIONS), /Cannot place partition esp: its size is 0/)
  assert.throws(() => planDisk([], { ...OPTIONS, grain: 5000 }), /Cannot align partitions to 5000/)
})

test('writeDisk() puts each source at its place and keeps holes', async (t) => {
  const dir = scratch(t)
  const usr = Buffer.alloc(3 * MIB + 1)
  usr.write('at the start')
  usr.write('!', 3 * MIB)
  writeFileSync(join(dir, 'usr.raw'), usr)
  const plan = planDisk(TRIO, OPTIONS)
  const path = join(dir, 'disk.raw')
  await writeDisk(path, plan, [undefined, { bytes: Buffer.from('signature') }, undefined, { path: join(dir, 'usr.raw') }])
  const disk = readFileSync(path)
  assert.equal(disk.length, plan.sizeBytes)
  assert.equal(disk.toString('latin1', 41 * MIB, 41 * MIB + 9), 'signature')
  assert.ok(disk.subarray(plan.partitions[3]!.offset).subarray(0, usr.length).equals(usr))
  assert.ok(statSync(path).blocks * 512 < MIB, 'zeros take no space')
  await assert.rejects(writeDisk(path, plan, [undefined, undefined, undefined, undefined]), /EEXIST/)
})

test('writeDisk() refuses a source larger than its partition', async (t) => {
  const plan = planDisk([{ type: 'usr-verity-sig', sizeBytes: 16384 }], OPTIONS)
  await assert.rejects(
    writeDisk(join(scratch(t), 'disk.raw'), plan, [{ bytes: Buffer.alloc(16385) }]),
    /Cannot write partition usr-x86-64-verity-sig: it has 16385 bytes, there is room for 16384/,
  )
})

oracle('systemd-repart', 'planDisk() writes the table systemd-repart writes, byte for byte', async (_t, judge) => {
  const types: Designator[] = ['esp', 'xbootldr', 'root', 'usr', 'home', 'srv', 'var', 'tmp', 'linux-generic', 'usr', 'usr']
  mkdirSync(join(judge.dir, 'defs'))
  for (const [i, type] of types.entries()) {
    const flags = i === 2 ? 'ReadOnly=yes\nNoAuto=yes\n' : ''
    const size = `SizeMinBytes=${i + 4}M\nSizeMaxBytes=${i + 4}M\n`
    writeFileSync(join(judge.dir, `defs/${10 + i}.conf`), `[Partition]\nType=${type}\n${size}${flags}`)
  }
  const partitions = types.map((type, i) => ({
    type,
    sizeBytes: (i + 4) * MIB,
    ...(i === 2 ? { readOnly: true, noAuto: true } : {}),
  }))
  for (const sectorSize of [512, 4096] as const) {
    const plan = planDisk(partitions, { ...OPTIONS, sectorSize })
    const path = join(judge.dir, `disk${sectorSize}.raw`)
    const how = ['--empty=create', '--offline=yes', '--dry-run=no', `--sector-size=${sectorSize}`, `--size=${plan.sizeBytes}`]
    await judge.run(['systemd-repart', ...how, `--seed=${OPTIONS.seed}`, `--definitions=${judge.dir}/defs`, path])
    const theirs = readFileSync(path)
    const ours = encodeGpt(gptOf(plan))
    assert.ok(theirs.subarray(0, ours.primary.length).equals(ours.primary), `primary, sectors of ${sectorSize}`)
    assert.ok(theirs.subarray(-ours.backup.length).equals(ours.backup), `backup, sectors of ${sectorSize}`)
  }
})

oracle('systemd-repart', 'sgdisk, systemd-repart and sfdisk read the disk we wrote', async (_t, judge) => {
  const plan = planDisk(TRIO, OPTIONS)
  const path = join(judge.dir, 'disk.raw')
  await writeDisk(path, plan, [undefined, undefined, undefined, undefined])
  assert.match((await judge.run(['sgdisk', '--verify', path])).stdout, /No problems found/)

  mkdirSync(join(judge.dir, 'defs'))
  TRIO.forEach(({ type }, i) => writeFileSync(join(judge.dir, `defs/${i}.conf`), `[Partition]\nType=${type}\nSizeMinBytes=4K\n`))
  const how = ['--dry-run=yes', '--json=short', '--offline=yes', `--definitions=${judge.dir}/defs`]
  const rows = JSON.parse((await judge.run(['systemd-repart', ...how, path])).stdout)
  assert.deepEqual(
    rows.map((r: any) => [r.type, r.label, r.uuid, r.offset, r.raw_size, r.activity]),
    plan.partitions.map((p) => [p.typeName, p.label, p.guid, p.offset, p.sizeBytes, 'unchanged']),
  )

  const { stdout } = await judge.run(['sfdisk', '--json', path])
  assert.equal(JSON.parse(stdout).partitiontable.partitions[3].attrs, 'GUID:60')
})

oracle('systemd-repart', 'fileSystemGuid() is the one systemd-repart gives, and its ESP can be read', async (_t, judge) => {
  mkdirSync(join(judge.dir, 'defs'))
  mkdirSync(join(judge.dir, 'EFI'))
  writeFileSync(join(judge.dir, 'EFI/file'), 'content')
  const definition = `[Partition]\nType=esp\nFormat=vfat\nCopyFiles=${judge.dir}/EFI:/EFI\nSizeMinBytes=300M\nSizeMaxBytes=300M\n`
  writeFileSync(join(judge.dir, 'defs/10.conf'), definition)
  const path = join(judge.dir, 'disk.raw')
  const how = ['--empty=create', '--offline=yes', '--dry-run=no', '--size=auto', `--seed=${OPTIONS.seed}`]
  await judge.run(['systemd-repart', ...how, `--definitions=${judge.dir}/defs`, path])
  const disk = readFileSync(path)
  const gpt = decodeGpt((offset, sizeBytes) => disk.subarray(offset, offset + sizeBytes))
  const esp = disk.subarray(gpt.partitions[0]!.firstLba * gpt.sectorSize)
  const read = (offset: number, sizeBytes: number) => esp.subarray(offset, offset + sizeBytes)
  const fat = decodeFat(read)
  assert.equal(fat.volumeId.toString(16).padStart(8, '0'), fileSystemGuid(gpt.partitions[0]!.guid).slice(0, 8))
  assert.equal(Buffer.from(readFat(read, fat.entries.find((e) => e.path === 'EFI/file')!)).toString(), 'content')
})
