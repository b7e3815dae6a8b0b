/**
 * Two bakes of one recipe compared, part by part: ours and mkosi's. Nothing is judged here: `explained.ts` knows why
 * some differences are there, and the rest is a fault of ours.
 */
import { createHash } from 'node:crypto'
import { closeSync, fstatSync, lstatSync, openSync, readdirSync, readFileSync, readSync } from 'node:fs'
import { join } from 'node:path'
import { authenticodeDigest } from '../../src/formats/authenticode.ts'
import { decodeErofs, type Erofs, type ErofsInode } from '../../src/formats/erofs-decode.ts'
import { decodeFat, type Fat, readFat } from '../../src/formats/fat.ts'
import { decodeGpt, type GptPartition } from '../../src/formats/gpt.ts'
import { decodePe } from '../../src/formats/pe.ts'
import type { ReadAt } from '../../src/formats/struct.ts'
import { ACCOUNT_FILES, ownersByName, type ReadAccounts, sameAccounts } from './accounts.ts'
import { initrdAccounts, initrdFiles, membersOf } from './initrd.ts'
import { ukiSections } from './uki.ts'

/** One thing that is not the same, or only one side has. */
export interface Difference {
  part: Part
  /** Path below /usr, in the ESP or in an initrd; name of a section, partition, package or artifact. */
  path: string
  /** What of it differs: `presence`, `size`, `mode`, `owner` … */
  what: string
  ours: string
  theirs: string
}

export type Part = 'artifacts' | 'packages' | 'partitions' | '/usr' | 'ESP' | 'UKI' | 'initrd'

export interface Comparison {
  /** How many things of each part both have. */
  compared: Record<Part, number>
  differences: Difference[]
}

/** What a side has, by path, each as words to compare: `{ type: 'file', mode: '644', … }`. */
export type Facts = Record<string, string>
export type Found = Map<string, Facts>

export function compareImages(ours: string, theirs: string): Comparison {
  const [left, right] = [readSide(ours, 'manifest.json'), readSide(theirs, 'manifest')]
  try {
    const differences: Difference[] = []
    const compared = {} as Comparison['compared']
    const compare = (part: Part, a: Found, b: Found) => {
      differences.push(...differencesOf(part, a, b))
      compared[part] = [...a.keys()].filter((path) => b.has(path)).length
    }
    compare('artifacts', left.artifacts, right.artifacts)
    compare('packages', left.packages, right.packages)
    compare('partitions', left.partitions, right.partitions)
    const [a, b] = [usrFiles(left.usr), usrFiles(right.usr)]
    alikeAccounts('share/factory/etc', [a, b], [accountsOf(left.usr), accountsOf(right.usr)])
    compare('/usr', a, b)
    compare('ESP', espFiles(left.esp, left.readEsp), espFiles(right.esp, right.readEsp))
    const ukis = [ukiSections(left.uki), ukiSections(right.uki)] as const
    compare('UKI', ukis[0].found, ukis[1].found)
    const members = [membersOf(ukis[0].initrd), membersOf(ukis[1].initrd)] as const
    const [c, d] = [initrdFiles(members[0]), initrdFiles(members[1])]
    alikeAccounts('etc', [c, d], [initrdAccounts(members[0]), initrdAccounts(members[1])])
    compare('initrd', c, d)
    return { compared, differences }
  } finally {
    for (const side of [left, right]) side.close()
  }
}

/** The partitions of a disk image. */
export function readPartitions(path: string): readonly GptPartition[] {
  const disk = openFile(path)
  try {
    return decodeGpt(disk.read).partitions
  } finally {
    disk.close()
  }
}

/** What there is to compare of a UKI's sections, by profile and name. */
export const readUki = (path: string): Found => ukiSections(readFileSync(path)).found

function differencesOf(part: Part, ours: Found, theirs: Found): Difference[] {
  const differences: Difference[] = []
  for (const path of new Set([...ours.keys(), ...theirs.keys()])) {
    const [a, b] = [ours.get(path), theirs.get(path)]
    if (a === undefined || b === undefined) {
      differences.push({ part, path, what: 'presence', ours: a ? say(a) : 'absent', theirs: b ? say(b) : 'absent' })
      continue
    }
    for (const what of new Set([...Object.keys(a), ...Object.keys(b)]))
      if (a[what] !== b[what]) differences.push({ part, path, what, ours: a[what] ?? 'none', theirs: b[what] ?? 'none' })
  }
  return differences
}

const say = (facts: Facts): string => Object.entries(facts).map((pair) => pair.join(' ')).join(', ') || 'there' // biome-ignore format: one line

interface Side {
  artifacts: Found
  packages: Found
  partitions: Found
  usr: Erofs
  esp: Fat
  readEsp: ReadAt
  uki: Buffer
  close(): void
}

const GUID = /[0-9a-f]{32}/

function readSide(folder: string, manifestSuffix: string): Side {
  const names = readdirSync(folder)
  const named = (pattern: RegExp) => {
    const name = names.find((candidate) => pattern.test(candidate) && lstatSync(join(folder, candidate)).isFile())
    if (name === undefined) throw new Error(`${folder} has no ${pattern}: ${names.join(' ')}`)
    return join(folder, name)
  }
  const files = [/_x86-64\.raw$/, /usr-x86-64\.[0-9a-f]{32}\.raw$/, /\.esp\.raw$/].map((pattern) => openFile(named(pattern)))
  const [disk, usr, esp] = files as [OpenFile, OpenFile, OpenFile]
  const manifest = JSON.parse(readFileSync(named(new RegExp(`\\.${manifestSuffix}$`)), 'utf8'))
  return {
    artifacts: new Map(names.map((name) => [artifactName(name), artifactFacts(join(folder, name))])),
    packages: packagesOf(manifest),
    partitions: partitionsOf(decodeGpt(disk.read).partitions),
    usr: decodeErofs(usr.read, usr.size),
    esp: decodeFat(esp.read, esp.size),
    readEsp: esp.read,
    uki: readFileSync(named(/_x86-64\.efi$/)),
    close: () => {
      for (const file of files) file.close()
    },
  }
}

/** GUIDs of verity partitions are halves of a root hash: another for every image. */
const artifactName = (name: string): string => name.replace(GUID, 'GUID')

/** What a manifest in mkosi's format says is the same for both. */
const artifactFacts = (path: string): Facts =>
  path.endsWith('.manifest') ? { says: JSON.stringify(JSON.parse(readFileSync(path, 'utf8'))) } : {}

interface OpenFile {
  size: number
  read: ReadAt
  close(): void
}

function openFile(path: string): OpenFile {
  const fd = openSync(path, 'r')
  const { size } = fstatSync(fd)
  const read = (offset: number, sizeBytes: number) => {
    const buffer = Buffer.alloc(Math.max(0, Math.min(sizeBytes, size - offset)))
    readSync(fd, buffer, 0, buffer.length, offset)
    return buffer
  }
  return { size, read, close: () => closeSync(fd) }
}

type Listed = { name: string; version: string; architecture: string }

/** Ours groups packages by image, mkosi's manifest is of one image. */
function packagesOf({ packages }: { packages: Listed[] | { image: Listed[] } }): Found {
  const list = Array.isArray(packages) ? packages : packages.image
  return new Map(list.map(({ name, version, architecture }) => [name, { version, architecture }]))
}

function partitionsOf(partitions: readonly GptPartition[]): Found {
  return new Map(
    partitions.map(({ name, type, guid, firstLba, lastLba, attributes }, i) => [
      name,
      {
        ...{ place: String(i), type, guid, flags: attributes.toString(16) },
        ...{ start: String(firstLba), sectors: String(lastLba - firstLba + 1) },
      },
    ]),
  )
}

const digest = (bytes: Iterable<Uint8Array>): string => {
  const hash = createHash('sha256')
  for (const piece of bytes) hash.update(piece)
  return hash.digest('hex').slice(0, 16)
}

function usrFiles(usr: Erofs): Found {
  const owner = ownersByName(accountsOf(usr))
  const found: Found = new Map()
  for (const [path, inode] of usr.inodes) {
    found.set(path, {
      type: inode.type,
      mode: inode.mode.toString(8),
      owner: owner(inode.uid, inode.gid),
      ...(inode.xattrs.size > 0 && { xattrs: xattrs(inode) }),
      ...(inode.type === 'symlink' && { target: inode.target! }),
      ...(inode.type === 'file' && contentFacts(path, usr, inode)),
    })
  }
  return found
}

const xattrs = ({ xattrs }: ErofsInode): string =>
  [...xattrs].map(([name, value]) => `${name}=${Buffer.from(value).toString('base64')}`).sort().join(' ') // biome-ignore format: one line

function contentFacts(path: string, usr: Erofs, inode: ErofsInode): Facts {
  const links = String(inode.links)
  if (/\.efi\.signed$/.test(path)) {
    const bytes = Buffer.concat([...usr.contents(inode)])
    return { links, size: String(bytes.length), content: programDigest(bytes) }
  }
  if (path.endsWith('.pyc')) {
    const bytes = Buffer.concat([...usr.contents(inode)])
    return { links, size: String(bytes.length), header: bytes.toString('hex', 4, 16), content: digest([bytes.subarray(16)]) }
  }
  return { links, size: String(inode.sizeBytes), content: digest(usr.contents(inode)) }
}

/** Of what a signature covers: the signature itself is no content. */
const programDigest = (bytes: Uint8Array): string => authenticodeDigest(bytes, decodePe(bytes)).toString('hex').slice(0, 16)

/** Account files that say the same of every account but for its number: their content becomes that. */
function alikeAccounts(folder: string, found: readonly [Found, Found], read: readonly [ReadAccounts, ReadAccounts]): void {
  for (const name of ACCOUNT_FILES) {
    const [ours, theirs] = [found[0].get(`${folder}/${name}`), found[1].get(`${folder}/${name}`)]
    if (ours === undefined || theirs === undefined || ours['content'] === theirs['content']) continue
    if (!sameAccounts(name, ...read)) continue
    for (const facts of [ours, theirs]) {
      facts['numbers'] = facts['content']!
      delete facts['content']
      delete facts['size']
    }
  }
}

/** What /etc will have, where /usr keeps a copy of it. */
const accountsOf =
  (usr: Erofs): ReadAccounts =>
  (file) => {
    const inode = usr.inodes.get(`share/factory/etc/${file}`)
    return inode === undefined ? '' : Buffer.concat([...usr.contents(inode)]).toString()
  }

function espFiles(esp: Fat, read: ReadAt): Found {
  const facts = (entry: Fat['entries'][number]): Facts => {
    if (entry.type === 'directory') return { type: entry.type }
    const bytes = readFat(read, entry)
    const isProgram = /\.efi$/i.test(entry.path)
    return { type: 'file', size: String(bytes.length), content: isProgram ? programDigest(bytes) : digest([bytes]) }
  }
  const found: Found = new Map(esp.entries.map((entry) => [entry.path, facts(entry)]))
  found.set('', {
    bits: String(esp.bits),
    sectorSize: String(esp.sectorSize),
    cluster: String(esp.clusterSize),
    label: esp.label,
  })
  return found
}
