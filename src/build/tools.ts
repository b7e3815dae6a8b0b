/**
 * Tools trees: the programs Bisque runs beside its own code (QEMU, firmware, a software TPM; the judges of its tests),
 * from Debian packages that are locked like those of an image, unpacked once into the cache and run in the sandbox.
 *
 * `tools/<name>.lock` comes with Bisque. When the mirror has moved on, the lock is renewed in the cache, visibly.
 */
import { existsSync } from 'node:fs'
import { mkdir, readdir, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { digestOf } from '../base/digest.ts'
import { Fault } from '../base/fault.ts'
import { debianRepositories } from '../packages/deb/debian.ts'
import { unpackPackages } from '../packages/deb/unpack.ts'
import { fetchPackages, isSuperseded } from '../packages/fetch.ts'
import { type Lock, packagesIn, snapshotsOf } from '../packages/lock.ts'
import type { FetchedPackage } from '../packages/package.ts'
import type { Env } from './env.ts'
import { loadLocks, writeLocks } from './lock.ts'
import { resolveLock } from './resolve.ts'

// biome-ignore format: table
const TOOLS = {
  vm: ['ovmf', 'qemu-system-x86', 'swtpm'],
  mkfs: ['btrfs-progs', 'e2fsprogs', 'f2fs-tools', 'libarchive13t64', 'libfaketime', 'squashfs-tools', 'xfsprogs'],
  scripts: [
    'bash', 'bzip2', 'ca-certificates', 'coreutils', 'cpio', 'curl', 'diffutils', 'dosfstools', 'e2fsprogs', 'erofs-utils', 'file', 'findutils',
    'gawk', 'git', 'grep', 'gzip', 'jq', 'kmod', 'libcap2-bin', 'mtools', 'openssl', 'passwd', 'patch', 'python3', 'rsync', 'sed', 'squashfs-tools',
    'systemd', 'systemd-repart', 'tar', 'tzdata', 'udev', 'unzip', 'util-linux', 'xz-utils', 'zip', 'zstd',
  ],
  judge: [
    'apt', 'apt-utils', 'attr', 'binutils', 'btrfs-progs', 'cpio', 'cryptsetup-bin', 'dose-distcheck', 'dosfstools', 'dpkg-dev', 'e2fsprogs',
    'efitools', 'erofs-utils', 'f2fs-tools', 'fdisk', 'gdisk', 'gnupg', 'gpgv', 'initramfs-tools-core', 'jq', 'kmod', 'libarchive-tools',
    'libcap2-bin', 'mkosi', 'mtools', 'opensc', 'openssl', 'osslsigncode', 'ovmf', 'python3-virt-firmware', 'qemu-utils', 'sbsigntool', 'skopeo', 'softhsm2', 'squashfs-tools',
    'systemd', 'systemd-boot', 'systemd-boot-efi', 'systemd-container', 'systemd-repart', 'systemd-ukify', 'tpm2-tools', 'umoci', 'xfsprogs', 'xz-utils',
    'zstd',
  ],
} as const

export type ToolsName = keyof typeof TOOLS

const RELEASE = 'trixie'

/**
 * Folder of the tools tree, made when it is not there. It is complete, or absent: it appears by rename. With packages of a
 * recipe's own it is another tree, in which those win over the tree's of the same name.
 */
export async function toolsTree(name: ToolsName, env: Env, extra: readonly FetchedPackage[] = []): Promise<string> {
  const lock = (await lockInForce(name, env.cache)) ?? (await renew(name, env))
  const tree = treePath(env.cache, lock, extra)
  if (existsSync(tree)) return tree
  return env.report.step(`Prepare ${name} tools`, async (report) => {
    const packages = await fetchTools(name, lock, { ...env, report })
    const made = treePath(env.cache, packages.lock, extra)
    if (existsSync(made)) return made
    const fresh = `${made}.${process.pid}.tmp`
    try {
      await mkdir(fresh, { recursive: true })
      await report.step('Unpack tools', (report) => unpackPackages(fresh, joined(packages.files, extra), report))
      await settle(fresh)
      await rename(fresh, made).catch((error: NodeJS.ErrnoException) => {
        if (error.code !== 'ENOTEMPTY' && error.code !== 'EEXIST') throw error
      })
    } finally {
      await rm(fresh, { recursive: true, force: true })
    }
    return made
  })
}

/** The tools tree if it has been prepared already; never makes it. */
export async function existingToolsTree(name: ToolsName, cache: string): Promise<string | undefined> {
  const lock = await lockInForce(name, cache)
  const tree = lock && treePath(cache, lock)
  return tree !== undefined && existsSync(tree) ? tree : undefined
}

/** Writes the lock that comes with Bisque anew. */
export async function relockTools(name: ToolsName, env: Env): Promise<Lock> {
  const lock = await resolveTools(name, env)
  await writeLocks(shippedLock(name), new Map([['', lock]]))
  return lock
}

const shippedLock = (name: ToolsName): string => fileURLToPath(new URL(`../../tools/${name}.lock`, import.meta.url))
const renewedLock = (name: ToolsName, cache: string): string => join(cache, 'tools', `${name}.lock`)
const treePath = (cache: string, lock: Lock, extra: readonly FetchedPackage[] = []): string => {
  const own = packagesIn(lock, 'tools')
  return join(cache, 'tools', digestOf(extra.length === 0 ? own : [own, extra.map(({ sha256 }) => sha256)]).slice(0, 16))
}

function joined(own: readonly FetchedPackage[], extra: readonly FetchedPackage[]): readonly FetchedPackage[] {
  const names = new Set(extra.map(({ name }) => name))
  return [...own.filter(({ name }) => !names.has(name)), ...extra]
}
const requestOf = (name: ToolsName): string => digestOf({ release: RELEASE, packages: TOOLS[name] })

/** The lock in force: one that was renewed here because the shipped one is gone from the mirror, else the shipped one. */
async function lockInForce(name: ToolsName, cache: string): Promise<Lock | undefined> {
  for (const path of [renewedLock(name, cache), shippedLock(name)]) {
    const lock = (await readable(path))?.get('')
    if (lock?.groups.get('tools')?.request === requestOf(name)) return lock
  }
  return undefined
}

/** A lock in the cache may be from another version of Bisque: then it is as good as none. */
const readable = (path: string) =>
  loadLocks(path).catch((error) => {
    if (error instanceof Fault && error.code === 'format') return undefined
    throw error
  })

async function fetchTools(name: ToolsName, lock: Lock, env: Env): Promise<{ lock: Lock; files: FetchedPackage[] }> {
  try {
    return { lock, files: await fetchLocked(lock, env) }
  } catch (error) {
    if (!isSuperseded(error)) throw error
    env.report.tell({
      type: 'note',
      level: 'warning',
      message: `the mirror no longer has the locked ${name} tools; locking today's versions`,
    })
    const renewed = await renew(name, env)
    return { lock: renewed, files: await fetchLocked(renewed, env) }
  }
}

const fetchLocked = (lock: Lock, env: Env): Promise<FetchedPackage[]> =>
  env.report.step('Fetch tools', (report) =>
    fetchPackages(
      packagesIn(lock, 'tools'),
      repositories(),
      { store: env.store, offline: env.offline, snapshots: snapshotsOf(lock), ...(env.network ? { network: env.network } : {}) },
      report,
    ),
  )

async function renew(name: ToolsName, env: Env): Promise<Lock> {
  const lock = await resolveTools(name, env)
  await mkdir(join(env.cache, 'tools'), { recursive: true })
  await writeLocks(renewedLock(name, env.cache), new Map([['', lock]]))
  return lock
}

const resolveTools = (name: ToolsName, env: Env): Promise<Lock> =>
  env.report.step(`Lock ${name} tools`, (report) =>
    resolveLock(
      {
        requests: new Map([['tools', requestOf(name)]]),
        repositories: repositories(),
        architecture: 'amd64',
        groups: new Map([['tools', { packages: TOOLS[name], exclude: [], recommends: false, withBase: true }]]),
      },
      { ...env, report },
    ),
  )

const repositories = () => debianRepositories({ release: RELEASE, architecture: 'amd64' })

/** What packages leave to their scripts and tools cannot do without: names for the numbers 0 and 65534, resolvers off. */
async function settle(tree: string): Promise<void> {
  const etc = join(tree, 'etc')
  await mkdir(etc, { recursive: true })
  await writeFile(
    join(etc, 'passwd'),
    'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n',
  )
  await writeFile(join(etc, 'group'), 'root:x:0:\ntty:x:5:\ndisk:x:6:\nnogroup:x:65534:\n')
  await writeFile(join(etc, 'nsswitch.conf'), 'passwd: files\ngroup: files\nhosts: files dns\n')
  for (const folder of ['root', 'tmp', 'run', 'proc', 'dev', 'sys', 'var/tmp', 'work', 'buildroot', 'chroot'])
    await mkdir(join(tree, folder), { recursive: true })
  for (const name of ['etc/resolv.conf', 'etc/machine-id']) await writeFile(join(tree, name), '', { flag: 'a' })
  if (existsSync(join(tree, 'usr/bin/gawk')) && !existsSync(join(tree, 'usr/bin/awk')))
    await symlink('gawk', join(tree, 'usr/bin/awk'))
  await writeCertificates(tree)
}

/** The file that programs look up authorities in; update-ca-certificates would make it. */
async function writeCertificates(tree: string): Promise<void> {
  const from = join(tree, 'usr/share/ca-certificates/mozilla')
  if (!existsSync(from)) return
  const texts = await Promise.all((await readdir(from)).sort().map((name) => readFile(join(from, name), 'utf8')))
  await mkdir(join(tree, 'etc/ssl/certs'), { recursive: true })
  await writeFile(join(tree, 'etc/ssl/certs/ca-certificates.crt'), texts.map((text) => `${text.trimEnd()}\n`).join(''))
}
