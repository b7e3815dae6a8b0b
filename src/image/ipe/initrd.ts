/**
 * What an initrd needs so that the kernel enforces the image's policy, or the boot stops.
 *
 * PID 1 loads the policy before it starts anything, and gives up CAP_MAC_ADMIN for itself and all that comes after it, the
 * booted system included: whatever configuration lies on a writable root, nothing can bring it back. One process is
 * started before PID 1 and keeps it: it puts the policy of the booted system in place when the initrd is left, and ends.
 *
 * The check runs before any device is set up, and again as the last step before the root is switched, as part of the very
 * unit that switches it. What would offer a shell in between, or let credentials change units, is not there.
 */
import { madeDirectory, madeFile, madeSymlink } from '../../tree/content.ts'
import { type Inode, type Tree, treeOf } from '../../tree/tree.ts'

export interface IpeInitrd {
  /** Whether each boot must be enforced, or only one whose command line says so. */
  mode: 'enforce' | 'profile'
  name: string
  text: string
  /** The signed policy. */
  signed: Uint8Array
  booted: { name: string; signed: Uint8Array }
  epoch: number
}

/** Where systemd's PID 1 looks for policies, each named as what it holds. */
export const policyPath = (name: string): string => `usr/lib/ipe/${name}.p7b`

export const BOOTED_POLICY = 'usr/lib/bisque/ipe-booted.p7b'

/** An initrd of its own, to be unpacked over the one that boots. */
export function ipeInitrd(options: IpeInitrd): Tree {
  const { epoch, signed, name, booted, text, mode } = options
  const files: [string, Inode][] = [
    [policyPath(name), madeFile(signed, epoch)],
    ['usr/lib/bisque/ipe-policy', madeFile(text, epoch)],
    ['usr/lib/bisque/ipe-guard', madeFile(ipeGuard({ name, mode }), epoch, 0o755)],
    ['usr/lib/systemd/system.conf.d/50-bisque-ipe.conf', madeFile(WITHOUT_MAC_ADMIN, epoch)],
    ['usr/lib/systemd/system/bisque-ipe.service', madeFile(GUARD, epoch)],
    ['usr/lib/systemd/system/sysinit.target.requires/bisque-ipe.service', madeSymlink('../bisque-ipe.service', epoch)],
    ['usr/lib/systemd/system/initrd-switch-root.service.d/50-bisque-ipe.conf', madeFile(SWITCH_ROOT, epoch)],
  ]
  void BOOTED_POLICY
  void booted
  if (mode === 'enforce') {
    const restart = madeFile(RESTART, epoch)
    for (const unit of ['emergency.service', 'rescue.service']) files.push([`etc/systemd/system/${unit}`, restart])
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
ExecStart=/bin/sh -c 'echo "Cannot boot: the initrd failed, and this image offers no shell there; restarting in 30 s" >/dev/console; sleep 30'
`

/** The script alone. Its paths can be set by environment, for tests. */
export const ipeGuard = ({ name, mode }: Pick<IpeInitrd, 'name' | 'mode'>): string =>
  SCRIPT.replace('@NAME@', () => quoted(name)).replace('@MODE@', mode)

const quoted = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`

const SCRIPT = `#!/bin/sh
# Lets the boot go on only where the kernel enforces the IPE policy of this image.
set -u
name=@NAME@
mode=@MODE@
ipe=\${BISQUE_IPE:-/sys/kernel/security/ipe}
cmdline=\${BISQUE_CMDLINE:-/proc/cmdline}
expected=\${BISQUE_POLICY:-/usr/lib/bisque/ipe-policy}
console=\${BISQUE_CONSOLE:-/dev/console}

stop() {
  for to in "$console" /dev/kmsg; do
    printf '%s\\n' "Cannot boot: $1; restarting in 10 s" 2>/dev/null >>"$to" || :
  done
  echo "Cannot boot: $1" >&2
  sleep "\${BISQUE_DELAY:-10}"
  exit 1
}

if [ "$mode" = profile ]; then
  case " $(cat "$cmdline") " in *" ipe.enforce=1 "*) ;; *) exit 0 ;; esac
fi
[ -d "$ipe" ] || stop "this kernel has no IPE, or it was left out of lsm="
[ -d "$ipe/policies/$name" ] || stop "the IPE policy $name is not loaded"
[ "$(cat "$ipe/policies/$name/active")" = 1 ] || stop "the IPE policy $name is not the active one"
[ "$(cat "$ipe/policies/$name/policy")" = "$(cat "$expected")" ] || stop "the IPE policy $name is not the one of this image"
[ "$(cat "$ipe/enforce")" = 1 ] || stop "IPE does not enforce its policy; ipe.enforce= on the kernel command line must be 1"
exit 0
`
