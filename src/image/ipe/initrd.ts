/**
 * What an initrd needs so that the kernel enforces the image's policy, or the boot stops.
 *
 * PID 1 loads the policy before it starts anything, and gives up CAP_MAC_ADMIN for itself and for all that comes after it,
 * the booted system included: no configuration on a writable root can bring it back. One process that is started before
 * PID 1 keeps it: when the initrd has been left, it puts the policy of the booted system into force, and ends.
 *
 * The check runs before any device is set up, and once more as the last step before the root is switched, in the very
 * unit that switches it. What would offer a shell in between, or let credentials change units, is not there.
 */
import { madeDirectory, madeFile, madeSymlink } from '../../tree/content.ts'
import { type Inode, type Tree, treeOf } from '../../tree/tree.ts'
import { ipeGuard, sealScript } from './scripts.ts'

export interface SignedPolicy {
  name: string
  text: string
  signed: Uint8Array
}

export interface IpeInitrd {
  /** Whether each boot must be enforced, only one whose command line says so, or none. */
  mode: 'enforce' | 'profile' | 'permissive'
  /** The policy for the initrd. */
  policy: SignedPolicy
  /** The one of the booted system. */
  booted: SignedPolicy
  epoch: number
}

/** Where PID 1 looks for policies; each must be named as what it holds. */
export const policyPath = (name: string): string => `usr/lib/ipe/${name}.p7b`

/** Where the policy of the booted system waits: not where PID 1 would load it. */
export const BOOTED_POLICY = 'usr/lib/bisque/ipe-booted.p7b'

/** An initrd of its own, to be unpacked over the one that boots. */
export function ipeInitrd({ mode, policy, booted, epoch }: IpeInitrd): Tree {
  const files: [string, Inode][] = [[policyPath(policy.name), madeFile(policy.signed, epoch)]]
  if (mode !== 'permissive') {
    const [{ name }, seal] = [policy, { name: policy.name, booted: booted.name }]
    files.push(
      ['init', madeFile(INIT, epoch, 0o755)],
      [BOOTED_POLICY, madeFile(booted.signed, epoch)],
      ['usr/lib/bisque/ipe-policy', madeFile(policy.text, epoch)],
      ['usr/lib/bisque/ipe-seal', madeFile(sealScript(seal), epoch, 0o755)],
      ['usr/lib/bisque/ipe-guard', madeFile(ipeGuard({ name, mode }), epoch, 0o755)],
      ['usr/lib/systemd/system.conf.d/50-bisque-ipe.conf', madeFile(WITHOUT_MAC_ADMIN + PATIENT, epoch)],
      ['usr/lib/systemd/system/bisque-ipe.service', madeFile(GUARD, epoch)],
      ['usr/lib/systemd/system/sysinit.target.requires/bisque-ipe.service', madeSymlink('../bisque-ipe.service', epoch)],
      ['usr/lib/systemd/system/initrd-switch-root.service.d/50-bisque-ipe.conf', madeFile(SWITCH_ROOT, epoch)],
    )
  }
  if (mode === 'enforce') {
    for (const unit of ['emergency.service', 'rescue.service'])
      files.push([`etc/systemd/system/${unit}`, madeFile(RESTART, epoch)])
    for (const unit of SHELLS) files.push([`etc/systemd/system/${unit}`, madeSymlink('/dev/null', epoch)])
    files.push(['etc/systemd/system-generators/systemd-debug-generator', madeSymlink('/dev/null', epoch)])
  }
  return treeOf(files, madeDirectory(epoch))
}

/** CAP_MAC_ADMIN is what it takes to load, activate or delete a policy and to stop enforcing; AppArmor and Smack ask for it, too. */
export const WITHOUT_MAC_ADMIN = `# Nobody may change what the kernel enforces. From Bisque.
[Manager]
CapabilityBoundingSet=~CAP_MAC_ADMIN
`

/** Where nobody can look into what is wrong, a disk that is slow to appear is waited for. */
const PATIENT = 'DefaultDeviceTimeoutSec=5min\n'

/** Neither a file of the environment's choice nor its functions are read (-p). PID 1 kills no process named with an @. */
const INIT = `#!/bin/bash -p
# Leaves behind what puts the IPE policy of the booted system into force, and becomes PID 1.
# Its input is a file that is there, as /dev/null is not yet.
(exec -a @bisque-ipe-seal /bin/bash -p /usr/lib/bisque/ipe-seal) </init &
exec /usr/lib/systemd/systemd "$@"
`

/** Units that would give a shell or a login to whoever writes the command line. */
const SHELLS = [
  'debug-shell.service',
  'breakpoint-pre-udev.service',
  'breakpoint-pre-basic.service',
  'breakpoint-pre-mount.service',
  'breakpoint-pre-switch-root.service',
  'console-getty.service',
  'container-getty@.service',
  'getty@.service',
  'serial-getty@.service',
]

const GUARD = `[Unit]
Description=IPE Policy of This Image
DefaultDependencies=no
Conflicts=shutdown.target
Before=sysinit.target shutdown.target systemd-udevd.service systemd-udev-trigger.service cryptsetup-pre.target
FailureAction=reboot-force

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/lib/bisque/ipe-guard
`

const SWITCH_ROOT = `[Unit]
FailureAction=reboot-force

[Service]
ExecStartPre=/usr/lib/bisque/ipe-guard
`

const RESTART = `[Unit]
Description=Restart Instead of a Shell
DefaultDependencies=no
Conflicts=shutdown.target
Before=shutdown.target
SuccessAction=reboot-force
FailureAction=reboot-force

[Service]
Type=oneshot
ExecStart=/bin/sh -c 'echo "Cannot boot: the initrd failed, and offers no shell; restarting in 30 s" >/dev/console; sleep 30'
`
