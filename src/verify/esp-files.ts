/** What lies on the ESP beside programs: settings of systemd-boot, entries, and addons' kin. */
import { Fault } from '../base/fault.ts'
import { decodeCredentialSeal } from '../formats/credential.ts'
import type { Workers } from '../run/workers.ts'
import type { BootFile } from './esp.ts'
import { judgeExtension, MAX_ALL_EXTENSION_BYTES } from './extension.ts'
import type { Anchor, ImageFacts, ProgramFacts, UkiFacts } from './facts.ts'
import { checkLink, type Finding, type Link, leaveUnchecked } from './link.ts'

const MAX_TEXT_BYTES = 64 << 10
const MAX_LISTED = 64

/** One link each for loader.conf, for the entries, and for every loose file that the stub hands to the system. */
export async function checkEspFiles(facts: ImageFacts, workers: Workers, links: Link[]): Promise<void> {
  const { espFiles: files, programs, ukis, anchor } = facts
  const config = files.find(({ path }) => /^loader\/loader\.conf$/i.test(path))
  if (config) await checkLink(links, 'boot loader', 'loader.conf', (finding) => judgeConfig(config, ukis, anchor, finding))
  const entries = files.filter(({ path }) => /^loader\/entries\/[^/]+\.conf$/i.test(path))
  for (const entry of entries.slice(0, MAX_LISTED))
    await checkLink(links, 'boot loader', `boot entry ${entry.path}`, (finding) => judgeEntry(entry, files, programs, finding))
  const loose = files.filter(isSideFile)
  const left = { bytes: MAX_ALL_EXTENSION_BYTES }
  for (const file of loose.slice(0, MAX_LISTED))
    await checkLink(links, 'UKI', `loose file ${file.path}`, (finding) =>
      EXTENSION.test(file.path) ? judgeExtension(file, facts, left, workers, finding) : judgeSideFile(file, finding),
    )
  for (const [name, { length }] of Object.entries({ 'boot entries': entries, 'loose files': loose }))
    if (length > MAX_LISTED) leaveUnchecked(links, 'boot loader', name, `there are ${length}, more than ${MAX_LISTED}`)
}

/** Nobody signs loader.conf: what it can do must not matter. */
function judgeConfig(file: BootFile, ukis: readonly UkiFacts[], anchor: Anchor, { evidence, wrong }: Finding): void {
  const settings = keysOf(file)
  const value = (key: string) => settings.findLast(([name]) => name === key)?.[1]
  const open = value('editor') === undefined || /^(?:1|y|yes|t|true|on)$/i.test(value('editor')!)
  const bare = ukis.filter(({ profiles }) => profiles.some(({ sections }) => !sections.includes('.cmdline')))
  if (open && bare.length > 0)
    wrong(
      `the menu edits command lines, and ${bare.map(({ path }) => path).join(', ')} has none of its own`,
      'editor no in loader.conf, and a .cmdline in each profile',
    )
  else if (open) evidence('the menu edits command lines; a UKI with its own takes no other under Secure Boot')
  else evidence('command lines are not edited')
  const enroll = value('secure-boot-enroll')
  evidence(`secure-boot-enroll ${enroll ?? 'if-safe'}`)
  if (value('default') !== undefined) evidence(`default ${value('default')!.slice(0, 200)}`)
  if (enroll === 'off' && anchor.from === 'image')
    wrong('keys are there, and secure-boot-enroll is off', 'secure-boot-enroll if-safe')
  evidence('not signed by anybody, measured in PCR 5')
}

/** Entries of type 1: a command line, and an initrd, that nobody signed. */
function judgeEntry(
  file: BootFile,
  files: readonly BootFile[],
  programs: readonly ProgramFacts[],
  { evidence, wrong }: Finding,
): void {
  const hint = `remove ${file.path}: UKIs in EFI/Linux need no entry`
  const settings = keysOf(file)
  const values = (key: string) => settings.filter(([name]) => name === key).map(([, value]) => value)
  const target = [...values('linux'), ...values('efi'), ...values('uki')][0]
  if (target === undefined) {
    wrong('it names no program', hint)
    return
  }
  const path = target.replace(/^[/\\]+/, '').replaceAll('\\', '/')
  const same = ({ path: other }: { path: string }) => other.toUpperCase() === path.toUpperCase()
  const program = programs.find(same)
  if (!files.some(same)) wrong(`${path} is not there`, hint)
  else if (!program?.trusted) wrong(`it starts ${path}, which nobody trusted signed`, hint)
  for (const initrd of values('initrd')) wrong(`it adds the initrd ${initrd}, which nobody signs`, hint)
  for (const key of ['devicetree', 'devicetree-overlay'])
    for (const dtb of values(key)) wrong(`it adds ${key} ${dtb}, which nobody signs`, hint)
  const options = values('options').join(' ')
  if (options !== '' && program?.kind !== 'UKI')
    wrong(`it starts ${path} with a command line that nobody signs: ${options.slice(0, 200)}`, hint)
  else if (options !== '') evidence('its options do not count: under Secure Boot the UKI takes its own command line')
  evidence(`starts ${path}`)
}

/** Key and value of each line, keys in lower case. */
function keysOf(file: BootFile): [key: string, value: string][] {
  const text = Buffer.from(file.read(MAX_TEXT_BYTES)).toString('utf8')
  return text.split(/\r?\n/).flatMap((line): [string, string][] => {
    const [, key, value = ''] = /^\s*([^#\s]\S*)(?:\s+(.*?))?\s*$/.exec(line) ?? []
    return key === undefined ? [] : [[key.toLowerCase(), value]]
  })
}

const SIDE_FOLDER = /^(?:loader\/(?:credentials|extensions|addons)|.*\.efi\.extra\.d)\/[^/]+$/i

const EXTENSION = /\.raw$/i
const CREDENTIAL = /\.cred$/i

/** Programs among them are judged as programs. The stub goes by the name, and so does this where it picks something up. */
const isSideFile = ({ path, isProgram }: BootFile): boolean =>
  SIDE_FOLDER.test(path) && (!isProgram || EXTENSION.test(path) || CREDENTIAL.test(path))

function judgeSideFile(file: BootFile, { wrong }: Finding): void {
  const { path } = file
  if (!CREDENTIAL.test(path)) {
    wrong('nobody signs it, and systemd-stub has no use for it', `remove ${path}`)
    return
  }
  const hint = `remove ${path}, or put what is in it into the image`
  try {
    wrong(`${openedBy(file)}; PCR 12 measures it`, hint)
  } catch (error) {
    if (!(error instanceof Fault) || error.code === 'host') throw error
    wrong(`nobody signs this credential, and it is none that systemd opens: ${error.message}; PCR 12 measures it`, hint)
  }
}

/** Text of a sealed credential: systemd takes no more than 1 MiB, and what it was sealed with. */
const MAX_CREDENTIAL_BYTES = 2 << 20

/** Who can open a credential, by what its header says. */
function openedBy(file: BootFile): string {
  const { id, keys, pcrs, policyPcrs } = decodeCredentialSeal(file.read(MAX_CREDENTIAL_BYTES))
  if (!keys) return `nobody signs this credential, and it is sealed with a kind of key that is not known here (${id})`
  if (keys.length === 0) return 'this credential is sealed with no key at all: systemd takes it wherever Secure Boot is off'
  const bound = (what: string, of: readonly number[]) => (of.length > 0 ? [`${what} PCR ${of.join('+')}`] : [])
  const tpm = [
    ...bound('the values of', pcrs),
    ...(keys.includes('signed policy') ? bound('a signed policy for', policyPcrs) : []),
  ]
  const needed = [
    ...(keys.includes('host') ? ['the host key of a machine'] : []),
    ...(keys.includes('tpm2') ? [`the TPM of a machine${tpm.length > 0 ? `, bound to ${tpm.join(' and ')}` : ''}`] : []),
  ]
  return `nobody signs this credential: it is sealed with ${needed.join(' and ')}${keys.includes('user') ? ', for one user' : ''}, and systemd takes it there`
}
