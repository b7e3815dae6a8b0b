import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { testKeys } from '../../test/keys.ts'
import { oracle } from '../../test/oracle.ts'
import { tinyPe } from '../../test/tiny-pe.ts'
import { checkAuthenticode } from '../formats/authenticode.ts'
import { madeDirectory, madeFile, readContent } from '../tree/content.ts'
import { type Inode, type Tree, treeOf } from '../tree/tree.ts'
import { prebuiltUki, type Type1Input, type1Files, ukiFiles, ukiPath } from './boot-entries.ts'
import { type BootLoaderInput, bootLoaderFiles, fallbackPath, stubPath, withFiles } from './boot-loader.ts'

const { signers } = await testKeys()
const PROGRAMS = 'usr/lib/systemd/boot/efi'
const INPUT: BootLoaderInput = { bootloader: 'systemd-boot', required: true, epoch: 0 }

const treeWith = (files: Readonly<Record<string, string | Uint8Array>>): Tree =>
  treeOf(
    Object.entries(files).map(([path, content]): [string, Inode] => [path, madeFile(content, 0)]),
    madeDirectory(0),
  )

const SYSTEM = treeWith({
  [`${PROGRAMS}/systemd-bootx64.efi`]: tinyPe(),
  [`${PROGRAMS}/linuxx64.efi.stub`]: tinyPe(),
  'usr/lib/os-release': 'ID=acme\n',
})

const bytesAt = async (files: ReadonlyMap<string, Inode>, path: string): Promise<Buffer> => {
  const inode = files.get(path)
  assert.equal(inode?.type, 'file', path)
  return Buffer.from(await readContent((inode as Inode & { type: 'file' }).content))
}

test('bootLoaderFiles() is what bootctl installs into an image, signed', async () => {
  const keys = { PK: Buffer.from('pk'), KEK: Buffer.from('kek'), db: Buffer.from('db') }
  const files = await bootLoaderFiles(SYSTEM, { ...INPUT, signer: signers.db, keys })
  assert.deepEqual(
    [...files].filter(([, { type }]) => type === 'file').map(([path]) => path),
    [
      'boot/loader/entries.srel',
      'efi/EFI/BOOT/BOOTX64.EFI',
      'efi/EFI/systemd/systemd-bootx64.efi',
      'efi/loader/keys/auto/KEK.auth',
      'efi/loader/keys/auto/PK.auth',
      'efi/loader/keys/auto/db.auth',
      'efi/loader/loader.conf',
      'etc/kernel/entry-token',
      `${PROGRAMS}/systemd-bootx64.efi.signed`,
    ],
  )
  assert.ok(files.has('boot/EFI/Linux') && files.has('boot/loader/entries'))
  const signed = await bytesAt(files, 'efi/EFI/BOOT/BOOTX64.EFI')
  assert.deepEqual(checkAuthenticode(signed)[0]!.problems, [])
  assert.ok(signed.equals(await bytesAt(files, `${PROGRAMS}/systemd-bootx64.efi.signed`)))
  assert.equal(`${await bytesAt(files, 'etc/kernel/entry-token')}`, 'acme\n')
  assert.equal(`${await bytesAt(files, 'efi/loader/loader.conf')}`, '#timeout 3\n#console-mode keep\n')
})

test('bootLoaderFiles() leaves what a recipe brings, and everything unsigned without a signer', async () => {
  const own = treeWith({ 'efi/loader/loader.conf': 'timeout 0\n', 'etc/kernel/entry-token': 'mine\n' })
  const files = await bootLoaderFiles(new Map([...SYSTEM, ...own]), INPUT)
  assert.ok(!files.has('efi/loader/loader.conf') && !files.has('etc/kernel/entry-token'))
  assert.ok(!files.has(`${PROGRAMS}/systemd-bootx64.efi.signed`))
  assert.ok((await bytesAt(files, 'efi/EFI/BOOT/BOOTX64.EFI')).equals(tinyPe()))
  assert.ok(!(await bootLoaderFiles(SYSTEM, { ...INPUT, keepsToken: false })).has('etc/kernel/entry-token'))
})

test("bootLoaderFiles() takes another's signed program before the plain one", async () => {
  const theirs = tinyPe({ text: Buffer.from('theirs') })
  const tree = withFiles(SYSTEM, treeWith({ [`${PROGRAMS}/systemd-bootx64.efi.signed`]: theirs }))
  const files = await bootLoaderFiles(tree, { ...INPUT, bootloader: 'systemd-boot-signed', signer: signers.db })
  assert.ok((await bytesAt(files, 'efi/EFI/systemd/systemd-bootx64.efi')).equals(theirs))
  assert.ok(!files.has(`${PROGRAMS}/systemd-bootx64.efi.signed`))
})

test('bootLoaderFiles() is nothing without systemd-boot, or refuses that', async () => {
  const tree = treeWith({ 'usr/lib/os-release': 'ID=acme\n' })
  assert.equal((await bootLoaderFiles(tree, { ...INPUT, required: false })).size, 0)
  assert.equal((await bootLoaderFiles(SYSTEM, { ...INPUT, bootloader: 'uki' })).size, 0)
  await assert.rejects(bootLoaderFiles(tree, INPUT), /there is no systemd-boot in \/usr\/lib\/systemd\/boot\/efi/)
  const signed: BootLoaderInput = { ...INPUT, bootloader: 'systemd-boot-signed' }
  await assert.rejects(bootLoaderFiles(SYSTEM, signed), /there is no signed systemd-boot/)
})

test('ukiFiles() puts a UKI where the boot menu or firmware looks for it', () => {
  assert.equal(ukiPath('systemd-boot', 'x86-64', 'a-1'), 'boot/EFI/Linux/a-1.efi')
  assert.equal(ukiPath('uki', 'arm64', 'a-1'), 'efi/EFI/BOOT/BOOTAA64.EFI')
  assert.equal(fallbackPath('x86-64'), 'efi/EFI/BOOT/BOOTX64.EFI')
  assert.equal(stubPath('x86-64', 'addon'), `${PROGRAMS}/addonx64.efi.stub`)
  const files = ukiFiles(SYSTEM, ukiPath('none', 'x86-64', 'a-1'), Buffer.from('uki'), 0)
  assert.deepEqual([...files.keys()], ['boot', 'boot/EFI', 'boot/EFI/Linux', 'boot/EFI/Linux/a-1.efi'])
})

test('prebuiltUki() finds the UKI of a distribution', () => {
  const tree = treeWith({ 'usr/lib/modules/6.1/vmlinuz-virt.efi': 'uki' })
  assert.equal(prebuiltUki(tree, '6.1'), tree.get('usr/lib/modules/6.1/vmlinuz-virt.efi'))
  assert.throws(() => prebuiltUki(tree, '6.2'), /there is none in \/usr\/lib\/modules\/6.2/)
})

test('type1Files() is a kernel, its initrds and an entry that names them in order', async () => {
  const input: Type1Input = {
    token: 'acme',
    kernel: '6.1',
    vmlinuz: Buffer.from('kernel'),
    initrds: [
      { name: 'microcode.initrd', bytes: Buffer.from('u') },
      { name: 'initrd.cpio.zst', bytes: Buffer.from('i') },
    ],
    modules: Buffer.from('m'),
    cmdline: ['root=PARTUUID=r', 'quiet'],
    epoch: 0,
  }
  const files = type1Files(SYSTEM, input)
  assert.equal(
    `${await bytesAt(files, 'boot/loader/entries/acme-6.1.conf')}`,
    'title acme 6.1\nversion 6.1\nlinux /acme/6.1/vmlinuz\noptions root=PARTUUID=r quiet\n' +
      'initrd /acme/microcode.initrd\ninitrd /acme/initrd.cpio.zst\ninitrd /acme/6.1/kernel-modules.initrd\n',
  )
  for (const path of ['6.1/vmlinuz', 'microcode.initrd', 'initrd.cpio.zst', '6.1/kernel-modules.initrd'])
    assert.ok(files.has(`boot/acme/${path}`), path)
  const twice = { ...input, initrds: [...input.initrds, ...input.initrds] }
  assert.throws(() => type1Files(SYSTEM, twice), /two initrds are called microcode.initrd/)
})

oracle('sbverify', 'sbverify verifies the systemd-boot of a distribution as we install it', async (_t, judge) => {
  const program = await judge.run(['base64', '/usr/lib/systemd/boot/efi/systemd-bootx64.efi'])
  const tree = withFiles(SYSTEM, treeWith({ [`${PROGRAMS}/systemd-bootx64.efi`]: Buffer.from(program.stdout, 'base64') }))
  const files = await bootLoaderFiles(tree, { ...INPUT, signer: signers.db })
  writeFileSync(join(judge.dir, 'BOOTX64.EFI'), await bytesAt(files, 'efi/EFI/BOOT/BOOTX64.EFI'))
  writeFileSync(join(judge.dir, 'db.pem'), pem(signers.db.certificate))
  await judge.run(['sbverify', '--cert', 'db.pem', 'BOOTX64.EFI'])
})

const pem = (der: Uint8Array): string =>
  `-----BEGIN CERTIFICATE-----\n${Buffer.from(der).toString('base64').replace(/.{64}/g, '$&\n')}\n-----END CERTIFICATE-----\n`
