/**
 * What the booted system gets beside a policy: the capability to change policies is gone, what can be written to is mounted
 * without execution, and a boot in which the policy of the booted system did not come into force stops.
 */
import { madeDirectory, madeFile, madeSymlink } from '../../tree/content.ts'
import { type Inode, type Tree, treeOf } from '../../tree/tree.ts'
import { WITHOUT_MAC_ADMIN } from './initrd.ts'
import { ipeGuard } from './scripts.ts'

export interface IpeSystem {
  mode: 'enforce' | 'profile'
  /** The policy of the booted system. */
  booted: { name: string; text: string }
  epoch: number
}

export function ipeSystem({ mode, booted, epoch }: IpeSystem): Tree {
  const units = 'usr/lib/systemd/system'
  const files: [string, Inode][] = [
    ['usr/lib/systemd/system.conf.d/50-bisque-ipe.conf', madeFile(WITHOUT_MAC_ADMIN, epoch)],
    ['usr/lib/bisque/ipe-policy', madeFile(booted.text, epoch)],
    ['usr/lib/bisque/ipe-guard', madeFile(ipeGuard({ name: booted.name, mode }), epoch, 0o755)],
    [`${units}/bisque-ipe.service`, madeFile(GUARD, epoch)],
    [`${units}/sysinit.target.requires/bisque-ipe.service`, madeSymlink('../bisque-ipe.service', epoch)],
  ]
  if (mode === 'enforce') {
    files.push(
      [`${units}/bisque-noexec.service`, madeFile(NOEXEC, epoch)],
      [`${units}/sysinit.target.wants/bisque-noexec.service`, madeSymlink('../bisque-noexec.service', epoch)],
    )
  }
  return treeOf(files, madeDirectory(epoch))
}

/** Options of a root beside a /usr of its own: all that is executed lies in /usr, which would else be given the root's. */
export const ROOT_FLAGS = ['rootflags=noexec,nosuid,nodev', 'mount.usrflags=ro,nodev'] as const

const GUARD = `[Unit]
Description=IPE Policy of This Image
DefaultDependencies=no
Conflicts=shutdown.target
Before=sysinit.target shutdown.target
FailureAction=reboot-force

[Service]
Type=oneshot
RemainAfterExit=yes
Environment=BISQUE_ATTEMPTS=150
ExecStart=/usr/lib/bisque/ipe-guard
`

/** Not /tmp: what is refused by noexec, IPE is not asked about, and so the audit log would not tell of it. */
const NOEXEC = `[Unit]
Description=Mounts Without Execution
DefaultDependencies=no
Conflicts=shutdown.target
Before=sysinit.target shutdown.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=mount --options remount,noexec,nosuid,nodev /dev/shm
ExecStart=mount --options remount,noexec,nosuid,nodev /run
`
