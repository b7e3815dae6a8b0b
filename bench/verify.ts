/** `bisque verify` of examples/minimal, every link, against what `veritysetup verify` takes for one of them, the hash tree. */
import { readdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { formatSize } from '../src/base/size.ts'
import { baked, bakedManifest } from '../test/baked.ts'
import { best, timePeer } from './peer.ts'
import { type Usage, watch } from './processes.ts'

export const name = 'verify'

export async function run(): Promise<void> {
  const argv = [process.execPath, 'src/main.ts', 'verify', baked('.raw'), '--trust', 'examples/minimal/keys', '--json']
  let usage: Usage | undefined
  const ms = await best(async () => {
    usage = await watch(argv)
  })
  const { stdout, peakBytes, largestBytes } = usage!
  const { images } = JSON.parse(stdout.trim().split('\n').at(-1)!) as { images: { links: unknown[] }[] }
  console.log(
    `verify: ${images[0]!.links.length} links in ${Math.round(ms)} ms, ${formatSize(peakBytes)} at most, largest process ${formatSize(largestBytes)}`,
  )
  const { rootHash } = bakedManifest()
  const folder = dirname(baked('.raw'))
  const part = (type: string) => join(folder, readdirSync(folder).find((file) => file.includes(`.${type}.`))!)
  const theirs = timePeer('veritysetup', ['verify', part('usr-x86-64'), part('usr-x86-64-verity'), rootHash])
  if (theirs !== undefined)
    console.log(`  veritysetup verify, of the hash tree alone: ${Math.round(theirs)} ms; ×${(ms / theirs).toFixed(1)}`)
}
