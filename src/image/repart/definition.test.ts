import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import fc from 'fast-check'
import { oracle } from '../../../test/oracle.ts'
import { Fault } from '../../base/fault.ts'
import { partitionTypeNamed } from '../../formats/dps.ts'
import { type Definition, loadDefinitions, parseDefinitions } from './definition.ts'
import { SETTINGS } from './settings.ts'
import { specifiersOf } from './specifiers.ts'

const OS_RELEASE = 'ID=debian\nIMAGE_ID="Particle"\nIMAGE_VERSION=7\nVERSION_ID=\'13\'\n'
const OPTIONS = { architecture: 'x86-64', specifiers: specifiersOf(OS_RELEASE, 'x86-64') } as const

/** Definitions 10.conf, 11.conf … from their lines below [Partition]. */
const parse = (...texts: string[]): Definition[] =>
  parseDefinitions(
    texts.map((text, i) => ({ file: `${10 + i}.conf`, text: `[Partition]\n${text}\n` })),
    OPTIONS,
  )
const one = (text: string): Definition => parse(text)[0]!

function folder(t: TestContext, files: Record<string, string>): string {
  const dir = mkdtempSync(join(tmpdir(), 'bisque-repart-'))
  t.after(() => rmSync(dir, { recursive: true, force: true }))
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(join(dir, name, '..'), { recursive: true })
    writeFileSync(join(dir, name), text)
  }
  return dir
}

test('parseDefinitions() reads every setting of a partition', () => {
  const got = one(
    [
      'Type=usr',
      '# a comment',
      'Label=%M_%A%%',
      'UUID=0FC63DAF84838E793D69D8477DE44772',
      'Priority=-3',
      'Weight=2000',
      'SizeMinBytes=1.5G',
      'SizeMaxBytes = 2T',
      'PaddingMaxBytes=5000',
      'Format=btrfs',
      'CopyFiles=/usr:/',
      'CopyFiles=/a\\:b',
      'CopyFiles=/opt/%o:/opt:fsverity=copy',
      'ExcludeFiles=/usr/share/doc/ "/with blank"',
      'ExcludeFilesTarget=//lib/./x',
      'MakeDirectories=/var/log /var/log',
      'MakeSymlinks=/bin:usr/bin',
      'Subvolumes=/var /home:ro,nodatacow',
      'DefaultSubvolume=/var',
      'Compression=zstd',
      'CompressionLevel=7',
      'FileSystemSectorSize=512',
      'Minimize=guess',
      'Flags=0x10',
      'ReadOnly=yes',
      'NoAuto=1',
      'GrowFileSystem=off',
      'MountPoint=/usr:ro',
      'MountPoint="/a:b"',
      'SplitName=%t.%U',
      'FactoryReset=yes',
    ].join('\n'),
  )
  const { places, type, ...rest } = got
  assert.equal(places.get('SizeMaxBytes'), '10.conf:9:1')
  assert.equal(type.name, 'usr-x86-64')
  assert.deepEqual(rest, {
    name: '10',
    file: '10.conf',
    dropIns: [],
    label: 'Particle_7%',
    guid: '0fc63daf-8483-8e79-3d69-d8477de44772',
    priority: -3,
    weight: 2000,
    paddingWeight: 0,
    sizeMinBytes: 1.5 * 2 ** 30,
    sizeMaxBytes: 2 ** 41,
    paddingMaxBytes: 8192,
    factoryReset: true,
    flags: 16n,
    readOnly: true,
    noAuto: true,
    growFileSystem: false,
    splitName: '%t.%U',
    format: 'btrfs',
    copyFiles: [
      { source: '/usr', target: '/', fsverity: 'off' },
      { source: '/a:b', target: '/a:b', fsverity: 'off' },
      { source: '/opt/debian', target: '/opt', fsverity: 'copy' },
    ],
    excludeFiles: ['/usr/share/doc/', '/with blank'],
    excludeFilesTarget: ['/lib/x'],
    makeDirectories: ['/var/log'],
    makeSymlinks: [{ path: '/bin', target: 'usr/bin' }],
    subvolumes: [
      { path: '/var', readOnly: false, noDataCow: false },
      { path: '/home', readOnly: true, noDataCow: true },
    ],
    defaultSubvolume: '/var',
    compression: 'zstd',
    compressionLevel: '7',
    fileSystemSectorSize: 512,
    minimize: 'guess',
    addValidateFs: true,
    encrypt: 'off',
    verity: 'off',
    mountPoints: [{ where: '/usr', options: 'ro' }, { where: '/a:b' }],
  })
})

test('parseDefinitions() takes every setting systemd-repart knows, those of the device too', () => {
  const device = [
    'FactoryReset=yes',
    'Encrypt=tpm2',
    'TPM2PCRs=7+11',
    'KeyFile=/k',
    'Integrity=inline',
    'IntegrityAlgorithm=hmac-sha256',
  ]
  const got = one(
    ['Type=root', ...device, 'EncryptKDF=argon2id', 'Discard=no', 'VolumeLabel=luks', 'EncryptedVolume=root:none:discard'].join(
      '\n',
    ),
  )
  assert.deepEqual([got.encrypt, got.format, got.encryptedVolume?.options], ['tpm2', 'ext4', 'discard'])
  assert.equal(Object.keys(SETTINGS).length, 47)
})

test('parseDefinitions() implies file systems, an empty label and what must be read-only', () => {
  assert.equal(one('Type=swap').format, 'swap')
  assert.equal(one('Type=esp\nCopyFiles=/efi:/').format, 'vfat')
  assert.equal(one('Type=root\nMakeDirectories=/usr').format, 'ext4')
  assert.equal(one('Type=root').format, undefined)
  const empty = one('Type=usr\nFormat=empty')
  assert.deepEqual([empty.format, empty.label, empty.noAuto], [undefined, '_empty', true])
  assert.equal(one('Type=usr\nLabel=').label, '')
  assert.equal(one('Type=usr\nSplitName=-').splitName, undefined)
  const [data] = parse(
    'Type=usr\nFormat=erofs\nCopyFiles=/usr:/\nVerity=data\nVerityMatchKey=u',
    'Type=usr-verity\nVerity=hash\nVerityMatchKey=u',
  )
  assert.equal(data!.readOnly, true)
})

// biome-ignore format: table
const REFUSED: readonly (readonly [string, string, RegExp])[] = [
  ['a type that is none', 'Type=usr-verty', /10\.conf:2:6: Type=usr-verty: no such partition type; did you mean usr-verity\?/],
  ['no type', 'Label=x', /10\.conf:1:1: Type= is missing/],
  ['an unknown setting', 'Type=root\n CopyFile=/usr', /10\.conf:3:2: unknown setting CopyFile=; did you mean CopyFiles=\?/],
  ['a line that is nothing', 'Type=root\nyes', /10\.conf:3:1: "yes" is neither a section nor Name=value/],
  ['a label that is too long', `Type=root\nLabel=${'x'.repeat(37)}`, /10\.conf:3:7: .* has 37 UTF-16 units, at most 36 fit/],
  ['a specifier that is none', 'Type=root\nLabel=%Z', /"%Z" is no specifier; write "%%"/],
  ['a specifier only a machine knows', 'Type=root\nLabel=%m', /"%m" is the machine id, which is not known before/],
  ['a size that is none', 'Type=root\nSizeMinBytes=1 GB!', /expected a number of bytes/],
  ['a size beyond numbers', 'Type=root\nSizeMinBytes=99E', /it is larger than any disk/],
  ['a least above the most', 'Type=root\nSizeMinBytes=2G\nSizeMaxBytes=1G', /10\.conf:3:1: SizeMinBytes= is larger than SizeMaxBytes=/],
  ['a least padding above the most', 'Type=root\nPaddingMinBytes=2G\nPaddingMaxBytes=1G', /PaddingMinBytes= is larger than PaddingMaxBytes=/],
  ['a weight that is too large', 'Type=root\nWeight=1000001', /expected a whole number from 0 to 1000000/],
  ['a priority that is no number', 'Type=root\nPriority=high', /expected a whole number from -2147483648/],
  ['a UUID that is none', 'Type=root\nUUID=1234', /expected "null" or a UUID of 32 hexadecimal digits/],
  ['a boolean that is none', 'Type=root\nReadOnly=maybe', /expected yes or no/],
  ['flags that are no number', 'Type=root\nFlags=ro', /expected a number such as 0x/],
  ['a path that is relative', 'Type=root\nCopyFiles=usr', /the path "usr" is not absolute/],
  ['a path that climbs', 'Type=root\nCopyFiles=/usr/../etc', /has a component ".."/],
  ['files to copy with too many fields', 'Type=root\nCopyFiles=/a:/b:fsverity=copy:/c', /expected at most three fields/],
  ['files to copy with an unknown flag', 'Type=root\nCopyFiles=/a:/b:verity', /unknown flag "verity"; expected fsverity=copy/],
  ['files to copy that are none', 'Type=root\nCopyFiles=', /expected SOURCE, SOURCE:TARGET/],
  ['a quote that is left open', 'Type=root\nMakeDirectories="/a', /a quote is left open/],
  ['a symlink without target', 'Type=root\nMakeSymlinks=/a', /expected words of the form PATH:TARGET/],
  ['a subvolume with an unknown flag', 'Type=root\nFormat=btrfs\nSubvolumes=/a:rw', /unknown flag "rw"; expected ro or nodatacow/],
  ['a default that is no subvolume', 'Type=root\nFormat=btrfs\nSubvolumes=/a\nDefaultSubvolume=/b', /DefaultSubvolume=\/b is not among Subvolumes=/],
  ['a block size that is none', 'Type=root\nFileSystemSectorSize=3000', /expected 512, 1024, 2048 or 4096/],
  ['blocks and files at once', 'Type=root\nCopyBlocks=/x\nCopyFiles=/y', /10\.conf:3:1: CopyBlocks= cannot stand with Format=, CopyFiles=/],
  ['files in swap space', 'Type=swap\nCopyFiles=/usr', /10\.conf:3:1: a swap partition holds no files/],
  ['files in an empty partition', 'Type=root\nFormat=empty\nCopyFiles=/usr', /Format=empty cannot stand with files/],
  ['a read-only file system without files', 'Type=root\nFormat=erofs', /10\.conf:3:1: erofs without source files would stay empty/],
  ['minimizing what is not made', 'Type=root\nMinimize=guess', /Minimize= needs Format= or Verity=hash/],
  ['the best size of ext4', 'Type=root\nFormat=ext4\nMinimize=best', /write Minimize=guess for ext4/],
  ['verity without a key', 'Type=usr-verity\nVerity=hash', /Verity=hash needs VerityMatchKey=/],
  ['a key without verity', 'Type=usr\nVerityMatchKey=x', /VerityMatchKey= needs Verity=/],
  ['hashes with files of their own', 'Type=usr-verity\nVerity=hash\nVerityMatchKey=x\nFormat=ext4', /cannot stand with Verity=hash/],
  ['verity of nothing', 'Type=usr\nVerity=data\nVerityMatchKey=x', /Verity=data needs Format=, CopyFiles= or CopyBlocks=/],
  ['verity of what is encrypted', 'Type=usr\nFormat=ext4\nVerity=data\nVerityMatchKey=x\nEncrypt=tpm2', /Encrypt= cannot stand with Verity=data/],
  ['a signature with a size', 'Type=usr-verity-sig\nVerity=signature\nVerityMatchKey=x\nSizeMinBytes=1M', /a signature partition has 16384 bytes/],
  ['hashes without data', 'Type=usr-verity\nVerity=hash\nVerityMatchKey=x', /no definition has Verity=data and VerityMatchKey=x/],
  ['a supplement of nothing', 'Type=home\nSupplementFor=40-root', /there is no definition 40-root/],
  ['a supplement with blocks', 'Type=home\nSupplementFor=10-a\nCopyBlocks=/x', /SupplementFor= cannot stand with CopyBlocks=/],
  ['a mount point that is relative', 'Type=home\nMountPoint=home', /the path "home" is not absolute/],
  ['an unknown mode of encryption', 'Type=home\nEncrypt=luks', /expected off, key-file, tpm2 or key-file\+tpm2/],
]

for (const [what, text, message] of REFUSED) {
  test(`parseDefinitions() refuses ${what}`, () => {
    assert.throws(
      () => parse(text),
      (error: Fault) => {
        assert.ok(error instanceof Fault && error.code === 'recipe')
        assert.match(error.message, message)
        return true
      },
    )
  })
}

test('parseDefinitions() refuses definitions that do not fit together', () => {
  const data = 'Type=usr\nFormat=erofs\nCopyFiles=/usr:/\nVerity=data\nVerityMatchKey=u'
  const hash = 'Type=usr-verity\nVerity=hash\nVerityMatchKey=u'
  assert.throws(() => parse(data, hash, hash), /11 and 12 both have Verity=hash and VerityMatchKey=u/)
  assert.throws(
    () => parse(data, `${hash}\nPriority=1`),
    /11\.conf:3:1: its priority is 1, that of 10 of the same verity set is 0/,
  )
  assert.throws(() => parse(data, `${hash}\nMinimize=best`), /11\.conf:5:1: Minimize= needs Minimize= or CopyBlocks= in 10/)
  assert.throws(() => parse(data, `${hash}\nCopyBlocks=/x`), /CopyBlocks= needs CopyBlocks= in 10/)
  assert.throws(() => parse('Type=esp', 'Type=home\nSupplementFor=10', 'Type=srv\nSupplementFor=11'), /11 is itself a supplement/)
  assert.throws(
    () => parse('Type=esp', 'Type=home\nSupplementFor=10', 'Type=srv\nSupplementFor=10'),
    /10 has the supplement 11 already/,
  )
  assert.throws(() => parse('Type=esp\nEncrypt=tpm2', 'Type=home\nSupplementFor=10'), /nothing can supplement it/)
  assert.throws(
    () => parse('Type=esp\nSizeMaxBytes=1G', 'Type=home\nSupplementFor=10\nSizeMinBytes=2G'),
    /SizeMinBytes= is larger than SizeMaxBytes= once it is merged with 10/,
  )
})

test('parseDefinitions() tells all problems together', () => {
  assert.throws(
    () => parse('Tpye=root\nWeight=-1', '[Partitoin]\nType=x'),
    (error: Fault) => {
      assert.match(
        error.message,
        /^Cannot read partition definitions, 3 problems:\n {2}10\.conf:2:1: unknown setting Tpye=; did you mean Type=\?\n/,
      )
      assert.match(error.message, /10\.conf:3:8: Weight=-1: expected/)
      assert.match(error.message, /11\.conf:3:1: unknown section \[Partitoin\]/)
      return true
    },
  )
})

test('parseDefinitions() reads lines that go on, sections of others and the marks of Windows', () => {
  const text =
    '\ufeff; comment\r\n[X-Mine]\r\nAnything=goes\r\n[Partition]\r\nType=root\r\nMakeDirectories=/a \\\r\n# between\r\n /b\r\n'
  assert.deepEqual(parseDefinitions([{ file: 'x.conf', text }], OPTIONS)[0]!.makeDirectories, ['/a', '/b'])
  assert.throws(
    () => parseDefinitions([{ file: 'x.conf', text: 'Type=root' }], OPTIONS),
    /x\.conf:1:1: Type= stands before any section/,
  )
  assert.throws(() => parseDefinitions([{ file: 'x.conf', text: '[Partition\nType=root' }], OPTIONS), /does not end in "\]"/)
})

test('loadDefinitions() sorts by name, prefers earlier folders, applies drop-ins and knows masks', (t) => {
  const first = folder(t, {
    '20-b.conf': '[Partition]\nType=root\nLabel=first\n',
    '20-b.conf.d/10-x.conf': '[Partition]\nWeight=5\nMakeDirectories=/one\n',
    '30-masked.conf': '',
    'ignored.txt': 'no definition',
  })
  const second = folder(t, {
    '10-a.conf': '[Partition]\nType=esp\n',
    '20-b.conf': '[Partition]\nType=usr\n',
    '20-b.conf.d/20-y.conf': '[Partition]\nWeight=6\n',
    '30-masked.conf': '[Partition]\nType=home\n',
    '40-null.conf': '[Partition]\nType=srv\n',
  })
  symlinkSync('/dev/null', join(first, '40-null.conf'))
  const got = loadDefinitions([first, second], OPTIONS)
  assert.deepEqual(
    got.map(({ name, type, label, weight }) => [name, type.name, label, weight]),
    [
      ['10-a', 'esp', undefined, 1000],
      ['20-b', 'root-x86-64', 'first', 6],
    ],
  )
  assert.deepEqual(got[1]!.dropIns, [join(first, '20-b.conf.d/10-x.conf'), join(second, '20-b.conf.d/20-y.conf')])
  assert.equal(got[1]!.places.get('Weight'), `${join(second, '20-b.conf.d/20-y.conf')}:2:1`)
  assert.throws(() => loadDefinitions([join(first, 'none')], OPTIONS), /none is not a folder/)
  symlinkSync('nowhere', join(first, '50.conf'))
  assert.throws(() => loadDefinitions([first], OPTIONS), /50\.conf: it is a link to nothing/)
})

test('parseDefinitions() refuses more partitions than a table holds', () => {
  assert.throws(() => parse(...Array.from({ length: 129 }, () => 'Type=root')), /there are 129, a disk has room for 128/)
})

test('parseDefinitions() reads any text or refuses it as a Fault', () => {
  const word = fc.constantFrom(
    ...Object.keys(SETTINGS),
    '[Partition]',
    '=',
    ':',
    '/',
    '%',
    '%M',
    '"',
    '\\',
    '\\x4',
    '\n',
    ' ',
    '1K',
    'yes',
    'root',
    '#',
  )
  const text = fc
    .array(fc.oneof(word, fc.string({ maxLength: 4, unit: 'binary' })))
    .map((words) => `[Partition]\nType=root\n${words.join('')}`)
  fc.assert(
    fc.property(text, (text) => {
      try {
        parseDefinitions([{ file: 'x.conf', text }], OPTIONS)
      } catch (error) {
        assert.ok(error instanceof Fault, `${error}`)
      }
    }),
    { numRuns: 500, seed: 20261 },
  )
})

oracle('systemd-id128', 'partitionTypeNamed() knows every type systemd knows', async (_t, judge) => {
  const types: { name: string; id: string }[] = JSON.parse((await judge.run(['systemd-id128', 'show', '--json=short'])).stdout)
  assert.ok(types.length > 200)
  for (const { name, id } of types) {
    const got = partitionTypeNamed(name, 'x86-64')
    assert.equal(got?.guid.replaceAll('-', ''), id, name)
    assert.deepEqual(partitionTypeNamed(id, 'x86-64'), got, name)
  }
})
