import assert from 'node:assert/strict'
import { mkdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { oracle } from '../../../test/oracle.ts'
import { madeFile, readText } from '../../tree/content.ts'
import { type Definition, type DefinitionSource, parseDefinitions } from './definition.ts'
import { crypttabText, fstabText, treeWithFstab, withFstab } from './tabs.ts'

const SEED = '11111111-2222-3333-4444-555566667777'
const TEXTS = [
  'Type=esp\nFormat=vfat\nMountPoint=/efi\nMountPoint=/boot:ro,x=y',
  'Type=root\nFormat=ext4\nMountPoint=/\nMountPoint="/with:colon":noatime',
  'Type=home\nFormat=btrfs\nMountPoint=/home:compress=zstd',
  'Type=tmp\nFormat=xfs\nMountPoint=/var/tmp',
  'Type=var\nFormat=f2fs\nMountPoint=/var',
  'Type=linux-generic\nFormat=ntfs\nMountPoint=/v\nUUID=0fc63daf-8483-4772-8e79-3d69d8477de5',
  'Type=srv\nMountPoint=/srv',
  'Type=root\nFormat=ext4\nEncrypt=key-file\nEncryptedVolume=root:/key:discard\nMountPoint=/x',
  'Type=home\nFormat=ext4\nEncrypt=key-file\nEncryptedVolume=home',
]
const sourcesIn = (folder: string): DefinitionSource[] =>
  TEXTS.map((text, i) => ({ file: join(folder, `${10 + i}.conf`), text: `[Partition]\n${text}\n` }))
const parse = (sources: DefinitionSource[]): Definition[] =>
  parseDefinitions(sources, { architecture: 'x86-64', specifiers: new Map() })

test('fstabText() and crypttabText() say nothing where definitions do not', () => {
  const definitions = parse([{ file: 'x.conf', text: '[Partition]\nType=root\nFormat=ext4\nEncryptedVolume=x\n' }])
  assert.equal(fstabText(definitions, SEED), undefined)
  assert.equal(crypttabText(definitions, SEED), undefined)
  assert.equal(withFstab('as it was', definitions, SEED), 'as it was')
})

test('withFstab() adds a section to what is there and renews it', () => {
  const definitions = parse([{ file: 'x.conf', text: '[Partition]\nType=home\nFormat=ext4\nMountPoint="/my home"\n' }])
  const once = withFstab('# mine\ntmpfs /tmp tmpfs', definitions, SEED)
  assert.match(
    once,
    /^# mine\ntmpfs \/tmp tmpfs\n# Start section ↓ .*\nUUID=[0-9a-f-]{36} \/my\\040home ext4 .* 0 2\n# End section ↑ .*\n$/,
  )
  assert.equal(withFstab(once, definitions, SEED), once)
  const behind = `${once}# below\n`
  assert.equal(withFstab(behind.replace('/my\\040home', '/old'), definitions, SEED), behind)
})

test('treeWithFstab() puts an fstab into a tree, or adds to the one that is there', async () => {
  const definitions = parse([{ file: 'x.conf', text: '[Partition]\nType=home\nFormat=ext4\nMountPoint=/home\n' }])
  const made = await treeWithFstab(new Map(), definitions, SEED, 5)
  assert.deepEqual([...made.keys()], ['', 'etc', 'etc/fstab'])
  const there = new Map([...made, ['etc/fstab', madeFile('# mine\n', 5)] as const])
  assert.match((await readText(await treeWithFstab(there, definitions, SEED, 5), 'etc/fstab'))!, /^# mine\n# Start section/)
  assert.equal(await treeWithFstab(there, parse([]), SEED, 5), there)
})

oracle('systemd-repart', 'fstabText() and crypttabText() are what systemd-repart writes', async (_t, judge) => {
  const folder = join(judge.dir, 'defs')
  const root = join(judge.dir, 'root')
  for (const dir of [folder, join(root, 'etc')]) mkdirSync(dir, { recursive: true })
  const sources = sourcesIn(folder)
  for (const { file, text } of sources) writeFileSync(file, text)
  const disk = join(judge.dir, 'disk.raw')
  writeFileSync(disk, '')
  truncateSync(disk, 0)
  const how = ['--empty=force', '--size=auto', '--dry-run=yes', '--offline=yes', '--json=short', `--seed=${SEED}`]
  const tabs = ['--generate-fstab=/etc/fstab', '--generate-crypttab=/etc/crypttab', `--copy-source=${root}`]
  await judge.run(['systemd-repart', ...how, ...tabs, `--definitions=${folder}`, disk])
  const definitions = parse(sources)
  assert.equal(fstabText(definitions, SEED), readFileSync(join(root, 'etc/fstab'), 'utf8'))
  assert.equal(crypttabText(definitions, SEED), readFileSync(join(root, 'etc/crypttab'), 'utf8'))
})
