/** Image policies (systemd.image-policy(7)): which images systemd takes, for partitions of the disk, extensions and portable services. */
import type { Finding } from '../link.ts'
import { allFiles, argumentOf, type SystemFacts, wordsOf } from './facts.ts'
import { configFiles, configFolders, type Files, parseUnit, shown } from './files.ts'
import { settingOf, settingsOf, unitsOf } from './units.ts'

export function checkImagePolicies(facts: SystemFacts, { evidence, wrong }: Finding): void {
  let count = 0
  const judge = (where: string, policy: string, strict: readonly string[]) => {
    count++
    const open = openPartitions(policy, strict)
    if (open.length > 0)
      wrong(
        `${where} takes ${open.join(', ')}: ${policy.slice(0, 200)}`,
        'write signed (or encrypted for root) there, with +absent where it may be missing',
      )
    else evidence(`${where}: ${policy.slice(0, 200)}`)
  }
  for (const { name, commandLine } of facts.profiles) {
    const words = wordsOf(commandLine)
    const policy = argumentOf(words, 'systemd.image_policy')
    if (policy !== undefined) judge(`${name}: systemd.image_policy`, policy, ['usr', 'root'])
    const variable = words.find((word) => /^systemd\.setenv=SYSTEMD_\w*IMAGE_POLICY\w*=/.test(word))
    if (variable !== undefined)
      judge(`${name}: ${variable.split('=')[1]}`, variable.split('=').slice(2).join('='), ['usr', 'root'])
  }
  for (const files of allFiles(facts)) for (const { where, policy } of policiesOf(files)) judge(where, policy, ['usr', 'root'])
  if (count === 0)
    evidence('none but the defaults of systemd: the root hash pins /usr, and unsigned extensions are for root alone to add')
}

/** What units and configuration say. */
function policiesOf(files: Files): { where: string; policy: string }[] {
  const found: { where: string; policy: string }[] = []
  for (const unit of unitsOf(files, /\.(?:service|mount|socket)$/)) {
    for (const key of ['RootImagePolicy', 'MountImagePolicy', 'ExtensionImagePolicy']) {
      const policy = settingOf(unit, key)
      if (policy) found.push({ where: `${key}= of ${unit.name}`, policy })
    }
    for (const line of [...settingsOf(unit, 'ExecStart'), ...settingsOf(unit, 'Environment')]) {
      const policy = /--image-policy[= ]'?"?([^\s'"]+)|IMAGE_POLICY\w*=([^\s'"]+)/.exec(line)
      if (policy && !/^\$/.test(policy[1] ?? policy[2]!)) found.push({ where: unit.name, policy: policy[1] ?? policy[2]! })
    }
  }
  for (const kind of ['sysext', 'confext', 'system', 'portabled', 'nspawn']) {
    const folders = configFolders(`systemd/${kind}.conf.d`)
    for (const { path, text } of configFiles(files, folders, '.conf'))
      for (const { key, value } of parseUnit(text))
        if (/ImagePolicy$/.test(key) && value !== '') found.push({ where: shown(files, path), policy: value })
  }
  return found
}

const STATES = ['unprotected', 'verity', 'signed', 'encrypted', 'encryptedwithintegrity', 'unused', 'absent', 'open', 'ignore']

/** Partitions for which a policy takes content that nothing vouches for. One that is not named goes by the default. */
function openPartitions(policy: string, strict: readonly string[]): string[] {
  if (policy === '*' || policy === '') return ['everything']
  const rules = new Map<string, string[]>()
  for (const part of policy.split(':')) {
    const [, name = '', flags = ''] = /^([\w-]*)=(.*)$/.exec(part) ?? []
    rules.set(
      name,
      flags.split('+').filter((flag) => STATES.includes(flag)),
    )
    // `usr=signed,read-only-on` and the like say more about flags of the table.
    if (flags.includes(',')) rules.set(name, flags.split(',')[0]!.split('+'))
  }
  // `~` is nothing at all, `-` ignores: both let nothing in.
  return strict
    .filter((name) => {
      const flags = rules.get(name) ?? rules.get('') ?? []
      if (flags.includes('open') || flags.includes('unprotected')) return true
      return flags.length === 0 && !/^[~-]$/.test(policy) && rules.has(name)
    })
    .map((name) => `an unprotected ${name}`)
}
