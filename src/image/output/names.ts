/** What the files of a build are called: as mkosi names them. */
import { type Compression, compressedName } from './compress.ts'

export interface OutputNaming {
  /** Name without extension: `Minimal_1`. */
  output: string
  /** `raw`; empty for a folder. */
  extension: string
  format: OutputFormat
  compression: Compression
}

export type OutputFormat =
  | 'disk'
  | 'esp'
  | 'sysext'
  | 'confext'
  | 'portable'
  | 'tar'
  | 'cpio'
  | 'directory'
  | 'oci'
  | 'uki'
  | 'addon'
  | 'none'

/** Formats whose file is compressed as a whole. The others are never, or hold what is compressed. */
const COMPRESSED_WHOLE: ReadonlySet<OutputFormat> = new Set(['tar', 'cpio', 'disk', 'sysext', 'confext', 'portable'])

/** How the file of a format is compressed as a whole. */
export const outerCompression = (format: OutputFormat, compression: Compression): Compression =>
  COMPRESSED_WHOLE.has(format) ? compression : 'none'

/** The name of the image: `Minimal_1.raw.zst`. */
export const imageName = (naming: OutputNaming): string =>
  compressedName(plainName(naming), outerCompression(naming.format, naming.compression))

/** Its name before it is compressed. */
export const plainName = ({ output, extension }: OutputNaming): string => (extension === '' ? output : `${output}.${extension}`)

/** The name of the tree as an archive beside an image of another format. */
export const tarName = (output: string, compression: Compression): string => compressedName(`${output}.tar`, compression)

/** Names of what is written beside an image, from its name without extension. */
export const besideNames = (output: string) => ({
  uki: `${output}.efi`,
  kernel: `${output}.vmlinuz`,
  initrd: `${output}.initrd`,
  pcrs: `${output}.pcrs`,
  rootHash: `${output}.roothash`,
  osRelease: `${output}.osrelease`,
  kernelModulesInitrd: `${output}.kernel-modules-initrd`,
  /** A folder. */
  repartDefinitions: `${output}.repart.d`,
  checksums: `${output}.SHA256SUMS`,
  checksumsSignature: `${output}.SHA256SUMS.gpg`,
  manifest: `${output}.manifest`,
  nspawnSettings: `${output}.nspawn`,
})
