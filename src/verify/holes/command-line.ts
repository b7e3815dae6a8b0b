/** Words of the command line that take the chain apart from within: each is signed, so that only whoever builds can write them. */
import type { Finding } from '../link.ts'
import { argumentOf, argumentsOf, isNo, isYes, type SystemFacts, wordsOf } from './facts.ts'

interface Opening {
  key: string
  when(value: string): boolean
  why: string
  /** Every such word counts, not only the last. */
  adds?: true
  /** A profile that somebody must choose may do it: what it starts asks for root's password. */
  inDefault?: true
}

const always = () => true
const isLax = (options: string): boolean => options.split(',').includes('ignore-corruption')

// biome-ignore format: table
export const OPENINGS: readonly Opening[] = [
  { key: 'init',                           when: (v) => !/^(?:\/usr)?(?:\/lib\/systemd\/systemd|\/s?bin\/init)$/.test(v), why: 'starts another first program' },
  { key: 'rdinit',                         when: (v) => v !== '/init',   why: 'starts another first program in the initrd' },
  { key: 'systemd.allow_userspace_verity', when: isYes,                  why: 'takes root hashes that the kernel did not see signed' },
  { key: 'systemd.verity',                 when: isNo,                   why: 'sets up no dm-verity' },
  { key: 'dm_verity.require_signatures',   when: isNo,                   why: 'takes root hashes without a signature' },
  { key: 'systemd.verity_usr_options',     when: isLax,                  why: 'goes on with blocks that do not match' },
  { key: 'systemd.verity_root_options',    when: isLax,                  why: 'goes on with blocks that do not match' },
  { key: 'module.sig_enforce',             when: isNo,                   why: 'loads modules that nobody signed' },
  { key: 'efi',                            when: (v) => v.split(',').includes('noruntime'), why: 'hides the keys in firmware from the kernel' },
  { key: 'noefi',                          when: always,                 why: 'hides Secure Boot from the kernel' },
  { key: 'security',                       when: always,                 why: 'starts that one security module in place of the others' },
  { key: 'apparmor',                       when: isNo,                   why: 'starts no AppArmor' },
  { key: 'selinux',                        when: isNo,                   why: 'starts no SELinux' },
  { key: 'enforcing',                      when: isNo,                   why: 'lets SELinux only watch' },
  { key: 'mitigations',                    when: (v) => v === 'off',     why: 'turns off what guards against faults of processors' },
  { key: 'iomem',                          when: (v) => v === 'relaxed', why: 'opens the memory of devices' },
  { key: 'rd.break',                       when: always,                 why: 'gives a shell in the initrd' },
  { key: 'rd.shell',                       when: (v) => !isNo(v),        why: 'gives a shell in the initrd' },
  { key: 'systemd.run',                    when: always,                 why: 'runs another program' },
  { key: 'systemd.run_success_action',     when: always,                 why: 'runs another program' },
  { key: 'systemd.wants',                  when: (v) => /debug|shell/.test(v), why: 'starts a shell', adds: true },
  { key: 'systemd.mask',                   when: (v) => /verity|ipe|bisque/.test(v), why: 'leaves out a unit of the chain', adds: true },
  { key: 'systemd.setenv',                 when: (v) => ENVIRONMENT.test(v), why: 'brings programs code from elsewhere', adds: true },
  { key: 'systemd.set_credential',         when: (v) => CREDENTIAL.test(v), why: 'changes the system from outside', adds: true },
  { key: 'systemd.set_credential_binary',  when: (v) => CREDENTIAL.test(v), why: 'changes the system from outside', adds: true },
  { key: 'systemd.crash_shell',            when: isYes,                  why: 'gives a shell when PID 1 fails' },
  { key: 'systemd.break',                  when: always,                 why: 'gives a shell' },
  { key: 'systemd.unit',                   when: (v) => /^(?:rescue|emergency)\./.test(v), why: 'starts into a rescue shell', inDefault: true },
  { key: 'rescue',                         when: always,                 why: 'starts into a rescue shell', inDefault: true },
  { key: 'emergency',                      when: (v) => v === '',               why: 'starts into a rescue shell', inDefault: true },
  { key: 'single',                         when: always,                 why: 'starts into a rescue shell', inDefault: true },
  { key: 'initrd',                         when: always,                 why: 'loads an initrd from the ESP, which nobody signs' },
  { key: 'dm_mod.create',                  when: always,                 why: 'maps devices before anything is checked' },
  { key: 'initcall_blacklist',             when: always,                 why: 'leaves out parts of the kernel' },
  { key: 'efivar_ssdt',                    when: always,                 why: 'loads an ACPI table that nobody signs' },
  { key: 'kgdboc',                         when: always,                 why: 'lets a debugger into the kernel' },
  { key: 'kgdbwait',                       when: always,                 why: 'lets a debugger into the kernel' },
  { key: 'ima_appraise',                   when: (v) => /^(?:off|fix|log)$/.test(v), why: 'lets IMA only watch' },
  { key: 'iommu',                          when: (v) => v === 'off',     why: 'lets devices write to all memory' },
  { key: 'intel_iommu',                    when: (v) => v === 'off',     why: 'lets devices write to all memory' },
  { key: 'amd_iommu',                      when: (v) => v === 'off',     why: 'lets devices write to all memory' },
  { key: 'sysctl.kernel.modprobe',         when: always,                 why: 'has the kernel start another program' },
  { key: 'sysctl.kernel.core_pattern',     when: (v) => v.startsWith('|'), why: 'has the kernel start another program' },
  { key: 'systemd.unit',                   when: (v) => /^debug/.test(v), why: 'starts a shell' },
]

/** What the loader of programs and systemd itself take from their environment; the kernel hands words it does not know to PID 1. */
const ENVIRONMENT = /^(?:LD_(?:PRELOAD|LIBRARY_PATH|AUDIT)|SYSTEMD_(?:UNIT|GENERATOR|ENVIRONMENT_GENERATOR)_PATH|GCONV_PATH)=/
/** Credentials that are units, mounts, files or keys. */
const CREDENTIAL =
  /^(?:systemd\.(?:extra-unit|unit-dropin)\.|(?:fstab|tmpfiles|sysusers|sysctl)\.extra:|udev\.|ssh\.(?:authorized|ephemeral)|network\.)/

export function checkCommandLines({ profiles }: SystemFacts, { evidence, wrong }: Finding): void {
  for (const { name, commandLine, isDefault } of profiles) {
    const words = wordsOf(commandLine)
    for (const { key, when, why, adds, inDefault } of OPENINGS) {
      if (inDefault && isDefault === false) continue
      const last = argumentOf(words, key)
      const value = adds ? argumentsOf(words, key).find(when) : last
      if (value !== undefined && when(value))
        wrong(`${name}: ${key}${value === '' ? '' : `=${value.slice(0, 80)}`} ${why}`, `take ${key} off its command line`)
    }
    for (const word of words.filter((one) => ENVIRONMENT.test(one)))
      wrong(`${name}: ${word.slice(0, 80)} brings programs code from elsewhere`, `take ${word.slice(0, 80)} off its command line`)
  }
  evidence(`read ${profiles.length === 1 ? 'the one there is' : `those of ${profiles.length} profiles`}`)
}
