import assert from 'node:assert/strict'
import { mkdirSync, readdirSync, readFileSync } from 'node:fs'
import { test } from 'node:test'
import { oracle } from '../../../test/oracle.ts'
import { Report } from '../../base/report.ts'
import { madeDirectory, madeFile } from '../../tree/content.ts'
import { type Inode, treeOf } from '../../tree/tree.ts'
import { writeDisk } from '../disk.ts'
import { extensionSources, rootSources } from '../repart/builtin.ts'
import { parseDefinitions } from '../repart/definition.ts'
import { contentsOf, fillPartitions } from '../repart/fill.ts'
import { planPartitions } from '../repart/plan.ts'
import { specifiersOf } from '../repart/specifiers.ts'
import { espDefinitions, protectionOf, writeDefinitions } from './definitions.ts'

const parse = (sources: ReturnType<typeof espDefinitions>) =>
  parseDefinitions(sources, { architecture: 'x86-64', specifiers: specifiersOf('', 'x86-64') })

// biome-ignore format: table
const PROTECTIONS: [verity: Parameters<typeof protectionOf>[0], hasKey: boolean, protection: string][] = [
  ['auto', false, 'unprotected'], ['auto', true, 'signed'], ['disabled', true, 'unprotected'], ['hash', false, 'hash'], ['hash', true, 'hash'],
  ['signed', true, 'signed'], ['defer', false, 'signed'],
]
for (const [verity, hasKey, protection] of PROTECTIONS) {
  test(`Verity=${verity} ${hasKey ? 'with' : 'without'} a key is protection ${protection}`, () =>
    assert.equal(protectionOf(verity, hasKey), protection))
}

test('an ESP has room for what is in /boot and /efi, and at least what FAT32 takes', () => {
  const big: Inode = { ...madeFile('', 0), sizeBytes: 300 << 20, content: { path: '/gone' } }
  const sizes = (entries: [string, Inode][], sectorSize: 512 | 4096) =>
    parse(espDefinitions(treeOf(entries, madeDirectory(0)), sectorSize)).map((d) => d.sizeMinBytes)[0]
  assert.equal(sizes([], 512), 36 << 20)
  assert.equal(sizes([], 4096), 260 << 20)
  assert.equal(sizes([['boot/EFI/Linux/a.efi', big]], 512), 310 << 20)
  assert.equal(sizes([['bootstrap', big]], 512), 36 << 20)
})

oracle('systemd-repart', 'systemd-repart reads what writeDefinitions() wrote', async (_t, judge) => {
  const empty = treeOf([], madeDirectory(0))
  const all = {
    sysext: extensionSources({ kind: 'sysext', verity: 'hash' }),
    confext: extensionSources({ kind: 'confext', verity: 'unprotected' }),
    esp: espDefinitions(empty, 512),
    disk: rootSources({ bootable: true, fileSystem: 'ext4' }),
  }
  for (const folder of ['boot', 'efi', 'etc', 'opt', 'usr']) mkdirSync(`${judge.dir}/root/${folder}`, { recursive: true })
  for (const [name, definitions] of Object.entries(all)) {
    await writeDefinitions(`${judge.dir}/${name}.repart.d`, definitions)
    const argv = ['--dry-run=yes', '--json=short', '--empty=create', '--size=auto', '--offline=yes', `--root=${judge.dir}/root`]
    const definitionsFolder = `--definitions=${judge.dir}/${name}.repart.d`
    const { stdout } = await judge.run(['systemd-repart', ...argv, definitionsFolder, `${judge.dir}/${name}.raw`])
    const types = JSON.parse(stdout).map(({ type }: { type: string }) => type.replace('-x86-64', ''))
    assert.deepEqual(
      types,
      parse(definitions).map(({ type }) => type.designator),
      name,
    )
  }
  await writeDefinitions(`${judge.dir}/signed.repart.d`, extensionSources({ kind: 'sysext', verity: 'signed' }))
  const written = readdirSync(`${judge.dir}/signed.repart.d`)
  assert.deepEqual(written, ['10-root.conf', '20-root-verity.conf', '30-root-verity-sig.conf'])
  assert.match(readFileSync(`${judge.dir}/sysext.repart.d/10-root.conf`, 'utf8'), /^\[Partition\]\nType=root\n/)
})

oracle(
  'fsck.vfat',
  'an ESP by itself holds what the tree has for it, also what was not there when its size was said',
  async (_t, judge) => {
    const uki = madeFile(new Uint8Array(60 << 20).fill(7), 0)
    const loader = madeFile('timeout 3\n', 0)
    const before = treeOf([['efi/loader/loader.conf', loader]], madeDirectory(0))
    const after = treeOf([...before, ['boot/EFI/Linux/soup.efi', uki]], madeDirectory(0))
    const definitions = parse(espDefinitions(before, 512))
    mkdirSync(`${judge.dir}/work`)
    const options = { seed: '4f0c2b7e-9d3a-4a51-8b1e-2f6d7c8a9b10', epoch: 1_700_000_000 }
    const filled = await fillPartitions(definitions, after, { ...options, work: `${judge.dir}/work` }, new Report(() => {}))
    const plan = planPartitions(definitions, contentsOf(filled), options)
    await writeDisk(`${judge.dir}/esp.raw`, plan, [filled[0]!.source])
    const [{ start, size }] = JSON.parse((await judge.run(['sfdisk', '--json', 'esp.raw'])).stdout).partitiontable.partitions
    await judge.run(['dd', 'if=esp.raw', 'of=esp', 'bs=512', `skip=${start}`, `count=${size}`, 'status=none'])
    await judge.run(['fsck.vfat', '-n', 'esp'])
    assert.match((await judge.run(['mdir', '-i', 'esp', '::/EFI/Linux'])).stdout, /SOUP +EFI +62914560/)
    assert.match((await judge.run(['mtype', '-i', 'esp', '::/loader/loader.conf'])).stdout, /timeout 3/)
  },
)
