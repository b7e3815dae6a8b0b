/** What is asked of a partition and cannot be made with an image, told before anything is made. */
import { Fault } from '../../base/fault.ts'
import { VERITY_BLOCK } from '../../formats/verity.ts'
import { siblingOf } from './checks.ts'
import type { Definition } from './definition.ts'
import type { FillOptions } from './fill.ts'
import { fileSystemSectorSize } from './plan.ts'

/** Refuses everything at once. */
export function checkFill(chosen: readonly Definition[], definitions: readonly Definition[], options: FillOptions): void {
  const problems: string[] = []
  let hint: string | undefined
  const tell = (one: Definition, setting: string, why: string, help?: string) => {
    problems.push(`${one.places.get(setting) ?? one.file}: ${why}`)
    hint ??= help
  }
  for (const one of chosen) {
    const { format, verity } = one
    if (one.encrypt !== 'off')
      tell(
        one,
        'Encrypt',
        `Encrypt=${one.encrypt} needs a key of the machine, which an image has not`,
        `put ${one.name}.conf into usr/lib/repart.d of the image: systemd-repart makes the partition at first boot`,
      )
    if (one.copyBlocks === 'auto')
      tell(one, 'CopyBlocks', 'CopyBlocks=auto copies from the machine that runs; name a file of the image')
    for (const setting of ['VerityDataBlockSizeBytes', 'VerityHashBlockSizeBytes'] as const) {
      const bytes = setting === 'VerityDataBlockSizeBytes' ? one.verityDataBlockSizeBytes : one.verityHashBlockSizeBytes
      if (bytes !== undefined && bytes !== VERITY_BLOCK)
        tell(one, setting, `${setting}=${bytes}: only ${VERITY_BLOCK} can be made`)
    }
    if (format === 'erofs') {
      const { compression = 'none', compressionLevel: level } = one
      if (compression !== 'zstd' && compression !== 'none')
        tell(one, 'Compression', `erofs cannot be compressed with ${compression} here; write zstd or none`)
      if (level !== undefined && !/^(?:[1-9]|1\d|2[0-2])$/.test(level))
        tell(one, 'CompressionLevel', `CompressionLevel=${level}: zstd has the levels 1 to 22`)
    } else if (format !== undefined && format !== 'vfat' && format !== 'swap' && !options.makeFileSystem)
      tell(one, 'Format', `there is nothing here that makes ${format}`)
    if (format === 'vfat' && ![512, 4096].includes(fileSystemSectorSize(one, options.sectorSize ?? 512)))
      tell(one, 'FileSystemSectorSize', `FileSystemSectorSize=${one.fileSystemSectorSize}: vfat is made with 512 or 4096`)
    if (verity === 'signature' && !options.signRootHash)
      tell(one, 'Verity', 'Verity=signature needs a key to sign with', 'give a key, or leave the partition out')
    const set = (['data', 'hash'] as const).map((role) => siblingOf(definitions, one, role))
    if (verity !== 'off' && !set.every((sibling) => sibling && chosen.includes(sibling)))
      tell(one, 'Verity', `the verity set ${one.verityMatchKey} is filled only in part`)
    if (one.copyBlocks !== undefined && one.verity !== 'off' && one.verity !== 'data')
      tell(one, 'CopyBlocks', `CopyBlocks= with Verity=${one.verity} is not made here: hashes and signatures are computed`)
  }
  if (problems.length === 0) return
  const help = hint === undefined ? {} : { hint }
  if (problems.length === 1) throw new Fault('recipe', `Cannot fill partition: ${problems[0]}`, help)
  throw new Fault(
    'recipe',
    `Cannot fill partitions, ${problems.length} problems:\n${problems.map((line) => `  ${line}`).join('\n')}`,
    help,
  )
}
