/** A full bake of examples/minimal with all packages cached, and what mkosi takes for the same packages on the same disk. */
import { cpSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { formatSize } from '../src/base/size.ts'
import { CACHE } from '../test/baked.ts'
import { mkosiPeer } from './mkosi.ts'
import { type Usage, watch } from './processes.ts'

export const name = 'bake'

const ROUNDS = 2

export async function run(): Promise<void> {
  const dir = mkdtempSync(join(tmpdir(), 'bisque-bench-'))
  try {
    cpSync('examples/minimal', join(dir, 'recipe'), { recursive: true, filter: (path) => !/\/(?:out|keys)$/.test(path) })
    const bake = () =>
      watch([process.execPath, 'src/main.ts', 'build', join(dir, 'recipe'), '-o', join(dir, 'out'), '--cache', CACHE])
    await bake() // fetches what is missing, makes keys
    const peer = await mkosiPeer(dir)
    for (let round = 1; round <= ROUNDS; round++) {
      const ours = await bake()
      const theirs = await peer?.()
      console.log(
        `round ${round}: bisque ${figures(ours)}${theirs ? ` · mkosi ${figures(theirs)} · ratio ${(theirs.ms / ours.ms).toFixed(1)}` : ''}`,
      )
    }
    if (peer === undefined) console.log('mkosi needs root and the tools tree of npm test: not compared')
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }
}

const figures = ({ ms, peakBytes, largestBytes }: Usage): string =>
  `${(ms / 1000).toFixed(1)} s, ${formatSize(peakBytes)} at most, largest process ${formatSize(largestBytes)}`
