/** Each tree that some profile pins. An image has one; a disk in use may have two, and an empty place for the next. */
import type { Workers } from '../run/workers.ts'
import type { Disk, DiskPartition } from './disk.ts'
import type { ImageFacts, TreeFacts } from './facts.ts'
import { type Link, leaveUnchecked } from './link.ts'
import { checkTree, type PinnedTree } from './usr.ts'

const MAX_TREES = 16
const LINKS = ['usr partitions', 'hash tree', 'usr file system', 'root hash signature']

export async function checkTrees(disk: Disk, facts: ImageFacts, workers: Workers, links: Link[]): Promise<TreeFacts[]> {
  const { anchor, partitions } = facts
  const { chain, total } = anchor
  if (chain.verity === undefined) return []
  const pinned = pinnedBy(facts)
  // Nothing of the image pins them, so what mounts it goes by the halves of root hashes that are their UUIDs.
  if (pinned.length === 0 && !chain.bootable)
    for (const rootHash of hashesOf(partitions, chain.verity)) pinned.push({ verity: chain.verity, rootHash, profiles: [] })
  const trees: TreeFacts[] = []
  for (const tree of pinned.slice(0, MAX_TREES)) {
    const found = await checkTree(disk, partitions, tree, facts, workers, links)
    if (found) trees.push(found)
  }
  if (pinned.length > MAX_TREES) leaveUnchecked(links, 'verity', 'hash trees', `there are ${pinned.length}`)
  if (pinned.length > 0) return trees
  if (total && !partitions.some(({ designator }) => /^(?:usr|root)-verity$/.test(designator ?? ''))) nothingCovered(links)
  else for (const name of LINKS) leaveUnchecked(links, 'verity', name, 'no UKI names a root hash')
  return trees
}

function nothingCovered(links: Link[]): void {
  links.push({
    ...{ stage: 'verity', name: 'verity', ok: false, evidence: '' },
    problem: 'no partition has a hash tree, and no command line a root hash: nothing covers the files of the system',
    hint: 'set Verity=yes, or add Verity=data, hash and signature to the partition definitions',
  })
}

function pinnedBy({ ukis }: ImageFacts): PinnedTree[] {
  const pinned = new Map<string, PinnedTree>()
  for (const uki of ukis)
    for (const profile of uki.profiles) {
      const { verity, rootHash } = profile
      if (verity === undefined || rootHash === undefined) continue
      const key = `${verity} ${rootHash}`
      const tree = pinned.get(key) ?? { verity, rootHash, profiles: [] }
      pinned.set(key, tree)
      tree.profiles.push({ uki, profile })
    }
  return [...pinned.values()]
}

function hashesOf(partitions: readonly DiskPartition[], verity: string): string[] {
  const halves = (designator: string) => partitions.filter((one) => one.designator === designator).map(({ guid }) => guid)
  const whole = halves(verity).map((data, i) => `${data}${halves(`${verity}-verity`)[i] ?? ''}`.replaceAll('-', ''))
  return whole.filter((hash) => /^[0-9a-f]{64}$/.test(hash))
}
