/**
 * The `/usr` of an image: everything an immutable system ships, as a pure function of the installed tree.
 *
 * What packages put into /etc moves to a factory copy; accounts become sysusers.d; what the installation left
 * behind in /var, caches and clocks is dropped, so that equal inputs give equal trees.
 */
import { declaredAccounts, formatSysusers, parseGroup, parsePasswd, pinAccounts } from '../tree/accounts.ts'
import { madeDirectory, madeFile, madeSymlink, readText } from '../tree/content.ts'
import { type Inode, type Tree, treeOf } from '../tree/tree.ts'
import { handledPaths, makeFactory } from './factory.ts'

export interface UsrOptions {
  /** Seconds since 1970; nothing in the image is newer. */
  epoch: number
  /** Image identity and preset answers for first boot; each absent one is left as it is. */
  imageId?: string | undefined
  imageVersion?: string | undefined
  hostname?: string | undefined
  locale?: string | undefined
  keymap?: string | undefined
  timezone?: string | undefined
  /** crypt(3) hash; without one, root is locked. */
  rootPasswordHash?: string | undefined
  rootShell?: string | undefined
  /** Keep the package database readable on the device, at /usr/lib/sysimage. */
  packageDatabase: boolean
  /** Keep systemd-pcrlock from making policies at every boot. */
  withoutPcrlock: boolean
}

/** Tree of the whole system → tree whose only top-level directory is `usr`. */
export async function usrLayout(root: Tree, options: UsrOptions): Promise<Tree> {
  const files = new Map<string, Inode>()
  for (const [path, inode] of root) if (path === 'usr' || path.startsWith('usr/')) files.set(path, inode)

  const texts = await snippets(root, 'usr/lib/sysusers.d/')
  const users = parsePasswd((await readText(root, 'etc/passwd')) ?? '')
  const groups = parseGroup((await readText(root, 'etc/group')) ?? '')
  const declared = new Set<string>()
  for (const [path, text] of texts) {
    for (const name of declaredAccounts(text)) declared.add(name)
    const pinned = pinAccounts(text, users, groups)
    if (pinned !== text) files.set(path, madeFile(pinned, root.get(path)!.mtime))
  }
  const sysusers = formatSysusers(users, groups, declared)
  if (sysusers !== '') files.set('usr/lib/sysusers.d/bisque.conf', madeFile(sysusers, options.epoch))

  const configured = new Map(root)
  for (const [path, inode] of Object.entries(firstBootFiles(options))) configured.set(path, inode)
  const handled = new Set<string>()
  for (const [, text] of await snippets(root, 'usr/lib/tmpfiles.d/')) for (const path of handledPaths(text)) handled.add(path)
  const factory = makeFactory(new Map([...configured].sort(([a], [b]) => (a < b ? -1 : 1))), handled, options.epoch)
  for (const [path, inode] of factory.files) files.set(path, inode)
  let tmpfiles = factory.tmpfiles

  if (options.packageDatabase && root.has('var/lib/dpkg')) {
    for (const [path, inode] of root) {
      if (/^var\/lib\/dpkg(?:\/|$)/.test(path) && !STALE_DATABASE.test(path))
        files.set(path.replace('var/lib', 'usr/lib/sysimage'), inode)
    }
    tmpfiles += 'd /var/lib 0755 0 0\nL /var/lib/dpkg - - - - /usr/lib/sysimage/dpkg\n'
  }
  files.set('usr/lib/tmpfiles.d/bisque-etc.conf', madeFile(tmpfiles, options.epoch))
  for (const [path, inode] of Object.entries(credentials(options))) files.set(path, inode)
  if (options.withoutPcrlock)
    files.set('usr/lib/systemd/system-preset/80-bisque-pcrlock.preset', madeFile(PCRLOCK_PRESET, options.epoch))

  const release = await readText(root, 'usr/lib/os-release')
  if (release !== undefined) files.set('usr/lib/os-release', madeFile(imageRelease(release, options), options.epoch))
  return clampTimes(treeOf(files, madeDirectory(options.epoch)), options.epoch)
}

/**
 * Each run of pcrlock takes a piece of the TPM's small memory, which only the policy file of an earlier boot would give
 * back: a root in memory has none. And it puts a credential onto the ESP, which is measured: a root that is sealed to what
 * was measured would stay locked.
 */
const PCRLOCK_PRESET = `# Secrets are sealed to signed policies, not to what one boot measured. From Bisque.
disable systemd-pcrlock-*.service
disable systemd-pcrlock-*.socket
`

const STALE_DATABASE = /(?:-old|\/lock|\/lock-frontend|\/updates|\/parts|\/triggers\/Lock)$/

async function snippets(tree: Tree, folder: string): Promise<[string, string][]> {
  const paths = [...tree.keys()].filter((path) => path.startsWith(folder) && path.endsWith('.conf'))
  const texts = await Promise.all(paths.map((path) => readText(tree, path)))
  return paths.flatMap((path, i) => (texts[i] === undefined ? [] : [[path, texts[i]] as [string, string]]))
}

/** Files of /etc that settle what systemd-firstboot would otherwise ask on the console. */
function firstBootFiles(options: UsrOptions): Record<string, Inode> {
  const { epoch } = options
  return {
    'etc/locale.conf': madeFile(`LANG=${options.locale ?? 'C.UTF-8'}\n`, epoch),
    'etc/localtime': madeSymlink(`../usr/share/zoneinfo/${options.timezone ?? 'UTC'}`, epoch),
    ...(options.keymap === undefined ? {} : { 'etc/vconsole.conf': madeFile(`KEYMAP=${options.keymap}\n`, epoch) }),
    ...(options.hostname === undefined ? {} : { 'etc/hostname': madeFile(`${options.hostname}\n`, epoch) }),
  }
}

/** Credentials that systemd-sysusers reads when it makes the root account. `!*` locks it: no password will do. */
function credentials(options: UsrOptions): Record<string, Inode> {
  const { epoch } = options
  return {
    'usr/lib/credstore': madeDirectory(epoch, 0o700),
    'usr/lib/credstore/passwd.hashed-password.root': madeFile(options.rootPasswordHash ?? '!*', epoch, 0o600),
    ...(options.rootShell === undefined ? {} : { 'usr/lib/credstore/passwd.shell.root': madeFile(options.rootShell, epoch) }),
  }
}

/** os-release with IMAGE_ID, IMAGE_VERSION and DEFAULT_HOSTNAME set, each in place or appended. */
export function imageRelease(text: string, options: Pick<UsrOptions, 'imageId' | 'imageVersion' | 'hostname'>): string {
  let result = text.endsWith('\n') ? text : `${text}\n`
  const set = { IMAGE_ID: options.imageId, IMAGE_VERSION: options.imageVersion, DEFAULT_HOSTNAME: options.hostname }
  for (const [key, value] of Object.entries(set)) {
    if (value === undefined) continue
    const line = `${key}="${value}"`
    const present = new RegExp(`^${key}=.*$`, 'm')
    result = present.test(result) ? result.replace(present, () => line) : `${result}${line}\n`
  }
  return result
}

/** The same tree with no modification time after `epoch`. Hard links stay hard links. */
export function clampTimes(tree: Tree, epoch: number): Tree {
  const clamped = new Map<Inode, Inode>()
  const result = new Map<string, Inode>()
  for (const [path, inode] of tree) {
    let same = clamped.get(inode)
    if (same === undefined) {
      same = inode.mtime > epoch ? { ...inode, mtime: epoch } : inode
      clamped.set(inode, same)
    }
    result.set(path, same)
  }
  return result
}
