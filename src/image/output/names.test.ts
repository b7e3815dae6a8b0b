import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { test } from 'node:test'
import { oracle } from '../../../test/oracle.ts'
import { sha256 } from '../../base/digest.ts'
import { formatChecksums } from './checksums.ts'
import { besideNames, imageName, type OutputNaming, plainName, tarName } from './names.ts'

// biome-ignore format: table
const NAMES: [naming: OutputNaming, name: string][] = [
  [{ output: 'Soup_1', extension: 'raw',    format: 'disk',      compression: 'none' }, 'Soup_1.raw'],
  [{ output: 'Soup_1', extension: 'raw',    format: 'disk',      compression: 'zstd' }, 'Soup_1.raw.zst'],
  [{ output: 'Soup_1', extension: 'img',    format: 'disk',      compression: 'xz' },   'Soup_1.img.xz'],
  [{ output: 'Soup_1', extension: 'raw',    format: 'esp',       compression: 'zstd' }, 'Soup_1.raw'],
  [{ output: 'Soup_1', extension: 'efi',    format: 'uki',       compression: 'zstd' }, 'Soup_1.efi'],
  [{ output: 'initrd', extension: 'cpio',   format: 'cpio',      compression: 'zstd' }, 'initrd.cpio.zst'],
  [{ output: 'image',  extension: 'tar',    format: 'tar',       compression: 'gz' },   'image.tar.gz'],
  [{ output: 'image',  extension: '',       format: 'directory', compression: 'none' }, 'image'],
  [{ output: 'image',  extension: '',       format: 'oci',       compression: 'gz' },   'image'],
  [{ output: 'tools',  extension: 'raw',    format: 'sysext',    compression: 'gz' },   'tools.raw.gz'],
]
for (const [naming, name] of NAMES)
  test(`imageName() is ${name} for ${naming.format} and ${naming.compression}`, () => assert.equal(imageName(naming), name))

test('names of what lies beside an image follow from its name without extension', () => {
  assert.equal(plainName({ output: 'a', extension: 'raw', format: 'disk', compression: 'zstd' }), 'a.raw')
  assert.equal(tarName('a_1', 'xz'), 'a_1.tar.xz')
  const { kernelModulesInitrd, repartDefinitions, checksums } = besideNames('a_1')
  assert.deepEqual(
    [kernelModulesInitrd, repartDefinitions, checksums],
    ['a_1.kernel-modules-initrd', 'a_1.repart.d', 'a_1.SHA256SUMS'],
  )
})

test('formatChecksums() refuses a name that would be two lines or another folder', () => {
  for (const name of ['a\nb', '../a', 'a\\b'])
    assert.throws(() => formatChecksums(new Map([[name, sha256('')]])), { code: 'usage' })
})

oracle('sha256sum', 'sha256sum checks what formatChecksums() wrote', async (_t, judge) => {
  const files = { b: 'soup', 'a b': 'lobster' }
  for (const [name, text] of Object.entries(files)) writeFileSync(`${judge.dir}/${name}`, text)
  const digests = new Map(Object.entries(files).map(([name, text]) => [name, sha256(text)]))
  writeFileSync(`${judge.dir}/SHA256SUMS`, formatChecksums(digests))
  assert.equal((await judge.run(['sha256sum', '--check', '--strict', 'SHA256SUMS'])).stdout, 'a b: OK\nb: OK\n')
})
