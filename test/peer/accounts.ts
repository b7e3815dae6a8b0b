// Accounts of two images by name: numbers given while packages are configured depend on their order, names do not.
import type { Erofs } from '../../src/formats/erofs-decode.ts'

const FACTORY = 'share/factory/etc'

const read = (usr: Erofs, name: string): string[] => {
  const inode = usr.inodes.get(`${FACTORY}/${name}`)
  if (inode === undefined) return []
  return Buffer.concat([...usr.contents(inode)]).toString().split('\n').filter((line) => line !== '') // biome-ignore format: one line
}

const names = (usr: Erofs, file: string): Map<string, string> =>
  new Map(read(usr, file).map((line) => [line.split(':')[2]!, line.split(':')[0]!]))

/** Names of owners, or their numbers where no account has one. */
export function byName(usr: Erofs): { user(id: number): string; group(id: number): string } {
  const [users, groups] = [names(usr, 'passwd'), names(usr, 'group')]
  return { user: (id) => users.get(String(id)) ?? String(id), group: (id) => groups.get(String(id)) ?? String(id) }
}

/** Do both have the same accounts, but for their numbers, their order and the day of the last password change? */
export function sameAccounts(ours: Erofs, theirs: Erofs, file: string): boolean {
  return withoutNumbers(ours, file).join('\n') === withoutNumbers(theirs, file).join('\n')
}

function withoutNumbers(usr: Erofs, file: string): string[] {
  const kind = file.replace('-', '')
  const groups = names(usr, `group${file.endsWith('-') ? '-' : ''}`)
  const lines = read(usr, file).map((line) => {
    const fields = line.split(':')
    if (kind === 'passwd') fields[3] = groups.get(fields[3]!) ?? fields[3]!
    if (kind === 'gshadow') return line
    fields[2] = ''
    return fields.join(':')
  })
  return lines.sort()
}
