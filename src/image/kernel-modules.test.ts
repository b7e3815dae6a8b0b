import assert from 'node:assert/strict'
import { test } from 'node:test'
import { constants, gzipSync, zstdCompressSync } from 'node:zlib'
import { xzSync } from 'node-liblzma'
import { kernelModule } from '../../test/kernel-module.ts'
import { madeDirectory, madeFile, madeSymlink } from '../tree/content.ts'
import { type Inode, type Tree, treeOf } from '../tree/tree.ts'
import { kernelVersions, type ModuleRules, type ModuleSelection, selectModules, withoutUnusedModules } from './kernel-modules.ts'
import { joinedRules } from './module-globs.ts'

const DIRECTORY = 'usr/lib/modules/6.12-test'
const MODULES: Record<string, [string, string][]> = {
  'kernel/fs/erofs/erofs.ko.xz': [['depends', 'lib_crc,built-in']],
  'kernel/lib/lib-crc.ko.zst': [['softdep', 'pre: crc32c post: sha256']],
  'kernel/arch/x86/crypto/sha256_ssse3.ko': [],
  'kernel/crypto/sha256_generic.ko.gz': [],
  'kernel/fs/nls/nls_utf8.ko': [],
  'kernel/fs/nls/mac/nls_mac.ko': [],
  'kernel/drivers/crypto/vendor.ko': [],
  'kernel/crypto/plain.ko': [],
  'kernel/drivers/net/wifi_card.ko': [
    ['firmware', 'vendor/card.bin'],
    ['firmware', 'vendor/missing.bin'],
    ['firmware', 'linked/gsp.bin'],
    ['firmware', 'many/*.fw'],
  ],
  'kernel/drivers/loop1.ko': [['depends', 'loop2']],
  'kernel/drivers/loop2.ko': [['depends', 'loop1']],
  'updates/extra.ko': [['depends', 'not_there']],
}

function tree(more: readonly [string, Inode][] = []): Tree {
  const pack = (path: string, bytes: Buffer) =>
    path.endsWith('.xz')
      ? xzSync(bytes)
      : path.endsWith('.zst')
        ? zstdCompressSync(bytes)
        : path.endsWith('.gz')
          ? gzipSync(bytes)
          : bytes
  const modules = Object.entries(MODULES).map(([path, fields]): [string, Inode] => [
    `${DIRECTORY}/${path}`,
    madeFile(pack(path, kernelModule(fields)), 0),
  ])
  const files: Record<string, string> = {
    [`${DIRECTORY}/modules.builtin`]: 'kernel/lib/built_in.ko\n',
    [`${DIRECTORY}/modules.builtin.modinfo`]: 'built_in.alias=crc32c\0built_in.firmware=builtin.bin\0',
    [`${DIRECTORY}/modules.alias`]: 'alias sha256 sha256_ssse3\nalias sha256 sha256_generic\nalias pci:v*d* vendor\n',
    [`${DIRECTORY}/modules.alias.bin`]: 'binary',
    [`${DIRECTORY}/modules.order`]: '',
    'usr/lib/firmware/builtin.bin.xz': 'asked for by the kernel itself',
    'usr/lib/firmware/real/gsp.bin': 'behind a linked directory',
    'usr/lib/firmware/vendor/card-v2.bin.zst': 'the newest',
    'usr/lib/firmware/many/a.fw': 'a',
    'usr/lib/firmware/many/b.fw.xz': 'b',
    'usr/lib/firmware/never-asked-for.bin': '',
    'etc/passwd': 'not firmware',
  }
  return treeOf(
    [
      ...modules,
      ...Object.entries(files).map(([path, text]): [string, Inode] => [path, madeFile(text, 0)]),
      ['usr/lib/firmware/linked', madeSymlink('real', 0)],
      ['usr/lib/firmware/vendor/card.bin.zst', madeSymlink('../vendor/card-v1.bin.zst', 0)],
      ['usr/lib/firmware/vendor/card-v1.bin.zst', madeSymlink('/usr/lib/firmware/vendor/card-v2.bin.zst', 0)],
      ...more,
    ],
    madeDirectory(0),
  )
}

const select = async (modules: string[], more: Partial<ModuleSelection> = {}) => {
  const got = await selectModules(tree(), { architecture: 'x86-64', modules, ...more })
  return { ...got, names: got.modules.map((path) => path.replace(/^.*\/|\.ko.*$/g, '')) }
}

test('selectModules() follows depends, softdep and aliases through every compression', async () => {
  const { names, missing, modules } = await select(['erofs'])
  assert.deepEqual(names, ['sha256_ssse3', 'sha256_generic', 'erofs', 'lib-crc'])
  assert.deepEqual(missing, [])
  assert.ok(modules.includes(`${DIRECTORY}/kernel/fs/erofs/erofs.ko.xz`))
})

test('selectModules() lets the last matching glob win', async () => {
  const picks = async (...globs: string[]) => (await select(globs)).names.sort()
  assert.deepEqual(await picks('crypto/', '-/drivers/crypto/'), ['plain', 'sha256_generic', 'sha256_ssse3'])
  assert.deepEqual(await picks('-/drivers/crypto/', 'crypto/'), ['plain', 'sha256_generic', 'sha256_ssse3', 'vendor'])
  assert.deepEqual(await picks('/fs/nls/'), ['nls_mac', 'nls_utf8'])
  assert.deepEqual(await picks('nls-utf8'), ['nls_utf8'])
  assert.deepEqual(await picks('sha256-[gx]*'), ['sha256_generic'])
  assert.deepEqual(await picks('sha256-[!g]*'), ['sha256_ssse3'])
  assert.deepEqual(await picks('/updates/'), ['extra'])
  assert.deepEqual(await picks('re:^fs/nls/nls_', '-nls_mac'), ['nls_utf8'])
  assert.deepEqual(await picks('loop?'), ['loop1', 'loop2'])
  assert.deepEqual(await picks('*', '-*'), [])
  assert.ok((await picks('default')).includes('erofs'))
})

test('selectModules() takes all modules without rules, and leaves out what expressions say', async () => {
  const all = Object.keys(MODULES).length
  assert.equal((await select([])).names.length, all)
  const without = async (modules: string[], ...modulesExclude: string[]) => (await select(modules, { modulesExclude })).names
  const left = await without([], '^fs/', 'drivers/crypto/vendor\\.ko$')
  assert.ok(!left.some((name) => /nls|erofs|vendor/.test(name)) && left.includes('wifi_card'))
  // What is named stays, and with it what it depends on.
  assert.equal((await without(['erofs'], '.')).join(), 'sha256_ssse3,sha256_generic,erofs,lib-crc')
  assert.equal((await without(['nls_mac'], '^fs/nls/')).length, all - 1)
  assert.deepEqual(joinedRules(['erofs', '-x'], ['^fs/', 'default', 're:a']), ['erofs', '-x', 're:^fs/', 'default', 're:a'])
})

test('selectModules() ends when modules depend on each other', async () => {
  assert.deepEqual((await select(['loop1'])).names, ['loop1', 'loop2'])
})

test('selectModules() takes the word of depmod where there is no firmware', async () => {
  const index: [string, Inode][] = [
    [`${DIRECTORY}/kernel/a_b.ko`, madeFile('never read', 0)],
    [`${DIRECTORY}/kernel/c-d.ko.xz`, madeFile('never read', 0)],
    [`${DIRECTORY}/kernel/e.ko`, madeFile('never read', 0)],
    [`${DIRECTORY}/modules.dep`, madeFile('kernel/a_b.ko: kernel/c-d.ko.xz\nkernel/c-d.ko.xz:\nkernel/e.ko:\n', 0)],
    [`${DIRECTORY}/modules.softdep`, madeFile('# comment\nsoftdep c_d pre: e post: x86_gone\n', 0)],
  ]
  const got = await selectModules(treeOf(index, madeDirectory(0)), { architecture: 'x86-64', modules: ['a-b'] })
  assert.deepEqual(
    got.modules.map((path) => path.slice(DIRECTORY.length)),
    ['/kernel/a_b.ko', '/kernel/c-d.ko.xz', '/kernel/e.ko'],
  )
  assert.deepEqual(got.missing, ['x86-gone'])
})

test('selectModules() names modules that are asked for and not there', async () => {
  assert.deepEqual((await select(['extra'])).missing, ['not-there'])
})

test('selectModules() brings firmware with every symlink on the way to it', async () => {
  const { firmware } = await select(['wifi_card'])
  assert.deepEqual(
    firmware.map((path) => path.slice('usr/lib/firmware/'.length)),
    [
      'builtin.bin.xz',
      'linked',
      'many/a.fw',
      'many/b.fw.xz',
      'real/gsp.bin',
      'vendor/card-v1.bin.zst',
      'vendor/card-v2.bin.zst',
      'vendor/card.bin.zst',
    ],
  )
  const chosen = await select(['wifi_card'], { firmware: ['-many/', 'never-*'] })
  assert.ok(chosen.firmware.includes('usr/lib/firmware/never-asked-for.bin'))
  assert.ok(!chosen.firmware.includes('usr/lib/firmware/many/a.fw'))
})

test('selectModules() adds firmware by expressions and leaves it out by others', async () => {
  const firmware = async (rules: Partial<ModuleRules>) =>
    (await select(['wifi_card'], rules)).firmware.map((path) => path.replace('usr/lib/firmware/', ''))
  assert.ok((await firmware({ firmware: ['re:^never'] })).includes('never-asked-for.bin'))
  assert.deepEqual(await firmware({ firmwareExclude: ['^(vendor|many|linked)/'] }), ['builtin.bin.xz'])
})

test('selectModules() follows a module that is a symlink to another', async () => {
  const weak: [string, Inode] = [`${DIRECTORY}/weak-updates/plain2.ko`, madeSymlink('../kernel/crypto/plain.ko', 0)]
  const got = await selectModules(tree([weak]), { architecture: 'x86-64', modules: ['plain2'] })
  assert.ok(got.tree.has(`${DIRECTORY}/weak-updates/plain2.ko`) && got.tree.has(`${DIRECTORY}/kernel/crypto/plain.ko`))
})

test('withoutUnusedModules() leaves what rules keep, what that needs, and microcode', async () => {
  const whole = tree([['usr/lib/firmware/amd-ucode/microcode_amd.bin', madeFile('', 0)]])
  const rules: ModuleRules = { architecture: 'x86-64', modules: ['erofs'] }
  const left = await withoutUnusedModules(whole, rules)
  const gone = [...whole].filter(([path, { type }]) => type !== 'directory' && !left.has(path)).map(([path]) => path)
  assert.deepEqual(
    gone.filter((path) => path.includes('/modules/')).map((path) => path.replace(/^.*\/|\.ko.*$/g, '')),
    ['plain', 'vendor', 'loop1', 'loop2', 'wifi_card', 'nls_mac', 'nls_utf8', 'extra'],
  )
  assert.deepEqual(
    [...left.keys()].filter((path) => path.startsWith('usr/lib/firmware/')),
    ['usr/lib/firmware/amd-ucode', 'usr/lib/firmware/amd-ucode/microcode_amd.bin', 'usr/lib/firmware/builtin.bin.xz'],
  )
  assert.ok(left.has('etc/passwd') && left.has(`${DIRECTORY}/kernel/fs/nls`))
  assert.equal(await withoutUnusedModules(whole, { ...rules, modules: [] }), whole)
  assert.ok(
    (await withoutUnusedModules(whole, { ...rules, modules: [], firmware: ['-many/'] })).has(`${DIRECTORY}/updates/extra.ko`),
  )
})

test('selectModules() gives a tree of the modules, their indexes and the directories above', async () => {
  const { tree: got } = await select(['plain'])
  assert.deepEqual(
    [...got.keys()],
    [
      '',
      'usr',
      'usr/lib',
      'usr/lib/firmware',
      'usr/lib/firmware/builtin.bin.xz',
      'usr/lib/modules',
      DIRECTORY,
      `${DIRECTORY}/kernel`,
      `${DIRECTORY}/kernel/crypto`,
      `${DIRECTORY}/kernel/crypto/plain.ko`,
      `${DIRECTORY}/modules.alias.bin`,
      `${DIRECTORY}/modules.builtin`,
      `${DIRECTORY}/modules.builtin.modinfo`,
      `${DIRECTORY}/modules.order`,
    ],
  )
})

test('selectModules() refuses firmware links that lead out of the tree or in a circle', async () => {
  const links: [string, Inode][] = [
    ['usr/lib/firmware/vendor/missing.bin', madeSymlink('../../../../../../etc/shadow', 0)],
    ['usr/lib/firmware/many/c.fw', madeSymlink('c.fw', 0)],
  ]
  const got = await selectModules(tree(links), { architecture: 'x86-64', modules: ['wifi_card'] })
  assert.ok(!got.firmware.some((path) => path.endsWith('missing.bin') || path.endsWith('c.fw')))
  assert.ok(![...got.tree.keys()].some((path) => path.startsWith('etc')))
})

test('selectModules() refuses a broken module, a bomb, an impossible glob and two kernels', async () => {
  const options = { architecture: 'x86-64', modules: ['broken'] } as const
  const withFile = (name: string, bytes: Uint8Array) => tree([[`${DIRECTORY}/kernel/${name}`, madeFile(bytes, 0)]])
  const broken = Buffer.alloc(100, 'no ELF')
  await assert.rejects(selectModules(withFile('broken.ko', broken), options), /Cannot read kernel module \/\S+broken.ko: .*magic/)
  await assert.rejects(selectModules(withFile('broken.ko.xz', broken), options), /Cannot read kernel module \/\S+broken.ko.xz/)
  const bomb = zstdCompressSync(Buffer.alloc(257 << 20), { params: { [constants.ZSTD_c_compressionLevel]: -5 } })
  await assert.rejects(selectModules(withFile('broken.ko.zst', bomb), options), /Cannot create a Buffer larger than/)
  await assert.rejects(select(['re:(']), /Cannot select by "re:\("/)
  await assert.rejects(select(['host']), /would not be reproducible/)
  const second: [string, Inode] = ['usr/lib/modules/7.0/kernel/a.ko', madeFile(kernelModule([]), 0)]
  assert.deepEqual(kernelVersions(tree([second])), ['6.12-test', '7.0'])
  await assert.rejects(selectModules(tree([second]), options), /the tree has 6.12-test and 7.0/)
  await assert.rejects(select(['a'], { kernel: '5.0' }), /there are none below \/usr\/lib\/modules\/5.0/)
})
