import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { oracle } from '../../../test/oracle.ts'
import { startWorkers } from '../../run/workers.ts'
import { madeDirectory, madeFile, madeSymlink } from '../../tree/content.ts'
import { treeOf } from '../../tree/tree.ts'
import { compressedName } from './compress.ts'
import { writeCpio } from './cpio.ts'

const EPOCH = 1_700_000_000
const tree = treeOf(
  [
    ['init', madeSymlink('usr/lib/systemd/systemd', EPOCH)],
    ['usr/x', madeFile('soup', EPOCH + 9, 0o755)],
  ],
  madeDirectory(EPOCH),
)

for (const compression of ['none', 'zstd', 'xz', 'gz'] as const) {
  oracle('bsdtar', `cpio reads an archive compressed with ${compression}, of the same bytes each time`, async (t, judge) => {
    const workers = startWorkers(2)
    t.after(() => workers.close())
    const names = ['a', 'b'].map((name) => compressedName(`${judge.dir}/${name}.cpio`, compression))
    for (const name of names) await writeCpio(tree, name, { epoch: EPOCH, compression, level: 3, workers })
    const { stdout } = await judge.run(['bsdtar', '-tvf', names[0]!])
    assert.match(stdout, /^lrwxrwxrwx .* init -> usr\/lib\/systemd\/systemd$/m)
    assert.match(stdout, /^-rwxr-xr-x .* 4 Nov 14 +2023 usr\/x$/m)
    assert.ok(readFileSync(names[0]!).equals(readFileSync(names[1]!)))
  })
}
