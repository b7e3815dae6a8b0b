/** Gets the files of packages into the store: from the cache, the repositories, or the snapshot archive, always verified. */
import { statfs } from 'node:fs/promises'
import { Fault } from '../base/fault.ts'
import type { Report } from '../base/report.ts'
import { formatSize } from '../base/size.ts'
import type { Store } from '../store/store.ts'
import { storeLocal } from './deb/local.ts'
import { downloadBlob, inParallel, isAbsent } from './download.ts'
import { Interruption, type Network, type Wire, withWire } from './http.ts'
import { type FetchedPackage, type Package, packageId } from './package.ts'
import type { Repository } from './repository.ts'

export interface FetchOptions {
  store: Store
  /** Use what is cached and nothing else. */
  offline?: boolean
  /** Timestamp of each repository (`Repository.id` → `YYYYMMDDTHHMMSSZ`), for files its mirror no longer has. */
  snapshots?: ReadonlyMap<string, string>
  network?: Partial<Network>
}

/** Returns the packages in the order given, each with its verified file. Fails with one Fault that names all that is wrong. */
export async function fetchPackages(
  packages: readonly Package[],
  repositories: readonly Repository[],
  options: FetchOptions,
  report: Report,
): Promise<FetchedPackage[]> {
  const { store } = options
  const byId = new Map(repositories.map((repository) => [repository.id, repository]))
  for (const p of packages) refuseStrange(p, byId)
  const distinct = [...new Map(packages.map((p) => [p.sha256, p])).values()]
  const cached = await inParallel(distinct, HASHES_AT_A_TIME, (p) => store.verified(p.sha256, p.sizeBytes))
  const missing = distinct.filter((_, i) => cached[i] === undefined)
  if (missing.length > 0) {
    const folderOf = (p: Package) => byId.get(p.repository)!.directory
    const remote = missing.filter((p) => folderOf(p) === undefined)
    if (options.offline && remote.length > 0) throw notCached(remote)
    await refuseFullDisk(store, missing)
    for (const p of missing) {
      const folder = folderOf(p)
      if (folder !== undefined) await storeLocal(folder, { name: p.filename, sha256: p.sha256, sizeBytes: p.sizeBytes }, store)
    }
    if (remote.length > 0) await withWire(options.network, (wire) => fetchMissing(wire, remote, byId, options, report))
  }
  return packages.map((p) => ({ ...p, file: store.path(p.sha256) }))
}
const HASHES_AT_A_TIME = 4

/** Whether a Fault says that locked packages are gone for good, so that only a new lock helps. */
export const isSuperseded = (fault: unknown): boolean => supersededBy(fault).length > 0

/** The packages (`name version architecture`) such a Fault is about. */
export function supersededBy(fault: unknown): readonly string[] {
  const cause =
    fault instanceof Fault && fault.code === 'fetch' ? (fault.cause as { superseded?: string[] } | undefined) : undefined
  return cause?.superseded ?? []
}

/** The address of a package's file below a base URL. Refuses a name that would lead elsewhere. */
export function packageUrl(base: string, filename: string): string {
  if (!isSafeFilename(filename)) throw new Fault('integrity', `Cannot fetch "${filename}": not a path below the repository`)
  return `${base}/${filename.split('/').map(encodeSegment).join('/')}`
}

/** A relative path of plain segments: nothing empty, hidden or climbing, no backslash, no control character. */
export const isSafeFilename = (name: string): boolean =>
  name.length <= 1024 && /^[^\x00-\x20\x7f\\]+$/.test(name) && name.split('/').every((part) => /^[^.]/.test(part))

const encodeSegment = (segment: string) => encodeURIComponent(segment).replaceAll('%2B', '+').replaceAll('%3A', ':')

interface Trouble {
  package: Package
  fault: Fault
}

async function fetchMissing(
  wire: Wire,
  missing: readonly Package[],
  repositories: ReadonlyMap<string, Repository>,
  options: FetchOptions,
  report: Report,
): Promise<void> {
  const progress = progressOf(missing, report)
  const troubles: Trouble[] = []
  const deadSnapshots: DeadSnapshots = new Map()
  await inParallel(missing, wire.network.parallel, async (p) => {
    try {
      await fetchPackage(wire, p, repositories.get(p.repository)!, options, deadSnapshots, (bytes) => progress.at(p, bytes))
    } catch (fault) {
      const goOn = fault instanceof Fault && (fault.code === 'integrity' || isAbsent(fault))
      if (!goOn) {
        wire.ending.abort(new Interruption('another download failed'))
        throw fault
      }
      troubles.push({ package: p, fault })
    }
  })
  progress.end()
  const inOrder = troubles.sort((a, b) => missing.indexOf(a.package) - missing.indexOf(b.package))
  if (inOrder.length > 0) throw combined(inOrder)
}

async function fetchPackage(
  wire: Wire,
  p: Package,
  repository: Repository,
  options: FetchOptions,
  deadSnapshots: DeadSnapshots,
  onBytes: (bytes: number) => void,
): Promise<void> {
  const wanted = (base: string) => ({ url: packageUrl(base, p.filename), sha256: p.sha256, sizeBytes: p.sizeBytes })
  try {
    await downloadBlob(wire, wanted(repository.url), options.store, onBytes)
  } catch (gone) {
    if (!isAbsent(gone)) throw gone
    const timestamp = options.snapshots?.get(p.repository)
    if (repository.snapshotUrl === undefined || timestamp === undefined) throw gone
    let unreachable = deadSnapshots.get(repository.snapshotUrl)
    for (const base of unreachable ? [] : snapshotBases(repository.snapshotUrl, timestamp)) {
      try {
        return await downloadBlob(wire, wanted(base), options.store, onBytes)
      } catch (error) {
        if (!(error instanceof Fault) || error.code !== 'fetch') throw error
        unreachable = error
        if (isAbsent(error)) continue
        deadSnapshots.set(repository.snapshotUrl, error)
        break
      }
    }
    throw new Fault('fetch', `${(gone as Fault).message}; ${unreachable?.message}`, { cause: { status: 404 } })
  }
}

/** Snapshot archives that could not be reached, and why: asking them again for every package would take forever. */
type DeadSnapshots = Map<string, Fault>

/**
 * A snapshot is taken some hours after the archive was signed, and the archive of a moment is the last one before it:
 * a package new at the date of the signature is in the snapshot of half a day later, and not superseded by then.
 */
const snapshotBases = (template: string, timestamp: string) =>
  [timestamp, later(timestamp, 12)].map((at) => template.replaceAll('{timestamp}', at))

function later(timestamp: string, hours: number): string {
  const iso = timestamp.replace(/^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/, '$1-$2-$3T$4:$5:$6Z')
  return timestampOf(new Date(Date.parse(iso) + hours * 3_600_000))
}

/** `YYYYMMDDTHHMMSSZ`, as snapshot archives and the lock write a moment. */
export const timestampOf = (date: Date): string => date.toISOString().replace(/\.\d+/, '').replaceAll(/[-:]/g, '')

function combined(troubles: readonly Trouble[]): Fault {
  const gone = troubles.filter((t) => isAbsent(t.fault))
  const bad = troubles.filter((t) => !isAbsent(t.fault))
  if (bad.length > 0) return bad.length === 1 ? bad[0]!.fault : new Fault('integrity', bad.map((t) => t.fault.message).join('\n'))
  const names = gone.map((t) => packageId(t.package))
  const why = 'the mirror no longer has them and the snapshot archive could not give them'
  return new Fault(
    'fetch',
    `Cannot fetch ${count(gone.length)} of the lock: ${why}: ${someOf(names)}\n${gone[0]!.fault.message}`,
    {
      hint: 'bisque lock --update',
      cause: { superseded: names },
    },
  )
}

function notCached(missing: readonly Package[]): Fault {
  const bytes = missing.reduce((sum, p) => sum + p.sizeBytes, 0)
  const names = someOf(missing.map(packageId))
  return new Fault('fetch', `Cannot work offline: ${count(missing.length)} (${formatSize(bytes)}) not in the cache: ${names}`, {
    hint: 'run the same command once without --offline',
  })
}

async function refuseFullDisk(store: Store, missing: readonly Package[]): Promise<void> {
  const needed = missing.reduce((sum, p) => sum + p.sizeBytes, 0)
  const fs = await statfs(store.cache)
  const free = fs.bavail * fs.bsize
  if (needed <= free) return
  const state = `${count(missing.length)} need ${formatSize(needed)}, ${formatSize(free)} are free in ${store.cache}`
  throw new Fault('host', `Cannot fetch packages: ${state}`, {
    hint: 'bisque cache prune, or choose another disk with --cache DIR',
  })
}

function refuseStrange(p: Package, repositories: ReadonlyMap<string, Repository>): void {
  if (!isSafeFilename(p.filename))
    throw new Fault('integrity', `Cannot fetch ${packageId(p)}: its filename "${p.filename}" is not a path below the repository`)
  if (!repositories.has(p.repository))
    throw new Fault(
      'recipe',
      `Cannot fetch ${packageId(p)}: it is from repository "${p.repository}", which the recipe does not name`,
    )
}

/** Adds up the bytes of all downloads and tells them about ten times a second. */
function progressOf(missing: readonly Package[], report: Report): { at(p: Package, bytes: number): void; end(): void } {
  const total = missing.reduce((sum, p) => sum + p.sizeBytes, 0)
  const here = new Map<Package, number>()
  let done = 0
  let told = 0
  const tell = () => report.tell({ type: 'progress', done, total, unit: 'bytes' })
  return {
    at(p, bytes) {
      done += bytes - (here.get(p) ?? 0)
      here.set(p, bytes)
      if (performance.now() - told < 100) return
      told = performance.now()
      tell()
    },
    end: tell,
  }
}

/** The first of many, and how many more there are. */
const someOf = (names: readonly string[]): string =>
  names.length <= 6 ? names.join(', ') : `${names.slice(0, 5).join(', ')} and ${names.length - 5} more`

const count = (n: number) => (n === 1 ? '1 package' : `${n} packages`)
