/** A bootable system that is no disk: boot loader, kernels and UKIs as files of the tree, below `efi/` and `boot/`. */
import { withFiles } from '../image/boot-loader.ts'
import { kernelsOf, withKernelsInPlace } from '../image/kernels.ts'
import { clampTimes } from '../image/usr.ts'
import { withWorkers } from '../run/workers.ts'
import type { Tree } from '../tree/tree.ts'
import { loaderFiles, makeBoot, osReleaseOf, packKernelInitrds, wantsKernel } from './boot.ts'
import type { Env } from './env.ts'
import type { MadeImage, OutputInput } from './output.ts'
import { writeBootSplit } from './split.ts'

/** The tree with what boots it, parts of which are split off; as it is where the recipe wants it not to, or where nothing in it could. */
export async function bootableTree(input: OutputInput, made: MadeImage, { report }: Env): Promise<Tree> {
  const { image, signing, epoch } = input
  const { settings } = image
  const { tree } = input.system
  // An archive of layers starts without firmware: only who asks for it gets a boot loader there.
  if (!wantsKernel(settings) || (settings.format === 'oci' && settings.bootable !== true)) return tree
  const installed = withKernelsInPlace(tree)
  const kernels = await kernelsOf(installed)
  if (kernels.length === 0 && settings.bootable !== true) return tree
  const loader = await loaderFiles({ image, signing, system: installed, epoch })
  const system = withFiles(installed, loader)
  const own = await withWorkers(undefined, (workers) =>
    packKernelInitrds({ image, system, kernels, artifacts: input.system.artifacts, epoch }, workers),
  )
  const initrds = await input.initrds()
  const boot = await makeBoot(
    {
      ...{ image, signing, system, loader, own, initrds, epoch, words: [], partitions: [], rootHash: undefined },
      osRelease: await osReleaseOf(system),
      kernels: input.system.boot,
    },
    report,
  )
  await writeBootSplit(input, { boot, initrds, modules: own.modules }, made)
  return clampTimes(withFiles(system, boot.files), epoch)
}
