import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { test } from 'node:test'
import { testKeys } from '../../../test/keys.ts'
import { type Judge, oracle } from '../../../test/oracle.ts'
import { sha256 } from '../../base/digest.ts'
import { Report } from '../../base/report.ts'
import { encodeVeritySignature } from '../../formats/verity.ts'
import { signRootHash } from '../../signing/root-hash.ts'
import { madeDirectory, madeFile } from '../../tree/content.ts'
import { treeOf } from '../../tree/tree.ts'
import { writeDisk } from '../disk.ts'
import { type ExtensionDisk, type ExtensionInput, makeExtension } from './extension.ts'

const EPOCH = 1_700_000_000
const { signers } = await testKeys()
const report = new Report(() => {})
const RELEASE = 'ID=_any\nARCHITECTURE=x86-64\n'
const tree = treeOf(
  [
    ['usr/lib/extension-release.d/extension-release.soup', madeFile(RELEASE, EPOCH)],
    ['etc/extension-release.d/extension-release.soup', madeFile(RELEASE, EPOCH)],
    ['usr/lib/os-release', madeFile('ID=soup\nVERSION_ID=1\n', EPOCH)],
    ['usr/lib/systemd/system/soup.service', madeFile('[Service]\nExecStart=true\n', EPOCH)],
    ['etc/soup.conf', madeFile('hot\n', EPOCH)],
    ['opt/soup/bowl', madeFile(Buffer.alloc(100_000, 'soup'), EPOCH, 0o755)],
    ['var/left', madeFile('', EPOCH)],
  ],
  madeDirectory(EPOCH),
)
const input: Omit<ExtensionInput, 'work'> = {
  kind: 'sysext',
  output: 'soup',
  architecture: 'x86-64',
  verity: 'signed',
  seed: '4f0c2b7e-9d3a-4a51-8b1e-2f6d7c8a9b10',
  epoch: EPOCH,
  signRootHash: async (hash) => encodeVeritySignature(await signRootHash(hash, signers.verity)),
}

async function write(judge: Pick<Judge, 'dir'>, name: string, more: Partial<ExtensionInput>): Promise<ExtensionDisk> {
  const work = `${judge.dir}/${name}`
  mkdirSync(work)
  const disk = await makeExtension(tree, { ...input, work, ...more }, report)
  await writeDisk(`${judge.dir}/${name}.raw`, disk.plan, disk.sources)
  rmSync(work, { recursive: true })
  return disk
}

const POLICY = {
  signed: 'root=signed',
  hash: 'root=verity',
  unprotected: 'root=unprotected',
} as const

for (const kind of ['sysext', 'confext', 'portable'] as const) {
  for (const verity of ['signed', 'hash', 'unprotected'] as const) {
    oracle('systemd-dissect', `systemd-dissect accepts a ${kind} whose verity is ${verity}`, async (_t, judge) => {
      const disk = await write(judge, 'soup', { kind, verity })
      await judge.run(['systemd-dissect', '--validate', `--image-policy=${POLICY[verity]}`, 'soup.raw'])
      const table = JSON.parse((await judge.run(['sfdisk', '--json', 'soup.raw'])).stdout).partitiontable.partitions
      assert.equal(table.length, { signed: 3, hash: 2, unprotected: 1 }[verity])
      assert.equal(disk.rootHash === undefined, verity === 'unprotected')
      const [{ start, size }] = table
      await judge.run(['dd', 'if=soup.raw', 'of=root', 'bs=512', `skip=${start}`, `count=${size}`, 'status=none'])
      await judge.run(['fsck.erofs', '--extract=out', '--no-preserve-owner', 'root'])
      const found = (await judge.run(['sh', '-c', 'cd out && find . -type f | sort'])).stdout.trim().split('\n')
      const held = [...tree].filter(([path, { type }]) => type === 'file' && HELD[kind].test(path)).map(([path]) => `./${path}`)
      assert.deepEqual(found, held.sort())
      if (verity === 'unprotected') return
      const [, hash] = table
      await judge.run(['dd', 'if=soup.raw', 'of=hash', 'bs=512', `skip=${hash.start}`, `count=${hash.size}`, 'status=none'])
      await judge.run(['veritysetup', 'verify', 'root', 'hash', disk.rootHash!])
    })
  }
}
const HELD = { sysext: /^(?:usr|opt)\//, confext: /^etc\//, portable: /./ }

oracle('systemd-dissect', 'an extension whose signature is to come keeps its place', async (_t, judge) => {
  const disk = await write(judge, 'soup', { signRootHash: undefined })
  assert.deepEqual(
    disk.plan.partitions.map(({ typeName }, i) => [typeName, disk.sources[i] !== undefined]),
    [
      ['root-x86-64', true],
      ['root-x86-64-verity', true],
      ['root-x86-64-verity-sig', false],
    ],
  )
  await judge.run(['sfdisk', '--verify', 'soup.raw'])
})

test('makeExtension() gives the same bytes again', async (t) => {
  const dir = mkdtempSync(`${tmpdir()}/bisque-extension-`)
  t.after(() => rmSync(dir, { recursive: true, force: true }))
  for (const name of ['a', 'b']) await write({ dir }, name, {})
  assert.equal(sha256(readFileSync(`${dir}/a.raw`)), sha256(readFileSync(`${dir}/b.raw`)))
})

test('makeExtension() refuses a tree without the release file that its name asks for', async () => {
  const other = { ...input, work: '/nowhere', output: 'bread' }
  await assert.rejects(makeExtension(tree, other, report), {
    code: 'recipe',
    message: 'Cannot make a sysext of the tree: it has no /usr/lib/extension-release.d/extension-release.bread',
  })
  await assert.rejects(makeExtension(tree, { ...other, kind: 'confext' }, report), { message: /has no \/etc\/extension-release/ })
})
