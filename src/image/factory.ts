/**
 * /etc of an immutable image: kept as a factory copy below /usr, put in place on first boot by systemd-tmpfiles.
 *
 * Directories become real, writable ones; files become symlinks into /usr/share/factory/etc, so that an update of
 * /usr reaches them and an administrator may still replace any of them. Accounts go through sysusers.d, enabled
 * units through presets, the machine-id through PID 1; none of these is carried over.
 *
 * Source: tmpfiles.d(5); the model is ParticleOS' `mkosi.extra/usr/lib/tmpfiles.d/etc.conf`.
 */
import { madeSymlink } from '../tree/content.ts'
import { type Inode, nameOf, type Tree } from '../tree/tree.ts'

/** What belongs to one machine, or to the build: never in an image. Paths below /etc. */
const MACHINE_FILES =
  /^(?:machine-id|hostid|nvme\/host(?:id|nqn)|adjtime|mtab|resolv\.conf|\.pwd\.lock|\.updated|ld\.so\.cache|ssh\/ssh_host_.*|(?:passwd|group|shadow|gshadow|subuid|subgid)-?)$/

/** Made anew by `preset-all` on first boot: `multi-user.target.wants/x.service`, `dbus.service` aliases. */
const ENABLEMENT = /^systemd\/(?:system|user)(?:\/|$)/

export interface Factory {
  /** The tree below `usr/share/factory/etc`, with paths from the root. */
  files: Map<string, Inode>
  /** tmpfiles.d text that puts it in place. */
  tmpfiles: string
}

/** Splits /etc of `tree` into its factory copy. Paths that `handled` names are left to other tmpfiles.d files. */
export function makeFactory(tree: Tree, handled: ReadonlySet<string>, mtime: number): Factory {
  const files = new Map<string, Inode>()
  const lines = ['# Puts /etc in place from its factory copy. Made by Bisque.']
  for (const [path, inode] of tree) {
    if (path !== 'etc' && !path.startsWith('etc/')) continue
    const below = path.slice('etc/'.length)
    if (MACHINE_FILES.test(below) || isEnablement(below, inode)) continue
    files.set(`usr/share/factory/${path}`, inode)
    if (path === 'etc' || handled.has(`/${path}`)) continue
    const line = tmpfilesLine(`/${path}`, inode)
    if (line !== undefined) lines.push(line)
  }
  // Relative links such as ../usr/lib/os-release resolve from within the factory copy, too.
  files.set('usr/share/factory/usr', madeSymlink('../../../usr', mtime))
  return { files, tmpfiles: `${lines.join('\n')}\n` }
}

const isEnablement = (below: string, inode: Inode): boolean =>
  ENABLEMENT.test(below) && (inode.type === 'symlink' || /\.(?:wants|requires|upholds)$/.test(nameOf(below)))

function tmpfilesLine(path: string, inode: Inode): string | undefined {
  const name = escaped(path)
  if (inode.type === 'directory') return `d ${name} ${inode.mode.toString(8).padStart(4, '0')} ${inode.uid} ${inode.gid}`
  if (inode.type === 'symlink') return `L ${name} - - - - ${escaped(inode.target)}`
  if (inode.type === 'file') return `L ${name}`
  return undefined
}

/** Quotes what tmpfiles.d would read as a separator, an escape or a specifier. */
function escaped(text: string): string {
  const safe = text.replaceAll('%', '%%')
  return /[\s"'\\]/.test(safe) ? `"${safe.replaceAll('\\', '\\\\').replaceAll('"', '\\"')}"` : safe
}

/** The paths a tmpfiles.d file already takes care of. */
export function handledPaths(tmpfiles: string): string[] {
  return [...tmpfiles.matchAll(/^[a-zA-Z][-+!=~^$?]*[ \t]+(\/\S+)/gm)].map((m) => m[1]!)
}
