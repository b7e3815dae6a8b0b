/** Partitions that no tree covers: what the system writes, and what nobody knows. */
import { formatSize } from '../base/size.ts'
import { type Disk, type DiskPartition, readWithin } from './disk.ts'
import type { TreeFacts } from './facts.ts'
import { checkLink, type Finding, type Link } from './link.ts'
import { fileSystemOf } from './verity.ts'

/** Mounted by themselves, and read by the system before anybody logs in. */
const STATE = ['root', 'var', 'home', 'srv', 'tmp', 'user-home', 'swap']

export async function checkDataPartitions(
  disk: Disk,
  partitions: readonly DiskPartition[],
  trees: readonly TreeFacts[],
  links: Link[],
): Promise<void> {
  const covered = new Set(trees.map(({ partition }) => partition.number))
  const others = partitions.filter(
    ({ number, designator }) => !covered.has(number) && !/esp|xbootldr|verity/.test(designator ?? ''),
  )
  if (others.length === 0) return
  await checkLink(links, 'verity', 'other partitions', (finding) => {
    for (const partition of others) judge(disk, partition, trees, finding)
  })
}

function judge(disk: Disk, partition: DiskPartition, trees: readonly TreeFacts[], { evidence, wrong }: Finding): void {
  const { designator, number, label, type, sizeBytes } = partition
  const holds = fileSystemOf(readWithin(disk, partition)) ?? 'nothing that is known'
  const shown = `partition ${number} ${label === '' ? '' : `${label} `}(${designator ?? type}, ${formatSize(sizeBytes)}, ${holds})`
  if (designator === 'usr' || (designator === 'root' && trees.some(({ verity }) => verity === 'root')))
    evidence(`${shown}: no UKI pins it, so that nothing boots it`)
  else if (designator === 'root' && holds !== 'LUKS' && holds !== 'nothing that is known')
    wrong(
      `${shown} is neither encrypted nor under verity: whoever has the disk changes what is in /etc`,
      "set Root=tpm2 or Root=memory (recipe.ts: root: 'tpm2'), or Encrypt=tpm2 in repart.d",
    )
  else evidence(`${shown}: ${STATE.includes(designator ?? '') ? 'data of the machine' : 'nothing mounts it by itself'}`)
}
