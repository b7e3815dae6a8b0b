/**
 * Discoverable Partition types: what a partition is for, said by its GUID.
 *
 * Spec:   UAPI.2 — https://uapi-group.org/specifications/specs/discoverable_partitions_specification/
 * Oracle: `systemd-repart --json`, `systemd-dissect --json`
 * Limits: x86-64 and arm64 for what depends on the architecture.
 */

export type Architecture = 'x86-64' | 'arm64'

export type Designator = keyof typeof ANY_ARCHITECTURE | keyof typeof BY_ARCHITECTURE

// biome-ignore format: table
const ANY_ARCHITECTURE = {
  'esp':           'c12a7328-f81f-11d2-ba4b-00a0c93ec93b',
  'xbootldr':      'bc13c2ff-59e6-4262-a352-b275fd6f7172',
  'swap':          '0657fd6d-a4ab-43c4-84e5-0933c84b4f4f',
  'home':          '933ac7e1-2eb4-4f13-b844-0e14e2aef915',
  'srv':           '3b8f8425-20e0-4f3b-907f-1a25a76f98e8',
  'var':           '4d21b016-b534-45c2-a9fb-5c16e091fd2d',
  'tmp':           '7ec6f557-3bc5-4aca-b293-16ef5df639d1',
  'user-home':     '773f91ef-66d4-49b5-bd83-d683bf40ad16',
  'linux-generic': '0fc63daf-8483-4772-8e79-3d69d8477de4',
} as const

// biome-ignore format: table
const BY_ARCHITECTURE = {
  'root':            { 'x86-64': '4f68bce3-e8cd-4db1-96e7-fbcaf984b709', 'arm64': 'b921b045-1df0-41c3-af44-4c6f280d3fae' },
  'root-verity':     { 'x86-64': '2c7357ed-ebd2-46d9-aec1-23d437ec2bf5', 'arm64': 'df3300ce-d69f-4c92-978c-9bfb0f38d820' },
  'root-verity-sig': { 'x86-64': '41092b05-9fc8-4523-994f-2def0408b176', 'arm64': '6db69de6-29f4-4758-a7a5-962190f00ce3' },
  'usr':             { 'x86-64': '8484680c-9521-48c6-9c11-b0720656f69e', 'arm64': 'b0e01050-ee5f-4390-949a-9101b17104e9' },
  'usr-verity':      { 'x86-64': '77ff5f63-e7b6-4633-acf4-1565b864c0e6', 'arm64': '6e11a4e7-fbca-4ded-b9e9-e1a512bb664e' },
  'usr-verity-sig':  { 'x86-64': 'e7bb33fb-06cf-4e81-8273-e543b413e2e2', 'arm64': 'c23ce4ff-44bd-4b00-b2d4-b41b3419e02a' },
} as const

/** Bits of a partition's attributes. */
export const ATTRIBUTE = { growFileSystem: 1n << 59n, readOnly: 1n << 60n, noAuto: 1n << 63n }

export interface PartitionType {
  guid: string
  /** The name systemd uses, and a partition's label unless it has another: `usr-x86-64-verity`. */
  name: string
  /** Verity hashes and their signature: never written to. */
  readOnly: boolean
  /** Whether a file system of this type may grow into its partition at first boot. */
  growable: boolean
}

export function partitionType(designator: Designator, architecture: Architecture): PartitionType {
  const readOnly = designator.includes('-verity')
  const growable = ['root', 'usr', 'home', 'srv', 'var', 'tmp', 'xbootldr'].includes(designator)
  if (designator in ANY_ARCHITECTURE) {
    const guid = ANY_ARCHITECTURE[designator as keyof typeof ANY_ARCHITECTURE]
    return { guid, name: designator, readOnly, growable }
  }
  const guid = BY_ARCHITECTURE[designator as keyof typeof BY_ARCHITECTURE][architecture]
  return { guid, name: designator.replace(/^[a-z]+/, (which) => `${which}-${architecture}`), readOnly, growable }
}

/** What a partition type GUID stands for; undefined where it is none of ours. */
export function designatorOf(guid: string): { designator: Designator; architecture?: Architecture } | undefined {
  for (const [designator, known] of Object.entries(ANY_ARCHITECTURE)) {
    if (known === guid) return { designator: designator as Designator }
  }
  for (const [designator, known] of Object.entries(BY_ARCHITECTURE)) {
    for (const architecture of ['x86-64', 'arm64'] as const) {
      if (known[architecture] === guid) return { designator: designator as Designator, architecture }
    }
  }
  return undefined
}

/** Attributes systemd-repart gives a new partition of this type. */
export function defaultAttributes(
  type: PartitionType,
  choice: { readOnly?: boolean; growFileSystem?: boolean; noAuto?: boolean } = {},
): bigint {
  const readOnly = choice.readOnly ?? type.readOnly
  const grow = choice.growFileSystem ?? (type.growable && !readOnly)
  return (readOnly ? ATTRIBUTE.readOnly : 0n) | (grow ? ATTRIBUTE.growFileSystem : 0n) | (choice.noAuto ? ATTRIBUTE.noAuto : 0n)
}
