/**
 * What a kernel's own image tells about how it was configured, where no configuration comes with it: it is taken out of its
 * boot wrapper and decompressed, and the words that only come with an option are looked for.
 */
import { gunzipSync, zstdDecompressSync } from 'node:zlib'
import { sha256 } from '../../base/digest.ts'
import { Fault } from '../../base/fault.ts'
import { decompressed } from '../../image/kernel-modules.ts'

/** Far above any kernel; one that grows beyond is not looked into. */
const MAX_KERNEL_BYTES = 192 << 20
const MAX_CONFIG_BYTES = 4 << 20

export interface KernelImage {
  /** Whether an option must have been set. Absent: its image does not tell. */
  has(option: string): boolean | undefined
  /** CONFIG_LSM. */
  lsm: string | undefined
  /** The configuration it carries (CONFIG_IKCONFIG). */
  config: string | undefined
}

/** Words of the kernel that come with an option and with nothing else. */
// biome-ignore format: table
const WORDS: Readonly<Record<string, string>> = {
  SECURITY_IPE:                    'ipe.success_audit\0',
  IPE_PROP_DM_VERITY_SIGNATURE:    'dmverity_signature=TRUE',
  SECURITY_LOCKDOWN_LSM:           'Kernel is locked down from %s',
  LOCK_DOWN_IN_EFI_SECURE_BOOT:    '\0EFI Secure Boot\0',
  INTEGRITY_PLATFORM_KEYRING:      '\0.platform\0',
  LOAD_UEFI_KEYS:                  '\0UEFI:db\0',
  SECONDARY_TRUSTED_KEYRING:       '\0.secondary_trusted_keys\0',
  MODULE_SIG:                      'module.sig_enforce\0',
}

const KNOWN_LSMS = ['lockdown', 'yama', 'apparmor', 'selinux', 'bpf', 'landlock']

/** Versions and profiles of a system often boot one kernel: each is decompressed once. */
const known = new Map<string, KernelImage>()
const MAX_KNOWN = 16

/** Decompresses a kernel. A Fault where it is wrapped in a way that is not known. */
export async function readKernelImage(bytes: Uint8Array): Promise<KernelImage> {
  const digest = sha256(bytes)
  const before = known.get(digest)
  if (before) return before
  const kernel = await unwrapped(bytes)
  const found = new Map(Object.entries(WORDS).map(([option, word]) => [option, kernel.includes(word, 0, 'latin1')]))
  const image = { has: (option: string) => found.get(option), lsm: lsmOf(kernel), config: embeddedConfig(kernel) }
  if (known.size >= MAX_KNOWN) known.clear()
  known.set(digest, image)
  return image
}

/** The kernel proper: out of a bzImage, an EFI zboot image or nothing at all. */
async function unwrapped(bytes: Uint8Array): Promise<Buffer> {
  const image = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
  if (image.length > 0x250 && image.toString('latin1', 0x202, 0x206) === 'HdrS') {
    const start = ((image[0x1f1]! || 4) + 1) * 512 + image.readUInt32LE(0x248)
    const length = image.readUInt32LE(0x24c)
    if (length < 8 || start + length > image.length)
      throw new Fault(
        'format',
        `Cannot read the kernel: its payload of ${length} bytes at ${start} is outside its ${image.length}`,
      )
    // The last word of the payload is its size when decompressed; gzip has it of its own.
    const payload = image.subarray(start, start + length)
    return decompress(payload[0] === 0x1f ? payload : payload.subarray(0, -4))
  }
  if (image.toString('latin1', 4, 8) === 'zimg') {
    const [start, length] = [image.readUInt32LE(8), image.readUInt32LE(12)]
    if (start + length > image.length)
      throw new Fault('format', `Cannot read the kernel: its payload ends at ${start + length}, its file at ${image.length}`)
    return decompress(image.subarray(start, start + length))
  }
  if (image.length > MAX_KERNEL_BYTES)
    throw new Fault('format', `Cannot read the kernel: it has ${image.length} bytes, at most ${MAX_KERNEL_BYTES} are expected`)
  return decompress(image)
}

async function decompress(payload: Buffer): Promise<Buffer> {
  const magic = payload.toString('hex', 0, 4)
  const limit = { maxOutputLength: MAX_KERNEL_BYTES }
  try {
    if (magic === '28b52ffd') return zstdDecompressSync(payload, limit)
    if (magic.startsWith('1f8b')) return gunzipSync(payload, limit)
    if (magic === 'fd377a58') return Buffer.from(await decompressed('kernel.xz', payload))
  } catch (cause) {
    throw new Fault('format', `Cannot decompress the kernel: ${(cause as Error).message}`, { cause })
  }
  // An ELF file or an arm64 Image is not compressed.
  if (magic === '7f454c46' || payload.toString('latin1', 56, 60) === 'ARMd' || magic.startsWith('4d5a')) return payload
  throw new Fault('format', `Cannot decompress the kernel: it begins with ${magic || 'nothing'}, expected zstd, gzip or xz`)
}

/** The list of security modules is a string of its own, of lower-case names and commas. */
function lsmOf(kernel: Buffer): string | undefined {
  for (let at = kernel.indexOf(',lockdown,'); at >= 0; at = kernel.indexOf(',lockdown,', at + 1)) {
    const found = stringAround(kernel, at)
    if (found !== undefined && KNOWN_LSMS.filter((name) => found.split(',').includes(name)).length >= 2) return found
  }
  return undefined
}

function stringAround(kernel: Buffer, at: number): string | undefined {
  const start = kernel.lastIndexOf(0, at) + 1
  const end = kernel.indexOf(0, at)
  if (end < 0 || end - start > 256) return undefined
  const text = kernel.toString('latin1', start, end)
  return /^[a-z_,]+$/.test(text) ? text : undefined
}

function embeddedConfig(kernel: Buffer): string | undefined {
  const start = kernel.indexOf('IKCFG_ST')
  const end = start < 0 ? -1 : kernel.indexOf('IKCFG_ED', start)
  if (end < 0 || end - start > MAX_CONFIG_BYTES) return undefined
  try {
    return gunzipSync(kernel.subarray(start + 8, end), { maxOutputLength: MAX_CONFIG_BYTES }).toString('utf8')
  } catch {
    return undefined
  }
}
