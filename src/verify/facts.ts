/** What an image was found to consist of, for the checks that judge it as a whole and for the page that draws its chain. */
import type { Architecture } from '../formats/dps.ts'
import type { ReadAt } from '../formats/struct.ts'
import type { AddonFacts } from './addons.ts'
import type { DiskPartition } from './disk.ts'
import type { BootFile } from './esp.ts'
import type { Files } from './holes/files.ts'
import type { Chain, Trust } from './trust.ts'

export interface ImageFacts {
  path: string
  sizeBytes: number
  /** Seconds since 1970, what certificates' validity is judged at. */
  now: number
  architecture: Architecture
  partitions: readonly DiskPartition[]
  /** Bytes of the whole image; only while the image is being checked, as are all `Files` and `read` here. */
  read: ReadAt
  /** Whom the signatures were judged by. */
  anchor: Anchor
  /** What the ESP brings to enrol, one for each folder of loader/keys. */
  enrolments: EnrolmentFacts[]
  /** Every file of the ESP and of XBOOTLDR. */
  espFiles: BootFile[]
  programs: ProgramFacts[]
  addons: AddonFacts[]
  ukis: UkiFacts[]
  /** File systems under dm-verity that some UKI pins, and those that nothing pins. */
  trees: TreeFacts[]
}

/** Where trust comes from: `given` by the user, what the `image` enrols itself, or the `signatures` it happens to carry. */
export interface Anchor extends Trust {
  from: 'given' | 'image' | 'signatures'
  chain: Chain
  /** Everything is judged, not only what a build promised. */
  total: boolean
  /** What an enrolment's dbx revokes: SHA-256 of programs and of certificates, and certificates. */
  revoked: { digests: ReadonlySet<string>; certificates: readonly Uint8Array[] }
}

export interface EnrolmentFacts {
  /** The folder: `auto`… */
  name: string
  /** DER of the certificates each variable enters. */
  certificates: Record<'PK' | 'KEK' | 'db' | 'dbx', Uint8Array[]>
  /** SHA-256 of programs (Authenticode) that dbx revokes. */
  revoked: string[]
  /** Whether the link of this enrolment holds. */
  sound: boolean
}

export interface EspFile {
  partition: 'esp' | 'xbootldr'
  path: string
  sizeBytes: number
  /** The content; a Fault where it has more bytes than that. */
  read(limitBytes: number): Uint8Array
}

export type ProgramKind = 'systemd-boot' | 'UKI' | 'addon' | 'program'

export interface ProgramFacts {
  partition: 'esp' | 'xbootldr'
  path: string
  kind: ProgramKind
  /** Authenticode SHA-256. */
  digest: string
  /** DER of those whose signatures hold. */
  signers: Uint8Array[]
  trusted: boolean
  /** The program's own version, as its `.sdmagic` has it: `systemd-boot 257.8`. */
  version?: string
}

export interface UkiFacts {
  path: string
  /** Authenticode SHA-256. */
  digest: string
  /** Of the default profile, as are the next ones. */
  rootHash?: string
  verity?: 'usr' | 'root'
  osRelease: string
  commandLine: string
  uname: string
  /** PCR 11 of the default profile by phase path and bank. */
  pcr11: Record<string, Record<string, string>>
  profiles: ProfileFacts[]
}

export interface ProfileFacts {
  /** 0 is what boots by default. */
  number: number
  /** Of `.profile`; empty where there is none. */
  id: string
  title: string
  commandLine: string
  /** `usrhash=` or `roothash=` of the command line, and which of the two it is. */
  rootHash?: string
  verity?: 'usr' | 'root'
  osRelease: string
  uname: string
  /** Names of its sections, those of the base among them. */
  sections: string[]
  /** PCR 11 by phase path and bank. */
  pcr11: Record<string, Record<string, string>>
  /** Has signed PCR policies. */
  hasPolicies: boolean
  /** The kernel, decompressed by nobody. */
  kernel: Uint8Array
  /** What its initrd unpacks to; undefined where it cannot be read. Profiles that share one share the object. */
  initrd?: InitrdFacts
}

export interface InitrdFacts {
  files: Files
  /** Of systemd, as /usr/lib/systemd/libsystemd-shared-257.so is called: `257`. */
  systemdVersion?: string
  /** IPE policies it brings: those that PID 1 loads, in its order, then those that something else loads later. */
  ipePolicies: IpePolicyFacts[]
}

export interface IpePolicyFacts {
  path: string
  byPid1: boolean
  name?: string
  version?: string
  /** What it says; empty where it cannot be read. */
  text: string
  /** DER of the signers whose signatures hold. */
  signers: Uint8Array[]
  /** All its signers are known to the kernel. */
  trusted: boolean
  problems: string[]
}

export interface TreeFacts {
  verity: 'usr' | 'root'
  rootHash: string
  partition: DiskPartition
  /** Paths of the UKIs that pin it. */
  ukis: string[]
  /** Every block matches the root hash. */
  sound: boolean
  /** DER of those whose signatures of the root hash hold. */
  signers: Uint8Array[]
  /** A trusted certificate that the kernel itself can know signed the root hash: IPE's `dmverity_signature`. */
  signedForKernel: boolean
  fileSystem: string
  /** Undefined where the file system is none we can read. */
  files?: Files
}
