/**
 * Installing Debian packages into an empty root, or upon those that a root has.
 *
 * Files are unpacked here; what only the packages know, their scripts, runs under the image's own dpkg in a sandbox
 * without network, without the host's files, and without anything being started.
 * The caller is root, or seen as root from inside a user namespace (see `run/namespace.ts`).
 */
import { lstatSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { Fault } from '../../base/fault.ts'
import type { Report } from '../../base/report.ts'
import { field } from '../../formats/deb822.ts'
import type { TarFile } from '../../formats/tar.ts'
import { resolveInside } from '../../run/inside.ts'
import { type Outcome, said } from '../../run/process.ts'
import { runInSandbox, type Sandbox } from '../../run/sandbox.ts'
import type { Inode } from '../../tree/tree.ts'
import type { FetchedPackage } from '../package.ts'
import { type Batch, planBatches } from './batches.ts'
import {
  adminDirectory,
  createDatabase,
  databaseName,
  readDiversions,
  readInstalled,
  readOverrides,
  recordUnpacked,
  writeList,
} from './database.ts'
import { parseRelations } from './dependency.ts'
import { type Control, eachData, loadControl, mergeUsr, type Rules, type Unpacked, unpackData } from './unpack.ts'
import { satisfies } from './version.ts'

export interface Installation {
  /** A directory that is empty, not there yet, or has packages already. */
  root: string
  /** A complete set: every dependency is met within it or by what is there. None of it is there yet in another version. */
  packages: readonly FetchedPackage[]
  /** Seconds since 1970 that scripts take for the present, where they ask. */
  epoch: number
  /** Leaves out paths; see `withoutDocs`. */
  exclude?: (path: string, type: TarFile['type']) => boolean
  /** More environment for scripts, and answers to what they ask. */
  env?: Readonly<Record<string, string>>
}

export interface Installed {
  /** Device nodes of packages, which were not made, by path in the tree. */
  devices: Map<string, Inode>
  /** Files that run with their owner's or group's rights, with the package that brought each. */
  setuid: { path: string; package: string }[]
  files: number
  bytes: number
}

export async function installDebian(installation: Installation, report: Report): Promise<Installed> {
  const { root } = installation
  mkdirSync(root, { recursive: true, mode: 0o755 })
  mergeUsr(root, installation.packages.find((p) => p.architecture !== 'all')?.architecture ?? 'amd64')
  createDatabase(root)
  const there = readInstalled(root)
  const packages = notThere(installation.packages, there)
  const state: State = {
    installation,
    owners: ownersOf(there),
    members: new Map<string, Owner>(there),
    total: packages.length,
    result: { devices: new Map(), setuid: [], files: 0, bytes: 0 },
    done: 0,
  }
  const members: Member[] = []
  for (const p of packages) members.push({ ...p, control: await loadControl(p), fields: new Map() })
  for (const member of members) {
    member.fields = member.control.fields
    state.members.set(databaseName(member.fields), member)
  }
  const batches = planBatches(baseFirst(members))
  for (const [i, batch] of batches.entries()) await installBatch(state, batch, i === 0 && there.size === 0, report)
  await checkAudit(state)
  return state.result
}

/** Leaves out documentation as `WithDocs=no` does, keeping copyright files. */
export function withoutDocs(path: string, type: TarFile['type']): boolean {
  if (/^\/usr\/share\/(man|info|gtk-doc|doc-base|lintian|linda|groff)\/./.test(path)) return true
  if (!path.startsWith('/usr/share/doc/')) return false
  const isOwnFolder = path.split('/').length === 5
  return !(path.endsWith('/copyright') || (isOwnFolder && (type === 'symlink' || type === 'directory')))
}

/** Who owns the files of packages that are there. Directories belong to nobody: what others lie in, at least. */
function ownersOf(there: ReturnType<typeof readInstalled>): Map<string, string> {
  const owners = new Map([...there].flatMap(([name, { unpacked }]) => unpacked.paths.map((path) => [path, name])))
  for (const path of [...owners.keys()]) owners.delete(path.slice(0, path.lastIndexOf('/')))
  return owners
}

/** Leaves out what is there. dpkg could upgrade it, but then the lock would not say what is in the image. */
function notThere(packages: readonly FetchedPackage[], there: ReadonlyMap<string, Owner>): FetchedPackage[] {
  return packages.filter((p) => {
    const same = there.get(p.name) ?? there.get(`${p.name}:${p.architecture}`)
    if (same === undefined || same.version === p.version) return same === undefined
    throw new Fault('resolve', `Cannot install ${p.name} ${p.version}: ${same.version} is there already`, {
      hint: 'lock anew, with the same packages in the base tree and in what is built upon it: bisque lock --update',
    })
  })
}

/** A package that owns files: one of these, or one that was there before. */
type Owner = Pick<Member, 'name' | 'version' | 'fields'> & { unpacked?: Pick<Unpacked, 'paths'> }

interface Member extends FetchedPackage {
  control: Control
  fields: Control['fields']
  unpacked?: Unpacked
}

interface State {
  installation: Installation
  /** Which package, by its name in the database, a path that is no directory belongs to. */
  owners: Map<string, string>
  members: Map<string, Owner>
  /** How many packages are to be installed. */
  total: number
  result: Installed
  done: number
}

/** Directories take the mode of the first package that ships them, and base-files knows those of all. */
function baseFirst(members: Member[]): Member[] {
  const rank = (m: Member) => ['base-files', 'base-passwd'].indexOf(m.name) + 1 || 3
  return members.toSorted((a, b) => rank(a) - rank(b) || (a.name < b.name ? -1 : 1))
}

async function installBatch(state: State, batch: Batch<Member>, isFirst: boolean, report: Report): Promise<void> {
  // The first batch brings the shell that runs scripts, so its files come before its preinst scripts.
  if (!isFirst) await runPreinsts(state, batch.packages)
  await report.step(`Unpack ${batch.packages.length} packages`, (report) => unpackBatch(state, batch.packages, report))
  if (isFirst) await runPreinsts(state, batch.packages)
  await report.step(`Configure ${batch.packages.length} packages`, () => configure(state, batch))
}

async function unpackBatch(state: State, packages: readonly Member[], report: Report): Promise<void> {
  const { root } = state.installation
  const diversions = new Map(readDiversions(root).map((diversion) => [diversion.from, diversion]))
  const overrides = readOverrides(root)
  const changed = new Set<string>()
  await eachData(baseFirst([...packages]), async (member, data) => {
    const name = databaseName(member.fields)
    const diverted = (path: string) => {
      const diversion = diversions.get(path)
      return diversion && diversion.by !== member.name ? diversion.to : undefined
    }
    const rules: Rules = {
      ...(state.installation.exclude ? { exclude: state.installation.exclude } : {}),
      diverted,
      override: (path) => overrides.get(path),
      claim: (path) => (diverted(path) ? true : claim(state, member, path, changed)),
      conffiles: new Set(member.control.conffiles),
    }
    const unpacked = await unpackData(root, data, rules)
    member.unpacked = unpacked
    for (const [path, inode] of unpacked.devices) state.result.devices.set(path, inode)
    for (const path of unpacked.setuid) state.result.setuid.push({ path, package: name })
    state.result.files += unpacked.files
    state.result.bytes += unpacked.bytes
    report.tell({ type: 'progress', done: ++state.done, total: state.total, unit: 'packages' })
  })
  recordUnpacked(
    root,
    packages.map((member) => ({ control: member.control, unpacked: member.unpacked! })),
  )
  for (const name of changed)
    if (state.members.get(name)?.unpacked) writeList(root, name, state.members.get(name)!.unpacked!.paths)
}

/** Decides who owns a path two packages ship: whoever replaces the other; otherwise they do not go together. */
function claim(state: State, member: Member, path: string, changed: Set<string>): boolean {
  const name = databaseName(member.fields)
  const owner = state.owners.get(path)
  if (owner !== undefined && owner !== name) {
    const other = state.members.get(owner)!
    if (replaces(other, member)) return false
    if (!replaces(member, other)) {
      throw new Fault(
        'resolve',
        `Cannot unpack ${name} ${member.version}: ${path} is also in ${owner} ${other.version}, which it does not replace`,
      )
    }
    const paths = other.unpacked!.paths
    paths.splice(paths.indexOf(path), 1)
    changed.add(owner)
  }
  state.owners.set(path, name)
  return true
}

function replaces(a: Owner, b: Owner): boolean {
  const relations = parseRelations(field(a.fields, 'Replaces') ?? '', `Replaces of ${a.name}`).flat()
  return relations.some((r) => r.name === b.name && (!r.operator || satisfies(b.version, r.operator, r.version!)))
}

/** The world scripts run in. `/tmp` and `/run` are forgotten afterwards, as they are no part of an image. */
function sandboxOf({ root, epoch, env }: ScriptWorld): Sandbox {
  return {
    root,
    writable: true,
    tmpfs: ['/tmp', '/run'],
    env: {
      DEBIAN_FRONTEND: 'noninteractive',
      DEBCONF_NONINTERACTIVE_SEEN: 'true',
      SOURCE_DATE_EPOCH: `${epoch}`,
      SYSTEMD_OFFLINE: '1',
      // hooks of kernel packages: no initramfs is made here, and no kernel copied to an ESP
      INITRD: 'No',
      KERNEL_INSTALL_BYPASS: '1',
      ...env,
    },
  }
}

/** While scripts run there is a policy that no service may be started. */
async function withPolicy<T>(root: string, body: () => Promise<T>): Promise<T> {
  const path = `${root}/${resolveInside(root, '/usr/sbin/policy-rc.d')}`
  if (lstatSync(path, { throwIfNoEntry: false })) return body() // a package's own
  writeFileSync(path, '#!/bin/sh\nexit 101\n', { mode: 0o755, flag: 'wx' })
  try {
    return await body()
  } finally {
    rmSync(path, { force: true })
  }
}

/** Runs what packages want done before their files are there, one after the other in one sandbox. */
async function runPreinsts(state: State, packages: readonly Member[]): Promise<void> {
  const { root } = state.installation
  const having = packages.filter((member) => member.control.control.has('preinst'))
  if (having.length === 0) return
  const staged = `${adminDirectory(root)}/preinst.ci`
  rmSync(staged, { recursive: true, force: true })
  for (const [i, member] of having.entries()) {
    mkdirSync(`${staged}/${i}`, { recursive: true })
    for (const [name, { mode, bytes }] of member.control.control)
      writeFileSync(`${staged}/${i}/${name}`, bytes, { mode: mode & 0o111 ? 0o755 : 0o644 })
  }
  const dpkg = [...state.members.values()].find((member) => member.name === 'dpkg')?.version ?? '1.22'
  const argv = ['sh', '-c', PREINSTS, 'sh', dpkg, ...having.flatMap((member) => [member.name, member.architecture])]
  const outcome = await withPolicy(root, () => runLogged(state.installation, argv))
  rmSync(staged, { recursive: true, force: true })
  if (outcome.exitCode === 0) return
  const [, name, code] = /^bisque-preinst: (\S+) (\d+)$/m.exec(outcome.stdout) ?? []
  const printed = outcome.stdout.replace(/^bisque-preinst: .*$/m, '')
  throw new Fault(
    'tool',
    `Cannot install ${name ?? 'packages'}: its preinst script ended with exit code ${code ?? outcome.exitCode}${said(printed, '')}`,
  )
}

/** dpkg's own place and environment for such scripts; debconf finds the package's templates beside them. */
const PREINSTS = `
cd /
export DPKG_RUNNING_VERSION=$1 DPKG_ROOT= DPKG_ADMINDIR=/var/lib/dpkg DPKG_FORCE=
export DPKG_MAINTSCRIPT_NAME=preinst DPKG_MAINTSCRIPT_PACKAGE_REFCOUNT=1 DPKG_MAINTSCRIPT_DEBUG=0
shift
i=0
while [ $# -gt 0 ]; do
  export DPKG_MAINTSCRIPT_PACKAGE=$1 DPKG_MAINTSCRIPT_ARCH=$2
  rm -rf /var/lib/dpkg/tmp.ci && mv /var/lib/dpkg/preinst.ci/$i /var/lib/dpkg/tmp.ci || exit 1
  /var/lib/dpkg/tmp.ci/preinst install
  code=$?
  rm -rf /var/lib/dpkg/tmp.ci
  [ $code = 0 ] || { echo "bisque-preinst: $1 $code"; exit 1; }
  i=$((i + 1)); shift 2
done
`

/** Lets the image's dpkg put conffiles in place, run postinst scripts and process triggers. */
const configure = (state: State, batch: Batch<Member>): Promise<void> =>
  runDpkg(state.installation, [...(batch.force ? ['--force-depends,configure-any'] : []), '--configure', '--pending'])

/** What scripts and dpkg run with. */
export type ScriptWorld = Pick<Installation, 'root' | 'epoch' | 'env'>

/** Runs the image's dpkg. A Fault names the package it could not go on with, and what its script said last. */
export async function runDpkg(world: ScriptWorld, words: readonly string[]): Promise<void> {
  const argv = ['dpkg', '--force-unsafe-io,confdef,confold', ...words]
  const outcome = await withPolicy(world.root, () => runLogged(world, argv))
  if (outcome.exitCode === 0) return
  const [before, name, why] =
    /([\s\S]*?)^dpkg: error processing (?:package|archive) (\S+) \([^)]*\):\n *(.*)$/m.exec(outcome.stdout)?.slice(1) ?? []
  throw new Fault(
    'tool',
    name
      ? `Cannot configure ${name}: ${why}${said(before ?? '', '')}`
      : `Cannot configure packages: dpkg ended with exit code ${outcome.exitCode}${said(outcome.stdout, '')}`,
  )
}

/** Runs a program with both its streams in one, as they came. */
async function runLogged(world: ScriptWorld, argv: readonly string[]): Promise<Outcome> {
  const log: Buffer[] = []
  const outcome = await runInSandbox(sandboxOf(world), argv, { allowFailure: true, onOutput: (bytes) => log.push(bytes) })
  return { ...outcome, stdout: Buffer.concat(log).toString(), stderr: '' }
}

async function checkAudit(state: State): Promise<void> {
  const { stdout } = await runInSandbox(sandboxOf(state.installation), ['dpkg', '--audit'])
  if (stdout.trim() !== '') throw new Fault('tool', `Cannot finish the installation: dpkg finds it incomplete${said(stdout, '')}`)
}
