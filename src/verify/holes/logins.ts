/** Ways in without a password: consoles that log in by themselves, shells for debugging, servers that let root in. */
import type { Finding } from '../link.ts'
import { allFiles, argumentOf, isNo, type SystemFacts, wordsOf } from './facts.ts'
import { configFiles, configFolders, etcFile, type Files, shown } from './files.ts'
import { settingsOf, unitsOf } from './units.ts'

export function checkLogins(facts: SystemFacts, finding: Finding): void {
  for (const files of allFiles(facts)) {
    checkConsoles(files, finding)
    checkDebugShell(files, finding)
    checkForcedSulogin(files, finding)
    checkSsh(files, finding)
  }
  for (const profile of facts.profiles) checkWords(profile.name, wordsOf(profile.commandLine), finding)
  if (facts.files) finding.evidence('consoles ask for a password')
}

function checkConsoles(files: Files, { wrong }: Finding): void {
  for (const unit of unitsOf(files, /getty.*\.service$|^console-getty|^container-getty/)) {
    const line = settingsOf(unit, 'ExecStart').find((one) =>
      /(?:^|\s)(?:--autologin|-a|--skip-login|-n)(?:[\s=]|$)/.test(agetty(one)),
    )
    if (line !== undefined && !/--autologin[ =]?\$\{?\w+/.test(line))
      wrong(`${unit.name} logs in without a password: ${line.slice(0, 120)}`, `remove the drop-in of ${unit.name} that adds it`)
  }
  for (const folder of ['usr/lib/credstore', 'etc/credstore', 'usr/share/factory/etc/credstore']) {
    for (const name of files.names(folder))
      if (/^(?:agetty\.autologin|login\.noauth|(?:getty|tty)\..*(?:autologin|noauth))$/.test(name))
        wrong(`${shown(files, `${folder}/${name}`)} logs in without a password`, `remove /${folder}/${name}`)
  }
}

/** Only agetty's own options count: what follows `--` is for login. */
const agetty = (line: string): string => (/agetty/.test(line) ? line.replace(/\s--\s.*|-o '[^']*'/g, '') : '')

function checkDebugShell(files: Files, { wrong }: Finding): void {
  for (const unit of unitsOf(files, /^debug-shell\.service$/))
    if (unit.started)
      wrong(
        `${unit.name} is enabled: a shell of root on the ninth console of ${files.name || 'the system'}`,
        'systemctl disable debug-shell.service',
      )
  for (const { path, text } of configFiles(files, configFolders('systemd/system-preset'), '.preset'))
    if (/^\s*enable\s+debug-shell\.service\s*$/m.test(text))
      wrong(`${shown(files, path)} enables debug-shell.service`, `take it out of /${path}`)
}

/** The rescue shell asks for root's password; this makes it ask for none where root is locked. */
function checkForcedSulogin(files: Files, { wrong }: Finding): void {
  for (const unit of unitsOf(files, /\.service$/))
    if (settingsOf(unit, 'Environment').some((value) => /SYSTEMD_SULOGIN_FORCE=(?:1|yes|true)/.test(value)))
      wrong(
        `${unit.name} of ${files.name || 'the system'} gives a shell without a password: SYSTEMD_SULOGIN_FORCE`,
        `remove it from ${unit.name}`,
      )
}

function checkSsh(files: Files, { wrong }: Finding): void {
  const configs = [
    etcFile(files, 'ssh/sshd_config'),
    ...configFiles(
      files,
      ['etc/ssh/sshd_config.d', 'usr/share/factory/etc/ssh/sshd_config.d', 'usr/lib/ssh/sshd_config.d'],
      '.conf',
    ),
  ]
  for (const config of configs) {
    if (!config) continue
    const value = (key: string) => new RegExp(`^\\s*${key}\\s+(\\S+)`, 'im').exec(config.text)?.[1]?.toLowerCase()
    if (value('PermitRootLogin') === 'yes')
      wrong(
        `${shown(files, config.path)}: root may log in over the network with a password`,
        'set PermitRootLogin prohibit-password',
      )
    if (value('PermitEmptyPasswords') === 'yes')
      wrong(
        `${shown(files, config.path)}: accounts without a password may log in over the network`,
        'set PermitEmptyPasswords no',
      )
  }
}

function checkWords(name: string, words: readonly string[], { wrong }: Finding): void {
  // Its value may be the terminal to start it on.
  const shell = argumentOf(words, 'systemd.debug_shell')
  if (shell !== undefined && !isNo(shell))
    wrong(`${name} starts a shell of root: systemd.debug_shell`, 'take systemd.debug_shell off its command line')
  const forced = words.find((word) => /SYSTEMD_SULOGIN_FORCE=(?:1|yes|true)/.test(word))
  if (forced !== undefined)
    wrong(`${name} gives a rescue shell without a password: ${forced}`, `take ${forced} off its command line`)
  const login = words.find((word) =>
    /^systemd\.set[-_]credential(?:[-_]binary)?=(?:agetty\.autologin|login\.noauth|[\w.]*autologin)/.test(word),
  )
  if (login !== undefined) wrong(`${name} logs in without a password: ${login}`, `take ${login} off its command line`)
}
