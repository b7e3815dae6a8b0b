/** IPE in force: the initrd brings a policy the kernel takes, which denies what nobody vouched for, and the boot ends without it. */
import {
  decideIpe,
  formatIpeProblem,
  type IpeOperation,
  type IpePolicy,
  lintIpePolicy,
  parseIpePolicy,
} from '../formats/ipe-policy.ts'
import type { ImageFacts, InitrdFacts, IpePolicyFacts, ProfileFacts, TreeFacts, UkiFacts } from './facts.ts'
import { argumentOf, wordsOf } from './holes/facts.ts'
import { type Files, textOf } from './holes/files.ts'
import { settingsOf, unitsOf } from './holes/units.ts'
import { checkLink, type Finding, type Link } from './link.ts'
import { nameOf } from './trust.ts'

const ENFORCE = "set Ipe=enforce (recipe.ts: ipe: 'enforce')"
/** What nothing that nobody vouched for may do. */
const GUARDED: readonly IpeOperation[] = ['EXECUTE', 'KMODULE', 'KEXEC_IMAGE', 'KEXEC_INITRAMFS', 'FIRMWARE']

/** One link for each UKI. */
export async function checkIpe(facts: ImageFacts, links: Link[]): Promise<void> {
  for (const uki of facts.ukis)
    await checkLink(links, 'policy', `IPE policy of ${uki.path}`, (finding) => checkUkiPolicy(uki, facts, finding))
}

function checkUkiPolicy(uki: UkiFacts, { trees, addons }: ImageFacts, finding: Finding): void {
  const { evidence, wrong } = finding
  const [first] = uki.profiles
  const tree = trees.find(({ rootHash }) => rootHash === uki.rootHash)
  if (!first?.initrd) {
    wrong('not checked: the initrd cannot be read')
    return
  }
  judgeWords(uki, finding)
  for (const { path, commandLine } of addons.filter(({ ukis, trusted }) => trusted && ukis.includes(uki.path)))
    if (isOff(enforceOf(commandLine))) wrong(`ipe.enforce=0 of the addon ${path} lets IPE only watch`, `remove ${path}`)
  const { ipePolicies } = first.initrd
  const loaded = ipePolicies.filter(({ byPid1 }) => byPid1)
  if (loaded.length === 0) {
    const inUsr = tree?.files?.names('usr/lib/ipe').some((name) => name.endsWith('.p7b'))
    if (inUsr) wrong('only /usr brings a policy, and not the initrd, whose PID 1 loads it before anything else runs', ENFORCE)
    else wrong('the initrd brings none: whatever root can write, it can run', ENFORCE)
    return
  }
  for (const policy of ipePolicies) judgePolicy(policy, tree, first, finding)
  const guard = guardOf(first.initrd)
  if (guard === undefined) wrong('nothing stops the boot where the kernel refuses the policy, or has no IPE', ENFORCE)
  else evidence(`${guard} stops the boot without it`)
}

/** What the command lines say: enforcing is the default. */
function judgeWords(uki: UkiFacts, { evidence, wrong }: Finding): void {
  const off: string[] = []
  for (const profile of uki.profiles) {
    const value = enforceOf(profile.commandLine)
    const name = uki.profiles.length === 1 ? 'the command line' : `profile ${profile.id || profile.number}`
    if (isOff(value)) off.push(name)
    else if (profile.number === 0) evidence(value === undefined ? 'enforcing by default' : `ipe.enforce=${value}`)
    if (
      profile.number > 0 &&
      profile.initrd &&
      profile.initrd.ipePolicies.length === 0 &&
      uki.profiles[0]!.initrd !== profile.initrd
    )
      wrong(`the initrd of ${name} brings no policy`, ENFORCE)
  }
  if (off.length > 0) wrong(`ipe.enforce=0 of ${off.join(', ')} lets IPE only watch`, 'take ipe.enforce=0 off the command line')
}

const enforceOf = (commandLine: string): string | undefined => argumentOf(wordsOf(commandLine), 'ipe.enforce')
const isOff = (value: string | undefined): boolean => value !== undefined && /^(?:0|n|no|f|false|off)$/i.test(value)

function judgePolicy(
  policy: IpePolicyFacts,
  tree: TreeFacts | undefined,
  profile: ProfileFacts,
  { evidence, wrong }: Finding,
): void {
  for (const problem of policy.problems) wrong(`/${policy.path}: ${problem}`, 'sign it with the verity key: bisque build does')
  if (policy.text === '') return
  for (const problem of lintIpePolicy(policy.text)) {
    const line = formatIpeProblem(problem, policy.path)
    if (problem.severity === 'error') wrong(line)
    else evidence(`note: ${line}`)
  }
  const read = parsed(policy.text)
  if (!read) return
  const file = policy.path.replace(/^.*\/|\.p7b$/g, '')
  if (policy.byPid1 && file !== read.name)
    wrong(
      `/${policy.path} holds the policy ${read.name}, which PID 1 looks for as ${read.name}.p7b`,
      `rename it to ${read.name}.p7b`,
    )
  for (const operation of GUARDED)
    if (decideIpe(read, operation, {}).action !== 'DENY')
      wrong(`/${policy.path} allows ${operation} of anything`, `DEFAULT op=${operation} action=DENY`)
  judgeReach(policy, read, tree, profile, wrong)
  const by = policy.signers.map(nameOf).join(' and ')
  evidence(`${read.name} ${read.version.join('.')}${by === '' ? '' : ` signed by ${by}`}, denies by default`)
}

/** What the image needs must be allowed: programs of the initrd before the root is switched, those of /usr ever after. */
function judgeReach(
  { path, byPid1 }: IpePolicyFacts,
  policy: IpePolicy,
  tree: TreeFacts | undefined,
  profile: ProfileFacts,
  wrong: Finding['wrong'],
): void {
  if (byPid1 && decideIpe(policy, 'EXECUTE', { boot_verified: true }).action !== 'ALLOW')
    wrong(`/${path} lets nothing of the initrd run`, 'op=EXECUTE boot_verified=TRUE action=ALLOW')
  if (!tree) return
  const pinned = { dmverity_roothash: `sha256:${tree.rootHash}` }
  const isAllowed = (facts: object) => decideIpe(policy, 'EXECUTE', { ...pinned, ...facts }).action === 'ALLOW'
  if (!isAllowed({ dmverity_signature: true })) {
    wrong(`/${path} lets nothing of /${tree.verity} run`, 'op=EXECUTE dmverity_signature=TRUE action=ALLOW')
    return
  }
  if (isAllowed({ dmverity_signature: false })) return
  if (!tree.signedForKernel)
    wrong(
      `/${path} asks for a root hash whose signature the kernel verified, and no certificate the kernel knows signed it: nothing of /${tree.verity} runs`,
      'sign the root hash with a certificate that is enrolled in db',
    )
  else if (!showsSignature(profile, tree))
    wrong(
      `/${path} asks for a root hash whose signature the kernel verified, and nothing shows it to the kernel: nothing of /${tree.verity} runs`,
      `add systemd.verity_${tree.verity}_options=root-hash-signature=auto to the command line`,
    )
}

/** The word that brings the signature to the kernel; systemd finds it by itself from version 258 on, a path is brought by a unit. */
export function showsSignature({ commandLine, initrd }: ProfileFacts, { verity }: TreeFacts): boolean {
  const words = wordsOf(commandLine)
  const version = Number(initrd?.systemdVersion ?? 0)
  const options = argumentOf(words, `systemd.verity_${verity}_options`)?.split(',') ?? []
  const value = options.find((option) => option.startsWith('root-hash-signature='))?.slice('root-hash-signature='.length)
  if (value === 'auto') return version >= 258
  if (value !== undefined) return initrd !== undefined && bringsFile(initrd.files, value)
  const dissected = verity === 'usr' ? argumentOf(words, 'mount.usr') : argumentOf(words, 'root')
  return /^(?:dissect|gpt-auto)/.test(dissected ?? '') && version >= 258
}

/** A unit of the initrd, or the program it starts, that names the file. */
function bringsFile(files: Files, path: string): boolean {
  if (path.startsWith('base64:') || files.entries.has(path.replace(/^\//, ''))) return true
  return unitsOf(files, /\.service$/).some((unit) =>
    settingsOf(unit, 'ExecStart').some((line) => {
      const program = line
        .replace(/^[-@:+!]*/, '')
        .split(/\s/)[0]!
        .replace(/^\//, '')
      const own = (textOf(files, program) ?? '').replaceAll(/\$\{\w+:-([^}]*)\}/g, '$1')
      return line.includes(path) || own.includes(path)
    }),
  )
}

/** A unit that is required before sysinit.target, looks at what IPE enforces, and takes the machine down where it fails. */
function guardOf({ files }: InitrdFacts): string | undefined {
  return unitsOf(files, /\.service$/).find((unit) => {
    const takesDown = settingsOf(unit, 'FailureAction').some((value) => /^(?:reboot|poweroff|halt|exit|soft-reboot)/.test(value))
    const looks = settingsOf(unit, 'ExecStart').some((line) => {
      const program = line
        .replace(/^[-@:+!]*/, '')
        .split(/\s/)[0]!
        .replace(/^\//, '')
      return /security\/ipe/.test(line) || /security\/ipe/.test(textOf(files, program) ?? '')
    })
    return takesDown && looks && isRequired(files, unit.name)
  })?.name
}

const isRequired = (files: Files, name: string): boolean =>
  ['usr/lib/systemd/system', 'etc/systemd/system'].some((folder) =>
    ['sysinit.target', 'initrd.target', 'basic.target', 'initrd-root-device.target'].some((target) =>
      files.names(`${folder}/${target}.requires`).includes(name),
    ),
  )

function parsed(text: string): IpePolicy | undefined {
  try {
    return parseIpePolicy(text)
  } catch {
    return undefined // Its errors are told line by line.
  }
}
