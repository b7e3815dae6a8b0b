// mkosi as the peer, in a tree of its own on the same disk. Needs root.
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { MINIMAL, mkosiIn, noMkosi, writeRecipe } from '../test/peer/mkosi.ts'
import { type Usage, watch } from './processes.ts'

/** mkosi of the tools tree, for the packages of examples/minimal: prepares recipe and cache below `dir`; the result runs one build. */
export async function mkosiPeer(dir: string): Promise<(() => Promise<Usage>) | undefined> {
  if (noMkosi) return undefined
  const recipe = join(dir, 'mkosi')
  writeRecipe(recipe, MINIMAL)
  const build = (verb: string) => watch(mkosiIn(recipe, verb))
  await build('genkey')
  await build('build') // fills its package cache
  return () => build('build')
}

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
