/** What a recipe's distribution means: its repositories, and the packages every initrd of it is made of. */

import { type DebianOptions, debianRepositories } from '../packages/deb/debian.ts'
import type { Repository } from '../packages/repository.ts'
import type { Settings } from '../recipe/schema.ts'

/** The distribution's word for an architecture. */
export const DEBIAN_ARCHITECTURES = { 'x86-64': 'amd64' } as const

export function repositoriesOf(settings: Settings): Repository[] {
  const options: DebianOptions = {
    release: settings.release,
    architecture: DEBIAN_ARCHITECTURES[settings.architecture],
    components: ['main', ...(settings.repositories ?? [])],
    ...(settings.mirror === undefined ? {} : { mirror: settings.mirror }),
  }
  const repositories = debianRepositories(options)
  if (settings.snapshot === undefined) return repositories
  // A snapshot stands still: its metadata is as valid as on its day, for ever.
  return repositories.map((r) => ({ ...r, url: r.snapshotUrl!.replace('{timestamp}', settings.snapshot!), allowExpired: true }))
}

/**
 * Packages of every initrd, as mkosi's built-in initrd has them; `InitrdPackages=` adds to these.
 * Source: mkosi `mkosi/resources/mkosi-initrd/mkosi.conf.d/debian.conf`.
 */
const DEBIAN_INITRD = [
  'bash',
  'btrfs-progs',
  'dmsetup',
  'dosfstools',
  'e2fsprogs',
  'gzip',
  'kmod',
  'less',
  'libcryptsetup12',
  'libfdisk1',
  'libfido2-1',
  'libseccomp2',
  '^libtss2-esys-[0-9.]+-0(t64)?$',
  '^libtss2-mu[0-9.-]+(t64)?$',
  '^libtss2-rc0(t64)?$',
  '^libtss2-tcti-device0(t64)?$',
  'mount',
  'procps',
  'systemd',
  'systemd-cryptsetup',
  'systemd-repart',
  'udev',
  'util-linux',
]

export const initrdPackagesOf = (settings: Settings): string[] => [...DEBIAN_INITRD, ...settings.initrdPackages]
