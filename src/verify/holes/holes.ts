/**
 * Holes: what would let somebody in although every signature of the chain holds. Everything is read from the image's own
 * files; one link for each subject. A hole is a link that does not hold.
 */
import type { ImageFacts, TreeFacts } from '../facts.ts'
import { checkLink, type Finding, type Link, type Stage } from '../link.ts'
import { checkAccounts } from './accounts.ts'
import { checkBounding } from './capabilities.ts'
import { checkCommandLines } from './command-line.ts'
import type { SystemFacts } from './facts.ts'
import type { Files } from './files.ts'
import { checkImagePolicies } from './image-policy.ts'
import { type Kernel, readKernel } from './kernel.ts'
import {
  checkConfiguration,
  checkIpeKernel,
  checkKexec,
  checkKeyrings,
  checkLockdown,
  checkRootHashKernel,
} from './kernel-config.ts'
import { checkModules } from './kernel-modules.ts'
import { checkKernelSettings } from './kernel-settings.ts'
import { checkLogins } from './logins.ts'
import { checkModes, checkPrivileged } from './modes.ts'
import { checkIdentity, checkSecrets } from './secrets.ts'
import { checkAnchors } from './trust-anchors.ts'
import { checkUpdates } from './updates.ts'

type Check = (facts: SystemFacts, finding: Finding) => void | Promise<void>

// biome-ignore format: table
const CHECKS: readonly [stage: Stage, name: string, check: Check, needed?: (facts: SystemFacts) => boolean][] = [
  ['kernel',  'kernel configuration',     checkConfiguration],
  ['kernel',  'kernel keyrings',          checkKeyrings,       ({ secureBoot }) => secureBoot],
  ['kernel',  'kernel and root hash',     checkRootHashKernel, ({ signed }) => signed],
  ['kernel',  'kernel lockdown',          checkLockdown,       ({ secureBoot }) => secureBoot],
  ['kernel',  'kernel and IPE',           checkIpeKernel],
  ['kernel',  'kernel modules',           checkModules],
  ['kernel',  'kexec',                    checkKexec,          ({ secureBoot }) => secureBoot],
  ['kernel',  'kernel settings',          checkKernelSettings],
  ['system',  'command lines',            checkCommandLines],
  ['system',  'accounts',                 checkAccounts],
  ['system',  'logins',                   checkLogins],
  ['system',  'file modes',               checkModes],
  ['system',  'privileged programs',      checkPrivileged],
  ['system',  'IPE off switch',           checkBounding],
  ['system',  'certificates for images',  checkAnchors],
  ['system',  'image policies',           checkImagePolicies],
  ['system',  'private keys',             checkSecrets],
  ['system',  'identity',                 checkIdentity],
  ['updates', 'updates',                  checkUpdates],
]

/** Looks for holes in all that an image boots. */
export async function checkHoles(facts: ImageFacts, links: Link[]): Promise<void> {
  const tree = mainTree(facts)
  const system = await systemFacts(facts, tree?.files)
  if (tree !== undefined && system.files === undefined)
    await checkLink(links, 'system', 'files', ({ evidence }) =>
      evidence(`not known: ${tree.fileSystem} is not read, so that nothing is said of what is in it`),
    )
  for (const [stage, name, check, needed] of CHECKS) {
    if (stage === 'kernel' && system.kernels.length === 0 && check !== checkModules && check !== checkKernelSettings) continue
    if (needed?.(system) === false) continue
    await checkLink(links, stage, name, (finding) => check(system, finding))
  }
}

/** The file system that boots: what a UKI pins comes first. */
const mainTree = ({ trees }: ImageFacts): TreeFacts | undefined => trees.find(({ ukis }) => ukis.length > 0) ?? trees[0]

async function systemFacts(facts: ImageFacts, files: Files | undefined): Promise<SystemFacts> {
  const { ukis, anchor, trees } = facts
  const profiles = ukis.flatMap((uki) => uki.profiles.map((profile) => ({ uki, profile })))
  const initrds = new Set(profiles.flatMap(({ profile }) => (profile.initrd ? [profile.initrd] : [])))
  const kernels = new Map<string, Kernel>()
  for (const { profile } of profiles)
    if (!kernels.has(profile.uname)) kernels.set(profile.uname, await readKernel(profile.uname, profile.kernel, files))
  return {
    files,
    initrds: [...initrds].map((initrd) => initrd.files),
    profiles: [
      ...profiles.map(({ uki, profile }) => ({
        name: uki.profiles.length === 1 ? uki.path : `${uki.path} profile ${profile.id || profile.number}`,
        commandLine: profile.commandLine,
        isDefault: profile.number === 0,
      })),
      // What a signed addon adds, it adds to the words of every UKI that loads it.
      ...facts.addons.flatMap(({ path, commandLine, trusted, ukis: loaders }) => {
        const own = ukis.find((uki) => loaders.includes(uki.path))
        if (!trusted || !own || commandLine === '') return []
        return [{ name: `addon ${path}`, commandLine: `${own.commandLine} ${commandLine}`, isDefault: true }]
      }),
    ],
    kernels: [...kernels.values()],
    trusted: [...anchor.db, ...anchor.verity],
    signed: anchor.chain.signature && trees.length > 0,
    secureBoot: anchor.chain.secureBoot,
    ipe:
      [...initrds].some(({ ipePolicies }) => ipePolicies.length > 0) ||
      (files?.names('usr/lib/ipe') ?? []).some((name) => name.endsWith('.p7b')),
  }
}
