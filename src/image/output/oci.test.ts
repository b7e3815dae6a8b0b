import assert from 'node:assert/strict'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { test } from 'node:test'
import { oracle } from '../../../test/oracle.ts'
import { sha256 } from '../../base/digest.ts'
import { madeDirectory, madeFile, madeSymlink } from '../../tree/content.ts'
import { type Inode, treeOf } from '../../tree/tree.ts'
import { type OciOptions, writeOci } from './oci.ts'

const EPOCH = 1_700_000_000
const tool: Inode = { ...madeFile(Buffer.alloc(300_000, 'soup'), EPOCH - 5, 0o755), uid: 0 }
const tree = treeOf(
  [
    ['usr/bin/tool', tool],
    ['usr/bin/same', tool],
    ['sbin', madeSymlink('usr/sbin', EPOCH)],
    ['etc/os-release', madeFile('ID=soup\n', EPOCH + 100)],
    ['tmp/left', madeFile('x', EPOCH)],
  ],
  madeDirectory(EPOCH),
)
const options: OciOptions = {
  architecture: 'x86-64',
  epoch: EPOCH,
  imageId: 'soup',
  imageVersion: '7',
  kernelCommandLine: ['quiet'],
  labels: { flavour: 'lobster' },
  annotations: { 'org.opencontainers.image.title': 'Soup' },
  compression: 'gz',
  level: 3,
}

for (const compression of ['gz', 'zstd', 'none'] as const) {
  oracle('skopeo', `skopeo reads an image whose layer is compressed with ${compression}`, async (_t, judge) => {
    await writeOci(tree, `${judge.dir}/image`, { ...options, compression })
    const image = JSON.parse((await judge.run(['skopeo', 'inspect', 'oci:image:soup'])).stdout)
    assert.deepEqual(
      [image.Architecture, image.Os, image.Created, image.Labels, image.Layers.length],
      ['amd64', 'linux', '2023-11-14T22:13:20Z', { flavour: 'lobster' }, 1],
    )
    const config = JSON.parse((await judge.run(['skopeo', 'inspect', '--config', 'oci:image:soup'])).stdout)
    assert.deepEqual(config.config, { Cmd: ['/sbin/init', 'quiet'], Labels: { flavour: 'lobster' } })
    await judge.run(['skopeo', '--insecure-policy', 'copy', 'oci:image:soup', 'dir:copy'])
  })
}

oracle('umoci', 'umoci unpacks the image as the tree is', async (_t, judge) => {
  await writeOci(tree, `${judge.dir}/image`, options)
  const stat = JSON.parse((await judge.run(['umoci', 'stat', '--image', 'image:soup', '--json'])).stdout)
  assert.equal(stat.history.length, 1)
  await judge.run(['umoci', 'raw', 'unpack', '--rootless', '--image', 'image:soup', 'rootfs'])
  const root = `${judge.dir}/rootfs`
  assert.equal(statSync(`${root}/usr/bin/tool`).ino, statSync(`${root}/usr/bin/same`).ino)
  assert.equal(statSync(`${root}/etc/os-release`).mtimeMs, EPOCH * 1000)
  assert.deepEqual([existsSync(`${root}/tmp`), existsSync(`${root}/tmp/left`)], [true, false])
})

oracle('skopeo', 'writeOci() gives the same bytes again, each blob under its digest', async (_t, judge) => {
  const files = (image: string) =>
    readdirSync(`${judge.dir}/${image}`, { recursive: true, encoding: 'utf8' })
      .filter((path) => statSync(`${judge.dir}/${image}/${path}`).isFile())
      .sort()
      .map((path): [string, string] => [path, sha256(readFileSync(`${judge.dir}/${image}/${path}`))])
  for (const image of ['a', 'b']) await writeOci(tree, `${judge.dir}/${image}`, options)
  assert.deepEqual(files('a'), files('b'))
  for (const [path, digest] of files('a')) if (path.startsWith('blobs/')) assert.equal(path, `blobs/sha256/${digest}`)
})

test('writeOci() refuses a compression OCI has not, and leaves nothing of an image that failed', async (t) => {
  const dir = mkdtempSync(`${tmpdir()}/bisque-oci-`)
  t.after(() => rmSync(dir, { recursive: true, force: true }))
  await assert.rejects(writeOci(tree, `${dir}/image`, { ...options, compression: 'xz' }), {
    code: 'recipe',
    message: /gz, zstd and none/,
  })
  const gone = treeOf([['f', { ...tool, content: { path: `${dir}/gone` } }]], madeDirectory(EPOCH))
  await assert.rejects(writeOci(gone, `${dir}/image`, options), /ENOENT/)
  assert.deepEqual(readdirSync(dir), [])
})
