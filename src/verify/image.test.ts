import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { closeSync, mkdtempSync, openSync, readFileSync, readSync, rmSync, statSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { baked, notBaked } from '../../test/baked.ts'
import { Fault } from '../base/fault.ts'
import { decodeFat } from '../formats/fat.ts'
import { decodeGpt } from '../formats/gpt.ts'
import { decodePe } from '../formats/pe.ts'
import { checkImage, verifyImage } from './image.ts'
import { FULL_CHAIN } from './trust.ts'

const der = (role: string) =>
  Buffer.from(readFileSync(`examples/minimal/keys/${role}.crt`, 'utf8').replace(/-----[^-]+-----|\s/g, ''), 'base64')
const trusted = () => ({ db: [der('db')], verity: [der('verity')], pcr: [der('pcr')] })
/** The chain alone, as a build judges it: holes are found in one go, and each of their tests by itself. */
const chain = () => ({ ...trusted(), chain: FULL_CHAIN })

test('checkImage() finds every link of the baked image sound', { skip: notBaked }, async () => {
  const links = await checkImage(baked('.raw'), trusted())
  assert.deepEqual(
    links.filter(({ ok }) => !ok),
    [],
  )
  assert.ok(links.length >= 12, links.map(({ name }) => name).join(', '))
})

test('checkImage() names the link that another certificate breaks', { skip: notBaked }, async () => {
  for (const [role, link] of [
    ['db', /^EFI program/],
    ['verity', /^root hash signature/],
    ['pcr', /^PCR policies/],
  ] as const) {
    const links = await checkImage(baked('.raw'), { ...chain(), [role]: [der('kek')] })
    assert.ok(
      links.some(({ name, ok }) => !ok && link.test(name)),
      role,
    )
  }
})

test('checkImage() names the link that one changed byte breaks', { skip: notBaked }, async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'bisque-verify-'))
  t.after(() => rmSync(dir, { recursive: true, force: true }))
  const path = join(dir, 'disk.raw')
  execFileSync('cp', ['--sparse=always', '--reflink=auto', baked('.raw'), path])
  const fd = openSync(path, 'r+')
  t.after(() => closeSync(fd))
  const read = (offset: number, sizeBytes: number) => {
    const bytes = Buffer.alloc(sizeBytes)
    return bytes.subarray(0, readSync(fd, bytes, 0, sizeBytes, offset))
  }
  const size = statSync(path).size
  const [esp, signature, tree, usr] = decodeGpt(read).partitions.map(({ firstLba }) => firstLba * 512) as [
    number,
    number,
    number,
    number,
  ]
  const { entries } = decodeFat((offset, sizeBytes) => read(esp + offset, sizeBytes))
  const file = (name: string) => entries.find((entry) => entry.path.endsWith(name))!
  const at = (name: string) => esp + file(name).extents[0]!.offset
  const uki = read(at('x86-64.efi'), file('x86-64.efi').sizeBytes)
  const section = (name: string) => at('x86-64.efi') + decodePe(uki).sections.find((s) => s.name === name)!.pointerToRawData
  const faults: [string, number, RegExp][] = [
    ['primary table', 512 + 60, /^partition table$/],
    ['backup table', size - 512 + 60, /^partition table$/],
    ['FAT', esp + 510, /^ESP$/],
    ['fallback loader', at('BOOTX64.EFI') + 5000, /^EFI program EFI\/BOOT/],
    ['systemd-boot', at('systemd-bootx64.efi') + 5000, /^EFI program EFI\/systemd/],
    ['kernel', section('.linux') + 9000, /^PCR policies/],
    ['initrd', section('.initrd') + 9000, /^EFI program EFI\/Linux/],
    ['usrhash', section('.cmdline') + 8, /^(usr partitions|UKI)/],
    ['.pcrpkey', section('.pcrpkey') + 60, /^PCR policies/],
    ['.pcrsig', section('.pcrsig') + 1, /^PCR policies/],
    ['root hash signature', signature + 14, /^root hash signature$/],
    ['verity superblock', tree, /^verity superblock$/],
    ['hash tree', tree + 4096, /^hash tree$/],
    ['EROFS superblock', usr + 1024, /^usr file system$/],
    ['data of /usr', usr + 90_000_000, /^hash tree$/],
    ['enrolment', at('db.auth') + 700, /^enrolment/],
  ]
  for (const [what, offset, link] of faults) {
    const before = Buffer.from(read(offset, 1))
    writeSync(fd, Uint8Array.of(before[0]! ^ 1), 0, 1, offset)
    const links = await checkImage(path, chain())
    const broken = links.filter(({ ok }) => !ok).map(({ name }) => name)
    assert.ok(
      broken.some((name) => link.test(name)),
      `${what}: ${broken.join(', ')}`,
    )
    writeSync(fd, before, 0, 1, offset)
  }
  assert.ok((await checkImage(path, chain())).every(({ ok }) => ok))
})

test('verifyImage() throws one Fault that lists what is wrong, also for what is no disk', async () => {
  await assert.rejects(verifyImage('package.json', trusted()), (error) => {
    assert.ok(error instanceof Fault && error.code === 'integrity')
    assert.match(error.message, /partition table: .*\n {2}ESP: not checked/)
    return true
  })
})
