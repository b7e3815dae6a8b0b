/**
 * What a root needs around the packages that are installed into it, as mkosi gives it to Debian's. Source: mkosi(1).
 */
import { lstatSync } from 'node:fs'
import { mkdir, readFile, rm, symlink } from 'node:fs/promises'
import { Fault } from '../base/fault.ts'
import { findGlob } from '../image/system/globs.ts'
import { type Installed, runInImage, writeInside } from '../image/system/programs.ts'
import type { ImageRecipe } from '../recipe/recipe.ts'
import { resolveInside } from '../run/inside.ts'

const EXTENSIONS = ['sysext', 'confext', 'addon']

/** Whether an image only adds to another system. */
export const isExtension = ({ settings }: Pick<ImageRecipe, 'settings'>): boolean =>
  settings.overlay || EXTENSIONS.includes(settings.format)

/** The place of a path of the root on disk; its last part is not followed. */
export const at = (root: string, path: string): string => `${root}/${resolveInside(root, `/${path}`)}`
export const exists = (root: string, path: string): boolean => lstatSync(at(root, path), { throwIfNoEntry: false }) !== undefined

/** Before packages: a machine id that is still to be made, so that none makes one; folders of all of amd64's ABIs. */
export async function prepareRoot(image: ImageRecipe, root: string): Promise<void> {
  for (const name of ['lib32', 'libx32']) {
    if (exists(root, name)) continue
    await mkdir(at(root, `usr/${name}`), { recursive: true, mode: 0o755 })
    await symlink(`usr/${name}`, at(root, name))
  }
  await writeMachineId(image, root)
}

/** After packages: the machine id again, mount points for the boot partitions, and a word for kernel-install. */
export async function settleRoot(image: ImageRecipe, installed: Installed): Promise<void> {
  const { root } = installed
  await writeMachineId(image, root)
  for (const folder of ['efi', 'boot']) await mkdir(at(root, folder), { recursive: true, mode: 0o500 })
  await mkdir(at(root, 'boot/loader'), { recursive: true, mode: 0o700 })
  if (!exists(root, 'boot/loader/entries.srel')) await writeInside(root, 'boot/loader/entries.srel', 'type1\n', 0o600)
  const { packages, volatilePackages, release, repositories } = image.settings
  const list = `etc/apt/sources.list.d/${release}.sources`
  if ([...packages, ...volatilePackages].includes('apt') && !exists(root, list))
    await writeInside(root, list, debianSources(release, ['main', ...repositories]))
  if (release === 'unstable' || release === 'sid') await nameSid(installed)
}

/** An image is a system: packages, trees or prepare scripts must have made one by now. */
export function checkPopulated({ name, settings }: ImageRecipe, root: string): void {
  if (settings.format === 'none' || isExtension({ settings }) || exists(root, 'usr/lib/os-release')) return
  throw new Fault('recipe', `Cannot finish ${name}: it has no /usr/lib/os-release, so no system was put into it`, {
    hint: 'name packages, base trees or skeleton trees that bring one',
  })
}

/** What belongs to one machine, and packages may have made while they were configured. */
export async function removeMachineState(root: string): Promise<void> {
  for (const path of MACHINE_STATE) await rm(at(root, path), { force: true })
  // Keys that everyone has who has the image are none. Where a unit makes them at boot, they are left to it.
  if (!exists(root, 'usr/lib/systemd/system/sshd-keygen.service')) return
  for (const path of findGlob(root, 'etc/ssh/ssh_host_*_key*')) await rm(`${root}/${path}`)
}

const MACHINE_STATE = [
  'var/lib/systemd/random-seed',
  'var/lib/systemd/credential.secret',
  'etc/machine-info',
  'var/lib/dbus/machine-id',
  'etc/nvme/hostid',
  'etc/nvme/hostnqn',
]

const writeMachineId = ({ settings }: ImageRecipe, root: string): Promise<void> =>
  writeInside(root, 'etc/machine-id', `${settings.machineId?.replaceAll('-', '') ?? 'uninitialized'}\n`, 0o444)

/** Debian's own archives, from which a running system takes packages. */
function debianSources(release: string, components: readonly string[]): string {
  const archive = (folder: string, suite: string) => `Types: deb deb-src
URIs: http://deb.debian.org/${folder}
Suites: ${suite}
Components: ${components.join(' ')}
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg


`
  const stable = release !== 'unstable' && release !== 'sid'
  return [
    archive('debian', release),
    archive('debian-debug', `${release}-debug`),
    ...(stable ? [archive('debian', `${release}-updates`), archive('debian-security', `${release}-security`)] : []),
  ].join('')
}

/** Debian's unstable release calls itself by the name of the next stable one. */
async function nameSid(installed: Installed): Promise<void> {
  const { root } = installed
  for (const path of ['etc/os-release', 'usr/lib/os-release', 'usr/lib/initrd-release']) {
    const isLink = lstatSync(at(root, path), { throwIfNoEntry: false })?.isSymbolicLink()
    if (!exists(root, path) || (isLink && path !== 'etc/os-release')) continue
    const text = await readFile(`${root}/${resolveInside(root, path, { followLast: true })}`, 'utf8')
    if (path === 'etc/os-release') {
      const diversion = ['--quiet', '--local', '--add', '--rename', '--divert', `/${path}.dpkg`, `/${path}`]
      await runInImage(installed, ['dpkg-divert', ...diversion])
    }
    await writeInside(root, path, text.replace(/^VERSION_CODENAME=.*$/gm, 'VERSION_CODENAME=sid'))
  }
}
