/** The manifest beside an image: what it says of the artifacts and of the chain of trust is true. */
import { readFileSync, statSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { isSha256, type Sha256, sha256 } from '../base/digest.ts'
import { Fault } from '../base/fault.ts'
import { predictFromEsp } from '../image/measured.ts'
import { HASH_FILE } from '../run/hash-file.ts'
import type { Workers } from '../run/workers.ts'
import type { EspFile, ImageFacts } from './facts.ts'
import { checkLink, type Finding, type Link } from './link.ts'

const MAX_MANIFEST_BYTES = 64 << 20
const MAX_ARTIFACTS = 256

interface Artifact {
  name: string
  sizeBytes: number
  sha256: Sha256
}

export const manifestPathOf = (image: string): string => `${image.replace(/\.raw$/, '')}.manifest.json`

/** Reads the manifest and hashes the artifacts it names; undefined where there is none. */
export async function checkArtifacts(
  image: string,
  workers: Workers,
  links: Link[],
): Promise<Record<string, unknown> | undefined> {
  const path = manifestPathOf(image)
  if (!fileSize(path)) return undefined
  return checkLink(links, 'artifacts', 'artifacts', async ({ evidence, wrong }) => {
    const manifest = readManifest(path)
    const artifacts = artifactsOf(manifest)
    if (!artifacts.some(({ name }) => name === basename(image))) wrong(`the manifest does not name ${basename(image)}`)
    const problems = await Promise.all(artifacts.map((artifact) => checkArtifact(artifact, dirname(path), workers)))
    for (const problem of problems) if (problem !== undefined && problem !== ABSENT) wrong(problem)
    const absent = problems.filter((problem) => problem === ABSENT).length
    evidence(
      `${artifacts.length - absent} of ${artifacts.length} artifacts hashed${absent > 0 ? ', the others are not here' : ''}`,
    )
    return manifest
  })
}

const ABSENT = 'absent'

async function checkArtifact(artifact: Artifact, folder: string, workers: Workers): Promise<string | undefined> {
  const path = join(folder, artifact.name)
  const size = fileSize(path)
  if (size === undefined) return ABSENT
  if (size !== artifact.sizeBytes) return `${artifact.name} has ${size} bytes, the manifest says ${artifact.sizeBytes}`
  const digest = await workers.run(HASH_FILE, path).catch((cause) => {
    throw new Fault('host', `Cannot verify ${path}: ${(cause as Error).message}`, { cause })
  })
  if (digest !== artifact.sha256) return `${artifact.name} has SHA-256 ${digest}, the manifest says ${artifact.sha256}`
  return undefined
}

/** What the manifest says of the chain of trust against what the image says. */
export async function checkManifest(
  manifest: Record<string, unknown>,
  { ukis, anchor, espFiles }: ImageFacts,
  links: Link[],
): Promise<void> {
  await checkLink(links, 'artifacts', 'manifest', async ({ evidence, wrong }: Finding) => {
    const authenticode = asObject(manifest['authenticode'])['uki']
    const uki = ukis.find(({ digest }) => digest === authenticode)
    if (!uki) {
      wrong(`authenticode.uki is ${show(authenticode)}, which no UKI on the ESP has`)
      return
    }
    const compare = (name: string, said: unknown, found: unknown) => {
      if (canonical(said) !== canonical(found)) wrong(`${name} is ${show(said)}, the image has ${show(found)}`)
    }
    compare('rootHash', manifest['rootHash'], uki.rootHash)
    compare('commandLine', manifest['commandLine'], uki.commandLine)
    compare('kernel', manifest['kernel'], uki.uname)
    compare('pcr11', manifest['pcr11'], uki.pcr11)
    if (manifest['pcrs'] !== undefined) {
      const read = async (path: string) => espFiles.find((file) => isCalled(file, path))?.read(MAX_PROGRAM_BYTES)
      compare('pcrs', manifest['pcrs'], await predictFromEsp(read, (await read(uki.path)) ?? new Uint8Array()))
    }
    const certificates = asObject(manifest['certificates'])
    for (const role of ['db', 'verity'] as const)
      if (!anchor[role].some((one) => sha256(one) === certificates[role]))
        wrong(`certificates.${role} is ${show(certificates[role])}, which is not trusted`)
    evidence(`root hash, command line, kernel, PCRs and certificates are those of ${uki.path}`)
  })
}

const MAX_PROGRAM_BYTES = 512 << 20

/** FAT knows no case. */
const isCalled = ({ path }: EspFile, name: string): boolean => path.toUpperCase() === name.toUpperCase()

function readManifest(path: string): Record<string, unknown> {
  const sizeBytes = fileSize(path) ?? 0
  if (sizeBytes > MAX_MANIFEST_BYTES) throw new Fault('format', `Cannot read ${path}: it has ${sizeBytes} bytes`)
  try {
    const value: unknown = JSON.parse(readFileSync(path, 'utf8'))
    if (value !== null && typeof value === 'object' && !Array.isArray(value)) return value as Record<string, unknown>
  } catch (cause) {
    if (cause instanceof SyntaxError) throw new Fault('format', `Cannot read ${path}: ${cause.message}`, { cause })
    throw new Fault('host', `Cannot read ${path}: ${(cause as Error).message}`, { cause })
  }
  throw new Fault('format', `Cannot read ${path}: it is no JSON object`)
}

/** The files it names, which lie beside it: a name that leads elsewhere is refused. */
function artifactsOf(manifest: Record<string, unknown>): Artifact[] {
  const { artifacts } = manifest
  if (!Array.isArray(artifacts) || artifacts.length > MAX_ARTIFACTS)
    throw new Fault('format', `Cannot read manifest: artifacts is no list of at most ${MAX_ARTIFACTS}`)
  return artifacts.map((artifact: unknown, i) => {
    const { name, sizeBytes, sha256: digest } = asObject(artifact)
    const sound = typeof name === 'string' && name !== '.' && name !== '..' && /^[^/\0]+$/.test(name)
    if (!sound || !Number.isSafeInteger(sizeBytes) || typeof digest !== 'string' || !isSha256(digest))
      throw new Fault('format', `Cannot read manifest: artifact ${i} lacks a sound name, sizeBytes or sha256`)
    return { name, sizeBytes: sizeBytes as number, sha256: digest }
  })
}

/** The size of a regular file, undefined for all else: reading a pipe would never end. */
function fileSize(path: string): number | undefined {
  const found = statSync(path, { throwIfNoEntry: false })
  return found?.isFile() ? found.size : undefined
}

const asObject = (value: unknown): Record<string, unknown> =>
  value !== null && typeof value === 'object' ? (value as Record<string, unknown>) : {}

const show = (value: unknown): string => (JSON.stringify(value) ?? 'absent').slice(0, 200)

const canonical = (value: unknown): string =>
  JSON.stringify(value, (_key, inner: unknown) =>
    inner !== null && typeof inner === 'object' && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1)))
      : inner,
  ) ?? 'absent'
