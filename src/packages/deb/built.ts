/**
 * Packages that build scripts left in `$PACKAGEDIR`, put into the root that they were built for.
 *
 * Volatile packages are taken from there whatever their version, with what they and the packages they replace need of it; all
 * else stays as locked. What is built differs with each build, so no lock can pin it: the recipe's own scripts answer for it.
 */
import { copyFileSync, mkdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import type { Sha256 } from '../../base/digest.ts'
import { Fault } from '../../base/fault.ts'
import type { Report } from '../../base/report.ts'
import { decodeDeb } from '../../formats/deb.ts'
import { field, type Stanza } from '../../formats/deb822.ts'
import type { Package } from '../package.ts'
import { adminDirectory, installedStanzas } from './database.ts'
import { type Alternatives, parseRelations } from './dependency.ts'
import { type Installation, runDpkg } from './install.ts'
import { listPackages } from './local.ts'
import { compareVersions, satisfies } from './version.ts'

export interface BuiltInstallation extends Omit<Installation, 'packages' | 'exclude'> {
  /** Folder of .deb files. */
  folder: string
  /** Names of the packages to take from there, where it has them. */
  wanted: readonly string[]
  withDocs: boolean
}

export type BuiltPackage = Pick<Package, 'name' | 'version' | 'architecture' | 'sha256'>

/** Installs them, and returns which they were. */
export async function installBuilt(installation: BuiltInstallation, report: Report): Promise<BuiltPackage[]> {
  const { root, folder } = installation
  const built = await readFolder(folder)
  const installed = installedStanzas(root)
  const chosen = choose(built, installed, installation.wanted)
  refuseLacking(installation, [...installed, ...chosen.map(({ fields }) => fields)])
  if (chosen.length === 0) return []
  const staged = `${adminDirectory(root)}/built.ci`
  try {
    rmSync(staged, { recursive: true, force: true })
    mkdirSync(staged)
    for (const { file } of chosen) copyFileSync(join(folder, file), `${staged}/${file}`)
    const files = chosen.map(({ file }) => `/var/lib/dpkg/built.ci/${file}`)
    const docs = ['/usr/share/doc/*', '/usr/share/man/*', '/usr/share/groff/*', '/usr/share/gtk-doc/*', '/usr/share/info/*']
    const without = [...docs.map((glob) => `--path-exclude=${glob}`), '--path-include=/usr/share/doc/*/copyright']
    await report.step(`Install ${chosen.length} built packages`, () =>
      runDpkg(installation, ['--force-downgrade', ...(installation.withDocs ? [] : without), '--install', ...files]),
    )
  } finally {
    rmSync(staged, { recursive: true, force: true })
  }
  return chosen.map(({ fields, sha256 }) => ({
    name: field(fields, 'Package')!,
    version: versionOf(fields),
    architecture: field(fields, 'Architecture')!,
    sha256,
  }))
}

/** What the lock left to build scripts, because no repository has it, must be there now. */
function refuseLacking({ wanted, folder }: BuiltInstallation, there: readonly Stanza[]): void {
  const byName = new Map(there.map((fields) => [field(fields, 'Package')!, fields]))
  const provided = providers(byName)
  const plain = wanted.filter((name) => /^[A-Za-z0-9][A-Za-z0-9+._-]*$/.test(name))
  const lacking = plain.filter((name) => !byName.has(name) && !provided.has(name))
  if (lacking.length > 0)
    throw new Fault(
      'recipe',
      `Cannot install ${lacking.join(', ')}: no repository has it, and build scripts left none in $PACKAGEDIR (${folder})`,
    )
}

interface Built {
  file: string
  sha256: Sha256
  fields: Stanza
}

/** The newest package of each name. */
async function readFolder(folder: string): Promise<Map<string, Built>> {
  const built = new Map<string, Built>()
  for (const { name: file, sha256 } of await listPackages(folder)) {
    const { fields } = await decodeDeb(readFileSync(join(folder, file)))
    const name = field(fields, 'Package')!
    const other = built.get(name)
    if (other === undefined || compareVersions(versionOf(fields), versionOf(other.fields)) > 0)
      built.set(name, { file, sha256, fields })
  }
  return built
}

const versionOf = (fields: Stanza) => field(fields, 'Version')!

/** What is wanted, what that needs, and what would no longer fit it. */
function choose(built: ReadonlyMap<string, Built>, installed: readonly Stanza[], wanted: readonly string[]): Built[] {
  const chosen = new Map<string, Built>()
  const there = new Map(installed.map((fields) => [field(fields, 'Package')!, fields]))
  const take = (name: string) => {
    const one = built.get(name)
    if (one === undefined || chosen.has(name)) return
    chosen.set(name, one)
    there.set(name, one.fields)
  }
  for (const name of wanted) take(name)
  for (let before = -1; before !== chosen.size; ) {
    before = chosen.size
    const provided = providers(there)
    for (const [name, fields] of [...there]) {
      const unmet = needsOf(fields).filter((alternatives) => !isMet(alternatives, there, provided))
      // What was there before is only looked at where the built packages broke it.
      if (!chosen.has(name) && unmet.flat().some((relation) => chosen.has(relation.name))) take(name)
      if (chosen.has(name)) for (const alternatives of unmet) for (const { name } of alternatives.slice(0, 1)) take(name)
    }
  }
  return [...chosen.values()]
}

const needsOf = (fields: Stanza): Alternatives[] =>
  ['Pre-Depends', 'Depends'].flatMap((name) =>
    parseRelations(field(fields, name) ?? '', `${name} of ${field(fields, 'Package')}`),
  )

const providers = (there: ReadonlyMap<string, Stanza>): ReadonlySet<string> =>
  new Set(
    [...there.values()].flatMap((fields) => parseRelations(field(fields, 'Provides') ?? '').flatMap(([one]) => one?.name ?? [])),
  )

function isMet(alternatives: Alternatives, there: ReadonlyMap<string, Stanza>, provided: ReadonlySet<string>): boolean {
  return alternatives.some(({ name, operator, version }) => {
    const fields = there.get(name)
    if (fields !== undefined && (operator === undefined || satisfies(versionOf(fields), operator, version!))) return true
    return provided.has(name)
  })
}
