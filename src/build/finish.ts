/**
 * Finishing a root that is not a hermetic /usr, as mkosi does after the postinst scripts: what settings ask for, what
 * systemd's programs make of it, what is removed at the end. Source: mkosi(1), "EXECUTION FLOW".
 */
import { existsSync, lstatSync } from 'node:fs'
import { link, mkdir, readFile, rm, symlink, utimes, writeFile } from 'node:fs/promises'
import { basename, dirname, extname, join } from 'node:path'
import type { Report } from '../base/report.ts'
import { withoutUnusedModules } from '../image/kernel-modules.ts'
import { entryToken } from '../image/kernels.ts'
import type { InstalledPackage } from '../image/output/mkosi-manifest.ts'
import { findGlob } from '../image/system/globs.ts'
import { installedKernels, placeKernels } from '../image/system/kernel.ts'
import { extensionRelease, withFields } from '../image/system/os-release.ts'
import * as programs from '../image/system/programs.ts'
import { programIn, writeInside } from '../image/system/programs.ts'
import { rootPasswordHash } from '../image/system/root-password.ts'
import { AUTOLOGIN, type Files, SSH } from '../image/system/units.ts'
import type { ImageRecipe } from '../recipe/recipe.ts'
import { run, SYSTEM_PATH } from '../run/process.ts'
import { readTree } from '../tree/from-disk.ts'
import { type Inode, parentOf, type Tree } from '../tree/tree.ts'
import { wantsBootLoader } from './boot.ts'
import { installedPackages } from './mkosi-manifest.ts'
import { at, exists, isExtension } from './prepare.ts'
import { removePackages } from './remove.ts'

const isExtensionOrPortable = (image: ImageRecipe): boolean => isExtension(image) || image.settings.format === 'portable'

export interface Places {
  root: string
  tools?: string | undefined
  epoch: number
}

/** An image's root, for the programs that work on it. */
export const installedIn = (image: ImageRecipe, { root, tools, epoch }: Places): programs.Installed => ({
  root,
  tools,
  epoch,
  env: image.settings.environment,
})

/** Kernels in their places with their modules indexed, and the hardware database: before build and postinst scripts. */
export async function indexRoot(image: ImageRecipe, places: Places, report: Report): Promise<void> {
  await placeKernels(places.root)
  if (!image.settings.overlay && !isExtensionOrPortable(image)) await indexModules(image, places, report)
  if (!isExtension(image)) await programs.runHwdb(installedIn(image, places), report)
}

/** Removes modules and firmware that rules leave out; `KernelModules=` and its kin. */
async function chooseModules({ settings }: ImageRecipe, root: string, report: Report): Promise<boolean> {
  const { architecture, kernelModules: modules, kernelModulesExclude: modulesExclude } = settings
  const { firmwareFiles: firmware, firmwareExclude } = settings
  if ([modules, modulesExclude, firmware, firmwareExclude].every((rules) => rules.length === 0)) return false
  return report.step('Choose kernel modules', async () => {
    const whole = readTree(root, { exclude: (path) => !/^(?:usr(?:\/lib(?:\/(?:modules|firmware)(?:\/.*)?)?)?)?$/.test(path) })
    const left = await withoutUnusedModules(whole, { architecture, modules, modulesExclude, firmware, firmwareExclude })
    const gone = [...whole.keys()].filter((path) => !left.has(path))
    for (const path of gone) await rm(`${root}/${path}`, { recursive: true, force: true })
    return gone.length > 0
  })
}

async function indexModules(image: ImageRecipe, places: Places, report: Report, changed = false): Promise<void> {
  for (const kernel of installedKernels(places.root)) {
    const folder = join(places.root, 'usr/lib/modules', kernel)
    const indexes = ['modules.dep', 'modules.dep.bin', 'modules.symbols', 'modules.symbols.bin']
    const isIndexed = indexes.every((name) => existsSync(join(folder, name)))
    if (!changed && isIndexed && !(await isStale(folder))) continue
    if (programIn(places.root, 'depmod') === undefined) {
      report.tell({ type: 'note', level: 'warning', message: `depmod is not in the image: no index of ${kernel}'s modules` })
      continue
    }
    await programs.runDepmod(kernel, installedIn(image, places), report)
  }
}

/** Is a module newer than the index? */
async function isStale(folder: string): Promise<boolean> {
  const { mtimeMs } = lstatSync(join(folder, 'modules.dep'))
  const { stdout } = await run(
    ['find', folder, '-name', '*.ko*', '-newermt', new Date(mtimeMs).toISOString(), '-print', '-quit'],
    {
      env: { PATH: SYSTEM_PATH },
    },
  )
  return stdout !== ''
}

export interface Finish extends Places {
  image: ImageRecipe
  verityCertificate?: string | Uint8Array | undefined
  /** Folder for the parts a boot partition is made of. */
  saved: string
}

export interface Finished {
  /** What boots, as it was before files went. */
  boot: Tree
  installed: InstalledPackage[]
}

/** Everything between the postinst and the finalize scripts. */
export async function finishRoot(finish: Finish, report: Report): Promise<Finished> {
  const { image, root } = finish
  const { settings } = image
  const here = installedIn(image, finish)
  await placeKernels(root)
  await report.step('Write settings', () => writeSettings(finish))
  await keepEntryToken(image, root)
  if (!isExtension(image)) {
    await programs.runLocaleGen(here, report)
    await programs.runSysusers(here, report)
    await programs.runTmpfiles(here, report)
    await programs.runPresets(here, report)
  }
  const changed = !settings.overlay && (await chooseModules(image, root, report))
  if (!isExtensionOrPortable(image)) {
    await indexModules(image, finish, report, changed)
    const { locale, localeMessages, keymap, timezone, hostname, rootShell, rootPassword, seed } = settings
    const password = rootPassword === undefined ? undefined : rootPasswordHash(rootPassword, seed)
    const credentials = !(settings.format === 'cpio' && settings.makeInitrd)
    const answers = { locale, localeMessages, keymap, timezone, hostname, rootShell }
    await programs.runFirstboot({ ...answers, rootPasswordHash: password, credentials }, here, report)
    await clampPasswords(root, finish.epoch)
    await rm(at(root, 'etc/.pwd.lock'), { force: true })
  }
  const boot = await saveBoot(root, finish.saved)
  await removePackages(here, settings.removePackages, report)
  const installed = installedPackages(root)
  await cleanPackageMetadata(image, root)
  await removeFiles(root, settings.removeFiles)
  if (isExtension(image))
    await run(['find', root, '-mindepth', '1', '-type', 'd', '-empty', '-delete'], { env: { PATH: SYSTEM_PATH } })
  return { boot, installed }
}

/** What names of boot entries begin with, where `bootctl install` keeps it: scripts may copy or change it. */
async function keepEntryToken({ settings }: ImageRecipe, root: string): Promise<void> {
  if (!wantsBootLoader(settings) || !settings.bootloader.startsWith('systemd-boot')) return
  if (settings.bootable === 'auto' && installedKernels(root).length === 0) return
  const loaders = `usr/lib/systemd/boot/efi/*.efi${settings.bootloader.endsWith('-signed') ? '.signed' : ''}`
  if (findGlob(root, loaders).length === 0 || exists(root, 'etc/kernel/entry-token')) return
  const said = /^(?:etc(?:\/(?:machine-id|os-release))?|usr(?:\/lib(?:\/(?:os-release|kernel(?:\/entry-token)?))?)?)?$/
  const tree = readTree(root, { exclude: (path) => !said.test(path) })
  await writeInside(root, 'etc/kernel/entry-token', `${await entryToken(tree)}\n`)
}

/** No password was changed after `epoch`: some programs write the day of the build. */
async function clampPasswords(root: string, epoch: number): Promise<void> {
  const today = Math.floor(epoch / 86_400)
  for (const name of ['shadow', 'shadow-']) {
    const path = at(root, `etc/${name}`)
    if (!exists(root, `etc/${name}`)) continue
    const text = await readFile(path, 'utf8')
    const clamped = text.replace(/^([^:\n]*:[^:\n]*:)(\d+)/gm, (line, before, day) =>
      Number(day) > today ? `${before}${today}` : line,
    )
    // into the same file, which keeps its owner and mode
    if (clamped !== text) await writeFile(path, clamped)
  }
}

async function writeSettings({ image, root, epoch, verityCertificate }: Finish): Promise<void> {
  const { settings } = image
  const write = async (files: Files) => {
    for (const [path, text] of Object.entries(files)) await writeInside(root, path, text)
  }
  if (settings.autologin) await write(AUTOLOGIN)
  if (!isExtension(image)) await writeRelease(image, root)
  await writeExtensionRelease(image, root)
  if (!isExtensionOrPortable(image)) await writeInitrdLinks(image, root)
  if (wantsSsh(image, root)) await write(SSH)
  if (!isExtension(image)) {
    if (!exists(root, 'usr/lib/clock-epoch')) await writeInside(root, 'usr/lib/clock-epoch', '')
    await utimes(at(root, 'usr/lib/clock-epoch'), epoch, epoch)
  }
  if (verityCertificate !== undefined && !isExtensionOrPortable(image)) {
    const path = typeof verityCertificate === 'string' ? verityCertificate : 'verity.crt'
    const bytes = typeof verityCertificate === 'string' ? await readFile(verityCertificate) : verityCertificate
    await writeInside(root, `usr/lib/verity.d/${basename(path, extname(path))}.crt`, bytes)
  }
  if (settings.format === 'portable') await writeMountPoints(root)
}

/** Without that setting, and where systemd makes such a socket by itself, there is none. */
function wantsSsh({ settings }: ImageRecipe, root: string): boolean {
  const ssh: string = settings.ssh
  if (ssh === 'never' || ssh === 'runtime') return false
  if (ssh === 'always') return true
  return !exists(root, 'usr/lib/systemd/system-generators/systemd-ssh-generator') && programIn(root, 'sshd') !== undefined
}

/** Says in os-release which image this is. A link is left alone: what it points at is set in its turn. */
async function writeRelease({ settings }: ImageRecipe, root: string): Promise<void> {
  const fields = {
    IMAGE_ID: settings.imageId,
    IMAGE_VERSION: settings.imageVersion,
    DEFAULT_HOSTNAME: settings.hostname,
    PORTABLE_PREFIXES: settings.environment['PORTABLE_PREFIXES'],
  }
  for (const path of ['usr/lib/os-release', 'usr/lib/initrd-release', 'etc/os-release']) {
    const stat = lstatSync(at(root, path), { throwIfNoEntry: false })
    if (!stat?.isFile()) continue
    const text = await readFile(at(root, path), 'utf8')
    const changed = withFields(text, fields)
    if (changed !== text) await writeInside(root, path, changed)
  }
}

async function writeExtensionRelease({ settings }: ImageRecipe, root: string): Promise<void> {
  const { format, output, imageId, imageVersion, architecture, environment } = settings
  if (format !== 'sysext' && format !== 'confext') return
  const folder = format === 'sysext' ? 'usr/lib' : 'etc'
  const path = `${folder}/extension-release.d/extension-release.${output}`
  const read = (path: string) => readFile(at(root, path), 'utf8').catch(() => '')
  const scope = environment[`${format.toUpperCase()}_SCOPE`]
  const about = { kind: format, imageId, imageVersion, architecture, scope } as const
  await writeInside(root, path, extensionRelease(await read(path), await read('usr/lib/os-release'), about))
}

/** The kernel starts /init of an initrd; systemd tells an initrd by /etc/initrd-release. */
async function writeInitrdLinks({ settings }: ImageRecipe, root: string): Promise<void> {
  if (!exists(root, 'init') && exists(root, 'usr/lib/systemd/systemd'))
    await symlink('/usr/lib/systemd/systemd', at(root, 'init'))
  if (settings.makeInitrd && !exists(root, 'etc/initrd-release')) {
    await mkdir(at(root, 'etc'), { recursive: true })
    await symlink('/etc/os-release', at(root, 'etc/initrd-release'))
  }
}

/** Files of /etc that a portable service gets from its host. */
async function writeMountPoints(root: string): Promise<void> {
  for (const name of ['passwd', 'group', 'shadow', 'gshadow', 'nsswitch.conf', 'resolv.conf', 'machine-id']) {
    if (!exists(root, `etc/${name}`)) await writeInside(root, `etc/${name}`, '', name.endsWith('shadow') ? 0o600 : 0o644)
  }
}

const BOOT_FILES = [
  'usr/lib/systemd/boot/efi/*',
  'usr/lib/modules/*/vmlinu[xz]',
  'usr/lib/firmware/amd-ucode/*',
  'usr/lib/firmware/intel-ucode/*',
]

/** Links what boots to a folder of its own, because packages and files may be removed next. */
async function saveBoot(root: string, folder: string): Promise<Tree> {
  await mkdir(folder, { recursive: true })
  for (const path of BOOT_FILES.flatMap((glob) => findGlob(root, glob))) {
    if (!lstatSync(`${root}/${path}`).isFile()) continue
    await mkdir(join(folder, dirname(path)), { recursive: true })
    await link(`${root}/${path}`, join(folder, path))
  }
  return readTree(folder)
}

const METADATA: readonly [program: string, paths: readonly string[]][] = [
  ['dpkg', ['var/lib/dpkg']],
  ['apt-get', ['var/lib/apt', 'var/cache/apt']],
]

/** The database of packages goes where nothing in the image would read it; see `CleanPackageMetadata=`. */
async function cleanPackageMetadata({ settings }: ImageRecipe, root: string): Promise<void> {
  const wanted = settings.cleanPackageMetadata
  if (wanted === false || (wanted === 'auto' && (settings.format === 'directory' || settings.format === 'tar'))) return
  for (const [program, paths] of METADATA) {
    if (wanted === 'auto' && programIn(root, program) !== undefined) continue
    for (const path of paths) await rm(at(root, path), { recursive: true, force: true })
  }
}

/** Removes what globs name, and all below it. */
export async function removeFiles(root: string, globs: readonly string[]): Promise<void> {
  for (const path of globs.flatMap((glob) => findGlob(root, glob))) await rm(`${root}/${path}`, { recursive: true, force: true })
}

/** An image upon base trees that ships only what differs: none of their files, and of their folders those that hold others. */
export function withoutBase(tree: Tree, base: Tree | undefined): Tree {
  if (base === undefined) return tree
  const kept = new Map<string, Inode>()
  const needed = new Set<string>([''])
  for (const [path] of tree) {
    if (base.has(path)) continue
    for (let above = path; above !== ''; above = parentOf(above)) needed.add(above)
  }
  for (const [path, inode] of tree) if (needed.has(path)) kept.set(path, inode)
  return kept
}

/** Logs and caches that hold the time of the build, or numbers of its disk: two builds would differ by them alone. */
const TRACES =
  /^var\/(?:log\/(?:dpkg|alternatives|bootstrap|fontconfig)\.log|log\/apt\/.*|cache\/ldconfig\/aux-cache|cache\/debconf\/.*-old|lib\/dpkg\/(?:.*-old|lock-frontend))$/

/** The tree with no time after `epoch` and without what tells one build from another. Hard links stay hard links. */
export function withoutTraces(tree: Tree, epoch: number): Tree {
  const clamped = new Map<Inode, Inode>()
  const result = new Map<string, Inode>()
  for (const [path, inode] of tree) {
    if (TRACES.test(path)) continue
    const same = clamped.get(inode) ?? (inode.mtime > epoch ? { ...inode, mtime: epoch } : inode)
    clamped.set(inode, same)
    result.set(path, same)
  }
  return result
}
