// Accounts of two images by name: numbers given while packages are configured depend on their order, names do not.

/** The text of `passwd`, `group` … on one side; empty where it is not there. */
export type ReadAccounts = (file: string) => string

export const ACCOUNT_FILES = ['passwd', 'group', 'shadow', 'gshadow'].flatMap((file) => [file, `${file}-`])

const lines = (text: string): string[] => text.split('\n').filter((line) => line !== '')

const names = (text: string): Map<string, string> =>
  new Map(lines(text).map((line) => [line.split(':')[2]!, line.split(':')[0]!]))

/** Names of owners, or their numbers where no account has one. */
export function ownersByName(read: ReadAccounts): (uid: number, gid: number) => string {
  const [users, groups] = [names(read('passwd')), names(read('group'))]
  return (uid, gid) => `${users.get(String(uid)) ?? uid}:${groups.get(String(gid)) ?? gid}`
}

/** Do both have the same accounts, but for their numbers, their order and the day of the last password change? */
export const sameAccounts = (file: string, ours: ReadAccounts, theirs: ReadAccounts): boolean =>
  withoutNumbers(file, ours).join('\n') === withoutNumbers(file, theirs).join('\n')

function withoutNumbers(file: string, read: ReadAccounts): string[] {
  const [, kind, old] = /^(.*?)(-?)$/.exec(file)!
  const groups = names(read(`group${old}`))
  const plain = lines(read(file)).map((line) => {
    const fields = line.split(':')
    if (kind === 'gshadow') return line
    if (kind === 'passwd') fields[3] = groups.get(fields[3]!) ?? fields[3]!
    fields[2] = ''
    return fields.join(':')
  })
  return plain.sort()
}
