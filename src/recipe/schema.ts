/**
 * The table of settings: every one that mkosi documents, under its name in camelCase, and a few of our own (section `Bisque`).
 *
 * One table, two syntaxes: the TypeScript types of `recipe.ts`, the reading of `--set` and of mkosi.conf, the defaults,
 * what decides package resolution, and what Bisque does not (yet) support are all read off these rows. The comment before
 * a row is its documentation; editors show it at the key in a recipe.
 *
 * Columns: section · type · what else there is to say. A row without `status` is supported.
 */
import { derivedGuid } from '../base/guid.ts'
import * as type from './type.ts'
import {
  always,
  boolean,
  choice,
  feature,
  filename,
  integer,
  list,
  listOr,
  mode,
  oneOf,
  pairs,
  path,
  size,
  string,
  treeSource,
} from './type.ts'

export type Section = 'Include' | 'Config' | 'Distribution' | 'Output' | 'Content' | 'Validation' | 'Build' | 'Runtime' | 'Bisque'

/** How a setting reaches sub-images, in mkosi's words. */
export type Scope = 'local' | 'inherit' | 'universal' | 'multiversal' | 'main' | 'initrd' | 'initrd-inherit' | 'tools'

export type Status =
  | { is: 'supported' }
  /** Accepted and checked; there is nothing it would change. */
  | { is: 'without-effect'; reason: string }
  | { is: 'refused'; reason: string }

/** Reads the value of another setting, for defaults that follow from it. */
export type Get = (key: string) => unknown

export interface Row<I = unknown, V = unknown, S extends Status['is'] = Status['is']> {
  section: Section
  type: type.Type<unknown, unknown, unknown>
  /** mkosi's name where it is not the key with a capital. */
  name?: string
  scope: Scope
  status: Status & { is: S }
  default?: unknown
  /** A default that follows from other settings. */
  defaultFrom?: (get: Get) => unknown
  required: boolean
  /** Changing it may change which packages are chosen: it belongs to the lock's request. */
  resolves: boolean
  /** Never shown, logged or written to a manifest. */
  secret: boolean
  readonly _input?: I
  readonly _value?: V
}

interface More {
  name?: string
  scope?: Scope
  resolves?: true
  secret?: true
}

function row<T, A, I>(section: Section, type: type.Type<T, A, I>, more: More & { default: NoInfer<T> }): Row<I, T, 'supported'>
function row<T, A, I>(
  section: Section,
  type: type.Type<T, A, I>,
  more: More & { defaultFrom: (get: Get) => NoInfer<T> },
): Row<I, T, 'supported'>
function row<T, A, I>(section: Section, type: type.Type<T, A, I>, more: More & { required: true }): Row<I, T, 'supported'>
function row<T, A, I>(section: Section, type: type.Type<T, A, I>, more?: More): Row<I, T | A, 'supported'>
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
  return { ...row(section, type, rest), status: { is: 'refused', reason } } as Row<I, T | A, 'refused'>
}

/** Accepted without effect, for the reason given. */
function idle<T, A, I>(
  section: Section,
  type: type.Type<T, A, I>,
  reason: string,
  more: More = {},
): Row<I, T | A, 'without-effect'> {
  return { ...row(section, type, more), status: { is: 'without-effect', reason } } as Row<I, T | A, 'without-effect'>
}

const names = list(string)
const paths = list(path)
const trees = list(treeSource)
const arguments_ = list(string, 'space')
const quoted = list(string, 'quoted space')
const keySource = type.matching('a key source such as "file" or "engine:pkcs11"', /^[\w-]+(:.*)?$/)

/** Namespace of the GUIDs that follow from an image's id when no seed is set. */
const SEED_NAMESPACE = '3c1d2f0a-52f5-4c1c-9a3f-2f9f6c6c1b0e'

const OTHER_DISTRIBUTIONS =
  'fedora kali ubuntu postmarketos arch opensuse mageia centos rhel rhel-ubi openmandriva rocky alma azure custom'.split(' ')
const OTHER_ARCHITECTURES =
  'alpha arc arm arm64 ia64 loongarch64 mips-le mips64-le parisc ppc ppc64 ppc64-le riscv32 riscv64 s390 s390x tilegx x86'.split(
    ' ',
  )
const OTHER_FORMATS = 'confext cpio directory esp none portable sysext tar uki oci addon'.split(' ')
const SPLITTABLE = ['uki', 'kernel', 'initrd', 'os-release', 'partitions', 'pcrs', 'roothash'] as const

const CACHED = 'every stage is cached by its inputs, so there is nothing to switch'
const OWN_TOOLS = 'image bytes are written in-process, and the few tools needed come from a locked tools tree'

// biome-ignore format: table
export const SETTINGS = {
  // ── Include, Config ────────────────────────────────────────────────────────────────────────────────────────────────
  /** More configuration to read here. */
  include:                       later('Include', paths, { reason: 'for mkosi.conf only; in recipe.ts import a module' }),
  /** Profiles to apply, in this order; `--profile` adds to it. */
  profiles:                      row('Config', names, { scope: 'inherit' }),
  /** Sub-images that are built first. */
  dependencies:                  row('Config', names),
  /** The oldest version that understands this recipe. */
  minimumVersion:                row('Config', string, { scope: 'main' }),
  /** Scripts that print more configuration. */
  configureScripts:              row('Config', paths),
  /** Variables of the caller's environment that scripts see. */
  passEnvironment:               row('Config', arguments_, { scope: 'main' }),

  // ── Distribution ───────────────────────────────────────────────────────────────────────────────────────────────────
  /** Whose packages to use. */
  distribution:                  row('Distribution', choice(['debian'], { later: OTHER_DISTRIBUTIONS }), { scope: 'universal', resolves: true, default: 'debian' }),
  /** Which release of the distribution: `trixie`. There is no default, because a default that moves is not reproducible. */
  release:                       row('Distribution', type.matching('a release name such as "trixie"', /^[a-z0-9][\w.+-]*$/i), { scope: 'universal', resolves: true, required: true }),
  /** The machine the image is for. */
  architecture:                  row('Distribution', choice(['x86-64'], { also: { 'x86_64': 'x86-64', amd64: 'x86-64' }, later: OTHER_ARCHITECTURES }), { scope: 'universal', resolves: true, default: 'x86-64' }),
  /** Where to fetch packages instead of the distribution's own server. Packages are pinned by digest, so a change needs no new lock. */
  mirror:                        row('Distribution', type.matching('a http:// or https:// URL', /^https?:\/\/[^\s/]+/), { scope: 'universal' }),
  /** Resolve against the archive as it was then: `20261123T000000Z`. */
  snapshot:                      row('Distribution', type.matching('a time such as "20261123T000000Z"', /^\d{8}T\d{6}Z$/), { scope: 'universal', resolves: true }),
  /** One repository to use instead of all of the distribution's. */
  localMirror:                   later('Distribution', string, { scope: 'universal' }),
  /** Whether signatures of repositories are checked: always. */
  repositoryKeyCheck:            row('Distribution', always(true, 'nothing is used that no pinned key signed'), { scope: 'multiversal', default: true }),
  /** Whether to fetch the distribution's keys. */
  repositoryKeyFetch:            idle('Distribution', boolean, 'the distributions’ keys are pinned in Bisque', { scope: 'universal' }),
  /** Components beside the distribution's free ones: `non-free-firmware`. */
  repositories:                  row('Distribution', names, { scope: 'universal', resolves: true }),

  // ── Output ─────────────────────────────────────────────────────────────────────────────────────────────────────────
  /** What to make. */
  format:                        row('Output', choice(['disk'], { later: OTHER_FORMATS }), { default: 'disk' }),
  /** Which manifests to write. The JSON one is always written. */
  manifestFormat:                row('Output', list(choice(['json'], { later: ['changelog'] })), { default: ['json'] }),
  /** Name of the image without extension. mkosi leaves the architecture out; channels that serve several need it in. */
  output:                        row('Output', filename, { defaultFrom: (get) => ['imageId', 'imageVersion', 'architecture'].map(get).filter((part) => part !== undefined).join('_') }),
  /** Extension of the image. */
  outputExtension:               row('Output', filename),
  /** Size of the disk image. */
  outputSize:                    row('Output', size),
  /** Compress the artifacts. */
  compressOutput:                row('Output', choice(['none', 'zstd'], { yes: 'zstd', no: 'none', also: { zst: 'zstd' }, later: ['xz', 'bz2', 'gz', 'gzip', 'lz4', 'lzma'] }), { default: 'none' }),
  /** How hard to compress the artifacts. */
  compressLevel:                 row('Output', integer(1, 22), { scope: 'inherit', default: 3 }),
  /** Where the artifacts go; `--output` wins. */
  outputDirectory:               row('Output', path, { scope: 'universal', defaultFrom: (get) => `${get('directory')}/out` }),
  /** Mode of the artifacts. */
  outputMode:                    row('Output', mode, { scope: 'universal' }),
  /** Version of the image: in names, os-release and updates. */
  imageVersion:                  row('Output', type.matching('a version such as "1.2"', /^[A-Za-z0-9][A-Za-z0-9.+~^-]*$/), { scope: 'inherit' }),
  /** Name of the image: in file names, os-release and updates. */
  imageId:                       row('Output', type.matching('a name of letters, digits, ".", "_" and "-"', /^[A-Za-z0-9][\w.-]*$/), { scope: 'inherit', default: 'image' }),
  /** Labels of an OCI image. */
  ociLabels:                     row('Output', pairs()),
  /** Annotations of an OCI image. */
  ociAnnotations:                row('Output', pairs()),
  /** Parts to write as files of their own. mkosi leaves partitions out by default; updates are made of them. */
  splitArtifacts:                row('Output', listOr(choice(SPLITTABLE, { later: ['tar', 'kernel-modules-initrd', 'repart-definitions'] }), ['uki', 'kernel', 'initrd', 'partitions'], ['uki', 'kernel', 'initrd']), { default: ['uki', 'partitions'] }),
  /** Folders of partition definitions. */
  repartDirectories:             row('Output', paths),
  /** Bytes in a sector of the disk. */
  sectorSize:                    row('Output', oneOf(512, 4096), { scope: 'inherit', default: 512 }),
  /** Ship only what differs from the base trees. */
  overlay:                       row('Output', boolean),
  /** GUID that all others follow from. Follows from the image's id by default, where mkosi draws one at random. */
  seed:                          row('Output', type.guid, { defaultFrom: (get) => derivedGuid(SEED_NAMESPACE, String(get('imageId'))) }),
  /** Make the image bootable from a CD. */
  elTorito:                      later('Output', feature),
  /** System identifier of the CD. */
  elToritoSystem:                later('Output', string),
  /** Volume identifier of the CD. */
  elToritoVolume:                later('Output', string),
  /** Publisher of the CD. */
  elToritoPublisher:             later('Output', string),
  /** Scripts run by `mkosi clean`. */
  cleanScripts:                  row('Output', paths),

  // ── Content ────────────────────────────────────────────────────────────────────────────────────────────────────────
  /** Packages in the image. */
  packages:                      row('Content', names, { resolves: true }),
  /** Packages that only build scripts see. */
  buildPackages:                 row('Content', names, { resolves: true }),
  /** Packages that are installed last, after the cached part. */
  volatilePackages:              row('Content', names, { resolves: true }),
  /** Folders of packages to use beside the repositories. */
  packageDirectories:            row('Content', paths, { scope: 'universal', resolves: true }),
  /** Folders of packages to use for the volatile part. */
  volatilePackageDirectories:    row('Content', paths, { scope: 'universal', resolves: true }),
  /** Install what packages merely recommend. */
  withRecommends:                row('Content', boolean, { resolves: true, default: false }),
  /** Keep documentation. */
  withDocs:                      row('Content', boolean, { default: true }),
  /** Trees to build upon instead of an empty one. */
  baseTrees:                     row('Content', paths),
  /** Trees copied in before packages are installed. */
  skeletonTrees:                 row('Content', trees),
  /** Trees copied in after packages are installed. */
  extraTrees:                    row('Content', trees),
  /** Packages left out, or removed at the end. */
  removePackages:                row('Content', names, { resolves: true }),
  /** Files removed at the end, as globs. */
  removeFiles:                   row('Content', list(type.imagePath)),
  /** Remove the package manager's database; by default when the package manager is not in the image. */
  cleanPackageMetadata:          row('Content', feature, { default: 'auto' }),
  /** The one time in the image, in seconds; by default that of the lock's snapshot. */
  sourceDateEpoch:               row('Content', integer(0), { scope: 'multiversal' }),
  /** Scripts run before anything else, to update sources. */
  syncScripts:                   row('Content', paths),
  /** Scripts run after packages are installed; called with `final`. */
  prepareScripts:                row('Content', paths),
  /** Scripts that compile things for the image. */
  buildScripts:                  row('Content', paths),
  /** Scripts run after packages and trees are in. */
  postInstallationScripts:       row('Content', paths),
  /** Scripts run last, on the finished tree. */
  finalizeScripts:               row('Content', paths),
  /** Scripts run on the written artifacts. */
  postOutputScripts:             row('Content', paths),
  /** Whether to install a boot loader and a kernel image; `auto` when the image holds a kernel. */
  bootable:                      row('Content', feature, { default: 'auto' }),
  /** The UEFI boot loader. */
  bootloader:                    row('Content', choice(['systemd-boot'], { later: ['none', 'uki', 'grub', 'uki-signed', 'systemd-boot-signed', 'grub-signed'] }), { default: 'systemd-boot' }),
  /** The boot loader for BIOS. */
  biosBootloader:                row('Content', choice(['none'], { later: ['grub'] }), { default: 'none' }),
  /** A first boot loader signed by Microsoft. */
  shimBootloader:                row('Content', choice(['none'], { later: ['signed', 'unsigned'] }), { default: 'none' }),
  /** Kernel, initrd and command line in one signed file: always. */
  unifiedKernelImages:           row('Content', choice(['unsigned', 'auto'], { yes: 'auto', later: ['none', 'signed'] }), { default: 'auto' }),
  /** Name of the unified kernel image on the ESP, without `.efi`. */
  unifiedKernelImageFormat:      row('Content', filename),
  /** Further boot entries inside the unified kernel image. */
  unifiedKernelImageProfiles:    row('Content', paths),
  /** Initrds to use instead of the one built from packages. */
  initrds:                       row('Content', paths),
  /** Put the build machine's microcode into the initrd. */
  microcodeHost:                 row('Content', always(false, 'the image would depend on the machine that built it'), { default: false }),
  /** Sets of features for the initrd. */
  initrdProfiles:                row('Content', names, { scope: 'initrd', resolves: true }),
  /** Packages in the initrd, beside the default ones. */
  initrdPackages:                row('Content', names, { scope: 'initrd', resolves: true }),
  /** Volatile packages in the initrd. */
  initrdVolatilePackages:        row('Content', names, { scope: 'initrd', resolves: true }),
  /** Device trees for the unified kernel image. */
  devicetrees:                   later('Content', names),
  /** Picture shown while the kernel starts. */
  splash:                        row('Content', type.imagePath),
  /** Arguments added to the kernel command line. */
  kernelCommandLine:             row('Content', arguments_),
  /** Kernel modules in the image, as globs; `-` before one leaves out. Empty keeps all. */
  kernelModules:                 row('Content', names),
  /** The older form of `KernelModules=`, with regular expressions. */
  kernelModulesInclude:          row('Content', names),
  /** The older form of `KernelModules=-`, with regular expressions. */
  kernelModulesExclude:          row('Content', names),
  /** Keep the modules that the build machine has loaded. */
  kernelModulesIncludeHost:      row('Content', always(false, 'the image would depend on the machine that built it'), { default: false }),
  /** Whether the initrd gets kernel modules. */
  kernelModulesInitrd:           row('Content', boolean, { default: true }),
  /** Kernel modules in the initrd, as globs; `-` before one leaves out. `default` stands for the usual ones. */
  kernelInitrdModules:           row('Content', names, { default: ['default'] }),
  /** The older form of `KernelInitrdModules=`, with regular expressions. */
  kernelModulesInitrdInclude:    row('Content', names),
  /** The older form of `KernelInitrdModules=-`, with regular expressions. */
  kernelModulesInitrdExclude:    row('Content', names),
  /** Give the initrd the modules that the build machine has loaded. */
  kernelModulesInitrdIncludeHost: row('Content', always(false, 'the image would depend on the machine that built it'), { default: false }),
  /** Firmware in the image, as globs; `-` before one leaves out. */
  firmwareFiles:                 row('Content', names),
  /** The older form of `FirmwareFiles=`, with regular expressions. */
  firmwareInclude:               row('Content', names),
  /** The older form of `FirmwareFiles=-`, with regular expressions. */
  firmwareExclude:               row('Content', names),
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
  rootPassword:                  row('Content', type.password, { scope: 'initrd-inherit', secret: true }),
  /** Shell of root. */
  rootShell:                     row('Content', type.imagePath),
  /** A fixed machine id, the same on every machine that boots the image. */
  machineId:                     row('Content', type.guid),
  /** Log root in on the consoles. */
  autologin:                     row('Content', boolean, { default: false }),
  /** Make the tree an initrd. */
  makeInitrd:                    row('Content', boolean),
  /** Run an SSH server on a socket to the host. */
  ssh:                           later('Content', choice(['always', 'auto', 'runtime', 'never'], { yes: 'always', no: 'never' })),
  /** Write SELinux labels. */
  selinuxRelabel:                later('Content', feature, { name: 'SELinuxRelabel' }),

  // ── Validation ─────────────────────────────────────────────────────────────────────────────────────────────────────
  /** Sign boot loader and kernel image for UEFI Secure Boot. On by default, where mkosi leaves it off. */
  secureBoot:                    row('Validation', boolean, { default: true }),
  /** Put the keys on the ESP for firmware in setup mode to enrol. */
  secureBootAutoEnroll:          row('Validation', boolean, { default: true }),
  /** Key that signs for Secure Boot. */
  secureBootKey:                 row('Validation', path, { scope: 'universal' }),
  /** Where that key is kept. */
  secureBootKeySource:           later('Validation', keySource, { scope: 'universal' }),
  /** Certificate of that key. */
  secureBootCertificate:         row('Validation', path, { scope: 'universal' }),
  /** Where that certificate is kept. */
  secureBootCertificateSource:   later('Validation', keySource, { scope: 'universal' }),
  /** Program that signs for Secure Boot. */
  secureBootSignTool:            idle('Validation', choice(['auto', 'sbsign', 'systemd-sbsign']), 'signatures are made in-process'),
  /** dm-verity for `/usr`: `signed`. Any image of Bisque's has it. */
  verity:                        row('Validation', choice(['signed'], { yes: 'signed', also: { auto: 'signed' }, later: ['disabled', 'hash', 'defer'] }), { default: 'signed' }),
  /** Key that signs root hashes. */
  verityKey:                     row('Validation', path, { scope: 'universal' }),
  /** Where that key is kept. */
  verityKeySource:               later('Validation', keySource, { scope: 'universal' }),
  /** Certificate of that key. */
  verityCertificate:             row('Validation', path, { scope: 'universal' }),
  /** Where that certificate is kept. */
  verityCertificateSource:       later('Validation', keySource, { scope: 'universal' }),
  /** Sign the expected PCR 11 values, one policy for each boot phase. */
  signExpectedPcr:               row('Validation', feature, { default: true }),
  /** Key that signs expected PCR values. */
  signExpectedPcrKey:            row('Validation', path, { scope: 'inherit' }),
  /** Where that key is kept. */
  signExpectedPcrKeySource:      later('Validation', keySource, { scope: 'inherit' }),
  /** Certificate of that key. */
  signExpectedPcrCertificate:    row('Validation', path, { scope: 'inherit' }),
  /** Where that certificate is kept. */
  signExpectedPcrCertificateSource: later('Validation', keySource, { scope: 'inherit' }),
  /** File with the passphrase of encrypted partitions. */
  passphrase:                    row('Validation', path, { secret: true }),
  /** Write a SHA256SUMS file. */
  checksum:                      row('Validation', boolean),
  /** Sign SHA256SUMS with OpenPGP. */
  sign:                          later('Validation', boolean),
  /** OpenPGP key for that. */
  key:                           later('Validation', string),
  /** OpenPGP program for that. */
  openpgpTool:                   later('Validation', string, { name: 'OpenPGPTool' }),

  // ── Build ──────────────────────────────────────────────────────────────────────────────────────────────────────────
  /** Tree to take build tools from. */
  toolsTree:                     idle('Build', string, OWN_TOOLS, { scope: 'universal' }),
  /** Distribution of the tools tree. */
  toolsTreeDistribution:         idle('Build', string, OWN_TOOLS, { scope: 'tools' }),
  /** Release of the tools tree. */
  toolsTreeRelease:              idle('Build', string, OWN_TOOLS, { scope: 'tools' }),
  /** Sets of tools in the tools tree. */
  toolsTreeProfiles:             idle('Build', names, OWN_TOOLS, { scope: 'tools' }),
  /** Mirror for the tools tree. */
  toolsTreeMirror:               idle('Build', string, OWN_TOOLS, { scope: 'tools' }),
  /** Repositories for the tools tree. */
  toolsTreeRepositories:         later('Build', names, { scope: 'tools', resolves: true }),
  /** Trees for the package manager of the tools tree. */
  toolsTreeSandboxTrees:         later('Build', trees, { scope: 'tools' }),
  /** Packages in the tools tree, beside Bisque's own. */
  toolsTreePackages:             row('Build', names, { scope: 'tools', resolves: true }),
  /** Folders of packages for the tools tree. */
  toolsTreePackageDirectories:   later('Build', paths, { scope: 'tools', resolves: true }),
  /** Use the CA certificates of the tools tree. */
  toolsTreeCertificates:         idle('Build', boolean, OWN_TOOLS, { scope: 'universal' }),
  /** Further folders to look for tools. */
  extraSearchPaths:              idle('Build', paths, OWN_TOOLS, { scope: 'universal' }),
  /** Keep the installed packages for the next build. */
  incremental:                   idle('Build', choice(['yes', 'no', 'strict'], { yes: 'yes', no: 'no' }), CACHED, { scope: 'universal' }),
  /** Whether to use cached package lists. */
  cacheOnly:                     idle('Build', choice(['always', 'auto', 'metadata', 'never'], { yes: 'always', no: 'auto', also: { none: 'auto' } }), 'the lock decides what is used; --offline keeps off the network', { scope: 'inherit' }),
  /** Configuration of the package manager, such as further repositories. */
  sandboxTrees:                  row('Build', trees, { scope: 'universal', resolves: true }),
  /** Folder for temporary files. */
  workspaceDirectory:            idle('Build', path, 'work is done below the cache; use --cache', { scope: 'multiversal' }),
  /** Folder for cached images. */
  cacheDirectory:                idle('Build', path, 'use --cache', { scope: 'universal' }),
  /** What tells cached images apart. */
  cacheKey:                      idle('Build', string, CACHED, { scope: 'inherit' }),
  /** Folder for downloaded packages. */
  packageCacheDirectory:         idle('Build', path, 'use --cache', { scope: 'multiversal' }),
  /** Folder that build scripts keep their objects in. */
  buildDirectory:                row('Build', path, { scope: 'universal' }),
  /** What tells build folders apart. */
  buildKey:                      later('Build', string, { scope: 'inherit' }),
  /** Use btrfs subvolumes. */
  useSubvolumes:                 idle('Build', feature, OWN_TOOLS, { scope: 'universal' }),
  /** Write partitions without loop devices. */
  repartOffline:                 row('Build', always(true, 'partitions are always written without loop devices'), { scope: 'universal', default: true }),
  /** Remember the command line of a build. */
  history:                       idle('Build', boolean, 'each command says all it needs', { scope: 'main' }),
  /** Sources that scripts see. */
  buildSources:                  row('Build', trees, { scope: 'multiversal' }),
  /** Give scripts a throw-away copy of the sources. */
  buildSourcesEphemeral:         row('Build', choice(['yes', 'no', 'buildcache'], { yes: 'yes', no: 'no' }), { scope: 'multiversal' }),
  /** Variables that scripts see. */
  environment:                   row('Build', pairs(true)),
  /** Files with such variables. */
  environmentFiles:              row('Build', paths),
  /** Whether build scripts run tests. */
  withTests:                     row('Build', boolean, { scope: 'universal' }),
  /** Let scripts use the network. */
  withNetwork:                   row('Build', boolean, { scope: 'universal' }),
  /** Proxy for downloads. */
  proxyUrl:                      later('Build', string, { scope: 'multiversal' }),
  /** Hosts that need no proxy. */
  proxyExclude:                  later('Build', names, { scope: 'multiversal' }),
  /** CA certificates to trust for the proxy. */
  proxyPeerCertificate:          later('Build', path, { scope: 'multiversal' }),
  /** Certificate for the proxy. */
  proxyClientCertificate:        later('Build', path, { scope: 'multiversal', secret: true }),
  /** Key for the proxy. */
  proxyClientKey:                later('Build', path, { scope: 'multiversal', secret: true }),
  /** Mark scripts executable. */
  makeScriptsExecutable:         row('Build', boolean, { scope: 'multiversal' }),
  /** Own files in the foreign UID range. */
  foreignUidRange:               later('Build', boolean, { name: 'ForeignUIDRange', scope: 'main' }),

  // ── Runtime ────────────────────────────────────────────────────────────────────────────────────────────────────────
  /** Settings for systemd-nspawn. */
  nspawnSettings:                later('Runtime', path, { name: 'NSpawnSettings', scope: 'main' }),
  /** Run on a copy of the image that is dropped afterwards. */
  ephemeral:                     idle('Runtime', boolean, '`bisque vm` always runs on a throw-away copy unless told --keep', { scope: 'main' }),
  /** Credentials passed to the running image. */
  credentials:                   row('Runtime', pairs(), { scope: 'main', secret: true }),
  /** Arguments added to the kernel command line when run. */
  kernelCommandLineExtra:        row('Runtime', arguments_, { scope: 'main' }),
  /** Trees mounted when run. */
  runtimeTrees:                  later('Runtime', trees, { scope: 'main' }),
  /** Size that the disk is grown to when run. */
  runtimeSize:                   row('Runtime', size, { scope: 'main' }),
  /** Network when run. */
  runtimeNetwork:                later('Runtime', choice(['interface', 'user', 'none']), { scope: 'main' }),
  /** Mount the sources when run. */
  runtimeBuildSources:           later('Runtime', boolean, { scope: 'main' }),
  /** Let the calling user into the container. */
  bindUser:                      later('Runtime', boolean, { scope: 'main' }),
  /** Key for SSH. */
  sshKey:                        later('Runtime', path, { scope: 'main', secret: true }),
  /** Certificate for SSH. */
  sshCertificate:                later('Runtime', path, { scope: 'main' }),
  /** What runs the virtual machine. */
  virtualMachineMonitor:         row('Runtime', choice(['qemu'], { later: ['vmspawn'] }), { scope: 'main', default: 'qemu' }),
  /** Name of the machine when run. */
  machine:                       later('Runtime', string, { scope: 'main' }),
  /** File that the journal is forwarded to when run. */
  forwardJournal:                later('Runtime', path, { scope: 'main' }),
  /** Folder of transfer definitions for the sysupdate verb. */
  sysupdateDirectory:            later('Runtime', path, { scope: 'main' }),
  /** Console of the virtual machine. */
  console:                       later('Runtime', choice(['interactive', 'read-only', 'native', 'gui', 'headless']), { scope: 'main' }),
  /** Processors of the virtual machine. */
  cpus:                          row('Runtime', integer(0), { name: 'CPUs', scope: 'main' }),
  /** Memory of the virtual machine. */
  ram:                           row('Runtime', size, { name: 'RAM', scope: 'main' }),
  /** Memory the virtual machine can grow to. */
  maxMem:                        later('Runtime', size, { scope: 'main' }),
  /** Use KVM. */
  kvm:                           idle('Runtime', feature, '`bisque vm` uses KVM where it is', { name: 'KVM', scope: 'main' }),
  /** Give the virtual machine CXL devices. */
  cxl:                           later('Runtime', boolean, { name: 'CXL', scope: 'main' }),
  /** Give the virtual machine a socket to the host. */
  vsock:                         later('Runtime', feature, { name: 'VSock', scope: 'main' }),
  /** Number of that socket. */
  vsockCid:                      later('Runtime', string, { name: 'VSockCID', scope: 'main' }),
  /** Give the virtual machine a TPM. */
  tpm:                           idle('Runtime', feature, '`bisque vm` always has a software TPM', { name: 'TPM', scope: 'main' }),
  /** Attach the disk as a removable one. */
  removable:                     later('Runtime', boolean, { scope: 'main' }),
  /** How the disk is attached. */
  diskType:                      later('Runtime', choice(['virtio-blk', 'virtio-scsi', 'nvme', 'scsi-cd']), { scope: 'main' }),
  /** Firmware of the virtual machine. */
  firmware:                      later('Runtime', choice(['auto', 'linux', 'linux-noinitrd', 'uefi', 'uefi-secure-boot']), { scope: 'main' }),
  /** Variables of the firmware. */
  firmwareVariables:             later('Runtime', path, { scope: 'main' }),
  /** Kernel to start directly. */
  linux:                         later('Runtime', string, { scope: 'main' }),
  /** Further disks. */
  drives:                        later('Runtime', arguments_, { scope: 'main' }),
  /** Further arguments for QEMU. */
  qemuArgs:                      later('Runtime', quoted, { scope: 'main' }),
  /** Register the machine with systemd-machined. */
  register:                      idle('Runtime', feature, 'nothing on the host is touched', { scope: 'main' }),
  /** Serve the disk to other machines. */
  storageTargetMode:             later('Runtime', feature, { scope: 'main' }),

  // ── Bisque's own ───────────────────────────────────────────────────────────────────────────────────────────────────
  /**
   * Accept repository metadata past its Valid-Until. An archive that stands still (a snapshot, a frozen mirror) expires,
   * and the signature alone cannot tell it from an attacker who holds updates back; so it takes a word of the recipe's.
   */
  allowExpired:                  row('Bisque', boolean, { scope: 'universal', default: false }),
} as const satisfies Record<string, Row>

type Table = typeof SETTINGS
export type Key = keyof Table
type InputOf<R> = R extends Row<infer I, any, any> ? I : never
type ValueOf<R> = R extends Row<any, infer V, any> ? V : never
type KeyThatIs<S extends Status['is']> = { [K in Key]: Table[K]['status']['is'] extends S ? K : never }[Key]

export type SupportedKey = KeyThatIs<'supported'>
/** Settings that a recipe may carry. */
export type WritableKey = Exclude<KeyThatIs<'supported' | 'without-effect'>, 'profiles'>

type Inputs<T, K extends keyof T> = { [P in K]?: InputOf<T[P]> }
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

const BY_NAME = new Map<string, Key>(KEYS.flatMap((key) => [[key, key] as const, [mkosiName(key), key] as const]))

/** The setting of that name in either spelling. */
export const settingNamed = (name: string): Key | undefined => BY_NAME.get(name)
