/** Kernel modules: each carries a signature, and the kernel insists on one. */
import { sha256 } from '../../base/digest.ts'
import { decompressed } from '../../image/kernel-modules.ts'
import type { Finding } from '../link.ts'
import { allFiles, argumentOf, type SystemFacts, wordsOf } from './facts.ts'
import { type Files, shown, some } from './files.ts'
import { isSet } from './kernel.ts'
import { isLocked } from './kernel-config.ts'

const MODULE = /\/modules\/[^/]+\/.*\.ko(?:\.(?:xz|zst|gz))?$/
const TRAILER = Buffer.from('~Module signature appended~\n')
const MAX_MODULE_BYTES = 256 << 20
const AT_ONCE = 8

export async function checkModules(facts: SystemFacts, { evidence, wrong }: Finding): Promise<void> {
  const unsigned: string[] = []
  let count = 0
  for (const files of allFiles(facts)) {
    const paths = [...files.entries].filter(([path, { type }]) => type === 'file' && MODULE.test(path)).map(([path]) => path)
    count += paths.length
    unsigned.push(...(await unsignedOf(files, paths)))
  }
  evidence(`${count - unsigned.length} of ${count} modules carry a signature`)
  if (unsigned.length > 0)
    wrong(
      `kernel modules without a signature: ${some(unsigned.sort())}`,
      'sign them, or leave them out: a kernel that insists refuses them',
    )
  for (const kernel of facts.kernels) {
    const signs = isSet(kernel, 'MODULE_SIG')
    if (signs === false && isSet(kernel, 'MODULES') !== false)
      wrong(
        `CONFIG_MODULE_SIG is not set in ${kernel.version}: it loads any module`,
        'use a kernel that checks signatures of modules',
      )
    if (signs !== true) continue
    const open = facts.profiles.filter(({ commandLine }) => !isYesOrBare(argumentOf(wordsOf(commandLine), 'module.sig_enforce')))
    const locked = facts.secureBoot && isLocked(kernel)
    if (isSet(kernel, 'MODULE_SIG_FORCE') === true) evidence(`${kernel.version} insists: CONFIG_MODULE_SIG_FORCE`)
    else if (locked) evidence(`${kernel.version} insists: lockdown`)
    else if (open.length === 0) evidence('the command line insists: module.sig_enforce')
    else wrong(`${open[0]!.name}: the kernel loads modules that nobody signed`, 'add module.sig_enforce=1 to the command line')
  }
}

const isYesOrBare = (value: string | undefined): boolean => value !== undefined && /^(?:|1|y|Y|on)$/.test(value)

async function unsignedOf(files: Files, paths: readonly string[]): Promise<string[]> {
  const found: string[] = []
  let next = 0
  const run = async () => {
    for (let path = paths[next++]; path !== undefined; path = paths[next++])
      if (!(await isSigned(files, path))) found.push(shown(files, path))
  }
  await Promise.all(Array.from({ length: AT_ONCE }, run))
  return found
}

/** Several images, or an image and its initrd, have the same modules: each is decompressed once. */
const known = new Map<string, boolean>()
const MAX_KNOWN = 65_536

async function isSigned(files: Files, path: string): Promise<boolean> {
  const bytes = files.bytes(path, MAX_MODULE_BYTES)
  if (!bytes) return false
  const digest = sha256(bytes)
  const before = known.get(digest)
  if (before !== undefined) return before
  const signed = await endsSigned(path, bytes)
  if (known.size >= MAX_KNOWN) known.clear()
  known.set(digest, signed)
  return signed
}

async function endsSigned(path: string, bytes: Uint8Array): Promise<boolean> {
  try {
    return TRAILER.equals((await decompressed(path, bytes)).subarray(-TRAILER.length))
  } catch {
    return false
  }
}
