/**
 * Accounts: the users and groups of a tree, told to the running system through sysusers.d.
 *
 * An immutable image ships no /etc/passwd: systemd-sysusers makes it on first boot. Files below /usr keep the
 * numeric owners they had when packages were installed, so every machine must give these names the same numbers.
 *
 * Source: sysusers.d(5), passwd(5), group(5).
 */
import { Fault } from '../base/fault.ts'

export interface User {
  name: string
  uid: number
  gid: number
  gecos: string
  home: string
  shell: string
}

export interface Group {
  name: string
  gid: number
  members: string[]
}

export function parsePasswd(text: string): User[] {
  return rows(text, 'passwd', 7).map(([name, , uid, gid, gecos, home, shell]) => ({
    name: name!,
    uid: id(uid!, name!),
    gid: id(gid!, name!),
    gecos: gecos!,
    home: home!,
    shell: shell!,
  }))
}

export function parseGroup(text: string): Group[] {
  return rows(text, 'group', 4).map(([name, , gid, members]) => ({
    name: name!,
    gid: id(gid!, name!),
    members: members!.split(',').filter((m) => m !== ''),
  }))
}

function rows(text: string, file: string, columns: number): string[][] {
  return text
    .split('\n')
    .filter((line) => line.trim() !== '')
    .map((line) => {
      const row = line.split(':')
      if (row.length !== columns) {
        throw new Fault('format', `Cannot read /etc/${file}: "${line}" has ${row.length} fields, expected ${columns}`)
      }
      return row
    })
}

function id(text: string, name: string): number {
  if (!/^\d{1,10}$/.test(text)) throw new Fault('format', `Cannot read the number of account "${name}": got "${text}"`)
  return Number(text)
}

/** Names a sysusers.d file declares: `u:root`, `g:tty`. A user line declares the group of its name as well. */
export function declaredAccounts(sysusers: string): Set<string> {
  const found = new Set<string>()
  for (const line of sysusers.split('\n')) {
    const [type, name] = line.trim().split(/\s+/)
    if (name === undefined) continue
    if (type === 'g') found.add(`g:${name}`)
    if (/^u!?-?$/.test(type!)) found.add(`u:${name}`).add(`g:${name}`)
  }
  return found
}

/**
 * A sysusers.d file with every number it left to the machine (`-`) replaced by the one the tree was built with.
 * A user whose group has another number than itself needs that group declared: `u` would make one of its own number.
 */
export function pinAccounts(sysusers: string, users: readonly User[], groups: readonly Group[]): string {
  const userOf = new Map(users.map((user) => [user.name, user]))
  const gidOf = new Map(groups.map((group) => [group.name, group.gid]))
  return sysusers.replace(/^([ \t]*)(u!?|g)([ \t]+)(\S+)([ \t]+)-(?=\s|$)/gm, (line, indent, type, gap, name, gap2) => {
    const row = (type: string, number: number | string) => `${indent}${type}${gap}${name}${gap2}${number}`
    const gid = gidOf.get(name)
    if (type === 'g') return gid === undefined ? line : row('g', gid)
    const user = userOf.get(name)
    if (user === undefined) return line
    if (user.gid === user.uid && gid === user.uid) return row(type, user.uid)
    const pinned = row(type, `${user.uid}:${user.gid}`)
    return gid === user.gid ? `${row('g', gid)}\n${pinned}` : pinned
  })
}

/** sysusers.d lines for the accounts and memberships that no other file declares; empty where there are none. */
export function formatSysusers(users: readonly User[], groups: readonly Group[], declared: ReadonlySet<string>): string {
  const lines: string[] = []
  for (const group of groups) if (!declared.has(`g:${group.name}`)) lines.push(`g ${group.name} ${group.gid}`)
  for (const user of users) {
    if (declared.has(`u:${user.name}`)) continue
    lines.push(`u ${user.name} ${user.uid}:${user.gid} ${quoted(user.gecos)} ${user.home || '-'} ${user.shell || '-'}`)
  }
  for (const group of groups) for (const member of group.members) lines.push(`m ${member} ${group.name}`)
  return lines.map((line) => `${line}\n`).join('')
}

const quoted = (text: string): string =>
  text === '' ? '-' : `"${text.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('%', '%%')}"`
