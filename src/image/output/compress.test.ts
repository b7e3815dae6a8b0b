import assert from 'node:assert/strict'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { type TestContext, test } from 'node:test'
import { gunzipSync, zstdDecompressSync } from 'node:zlib'
import { oracle } from '../../../test/oracle.ts'
import { sha256 } from '../../base/digest.ts'
import { type Compression, compressed, compressedName, compressFile } from './compress.ts'

/** Larger than a part of either kind, and no multiple of one. */
const LARGE = Buffer.concat(Array.from({ length: 26_000 }, (_, i) => Buffer.alloc(1024, `${sha256(`${i}`)}${i}`)))

function folder(t: TestContext): string {
  const dir = mkdtempSync(`${tmpdir()}/bisque-compress-`)
  t.after(() => rmSync(dir, { recursive: true, force: true }))
  return dir
}

async function bytesOf(input: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const parts: Uint8Array[] = []
  for await (const bytes of input) parts.push(bytes)
  return Buffer.concat(parts)
}

async function* pieces(bytes: Uint8Array, step: number) {
  for (let at = 0; at < bytes.length; at += step) yield bytes.subarray(at, at + step)
}

test('compressed() gives the same bytes whatever the pieces and the number of threads', async () => {
  for (const compression of ['zstd', 'gz'] as const) {
    const one = await bytesOf(compressed(pieces(LARGE, 1 << 20), { compression, level: 3, workers: 1 }))
    const two = await bytesOf(compressed(pieces(LARGE, 777_777), { compression, level: 3, workers: 3 }))
    assert.ok(one.equals(two), compression)
    const back = compression === 'gz' ? gunzipSync(one) : zstdDecompressSync(one)
    assert.ok(LARGE.equals(back), compression)
  }
})

for (const [tool, compression, extension] of [
  ['zstd', 'zstd', '.zst'],
  ['xz', 'xz', '.xz'],
  ['gzip', 'gz', '.gz'],
] as const) {
  oracle(tool, `${tool} decompresses what compressFile() wrote`, async (_t, judge) => {
    for (const bytes of [LARGE, Buffer.alloc(0)]) {
      writeFileSync(`${judge.dir}/a`, bytes)
      const path = await compressFile(`${judge.dir}/a`, { compression, level: 1 })
      assert.equal(path, `${judge.dir}/a${extension}`)
      await judge.run([tool, '-t', `a${extension}`])
      await judge.run([tool, '-d', '-f', `a${extension}`])
      assert.ok(bytes.equals(readFileSync(`${judge.dir}/a`)))
      rmSync(path, { force: true })
    }
  })
}

test('compressFile() leaves alone what is not to be compressed, and overwrites nothing', async (t) => {
  const dir = folder(t)
  writeFileSync(`${dir}/a`, 'x')
  assert.equal(await compressFile(`${dir}/a`, { compression: 'none', level: 3 }), `${dir}/a`)
  writeFileSync(`${dir}/a.zst`, 'other')
  await assert.rejects(compressFile(`${dir}/a`, { compression: 'zstd', level: 3 }), /EEXIST/)
  assert.equal(readFileSync(`${dir}/a.zst`, 'utf8'), 'other')
})

const WRONG: [Compression, number][] = [
  ['zstd', 23],
  ['xz', 10],
  ['gz', -1],
  ['gz', 1.5],
]
for (const [compression, level] of WRONG) {
  test(`compressFile() refuses ${compression} at level ${level}`, async (t) => {
    const dir = folder(t)
    writeFileSync(`${dir}/a`, 'x')
    await assert.rejects(compressFile(`${dir}/a`, { compression, level }), { code: 'recipe', message: /its levels are 0 to/ })
    assert.ok(!existsSync(compressedName(`${dir}/a`, compression)))
  })
}

test('compressed() passes on what its input throws', async () => {
  const broken = async function* () {
    yield LARGE
    throw new Error('no more')
  }
  for (const compression of ['none', 'zstd', 'gz'] as const)
    await assert.rejects(bytesOf(compressed(broken(), { compression, level: 1 })), /no more/)
})
