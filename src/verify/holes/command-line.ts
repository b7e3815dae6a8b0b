/** Words of the command line that take the chain apart from within: each is signed, so that only whoever builds can write them. */
import type { Finding } from '../link.ts'
import { argumentOf, isYes, type SystemFacts, wordsOf } from './facts.ts'

interface Opening {
  key: string
  when(value: string): boolean
  why: string
}

const isNo = (value: string): boolean => /^(?:0|n|no|f|false|off)$/i.test(value)
const always = () => true

// biome-ignore format: table
const OPENINGS: readonly Opening[] = [
  { key: 'init',                           when: (v) => !/^(?:\/usr)?(?:\/lib\/systemd\/systemd|\/s?bin\/init)$/.test(v), why: 'starts another first program' },
  { key: 'rdinit',                         when: (v) => v !== '/init',   why: 'starts another first program in the initrd' },
  { key: 'systemd.allow_userspace_verity', when: isYes,                  why: 'takes root hashes that the kernel did not see signed' },
  { key: 'systemd.verity',                 when: isNo,                   why: 'sets up no dm-verity' },
  { key: 'rd.systemd.verity',              when: isNo,                   why: 'sets up no dm-verity' },
  { key: 'dm_verity.require_signatures',   when: isNo,                   why: 'takes root hashes without a signature' },
  { key: 'systemd.verity_usr_options',     when: isLax,                  why: 'goes on with blocks that do not match' },
  { key: 'systemd.verity_root_options',    when: isLax,                  why: 'goes on with blocks that do not match' },
  { key: 'module.sig_enforce',             when: isNo,                   why: 'loads modules that nobody signed' },
  { key: 'efi',                            when: (v) => /disable_early_pci_dma|nosoftreserve|runtime/.test(v) ? false : v === 'noruntime', why: 'hides Secure Boot from the kernel' },
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
  { key: 'systemd.wants',                  when: (v) => /debug|shell/.test(v), why: 'starts a shell' },
  { key: 'systemd.unit',                   when: (v) => /^debug/.test(v), why: 'starts a shell' },
]

function isLax(value: string): boolean {
  return (
    value.split(',').some((option) => /^(?:ignore-corruption|ignore-zero-blocks)$/.test(option)) &&
    value.includes('ignore-corruption')
  )
}

export function checkCommandLines({ profiles }: SystemFacts, { evidence, wrong }: Finding): void {
  for (const { name, commandLine } of profiles) {
    const words = wordsOf(commandLine)
    for (const { key, when, why } of OPENINGS) {
      const value = argumentOf(words, key)
      if (value !== undefined && when(value))
        wrong(`${name}: ${key}${value === '' ? '' : `=${value.slice(0, 80)}`} ${why}`, `take ${key} off its command line`)
    }
  }
  evidence(`${profiles.length} read`)
}
