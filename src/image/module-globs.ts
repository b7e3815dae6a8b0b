/**
 * Globs and expressions that name kernel modules and firmware, as mkosi reads them.
 *
 * The last glob that matches wins, `-` in front excludes, `/fs/nls/` means a directory below `kernel/`, `_` and `-` are the
 * same, `re:` is a regular expression, `default` stands for `DEFAULT_MODULES`.
 */
import { Fault } from '../base/fault.ts'
import type { Architecture } from '../formats/dps.ts'
import { nameOf } from '../tree/tree.ts'

export interface ModuleGlobs {
  architecture: Architecture
  /** Globs, `default` and `re:` expressions of the modules to take. Without any, all are taken that are not left out. */
  modules: readonly string[]
  /** Regular expressions of modules to leave out; all others are taken, and those that `modules` names in any case. */
  modulesExclude?: readonly string[]
}

/** What a machine needs to find and mount its disks, without knowing which machine it is. */
// biome-ignore format: table
export const DEFAULT_MODULES: readonly string[] = [
  'ahci', 'amd_atl', 'amd_ctl', 'amd-pmc', 'amd64_edac', 'atkbd', 'autofs4', 'binfmt_misc', 'btrfs', 'cdrom', 'cfg80211',
  'configfs', 'crc-ccitt', 'dm-crypt', 'dm-integrity', 'dm-mod', 'dm-multipath', 'dm-raid', 'dm-verity', 'dmi-sysfs',
  'edac_mce_amd', 'efi-pstore', 'efivarfs', 'erofs', 'evdev', 'ext4', 'firmware_attributes_class', 'hid-generic',
  'i2c-algo-bit', 'i2c_hid_acpi', 'i2c-mux', 'i2c-smbus', 'i8042', 'intel_pmc_ssram_telemetry', 'intel_rapl_common',
  'intel-uncore-frequency-common', 'intel-vsec', 'kvm', 'libphy', 'loop', 'mdio_devres', 'mei', 'nvme', 'nvmet-tcp',
  'overlay', 'parport', 'platform_profile', 'pmt_telemetry', 'qemu_fw_cfg', 'raid[0-9]*', 'rapl', 'scsi_mod', 'sd_mod',
  'sr_mod', 'serio', 'sg', 'skx_edac_common', 'squashfs', 'thunderbolt_net', 'tpm_tis', 'tpm_vtpm_proxy', 'typec_ucsi',
  'ucsi_acpi', 'usbhid', 'usb-storage', 'vfat', 'video', 'virtio_balloon', 'virtio_blk', 'virtio_console',
  'virtio_dma_buf', 'virtio_mmio', 'virtio_net', 'virtio_pci', 'virtio_scsi', 'virtio-rng', 'virtiofs', 'vmd',
  'vmw_vsock_virtio_transport', 'vsock', 'watchdog', 'wmi', 'wmi-bmof', 'x_tables', 'xfs', 'xhci-pci-renesas',
  '/fs/nls/', 'crypto/', '-/drivers/crypto/', 'ccp_crypto', 'zram', 'nfnetlink',
]
const DEFAULT_MODULES_ARM64: readonly string[] = ['/drivers/mmc/host/', 'brcmutil', 'udc-core']

export const MODULE_FILE = /\.ko(?:\.(?:gz|xz|zst))?$/

/** Rules as mkosi has them, of its setting with globs and the older one with expressions: `KernelModules=`, `…Include=`. */
export const joinedRules = (globs: readonly string[], expressions: readonly string[]): string[] => [
  ...globs,
  ...expressions.map((one) => (one === 'default' || one === 'host' || one.startsWith('re:') ? one : `re:${one}`)),
]

/** Whether a path below `usr/lib/modules/KERNEL` is wanted. */
export function moduleMatcher({ modules, modulesExclude = [], architecture }: ModuleGlobs): (path: string) => boolean {
  const named = compileGlobs(modules, architecture)
  const excluded = modulesExclude.map((rule) => toRegExp(rule.replace(/^re:/, '')))
  if (excluded.length > 0) return (path) => named(path) || !excluded.some((one) => one.test(belowFirst(path)))
  return modules.length > 0 ? named : () => true
}

/** An expression sees the path below `kernel/`. */
const belowFirst = (path: string): string => path.slice(path.indexOf('/') + 1)

function compileGlobs(globs: readonly string[], architecture: Architecture): (path: string) => boolean {
  const expanded = globs.flatMap((glob) => {
    if (glob === 'default') return architecture === 'arm64' ? [...DEFAULT_MODULES, ...DEFAULT_MODULES_ARM64] : DEFAULT_MODULES
    if (glob === 'host') {
      throw new Fault('recipe', 'Cannot select the modules this machine has loaded ("host"): the image would not be reproducible')
    }
    return [glob]
  })
  const expressions = expanded.filter((glob) => glob.startsWith('re:')).map((glob) => toRegExp(glob.slice(3)))
  const matches = globMatcher(expanded.filter((glob) => !glob.startsWith('re:')).map(normalGlob))
  return (path) =>
    expressions.some((expression) => expression.test(belowFirst(path))) ||
    matches(normalName(path.replace(MODULE_FILE, '')), false)
}

/** `_` is `-` in names. */
export const normalName = (name: string): string => name.replaceAll('_', '-')

export function toRegExp(source: string): RegExp {
  try {
    return new RegExp(source)
  } catch (cause) {
    throw new Fault('recipe', `Cannot select by "re:${source}": ${(cause as Error).message}`, { cause })
  }
}

/** `_` is `-` everywhere but inside `[…]`. */
export const normalGlob = (glob: string): string => glob.replace(/\[[^\]]*\]|_/g, (part) => (part === '_' ? '-' : part))

/** Whether a path is included, by the last glob that matches it. */
export function globMatcher(globs: readonly string[]): (path: string, otherwise: boolean) => boolean {
  const rules = globs
    .map((glob) => {
      const include = !glob.startsWith('-')
      const wanted = (include ? glob : glob.slice(1)).replace(/\/$/, '/*')
      const anchored = wanted.startsWith('/')
      const sources = anchored ? [`/kernel${wanted}`, wanted, `*/${wanted}`] : wanted.includes('/') ? [`*/${wanted}`] : []
      return { include, whole: sources.map(globExpression), name: globExpression(wanted) }
    })
    .reverse()
  return (path, otherwise) => {
    const name = nameOf(path)
    const rule = rules.find((r) => r.name.test(name) || r.whole.some((expression) => expression.test(`/${path}`)))
    return rule?.include ?? otherwise
  }
}

/** As fnmatch without flags has it: `*` and `?` match slashes too. */
export function globExpression(glob: string): RegExp {
  let source = ''
  for (let i = 0; i < glob.length; i++) {
    const c = glob[i]!
    const close = c === '[' ? glob.indexOf(']', i + (glob[i + 1] === '!' ? 3 : 2)) : -1
    if (c === '*') source += source.endsWith('.*') ? '' : '.*'
    else if (c === '?') source += '.'
    else if (close > 0) {
      const set = glob.slice(i + 1, close).replace(/[\\\]^[]/g, '\\$&')
      source += set.startsWith('!') ? `[^${set.slice(1)}]` : `[${set}]`
      i = close
    } else source += c.replace(/[\\^$.|+()[\]{}]/g, '\\$&')
  }
  return toRegExp(`^${source}$`)
}
