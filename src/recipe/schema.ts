/**
 * The table of settings: every one that mkosi documents, under its name in camelCase, and a few of our own (section `Bisque`).
 *
 * One table, two syntaxes: the TypeScript types of `recipe.ts`, the reading of `--set` and of mkosi.conf, the defaults,
 * what decides package resolution, and what Bisque does not (yet) support are all read off these rows. The comment before
 * a row is its documentation; editors show it at the key in a recipe.
 *
 * Columns: section · type · what else there is to say. Rows made by `row` are supported, by `idle` accepted without effect,
 * by `later` refused; `older` is another way of writing a supported one. Defaults are recipe.ts's; where mkosi's differ, the
 * row says so in `mkosi`. docs/recipe.md is made from this file.
 */
import { derivedGuid } from '../base/guid.ts'
import * as file from './file-type.ts'
import { keyPlace, path, treeSource } from './file-type.ts'
import { ipePolicy } from './ipe.ts'
import * as type from './type.ts'
import { always, boolean, choice, feature, filename, integer, list, listOr, mode, oneOf, pairs, size, string } from './type.ts'
import { ukiProfile } from './uki-profile.ts'

export type Section = 'Include' | 'Config' | 'Distribution' | 'Output' | 'Content' | 'Validation' | 'Build' | 'Runtime' | 'Bisque'

/** How a setting reaches sub-images, in mkosi's words. */
export type Scope = 'local' | 'inherit' | 'universal' | 'multiversal' | 'main' | 'initrd' | 'initrd-inherit' | 'tools'

export type Status =
  | { is: 'supported' }
  /** Accepted and checked; there is nothing it would change. */
  | { is: 'without-effect'; reason: string }
  | { is: 'refused'; reason: string }
  /** Supported as another way of writing the setting that `into` names. */
  | { is: 'older' }

/** Reads the value of another setting, for defaults that follow from it. */
export type Get = (key: string) => unknown

/** How a condition in [Match] is compared with a setting's value. */
export type Match =
  | 'equal'
  /** As `equal`; `uefi` is any architecture that has UEFI. */
  | 'architecture'
  /** Shell wildcards. */
  | 'glob'
  /** `>=1.2`, `<3`; without an operator equal. */
  | 'version'
  /** One of the list; the empty condition asks for an empty list. */
  | 'element'
  /** `KEY` is there, or `KEY=value`. */
  | 'pair'
  /** The target of one of the trees. */
  | 'target'

export interface Row<I = unknown, V = unknown, S extends Status['is'] = Status['is']> {
  section: Section
  type: type.Type<unknown, unknown, unknown>
  /** mkosi's name where it is not the key with a capital. */
  name?: string
  /** Names it had, which mkosi.conf files still use. */
  formerly?: readonly string[]
  scope: Scope
  status: Status & { is: S }
  /** The default of a recipe.ts. */
  default?: unknown
  /** A default that follows from other settings. */
  defaultFrom?: (get: Get) => unknown
  /** The default of a mkosi folder where it is another, which may be none: a value, or a function that follows from others. */
  mkosi?: unknown
  required: boolean
  /** How [Match] and [Assert] compare it; without it they cannot. */
  match?: Match
  /** Files `mkosi.NAME` beside mkosi.conf that set it, in this order; with `*` in the name, the files that match. */
  files?: readonly string[]
  /** Such a file holds the value (or, where it is executable, prints it) instead of being it. */
  fileText?: true
  /** Another way of writing that setting: assignments are made to it instead. */
  into?: string
  /** Changing it may change which packages are chosen: it belongs to the lock's request. */
  resolves: boolean
  /** Never shown, logged or written to a manifest. */
  secret: boolean
  readonly _input?: I
  readonly _value?: V
}

interface More<T = unknown> {
  name?: string
  formerly?: readonly string[]
  scope?: Scope
  resolves?: true
  secret?: true
  match?: Match
  files?: readonly string[]
  fileText?: true
  mkosi?: T | undefined | ((get: Get) => T | undefined)
}

function row<T, A, I>(
  section: Section,
  type: type.Type<T, A, I>,
  more: More<NoInfer<T>> & { default: NoInfer<T> },
): Row<I, T, 'supported'>
function row<T, A, I>(
  section: Section,
  type: type.Type<T, A, I>,
  more: More<NoInfer<T>> & { defaultFrom: (get: Get) => NoInfer<T> },
): Row<I, T, 'supported'>
function row<T, A, I>(
  section: Section,
  type: type.Type<T, A, I>,
  more: More<NoInfer<T>> & { required: true },
): Row<I, T, 'supported'>
function row<T, A, I>(section: Section, type: type.Type<T, A, I>, more?: More<NoInfer<T>>): Row<I, T | A, 'supported'>
function row(section: Section, type: type.Type<unknown, unknown, unknown>, more: More = {}): Row<any, any, 'supported'> {
  return { section, type, scope: 'local', required: false, resolves: false, secret: false, ...more, status: { is: 'supported' } }
}

/** Known and not supported: using it is an error that says so. */
function later<T, A, I>(
  section: Section,
  type: type.Type<T, A, I>,
  more: More & { reason?: string } = {},
): Row<I, T | A, 'refused'> {
  const { reason = 'not supported yet', ...rest } = more
  return { ...row<any, any, any>(section, type, rest), status: { is: 'refused', reason } } as Row<I, T | A, 'refused'>
}

/** Accepted without effect, for the reason given. */
function idle<T, A, I>(
  section: Section,
  type: type.Type<T, A, I>,
  reason: string,
  more: More = {},
): Row<I, T | A, 'without-effect'> {
  return { ...row<any, any, any>(section, type, more), status: { is: 'without-effect', reason } } as Row<
    I,
    T | A,
    'without-effect'
  >
}

/** Another, mostly older way of writing a supported setting. */
function older<T, A, I>(section: Section, type: type.Type<T, A, I>, into: string, more: More = {}): Row<I, T | A, 'older'> {
  return { ...row<any, any, any>(section, type, more), into, status: { is: 'older' } } as Row<I, T | A, 'older'>
}

const names = list(string)
const packages = list(string, 'comma or space', { sort: type.packageOrder })
const paths = list(path)
const presentPaths = list(file.present(path))
const scripts = file.globs
const trees = list(treeSource)
const presentTrees = list(file.present(treeSource))
const patterns = list(type.regularExpression)
const arguments_ = list(string, 'space')
const quoted = list(string, 'quoted space')

/** Namespace of the GUIDs that follow from an image's id when no seed is set. */
const SEED_NAMESPACE = '3c1d2f0a-52f5-4c1c-9a3f-2f9f6c6c1b0e'

const OTHER_DISTRIBUTIONS =
  'fedora kali ubuntu postmarketos arch opensuse mageia centos rhel rhel-ubi openmandriva rocky alma azure custom'.split(' ')
const OTHER_ARCHITECTURES =
  'alpha arc arm arm64 ia64 loongarch64 mips-le mips64-le parisc ppc ppc64 ppc64-le riscv32 riscv64 s390 s390x tilegx x86'.split(
    ' ',
  )
const FORMATS = [
  'disk',
  'directory',
  'tar',
  'cpio',
  'uki',
  'esp',
  'oci',
  'sysext',
  'confext',
  'portable',
  'addon',
  'none',
] as const
const SPLITTABLE = [
  'uki',
  'kernel',
  'initrd',
  'os-release',
  'partitions',
  'pcrs',
  'roothash',
  'tar',
  'kernel-modules-initrd',
  'repart-definitions',
] as const

const CACHED = 'every stage is cached by its inputs, so there is nothing to switch'
const OWN_TOOLS = 'image bytes are written in-process, and the few tools needed come from a locked tools tree'
const CD = 'for ElTorito=, which is not supported yet'
const OPENPGP = 'for Sign=, which is not supported yet'
const MKOSI_VM = 'for mkosi’s own vm verb; see `bisque vm --help`'
const PROXY = 'downloads use the proxy of the environment (http_proxy, https_proxy, no_proxy)'

// biome-ignore format: table
export const SETTINGS = {
  // ── Include, Config ────────────────────────────────────────────────────────────────────────────────────────────────
  /** More configuration to read here. */
  include:                       later('Include', paths, { reason: 'only in mkosi.conf; a recipe.ts imports a module' }),
  /** Profiles to apply, in this order; `--profile` adds to it. */
  profiles:                      row('Config', list(filename), { scope: 'inherit', formerly: ['Profile'], match: 'element' }),
  /** Sub-images that are built first. */
  dependencies:                  row('Config', names),
  /** The oldest version that understands this recipe. */
  minimumVersion:                row('Config', string, { scope: 'main' }),
  /** Scripts that print more configuration. */
  configureScripts:              row('Config', scripts, { files: ['configure'] }),
  /** Variables of the caller's environment that scripts see. */
  passEnvironment:               row('Config', arguments_, { scope: 'main' }),

  // ── Distribution ───────────────────────────────────────────────────────────────────────────────────────────────────
  /** Whose packages to use. */
  distribution:                  row('Distribution', choice(['debian'], { later: OTHER_DISTRIBUTIONS }), { scope: 'universal', resolves: true, match: 'equal', default: 'debian' }),
  /** Which release of the distribution: `trixie`. A default that moves would not be reproducible. */
  release:                       row('Distribution', type.matching('a release name such as "trixie"', /^[a-z0-9][\w.+-]*$/i), { scope: 'universal', resolves: true, match: 'equal', required: true, mkosi: (get) => MOVING_RELEASES[String(get('distribution'))] }),
  /** The machine the image is for. */
  architecture:                  row('Distribution', choice(['x86-64'], { also: { x86_64: 'x86-64', amd64: 'x86-64' }, later: OTHER_ARCHITECTURES }), { scope: 'universal', resolves: true, match: 'architecture', default: 'x86-64' }),
  /** Where to fetch packages instead of the distribution's own server. Packages are pinned by digest, so a change needs no new lock. */
  mirror:                        row('Distribution', type.matching('a http:// or https:// URL', /^https?:\/\/[^\s/]+/), { scope: 'universal' }),
  /** Resolve against the archive as it was then: `20261123T000000Z`. */
  snapshot:                      row('Distribution', type.matching('a time such as "20261123T000000Z"', /^\d{8}T\d{6}Z$/), { scope: 'universal', resolves: true, files: ['snapshot'], fileText: true }),
  /** One repository to use instead of all of the distribution's. */
  localMirror:                   later('Distribution', string, { scope: 'universal', reason: 'use Mirror= for another server, PackageDirectories= for packages in a folder' }),
  /** Whether signatures of repositories are checked: always. */
  repositoryKeyCheck:            row('Distribution', always(true, 'nothing is used that no pinned key signed'), { scope: 'multiversal', default: true }),
  /** Whether to fetch the distribution's keys. */
  repositoryKeyFetch:            idle('Distribution', boolean, 'the distributions’ keys are pinned in Bisque', { scope: 'universal' }),
  /** Components beside the distribution's free ones: `non-free-firmware`. */
  repositories:                  row('Distribution', names, { scope: 'universal', resolves: true, match: 'element' }),

  // ── Output ─────────────────────────────────────────────────────────────────────────────────────────────────────────
  /** What to make. */
  format:                        row('Output', choice(FORMATS), { match: 'equal', default: 'disk' }),
  /** Manifests beside Bisque’s own, which is always written: `json` is mkosi’s, which mkosi folders get. */
  manifestFormat:                row('Output', list(choice(['json'], { later: ['changelog'] })), { default: ['json'], mkosi: [] }),
  /** Name of the image without extension. mkosi leaves the architecture out; channels that serve several need it in. */
  output:                        row('Output', filename, { defaultFrom: (get) => [get('image') === 'main' ? get('imageId') : get('image'), get('imageVersion'), get('architecture')].filter((part) => part !== undefined).join('_'), mkosi: (get) => mkosiOutput(get) }),
  /** Extension of the image. */
  outputExtension:               row('Output', filename, { defaultFrom: (get) => EXTENSIONS[String(get('format'))] ?? '' }),
  /** Size of the disk image. */
  outputSize:                    row('Output', size),
  /** Compress the artifacts. */
  compressOutput:                row('Output', choice(['none', 'zstd', 'xz', 'gz'], { yes: 'zstd', no: 'none', also: { zst: 'zstd', gzip: 'gz' }, later: ['bz2', 'lz4', 'lzma'] }), { defaultFrom: (get) => COMPRESSED[String(get('format'))] ?? 'none' }),
  /** How hard to compress the artifacts. */
  compressLevel:                 row('Output', integer(0, 22), { scope: 'inherit', default: 3 }),
  /** Where the artifacts go; `--output` wins. */
  outputDirectory:               row('Output', path, { scope: 'universal', files: ['output'], defaultFrom: (get) => `${get('directory')}/out`, mkosi: (get) => `${get('directory')}/mkosi.output` }),
  /** Mode of the artifacts. */
  outputMode:                    row('Output', mode, { scope: 'universal' }),
  /** Version of the image: in names, os-release and updates. */
  imageVersion:                  row('Output', type.matching('a version such as "1.2"', /^[A-Za-z0-9][A-Za-z0-9.+~^_-]*$/), { scope: 'inherit', match: 'version', files: ['version'], fileText: true }),
  /** Name of the image: in file names, os-release and updates. */
  imageId:                       row('Output', type.optional(type.matching('a name of letters, digits, ".", "_" and "-"', /^[A-Za-z0-9][\w.-]*$/)), { scope: 'inherit', match: 'glob', default: 'image', mkosi: undefined }),
  /** Labels of an OCI image. */
  ociLabels:                     row('Output', pairs()),
  /** Annotations of an OCI image. */
  ociAnnotations:                row('Output', pairs()),
  /** Parts to write as files of their own. Updates are made of `uki` and `partitions`. */
  splitArtifacts:                row('Output', listOr(choice(SPLITTABLE), ['uki', 'kernel', 'initrd', 'partitions'], ['uki', 'kernel', 'initrd']), { default: ['uki', 'partitions'], mkosi: ['uki', 'kernel', 'initrd'] }),
  /** Folders of partition definitions. */
  repartDirectories:             row('Output', presentPaths, { files: ['repart'] }),
  /** Bytes in a sector of the disk. */
  sectorSize:                    row('Output', oneOf(512, 4096), { scope: 'inherit', default: 512 }),
  /** Ship only what differs from the base trees. */
  overlay:                       row('Output', boolean, { default: false }),
  /** GUID that all others follow from. mkosi draws one at random; here it follows from the image's id, so that builds are alike. */
  seed:                          row('Output', type.seed, { files: ['seed'], fileText: true, defaultFrom: (get) => derivedGuid(SEED_NAMESPACE, seedOf(get)) }),
  /** Make the image bootable from a CD. */
  elTorito:                      row('Output', type.refusing(feature, (on) => (on === true ? 'images that boot from a CD are not supported yet; disk images boot from a USB stick' : undefined)), { default: 'auto' }),
  /** System identifier of the CD. */
  elToritoSystem:                idle('Output', string, CD),
  /** Volume identifier of the CD. */
  elToritoVolume:                idle('Output', string, CD),
  /** Publisher of the CD. */
  elToritoPublisher:             idle('Output', string, CD),
  /** Scripts run by `mkosi clean`. */
  cleanScripts:                  row('Output', scripts, { files: ['clean', 'clean.d/*'] }),

  // ── Content ────────────────────────────────────────────────────────────────────────────────────────────────────────
  /** Packages in the image. */
  packages:                      row('Content', packages, { resolves: true }),
  /** Packages that only build scripts see. */
  buildPackages:                 row('Content', packages, { resolves: true }),
  /** Packages installed beside the others, chosen from volatile folders first: those under development. */
  volatilePackages:              row('Content', packages, { resolves: true }),
  /** Folders of packages to use beside the repositories. */
  packageDirectories:            row('Content', presentPaths, { scope: 'universal', resolves: true, files: ['packages'] }),
  /** Folders of packages for the volatile ones. */
  volatilePackageDirectories:    row('Content', presentPaths, { scope: 'universal', resolves: true }),
  /** Install what packages merely recommend. */
  withRecommends:                row('Content', boolean, { resolves: true, default: false }),
  /** Keep documentation. */
  withDocs:                      row('Content', boolean, { default: true }),
  /** Trees to build upon instead of an empty one. */
  baseTrees:                     row('Content', paths),
  /** Trees copied in before packages are installed. */
  skeletonTrees:                 row('Content', presentTrees, { files: ['skeleton', 'skeleton.tar'] }),
  /** Trees copied in after packages are installed. */
  extraTrees:                    row('Content', trees, { files: ['extra', 'extra.tar'] }),
  /** Packages left out, or removed at the end. */
  removePackages:                row('Content', names, { resolves: true }),
  /** Files removed at the end, as globs. */
  removeFiles:                   row('Content', list(file.imageGlob)),
  /** Remove the package manager's database; by default when the package manager is not in the image. */
  cleanPackageMetadata:          row('Content', feature, { default: 'auto' }),
  /** The one time in the image, in seconds; by default that of the lock's snapshot. */
  sourceDateEpoch:               row('Content', integer(0), { scope: 'multiversal' }),
  /** Scripts run before anything else, to update sources. */
  syncScripts:                   row('Content', scripts, { files: ['sync', 'sync.d/*'] }),
  /** Scripts run after packages are installed; called with `final`. */
  prepareScripts:                row('Content', scripts, { formerly: ['PrepareScript'], files: ['prepare', 'prepare.chroot', 'prepare.d/*'] }),
  /** Scripts that compile things for the image. */
  buildScripts:                  row('Content', scripts, { formerly: ['BuildScript'], files: ['build', 'build.chroot', 'build.d/*'] }),
  /** Scripts run after packages and trees are in. */
  postInstallationScripts:       row('Content', scripts, { formerly: ['PostInstallationScript'], files: ['postinst', 'postinst.chroot', 'postinst.d/*'] }),
  /** Scripts run last, on the finished tree. */
  finalizeScripts:               row('Content', scripts, { formerly: ['FinalizeScript'], files: ['finalize', 'finalize.chroot', 'finalize.d/*'] }),
  /** Scripts run on the written artifacts. */
  postOutputScripts:             row('Content', scripts, { files: ['postoutput', 'postoutput.d/*'] }),
  /** Whether to install a boot loader and a kernel image; `auto` when the image holds a kernel. */
  bootable:                      row('Content', feature, { match: 'equal', default: 'auto' }),
  /** The UEFI boot loader. */
  bootloader:                    row('Content', choice(['none', 'systemd-boot', 'uki', 'systemd-boot-signed', 'uki-signed'], { later: ['grub', 'grub-signed'] }), { default: 'systemd-boot' }),
  /** The boot loader for BIOS. */
  biosBootloader:                row('Content', choice(['none'], { later: ['grub'] }), { default: 'none' }),
  /** A first boot loader signed by Microsoft. */
  shimBootloader:                row('Content', choice(['none'], { later: ['signed', 'unsigned'] }), { default: 'none' }),
  /** Kernel, initrd and command line in one file; `none` writes boot entries for separate ones. */
  unifiedKernelImages:           row('Content', choice(['none', 'unsigned', 'signed', 'auto'], { yes: 'signed', no: 'none' }), { default: 'auto' }),
  /** Name of the unified kernel image on the ESP, without `.efi`. */
  unifiedKernelImageFormat:      row('Content', filename),
  /** Further boot entries inside the unified kernel image, each with a command line of its own; in text, `.conf` files. */
  unifiedKernelImageProfiles:    row('Content', list(ukiProfile), { files: ['uki-profiles/*.conf'] }),
  /** Initrds of the image, as files; `default` is the one that is built from packages. */
  initrds:                       row('Content', list(file.pathOr('default')), { defaultFrom: (get) => ownInitrds(get), mkosi: (get) => mkosiInitrds(get) }),
  /** Put the build machine's microcode into the initrd. */
  microcodeHost:                 row('Content', always(false, 'the image would depend on the machine that built it'), { default: false }),
  /** Sets of features for the initrd. */
  initrdProfiles:                row('Content', list(filename), { scope: 'initrd', resolves: true }),
  /** Packages in the initrd, beside the default ones. */
  initrdPackages:                row('Content', names, { scope: 'initrd', resolves: true }),
  /** Volatile packages in the initrd. */
  initrdVolatilePackages:        row('Content', names, { scope: 'initrd', resolves: true }),
  /** Device trees for the unified kernel image. */
  devicetrees:                   later('Content', names, { formerly: ['Devicetree'], reason: 'firmware of x86-64 describes the machine itself; leave it out' }),
  /** Picture shown while the kernel starts. */
  splash:                        row('Content', file.imagePath),
  /** Arguments added to the kernel command line. */
  kernelCommandLine:             row('Content', arguments_),
  /** Kernel modules in the image, as globs; `-` before one leaves out. Empty keeps all. */
  kernelModules:                 row('Content', names),
  /** Older form of `KernelModules=`, with regular expressions. */
  kernelModulesInclude:          older('Content', patterns, 'kernelModules'),
  /** Kernel modules left out of the image, as regular expressions. */
  kernelModulesExclude:          row('Content', patterns),
  /** Keep the modules that the build machine has loaded. */
  kernelModulesIncludeHost:      row('Content', always(false, 'the image would depend on the machine that built it'), { default: false }),
  /** Whether the initrd gets kernel modules. */
  kernelModulesInitrd:           row('Content', boolean, { default: true }),
  /** Kernel modules in the initrd, as globs; `-` before one leaves out. `default` stands for the usual ones. */
  kernelInitrdModules:           row('Content', names, { default: ['default'], mkosi: [] }),
  /** Older form of `KernelInitrdModules=`, with regular expressions. */
  kernelModulesInitrdInclude:    older('Content', patterns, 'kernelInitrdModules'),
  /** Kernel modules left out of the initrd, as regular expressions. */
  kernelModulesInitrdExclude:    row('Content', patterns),
  /** Give the initrd the modules that the build machine has loaded. */
  kernelModulesInitrdIncludeHost: row('Content', always(false, 'the image would depend on the machine that built it'), { default: false }),
  /** Firmware in the image, as globs; `-` before one leaves out. */
  firmwareFiles:                 row('Content', names),
  /** Older form of `FirmwareFiles=`, with regular expressions. */
  firmwareInclude:               older('Content', patterns, 'firmwareFiles'),
  /** Firmware left out of the image, as regular expressions. */
  firmwareExclude:               row('Content', patterns),
  /** Locale of the system: `C.UTF-8`. */
  locale:                        row('Content', string),
  /** Locale of messages. */
  localeMessages:                row('Content', string),
  /** Keyboard map of the console: `us`. */
  keymap:                        row('Content', string, { scope: 'initrd-inherit' }),
  /** Time zone: `Europe/Berlin`. */
  timezone:                      row('Content', type.matching('a time zone such as "Europe/Berlin"', /^[A-Za-z0-9_+-]+(\/[A-Za-z0-9_+-]+)*$/), { scope: 'initrd-inherit' }),
  /** Host name. */
  hostname:                      row('Content', type.matching('a host name', /^[A-Za-z0-9?]([A-Za-z0-9.?-]{0,62}[A-Za-z0-9?])?$/), { scope: 'initrd-inherit' }),
  /** Password of root; with `hashed:` before it, in crypt(3) form; empty lets root log in without. */
  rootPassword:                  row('Content', type.password, { scope: 'initrd-inherit', secret: true, files: ['rootpw'], fileText: true }),
  /** Shell of root. */
  rootShell:                     row('Content', file.imagePath),
  /** A fixed machine id, the same on every machine that boots the image. */
  machineId:                     row('Content', type.guid, { files: ['machine-id'], fileText: true }),
  /** Log root in on the consoles. */
  autologin:                     row('Content', boolean, { default: false }),
  /** Make the tree an initrd. */
  makeInitrd:                    row('Content', boolean, { default: false }),
  /** Run an SSH server on a socket to the host: `auto` where systemd has no generator that does. */
  ssh:                           row('Content', choice(['auto', 'runtime', 'never'], { yes: 'always', no: 'never', later: ['always'] }), { default: 'never', mkosi: 'auto' }),
  /** Write SELinux labels. */
  selinuxRelabel:                row('Content', type.refusing(feature, (on) => (on === true ? 'SELinux labels are not written yet; let the first boot do it: /.autorelabel among the extra trees' : undefined)), { name: 'SELinuxRelabel', default: 'auto' }),

  // ── Validation ─────────────────────────────────────────────────────────────────────────────────────────────────────
  /** Sign boot loader and kernel image for UEFI Secure Boot. */
  secureBoot:                    row('Validation', boolean, { default: true, mkosi: false }),
  /** Put the keys on the ESP for firmware in setup mode to enrol. */
  secureBootAutoEnroll:          row('Validation', boolean, { default: true }),
  /** Key that signs for Secure Boot: a PEM file, or `pkcs11:…` for one in a token. */
  secureBootKey:                 row('Validation', keyPlace, { scope: 'universal', files: ['key'] }),
  /** Where that key is kept. */
  secureBootKeySource:           row('Validation', type.keySource, { scope: 'universal', default: 'file' }),
  /** Certificate of that key. */
  secureBootCertificate:         row('Validation', keyPlace, { scope: 'universal', files: ['crt'] }),
  /** Where that certificate is kept. */
  secureBootCertificateSource:   row('Validation', type.keySource, { scope: 'universal', default: 'file' }),
  /** Program that signs for Secure Boot. */
  secureBootSignTool:            idle('Validation', choice(['auto', 'sbsign', 'systemd-sbsign']), 'signatures are made in-process'),
  /** dm-verity: `signed` insists on it with a signature, `hash` without one, `defer` leaves room for one; `auto` signs what there is. */
  verity:                        row('Validation', choice(['signed', 'hash', 'defer', 'disabled', 'auto'], { yes: 'signed', no: 'disabled' }), { default: 'signed', mkosi: 'auto' }),
  /** Key that signs root hashes, as that one. */
  verityKey:                     row('Validation', keyPlace, { scope: 'universal', files: ['key'] }),
  /** Where that key is kept. */
  verityKeySource:               row('Validation', type.keySource, { scope: 'universal', default: 'file' }),
  /** Certificate of that key. */
  verityCertificate:             row('Validation', keyPlace, { scope: 'universal', files: ['crt'] }),
  /** Where that certificate is kept. */
  verityCertificateSource:       row('Validation', type.keySource, { scope: 'universal', default: 'file' }),
  /** Sign the expected PCR 11 values, one policy for each boot phase. */
  signExpectedPcr:               row('Validation', feature, { default: true, mkosi: 'auto' }),
  /** Key that signs expected PCR values, as that one. */
  signExpectedPcrKey:            row('Validation', keyPlace, { scope: 'inherit', files: ['key'] }),
  /** Where that key is kept. */
  signExpectedPcrKeySource:      row('Validation', type.keySource, { scope: 'inherit', default: 'file' }),
  /** Certificate of that key. */
  signExpectedPcrCertificate:    row('Validation', keyPlace, { scope: 'inherit', files: ['crt'] }),
  /** Where that certificate is kept. */
  signExpectedPcrCertificateSource: row('Validation', type.keySource, { scope: 'inherit', default: 'file' }),
  /** File with the passphrase of encrypted partitions. */
  passphrase:                    row('Validation', path, { files: ['passphrase'] }),
  /** Write a SHA256SUMS file. */
  checksum:                      row('Validation', boolean, { default: false }),
  /** Sign SHA256SUMS with OpenPGP. */
  sign:                          row('Validation', type.refusing(boolean, (on) => (on ? 'not supported yet; sign the file afterwards: gpg --detach-sign SHA256SUMS' : undefined)), { default: false }),
  /** OpenPGP key for that. */
  key:                           idle('Validation', string, OPENPGP),
  /** OpenPGP program for that. */
  openpgpTool:                   idle('Validation', string, OPENPGP, { name: 'OpenPGPTool' }),

  // ── Build ──────────────────────────────────────────────────────────────────────────────────────────────────────────
  /** Tree to take build tools from. */
  toolsTree:                     idle('Build', string, OWN_TOOLS, { scope: 'universal', files: ['tools'] }),
  /** Distribution of the tools tree. */
  toolsTreeDistribution:         idle('Build', string, OWN_TOOLS, { scope: 'tools', match: 'equal' }),
  /** Release of the tools tree. */
  toolsTreeRelease:              idle('Build', string, OWN_TOOLS, { scope: 'tools', match: 'equal' }),
  /** Sets of tools in the tools tree. */
  toolsTreeProfiles:             idle('Build', names, OWN_TOOLS, { scope: 'tools' }),
  /** Mirror for the tools tree. */
  toolsTreeMirror:               idle('Build', string, OWN_TOOLS, { scope: 'tools' }),
  /** Repositories for the tools tree. */
  toolsTreeRepositories:         idle('Build', names, OWN_TOOLS, { scope: 'tools' }),
  /** Trees for the package manager of the tools tree. */
  toolsTreeSandboxTrees:         idle('Build', trees, OWN_TOOLS, { scope: 'tools', formerly: ['ToolsTreePackageManagerTrees'] }),
  /** Packages in the tools tree, beside Bisque's own. */
  toolsTreePackages:             row('Build', names, { scope: 'tools', resolves: true }),
  /** Folders of packages for the tools tree. */
  toolsTreePackageDirectories:   idle('Build', paths, OWN_TOOLS, { scope: 'tools' }),
  /** Use the CA certificates of the tools tree. */
  toolsTreeCertificates:         idle('Build', boolean, OWN_TOOLS, { scope: 'universal' }),
  /** Further folders to look for tools. */
  extraSearchPaths:              idle('Build', paths, OWN_TOOLS, { scope: 'universal' }),
  /** Keep the installed packages for the next build. */
  incremental:                   idle('Build', choice(['yes', 'no', 'strict', 'relaxed'], { yes: 'yes', no: 'no' }), CACHED, { scope: 'inherit' }),
  /** Whether to use cached package lists. */
  cacheOnly:                     idle('Build', choice(['always', 'auto', 'metadata', 'never'], { yes: 'always', no: 'auto', also: { none: 'auto' } }), 'the lock decides what is used; --offline keeps off the network', { scope: 'inherit' }),
  /** Configuration of the package manager, such as further repositories. */
  sandboxTrees:                  row('Build', presentTrees, { scope: 'universal', resolves: true, formerly: ['PackageManagerTrees'], files: ['sandbox', 'sandbox.tar', 'pkgmngr', 'pkgmngr.tar'] }),
  /** Folder for temporary files. */
  workspaceDirectory:            idle('Build', path, 'work is done below the cache; use --cache', { scope: 'multiversal' }),
  /** Folder for cached images. */
  cacheDirectory:                idle('Build', path, 'use --cache', { scope: 'universal', files: ['cache'] }),
  /** What tells cached images apart. */
  cacheKey:                      idle('Build', string, CACHED, { scope: 'inherit' }),
  /** Folder for downloaded packages. */
  packageCacheDirectory:         idle('Build', path, 'use --cache', { scope: 'multiversal', files: ['pkgcache'] }),
  /** Folder in which build scripts keep their objects from build to build. */
  buildDirectory:                row('Build', path, { scope: 'universal', files: ['builddir'] }),
  /** What tells build folders apart. */
  buildKey:                      row('Build', string, { scope: 'inherit', default: '&d~&r~&a' }),
  /** Use btrfs subvolumes. */
  useSubvolumes:                 idle('Build', feature, OWN_TOOLS, { scope: 'universal' }),
  /** Write partitions without loop devices. */
  repartOffline:                 row('Build', always(true, 'partitions are always written without loop devices'), { scope: 'universal', default: true }),
  /** Remember the command line of a build. */
  history:                       idle('Build', boolean, 'each command says all it needs', { scope: 'main' }),
  /** Sources that scripts see. */
  buildSources:                  row('Build', list(file.present(file.sourceTree, 'folder')), { scope: 'multiversal', match: 'target', default: [], mkosi: (get) => [{ source: String(get('directory')), target: '' }] }),
  /** Give scripts a throw-away copy of the sources. */
  buildSourcesEphemeral:         row('Build', choice(['yes', 'no', 'buildcache'], { yes: 'yes', no: 'no' }), { scope: 'multiversal', default: 'no' }),
  /** Variables that scripts see. */
  environment:                   row('Build', pairs(true), { match: 'pair' }),
  /** Files with such variables. */
  environmentFiles:              row('Build', presentPaths, { files: ['env'] }),
  /** Whether build scripts run tests. */
  withTests:                     row('Build', boolean, { scope: 'universal', default: true }),
  /** Let scripts use the network. */
  withNetwork:                   row('Build', boolean, { scope: 'universal', default: false }),
  /** Proxy for downloads. */
  proxyUrl:                      idle('Build', string, PROXY, { scope: 'multiversal' }),
  /** Hosts that need no proxy. */
  proxyExclude:                  idle('Build', names, PROXY, { scope: 'multiversal' }),
  /** CA certificates to trust for the proxy. */
  proxyPeerCertificate:          idle('Build', path, PROXY, { scope: 'multiversal' }),
  /** Certificate for the proxy. */
  proxyClientCertificate:        idle('Build', path, PROXY, { scope: 'multiversal', secret: true }),
  /** Key for the proxy. */
  proxyClientKey:                idle('Build', path, PROXY, { scope: 'multiversal', secret: true }),
  /** Mark scripts executable. */
  makeScriptsExecutable:         row('Build', boolean, { scope: 'multiversal', default: false }),
  /** Own files in the foreign UID range. */
  foreignUidRange:               idle('Build', boolean, 'a build owns its files in a user namespace of its own', { name: 'ForeignUIDRange', scope: 'main' }),

  // ── Runtime ────────────────────────────────────────────────────────────────────────────────────────────────────────
  /** Settings for systemd-nspawn. */
  nspawnSettings:                idle('Runtime', path, MKOSI_VM, { name: 'NSpawnSettings', scope: 'main', files: ['nspawn'] }),
  /** Run on a copy of the image that is dropped afterwards. */
  ephemeral:                     idle('Runtime', boolean, '`bisque vm` always runs on a throw-away copy unless told --keep', { scope: 'main' }),
  /** Credentials passed to the running image. */
  credentials:                   row('Runtime', file.credentials, { scope: 'main', secret: true, files: ['credentials'] }),
  /** Arguments added to the kernel command line when run. */
  kernelCommandLineExtra:        row('Runtime', arguments_, { scope: 'main' }),
  /** Trees mounted when run. */
  runtimeTrees:                  idle('Runtime', list(file.sourceTree), MKOSI_VM, { scope: 'main' }),
  /** Size that the disk is grown to when run. */
  runtimeSize:                   row('Runtime', size, { scope: 'main' }),
  /** Network when run. */
  runtimeNetwork:                idle('Runtime', choice(['interface', 'user', 'none']), MKOSI_VM, { scope: 'main' }),
  /** Mount the sources when run. */
  runtimeBuildSources:           idle('Runtime', boolean, MKOSI_VM, { scope: 'main' }),
  /** Let the calling user into the container. */
  bindUser:                      idle('Runtime', boolean, MKOSI_VM, { scope: 'main' }),
  /** Key for SSH. */
  sshKey:                        idle('Runtime', path, MKOSI_VM, { scope: 'main', files: ['key'] }),
  /** Certificate for SSH. */
  sshCertificate:                idle('Runtime', path, MKOSI_VM, { scope: 'main', files: ['crt'] }),
  /** What runs the virtual machine. */
  virtualMachineMonitor:         idle('Runtime', choice(['qemu', 'vmspawn']), '`bisque vm` starts QEMU', { scope: 'main' }),
  /** Name of the machine when run. */
  machine:                       idle('Runtime', string, MKOSI_VM, { scope: 'main' }),
  /** File that the journal is forwarded to when run. */
  forwardJournal:                idle('Runtime', path, MKOSI_VM, { scope: 'main' }),
  /** Folder of transfer definitions for the sysupdate verb. */
  sysupdateDirectory:            idle('Runtime', path, 'for mkosi’s own sysupdate verb; the transfer files that a machine updates by go into the image', { scope: 'main', files: ['sysupdate'] }),
  /** Console of the virtual machine. */
  console:                       idle('Runtime', choice(['interactive', 'read-only', 'native', 'gui', 'headless']), MKOSI_VM, { scope: 'main' }),
  /** Processors of the virtual machine. */
  cpus:                          row('Runtime', type.optional(integer(0)), { name: 'CPUs', formerly: ['QemuSmp'], scope: 'main', mkosi: 1 }),
  /** Memory of the virtual machine. */
  ram:                           row('Runtime', type.optional(size), { name: 'RAM', formerly: ['QemuMem'], scope: 'main', mkosi: 2 * 1024 ** 3 }),
  /** Memory the virtual machine can grow to. */
  maxMem:                        idle('Runtime', size, MKOSI_VM, { scope: 'main' }),
  /** Use KVM. */
  kvm:                           idle('Runtime', feature, '`bisque vm` uses KVM where it is', { name: 'KVM', formerly: ['QemuKvm'], scope: 'main' }),
  /** Give the virtual machine CXL devices. */
  cxl:                           idle('Runtime', boolean, MKOSI_VM, { name: 'CXL', scope: 'main' }),
  /** Give the virtual machine a socket to the host. */
  vsock:                         idle('Runtime', feature, MKOSI_VM, { name: 'VSock', formerly: ['QemuVsock'], scope: 'main' }),
  /** Number of that socket. */
  vsockCid:                      idle('Runtime', string, MKOSI_VM, { name: 'VSockCID', formerly: ['QemuVsockConnectionId'], scope: 'main' }),
  /** Give the virtual machine a TPM. */
  tpm:                           idle('Runtime', feature, '`bisque vm` always has a software TPM', { name: 'TPM', formerly: ['QemuSwtpm'], scope: 'main' }),
  /** Attach the disk as a removable one. */
  removable:                     idle('Runtime', boolean, MKOSI_VM, { formerly: ['QemuRemovable'], scope: 'main' }),
  /** How the disk is attached. */
  diskType:                      idle('Runtime', choice(['virtio-blk', 'virtio-scsi', 'nvme', 'scsi-cd']), MKOSI_VM, { scope: 'main' }),
  /** Firmware of the virtual machine. */
  firmware:                      idle('Runtime', choice(['auto', 'linux', 'linux-noinitrd', 'uefi', 'uefi-secure-boot']), MKOSI_VM, { formerly: ['QemuFirmware'], scope: 'main' }),
  /** Variables of the firmware. */
  firmwareVariables:             idle('Runtime', file.pathOr('custom', 'microsoft', 'microsoft-mok'), MKOSI_VM, { formerly: ['QemuFirmwareVariables'], scope: 'main' }),
  /** Kernel to start directly. */
  linux:                         idle('Runtime', string, MKOSI_VM, { formerly: ['QemuKernel'], scope: 'main' }),
  /** Further disks. */
  drives:                        idle('Runtime', arguments_, MKOSI_VM, { formerly: ['QemuDrives'], scope: 'main' }),
  /** Further arguments for QEMU. */
  qemuArgs:                      idle('Runtime', quoted, MKOSI_VM, { scope: 'main' }),
  /** Register the machine with systemd-machined. */
  register:                      idle('Runtime', feature, 'nothing on the host is touched', { scope: 'main' }),
  /** Serve the disk to other machines. */
  storageTargetMode:             idle('Runtime', feature, MKOSI_VM, { scope: 'main' }),

  // ── Bisque's own ───────────────────────────────────────────────────────────────────────────────────────────────────
  /**
   * Make `/usr` complete in itself: what `/etc` and `/var` hold is brought back from there on first boot, accounts are
   * declared, and the disk is an ESP and a signed `/usr`. Without it the tree stays what packages and scripts made of it.
   */
  hermeticUsr:                   row('Bisque', boolean, { defaultFrom: (get) => get('format') === 'disk', mkosi: false }),
  /**
   * Where `/` of a hermetic image lives: in `memory`, new at every start; or on the disk in a partition that is made and
   * encrypted on first boot, for the machine's TPM to unlock (`tpm2`). An mkosi folder has partition definitions for that.
   */
  root:                          row('Bisque', choice(['memory', 'tpm2']), { default: 'memory' }),
  /**
   * Let the kernel execute and load only what came with the initrd or lies on a signed dm-verity volume: `enforce`, only say
   * what it would refuse (`permissive`), leave the choice to a UKI profile (`profile`), or none of it (`off`).
   */
  ipe:                           row('Bisque', choice(['enforce', 'permissive', 'profile', 'off'], { yes: 'enforce', no: 'off' }), { defaultFrom: (get) => ipeDefault(get), mkosi: 'off' }),
  /** Name, version and further rules of that policy; or a file with a policy to use instead of the one that is made. */
  ipePolicy:                     row('Bisque', ipePolicy),
  /**
   * Microsoft's certificates that an enrolment brings beside our own; none by default. `uefi-ca` lets in option ROMs and
   * every distribution's shim, `windows` its boot loader, `kek` lets Microsoft change db and dbx. What they let in starts on
   * the machine whether we like it or not, and PCR 7 says so.
   */
  microsoftCertificates:         row('Bisque', list(choice(['uefi-ca', 'windows', 'kek']))),
  /**
   * Accept repository metadata past its Valid-Until. An archive that stands still (a snapshot, a frozen mirror) expires,
   * and the signature alone cannot tell it from an attacker who holds updates back; so it takes a word of the recipe's.
   */
  allowExpired:                  row('Bisque', boolean, { scope: 'universal', default: false }),
} as const satisfies Record<string, Row>

/** What the kernel can be made to enforce needs a volume that is signed, by a key that the firmware is given. */
function ipeDefault(get: Get): 'enforce' | 'off' {
  const signed = get('verity') === 'signed' || get('verity') === 'auto'
  return get('format') === 'disk' && get('hermeticUsr') === true && get('secureBoot') === true && signed ? 'enforce' : 'off'
}

type Table = typeof SETTINGS
export type Key = keyof Table
type InputOf<R> = R extends Row<infer I, any, any> ? I : never
type ValueOf<R> = R extends Row<any, infer V, any> ? V : never
type KeyThatIs<S extends Status['is']> = { [K in Key]: Table[K]['status']['is'] extends S ? K : never }[Key]

export type SupportedKey = KeyThatIs<'supported'>
/** Settings that a recipe may carry. */
export type WritableKey = Exclude<KeyThatIs<'supported' | 'without-effect' | 'older'>, 'profiles'>

/** `null` takes away what would be there otherwise: a default, or the main image's value. */
type OrNone<R> = undefined extends ValueOf<R> ? InputOf<R> | null : InputOf<R>
type Inputs<T, K extends keyof T> = { [P in K]?: OrNone<T[P]> }
type Values<T, K extends keyof T> = { readonly [P in K]: ValueOf<T[P]> }

/** What a recipe or one of its profiles may set. */
export interface RecipeSettings extends Inputs<Table, WritableKey> {}

/** Every supported setting after loading: defaults filled in, paths absolute, specifiers expanded. */
export interface Settings extends Values<Table, SupportedKey> {}

export const ROWS: Readonly<Record<string, Row>> = SETTINGS
export const KEYS = Object.keys(SETTINGS) as Key[]
/** Settings that have an effect or are at least accepted. */
export const WRITABLE_KEYS: readonly Key[] = KEYS.filter((key) => ROWS[key]!.status.is !== 'refused')

/** mkosi's name of a setting: `kernelCommandLine` → `KernelCommandLine`. */
export const mkosiName = (key: string): string => ROWS[key]?.name ?? key.charAt(0).toUpperCase() + key.slice(1)

const BY_NAME = new Map<string, Key>(
  KEYS.flatMap((key) => [key, mkosiName(key), ...(ROWS[key]!.formerly ?? [])].map((name) => [name, key] as const)),
)

/** The setting of that name in either spelling, or by a name it had. */
export const settingNamed = (name: string): Key | undefined => BY_NAME.get(name)

const EXTENSIONS: Readonly<Record<string, string>> = {
  disk: 'raw',
  esp: 'raw',
  sysext: 'raw',
  confext: 'raw',
  portable: 'raw',
  cpio: 'cpio',
  tar: 'tar',
  uki: 'efi',
  addon: 'efi',
}

/** Formats that are compressed unless told otherwise. */
const COMPRESSED: Readonly<Record<string, 'zstd' | 'gz'>> = {
  tar: 'zstd',
  cpio: 'zstd',
  uki: 'zstd',
  esp: 'zstd',
  addon: 'zstd',
  oci: 'gz',
}

/** What mkosi takes where no release is named. */
const MOVING_RELEASES: Readonly<Record<string, string>> = {
  debian: 'testing',
  kali: 'kali-rolling',
  ubuntu: 'devel',
  fedora: 'rawhide',
  arch: 'rolling',
  opensuse: 'tumbleweed',
  mageia: 'cauldron',
  openmandriva: 'cooker',
  centos: '10',
  alma: '10',
  rocky: '10',
  rhel: '10',
  'rhel-ubi': '10',
  azure: '3.0',
  postmarketos: 'edge',
}

function mkosiOutput(get: Get): string {
  const name = get('image') === 'main' ? (get('imageId') ?? 'image') : get('image')
  return [name, get('imageVersion')].filter((part) => part !== undefined).join('_')
}

/** Images of one recipe have seeds of their own. */
const seedOf = (get: Get): string =>
  [get('imageId') ?? 'image', get('image')].filter((part) => part !== 'main' && part !== undefined).join('/')

/** The default initrd, for disks and for what is said to boot. */
function ownInitrds(get: Get): string[] {
  const [format, bootable] = [String(get('format')), get('bootable')]
  if (['uki', 'esp'].includes(format) || bootable === false) return []
  return format === 'disk' || bootable === true ? ['default'] : []
}

/** The default initrd, for an image that holds a kernel and boots. */
function mkosiInitrds(get: Get): string[] {
  const [format, bootable] = [String(get('format')), get('bootable')]
  if (['uki', 'esp'].includes(format) || bootable === false) return []
  if (bootable === true) return ['default']
  if (['cpio', 'directory', 'sysext', 'confext', 'addon', 'portable'].includes(format) || get('overlay')) return []
  const kernel = KERNELS[String(get('distribution'))]
  const packages = [...(get('packages') as string[]), ...(get('volatilePackages') as string[])]
  return packages.some((name) => kernel?.test(name)) ? ['default'] : []
}

const RPM_KERNEL = /^kernel(-core)?$/

const KERNELS: Readonly<Record<string, RegExp>> = {
  debian: /^linux-image-/,
  kali: /^linux-image-/,
  ubuntu: /^linux-(?!tools-)/,
  arch: /^linux(-(lts|zen|hardened|rt|rt-lts))?$/,
  opensuse: /^kernel-(default|kvmsmall)$/,
  postmarketos: /^linux-(?!tools-|firmware-)(?!.*-(doc|dev|manual)$)/,
  ...Object.fromEntries(
    ['fedora', 'mageia', 'openmandriva', 'azure', 'centos', 'alma', 'rocky', 'rhel', 'rhel-ubi'].map((name) => [
      name,
      RPM_KERNEL,
    ]),
  ),
}
