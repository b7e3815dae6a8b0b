// mkosi as the peer: the packages of examples/minimal, from the tools tree, on the same disk. Needs root.
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { JUDGES } from '../test/oracle.ts'
import { type Usage, watch } from './processes.ts'

/** Prepares mkosi's recipe and cache below `dir`; the result runs one full build. */
export async function mkosiPeer(dir: string): Promise<(() => Promise<Usage>) | undefined> {
  if (process.getuid?.() !== 0 || JUDGES === undefined || !existsSync(`${JUDGES}/usr/bin/mkosi`)) return undefined
  const recipe = join(dir, 'mkosi')
  for (const [file, text] of Object.entries(FILES)) {
    mkdirSync(dirname(join(recipe, file)), { recursive: true })
    writeFileSync(join(recipe, file), text)
  }
  const build = (verb: string) =>
    watch(['unshare', '--mount', '--propagation', 'private', 'sh', '-c', ENTER, JUDGES!, recipe, verb])
  await build('genkey')
  await build('build') // fills its package cache
  return () => build('build')
}

/** mkosi makes sandboxes of its own, so it gets the tools tree by chroot, with the kernel's file systems bound. */
const ENTER = `set -e
root=$0; recipe=$1
mount --bind "$root" "$root"
for fs in proc sys dev; do mount --rbind /$fs "$root/$fs"; done
mount -t tmpfs tmpfs "$root/run"; mount -t tmpfs tmpfs "$root/tmp"
mkdir -p "$root/work"; mount --bind "$recipe" "$root/work"
cp /etc/resolv.conf "$root/etc/resolv.conf" 2>/dev/null || :
cd "$root"; mount --move . /; exec chroot . env -C /work -i PATH=/usr/bin:/usr/sbin HOME=/root LANG=C.UTF-8 mkosi --force "$2"`

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
