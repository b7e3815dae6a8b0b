import assert from 'node:assert/strict'
import { mkdirSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { oracle } from '../../test/oracle.ts'
import { readText } from '../tree/content.ts'
import { parseDefinitions } from './repart/definition.ts'
import { specifiersOf } from './repart/specifiers.ts'
import { ROOT_CMDLINE, ROOT_PCRS, rootDefinition, rootUnlocking } from './root.ts'

const EPOCH = 1_795_392_000
const DEFINITION = 'usr/lib/repart.d/40-root.conf'
const parsed = (text: string) =>
  parseDefinitions([{ file: DEFINITION, text }], { architecture: 'x86-64', specifiers: specifiersOf('', 'x86-64') })

test('rootDefinition() names the partition by the image, within what a label holds', async () => {
  for (const [label, expected] of [
    ['Minimal', 'Minimal-root'],
    ['100%', '100%-root'],
    ['x'.repeat(40), `${'x'.repeat(31)}-root`],
  ] as const) {
    const text = await readText(rootDefinition({ label, epoch: EPOCH }), DEFINITION)
    assert.deepEqual(
      parsed(text!).map((one) => [one.type.name, one.label, one.format]),
      [['root-x86-64', expected, 'ext4']],
    )
    assert.match(text!, /^Encrypt=tpm2$/m)
  }
})

test('what the initrd seals the root to, and unlocks it by, is the device that the command line asks for', async () => {
  const tree = rootUnlocking({ epoch: EPOCH })
  const [name, device, key, options] = (await readText(tree, 'etc/crypttab'))!.trim().split(' ')
  assert.ok(ROOT_CMDLINE.includes(`root=/dev/mapper/${name}` as never))
  assert.deepEqual([device, key], ['/dev/gpt-auto-root-luks', 'none'])
  assert.ok(options!.split(',').includes('tpm2-device=auto'))
  const dropIn = await readText(tree, 'usr/lib/systemd/system/systemd-repart.service.d/50-bisque-root.conf')
  assert.match(dropIn!, new RegExp(`--tpm2-pcrs=${ROOT_PCRS.join('\\+')} --tpm2-public-key-pcrs=11 --tpm2-public-key=/`))
})

oracle('systemd-repart', 'plans the root behind what is there, in all the room that is left', async (_t, judge) => {
  mkdirSync(join(judge.dir, 'definitions'))
  const tree = rootDefinition({ label: 'Minimal', epoch: EPOCH })
  writeFileSync(join(judge.dir, 'definitions/40-root.conf'), (await readText(tree, DEFINITION))!)
  writeFileSync(join(judge.dir, 'disk.raw'), '')
  truncateSync(join(judge.dir, 'disk.raw'), 4 * 2 ** 30)
  const argv = ['systemd-repart', '--dry-run=yes', '--empty=force', '--definitions=definitions', '--json=short']
  const { stdout } = await judge.run([...argv, '--seed=5a3f4b1e-0000-4000-8000-000000000001', join(judge.dir, 'disk.raw')])
  const [root] = JSON.parse(stdout) as { type: string; label: string; raw_size: number }[]
  assert.deepEqual([root!.type, root!.label], ['root-x86-64', 'Minimal-root'])
  assert.ok(root!.raw_size > 4 * 2 ** 30 - 4 * 2 ** 20)
})
