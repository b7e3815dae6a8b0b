/**
 * A folder of .deb files as a repository: what each says of itself, and the digest of its bytes. Nobody signs it; what was
 * chosen of it is pinned by digest.
 *
 * Oracle: `dpkg-scanpackages`
 * Limits: the files of the folder itself, not of folders below it; at most 10 000 of them, 2 GiB each.
 */
import { readdir, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { type Sha256, sha256 } from '../../base/digest.ts'
import { Fault } from '../../base/fault.ts'
import { formatSize } from '../../base/size.ts'
import { decodeDeb } from '../../formats/deb.ts'
import { formatStanzas, type Stanza } from '../../formats/deb822.ts'
import { type Blob, hashOf, type Store } from '../../store/store.ts'
import { inParallel } from '../download.ts'
import type { Repository } from '../repository.ts'
import { indexPackages, openIndex } from './index.ts'
import type { LoadedRepository } from './repository.ts'

/** A package file of a folder. */
export interface LocalFile {
  name: string
  sha256: Sha256
  sizeBytes: number
}

/** The package files of a folder, by name. A folder that is not there has none. */
export async function listPackages(directory: string): Promise<LocalFile[]> {
  const names = await readdir(directory).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return []
    throw new Fault('recipe', `Cannot read packages of ${directory}: ${error.message}`)
  })
  const wanted = names.filter((name) => /\.d?deb$/.test(name)).sort()
  const strange = wanted.filter((name) => !/^[A-Za-z0-9][A-Za-z0-9+._~:%=-]{0,249}$/.test(name))
  if (strange.length > 0) {
    const shown = strange.map((name) => JSON.stringify(name)).join(', ')
    throw new Fault(
      'recipe',
      `Cannot use packages of ${directory}: ${shown} is not named like a package (NAME_VERSION_ARCHITECTURE.deb)`,
    )
  }
  if (wanted.length > MAX_FILES)
    throw new Fault('recipe', `Cannot use packages of ${directory}: ${wanted.length} files, expected at most ${MAX_FILES}`)
  return inParallel(wanted, 4, (name) => hashed(directory, name))
}

const MAX_FILES = 10_000
const MAX_FILE_BYTES = 2 ** 31

/** Says which packages a folder holds, for comparison: changes when, and only when, a file does. */
export const listingDigest = (files: readonly LocalFile[]): Sha256 =>
  sha256(files.map((file) => `${file.sha256} ${file.sizeBytes} ${file.name}\n`).join(''))

/** Reads what the packages of a folder say of themselves, and keeps their bytes in the store. */
export async function loadLocalRepository(repository: Repository, store: Store): Promise<LoadedRepository> {
  const directory = repository.directory!
  const files = await listPackages(directory)
  const stanzas = await inParallel(files, 2, (file) => stanzaOf(directory, file, store))
  const index = openIndex(indexPackages(Buffer.from(formatStanzas(stanzas)), `packages of ${directory}`))
  const release = { codename: '', suite: '', origin: '', label: '', version: '', date: new Date(0), digest: listingDigest(files) }
  return { repository, index, release }
}

/** The bytes of a package of a folder, into the store. */
export async function storeLocal(directory: string, file: LocalFile, store: Store): Promise<Blob> {
  const path = join(directory, file.name)
  const now = await hashed(directory, file.name)
  if (now.sha256 !== file.sha256 || now.sizeBytes !== file.sizeBytes)
    throw new Fault('integrity', `Cannot use ${path}: its SHA-256 is ${now.sha256}, expected ${file.sha256}`)
  return store.put(await readFile(path), file)
}

async function hashed(directory: string, name: string): Promise<LocalFile> {
  const path = join(directory, name)
  const found = await stat(path).catch(() => undefined)
  if (!found?.isFile()) throw new Fault('recipe', `Cannot use ${path}: it is no file`)
  if (found.size > MAX_FILE_BYTES)
    throw new Fault('recipe', `Cannot use ${path}: ${formatSize(found.size)}, expected at most ${formatSize(MAX_FILE_BYTES)}`)
  return { name, sha256: await hashOf(path), sizeBytes: found.size }
}

/** The stanza that an index has for a package file: its control, and how to find and check it. */
async function stanzaOf(directory: string, file: LocalFile, store: Store): Promise<Stanza> {
  const path = join(directory, file.name)
  const bytes = await readFile(path)
  if (sha256(bytes) !== file.sha256) throw new Fault('integrity', `Cannot use ${path}: it changes while it is read`)
  await store.put(bytes)
  let fields: Stanza
  try {
    fields = (await decodeDeb(bytes)).fields
  } catch (error) {
    if (error instanceof Fault) throw new Fault('format', `Cannot use ${path}: ${error.message}`)
    throw error
  }
  const place = [
    ['Filename', file.name],
    ['Size', String(file.sizeBytes)],
    ['SHA256', file.sha256],
  ] as const
  const rest = [...fields].filter(([name]) => !place.some(([other]) => other.toLowerCase() === name.toLowerCase()))
  return new Map([...rest, ...place])
}
