/**
 * The real archive, as the comparison with apt sees it: four suites of Debian trixie for amd64.
 * Swap `loadText` to take it from elsewhere; everything else works on what it returns.
 */
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { unxzSync } from 'node-liblzma'
import { indexPackages, openIndex } from '../../src/packages/deb/index.ts'
import type { Suite } from '../../src/packages/deb/universe.ts'

export interface ArchiveSuite extends Suite {
  /** The text of its Packages file and of its InRelease. */
  packages: Uint8Array
  release: Uint8Array
  /** What `index` was opened from. */
  compiled: Uint8Array
}

const DEBIAN = 'http://deb.debian.org/debian'
// biome-ignore format: table
export const SUITES = [
  { suite: 'trixie',           url: DEBIAN,                                         priority: 500 },
  { suite: 'trixie-updates',   url: DEBIAN,                                         priority: 500 },
  { suite: 'trixie-security',  url: 'http://security.debian.org/debian-security',   priority: 500 },
  { suite: 'trixie-backports', url: DEBIAN,                                         priority: 100 },
]

export async function loadArchive(): Promise<ArchiveSuite[]> {
  const loaded: ArchiveSuite[] = []
  for (const { suite, url, priority } of SUITES) {
    const packages = await loadText(suite, 'Packages', `${url}/dists/${suite}/main/binary-amd64/Packages.xz`, unxzSync)
    const release = await loadText(suite, 'InRelease', `${url}/dists/${suite}/InRelease`, (bytes) => bytes)
    const compiled = indexPackages(packages, `${suite} Packages`)
    loaded.push({ repository: { id: suite, suite, priority }, index: openIndex(compiled), packages, release, compiled })
  }
  return loaded
}

async function loadText(suite: string, name: string, url: string, unpack: (bytes: Buffer) => Uint8Array): Promise<Uint8Array> {
  const folder = join(process.env['BISQUE_TEST_ARCHIVE'] ?? join(tmpdir(), 'bisque-test-archive'), suite)
  const path = join(folder, name)
  if (!existsSync(path)) {
    const response = await fetch(url)
    if (!response.ok) throw new Error(`${url} answers ${response.status}`)
    mkdirSync(folder, { recursive: true })
    writeFileSync(`${path}.${process.pid}`, unpack(Buffer.from(await response.arrayBuffer())))
    renameSync(`${path}.${process.pid}`, path)
  }
  return readFileSync(path)
}
