import assert from 'node:assert/strict'
import { chmodSync, linkSync, lutimesSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { oracle } from '../../../test/oracle.ts'
import { decodeErofs } from '../../formats/erofs-decode.ts'
import { madeDirectory, madeFile, madeSymlink } from '../../tree/content.ts'
import { readTree } from '../../tree/from-disk.ts'
import { type Inode, type Tree, treeOf } from '../../tree/tree.ts'
import { partitionTree } from './copy.ts'
import { type Definition, parseDefinitions } from './definition.ts'

const EPOCH = 1_700_000_000
const parse = (...texts: string[]): Definition[] =>
  parseDefinitions(
    texts.map((text, i) => ({ file: `${10 + i}.conf`, text: `[Partition]\n${text}\n` })),
    { architecture: 'x86-64', specifiers: new Map() },
  )

const file = (text = '') => madeFile(text, EPOCH)
const make = (entries: Record<string, Inode>): Tree => treeOf(Object.entries(entries), madeDirectory(5, 0o711))

const TREE = make({
  'usr/bin/sh': file('shell'),
  'usr/share/doc/a': file(),
  'usr/share/b': file(),
  'etc/hosts': file(),
  'efi/EFI/x.efi': file(),
  'boot/loader/loader.conf': file(),
  'proc/1/cmdline': file(),
  'var/tmp/x': file(),
  'var/log/y': file(),
  bin: madeSymlink('usr/bin', 5),
  loop: madeSymlink('/loop', 5),
})

/** Paths of the files of a definition, made with others beside it. */
function copied(text: string, others: string[] = [], tree = TREE): string[] {
  const definitions = parse(text, ...others)
  return [...partitionTree(definitions[0]!, definitions, tree, { epoch: EPOCH }).keys()].filter((path) => path !== '')
}

test('partitionTree() copies directories and files to their places and merges what meets there', () => {
  assert.deepEqual(copied('Type=usr\nCopyFiles=/usr:/'), ['bin', 'bin/sh', 'share', 'share/b', 'share/doc', 'share/doc/a'])
  assert.deepEqual(copied('Type=esp\nCopyFiles=/efi:/\nCopyFiles=/boot:/'), ['EFI', 'EFI/x.efi', 'loader', 'loader/loader.conf'])
  assert.deepEqual(copied('Type=srv\nCopyFiles=/etc/hosts:/a/b/names\nCopyFiles=/bin:/a/c'), [
    'a',
    'a/b',
    'a/b/names',
    'a/c',
    'a/c/sh',
  ])
})

test('partitionTree() leaves out what is excluded, by its place in the source and in the partition', () => {
  assert.deepEqual(copied('Type=srv\nCopyFiles=/usr\nExcludeFiles=/usr/share/doc/ /usr/bin'), [
    'usr',
    'usr/share',
    'usr/share/b',
    'usr/share/doc',
  ])
  assert.deepEqual(copied('Type=srv\nCopyFiles=/usr:/x\nExcludeFilesTarget=/x/share'), ['x', 'x/bin', 'x/bin/sh'])
  assert.deepEqual(copied('Type=srv\nCopyFiles=/usr/bin\nCopyFiles=/etc\nExcludeFiles=/usr'), ['etc', 'etc/hosts'])
  assert.deepEqual(copied('Type=srv\nCopyFiles=/etc/hosts\nCopyFiles=/usr/bin:/b\nExcludeFiles=/etc/'), ['b', 'b/sh'])
})

test('partitionTree() leaves the insides of mount points to those who mount there', () => {
  const root = copied('Type=root\nCopyFiles=/', ['Type=esp', 'Type=usr'])
  assert.deepEqual(
    root.filter((path) => /^(?:usr|proc|var|efi|boot)/.test(path)),
    ['boot', 'efi', 'proc', 'usr', 'var', 'var/log', 'var/log/y', 'var/tmp'],
  )
  assert.ok(copied('Type=srv\nCopyFiles=/', ['Type=usr']).includes('usr/bin/sh'))
})

test('partitionTree() takes the first directory that becomes the root for the root', () => {
  const definitions = parse('Type=srv\nCopyFiles=/usr:/\nCopyFiles=/etc:/', 'Type=home\nMakeDirectories=/a/b')
  const tree = make({ 'usr/a': file(), 'etc/hosts': file(), usr: { ...madeDirectory(7, 0o750), uid: 3 } })
  const root = partitionTree(definitions[0]!, definitions, tree, {
    epoch: EPOCH,
    rootXattrs: new Map([['user.x', Buffer.from('y')]]),
  }).get('')!
  assert.deepEqual([root.mode, root.uid, root.mtime, [...root.xattrs!.keys()]], [0o750, 3, 7, ['user.x']])
  const made = partitionTree(definitions[1]!, definitions, tree, { epoch: EPOCH })
  assert.deepEqual(
    [...made].map(([path, { mode, mtime }]) => [path, mode, mtime]),
    [
      ['', 0o755, EPOCH],
      ['a', 0o755, EPOCH],
      ['a/b', 0o755, EPOCH],
    ],
  )
})

test('partitionTree() keeps hard links and brings late times down to the epoch', () => {
  const same = { ...file('x'), mtime: EPOCH + 9 }
  const definitions = parse('Type=srv\nCopyFiles=/d:/')
  const got = partitionTree(definitions[0]!, definitions, make({ 'd/one': same, 'd/two': same }), { epoch: EPOCH })
  assert.equal(got.get('one'), got.get('two'))
  assert.equal(got.get('one')!.mtime, EPOCH)
})

test('partitionTree() merges a supplement into what it supplements', () => {
  const definitions = parse(
    'Type=esp\nCopyFiles=/efi:/',
    'Type=xbootldr\nSupplementFor=10\nCopyFiles=/boot:/\nMakeDirectories=/new',
  )
  assert.deepEqual(
    [...partitionTree(definitions[0]!, definitions, TREE, { epoch: EPOCH }).keys()],
    ['', 'EFI', 'EFI/x.efi', 'loader', 'loader/loader.conf', 'new'],
  )
})

test('partitionTree() tells of sources that are not there and goes on', () => {
  const notes: string[] = []
  const definitions = parse('Type=srv\nCopyFiles=/none\nCopyFiles=/loop\nCopyFiles=/etc')
  const got = partitionTree(definitions[0]!, definitions, TREE, { epoch: EPOCH, note: (message) => notes.push(message) })
  assert.deepEqual([...got.keys()], ['', 'etc', 'etc/hosts'])
  assert.deepEqual(notes, ['10: there is no /none to copy', '10: there is no /loop to copy'])
})

// biome-ignore format: table
const REFUSED: readonly (readonly [string, string, RegExp])[] = [
  ['a file for the root', 'CopyFiles=/etc/hosts:/', /\/etc\/hosts is a file and cannot become the root/],
  ['a file where one is', 'CopyFiles=/usr:/\nCopyFiles=/etc/hosts:/share/b', /\/share\/b is there already/],
  ['a directory where a file is', 'CopyFiles=/etc/hosts:/x\nCopyFiles=/usr:/x', /\/x is a file already/],
  ['a directory and a file that meet', 'CopyFiles=/etc:/share/b\nCopyFiles=/usr:/', /\/share\/b is a directory in one place .* and a file in another/],
  ['a directory below a file', 'CopyFiles=/etc/hosts:/x\nMakeDirectories=/x/y', /MakeDirectories=\/x\/y needs the directory \/x, which is a file/],
  ['a symlink without a directory for it', 'CopyFiles=/etc\nMakeSymlinks=/a/b:c', /there is no directory for the symlink \/a\/b; add MakeDirectories=\/a/],
  ['a symlink where something is', 'CopyFiles=/etc\nMakeSymlinks=/etc/hosts:c', /the symlink \/etc\/hosts cannot be made/],
]

for (const [what, text, message] of REFUSED) {
  test(`partitionTree() refuses ${what}`, () => {
    assert.throws(() => copied(`Type=srv\n${text}`), message)
  })
}

oracle('systemd-repart', 'partitionTree() copies what systemd-repart copies', async (_t, judge) => {
  const src = join(judge.dir, 'src')
  makeSource(src)
  const texts = [
    'Type=root\nCopyFiles=/',
    'Type=usr\nCopyFiles=/usr:/\nExcludeFiles=/usr/share/doc/\nMakeDirectories=/new/deep\nMakeSymlinks=/new/link:../lib',
    'Type=srv\nCopyFiles=/etc:/a\nCopyFiles=/usr/lib:/a/lib\nCopyFiles=/usr/share:/a\nExcludeFilesTarget=/a/hosts /a/lib/modules',
    'Type=home\nCopyFiles=/link:/\nCopyFiles=/etc/hosts:/x/y\nCopyFiles=/none\nExcludeFiles=/usr/lib/twice',
  ]
  const definitions = join(judge.dir, 'defs')
  mkdirSync(definitions)
  const sources = texts.map((text, i) => ({
    file: join(definitions, `${10 + i}.conf`),
    text: `[Partition]\n${text}\nFormat=erofs\nMinimize=best\nSizeMinBytes=4K\nAddValidateFS=no\n`,
  }))
  for (const { file, text } of sources) writeFileSync(file, text)
  const how = [
    '--empty=create',
    '--size=auto',
    '--dry-run=no',
    '--offline=yes',
    '--split=yes',
    '--json=short',
    `--copy-source=${src}`,
  ]
  const command = ['systemd-repart', ...how, `--definitions=${definitions}`, join(judge.dir, 'disk.raw')]
  const rows = JSON.parse((await judge.run(['env', `SOURCE_DATE_EPOCH=${EPOCH}`, ...command])).stdout)
  const parsed = parseDefinitions(sources, { architecture: 'x86-64', specifiers: new Map() })
  const tree = readTree(src)
  for (const [i, definition] of parsed.entries()) {
    const ours = partitionTree(definition, parsed, tree, { epoch: EPOCH })
    assert.deepEqual(listOurs(ours).sort(), listTheirs(rows[i].split_path).sort(), texts[i])
  }
})

function makeSource(src: string): void {
  const files = [
    'usr/bin/sh',
    'usr/lib/modules/6/a.ko',
    'usr/lib/libc.so',
    'usr/share/doc/x/y',
    'usr/share/names',
    'etc/hosts',
    'etc/conf.d/z',
  ]
  for (const [i, path] of [...files, 'proc/1/stat', 'run/x', 'var/tmp/t', 'var/lib/s', 'home/me/f', 'srv/data'].entries()) {
    mkdirSync(dirname(join(src, path)), { recursive: true })
    writeFileSync(join(src, path), path)
    lutimesSync(join(src, path), 1_600_000_000 + i, 1_600_000_000 + i)
  }
  linkSync(join(src, 'usr/lib/libc.so'), join(src, 'usr/lib/twice'))
  symlinkSync('usr/lib', join(src, 'link'))
  chmodSync(join(src, 'usr/bin/sh'), 0o4755)
  chmodSync(join(src, 'etc'), 0o750)
  for (const [i, path] of ['usr', 'usr/lib', 'usr/share', 'etc', 'etc/conf.d', ''].entries())
    lutimesSync(join(src, path), 1_500_000_000 + i, 1_500_000_000 + i)
}

const line = (path: string, inode: Pick<Inode, 'type' | 'mode'> & { target?: string }, text: string) =>
  `${path} ${inode.type} ${inode.mode.toString(8)} ${inode.target ?? ''}${text}`

const listOurs = (tree: Tree): string[] =>
  [...tree].map(([path, inode]) => {
    const text = inode.type !== 'file' ? '' : 'bytes' in inode.content ? '' : readFileSync(inode.content.path, 'latin1')
    return `${line(path, inode, text)} ${inode.type === 'symlink' ? '' : inode.mtime}`
  })

function listTheirs(path: string): string[] {
  const bytes = readFileSync(path)
  const erofs = decodeErofs((offset, sizeBytes) => bytes.subarray(offset, offset + sizeBytes), bytes.length)
  return [...erofs.inodes].map(([path, inode]) => {
    const text = inode.type === 'file' ? Buffer.concat([...erofs.contents(inode)]).toString('latin1') : ''
    return `${line(path, inode as unknown as Inode, text)} ${inode.type === 'symlink' ? '' : inode.mtime}`
  })
}
