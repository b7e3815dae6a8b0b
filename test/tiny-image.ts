/** An image of a few pages that is sound in every link, whose keys the tests hold, and the ways to make it unsound. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after } from 'node:test'
import { Report } from '../src/base/report.ts'
import { decodePe, findSection, patchCertificateTable } from '../src/formats/pe.ts'
import { encodeVeritySignature, verityPartitionUuids } from '../src/formats/verity.ts'
import { publicKeyOf } from '../src/formats/x509.ts'
import { ukiFiles } from '../src/image/boot-entries.ts'
import { bootLoaderFiles, withFiles } from '../src/image/boot-loader.ts'
import { type DiskPlan, type Partition, type PartitionSource, planDisk, writeDisk } from '../src/image/disk.ts'
import { signPe } from '../src/image/efi-program.ts'
import { writeErofs } from '../src/image/erofs.ts'
import { type EspFiles, espSizeFor, writeEspInto } from '../src/image/esp.ts'
import { makeInitrd } from '../src/image/initrd.ts'
import { fatFiles } from '../src/image/repart/vfat.ts'
import { makeUki, type UkiInput } from '../src/image/uki.ts'
import { writeVerity } from '../src/image/verity.ts'
import { signIpePolicy } from '../src/signing/ipe.ts'
import { generateKeys, loadOwner } from '../src/signing/keys.ts'
import { loadSigners } from '../src/signing/load.ts'
import { signRootHash } from '../src/signing/root-hash.ts'
import { makeEnrolment } from '../src/signing/secure-boot.ts'
import type { Signer } from '../src/signing/signer.ts'
import { madeDirectory, madeFile, madeSymlink } from '../src/tree/content.ts'
import { type Inode, subtree, treeOf } from '../src/tree/tree.ts'
import type { Link, Trust } from '../src/verify/image.ts'
import { EPOCH, testKeys } from './keys.ts'
import { tinyPe } from './tiny-pe.ts'

export const IPE_POLICY = `policy_name=Tiny policy_version=1.0.0
DEFAULT action=DENY
op=EXECUTE boot_verified=TRUE action=ALLOW
op=EXECUTE dmverity_signature=TRUE action=ALLOW
op=KMODULE dmverity_signature=TRUE action=ALLOW
`

const GUARD = `[Unit]
DefaultDependencies=no
FailureAction=reboot-force
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'test "$(cat /sys/kernel/security/ipe/enforce)" = 1'
`

/** What to change of the initrd: files, or (undefined) what to leave out of it. */
export interface InitrdChange {
  files?: Record<string, Inode | undefined>
  policy?: string
  policySigner?: Signer
  policyName?: string
  compression?: 'zstd' | 'xz' | 'gz' | 'none'
}

/** An initrd as verification asks for it; its programs are none. */
export function initrdOf(change: InitrdChange = {}): Promise<Uint8Array> {
  return tinyInitrd(change)
}

async function tinyInitrd(change: InitrdChange): Promise<Uint8Array> {
  const signer = change.policySigner ?? (await testKeys()).signers.verity
  const policy = await signIpePolicy(change.policy ?? IPE_POLICY, signer)
  const program = madeFile('a program', EPOCH, 0o755)
  const files: Record<string, Inode | undefined> = {
    init: madeSymlink('usr/lib/systemd/systemd', EPOCH),
    'etc/initrd-release': madeFile('ID=tiny\n', EPOCH),
    'usr/lib/systemd/systemd': program,
    'usr/lib/systemd/libsystemd-shared-258.so': program,
    'usr/lib/systemd/systemd-veritysetup': program,
    'usr/lib/systemd/system-generators/systemd-veritysetup-generator': program,
    'usr/lib/systemd/system/guard.service': madeFile(GUARD, EPOCH),
    'usr/lib/systemd/system/sysinit.target.requires/guard.service': madeSymlink('../guard.service', EPOCH),
    [`usr/lib/ipe/${change.policyName ?? 'Tiny'}.p7b`]: madeFile(policy, EPOCH),
    ...change.files,
  }
  const there = Object.entries(files).filter((entry): entry is [string, Inode] => entry[1] !== undefined)
  return makeInitrd(treeOf(there, madeDirectory(EPOCH)), { compression: change.compression ?? 'zstd' })
}

export const SEED = '5eed5eed-5eed-4eed-8eed-5eed5eed5eed'
export const OS_RELEASE = 'ID=tiny\nIMAGE_ID=Tiny\nIMAGE_VERSION=1\n'
export const UKI = 'EFI/Linux/Tiny_1.efi'
export const FALLBACK = 'EFI/BOOT/BOOTX64.EFI'
export const BOOT = 'EFI/systemd/systemd-bootx64.efi'

export const folder = mkdtempSync(join(tmpdir(), 'bisque-tiny-'))
after(() => rmSync(folder, { recursive: true, force: true }))
const { directory, signers: own } = await testKeys()
export const signers = own
await generateKeys(join(folder, 'stranger'), { commonName: 'Stranger', now: EPOCH - 86_400, years: 10 })
export const stranger = await loadSigners(join(folder, 'stranger'), { epoch: EPOCH })
export const owner = await loadOwner(directory)
export const trust: Trust = {
  pk: [signers.pk.certificate],
  kek: [signers.kek.certificate],
  db: [signers.db.certificate],
  verity: [signers.verity.certificate],
  pcr: [publicKeyOf(signers.pcr.certificate)],
}
export const usr = await makeUsr('usr', OS_RELEASE)
export const plainBoot = tinyPe({ text: Buffer.alloc(16, 0x42) })
export const initrd = await initrdOf()
export const CMDLINE = `usrhash=${usr.rootHash} systemd.verity_usr_options=root-hash-signature=auto quiet`
export const uki = await ukiOf()
export const enrolment = await makeEnrolment(signers, { owner, time: EPOCH })
export const good = join(folder, 'good.raw')
await assemble(good)

/** A file system and its hash tree: of /usr, or with `at` of the whole root. */
export async function makeUsr(name: string, osRelease: string, at = '') {
  const [data, hash] = [join(folder, name), join(folder, `${name}-verity`)]
  const files = [
    [`${at}lib/os-release`, madeFile(osRelease, EPOCH)],
    [`${at}lib/modules/6.12-tiny/modules.dep`, madeFile('', EPOCH)],
    [`${at}bin/sh`, madeFile(Buffer.alloc(100_000, 'a shell'), EPOCH, 0o755)],
  ] as const
  const tree = treeOf(files, madeDirectory(EPOCH))
  const silent = new Report(() => {})
  const { sizeBytes: dataBytes } = await writeErofs(tree, data, { uuid: SEED, compression: 'none', workers: 1 }, silent)
  const verity = await writeVerity(data, hash, { salt: Buffer.alloc(32, 7), uuid: SEED })
  return { data, hash, dataBytes, hashBytes: verity.sizeBytes, rootHash: verity.rootHash }
}

export async function ukiOf(change: Partial<UkiInput> = {}): Promise<Uint8Array> {
  const input: UkiInput = {
    stub: { bytes: tinyPe() },
    kernel: { bytes: tinyPe({ text: Buffer.from('a kernel') }) },
    initrds: [{ bytes: initrd }],
    osRelease: OS_RELEASE,
    cmdline: CMDLINE,
    uname: '6.12-tiny',
    signers,
  }
  return (await makeUki({ ...input, ...change })).bytes
}

export interface Change {
  usr?: typeof usr
  signature?: Uint8Array
  /** Files of the ESP to replace, add or (undefined) leave out. */
  files?: Record<string, Uint8Array | undefined>
  plan?: (plan: DiskPlan) => void
  /** What the tree is mounted as. */
  verity?: 'usr' | 'root'
  /** Partitions behind the others. */
  more?: { type: Partition['type']; guid?: string; content: Uint8Array }[]
}

/** Writes a whole disk that differs from the good one in this. */
export async function assemble(path: string, change: Change = {}): Promise<void> {
  const { data, hash, dataBytes, hashBytes, rootHash } = change.usr ?? usr
  const { verity = 'usr', more = [] } = change
  const guids = verityPartitionUuids(rootHash)
  const signature = change.signature ?? encodeVeritySignature(await signRootHash(rootHash, signers.verity))
  const files = await espFiles(change.files ?? {})
  const sizeBytes = espSizeFor(files)
  const plan = planDisk(
    [
      { type: 'esp', sizeBytes },
      { type: `${verity}-verity-sig`, sizeBytes: signature.length },
      { type: `${verity}-verity`, guid: guids.hash, sizeBytes: hashBytes },
      { type: verity, guid: guids.data, sizeBytes: dataBytes, readOnly: true },
      ...more.map(({ content, ...rest }) => ({ ...rest, sizeBytes: content.length })),
    ],
    { seed: SEED, architecture: 'x86-64' },
  )
  change.plan?.(plan)
  const esp: PartitionSource = (disk, offset) =>
    writeEspInto(disk, offset, files, { sizeBytes, label: 'ESP', guid: SEED, epoch: EPOCH })
  rmSync(path, { force: true })
  await writeDisk(path, plan, [
    esp,
    { bytes: signature },
    { path: hash },
    { path: data },
    ...more.map(({ content }) => ({ bytes: content })),
  ])
}

async function espFiles(changed: NonNullable<Change['files']>): Promise<EspFiles> {
  const system = treeOf(
    [
      ['usr/lib/systemd/boot/efi/systemd-bootx64.efi', madeFile(plainBoot, EPOCH)],
      ['usr/lib/os-release', madeFile(OS_RELEASE, EPOCH)],
    ],
    madeDirectory(EPOCH),
  )
  const loader = await bootLoaderFiles(system, {
    bootloader: 'systemd-boot',
    signer: signers.db,
    required: true,
    keys: { PK: enrolment.PK.auth, KEK: enrolment.KEK.auth, db: enrolment.db.auth },
    epoch: EPOCH,
  })
  const tree = withFiles(loader, ukiFiles(loader, `boot/${UKI}`, uki, EPOCH))
  const files = new Map([...fatFiles(subtree(tree, 'efi')).files, ...fatFiles(subtree(tree, 'boot')).files])
  for (const [path, bytes] of Object.entries(changed)) {
    if (bytes) files.set(path, { bytes, sizeBytes: bytes.length })
    else files.delete(path)
  }
  return files
}

export const problemsOf = (links: readonly Link[]): Record<string, string> =>
  Object.fromEntries(links.filter(({ ok }) => !ok).map(({ name, problem }) => [name, problem!]))

/** Exactly these links break, and say why. */
export function assertBroken(links: readonly Link[], expected: Record<string, RegExp>): void {
  const problems = problemsOf(links)
  assert.deepEqual(Object.keys(problems).sort(), Object.keys(expected).sort(), JSON.stringify(problems, null, 2))
  for (const [name, why] of Object.entries(expected)) assert.match(problems[name]!, why)
}

/** A signed program without its signature, or with another section content under a new signature. */
export function unsigned(image: Uint8Array): Uint8Array {
  const pe = decodePe(image)
  const plain = Uint8Array.from(image.subarray(0, pe.certificateTable.offset))
  patchCertificateTable(plain, pe, { offset: 0, sizeBytes: 0 })
  return plain
}

export function withSection(name: string, edit: (content: Buffer) => void): Promise<Uint8Array> {
  const plain = unsigned(uki)
  const section = findSection(decodePe(plain), name)!
  edit(Buffer.from(plain.buffer, section.pointerToRawData, section.virtualSize))
  return signPe(plain, signers.db)
}
