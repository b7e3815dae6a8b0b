// mkosi of the judges' tools tree: recipes for it, and how it is run. It needs root.
import { copyFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { loadLocks } from '../../src/build/lock.ts'
import { allPackages } from '../../src/packages/lock.ts'
import { openStore } from '../../src/store/store.ts'
import { CACHE } from '../baked.ts'
import { JUDGES } from '../oracle.ts'

/** Why mkosi cannot run here, or false. Where only its tree is missing, REQUIRE_ORACLES=1 makes it run and fail. */
export const noMkosi: string | false =
  process.getuid?.() !== 0
    ? 'mkosi needs root here'
    : existsSync(`${JUDGES}/usr/bin/mkosi`) || process.env['REQUIRE_ORACLES']
      ? false
      : 'mkosi is not there; npm test prepares the tools'

/**
 * The command line that runs `argv` with `tree` as its root: mkosi makes sandboxes of its own, so it gets the tree by chroot,
 * with the kernel's file systems and `binds` (place in the tree → folder) in it. What it writes elsewhere is kept in memory:
 * the tree stays as it is. All mounts and processes are gone with the first process, however that ends.
 */
export function enterTree(
  tree: string,
  binds: Readonly<Record<string, string>>,
  folder: string,
  argv: readonly string[],
): string[] {
  const mounts = Object.entries(binds).map(
    ([place, source]) => `mkdir -p "$root${place}"; mount --bind "${source}" "$root${place}"`,
  )
  const script = ENTER.replace('BINDS', () => mounts.join('\n'))
  const namespaces = ['unshare', '--mount', '--propagation', 'private', '--pid', '--fork', '--kill-child']
  return [...namespaces, 'sh', '-c', script, tree, folder, ...argv]
}

const ENTER = `set -e
folder=$1; shift
cd "$0"
mount -t tmpfs tmpfs tmp
mkdir tmp/written tmp/work tmp/root
root=$0/tmp/root
mount -t overlay -o lowerdir=.,upperdir=tmp/written,workdir=tmp/work overlay "$root"
mount -t proc proc "$root/proc"
for fs in sys dev; do mount --rbind /$fs "$root/$fs"; done
for fs in run tmp; do mount -t tmpfs tmpfs "$root/$fs"; done
BINDS
cp /etc/resolv.conf "$root/etc/resolv.conf" 2>/dev/null || :
cd "$root"; mount --move . /
exec chroot . env -C "$folder" -i PATH=/usr/bin:/usr/sbin HOME=/root LANG=C.UTF-8 "$@"`

/** The command line that runs mkosi in a folder that `writeRecipe` made. */
export function mkosiIn(recipe: string, ...verb: readonly string[]): string[] {
  if (JUDGES === undefined) throw new Error('the tools tree of mkosi is not there; npm test prepares it')
  return enterTree(JUDGES, { '/work': recipe, '/var/tmp': join(recipe, 'tmp') }, '/work', ['mkosi', '--force', ...verb])
}

/** Writes a recipe into a folder, which is also where mkosi works. */
export function writeRecipe(recipe: string, files: Readonly<Record<string, string>>): void {
  mkdirSync(join(recipe, 'tmp'), { recursive: true })
  for (const [file, text] of Object.entries(files)) {
    mkdirSync(dirname(join(recipe, file)), { recursive: true })
    writeFileSync(join(recipe, file), text)
  }
}

/** Puts the packages that Bisque has in its cache already into mkosi's, which downloads the others. */
export async function sharePackages(recipe: string): Promise<void> {
  const archives = join(recipe, 'cache/cache/apt/archives')
  mkdirSync(archives, { recursive: true })
  const store = await openStore(CACHE)
  for (const path of ['examples/minimal/bisque.lock', 'tools/judge.lock', join(CACHE, 'tools/judge.lock')])
    for (const lock of (await loadLocks(path))?.values() ?? [])
      for (const { name, version, architecture, sha256 } of allPackages(lock)) {
        const blob = await store.verified(sha256)
        if (blob) copyFileSync(blob, join(archives, `${name}_${version.replaceAll(':', '%3a')}_${architecture}.deb`))
      }
}

/** The words of a list in the example's recipe. */
const words = (name: string): string =>
  new RegExp(`const ${name} = '([^']*)'`).exec(readFileSync('examples/minimal/recipe.ts', 'utf8'))?.[1] ?? ''

const source = (url: string, suites: string): string =>
  `Types: deb\nURIs: ${url}\nSuites: ${suites}\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n`

/** The packages of examples/minimal as a disk of the same kind, by a recipe of mkosi's. */
export const MINIMAL = {
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
WorkspaceDirectory=tmp
BuildSources=
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
} satisfies Record<string, string>
