/**
 * The contents of partitions, made from the finished root tree as their definitions say: file systems, swap space, blocks
 * of a file, and the hashes and signatures of verity.
 *
 * Oracle: `systemd-repart --offline=yes --empty=create`, given the same definitions and files
 */
import { copyFile, stat, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Fault } from '../../base/fault.ts'
import { derivedGuid, hmac } from '../../base/guid.ts'
import type { Report } from '../../base/report.ts'
import { alignUp, formatSize } from '../../base/size.ts'
import { encodeSwap } from '../../formats/swap.ts'
import { VERITY_BLOCK, VERITY_SIGNATURE_BYTES, verityPartitionUuids } from '../../formats/verity.ts'
import type { Workers } from '../../run/workers.ts'
import { placeOf } from '../../tree/links.ts'
import type { Content, Tree } from '../../tree/tree.ts'
import { writeErofs } from '../erofs.ts'
import { espSizeFor, writeEsp } from '../esp.ts'
import { writeVerity } from '../verity.ts'
import { isReadOnlyFormat, siblingOf } from './checks.ts'
import { partitionTree } from './copy.ts'
import type { Definition } from './definition.ts'
import type { MakeFileSystem } from './file-system.ts'
import { checkFill } from './fill-checks.ts'
import { fileSystemGuid } from './guid.ts'
import { fileSystemSectorSize, leastSize, partitionLabels, seedGuids } from './plan.ts'
import { fatFiles, fatLabel } from './vfat.ts'

export interface FillOptions {
  /** The GUID all derived GUIDs come from. */
  seed: string
  sectorSize?: 512 | 4096 | undefined
  /** Seconds since 1970; later times of the tree become this one. */
  epoch: number
  /** Folder the contents are made in; they are needed until the disk is written. */
  work: string
  /** Which partitions to fill; all where absent. Data and hashes of a verity set are filled together. */
  only?: ((definition: Definition) => boolean) | undefined
  /** Makes what is not made here: every file system but erofs and vfat. */
  makeFileSystem?: MakeFileSystem | undefined
  /** Gives the content of the signature partition for a root hash. */
  signRootHash?: ((rootHash: string) => Promise<Uint8Array>) | undefined
  workers?: Workers | number | undefined
}

export interface Filled {
  definition: Definition
  /** Absent for a partition that stays empty. */
  source?: Content
  /** What the plan must make room for. */
  sizeBytes?: number
  /** The partition's GUID, where it follows from the root hash. */
  guid?: string
  /** Of the verity set that the partition is of. */
  rootHash?: string
}

/** Partitions that hold boot loader and kernels, which are made once the root hashes are known. */
export const holdsBootFiles = ({ type }: Definition): boolean => type.designator === 'esp' || type.designator === 'xbootldr'

/**
 * Fills partitions from a tree. `definitions` are all of the disk, also those that `only` leaves out: what is left out
 * keeps its place in the counting of GUIDs and labels.
 */
export async function fillPartitions(
  definitions: readonly Definition[],
  tree: Tree,
  options: FillOptions,
  report: Report,
): Promise<Filled[]> {
  const chosen = definitions.filter((one) => options.only?.(one) ?? true)
  const state: Filling = {
    definitions,
    tree,
    options,
    report,
    labels: partitionLabels(definitions),
    guids: seedGuids(definitions, options.seed),
    filled: new Map(chosen.map((definition) => [definition, { definition }])),
  }
  checkFill(chosen, definitions, options)
  for (const definition of chosen) {
    if (definition.format === undefined && definition.copyBlocks === undefined) continue
    await report.step(`Fill ${definition.name}`, (report) => fillOne({ ...state, report }, definition))
  }
  for (const definition of chosen) if (definition.verity === 'hash') await hashOne(state, definition)
  for (const definition of chosen) if (definition.verity === 'signature') await signOne(state, definition)
  return chosen.map((definition) => state.filled.get(definition)!)
}

/** What `planPartitions` wants to know of partitions that are filled. */
export function contentsOf(filled: readonly Filled[]): (definition: Definition) => Filled | undefined {
  const byDefinition = new Map(filled.map((one) => [one.definition, one]))
  return (definition) => byDefinition.get(definition)
}

interface Filling {
  definitions: readonly Definition[]
  tree: Tree
  options: FillOptions
  report: Report
  labels: ReadonlyMap<Definition, string>
  guids: ReadonlyMap<Definition, string>
  filled: Map<Definition, Filled>
}

/** The size a partition will have on a disk that is as large as it must be, when its content takes so much. */
function partitionBytes({ definitions, options }: Filling, definition: Definition, contentBytes?: number): number {
  const { sectorSize = 512 } = options
  return leastSize(definition, definitions, { sectorSize, grain: Math.max(4096, sectorSize), contentBytes })
}

const pathOf = ({ options }: Filling, definition: Definition): string => join(options.work, `${definition.name}.partition`)

async function fillOne(state: Filling, definition: Definition): Promise<void> {
  const { format, copyBlocks } = definition
  if (copyBlocks !== undefined) await copyBlocksOf(state, definition, copyBlocks)
  else if (format === 'swap') await makeSwap(state, definition)
  else if (format === 'vfat') await makeVfat(state, definition)
  else if (format === 'erofs') await makeErofs(state, definition)
  else if (format !== undefined) await makeOther(state, definition, format)
}

function put(state: Filling, definition: Definition, more: Omit<Filled, 'definition'>): void {
  state.filled.set(definition, { ...state.filled.get(definition)!, ...more })
  const { sizeMaxBytes } = definition
  if (more.sizeBytes === undefined || sizeMaxBytes === undefined || more.sizeBytes <= sizeMaxBytes) return
  const message = `${definition.name} takes ${formatSize(more.sizeBytes)}, which is more than SizeMaxBytes=${sizeMaxBytes}`
  state.report.tell({ type: 'note', level: 'warning', message })
}

async function copyBlocksOf(state: Filling, definition: Definition, path: string): Promise<void> {
  const place = placeOf(state.tree, path)
  const inode = place === undefined ? undefined : state.tree.get(place)
  const where = definition.places.get('CopyBlocks') ?? definition.file
  if (inode?.type !== 'file') throw new Fault('recipe', `Cannot fill partition: ${where}: the image has no file ${path}`)
  if (inode.sizeBytes === 0 || inode.sizeBytes % 512 !== 0)
    throw new Fault(
      'recipe',
      `Cannot fill partition: ${where}: ${path} has ${inode.sizeBytes} bytes, expected a multiple of 512 above 0`,
    )
  put(state, definition, { source: inode.content, sizeBytes: inode.sizeBytes })
}

async function makeSwap(state: Filling, definition: Definition): Promise<void> {
  const sizeBytes = partitionBytes(state, definition)
  const uuid = fileSystemGuid(state.guids.get(definition)!)
  put(state, definition, { source: { bytes: encodeSwap({ uuid, label: state.labels.get(definition)!, sizeBytes }) }, sizeBytes })
}

/** The files of a partition, with what its root says about where it may be mounted. */
function treeOf(state: Filling, definition: Definition): Tree {
  const { definitions, options, report } = state
  const note = (message: string) => report.tell({ type: 'note', level: 'info', message })
  const rootXattrs = definition.addValidateFs ? validateFs(state, definition) : new Map()
  return partitionTree(definition, definitions, state.tree, { epoch: options.epoch, rootXattrs, note })
}

/**
 * Attributes by which systemd-validatefs knows that a file system is mounted where and from what it was made for: types and
 * labels of the partition, its hashes and their signature, each sorted, and the mount points. A zero ends every value.
 */
function validateFs({ definitions, labels }: Filling, definition: Definition): Map<string, Uint8Array> {
  const roles = definition.verity === 'data' ? (['hash', 'signature'] as const) : []
  const backing = [definition, ...roles.flatMap((role) => siblingOf(definitions, definition, role) ?? [])]
  const own = definition.mountPoints.map(({ where }) => where)
  const places = own.length > 0 ? own : definition.type.mountPoints
  const values = {
    'user.validatefs.gpt_label': backing.map((one) => labels.get(one)!).sort(),
    'user.validatefs.gpt_type_uuid': backing.map((one) => one.type.guid).sort(),
    'user.validatefs.mount_point': places,
  }
  const given = Object.entries(values).filter(([, list]) => list.length > 0 && !list.includes(''))
  return new Map(given.map(([name, list]) => [name, Buffer.from(list.map((value) => `${value}\0`).join(''))]))
}

async function makeErofs(state: Filling, definition: Definition): Promise<void> {
  const { options, report } = state
  const path = pathOf(state, definition)
  const uuid = fileSystemGuid(state.guids.get(definition)!)
  const level = definition.compressionLevel === undefined ? undefined : Number(definition.compressionLevel)
  const compression = definition.compression === 'zstd' ? 'zstd' : 'none'
  const erofs = { uuid, compression, level, workers: options.workers } as const
  const { sizeBytes } = await writeErofs(treeOf(state, definition), path, erofs, report)
  put(state, definition, { source: { path }, sizeBytes })
}

async function makeVfat(state: Filling, definition: Definition): Promise<void> {
  const { options, report } = state
  const sectorSize = fileSystemSectorSize(definition, options.sectorSize ?? 512) as 512 | 4096
  const { files, left } = fatFiles(treeOf(state, definition))
  if (left.length > 0) {
    const message = `${definition.name}: left out ${left.join(', ')}, as FAT has files and directories only`
    report.tell({ type: 'note', level: 'info', message })
  }
  const needed = espSizeFor(files, sectorSize)
  const sizeBytes = partitionBytes(state, definition, definition.minimize === 'off' ? needed : alignUp(needed * 1.5, 4096))
  const { sizeMaxBytes } = definition
  if (sizeMaxBytes !== undefined && needed > Math.max(sizeMaxBytes, partitionBytes(state, definition)))
    throw new Fault(
      'recipe',
      `Cannot fill partition ${definition.name}: its files take ${formatSize(needed)}, SizeMaxBytes= allows ${formatSize(sizeMaxBytes)}`,
      { hint: `raise SizeMaxBytes= in ${definition.file}` },
    )
  const path = pathOf(state, definition)
  const guid = fileSystemGuid(state.guids.get(definition)!)
  await writeEsp(path, files, {
    sizeBytes,
    sectorSize,
    label: fatLabel(state.labels.get(definition)!),
    guid,
    epoch: options.epoch,
  })
  put(state, definition, { source: { path }, sizeBytes })
}

async function makeOther(state: Filling, definition: Definition, format: string): Promise<void> {
  const { options, report } = state
  const tree = treeOf(state, definition)
  const lost = definition.subvolumes.filter(({ path }) => tree.get(path.slice(1))?.type !== 'directory')
  for (const { path } of lost)
    report.tell({
      type: 'note',
      level: 'info',
      message: `${definition.name}: there is no directory ${path} to become a subvolume`,
    })
  const minimize = isReadOnlyFormat(format) ? 'best' : definition.minimize === 'off' ? undefined : definition.minimize
  const out = pathOf(state, definition)
  const { sizeBytes, notes } = await options.makeFileSystem!({
    format,
    tree,
    sizeBytes: minimize === undefined ? partitionBytes(state, definition) : undefined,
    minimize,
    uuid: fileSystemGuid(state.guids.get(definition)!),
    label: state.labels.get(definition)!,
    subvolumes: definition.subvolumes.filter((one) => !lost.includes(one)),
    defaultSubvolume: definition.defaultSubvolume,
    compression: definition.compression,
    compressionLevel: definition.compressionLevel,
    sectorSize: fileSystemSectorSize(definition, options.sectorSize ?? 512),
    epoch: options.epoch,
    out,
  })
  for (const note of notes ?? []) report.tell({ type: 'note', level: 'warning', message: `${definition.name}: ${note}` })
  put(state, definition, { source: { path: out }, sizeBytes })
}

/** The hashes of a verity set's data: of the whole partition, or of the content where the hashes take the least they can. */
async function hashOne(state: Filling, definition: Definition): Promise<void> {
  const { definitions, filled, options, report } = state
  const data = siblingOf(definitions, definition, 'data')!
  const content = filled.get(data)!
  const whole =
    definition.minimize === 'off' ? partitionBytes(state, data, content.sizeBytes) : alignUp(content.sizeBytes!, VERITY_BLOCK)
  const dataPath = await asFile(state, data, content.source!, whole)
  const path = pathOf(state, definition)
  const { seed, workers } = options
  const verity = { salt: hmac(seed, 'verity-salt'), uuid: derivedGuid(seed, 'verity-uuid'), workers }
  const { rootHash, sizeBytes } = await report.step(`Hash ${data.name}`, () => writeVerity(dataPath, path, verity))
  const room = partitionBytes(state, definition, sizeBytes)
  if (definition.sizeMaxBytes !== undefined && room > Math.max(definition.sizeMaxBytes, 4096))
    throw new Fault(
      'recipe',
      `Cannot fill partition ${definition.name}: the hashes of ${data.name} take ${formatSize(sizeBytes)}, SizeMaxBytes= allows ${formatSize(definition.sizeMaxBytes)}`,
      { hint: `raise SizeMaxBytes= in ${definition.file}` },
    )
  const guids = verityPartitionUuids(rootHash)
  put(state, data, { source: { path: dataPath }, ...(data.guid === undefined ? { guid: guids.data } : {}), rootHash })
  put(state, definition, {
    source: { path },
    sizeBytes,
    ...(definition.guid === undefined ? { guid: guids.hash } : {}),
    rootHash,
  })
}

/** A content as a file of exactly this size, with zeros behind it. A file that is not our own is copied. */
async function asFile(state: Filling, definition: Definition, content: Content, sizeBytes: number): Promise<string> {
  const own = pathOf(state, definition)
  if (!('path' in content) || content.path !== own) {
    if ('path' in content && (await stat(content.path)).size === sizeBytes) return content.path
    if ('path' in content) await copyFile(content.path, own)
    else await writeFile(own, content.bytes)
  }
  await truncate(own, sizeBytes)
  return own
}

async function signOne(state: Filling, definition: Definition): Promise<void> {
  const hash = siblingOf(state.definitions, definition, 'hash')!
  const { rootHash } = state.filled.get(hash)!
  const bytes = await state.report.step('Sign root hash', () => state.options.signRootHash!(rootHash!))
  if (bytes.length > VERITY_SIGNATURE_BYTES)
    throw new Fault(
      'tool',
      `Cannot fill partition ${definition.name}: the signature has ${bytes.length} bytes, there is room for ${VERITY_SIGNATURE_BYTES}`,
    )
  put(state, definition, { source: { bytes }, sizeBytes: VERITY_SIGNATURE_BYTES, rootHash: rootHash! })
}
