import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { oracle } from '../../../test/oracle.ts'
import { madeDirectory, madeFile } from '../../tree/content.ts'
import { treeOf } from '../../tree/tree.ts'
import { writeTar } from './archive.ts'
import { compressedName } from './compress.ts'

const EPOCH = 1_700_000_000
const tree = treeOf(
  [
    ['usr/soup', madeFile('hot', EPOCH + 9)],
    ['tmp/left', madeFile('', EPOCH)],
  ],
  madeDirectory(EPOCH),
)

for (const compression of ['none', 'zstd', 'xz', 'gz'] as const) {
  oracle('bsdtar', `bsdtar lists what writeTar() compressed with ${compression}, the same bytes each time`, async (_t, judge) => {
    const names = ['a', 'b'].map((name) => compressedName(`${judge.dir}/${name}.tar`, compression))
    for (const name of names) await writeTar(tree, name, { compression, level: 3, epoch: EPOCH })
    assert.equal((await judge.run(['bsdtar', '-tf', names[0]!])).stdout, './\n./tmp/\n./usr/\n./usr/soup\n')
    assert.ok(readFileSync(names[0]!).equals(readFileSync(names[1]!)))
  })
}

oracle('bsdtar', 'writeTar() leaves nothing of an archive that failed', async (_t, judge) => {
  const gone = { ...madeFile('x', EPOCH), content: { path: `${judge.dir}/gone` } }
  const broken = treeOf([['f', gone]], madeDirectory(EPOCH))
  for (const compression of ['none', 'zstd', 'gz'] as const)
    await assert.rejects(writeTar(broken, `${judge.dir}/a.tar`, { compression, level: 3, epoch: EPOCH }), /ENOENT/)
  assert.deepEqual(readdirSync(judge.dir), [])
})
