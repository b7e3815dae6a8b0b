/** ParticleOS, baked in full by us and by mkosi on the same disk. PARTICLEOS and MKOSI name checkouts of the two. */
import { copyFileSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { loadavg, tmpdir } from 'node:os'
import { join } from 'node:path'
import { formatSize } from '../src/base/size.ts'
import { CACHE } from '../test/baked.ts'
import { compareImages } from '../test/peer/compare.ts'
import { judge, sayDifference } from '../test/peer/explained.ts'
import { enterTree } from '../test/peer/mkosi.ts'
import { copyRecipe, makeKeys } from '../test/peer/particleos.ts'
import { makePeerTree } from './mkosi.ts'
import { type Usage, watch } from './processes.ts'

export const name = 'particleos'

const ROUNDS = 2

export async function run(): Promise<void> {
  const { PARTICLEOS: checkout, MKOSI: mkosi } = process.env
  if (checkout === undefined || mkosi === undefined || process.getuid?.() !== 0) {
    console.log('particleos: not compared: PARTICLEOS and MKOSI must name checkouts, and mkosi here needs root')
    return
  }
  const dir = mkdtempSync(join(tmpdir(), 'bisque-bench-'))
  try {
    const [ours, theirs] = [join(dir, 'ours'), join(dir, 'theirs')]
    for (const folder of [ours, theirs]) copyRecipe(checkout, folder)
    makeKeys(ours)
    for (const file of ['mkosi.key', 'mkosi.crt']) copyFileSync(join(ours, file), join(theirs, file))
    const { bake, build } = await prepare({ dir, ours, theirs, mkosi })
    for (let round = 1; round <= ROUNDS; round++) {
      const [before, a] = [load(), await bake()]
      const [between, b] = [load(), await build()]
      const ratio = (b.ms / a.ms).toFixed(1)
      console.log(
        `round ${round}: bisque ${figures(a)} (load ${before}) · mkosi ${figures(b)} (load ${between}) · ratio ${ratio}`,
      )
    }
    summarize(join(ours, 'mkosi.output'), join(theirs, 'mkosi.output'))
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }
}

interface Places {
  dir: string
  ours: string
  theirs: string
  mkosi: string
}

/** Both builds, run once: packages are in their caches, ours has its lock. */
async function prepare({ dir, ours, theirs, mkosi }: Places): Promise<Record<'bake' | 'build', () => Promise<Usage>>> {
  const bisque = (verb: string, recipe: string) =>
    watch([process.execPath, 'src/main.ts', verb, recipe, '--cache', CACHE, '--set', 'AllowExpired=yes'])
  const tree = await makePeerTree(join(dir, 'tree'), bisque)
  const bake = () => bisque('build', ours)
  const argv = ['/work/mkosi/bin/mkosi', '--force', '--incremental=no', 'build']
  const own = ['/var/tmp', '/var/cache/mkosi'].map((place): [string, string] => [place, join(dir, 'own', place)])
  for (const [, folder] of own) mkdirSync(folder, { recursive: true })
  const binds = { '/work/recipe': theirs, '/work/mkosi': mkosi, ...Object.fromEntries(own) }
  const build = () => watch(enterTree(tree, binds, '/work/recipe', argv))
  await bisque('lock', ours)
  await bake()
  await build()
  return { bake, build }
}

function summarize(ours: string, theirs: string): void {
  const { compared, differences } = compareImages(ours, theirs)
  const { explained, unexplained } = judge(differences)
  console.log(
    `compared: ${Object.entries(compared)
      .map(([part, count]) => `${count} of ${part}`)
      .join(', ')}`,
  )
  console.log(`${differences.length} differences, ${unexplained.length} of them unexplained`)
  for (const { reason, differences } of explained)
    console.log(`  ${differences.length} × ${reason.part} ${reason.path}: ${reason.why}`)
  for (const difference of unexplained) console.log(`  ! ${sayDifference(difference)}`)
}

/** Of the last minute: a machine that does other things, too, says little. */
const load = (): string => loadavg()[0]!.toFixed(1)

const figures = ({ ms, peakBytes, largestBytes }: Usage): string =>
  `${(ms / 1000).toFixed(1)} s, ${formatSize(peakBytes)} at most, largest process ${formatSize(largestBytes)}`
