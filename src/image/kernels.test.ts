import assert from 'node:assert/strict'
import { test } from 'node:test'
import { tinyPe } from '../../test/tiny-pe.ts'
import { Fault } from '../base/fault.ts'
import { madeDirectory, madeFile, madeSymlink } from '../tree/content.ts'
import { type Inode, type Tree, treeOf } from '../tree/tree.ts'
import { entryName, entryToken, kernelCommandLine, kernelsOf, withKernelConfigs, withKernelsInPlace } from './kernels.ts'
import { makeUki } from './uki.ts'

const treeWith = (files: Readonly<Record<string, string | Uint8Array | Inode>>): Tree =>
  treeOf(
    Object.entries(files).map(([path, content]): [string, Inode] => [
      path,
      typeof content === 'string' || content instanceof Uint8Array ? madeFile(content, 0) : content,
    ]),
    madeDirectory(0),
  )

test('kernelsOf() finds kernels, the newest first, and takes no UKI for one', async () => {
  const kernel = tinyPe()
  const uki = await makeUki({
    stub: { bytes: tinyPe() },
    kernel: { bytes: kernel },
    initrds: [],
    osRelease: 'ID=acme\n',
    cmdline: '',
    uname: '7.0',
    signers: {},
  })
  // A stub says what it is; the tiny one does not.
  const named = Buffer.from(uki.bytes)
  named.write('.sdmagic', named.indexOf('.text\0'))
  const found = await kernelsOf(
    treeWith({
      'usr/lib/modules/6.12.48-amd64/vmlinuz': kernel,
      'usr/lib/modules/6.12.107-amd64/vmlinuz': kernel,
      'usr/lib/modules/7.0/vmlinuz-virt.efi': named,
      'usr/lib/modules/7.0/vmlinuz': kernel,
      'usr/lib/modules/7.1/vmlinuz-virt.efi': named,
      'usr/lib/modules/5.0/vmlinux': kernel,
      'usr/lib/modules/5.1/modules.dep': '',
      'boot/vmlinuz-4.0': kernel,
    }),
  )
  assert.deepEqual(
    found.map(({ path }) => path.replace('usr/lib/modules/', '')),
    ['7.0/vmlinuz', '6.12.107-amd64/vmlinuz', '6.12.48-amd64/vmlinuz', '5.0/vmlinux'],
  )
})

test('withKernelConfigs() puts configurations of /boot beside the modules of their kernels, and over none', () => {
  const tree = treeWith({
    'boot/config-1': 'CONFIG_ONE=y',
    'boot/config-2': 'no modules',
    'boot/config-3': 'another',
    'usr/lib/modules/1/modules.dep': '',
    'usr/lib/modules/3/config': 'its own',
  })
  const placed = withKernelConfigs(tree)
  assert.equal(placed.get('usr/lib/modules/1/config'), tree.get('boot/config-1'))
  assert.equal(placed.get('usr/lib/modules/3/config'), tree.get('usr/lib/modules/3/config'))
  assert.equal(placed.size, tree.size + 1)
})

test('withKernelsInPlace() puts kernels of /boot beside their modules', () => {
  const tree = treeWith({
    'boot/vmlinuz-1': 'one',
    'boot/vmlinuz-2': 'no modules',
    'boot/vmlinuz-3': madeSymlink('vmlinuz-1', 0),
    'usr/lib/modules/1/modules.dep': '',
    'usr/lib/modules/3/modules.dep': '',
  })
  const placed = withKernelsInPlace(tree)
  assert.equal(placed.get('usr/lib/modules/1/vmlinuz'), tree.get('boot/vmlinuz-1'))
  assert.equal(placed.size, tree.size + 1)
  assert.equal(withKernelsInPlace(placed), placed)
})

test('entryToken() takes the word of the tree, its machine id, or the ids of os-release', async () => {
  const release = { 'usr/lib/os-release': 'NAME="Acme OS"\nID=acme\nIMAGE_ID="Anvil"\n' }
  const machine = { 'etc/machine-id': '0123456789abcdef0123456789abcdef\n' }
  assert.equal(await entryToken(treeWith({ ...release, ...machine, 'etc/kernel/entry-token': 'mine\n' })), 'mine')
  assert.equal(await entryToken(treeWith({ ...release, 'etc/kernel/entry-token': '../mine\n' })), 'Anvil')
  assert.equal(await entryToken(treeWith({ ...release, ...machine })), '0123456789abcdef0123456789abcdef')
  assert.equal(await entryToken(treeWith({ ...release, 'etc/machine-id': 'uninitialized\n' })), 'Anvil')
  assert.equal(await entryToken(treeWith({ 'usr/lib/os-release': 'ID=debian\n' })), 'debian')
  await assert.rejects(entryToken(treeWith({ 'usr/lib/os-release': 'ID=a/b\n' })), /neither IMAGE_ID nor ID/)
})

test('entryName() is of token, kernel and root hash, or as the format says', () => {
  const parts = { token: 'Anvil', kernel: '6.12' }
  assert.equal(entryName(parts), 'Anvil-6.12')
  assert.equal(entryName({ ...parts, rootHash: 'abc' }), 'Anvil-6.12-abc')
  assert.equal(entryName({ ...parts, rootHash: 'abc', format: 'os_&h+3&&' }), 'os_abc+3&')
  assert.equal(entryName({ ...parts, format: '&h&e' }), 'Anvil')
  for (const format of ['&q', '../&e', 'a:b', '&h'])
    assert.throws(
      () => entryName({ ...parts, format }),
      (e) => e instanceof Fault && /Cannot name the UKI/.test(e.message),
      format,
    )
})

test('kernelCommandLine() joins the words of tree, verity and recipe', async () => {
  const tree = treeWith({ 'usr/lib/kernel/cmdline': ' console=ttyS0 \n', 'etc/passwd': '' })
  const words = ['rw', 'root=PARTUUID', 'mount.usr=PARTUUID']
  const partitions = [
    { type: 'esp', uuid: 'e' },
    { type: 'usr-x86-64', uuid: 'u' },
    { type: 'root-x86-64', uuid: 'r' },
    { type: 'root-x86-64', uuid: 'second' },
  ]
  assert.deepEqual(await kernelCommandLine(tree, { words, partitions }), [
    'console=ttyS0',
    'rw',
    'root=PARTUUID=r',
    'mount.usr=PARTUUID=u',
  ])
  assert.deepEqual(await kernelCommandLine(tree, { words: ['rw'], rootHash: { name: 'usrhash', value: 'ab' }, partitions }), [
    'console=ttyS0',
    'usrhash=ab',
    'rw',
  ])
  assert.deepEqual(await kernelCommandLine(treeWith({ 'etc/kernel/cmdline': 'a', 'usr/lib/kernel/cmdline': 'b' }), { words }), [
    'a',
    ...words,
  ])
})
