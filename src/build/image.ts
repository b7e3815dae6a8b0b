/** The parts of a disk image, made from installed trees: /usr with its hash tree and signature, initrds, UKI and ESP. */
import { join } from 'node:path'
import type { Sha256 } from '../base/digest.ts'
import { Fault } from '../base/fault.ts'
import { derivedGuid, guidBytes, hmac } from '../base/guid.ts'
import type { Report } from '../base/report.ts'
import { type Designator, partitionType } from '../formats/dps.ts'
import { crypt } from '../formats/sha512-crypt.ts'
import { encodeVeritySignature } from '../formats/verity.ts'
import { fileSystemGuid } from '../image/disk.ts'
import { signPe } from '../image/efi-program.ts'
import { writeErofs } from '../image/erofs.ts'
import { espSizeFor, espTree, writeEsp } from '../image/esp.ts'
import { makeInitrd, makeModulesInitrd } from '../image/initrd.ts'
import { initrdTree } from '../image/initrd-tree.ts'
import { kernelVersions, selectModules } from '../image/kernel-modules.ts'
import { makeMicrocode } from '../image/microcode.ts'
import { makeUki, type Uki } from '../image/uki.ts'
import { clampTimes, usrLayout } from '../image/usr.ts'
import { USR_SIGNATURE_CMDLINE, usrSignatureUnit } from '../image/usr-signature.ts'
import { writeVerity } from '../image/verity.ts'
import type { Recipe } from '../recipe/recipe.ts'
import type { Settings } from '../recipe/schema.ts'
import { withWorkers } from '../run/workers.ts'
import { signRootHash } from '../signing/root-hash.ts'
import { makeEnrolment } from '../signing/secure-boot.ts'
import { madeFile, readContent, readText } from '../tree/content.ts'
import { type Content, subtree, type Tree } from '../tree/tree.ts'
import type { Signing } from './keys.ts'

export interface ImageInput {
  recipe: Recipe
  signing: Signing
  /** The installed systems. */
  system: Tree
  initrd: Tree
  epoch: number
  /** Scratch folder, there already. */
  work: string
}

export interface ImageParts {
  kernel: string
  commandLine: string
  usr: UsrFiles
  initrds: Initrds
  uki: Uki
  esp: { path: string; sizeBytes: number }
  osRelease: string
  vmlinuz: Content
}

/** Room for UKIs to come: an update puts its own beside the one there is. */
const ESP_BYTES = 512 << 20

export async function makeImage(input: ImageInput, report: Report): Promise<ImageParts> {
  const kernel = kernelOf(input.system)
  const system = withKernelInPlace(input.system, kernel)
  const [usr, initrds] = await Promise.all([
    report.step('Write /usr', (report) => writeUsr(input, system, report)),
    report.step('Pack initrd', () => packInitrds(input, system, kernel)),
  ])
  const commandLine = commandLineOf(input.recipe.settings, usr.rootHash)
  const vmlinuz = contentOf(system, `usr/lib/modules/${kernel}/vmlinuz`, 'a kernel package')
  const uki = await report.step('Make UKI', () =>
    makeUki({
      stub: contentOf(system, 'usr/lib/systemd/boot/efi/linuxx64.efi.stub', 'systemd-boot-efi'),
      kernel: vmlinuz,
      initrds: [initrds.base, ...(initrds.modules ? [initrds.modules] : [])].map((bytes) => ({ bytes })),
      ...(initrds.microcode ? { microcode: { bytes: initrds.microcode } } : {}),
      osRelease: usr.osRelease,
      cmdline: commandLine,
      uname: kernel,
      signers: input.signing.signers,
      banks: ['sha256'],
    }),
  )
  const esp = await report.step('Write ESP', () => writeImageEsp(input, system, uki))
  return { kernel, commandLine, usr, initrds, uki, esp, osRelease: usr.osRelease, vmlinuz }
}

function kernelOf(system: Tree): string {
  const kernels = kernelVersions(system)
  if (kernels.length === 1) return kernels[0]!
  throw new Fault(
    'recipe',
    `Cannot choose a kernel: the image has ${kernels.length === 0 ? 'none' : kernels.join(', ')}, expected one`,
    {
      hint: 'let packages hold one kernel, such as linux-image-amd64 or linux-image-cloud-amd64',
    },
  )
}

/** Debian keeps kernels in /boot; an image that is /usr keeps them beside their modules. */
function withKernelInPlace(system: Tree, kernel: string): Tree {
  const place = `usr/lib/modules/${kernel}/vmlinuz`
  const boot = system.get(`boot/vmlinuz-${kernel}`)
  return system.has(place) || boot === undefined ? system : new Map([...system, [place, boot]])
}

export interface UsrFiles {
  /** Paths of the EROFS and of its hash tree. */
  data: string
  hash: string
  /** Content of the signature partition. */
  signature: Uint8Array
  rootHash: Sha256
  dataBytes: number
  hashBytes: number
  osRelease: string
}

async function writeUsr(input: ImageInput, system: Tree, report: Report): Promise<UsrFiles> {
  const { settings } = input.recipe
  const usr = await usrLayout(system, {
    epoch: input.epoch,
    imageId: settings.imageId,
    imageVersion: settings.imageVersion,
    hostname: settings.hostname,
    locale: settings.locale,
    keymap: settings.keymap,
    timezone: settings.timezone,
    rootPasswordHash: rootPasswordHash(settings),
    rootShell: settings.rootShell,
    packageDatabase: settings.cleanPackageMetadata !== true,
    volatileRoot: rootWords(settings).includes('root=tmpfs'),
  })
  const [data, hash] = [join(input.work, 'usr'), join(input.work, 'usr-verity')]
  const uuid = fileSystemGuid(seedGuid(settings, 'usr'))
  const { sizeBytes } = await report.step('Write EROFS', (report) =>
    writeErofs(subtree(usr, 'usr'), data, { uuid, compression: 'zstd' }, report),
  )
  const verity = await report.step('Hash /usr', () =>
    writeVerity(data, hash, { salt: hmac(settings.seed, 'verity-salt'), uuid: derivedGuid(settings.seed, 'verity-uuid') }),
  )
  const signature = encodeVeritySignature(await signRootHash(verity.rootHash, input.signing.signers.verity))
  const osRelease = (await readText(usr, 'usr/lib/os-release')) ?? ''
  return { data, hash, signature, rootHash: verity.rootHash, dataBytes: sizeBytes, hashBytes: verity.sizeBytes, osRelease }
}

/** The GUID that the first partition of a type gets from the seed. */
const seedGuid = (settings: Settings, type: Designator): string =>
  derivedGuid(settings.seed, guidBytes(partitionType(type, settings.architecture).guid))

/** A plain password is hashed with a salt that follows from the seed: the same recipe gives the same image. */
function rootPasswordHash({ rootPassword, seed }: Settings): string | undefined {
  if (rootPassword === undefined || rootPassword.hashed || rootPassword.value === '') return rootPassword?.value
  return crypt(rootPassword.value, hmac(seed, 'root-password').toString('hex').slice(0, 16))
}

export interface Initrds {
  base: Uint8Array
  modules: Uint8Array | undefined
  microcode: Uint8Array | undefined
}

async function packInitrds(input: ImageInput, system: Tree, kernel: string): Promise<Initrds> {
  const { settings } = input.recipe
  const { epoch } = input
  const selected = settings.kernelModulesInitrd
    ? await selectModules(system, { kernel, architecture: settings.architecture, modules: settings.kernelInitrdModules })
    : undefined
  const extra = new Map(usrSignatureUnit({ architecture: settings.architecture, epoch }))
  // The name that is set first stays: the initrd's PID 1 sets it long before /etc is in place.
  if (settings.hostname !== undefined) extra.set('etc/hostname', madeFile(`${settings.hostname}\n`, epoch))
  const base = clampTimes(initrdTree(input.initrd, { epoch, extra }), epoch)
  const modules = selected && clampTimes(selected.tree, epoch)
  const [baseBytes, modulesBytes] = await withWorkers(undefined, (workers) =>
    Promise.all([makeInitrd(base, { compression: 'zstd', workers }), modules && makeModulesInitrd(modules, { workers })]),
  )
  return { base: baseBytes, modules: modulesBytes, microcode: await makeMicrocode(system, epoch) }
}

/** The command line pins the root hash, and tells systemd where the initrd left the hash's signature. */
const commandLineOf = (settings: Settings, rootHash: Sha256): string =>
  [`usrhash=${rootHash}`, USR_SIGNATURE_CMDLINE, ...rootWords(settings)].join(' ')

/** The recipe's words. /usr is all there is on the disk: unless they say otherwise, the rest lives in memory. */
const rootWords = ({ kernelCommandLine }: Settings): readonly string[] =>
  kernelCommandLine.some((word) => word.startsWith('root=')) ? kernelCommandLine : ['root=tmpfs', ...kernelCommandLine]

function contentOf(system: Tree, path: string, from: string): Content {
  const inode = system.get(path)
  if (inode?.type === 'file') return inode.content
  throw new Fault('recipe', `Cannot make a bootable image: it has no /${path}`, { hint: `add ${from} to packages` })
}

async function writeImageEsp(input: ImageInput, system: Tree, uki: Uki): Promise<{ path: string; sizeBytes: number }> {
  const { settings } = input.recipe
  const { signers, owner } = input.signing
  const boot = await readContent(contentOf(system, 'usr/lib/systemd/boot/efi/systemd-bootx64.efi', 'systemd-boot-efi'))
  const enrolment = settings.secureBootAutoEnroll ? await makeEnrolment(signers, { owner, time: input.epoch }) : undefined
  const files = await espTree({
    architecture: settings.architecture,
    systemdBoot: await signPe(boot, signers.db),
    uki: { bytes: uki.bytes },
    ukiName: ukiName(settings),
    loaderConf: { timeout: 3, secureBootEnroll: enrolment ? 'force' : 'off', editor: false },
    ...(enrolment ? { keys: { PK: enrolment.PK.auth, KEK: enrolment.KEK.auth, db: enrolment.db.auth } } : {}),
  })
  const sizeBytes = Math.max(ESP_BYTES, espSizeFor(files, settings.sectorSize))
  const path = join(input.work, 'esp')
  const guid = fileSystemGuid(seedGuid(settings, 'esp'))
  await writeEsp(path, files, { sizeBytes, sectorSize: settings.sectorSize, label: 'ESP', guid, epoch: input.epoch })
  return { path, sizeBytes }
}

const ukiName = (settings: Settings): string => settings.unifiedKernelImageFormat ?? settings.output
