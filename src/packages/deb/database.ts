/**
 * dpkg's database, as `dpkg --unpack` leaves it: status, info/, triggers/; and what it says about diversions and overrides.
 *
 * Spec: deb-triggers(5), dpkg-divert(1), dpkg-statoverride(1), dpkg `doc/spec/triggers.txt`. Oracle: `dpkg --audit`, `dpkg -V`.
 * dpkg itself writes it anew when it configures, so the order of fields here does not matter.
 */
import { createHash } from 'node:crypto'
import { closeSync, constants, existsSync, mkdirSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { field, formatStanzas, parseStanzas, type Stanza } from '../../formats/deb822.ts'
import { resolveInside } from '../../run/inside.ts'
import type { Control, Unpacked } from './unpack.ts'

export interface Diversion {
  from: string
  to: string
  /** The package whose own file stays at `from`; ':' for an administrator's. */
  by: string
}

/** Where dpkg keeps its database, on the host. */
export const adminDirectory = (root: string): string => `${root}/${resolveInside(root, '/var/lib/dpkg', { followLast: true })}`

/** How dpkg names a package in its database: with its architecture where several may be there. */
export const databaseName = (fields: Stanza): string =>
  field(fields, 'Multi-Arch') === 'same'
    ? `${field(fields, 'Package')}:${field(fields, 'Architecture')}`
    : field(fields, 'Package')!

export function createDatabase(root: string): void {
  const admin = adminDirectory(root)
  for (const name of ['info', 'updates', 'triggers', 'alternatives', 'parts'])
    mkdirSync(`${admin}/${name}`, { recursive: true, mode: 0o755 })
  for (const name of ['status', 'available', 'diversions', 'statoverride'])
    if (!existsSync(`${admin}/${name}`)) put(`${admin}/${name}`, '')
  put(`${admin}/info/format`, '1\n')
}

/** The packages a database holds, by their names in it, each with the paths it owns. */
export function readInstalled(
  root: string,
): Map<string, { name: string; version: string; fields: Stanza; unpacked: { paths: string[] } }> {
  const admin = adminDirectory(root)
  return new Map(
    installedStanzas(root).map((fields) => {
      const [name, version] = [field(fields, 'Package') ?? '', field(fields, 'Version') ?? '']
      const paths = read(`${admin}/info/${plainName(databaseName(fields))}.list`)
        .split('\n')
        .filter(Boolean)
      return [databaseName(fields), { name, version, fields, unpacked: { paths } }]
    }),
  )
}

/** What a root's database says of the packages that are there. */
export const installedStanzas = (root: string): Stanza[] =>
  parseStanzas(read(`${adminDirectory(root)}/status`), `${root}/var/lib/dpkg/status`).filter((fields) =>
    / (unpacked|half-configured|triggers-awaited|triggers-pending|installed)$/.test(field(fields, 'Status') ?? ''),
  )

/** A name from a database that may lie: no path. */
const plainName = (name: string) => name.replaceAll('/', '')

/** Records packages as unpacked and activates the triggers their files and words pull. */
export function recordUnpacked(root: string, packages: readonly { control: Control; unpacked: Unpacked }[]): void {
  const admin = adminDirectory(root)
  for (const { control, unpacked } of packages) writeInfo(root, admin, control, unpacked)
  const status = read(`${admin}/status`).trimEnd()
  const stanzas = formatStanzas(packages.map(({ control }) => statusOf(control)))
  put(`${admin}/status`, status === '' ? stanzas : `${status}\n\n${stanzas}`)
  recordTriggers(admin, packages)
}

/** Writes which paths a package owns. */
export function writeList(root: string, name: string, paths: readonly string[]): void {
  put(`${adminDirectory(root)}/info/${name}.list`, `${paths.join('\n')}\n`)
}

export function readDiversions(root: string): Diversion[] {
  const lines = read(`${adminDirectory(root)}/diversions`).split('\n')
  const found: Diversion[] = []
  for (let i = 0; i + 2 < lines.length; i += 3) found.push({ from: lines[i]!, to: lines[i + 1]!, by: lines[i + 2]! })
  return found
}

/** Owner and mode by path. Names are looked up in the root's own passwd and group. */
export function readOverrides(root: string): Map<string, { uid: number; gid: number; mode: number }> {
  const found = new Map<string, { uid: number; gid: number; mode: number }>()
  for (const line of read(`${adminDirectory(root)}/statoverride`).split('\n')) {
    const [, user, group, mode, path] = /^(\S+) (\S+) ([0-7]+) (\/.*)$/.exec(line) ?? []
    if (!path) continue
    const [uid, gid] = [idOf(root, 'passwd', user!), idOf(root, 'group', group!)]
    if (uid !== undefined && gid !== undefined) found.set(path, { uid, gid, mode: Number.parseInt(mode!, 8) & 0o7777 })
  }
  return found
}

function idOf(root: string, table: 'passwd' | 'group', name: string): number | undefined {
  if (/^#\d+$/.test(name)) return Number(name.slice(1))
  const line = read(`${root}/${resolveInside(root, `/etc/${table}`, { followLast: true })}`)
    .split('\n')
    .find((line) => line.startsWith(`${name}:`))
  const id = line?.split(':')[2]
  return id === undefined || !/^\d+$/.test(id) ? undefined : Number(id)
}

function statusOf(control: Control): Stanza {
  const stanza = new Map<string, string>()
  for (const [name, value] of control.fields) {
    if (/^(status|conffiles|config-version|triggers-\w+)$/i.test(name)) continue
    stanza.set(name, value)
    if (name.toLowerCase() === 'package') stanza.set('Status', 'install ok unpacked')
  }
  if (control.conffiles.length > 0)
    stanza.set('Conffiles', ['', ...control.conffiles.map((path) => `${path} newconffile`)].join('\n'))
  return stanza
}

function writeInfo(root: string, admin: string, control: Control, unpacked: Unpacked): void {
  const name = databaseName(control.fields)
  for (const [member, { mode, bytes }] of control.control) {
    if (member !== 'control') put(`${admin}/info/${name}.${member}`, bytes, mode & 0o111 ? 0o755 : 0o644)
  }
  writeList(root, name, unpacked.paths)
  if (!control.control.has('md5sums')) put(`${admin}/info/${name}.md5sums`, sumsOf(root, control, unpacked))
}

/** What dpkg computes for packages that bring no sums. */
function sumsOf(root: string, control: Control, unpacked: Unpacked): string {
  let text = ''
  for (const path of unpacked.paths) {
    if (control.conffiles.includes(path)) continue
    const bytes = readRegular(`${root}/${resolveInside(root, path)}`)
    if (bytes) text += `${createHash('md5').update(bytes).digest('hex')}  ${path.slice(1)}\n`
  }
  return text
}

function recordTriggers(admin: string, packages: readonly { control: Control; unpacked: Unpacked }[]): void {
  const files = new Map<string, Set<string>>()
  for (const line of read(`${admin}/triggers/File`).split('\n')) {
    const at = line.lastIndexOf(' ')
    if (at > 0) add(files, line.slice(0, at), line.slice(at + 1))
  }
  const names = new Map<string, Set<string>>()
  const activated = new Set(read(`${admin}/triggers/Unincorp`).split('\n').filter(Boolean))
  for (const { control } of packages) {
    const name = databaseName(control.fields)
    for (const trigger of control.triggers) {
      if (trigger.verb === 'activate') activated.add(`${trigger.name} -`)
      else add(trigger.name.startsWith('/') ? files : names, trigger.name, trigger.await ? name : `${name}/noawait`)
    }
  }
  for (const { unpacked } of packages) for (const path of unpacked.paths) activateAbove(files, path, activated)
  for (const [name, interested] of names) {
    const there = read(`${admin}/triggers/${name}`).split('\n').filter(Boolean)
    put(`${admin}/triggers/${name}`, lines([...new Set([...there, ...interested])]))
  }
  put(
    `${admin}/triggers/File`,
    lines([...files].flatMap(([path, interested]) => [...interested].map((name) => `${path} ${name}`))),
  )
  put(`${admin}/triggers/Unincorp`, lines([...activated]))
}

function activateAbove(files: ReadonlyMap<string, unknown>, path: string, activated: Set<string>): void {
  for (let at = path; at !== ''; at = at.slice(0, at.lastIndexOf('/'))) if (files.has(at)) activated.add(`${at} -`)
}

function add(map: Map<string, Set<string>>, key: string, value: string): void {
  const set = map.get(key) ?? new Set()
  map.set(key, set.add(value))
}

const lines = (all: readonly string[]) => all.map((line) => `${line}\n`).join('')

/** Files here are written anew, and read without following links: a script may have put one there. */
function put(path: string, text: string | Uint8Array, mode = 0o644): void {
  rmSync(path, { force: true })
  writeFileSync(path, text, { flag: 'wx', mode })
}

const read = (path: string): string => readRegular(path)?.toString() ?? ''

function readRegular(path: string): Buffer | undefined {
  let fd: number
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
  } catch {
    return undefined
  }
  try {
    return readFileSync(fd)
  } catch {
    return undefined // a directory
  } finally {
    closeSync(fd)
  }
}
