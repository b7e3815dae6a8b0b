/** The files that partitions get of their own, beside the disk image: their names, as `SplitName=` says, and their content. */
import { open } from 'node:fs/promises'
import { Fault } from '../../base/fault.ts'
import type { Content } from '../../tree/tree.ts'
import { type PlannedPartition, writeContent } from '../disk.ts'
import type { RepartPlan } from './plan.ts'
import { expandSpecifiers, type Specifiers } from './specifiers.ts'

/**
 * File names in the order of the plan, beside the image `base` or `base.raw`: `base.usr-x86-64.0a64….raw`. Undefined for a
 * partition that gets no file.
 */
export function splitNames(plan: RepartPlan, base: string, specifiers: Specifiers): (string | undefined)[] {
  const [stem, extension] = base.endsWith('.raw') ? [base.slice(0, -4), '.raw'] : [base, '']
  const owners = new Map<string, string>()
  return plan.partitions.map((partition, partno) => {
    const { definition } = partition
    if (definition.splitName === undefined) return undefined
    const where = definition.places.get('SplitName') ?? definition.file
    const own = { t: partition.typeName, T: hex(partition.typeGuid), U: hex(partition.guid), n: `${partno}` }
    const expanded = expandSpecifiers(definition.splitName, new Map([...specifiers, ...Object.entries(own)]))
    if ('problem' in expanded) throw new Fault('recipe', `Cannot name a partition's file: ${where}: ${expanded.problem}`)
    const name = `${stem}.${expanded.text}${extension}`
    if (!/^[^/\0]{1,255}$/.test(name))
      throw new Fault('recipe', `Cannot name a partition's file: ${where}: "${name}" is no file name of at most 255 characters`)
    const other = owners.get(name)
    if (other !== undefined)
      throw new Fault(
        'recipe',
        `Cannot name a partition's file: ${where}: ${definition.name} and ${other} would both be ${name}`,
        {
          hint: 'write SplitName=%t.%U, or SplitName=- for a partition that needs no file',
        },
      )
    owners.set(name, definition.name)
    return name
  })
}

const hex = (guid: string): string => guid.replaceAll('-', '')

/**
 * Writes a partition's own file: its content, and zeros up to its size. A signature is written without the zeros behind it.
 */
export async function writeSplitFile(path: string, partition: PlannedPartition, source: Content | undefined): Promise<void> {
  await using file = await open(path, 'wx')
  if (partition.type?.endsWith('-verity-sig') && source && 'bytes' in source) {
    const end = source.bytes.findLastIndex((byte) => byte !== 0) + 1
    await file.writeFile(source.bytes.subarray(0, end))
    return
  }
  await file.truncate(partition.sizeBytes)
  if (source) await writeContent(file, 0, partition.sizeBytes, source, partition.label)
}
