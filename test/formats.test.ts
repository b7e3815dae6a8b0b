/**
 * Every output format, and the settings that shape one, baked from a folder in mkosi's format and judged by the tools of
 * the field. All images come of one bake: a system of real packages, a lean one upon it with little but what boots, and
 * the others upon these or upon next to nothing.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, dirname, join, resolve } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { sha256 } from '../src/base/digest.ts'
import { type Designator, partitionType } from '../src/formats/dps.ts'
import { CACHE, notBaked } from './baked.ts'
import { JUDGES, type Judge, judgeIn } from './oracle.ts'

const ENTER = `import { enterNamespace } from ${JSON.stringify(resolve('src/run/namespace.ts'))}
const [, ...argv] = process.argv
process.exitCode = await enterNamespace(argv, { env: { PATH: process.env.PATH } })`

const inNamespace = (argv: readonly string[]) =>
  spawnSync(process.execPath, ['--input-type=module', '--eval', ENTER, '--', ...argv], { encoding: 'utf8' })

const SEED = '0b5e9d0c-5a4e-4f0e-9d4e-0d4f7b6c9a11'
const MACHINE_ID = '0123456789abcdef0123456789abcdef'

/** A boot loader that we did not sign. */
const BOOT_OF_OTHERS = `${JUDGES}/usr/lib/systemd/boot/efi/systemd-bootx64.efi`
const SIGNED = 'signed/usr/lib/systemd/boot/efi/systemd-bootx64.efi.signed'

type Sections = Readonly<Record<string, string>>

/** An image upon another, or upon the folder `tiny`; settings as lines. */
function image(base: string, output: string, content: string, validation = ''): string {
  const [depends, tree] = base === 'tiny' ? ['', '%D/tiny'] : [base, `%O/${base}_%v`]
  const config = `[Config]\nDependencies=${depends}\n[Output]\n${output}\n`
  return `${config}[Content]\nBaseTrees=${tree}\n${content}\n[Validation]\n${validation}\n`
}

const partition = (text: string) => `[Partition]\n${text.replaceAll(' ', '\n')}\n`
const LEAN = [
  '/usr/share/*',
  '/usr/bin/*',
  '/usr/sbin/*',
  '/usr/lib/x86_64-linux-gnu',
  '/usr/lib/udev',
  '/var/*',
  '/boot/vmlinuz*',
]
const ALL_SPLIT = 'uki,kernel,initrd,os-release,partitions,pcrs,roothash,tar,kernel-modules-initrd,repart-definitions'
const INITRD = 'Initrds=%D/prebuilt.cpio'
const SMALL_ESP = {
  '00-esp.conf': partition('Type=esp Format=vfat CopyFiles=/efi:/ CopyFiles=/boot:/ SizeMinBytes=100M SizeMaxBytes=200M'),
}
const SMALL_ROOT = { '10-root.conf': partition('Type=root Format=erofs CopyFiles=/ Minimize=best') }

const IMAGES: Sections = {
  base: `[Output]
Format=directory
[Content]
Packages=linux-image-cloud-amd64,systemd,systemd-boot-efi,kmod,tzdata,bash,dash,less,util-linux,udev,passwd,coreutils
RemovePackages=less
CleanPackageMetadata=yes
WithDocs=no
KernelModules=erofs,virtio_*,-virtio_net
RemoveFiles=/usr/share/perl*,/usr/share/l?cale,/usr/lib/x86_64-linux-gnu/perl-base
MachineId=${MACHINE_ID}
Bootable=no
`,
  lean: image('base', 'Format=directory', `Bootable=no\nRemoveFiles=${LEAN.join(',')}`),
  plain: image(
    'base',
    `Format=disk\nSplitArtifacts=${ALL_SPLIT}\nCompressOutput=zstd`,
    `Bootable=yes\n${INITRD}\nRootPassword=soup\nLocale=C.UTF-8\nLocaleMessages=en_US.UTF-8\nKeymap=us\nTimezone=Europe/Berlin\nHostname=soup\nRootShell=/usr/bin/dash\nKernelCommandLine=root=PARTUUID quiet\nKernelModulesInitrd=yes\nKernelInitrdModules=erofs`,
  ),
  verity: image(
    'lean',
    'Format=disk\nRepartDirectories=%D/verity.repart\nSplitArtifacts=uki,partitions,roothash,pcrs\nSectorSize=4096',
    `Bootable=yes\n${INITRD}\nUnifiedKernelImageFormat=%i_%v-&k-&&\nRootPassword=hashed:$6$salt$hash`,
    'SecureBoot=yes\nSignExpectedPcr=yes\nVerity=signed',
  ),
  deferred: image(
    'tiny',
    'Format=disk\nRepartDirectories=%D/deferred.repart\nCompressOutput=gz\nCompressLevel=1\nSplitArtifacts=partitions,roothash',
    'Bootable=no',
    'Verity=defer',
  ),
  entries: image(
    'lean',
    'Format=disk\nOutputSize=400M\nOutputExtension=img\nRepartDirectories=%D/small.repart',
    `Bootable=yes\nUnifiedKernelImages=none\n${INITRD}\nKernelCommandLine=quiet root=PARTUUID\nKernelModulesInitrd=yes`,
    'SecureBoot=yes\nSecureBootAutoEnroll=no',
  ),
  direct: image('lean', 'Format=disk\nRepartDirectories=%D/small.repart', `Bootable=yes\nBootloader=uki\n${INITRD}`),
  loaderless: image('lean', 'Format=disk\nRepartDirectories=%D/small.repart', `Bootable=yes\nBootloader=none\n${INITRD}`),
  others: image(
    'lean',
    'Format=disk\nRepartDirectories=%D/small.repart',
    `Bootable=yes\nBootloader=systemd-boot-signed\nUnifiedKernelImages=unsigned\n${INITRD}\nExtraTrees=%D/signed`,
  ),
  esp: image('lean', 'Format=esp', 'KernelCommandLine=debug'),
  menu: image('lean', 'Format=esp', 'Bootable=no'),
  folder: image('lean', 'Format=directory', `Bootable=yes\n${INITRD}\nKernelCommandLine=debug`),
  program: image(
    'lean',
    'Format=uki\nSplitArtifacts=uki,kernel,initrd,pcrs',
    'Splash=/usr/lib/splash.bmp\nExtraTrees=%D/splash.bmp:/usr/lib/splash.bmp\nKernelCommandLine=debug',
    'SecureBoot=yes',
  ),
  addon: image('lean', 'Format=addon\nOverlay=yes', 'KernelCommandLine=quiet\nExtraTrees=%D/added', 'SecureBoot=yes'),
  initrd: image('tiny', 'Format=cpio\nCompressOutput=xz', 'MakeInitrd=yes'),
  archive: image('tiny', 'Format=tar\nCompressOutput=gz', ''),
  container: image('tiny', 'Format=oci\nOciLabels=flavour=lobster', 'KernelCommandLine=quiet'),
  sys: image('base', 'Format=sysext\nOverlay=yes', 'ExtraTrees=%D/added'),
  conf: image('base', 'Format=confext\nOverlay=yes\nCompressOutput=xz', 'ExtraTrees=%D/added', 'Verity=hash'),
  service: image('tiny', 'Format=portable', 'ExtraTrees=%D/added', 'Verity=disabled'),
}

const SETS: Readonly<Record<string, Sections>> = {
  small: { ...SMALL_ESP, ...SMALL_ROOT },
  verity: {
    '00-esp.conf': partition('Type=esp Format=vfat CopyFiles=/efi:/ SizeMinBytes=260M'),
    '01-xbootldr.conf': partition('Type=xbootldr Format=vfat CopyFiles=/boot:/ SizeMinBytes=260M'),
    '10-root.conf': partition(
      'Type=root Format=squashfs CopyFiles=/ ExcludeFiles=/efi/ ExcludeFiles=/boot/ Verity=data VerityMatchKey=root Minimize=best SplitName=root',
    ),
    '11-hash.conf': partition('Type=root-verity Verity=hash VerityMatchKey=root Minimize=best SplitName=hash'),
    '12-signature.conf': partition('Type=root-verity-sig Verity=signature VerityMatchKey=root SplitName=sig'),
    '20-swap.conf': partition('Type=swap Format=swap SizeMinBytes=16M SizeMaxBytes=16M SplitName=-'),
    '30-home.conf': partition(
      'Type=home Format=ext4 MakeDirectories=/cook\\ /cook/pot SizeMinBytes=40M SizeMaxBytes=40M',
    ).replace('\\\n', ' '),
    '40-empty.conf': partition('Type=linux-generic Label=_empty SizeMinBytes=8M SizeMaxBytes=8M'),
    '50-own.conf': partition('Type=5f4e5f3c-2e0a-4b0e-8f58-6a1b5a3e9d01 Label=own SizeMinBytes=8M SizeMaxBytes=8M'),
  },
  deferred: {
    '10-root.conf': partition('Type=root Format=ext4 CopyFiles=/ Verity=data VerityMatchKey=root Minimize=guess SplitName=root'),
    '11-hash.conf': partition('Type=root-verity Verity=hash VerityMatchKey=root Minimize=best SplitName=hash'),
    '12-signature.conf': partition('Type=root-verity-sig Verity=signature VerityMatchKey=root'),
  },
}

const MAIN = `[Distribution]
Distribution=debian
Release=trixie
[Config]
Dependencies=${Object.keys(IMAGES).join(',')}
[Output]
ImageId=Soup
ImageVersion=7
Format=none
OutputMode=0640
Seed=${SEED}
[Content]
BaseTrees=%D/tiny
[Validation]
Checksum=yes
`

const FILES: Sections = {
  'mkosi.conf': MAIN,
  ...Object.fromEntries(Object.entries(IMAGES).map(([name, text]) => [`mkosi.images/${name}.conf`, text])),
  ...Object.fromEntries(
    Object.entries(SETS).flatMap(([set, files]) => Object.entries(files).map(([name, text]) => [`${set}.repart/${name}`, text])),
  ),
  'tiny/usr/lib/os-release': 'ID=debian\nVERSION_ID=13\n',
  'tiny/usr/bin/tool': 'tool\n',
  'added/usr/lib/added': 'more\n',
  'added/etc/added': 'more\n',
  'prebuilt.cpio': 'an initrd that was there before\n',
  'splash.bmp': 'a picture\n',
}

const skip =
  JUDGES === undefined && !process.env['REQUIRE_ORACLES'] ? 'the tools are not there; npm test prepares them' : notBaked

describe('an output', { skip }, () => {
  const top = mkdtempSync(join(tmpdir(), 'bisque-formats-'))
  const folder = join(top, 'folder')
  let judge: Judge & Disposable
  let output = ''
  const out = (name: string) => join(output, name)

  before(() => {
    judge = judgeIn()
    output = join(judge.dir, 'out')
    for (const [name, text] of Object.entries(FILES)) {
      mkdirSync(join(folder, dirname(name)), { recursive: true })
      writeFileSync(join(folder, name), text)
    }
    mkdirSync(join(folder, dirname(SIGNED)), { recursive: true })
    writeFileSync(join(folder, SIGNED), readFileSync(BOOT_OF_OTHERS))
    const { status, stderr } = inNamespace([process.execPath, 'test/formats/driver.ts', folder, output, CACHE])
    assert.equal(status, 0, stderr)
  })
  after(() => {
    inNamespace(['rm', '-rf', top, judge.dir])
  })

  const run = async (...argv: readonly string[]) => (await judge.run(argv)).stdout
  const names = () => readdirSync(output).sort()
  const kernel = () => readdirSync(out('base_7/usr/lib/modules'))[0]!
  const rootHash = (name: string) => readFileSync(out(`${name}_7.roothash`), 'utf8').trim()

  interface Partition {
    type: string
    name?: string
    uuid: string
    /** Path of its bytes. */
    path: string
  }

  /** The partitions of a disk as sfdisk reads them, each cut out into a file. */
  async function partitionsOf(path: string, sectorSize = 512): Promise<Partition[]> {
    const { partitiontable: table } = JSON.parse(await run('sfdisk', '--sector-size', String(sectorSize), '--json', path))
    const bytes = readFileSync(path)
    return table.partitions.map((one: { type: string; name?: string; uuid: string; start: number; size: number }, i: number) => {
      const cut = join(judge.dir, `${basename(path)}.${i}`)
      writeFileSync(cut, bytes.subarray(one.start * sectorSize, (one.start + one.size) * sectorSize))
      return { type: one.type.toLowerCase(), name: one.name, uuid: one.uuid.toLowerCase(), path: cut }
    })
  }

  const typeOf = (designator: Designator) => partitionType(designator, 'x86-64').guid
  const theOne = (partitions: readonly Partition[], designator: Designator) => {
    const found = partitions.filter(({ type }) => type === typeOf(designator))
    assert.equal(found.length, 1, `one ${designator} among ${partitions.map(({ type }) => type).join(' ')}`)
    return found[0]!
  }
  const filesOnFat = async (path: string) =>
    (await run('mdir', '-b', '-/', '-i', path, '::'))
      .split('\n')
      .filter((line) => line.startsWith('::/') && !line.endsWith('/'))
      .map((line) => line.slice(3))
      .sort()
  async function fromFat(path: string, name: string): Promise<string> {
    const to = join(judge.dir, `${basename(path)}-${basename(name)}`)
    await run('mcopy', '-n', '-i', path, `::/${name}`, to)
    return to
  }
  const inspect = async (path: string) => JSON.parse(await run('ukify', '--json=short', 'inspect', path))
  const isSigned = async (path: string) => {
    writeFileSync(join(judge.dir, 'db.crt'), readFileSync(join(folder, 'keys/db.crt')))
    return (await judge.run(['sbverify', '--cert', join(judge.dir, 'db.crt'), path], { allowFailure: true })).exitCode === 0
  }
  /** The kernel's own test of a root hash over data and hashes. */
  const verify = (data: string, hashes: string, hash: string) => run('veritysetup', 'verify', data, hashes, hash)
  const inExt = (path: string, command: string) => run('debugfs', '-R', command, path)

  test('has the names mkosi gives, and nothing else is there', () => {
    assert.deepEqual(names(), [
      'Soup_7.SHA256SUMS',
      'Soup_7.manifest.json',
      'addon_7.efi',
      'archive_7.tar.gz',
      'base_7',
      'conf_7.raw.xz',
      'container_7',
      'deferred_7.hash.raw.gz',
      'deferred_7.raw.gz',
      'deferred_7.root.raw.gz',
      'deferred_7.roothash',
      'direct_7.efi',
      'direct_7.initrd',
      'direct_7.raw',
      'direct_7.vmlinuz',
      'entries_7.img',
      'entries_7.initrd',
      'entries_7.vmlinuz',
      'esp_7.raw',
      'folder_7',
      'folder_7.efi',
      'folder_7.initrd',
      'folder_7.vmlinuz',
      'initrd_7.cpio.xz',
      'lean_7',
      'loaderless_7.efi',
      'loaderless_7.initrd',
      'loaderless_7.raw',
      'loaderless_7.vmlinuz',
      'menu_7.raw',
      'others_7.efi',
      'others_7.initrd',
      'others_7.raw',
      'others_7.vmlinuz',
      'plain_7.efi',
      'plain_7.esp.raw.zst',
      'plain_7.initrd',
      'plain_7.kernel-modules-initrd',
      'plain_7.osrelease',
      'plain_7.pcrs',
      'plain_7.raw.zst',
      'plain_7.repart.d',
      'plain_7.root-x86-64.raw.zst',
      'plain_7.tar.zst',
      'plain_7.vmlinuz',
      'program_7.efi',
      'program_7.initrd',
      'program_7.pcrs',
      'program_7.vmlinuz',
      'service_7.raw',
      'sys_7.raw',
      'verity_7.efi',
      'verity_7.esp.raw',
      'verity_7.hash.raw',
      'verity_7.home.raw',
      'verity_7.pcrs',
      'verity_7.raw',
      'verity_7.root.raw',
      'verity_7.roothash',
      'verity_7.sig.raw',
      'verity_7.xbootldr.raw',
    ])
  })

  test('is listed with its digest, and has the mode that is asked for', async () => {
    const listed = (await run('sh', '-c', `cd ${output} && sha256sum --check --strict Soup_7.SHA256SUMS`)).trim().split('\n')
    const files = names().filter((name) => statSync(out(name)).isFile() && !/SHA256SUMS|manifest/.test(name))
    assert.deepEqual(
      listed,
      files.map((name) => `${name}: OK`),
    )
    for (const name of files) assert.equal((statSync(out(name)).mode & 0o777).toString(8), '640', name)
  })

  test('of Format=directory is the system, less what the settings leave out', () => {
    const there = (path: string) => existsSync(out(`base_7/${path}`))
    for (const path of ['usr/lib/systemd/systemd', 'usr/bin/dash', `usr/lib/modules/${kernel()}/vmlinuz`])
      assert.ok(there(path), path)
    for (const path of ['usr/bin/less', 'var/lib/dpkg', 'usr/share/locale', 'usr/lib/x86_64-linux-gnu/perl-base'])
      assert.equal(there(path), false, path)
    const docs = readdirSync(out('base_7/usr/share/doc'), { recursive: true, encoding: 'utf8' })
    assert.deepEqual(
      docs.filter((path) => !/copyright$/.test(path) && statSync(out(`base_7/usr/share/doc/${path}`)).isFile()),
      [],
    )
    const modules = readdirSync(out(`base_7/usr/lib/modules/${kernel()}`), { recursive: true, encoding: 'utf8' })
    const has = (name: string) => modules.some((path) => path.includes(`/${name}.ko`))
    assert.deepEqual(['erofs', 'virtio_blk', 'virtio_net', 'ext4', 'btrfs'].map(has), [true, true, false, false, false])
    assert.equal(readFileSync(out('base_7/etc/machine-id'), 'utf8'), `${MACHINE_ID}\n`)
  })

  test('of Format=directory has boot loader and UKI where it is to boot, and these beside it', async () => {
    const uki = out(`folder_7/boot/EFI/Linux/${MACHINE_ID}-${kernel()}.efi`)
    assert.equal((await inspect(uki))['.cmdline'].text, 'debug')
    assert.ok(readFileSync(uki).equals(readFileSync(out('folder_7.efi'))))
    assert.ok(existsSync(out('folder_7/efi/EFI/BOOT/BOOTX64.EFI')))
    assert.equal(existsSync(out('lean_7/efi/EFI')), false)
  })

  describe('of Format=disk', () => {
    test('is an ESP and an ext4 root, which holds what settings ask for', async () => {
      await run('zstd', '-d', out('plain_7.raw.zst'), '-o', join(judge.dir, 'plain_7.raw'))
      const disk = join(judge.dir, 'plain_7.raw')
      const partitions = await partitionsOf(disk)
      assert.deepEqual(
        partitions.map(({ type }) => type),
        [typeOf('esp'), typeOf('root')],
      )
      const root = theOne(partitions, 'root')
      await run('e2fsck', '-fn', root.path)
      await run('fsck.fat', '-n', theOne(partitions, 'esp').path)
      const cat = (path: string) => inExt(root.path, `cat ${path}`)
      assert.equal(await cat('/etc/locale.conf'), 'LANG=C.UTF-8\nLC_MESSAGES=en_US.UTF-8\n')
      assert.match(await cat('/etc/vconsole.conf'), /^KEYMAP=us$/m)
      assert.equal(await cat('/etc/hostname'), 'soup\n')
      assert.match(await inExt(root.path, 'stat /etc/localtime'), /Fast link dest: ".*zoneinfo\/Europe\/Berlin"/)
      assert.match(await cat('/etc/passwd'), /^root:x:0:0:.*:\/usr\/bin\/dash$/m)
      const [, hash = '', salt = ''] = /^root:(\$6\$([^$]+)\$[^:]+):/m.exec(await cat('/etc/shadow'))!
      assert.equal((await run('openssl', 'passwd', '-6', '-salt', salt, 'soup')).trim(), hash)
      assert.match(await cat('/usr/lib/os-release'), /^IMAGE_ID="?Soup"?\nIMAGE_VERSION="?7"?$/m)
      const again = await run(
        ...['systemd-repart', '--dry-run=yes', '--json=short', '--offline=yes', `--seed=${SEED}`],
        '--definitions',
        out('plain_7.repart.d'),
        disk,
      )
      assert.deepEqual(
        JSON.parse(again).map(({ activity }: { activity: string }) => activity),
        ['unchanged', 'unchanged'],
      )
    })

    test('is split into what mkosi splits off', async () => {
      const partitions = await partitionsOf(join(judge.dir, 'plain_7.raw'))
      const uki = await inspect(out('plain_7.efi'))
      assert.equal(uki['.cmdline'].text, `root=PARTUUID=${theOne(partitions, 'root').uuid} quiet`)
      assert.equal(uki['.uname'].text, kernel())
      assert.equal(uki['.linux'].sha256, sha256(readFileSync(out('plain_7.vmlinuz'))))
      assert.equal(uki['.initrd'].sha256, sha256(readFileSync(out('plain_7.initrd'))))
      assert.equal(uki['.osrel'].sha256, sha256(readFileSync(out('plain_7.osrelease'))))
      assert.equal(await isSigned(out('plain_7.efi')), false)
      const initrd = readFileSync(out('plain_7.initrd'))
      const modules = readFileSync(out('plain_7.kernel-modules-initrd'))
      const prebuilt = Buffer.from(FILES['prebuilt.cpio']!)
      assert.ok(initrd.subarray(0, prebuilt.length).equals(prebuilt), 'the initrd begins with the one that is named')
      assert.ok(initrd.subarray(-modules.length).equals(modules), 'the initrd ends with the modules')
      writeFileSync(join(judge.dir, 'modules'), modules)
      const inside = await run('bsdtar', '-tf', join(judge.dir, 'modules'))
      assert.match(inside, /\/erofs\.ko/)
      assert.doesNotMatch(inside, /\/virtio_blk\.ko/)
      for (const [i, name] of ['plain_7.esp.raw.zst', 'plain_7.root-x86-64.raw.zst'].entries()) {
        await run('sh', '-c', `zstd -dc ${out(name)} | cmp - ${partitions[i]!.path}`)
      }
      assert.match(await run('tar', '--zstd', '-tf', out('plain_7.tar.zst')), /^\.\/usr\/lib\/os-release$/m)
      assert.match(JSON.parse(readFileSync(out('plain_7.pcrs'), 'utf8'))['enter-initrd'].sha256, /^[0-9a-f]{64}$/)
    })

    test('with a squashfs root under a signed verity is sound in each of its partitions', async () => {
      const disk = out('verity_7.raw')
      const partitions = await partitionsOf(disk, 4096)
      const [root, hashes, signature] = (['root', 'root-verity', 'root-verity-sig'] as const).map((one) =>
        theOne(partitions, one),
      )
      const hash = rootHash('verity')
      await verify(root!.path, hashes!.path, hash)
      assert.equal(`${root!.uuid}${hashes!.uuid}`.replaceAll('-', ''), hash)
      assert.match(await run('unsquashfs', '-l', root!.path), /^squashfs-root\/usr\/lib\/os-release$/m)
      assert.equal(
        await run('unsquashfs', '-cat', root!.path, 'usr/lib/credstore/passwd.hashed-password.root').catch(() => 'none'),
        'none',
      )
      const signed = JSON.parse(readFileSync(signature!.path, 'utf8').replace(/\0+$/, ''))
      assert.equal(signed.rootHash, hash)
      writeFileSync(join(judge.dir, 'p7s'), Buffer.from(signed.signature, 'base64'))
      writeFileSync(join(judge.dir, 'hash'), hash)
      writeFileSync(join(judge.dir, 'verity.crt'), readFileSync(join(folder, 'keys/verity.crt')))
      await run(
        ...'openssl smime -verify -binary -inform der -noverify -nointern -in p7s -content hash -certfile verity.crt'.split(' '),
      )
      await run('fsck.fat', '-n', theOne(partitions, 'esp').path)
      await run('e2fsck', '-fn', theOne(partitions, 'home').path)
      assert.match(await inExt(theOne(partitions, 'home').path, 'ls /cook'), /pot/)
      assert.match(await run('blkid', '-p', theOne(partitions, 'swap').path), /TYPE="swap"/)
      const empty = partitions.filter(({ name }) => name === '_empty' || name === 'own')
      for (const { path } of empty) assert.ok(readFileSync(path).every((byte) => byte === 0))
      assert.equal(empty.length, 2)
      for (const [suffix, { path }] of [
        ['root', root!],
        ['hash', hashes!],
      ] as const)
        await run('cmp', out(`verity_7.${suffix}.raw`), path)
    })

    test('has its UKI on XBOOTLDR under the name that is asked for, signed, with policies', async () => {
      const partitions = await partitionsOf(out('verity_7.raw'), 4096)
      const esp = theOne(partitions, 'esp').path
      const boot = theOne(partitions, 'xbootldr').path
      const name = `Soup_7-${kernel()}-&`
      assert.deepEqual(
        (await filesOnFat(boot)).filter((path) => path.endsWith('.efi')),
        [`EFI/Linux/${name}.efi`],
      )
      const uki = await fromFat(boot, `EFI/Linux/${name}.efi`)
      assert.ok(await isSigned(uki))
      const inspected = await inspect(uki)
      assert.match(inspected['.cmdline'].text, new RegExp(`^roothash=${rootHash('verity')}$`))
      assert.ok(inspected['.pcrsig'] && inspected['.pcrpkey'])
      assert.deepEqual(
        (await filesOnFat(esp)).filter((path) => !path.startsWith('loader/keys')),
        ['EFI/BOOT/BOOTX64.EFI', 'EFI/systemd/systemd-bootx64.efi', 'loader/loader.conf'],
      )
      assert.deepEqual((await filesOnFat(esp)).filter((path) => path.endsWith('.auth')).length, 3)
      assert.ok(await isSigned(await fromFat(esp, 'EFI/BOOT/BOOTX64.EFI')))
    })

    test('has verity without a signature where that is deferred', async () => {
      await run('sh', '-c', `gzip -dc ${out('deferred_7.raw.gz')} > deferred.raw`)
      const partitions = await partitionsOf(join(judge.dir, 'deferred.raw'))
      await verify(theOne(partitions, 'root').path, theOne(partitions, 'root-verity').path, rootHash('deferred'))
      assert.ok(readFileSync(theOne(partitions, 'root-verity-sig').path).every((byte) => byte === 0))
      await run('e2fsck', '-fn', theOne(partitions, 'root').path)
      await run('sh', '-c', `gzip -dc ${out('deferred_7.root.raw.gz')} | cmp - ${theOne(partitions, 'root').path}`)
    })

    test('without UKIs has an entry with a signed kernel, and is as large as is asked for', async () => {
      assert.equal(statSync(out('entries_7.img')).size, 400 * 2 ** 20)
      const partitions = await partitionsOf(out('entries_7.img'))
      const esp = theOne(partitions, 'esp').path
      const files = await filesOnFat(esp)
      assert.deepEqual(
        files.filter((path) => /\.efi$/i.test(path)),
        ['EFI/BOOT/BOOTX64.EFI', 'EFI/systemd/systemd-bootx64.efi'],
      )
      const entry = files.find((path) => path.startsWith('loader/entries/'))!
      assert.equal(entry, `loader/entries/${MACHINE_ID}-${kernel()}.conf`)
      const lines = readFileSync(await fromFat(esp, entry), 'utf8')
        .trim()
        .split('\n')
      const values = (key: string) => lines.filter((line) => line.startsWith(`${key} `)).map((line) => line.slice(key.length + 1))
      assert.deepEqual(values('options'), [`quiet root=PARTUUID=${theOne(partitions, 'root').uuid}`])
      for (const path of [...values('linux'), ...values('initrd')]) assert.ok(files.includes(path.slice(1)), path)
      assert.deepEqual(
        values('initrd').map((path) => basename(path)),
        ['prebuilt.cpio', 'kernel-modules.initrd'],
      )
      assert.ok(await isSigned(await fromFat(esp, values('linux')[0]!.slice(1))))
      assert.equal(
        files.some((path) => path.endsWith('.auth')),
        false,
      )
      await run('fsck.erofs', theOne(partitions, 'root').path)
    })

    test('starts as its boot loader says: the UKI itself, none, or one that others signed', async () => {
      const programs = async (name: string) => {
        const esp = theOne(await partitionsOf(out(name)), 'esp').path
        return { esp, files: (await filesOnFat(esp)).filter((path) => /\.efi$/i.test(path)) }
      }
      const direct = await programs('direct_7.raw')
      assert.deepEqual(direct.files, ['EFI/BOOT/BOOTX64.EFI'])
      assert.equal((await inspect(await fromFat(direct.esp, 'EFI/BOOT/BOOTX64.EFI')))['.uname'].text, kernel())
      assert.deepEqual((await programs('loaderless_7.raw')).files, [`EFI/Linux/${MACHINE_ID}-${kernel()}.efi`])
      const others = await programs('others_7.raw')
      assert.deepEqual(others.files, [
        'EFI/BOOT/BOOTX64.EFI',
        `EFI/Linux/${MACHINE_ID}-${kernel()}.efi`,
        'EFI/systemd/systemd-bootx64.efi',
      ])
      assert.ok(readFileSync(await fromFat(others.esp, 'EFI/BOOT/BOOTX64.EFI')).equals(readFileSync(BOOT_OF_OTHERS)))
    })
  })

  test('of Format=esp is an ESP alone: with the whole tree in a UKI, or with systemd-boot', async () => {
    const menu = await partitionsOf(out('menu_7.raw'))
    assert.deepEqual(
      menu.map(({ type }) => type),
      [typeOf('esp')],
    )
    assert.deepEqual(
      (await filesOnFat(menu[0]!.path)).filter((path) => /\.efi$/i.test(path)),
      ['EFI/BOOT/BOOTX64.EFI', 'EFI/systemd/systemd-bootx64.efi'],
    )
    const esp = theOne(await partitionsOf(out('esp_7.raw')), 'esp').path
    await run('fsck.fat', '-n', esp)
    const name = (await filesOnFat(esp)).find((path) => path.startsWith('EFI/Linux/'))!
    const uki = await fromFat(esp, name)
    assert.equal((await inspect(uki))['.cmdline'].text, 'debug')
    assert.match(await filesInInitrd(uki), /^usr\/lib\/os-release$/m)
  })

  /** What is in the initrd of a program, by bsdtar. */
  async function filesInInitrd(path: string): Promise<string> {
    await run('objcopy', '-O', 'binary', '--only-section=.initrd', path, join(judge.dir, 'section'))
    return run('bsdtar', '-tf', join(judge.dir, 'section'))
  }

  test('of Format=uki is a signed program with the tree as its initrd', async () => {
    const path = out('program_7.efi')
    const uki = await inspect(path)
    assert.equal(uki['.cmdline'].text, 'debug')
    assert.equal(uki['.splash'].sha256, sha256(Buffer.from(FILES['splash.bmp']!)))
    assert.equal(uki['.linux'].sha256, sha256(readFileSync(out('program_7.vmlinuz'))))
    assert.ok(await isSigned(path))
    assert.match(await filesInInitrd(path), /^usr\/lib\/splash\.bmp$/m)
  })

  test('of Format=addon is a signed program with the difference to its base trees', async () => {
    const addon = await inspect(out('addon_7.efi'))
    assert.equal(addon['.cmdline'].text, 'quiet')
    assert.equal(addon['.linux'], undefined)
    assert.ok(await isSigned(out('addon_7.efi')))
    const files = await filesInInitrd(out('addon_7.efi'))
    assert.match(files, /^usr\/lib\/added$/m)
    assert.doesNotMatch(files, /os-release/)
  })

  test('that is an archive is read by others', async () => {
    const list = await run('sh', '-c', `xz -dc ${out('initrd_7.cpio.xz')} | cpio -t --quiet`)
    assert.match(list, /^usr\/bin\/tool$/m)
    assert.match(list, /^etc\/initrd-release$/m)
    assert.match(await run('tar', '-tzf', out('archive_7.tar.gz')), /^\.\/usr\/bin\/tool$/m)
    const config = JSON.parse(await run('skopeo', 'inspect', '--config', `oci:${out('container_7')}:Soup`))
    assert.deepEqual(config.config, { Cmd: ['/sbin/init', 'quiet'], Labels: { flavour: 'lobster' } })
    await run('skopeo', '--insecure-policy', 'copy', `oci:${out('container_7')}:Soup`, `dir:${join(judge.dir, 'copy')}`)
  })

  test('that extends another ships the difference alone, protected as Verity= says', async () => {
    await run('sh', '-c', `xz -dc ${out('conf_7.raw.xz')} > conf_7.raw`)
    const roles = async (path: string) => (await partitionsOf(path)).map(({ type }) => type)
    const conf = join(judge.dir, 'conf_7.raw')
    assert.deepEqual(await roles(out('sys_7.raw')), [typeOf('root'), typeOf('root-verity'), typeOf('root-verity-sig')])
    assert.deepEqual(await roles(conf), [typeOf('root'), typeOf('root-verity')])
    assert.deepEqual(await roles(out('service_7.raw')), [typeOf('root')])
    const policies = [
      ['sys', out('sys_7.raw'), 'root=signed'],
      ['conf', conf, 'root=verity'],
      ['service', out('service_7.raw'), 'root=unprotected'],
    ]
    for (const [, path, policy] of policies) await run('systemd-dissect', '--validate', `--image-policy=${policy}`, path!)
    const listed = async (path: string) => {
      const root = theOne(await partitionsOf(path), 'root').path
      await run('fsck.erofs', `--extract=${path.replace(/.*\//, `${judge.dir}/`)}.files`, '--no-preserve', root)
      const found = readdirSync(`${judge.dir}/${basename(path)}.files`, { recursive: true, withFileTypes: true })
      return found
        .filter((one) => one.isFile())
        .map((one) => join(one.parentPath, one.name).split('.files/')[1]!)
        .sort()
    }
    assert.deepEqual(await listed(out('sys_7.raw')), ['usr/lib/added', 'usr/lib/extension-release.d/extension-release.sys_7'])
    assert.deepEqual(await listed(conf), ['etc/added', 'etc/extension-release.d/extension-release.conf_7'])
    assert.ok((await listed(out('service_7.raw'))).includes('usr/bin/tool'))
  })
})
