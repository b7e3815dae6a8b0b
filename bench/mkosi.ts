// mkosi as the peer, in a tree of its own on the same disk. Needs root.
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { JUDGES } from '../test/oracle.ts'
import { type Usage, watch } from './processes.ts'

/** mkosi of the tools tree, for the packages of examples/minimal: prepares recipe and cache below `dir`; the result runs one build. */
export async function mkosiPeer(dir: string): Promise<(() => Promise<Usage>) | undefined> {
  if (process.getuid?.() !== 0 || JUDGES === undefined || !existsSync(`${JUDGES}/usr/bin/mkosi`)) return undefined
  const recipe = join(dir, 'mkosi')
  for (const [file, text] of Object.entries(FILES)) {
    mkdirSync(dirname(join(recipe, file)), { recursive: true })
    writeFileSync(join(recipe, file), text)
  }
  const build = (verb: string) => watch(enterTree(JUDGES!, { '/work': recipe }, '/work', ['mkosi', '--force', verb]))
  await build('genkey')
  await build('build') // fills its package cache
  return () => build('build')
}

/**
 * The command line that runs `argv` with `tree` as its root: mkosi makes sandboxes of its own, so it gets the tree by chroot,
 * with the kernel's file systems and `binds` (place in the tree → folder) in it.
 */
export function enterTree(
  tree: string,
  binds: Readonly<Record<string, string>>,
  folder: string,
  argv: readonly string[],
): string[] {
  const mounts = Object.entries(binds).map(([place, source]) => `mkdir -p "$0${place}"; mount --bind "${source}" "$0${place}"`)
  const script = ENTER.replace('BINDS', () => mounts.join('\n'))
  return ['unshare', '--mount', '--propagation', 'private', 'sh', '-c', script, tree, folder, ...argv]
}

const ENTER = `set -e
folder=$1; shift
mount --bind "$0" "$0"
for fs in proc sys dev; do mount --rbind /$fs "$0/$fs"; done
mount -t tmpfs tmpfs "$0/run"; mount -t tmpfs tmpfs "$0/tmp"
mkdir -p "$0/var/tmp"
BINDS
cp /etc/resolv.conf "$0/etc/resolv.conf" 2>/dev/null || :
cd "$0"; mount --move . /
exec chroot . env -C "$folder" -i PATH=/usr/bin:/usr/sbin HOME=/root LANG=C.UTF-8 "$@"`

/** Makes a tree that has what mkosi from a checkout needs to bake Debian; `bisque` runs a verb over a recipe. */
export async function makePeerTree(recipe: string, bisque: (verb: string, recipe: string) => Promise<unknown>): Promise<string> {
  mkdirSync(recipe, { recursive: true })
  writeFileSync(join(recipe, 'mkosi.conf'), PEER_TREE)
  await bisque('lock', recipe)
  await bisque('build', recipe)
  return join(recipe, 'mkosi.output/root')
}

// biome-ignore format: one list
const PEER_PACKAGES = [
  'apt', 'apt-utils', 'bash', 'btrfs-progs', 'bzip2', 'ca-certificates', 'coreutils', 'cpio', 'cryptsetup-bin', 'curl',
  'debian-archive-keyring', 'dbus', 'dosfstools', 'dpkg', 'e2fsprogs', 'erofs-utils', 'fdisk', 'findutils', 'git', 'gnupg',
  'grep', 'jq', 'kmod', 'mount', 'mtools', 'openssl', 'passwd', 'python3', 'python3-cryptography', 'python3-pefile',
  'sbsigntool', 'sed', 'squashfs-tools', 'systemd', 'systemd-boot', 'systemd-boot-efi', 'systemd-boot-tools',
  'systemd-container', 'systemd-repart', 'systemd-ukify', 'systemd-sysv', 'systemd-tpm', 'tar', 'udev', 'uidmap',
  'util-linux', 'xfsprogs', 'xz-utils', 'zstd',
]

const PEER_TREE = `[Distribution]
Distribution=debian
Release=sid

[Output]
Format=directory
Output=root
OutputDirectory=mkosi.output

[Content]
Bootable=no
WithDocs=no
CleanPackageMetadata=no
Packages=${PEER_PACKAGES.join(',')}
`

/** The words of a list in the example's recipe. */
const words = (name: string): string =>
  new RegExp(`const ${name} = '([^']*)'`).exec(readFileSync('examples/minimal/recipe.ts', 'utf8'))?.[1] ?? ''

const source = (url: string, suites: string): string =>
  `Types: deb\nURIs: ${url}\nSuites: ${suites}\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n`

const FILES: Readonly<Record<string, string>> = {
  'mkosi.conf': `[Distribution]
Distribution=debian
Release=trixie

[Output]
Format=disk
ImageId=Minimal
ImageVersion=1
OutputDirectory=out
SplitArtifacts=uki,partitions

[Content]
Bootable=yes
Packages=${[words('boot'), words('tpm'), words('system')].join(' ').replaceAll(' ', ',')}
KernelCommandLine=console=ttyS0 root=tmpfs

[Validation]
SecureBoot=yes

[Build]
PackageCacheDirectory=cache
`,
  // Its own list names the archive of debug symbols, too, which not every mirror has.
  'mkosi.sandbox/etc/apt/sources.list.d/mkosi.sources': [
    source('http://deb.debian.org/debian', 'trixie trixie-updates'),
    source('http://security.debian.org/debian-security', 'trixie-security'),
  ].join('\n'),
  'mkosi.repart/00-esp.conf':
    '[Partition]\nType=esp\nFormat=vfat\nCopyFiles=/efi:/\nCopyFiles=/boot:/\nSizeMinBytes=512M\nSizeMaxBytes=512M\n',
  'mkosi.repart/10-usr-verity-sig.conf': '[Partition]\nType=usr-verity-sig\nVerity=signature\nVerityMatchKey=usr\n',
  'mkosi.repart/11-usr-verity.conf': '[Partition]\nType=usr-verity\nVerity=hash\nVerityMatchKey=usr\nMinimize=best\n',
  'mkosi.repart/12-usr.conf':
    '[Partition]\nType=usr\nFormat=erofs\nCompression=zstd\nCopyFiles=/usr:/\nVerity=data\nVerityMatchKey=usr\nMinimize=best\n',
}
