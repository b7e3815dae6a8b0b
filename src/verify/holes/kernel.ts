/** A kernel as the chain needs it: how it was configured, from its configuration and from its own image. */
import { Fault } from '../../base/fault.ts'
import { elfReferences } from '../../formats/elf.ts'
import { decompressed } from '../../image/kernel-modules.ts'
import { type Files, textOf } from './files.ts'
import { type KernelImage, readKernelImage } from './kernel-image.ts'

export interface Kernel {
  version: string
  /** Where what is known of it comes from, for people. */
  source: string
  /** `y`, `m`, a string or a number; `n` where it is not set; undefined where that is not known. */
  value(option: string): string | undefined
  /** What contradicts itself. */
  problems: readonly string[]
}

const MAX_CONFIG_BYTES = 4 << 20
const MAX_MODULE_BYTES = 16 << 20

export const isSet = (kernel: Kernel, option: string): boolean | undefined => {
  const value = kernel.value(option)
  return value === undefined ? undefined : value === 'y' || value === 'm'
}

/** Reads all that is known of the kernel a UKI boots. */
export async function readKernel(version: string, image: Uint8Array, files: Files | undefined): Promise<Kernel> {
  let own: KernelImage | undefined
  let why = ''
  try {
    own = await readKernelImage(image)
  } catch (error) {
    if (!(error instanceof Fault)) throw error
    why = error.message
  }
  const config = configOf(version, own, files)
  if (config) return withConfig(version, config, own)
  const verity = files && (await verityModule(files, version))
  const known = (option: string): string | undefined => {
    if (option === 'LSM') return own?.lsm
    const has = own?.has(option) ?? verity?.get(option)
    return has === undefined ? undefined : has ? 'y' : 'n'
  }
  const source = own
    ? `no configuration comes with the image; what its own code tells${verity ? ', and that of dm-verity' : ''}`
    : `not known: no configuration comes with the image. ${why}`
  return { version, source, value: known, problems: [] }
}

interface Config {
  path: string
  values: ReadonlyMap<string, string>
  /** The kernel it says it is of. */
  version: string | undefined
}

function configOf(version: string, own: KernelImage | undefined, files: Files | undefined): Config | undefined {
  if (own?.config !== undefined) return parseConfig('the configuration inside the kernel', own.config)
  for (const path of [`usr/lib/modules/${version}/config`, `lib/modules/${version}/config`, `boot/config-${version}`]) {
    const text = files && textOf(files, path, MAX_CONFIG_BYTES)
    if (text !== undefined) return parseConfig(`/${path}`, text)
  }
  return undefined
}

function parseConfig(path: string, text: string): Config {
  const values = new Map<string, string>()
  for (const line of text.split('\n')) {
    const match = /^CONFIG_(\w+)=(?:"(.*)"|(.*))$/.exec(line)
    if (match) values.set(match[1]!, match[2] ?? match[3]!)
  }
  return { path, values, version: /^# Linux\/\S+ (\S+) Kernel Configuration/m.exec(text)?.[1] }
}

/** A file beside a kernel may say anything: where the kernel itself tells otherwise, it is believed. */
function withConfig(version: string, config: Config, own: KernelImage | undefined): Kernel {
  const problems: string[] = []
  const says = (option: string) => config.values.get(option) ?? 'n'
  if (config.version !== undefined && !version.startsWith(config.version.replace(/^(\d+\.\d+).*/, '$1')))
    problems.push(`${config.path} is of kernel ${config.version}, the UKI boots ${version}`)
  for (const option of CONTRADICTABLE) {
    const has = own?.has(option)
    if (has !== undefined && has !== (says(option) === 'y'))
      problems.push(`${config.path} says CONFIG_${option}=${says(option)}, the kernel has been built with${has ? '' : 'out'} it`)
  }
  if (own?.lsm !== undefined && own.lsm !== says('LSM'))
    problems.push(`${config.path} says CONFIG_LSM="${says('LSM')}", the kernel has "${own.lsm}"`)
  return {
    version,
    source: `${config.path}, ${config.values.size} options${own ? ', and the kernel agrees' : ''}`,
    value(option) {
      const has = own?.has(option)
      if (has === undefined) return option === 'LSM' ? (own?.lsm ?? says(option)) : says(option)
      return has ? 'y' : 'n'
    },
    problems,
  }
}

const CONTRADICTABLE = [
  ...['SECURITY_IPE', 'IPE_PROP_DM_VERITY_SIGNATURE', 'SECURITY_LOCKDOWN_LSM', 'INTEGRITY_PLATFORM_KEYRING'],
  ...['LOAD_UEFI_KEYS', 'SECONDARY_TRUSTED_KEYRING', 'MODULE_SIG'],
]

/** What the module of dm-verity tells of itself: it asks the kernel once about a signature, and once more for the platform keyring. */
async function verityModule(files: Files, version: string): Promise<ReadonlyMap<string, boolean> | undefined> {
  const folder = `usr/lib/modules/${version}/kernel/drivers/md`
  const name = files.names(folder).find((one) => /^dm-verity\.ko(?:\.\w+)?$/.test(one))
  const bytes = name === undefined ? undefined : files.bytes(`${folder}/${name}`, MAX_MODULE_BYTES)
  if (!bytes) return undefined
  try {
    const module = await decompressed(name!, bytes)
    const checks = elfReferences(module, 'verify_pkcs7_signature')
    return new Map([
      ['DM_VERITY', true],
      ['DM_VERITY_VERIFY_ROOTHASH_SIG', checks > 0],
      ['DM_VERITY_VERIFY_ROOTHASH_SIG_PLATFORM_KEYRING', checks > 1],
    ])
  } catch {
    return undefined
  }
}
