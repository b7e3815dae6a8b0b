/**
 * System and configuration extensions on the ESP: small disks of their own, which nobody vouches for but themselves.
 *
 * systemd-stub hands them to the initrd. Of what comes from there, systemd-sysext takes only file systems under dm-verity
 * whose root hash is signed (`root=signed+absent:usr=signed+absent`), by a key of the kernel's or of `verity.d` in the initrd.
 */
import { formatSize } from '../base/size.ts'
import { decodeErofs } from '../formats/erofs-decode.ts'
import type { Workers } from '../run/workers.ts'
import { loadersOf } from './addons.ts'
import { type Disk, type DiskPartition, readTable, readWithin } from './disk.ts'
import type { BootFile } from './esp.ts'
import type { ImageFacts, UkiFacts } from './facts.ts'
import { type Files, filesOfErofs } from './holes/files.ts'
import { attempt, type Finding } from './link.ts'
import { checkRootHashSignature, readSignatures } from './signature.ts'
import { checkBlocks, checkSuperblock, fileSystemOf, findPair } from './verity.ts'

/** The stub holds all of it in memory. */
const MAX_EXTENSION_BYTES = 512 << 20
/** Of all extensions together: hashing them takes time. */
export const MAX_ALL_EXTENSION_BYTES = 4 * 2 ** 30
const MAX_RELEASE_BYTES = 64 << 10

interface Kind {
  name: string
  suffix: string
  pcr: number
  /** What systemd mounts of it; anything else it leaves alone. */
  mounts: readonly ('root' | 'usr')[]
  releases: string
}

// biome-ignore format: table
const SYSEXT: Kind = { name: 'system extension', suffix: '.sysext', pcr: 13, mounts: ['root', 'usr'], releases: 'usr/lib/extension-release.d' }
// biome-ignore format: table
const CONFEXT: Kind = { name: 'configuration extension', suffix: '.confext', pcr: 12, mounts: ['root'], releases: 'etc/extension-release.d' }

/** Holds where every block of it hashes to a root hash that somebody trusted signed. `left`: bytes that may still be hashed. */
export async function judgeExtension(
  file: BootFile,
  facts: ImageFacts,
  left: { bytes: number },
  workers: Workers,
  finding: Finding,
): Promise<void> {
  const { evidence, wrong } = finding
  const kind = /\.confext\.raw$/i.test(file.path) ? CONFEXT : SYSEXT
  evidence(`${kind.name}, measured in PCR ${kind.pcr}`)
  if (file.sizeBytes > MAX_EXTENSION_BYTES || file.sizeBytes > left.bytes) {
    const [limit, what] = file.sizeBytes > MAX_EXTENSION_BYTES ? [MAX_EXTENSION_BYTES, ''] : [MAX_ALL_EXTENSION_BYTES, ' of all']
    wrong(
      `not checked: it has ${formatSize(file.sizeBytes)}, at most ${formatSize(limit)}${what} are looked at`,
      `remove ${file.path}`,
    )
    return
  }
  left.bytes -= file.sizeBytes
  const disk = file.disk()
  const signed = readSigned(disk, kind, facts, hintFor(file), finding)
  const pair = signed && findPair(signed.partitions, signed.verity, signed.rootHash, finding)
  if (!pair) return
  const { verity, rootHash, places } = signed
  const { anchor, now, ukis } = facts
  const initrds = initrdsOf(loadersOf(file.path, ukis))
  await attempt(finding, () => checkRootHashSignature(disk, places, rootHash, anchor, initrds, now, finding))
  const dataBytes = await attempt(finding, () => checkSuperblock(disk, pair, finding))
  if (dataBytes === undefined) return
  const sound = await attempt(finding, () => checkBlocks(disk, pair, rootHash, workers, finding).then(() => true))
  // Only what the tree covers: the kernel shows no more.
  if (sound) checkRelease(disk, { offset: pair.data.offset, sizeBytes: dataBytes }, verity, kind, file.path, finding)
}

const hintFor = ({ path }: BootFile): string => `build it with Verity=signed and the verity key, or remove ${path}`

interface Signed {
  verity: 'root' | 'usr'
  /** Those for the machine. */
  partitions: readonly DiskPartition[]
  /** Where the signature is. */
  places: readonly DiskPartition[]
  rootHash: string
}

/** What its table says to mount, and for which root hash there is a signature by anybody. */
function readSigned(disk: Disk, kind: Kind, { architecture }: ImageFacts, hint: string, { wrong }: Finding): Signed | undefined {
  const unsigned = (why: string) => void wrong(`nobody signed this ${kind.name}: ${why}`, hint)
  if (!hasTable(disk)) {
    const fileSystem = fileSystemOf(disk.read)
    return unsigned(
      fileSystem
        ? `it is a bare file system (${fileSystem}), without partitions for hashes and a signature`
        : 'it has neither a partition table nor a file system that is known',
    )
  }
  const partitions = readTable(disk, wrong).filter((one) => one.architecture === architecture)
  const data = partitions.flatMap(({ designator }) => kind.mounts.filter((one) => one === designator))
  const [verity] = data
  if (verity === undefined || data.length > 1) {
    const found = verity === undefined ? 'none' : data.join(' and ')
    wrong(`it must have one partition for ${architecture} to mount, ${kind.mounts.join(' or ')}: there is ${found}`, hint)
    return undefined
  }
  const places = partitions.filter(({ designator }) => designator === `${verity}-verity-sig`)
  if (places.length === 0) return unsigned(`it has no ${verity}-verity-sig partition`)
  if (places.length > 1) wrong(`it has ${places.length} ${verity}-verity-sig partitions, expected one`, hint)
  const { found, broken } = readSignatures(disk, places)
  for (const problem of broken) wrong(problem, hint)
  if (found.length === 0 && broken.length === 0) return unsigned(`its ${verity}-verity-sig partition is empty`)
  return found[0] ? { verity, partitions, places, rootHash: found[0].rootHash } : undefined
}

const hasTable = ({ read }: Disk): boolean =>
  [512, 4096].some((sectorSize) => Buffer.from(read(sectorSize, 8)).toString('latin1') === 'EFI PART')

const initrdsOf = (ukis: readonly UkiFacts[]): Files[] => [
  ...new Set(ukis.flatMap(({ profiles }) => profiles.flatMap(({ initrd }) => (initrd ? [initrd.files] : [])))),
]

/** The file that makes it an extension, and says of what; where the file system is one that we read. */
function checkRelease(
  disk: Disk,
  covered: { offset: number; sizeBytes: number },
  verity: 'root' | 'usr',
  kind: Kind,
  path: string,
  { evidence, wrong }: Finding,
): void {
  const read = readWithin(disk, covered)
  const fileSystem = fileSystemOf(read)
  if (fileSystem !== 'erofs') {
    evidence(`${fileSystem ?? 'a file system that is not known'}: what is in it is covered, and not looked at`)
    return
  }
  const files = filesOfErofs(decodeErofs(read, covered.sizeBytes), verity === 'usr' ? 'usr' : '')
  const names = namesOf(path, kind)
  const found = [...names, ...laxNames(files, kind)].find((name) => textOf(files, kind, name) !== undefined)
  if (found === undefined) {
    const there = files.names(kind.releases).filter((name) => name.startsWith(RELEASE))
    const [first] = there
    wrong(
      `there is no /${kind.releases}/${RELEASE}${names[0]} in it, so that systemd takes it for no ${kind.name}: there is ${there.slice(0, 5).join(', ') || 'none'}`,
      first === undefined ? `remove ${path}` : `call the file ${first.slice(RELEASE.length)}${kind.suffix}.raw`,
    )
    return
  }
  const values = textOf(files, kind, found)!.match(
    /^(?:ID|VERSION_ID|(?:SYS|CONF)EXT_(?:LEVEL|SCOPE)|ARCHITECTURE)=[\w .:~^"'-]{1,80}$/gm,
  )
  evidence(`${RELEASE}${found}: ${values?.join(' ') ?? 'it says nothing'}`)
}

/** What systemd calls it: without suffixes; before version 256 it kept the one for the kind. */
function namesOf(path: string, { suffix }: Kind): string[] {
  const base = path
    .split('/')
    .at(-1)!
    .replace(/\.raw$/i, '')
  return base.endsWith(suffix) ? [base.slice(0, -suffix.length), base] : [base]
}

/** Release files that say themselves that the image may be called otherwise. */
function laxNames(files: Files, { releases }: Kind): string[] {
  const isLax = (name: string) => {
    const strict = files.entries.get(`${releases}/${name}`)?.xattrs?.get('user.extension-release.strict')
    return strict !== undefined && /^(?:0|n|no|f|false|off)$/i.test(Buffer.from(strict).toString('latin1'))
  }
  const lax = files.names(releases).filter((name) => name.startsWith(RELEASE) && isLax(name))
  return lax.length === 1 ? [lax[0]!.slice(RELEASE.length)] : []
}

const RELEASE = 'extension-release.'

function textOf(files: Files, { releases }: Kind, name: string): string | undefined {
  const bytes = files.bytes(`${releases}/${RELEASE}${name}`, MAX_RELEASE_BYTES)
  return bytes && Buffer.from(bytes).toString('utf8')
}
