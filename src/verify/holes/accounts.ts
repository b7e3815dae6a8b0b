/** Who may log in: accounts with no password, one that is known, or the rights of root. */
import { crypt } from '../../formats/sha512-crypt.ts'
import type { Finding } from '../link.ts'
import { allFiles, type SystemFacts, wordsOf } from './facts.ts'
import { etcFile, type Files, shown, textOf } from './files.ts'

/** What people set while they try things out, and forget. */
const WELL_KNOWN = [
  ...['', 'root', 'toor', 'admin', 'password', 'passw0rd', 'changeme', 'secret', 'test', 'debug', 'debian', 'ubuntu', 'fedora'],
  ...['arch', 'linux', 'user', 'guest', 'mkosi', 'particle', 'particleos', 'bisque', '1234', '12345', '123456', '0000', '1111'],
]
/** A hash may ask for any work: only so many are tried. */
const MAX_TRIED = 8
const CREDSTORES = ['usr/lib/credstore', 'etc/credstore', 'usr/share/factory/etc/credstore']
const LOCK = 'set RootPassword= to none, so that root is locked'

export function checkAccounts(facts: SystemFacts, finding: Finding): void {
  const { evidence, wrong } = finding
  const budget = { tried: 0 }
  let accounts = 0
  for (const files of allFiles(facts)) {
    const passwd = linesOf(etcFile(files, 'passwd'))
    for (const [name = '', password, uid] of passwd.fields) {
      accounts++
      if (uid === '0' && name !== 'root')
        wrong(`${name} is root by another name, in ${shown(files, passwd.path)}`, 'remove the account')
      if (password === '') wrong(`${name} has no password, in ${shown(files, passwd.path)}`, LOCK)
    }
    const shadow = linesOf(etcFile(files, 'shadow'))
    for (const [name = '', hash = ''] of shadow.fields) judgeHash(name, hash, shown(files, shadow.path), budget, finding)
    checkCredentials(files, budget, finding)
  }
  for (const { name, commandLine } of facts.profiles) {
    for (const word of wordsOf(commandLine)) {
      const [, credential, account, value = ''] =
        /^systemd\.set[-_]credential(?:[-_]binary)?=(passwd\.(?:hashed-password|plaintext-password)\.(\w+)):(.*)$/.exec(word) ??
        []
      if (credential?.includes('hashed') && value.startsWith('!')) continue
      if (account) wrong(`${name} sets the password of ${account} on its command line`, 'take it off the command line')
    }
  }
  evidence(accounts === 0 ? 'none comes with the image' : `${accounts} come with the image`)
}

/** systemd-sysusers takes passwords from credentials where it makes an account. */
function checkCredentials(files: Files, budget: { tried: number }, finding: Finding): void {
  for (const folder of CREDSTORES) {
    for (const file of files.names(folder)) {
      const [, kind, name] = /^passwd\.(hashed-password|plaintext-password)\.(.+)$/.exec(file) ?? []
      if (!kind) continue
      const path = `${folder}/${file}`
      const value = textOf(files, path, 4096)?.trim()
      if (value === undefined) continue
      if (kind === 'hashed-password') judgeHash(name!, value, shown(files, path), budget, finding)
      else finding.wrong(`${name} has a password that everybody can read, in ${shown(files, path)}`, LOCK)
    }
  }
}

function judgeHash(name: string, hash: string, where: string, budget: { tried: number }, { evidence, wrong }: Finding): void {
  if (hash === '') wrong(`${name} has no password, in ${where}`, LOCK)
  if (hash === '' || /^[!*x]/.test(hash)) return
  const [, salt] = /^\$6\$([./0-9A-Za-z]{1,16})\$[./0-9A-Za-z]{86}$/.exec(hash) ?? []
  if (!hash.startsWith('$')) {
    wrong(`the password of ${name} in ${where} is kept in a form that is no secret`, LOCK)
    return
  }
  if (salt !== undefined && budget.tried++ < MAX_TRIED) {
    const guessed = WELL_KNOWN.find((password) => crypt(password, salt) === hash)
    if (guessed !== undefined) {
      wrong(`${name} has the well-known password ${JSON.stringify(guessed)}, in ${where}`, LOCK)
      return
    }
  }
  evidence(`${name} has a password that was not guessed, its hash is in ${where}`)
}

function linesOf(file: { path: string; text: string } | undefined): { path: string; fields: string[][] } {
  const lines = (file?.text ?? '').split('\n').filter((line) => line !== '' && !/^[#+-]/.test(line))
  return { path: file?.path ?? '', fields: lines.slice(0, 10_000).map((line) => line.split(':')) }
}
