/** What makes an installed tree a base initrd: without what only a full system needs, with what systemd looks for there. */
import { Fault } from '../base/fault.ts'
import { madeDirectory, madeFile, madeSymlink } from '../tree/content.ts'
import { byPath, type Inode, type Tree, treeOf } from '../tree/tree.ts'

/** Removed with everything below. `*` stands for a whole name. */
const REMOVED: readonly string[] = [
  // compiled into binary databases, which stay
  'usr/lib/systemd/catalog',
  'etc/udev/hwdb.d',
  'usr/lib/udev/hwdb.d',
  // kernel, modules and firmware come from initrds of their own
  'boot/*',
  'usr/lib/modules/*',
  'usr/lib/firmware/*',
  'vmlinuz',
  'vmlinuz.old',
  'initrd.img',
  'initrd.img.old',
  // for people and package managers
  'etc/services',
  'etc/apt',
  'etc/dpkg',
  'etc/fstab',
  'etc/crypttab',
  'etc/machine-id',
  'usr/lib/dpkg',
  'usr/lib/apt',
  'usr/share/bug',
  'usr/share/doc',
  'usr/share/doc-base',
  'usr/share/info',
  'usr/share/lintian',
  'usr/share/locale',
  'usr/share/man',
  'usr/share/menu',
  'usr/share/bash-completion',
  'usr/share/zsh',
  'usr/share/fish',
  'usr/include',
  'usr/games',
  'usr/local/*',
  'usr/src/*',
  // enabled for a full system: an initrd starts what its own targets want
  'etc/systemd/system/*.wants',
  'etc/systemd/system/*.requires',
  'etc/rc*.d',
  'etc/init.d',
  'etc/cron.*',
  // filled while the system runs
  'dev/*',
  'home/*',
  'media/*',
  'mnt/*',
  'proc/*',
  'run/*',
  'srv/*',
  'sys/*',
  'tmp/*',
  'var/*',
]

const MOUNT_POINTS: Readonly<Record<string, number>> = {
  dev: 0o755,
  proc: 0o555,
  sys: 0o555,
  run: 0o755,
  tmp: 0o1777,
  var: 0o755,
  sysroot: 0o755,
  root: 0o700,
}

const PRESET = `# Nothing is started in the initrd but what its own targets want.
disable *
`

/** Credentials that unlock disks reach the service which asks for them. */
const CRYPTSETUP_CREDENTIALS = `[Service]
ImportCredential=cryptsetup.*
`

/** What udev knows of device mapper devices survives the switch to the root file system. */
const DM_RULES = `SUBSYSTEM=="block", KERNEL=="dm-[0-9]*", ACTION=="add|change", OPTIONS+="db_persist"
`

/** Turns an installed system into a base initrd. `extra` goes over it, such as drop-in units. */
export function initrdTree(system: Tree, options: { epoch: number; extra?: Tree }): Tree {
  const { epoch } = options
  if (!system.has('usr/lib/os-release')) {
    throw new Fault('missing', 'Cannot make an initrd: the tree has no /usr/lib/os-release', {
      hint: 'Add the package that names the distribution, such as base-files, to the initrd',
    })
  }
  const removed = REMOVED.map(pathExpression)
  const kept = [...system].filter(([path]) => !removed.some((expression) => expression.test(path)))
  const files = new Map<string, Inode>(kept)
  for (const [path, mode] of Object.entries(MOUNT_POINTS)) files.set(path, { ...madeDirectory(epoch), mode })
  const made: [string, Inode][] = [
    ['init', madeSymlink('usr/lib/systemd/systemd', epoch)],
    ['etc/initrd-release', madeSymlink('../usr/lib/os-release', epoch)],
    ['usr/lib/systemd/system-preset/99-initrd.preset', madeFile(PRESET, epoch)],
    ['usr/lib/systemd/system/systemd-cryptsetup@.service.d/credential.conf', madeFile(CRYPTSETUP_CREDENTIALS, epoch)],
    ['usr/lib/udev/rules.d/10-initrd-dm.rules', madeFile(DM_RULES, epoch)],
    ...(options.extra ?? []),
  ]
  for (const [path, inode] of made) {
    const keep = inode.type === 'directory' && files.get(path)?.type === 'directory'
    if (!keep) files.set(path, inode)
  }
  const whole = treeOf(files, madeDirectory(epoch))
  return new Map([...whole].sort(([a], [b]) => byPath(a, b)))
}

/**
 * What makes a finished tree an initrd, where it has not got it yet: the kernel starts `/init`, and by `/etc/initrd-release`
 * systemd knows where it is. Nothing else is added to what recipe and scripts made of the tree, but for `overlay`.
 */
export function asInitrd(tree: Tree, options: { epoch: number; overlay?: Tree }): Tree {
  const { epoch, overlay } = options
  const files = new Map<string, Inode>(tree)
  const made: [string, string][] = [
    ...(files.has('usr/lib/systemd/systemd') ? [['init', 'usr/lib/systemd/systemd'] satisfies [string, string]] : []),
    ['etc/initrd-release', '../usr/lib/os-release'],
  ]
  for (const [path, target] of made) if (!files.has(path)) files.set(path, madeSymlink(target, epoch))
  for (const [path, inode] of overlay ?? []) {
    const keep = inode.type === 'directory' && files.get(path)?.type === 'directory'
    if (!keep) files.set(path, inode)
  }
  return treeOf(files, madeDirectory(epoch))
}

const pathExpression = (pattern: string): RegExp =>
  new RegExp(`^${pattern.replace(/[.+]/g, '\\$&').replaceAll('*', '[^/]*')}(?:/|$)`)
