/** The kernel's configuration: what makes signatures count, locks it down, and lets IPE decide. */
import type { Finding } from '../link.ts'
import { argumentOf, type SystemFacts, wordsOf } from './facts.ts'
import { isSet, type Kernel } from './kernel.ts'

const KEEP_CONFIG = 'keep the configuration of the kernel in the image, as /usr/lib/modules/VERSION/config'

/** Where what is known comes from, and that it does not contradict itself. */
export function checkConfiguration({ kernels }: SystemFacts, { evidence, wrong }: Finding): void {
  for (const { version, source, problems } of kernels) {
    evidence(`${version}: ${source}`)
    for (const problem of problems) wrong(problem, 'ship the configuration of the very kernel that boots')
  }
}

/** Certificates that firmware has become keys of the kernel. */
export function checkKeyrings({ kernels }: SystemFacts, finding: Finding): void {
  for (const kernel of kernels) {
    need(kernel, finding, 'INTEGRITY_PLATFORM_KEYRING', 'there is no keyring for the certificates that firmware has in db')
    need(kernel, finding, 'LOAD_UEFI_KEYS', 'the certificates that firmware has in db are not loaded')
  }
}

/** dm-verity asks for the signature of a root hash itself, and takes what is signed by a certificate of db. */
export function checkRootHashKernel({ kernels }: SystemFacts, finding: Finding): void {
  for (const kernel of kernels) {
    const asked = need(kernel, finding, 'DM_VERITY_VERIFY_ROOTHASH_SIG', 'dm-verity does not know signatures of root hashes')
    const platform = 'DM_VERITY_VERIFY_ROOTHASH_SIG_PLATFORM_KEYRING'
    if (asked) need(kernel, finding, platform, 'a root hash signed by a certificate of db is not taken for signed')
  }
}

/** IPE is compiled in, started, and able to judge by signatures of dm-verity. */
export function checkIpeKernel({ kernels, profiles, ipe }: SystemFacts, finding: Finding): void {
  if (!ipe) {
    finding.evidence('the image has no policy for IPE: nothing is asked of the kernel')
    return
  }
  for (const kernel of kernels) {
    need(kernel, finding, 'SECURITY_IPE', 'it has no IPE')
    need(kernel, finding, 'IPE_PROP_DM_VERITY_SIGNATURE', 'IPE cannot judge by the signature of a root hash')
    const rings = ['IPE_POLICY_SIG_PLATFORM_KEYRING', 'IPE_POLICY_SIG_SECONDARY_KEYRING'] as const
    // A kernel's own image does not tell; that a policy is refused stops the boot, so that nothing hangs on it.
    if (isSet(kernel, rings[0]) === undefined) finding.evidence(`not known: CONFIG_${rings[0]}`)
    else need(kernel, finding, rings[0], 'a policy signed by a certificate of db is refused')
    for (const { name, commandLine } of profiles) {
      const list = argumentOf(wordsOf(commandLine), 'lsm') ?? kernel.value('LSM')
      if (list === undefined)
        finding.wrong(`${name}: not known whether IPE is among the security modules that start`, KEEP_CONFIG)
      else if (!list.split(',').includes('ipe'))
        finding.wrong(
          `${name}: IPE does not start, the list of security modules is ${list}`,
          'take lsm= off the command line, or add ipe to it',
        )
    }
  }
}

/** Under Secure Boot the kernel lets not even root change it. */
export function checkLockdown({ kernels, profiles, secureBoot }: SystemFacts, finding: Finding): void {
  for (const kernel of kernels) {
    const there = need(kernel, finding, 'SECURITY_LOCKDOWN_LSM', 'root may change the running kernel')
    if (!there || !secureBoot) continue
    const early = isSet(kernel, 'SECURITY_LOCKDOWN_LSM_EARLY')
    for (const { name, commandLine } of profiles) {
      const words = wordsOf(commandLine)
      const asked = argumentOf(words, 'lockdown')
      const list = argumentOf(words, 'lsm') ?? kernel.value('LSM')
      if (early !== true && list !== undefined && !list.split(',').includes('lockdown'))
        finding.wrong(
          `${name}: lockdown does not start, the list of security modules is ${list}`,
          'take lsm= off the command line',
        )
      if (isLocked(kernel) || asked === 'integrity' || asked === 'confidentiality') continue
      finding.wrong(
        `${name}: Secure Boot does not lock the kernel down, and nothing else does`,
        'add lockdown=integrity to the command line',
      )
    }
    finding.evidence(isLocked(kernel) ? 'Secure Boot locks it down' : 'its command line locks it down')
  }
}

/** Another kernel is started only if it is signed. */
export function checkKexec({ kernels, secureBoot }: SystemFacts, { evidence, wrong }: Finding): void {
  for (const kernel of kernels) {
    const signed = isSet(kernel, 'KEXEC_SIG')
    if (isSet(kernel, 'KEXEC') === false && isSet(kernel, 'KEXEC_FILE') === false) evidence('it has no kexec')
    else if (isSet(kernel, 'KEXEC_SIG_FORCE') === true) evidence('CONFIG_KEXEC_SIG_FORCE: kernels must be signed')
    else if (secureBoot && isLocked(kernel) && isSet(kernel, 'SECURITY_LOCKDOWN_LSM') === true)
      evidence(`lockdown refuses kernels that are not signed${signed === true ? ', CONFIG_KEXEC_SIG checks them' : ''}`)
    else
      wrong(
        'kexec starts kernels that nobody signed',
        'use a kernel with CONFIG_KEXEC_SIG_FORCE, or one that Secure Boot locks down',
      )
  }
}

/** Whether Secure Boot locks a kernel down: distributions patch that in. */
export const isLocked = (kernel: Kernel): boolean =>
  ['LOCK_DOWN_IN_EFI_SECURE_BOOT', 'LOCK_DOWN_KERNEL_FORCE_INTEGRITY', 'LOCK_DOWN_KERNEL_FORCE_CONFIDENTIALITY'].some(
    (option) => isSet(kernel, option) === true,
  )

/** Notes whether an option is set. What is not known does not hold. */
function need(kernel: Kernel, { evidence, wrong }: Finding, option: string, otherwise: string): boolean {
  const set = isSet(kernel, option)
  if (set === true) evidence(`CONFIG_${option}`)
  else if (set === false)
    wrong(`CONFIG_${option} is not set in ${kernel.version}: ${otherwise}`, 'use a kernel of the distribution that has it')
  else wrong(`not known: CONFIG_${option} of ${kernel.version}. Without it, ${otherwise}`, KEEP_CONFIG)
  return set === true
}
