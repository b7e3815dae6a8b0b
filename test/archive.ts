/** A tiny Debian archive made in a test: real signatures, real indexes, package files of any bytes. */
import { createHash } from 'node:crypto'
import { gzipSync } from 'node:zlib'
import { xzSync } from 'node-liblzma'
import * as openpgp from 'openpgp'
import type { Repository } from '../src/packages/repository.ts'

export interface ArchiveKey {
  sign: openpgp.PrivateKey
  /** Armored certificate. */
  certificate: Uint8Array
}

/** When everything in a test archive happens. */
export const NOW = new Date('2026-11-23T12:00:00Z')

export async function makeKey(
  name = 'Test Archive',
  options: { date?: Date; keyExpirationTime?: number } = {},
): Promise<ArchiveKey> {
  const { privateKey, publicKey } = await openpgp.generateKey({
    type: 'ecc',
    curve: 'ed25519Legacy',
    userIDs: [{ name, email: 'archive@example.org' }],
    date: new Date('2026-01-01T00:00:00Z'),
    format: 'object',
    ...options,
  })
  return { sign: privateKey, certificate: Buffer.from(publicKey.armor()) }
}

export interface ArchivePackage {
  name: string
  version?: string
  architecture?: string
  bytes?: Uint8Array
  /** Further fields of its stanza; `Filename` here replaces the usual one. */
  fields?: Record<string, string>
}

export interface ArchiveOptions {
  packages?: readonly ArchivePackage[]
  /** Fields of Release that differ from the usual ones; `undefined` leaves one out. */
  release?: Record<string, string | undefined>
  keys: readonly ArchiveKey[]
  /** Index suffixes to offer. */
  suffixes?: readonly ('' | '.gz' | '.xz')[]
  /** Changes an index file after Release was written. */
  tamper?: (path: string, bytes: Buffer) => Buffer
}

/** Every file of the archive by its path below the mirror. */
export async function makeArchive(options: ArchiveOptions): Promise<Map<string, Buffer>> {
  const files = new Map<string, Buffer>()
  const stanzas = (options.packages ?? [{ name: 'hello' }]).map((p) => {
    const bytes = Buffer.from(p.bytes ?? `the bytes of ${p.name} ${p.version ?? '1.0'}`)
    const fields = stanzaOf(p, bytes)
    files.set(fields['Filename']!, bytes)
    return Object.entries(fields)
      .map(([name, value]) => `${name}: ${value}\n`)
      .join('')
  })
  const text = Buffer.from(stanzas.join('\n'))
  const indexes: Record<string, Buffer> = { '': text, '.gz': gzipSync(text), '.xz': xzSync(text) }
  const listed: string[] = []
  for (const suffix of ['', '.gz', '.xz'] as const) {
    if (suffix !== '' && !(options.suffixes ?? ['', '.gz', '.xz']).includes(suffix)) continue
    const path = `main/binary-amd64/Packages${suffix}`
    const bytes = indexes[suffix]!
    listed.push(` ${sha256(bytes)} ${String(bytes.length).padStart(8)} ${path}`)
    const served = options.tamper?.(path, bytes) ?? bytes
    files.set(`dists/test/${path}`, served)
    files.set(`dists/test/main/binary-amd64/by-hash/SHA256/${sha256(bytes)}`, served)
  }
  const release = releaseText(options.release ?? {}, listed)
  files.set('dists/test/InRelease', Buffer.from(await clearSign(release, options.keys)))
  return files
}

export function releaseText(changes: Record<string, string | undefined>, listed: readonly string[]): string {
  const fields: Record<string, string | undefined> = {
    Origin: 'Test',
    Suite: 'testing',
    Codename: 'test',
    Date: 'Mon, 23 Nov 2026 06:00:00 UTC',
    'Valid-Until': 'Mon, 30 Nov 2026 06:00:00 UTC',
    'Acquire-By-Hash': 'yes',
    Architectures: 'amd64 arm64',
    Components: 'main contrib',
    ...changes,
  }
  const lines = Object.entries(fields).flatMap(([name, value]) => (value === undefined ? [] : [`${name}: ${value}`]))
  return `${[...lines, 'SHA256:', ...listed].join('\n')}\n`
}

export async function clearSign(
  text: string,
  keys: readonly ArchiveKey[],
  date = new Date('2026-11-23T06:00:00Z'),
): Promise<string> {
  const message = await openpgp.createCleartextMessage({ text })
  return openpgp.sign({ message, signingKeys: keys.map((key) => key.sign), date })
}

export async function detachSign(
  text: string,
  keys: readonly ArchiveKey[],
  date = new Date('2026-11-23T06:00:00Z'),
): Promise<string> {
  const message = await openpgp.createMessage({ binary: Buffer.from(text) })
  return openpgp.sign({ message, signingKeys: keys.map((key) => key.sign), date, detached: true })
}

/** How a recipe would name the archive. */
export const archiveRepository = (url: string, keyring: Uint8Array, changes: Partial<Repository> = {}): Repository => ({
  id: 'test',
  format: 'deb',
  url,
  suite: 'test',
  components: ['main'],
  architecture: 'amd64',
  keyring,
  priority: 500,
  ...changes,
})

function stanzaOf(p: ArchivePackage, bytes: Buffer): Record<string, string> {
  const version = p.version ?? '1.0'
  const architecture = p.architecture ?? 'amd64'
  return {
    Package: p.name,
    Version: version,
    Architecture: architecture,
    Maintainer: 'Nobody <nobody@example.org>',
    Description: `test package ${p.name}`,
    Filename: `pool/main/${p.name[0]}/${p.name}/${p.name}_${version}_${architecture}.deb`,
    Size: String(bytes.length),
    SHA256: sha256(bytes),
    ...p.fields,
  }
}

const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex')
