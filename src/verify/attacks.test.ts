/**
 * What someone may do to an image, and the links that must break, no other: over an image of a few pages, sound in every
 * link, whose keys the tests hold. The baked one is in image.test.ts.
 */
import assert from 'node:assert/strict'
import { copyFileSync, existsSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { after, test } from 'node:test'
import fc from 'fast-check'
import { EPOCH, testKeys } from '../../test/keys.ts'
import { tinyPe } from '../../test/tiny-pe.ts'
import { sha256 } from '../base/digest.ts'
import { Fault } from '../base/fault.ts'
import { Report } from '../base/report.ts'
import { decodePe, findSection, patchCertificateTable } from '../formats/pe.ts'
import { encodeVeritySignature, verityPartitionUuids } from '../formats/verity.ts'
import { publicKeyOf } from '../formats/x509.ts'
import { ukiFiles } from '../image/boot-entries.ts'
import { bootLoaderFiles, withFiles } from '../image/boot-loader.ts'
import { type DiskPlan, type PartitionSource, planDisk, writeDisk } from '../image/disk.ts'
import { signPe } from '../image/efi-program.ts'
import { writeErofs } from '../image/erofs.ts'
import { type EspFiles, espSizeFor, writeEspInto } from '../image/esp.ts'
import { fatFiles } from '../image/repart/vfat.ts'
import { makeUki, type UkiInput } from '../image/uki.ts'
import { writeVerity } from '../image/verity.ts'
import { generateKeys, loadOwner } from '../signing/keys.ts'
import { loadSigners } from '../signing/load.ts'
import { signRootHash } from '../signing/root-hash.ts'
import { makeEnrolment } from '../signing/secure-boot.ts'
import { madeDirectory, madeFile } from '../tree/content.ts'
import { subtree, treeOf } from '../tree/tree.ts'
import { checkImage, type Link, type Trust, verifyImage } from './image.ts'

const SEED = '5eed5eed-5eed-4eed-8eed-5eed5eed5eed'
const OS_RELEASE = 'ID=tiny\nIMAGE_ID=Tiny\nIMAGE_VERSION=1\n'
const UKI = 'EFI/Linux/Tiny_1.efi'
const FALLBACK = 'EFI/BOOT/BOOTX64.EFI'
const BOOT = 'EFI/systemd/systemd-bootx64.efi'

const folder = mkdtempSync(join(tmpdir(), 'bisque-attacks-'))
after(() => rmSync(folder, { recursive: true, force: true }))
const { directory, signers } = await testKeys()
await generateKeys(join(folder, 'stranger'), { commonName: 'Stranger', now: EPOCH - 86_400, years: 10 })
const stranger = await loadSigners(join(folder, 'stranger'), { epoch: EPOCH })
const owner = await loadOwner(directory)
const trust: Trust = {
  pk: [signers.pk.certificate],
  kek: [signers.kek.certificate],
  db: [signers.db.certificate],
  verity: [signers.verity.certificate],
  pcr: [publicKeyOf(signers.pcr.certificate)],
}
const usr = await makeUsr('usr', OS_RELEASE)
const plainBoot = tinyPe({ text: Buffer.alloc(16, 0x42) })
const uki = await ukiOf()
const enrolment = await makeEnrolment(signers, { owner, time: EPOCH })
const good = join(folder, 'good.raw')
await assemble(good)

async function makeUsr(name: string, osRelease: string) {
  const [data, hash] = [join(folder, name), join(folder, `${name}-verity`)]
  const files = [
    ['lib/os-release', madeFile(osRelease, EPOCH)],
    ['bin/sh', madeFile(Buffer.alloc(100_000, 'a shell'), EPOCH, 0o755)],
  ] as const
  const tree = treeOf(files, madeDirectory(EPOCH))
  const silent = new Report(() => {})
  const { sizeBytes: dataBytes } = await writeErofs(tree, data, { uuid: SEED, compression: 'none', workers: 1 }, silent)
  const verity = await writeVerity(data, hash, { salt: Buffer.alloc(32, 7), uuid: SEED })
  return { data, hash, dataBytes, hashBytes: verity.sizeBytes, rootHash: verity.rootHash }
}

async function ukiOf(change: Partial<UkiInput> = {}): Promise<Uint8Array> {
  const input: UkiInput = {
    stub: { bytes: tinyPe() },
    kernel: { bytes: tinyPe({ text: Buffer.from('a kernel') }) },
    initrds: [{ bytes: Buffer.from('an initrd') }],
    osRelease: OS_RELEASE,
    cmdline: `usrhash=${usr.rootHash} quiet`,
    uname: '6.12-tiny',
    signers,
  }
  return (await makeUki({ ...input, ...change })).bytes
}

interface Change {
  usr?: typeof usr
  signature?: Uint8Array
  /** Files of the ESP to replace, add or (undefined) leave out. */
  files?: Record<string, Uint8Array | undefined>
  plan?: (plan: DiskPlan) => void
}

/** Writes a whole disk that differs from the good one in this. */
async function assemble(path: string, change: Change = {}): Promise<void> {
  const { data, hash, dataBytes, hashBytes } = change.usr ?? usr
  const guids = verityPartitionUuids(usr.rootHash)
  const signature = change.signature ?? encodeVeritySignature(await signRootHash(usr.rootHash, signers.verity))
  const files = await espFiles(change.files ?? {})
  const sizeBytes = espSizeFor(files)
  const plan = planDisk(
    [
      { type: 'esp', sizeBytes },
      { type: 'usr-verity-sig', sizeBytes: signature.length },
      { type: 'usr-verity', guid: guids.hash, sizeBytes: hashBytes },
      { type: 'usr', guid: guids.data, sizeBytes: dataBytes, readOnly: true },
    ],
    { seed: SEED, architecture: 'x86-64' },
  )
  change.plan?.(plan)
  const esp: PartitionSource = (disk, offset) =>
    writeEspInto(disk, offset, files, { sizeBytes, label: 'ESP', guid: SEED, epoch: EPOCH })
  rmSync(path, { force: true })
  await writeDisk(path, plan, [esp, { bytes: signature }, { path: hash }, { path: data }])
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

const problemsOf = (links: readonly Link[]): Record<string, string> =>
  Object.fromEntries(links.filter(({ ok }) => !ok).map(({ name, problem }) => [name, problem!]))

/** Exactly these links break, and say why. */
function assertBroken(links: readonly Link[], expected: Record<string, RegExp>): void {
  const problems = problemsOf(links)
  assert.deepEqual(Object.keys(problems).sort(), Object.keys(expected).sort(), JSON.stringify(problems, null, 2))
  for (const [name, why] of Object.entries(expected)) assert.match(problems[name]!, why)
}

/** A signed program without its signature, or with another section content under a new signature. */
function unsigned(image: Uint8Array): Uint8Array {
  const pe = decodePe(image)
  const plain = Uint8Array.from(image.subarray(0, pe.certificateTable.offset))
  patchCertificateTable(plain, pe, { offset: 0, sizeBytes: 0 })
  return plain
}

function withSection(name: string, edit: (content: Buffer) => void): Promise<Uint8Array> {
  const plain = unsigned(uki)
  const section = findSection(decodePe(plain), name)!
  edit(Buffer.from(plain.buffer, section.pointerToRawData, section.virtualSize))
  return signPe(plain, signers.db)
}

const strangersDb = await makeEnrolment({ ...signers, db: stranger.db }, { owner, time: EPOCH })
const strangersKek = await makeEnrolment({ ...stranger, db: signers.db, verity: signers.verity }, { owner, time: EPOCH })
const otherUsr = await makeUsr('other', OS_RELEASE)
const POLICIES = `PCR policies of ${UKI}`

// biome-ignore format: table
const ATTACKS: [string, Change | Promise<Change>, Record<string, RegExp>][] = [
  ['nothing', {}, {}],
  ['an unsigned program', { files: { 'EFI/evil.efi': tinyPe() } }, { 'EFI program EFI/evil.efi': /not signed/ }],
  ['an unsigned program under another name', { files: { 'notes.txt': tinyPe() } }, { 'EFI program notes.txt': /not signed/ }],
  ['a program that is none', { files: { 'EFI/x.efi': Buffer.from('#!/bin/sh\n'.repeat(9)) } }, { 'EFI program EFI/x.efi': /Cannot read DOS header/ }],
  ['an unsigned systemd-boot', { files: { [FALLBACK]: plainBoot, [BOOT]: plainBoot } },
    { [`EFI program ${FALLBACK}`]: /not signed/, [`EFI program ${BOOT}`]: /not signed/ }],
  ['a systemd-boot signed by a stranger', signPe(plainBoot, stranger.db).then((bytes) => ({ files: { [BOOT]: bytes } })),
    { [`EFI program ${BOOT}`]: /by CN=Stranger .* is not a trusted db certificate/ }],
  ['a fallback that is another signed program', signPe(tinyPe(), signers.db).then((bytes) => ({ files: { [FALLBACK]: bytes } })),
    { 'systemd-boot': /are different programs/ }],
  ['no fallback', { files: { [FALLBACK]: undefined } }, { 'systemd-boot': /no sound EFI\/BOOT\/BOOTX64/ }],
  ['an initrd changed and signed anew', withSection('.initrd', (b) => b.fill(0)).then((bytes) => ({ files: { [UKI]: bytes } })),
    { [POLICIES]: /no policy of \w+ for sha256 at enter-initrd;.*4 policies are for another/ }],
  ['a .pcrsig cut short and signed anew', withSection('.pcrsig', (b) => b.fill(0x20, 100)).then((bytes) => ({ files: { [UKI]: bytes } })),
    { [POLICIES]: /Cannot read \.pcrsig/ }],
  ['policies of a stranger', ukiOf({ signers: { ...signers, pcr: stranger.pcr } }).then((bytes) => ({ files: { [UKI]: bytes } })),
    { [POLICIES]: /\.pcrpkey is a key that is not trusted/ }],
  ['a signed UKI without usrhash=', ukiOf({ cmdline: 'quiet' }).then((bytes) => ({ files: { [UKI]: bytes } })), {
    [`UKI ${UKI}`]: /no usrhash=/, 'usr partitions': /not checked/, 'hash tree': /not checked/,
    'usr file system': /not checked/, 'root hash signature': /not checked/ }],
  ['a signed UKI with two usrhash=', ukiOf({ cmdline: `usrhash=${usr.rootHash} usrhash=${'0'.repeat(64)}` }).then((bytes) => ({ files: { [UKI]: bytes } })), {
    [`UKI ${UKI}`]: /expected one root hash/, 'usr partitions': /not checked/, 'hash tree': /not checked/,
    'usr file system': /not checked/, 'root hash signature': /not checked/ }],
  ['a signed UKI of another version', ukiOf({ osRelease: OS_RELEASE.replace('VERSION=1', 'VERSION=2') }).then((bytes) => ({ files: { [UKI]: bytes } })),
    { 'usr file system': /has IMAGE_VERSION=1, .osrel of \S+ has IMAGE_VERSION=2/ }],
  ['a signed UKI for another /usr', ukiOf({ cmdline: `usrhash=${'ab'.repeat(32)}` }).then((bytes) => ({ files: { [UKI]: bytes } })), {
    'usr partitions': /no usr partition has the UUID abab/, 'hash tree': /not checked/,
    'usr file system': /not checked/, 'root hash signature': /no signature partition is for abab/ }],
  ['partition UUIDs swapped', { plan: ({ partitions: p }) => ([p[2]!.guid, p[3]!.guid] = [p[3]!.guid, p[2]!.guid]) }, {
    'usr partitions': /no usr partition .* first half .*no usr-verity partition .* second half/,
    'hash tree': /not checked/, 'usr file system': /not checked/ }],
  ['a root hash signed by a stranger', signRootHash(usr.rootHash, stranger.verity).then((s) => ({ signature: encodeVeritySignature(s) })),
    { 'root hash signature': /no trusted verity certificate/ }],
  ['the signature of another root hash', signRootHash(sha256('other'), signers.verity).then((s) => ({ signature: encodeVeritySignature({ ...s, rootHash: usr.rootHash }) })),
    { 'root hash signature': /does not verify/ }],
  ['the hash tree of other data', { usr: { ...usr, data: otherUsrWith('shell', 'SHELL') } }, { 'hash tree': /its blocks do not match/ }],
  ['db with a stranger in it', { files: { 'loader/keys/auto/db.auth': strangersDb.db.auth } }, { 'enrolment auto': /db lets in CN=Stranger .*db lacks CN=Test Secure Boot/ }],
  ['db signed by a stranger', { files: { 'loader/keys/auto/db.auth': strangersKek.db.auth } }, { 'enrolment auto': /db is not signed by KEK: its signer is CN=Stranger/ }],
  ['the KEK of a stranger', { files: { 'loader/keys/auto/KEK.auth': strangersKek.KEK.auth } },
    { 'enrolment auto': /KEK is not signed by PK.*db is not signed by KEK.*KEK lets in CN=Stranger/ }],
  ['no db', { files: { 'loader/keys/auto/db.auth': undefined } }, { 'enrolment auto': /there is no db/ }],
  ['a second set of keys', { files: { 'loader/keys/more/db.auth': strangersDb.db.auth } }, { 'enrolment more': /there is no PK.*db lets in CN=Stranger/ }],
]

/** The data of /usr with some of its bytes replaced. */
function otherUsrWith(from: string, to: string): string {
  const bytes = readFileSync(otherUsr.data)
  bytes.write(to, bytes.indexOf(from))
  writeFileSync(otherUsr.data, bytes)
  return otherUsr.data
}

for (const [what, change, expected] of ATTACKS) {
  const found = Object.keys(expected).join(', ') || 'nothing'
  test(`checkImage() of ${what} finds ${found}`, async () => {
    const path = join(folder, 'attack.raw')
    await assemble(path, await change)
    assertBroken(await checkImage(path, trust), expected)
  })
}

test('checkImage() tells an image cut short, or with bytes behind its table', async () => {
  const path = join(folder, 'size.raw')
  copyFileSync(good, path)
  const sizeBytes = readFileSync(path).length
  truncateSync(path, sizeBytes + 4096)
  assertBroken(await checkImage(path, trust), { 'partition table': /for a disk of \d+ bytes, the image has \d+/ })
  truncateSync(path, sizeBytes - 4096)
  const names = Object.keys(problemsOf(await checkImage(path, trust)))
  assert.equal(names[0], 'partition table')
  assert.ok(names.includes('hash tree'), 'what was not checked does not hold')
})

/** Checks a copy of the good image with these bytes in it, and puts back what was there. */
async function patched(edits: readonly (readonly [number, Uint8Array])[]): Promise<Link[]> {
  const path = join(folder, 'patched.raw')
  if (!existsSync(path)) copyFileSync(good, path)
  await using file = await open(path, 'r+')
  const before = edits.map(([offset, bytes]) => [offset, goodBytes.subarray(offset, offset + bytes.length)] as const)
  for (const [offset, bytes] of edits) await file.write(bytes, 0, bytes.length, offset)
  const links = await checkImage(path, trust)
  for (const [offset, bytes] of before) await file.write(bytes, 0, bytes.length, offset)
  return links
}

const goodBytes = readFileSync(good)
const ESP_AT = 1 << 20

test('checkImage() reads no more than there is, whatever sizes are claimed', async () => {
  const before = process.memoryUsage().rss
  const ones = Buffer.alloc(4, 0xff)
  assert.match(problemsOf(await patched([[ESP_AT + 32, ones]]))['ESP']!, /it says 2199023255040 bytes, its device has \d+/)
  const treeAt = goodBytes.length - 33 * 512 - usr.dataBytes - usr.hashBytes
  const tree = Math.floor(treeAt / 4096) * 4096
  assertBroken(await patched([[tree + 72, Buffer.from([0, 0, 0, 0, 0xff, 0, 0, 0])]]), {
    'verity superblock': /it covers \d+ bytes, partition 4 has \d+/,
    'hash tree': /not checked/,
    'usr file system': /not checked/,
  })
  assert.ok(process.memoryUsage().rss - before < 256 << 20)
})

test('checkImage() has a verdict for any bytes, and throws for none', async () => {
  const bytes = goodBytes
  const used = [...bytes.keys()].filter((i) => i % 64 === 0 && bytes.subarray(i, i + 64).some((byte) => byte !== 0))
  const edit = fc.tuple(fc.constantFrom(...used), fc.nat(63), fc.uint8Array({ minLength: 1, maxLength: 8 }))
  const places = edit.map(([at, more, value]) => [Math.min(at + more, bytes.length - 8), value] as const)
  await fc.assert(
    fc.asyncProperty(fc.array(places, { minLength: 1, maxLength: 3 }), async (edits) => {
      const links = await patched(edits)
      for (const { ok, problem, name } of links) assert.equal(ok, problem === undefined, name)
    }),
    { numRuns: 30, seed: 11 },
  )
  const path = join(folder, 'garbage')
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 4096 }), fc.boolean(), async (noise, table) => {
      writeFileSync(path, table ? Buffer.concat([bytes.subarray(0, 34 * 512), noise]) : noise)
      assert.ok((await checkImage(path, trust)).some(({ ok }) => !ok))
    }),
    { numRuns: 20, seed: 11 },
  )
})

test('checkImage() throws a Fault for what cannot be read at all', async () => {
  for (const path of [join(folder, 'absent'), folder, '/dev/zero'])
    await assert.rejects(checkImage(path, trust), (error) => error instanceof Fault && error.code === 'missing')
})

test('verifyImage() lists every problem in one Fault', async () => {
  const path = join(folder, 'two.raw')
  await assemble(path, {
    signature: encodeVeritySignature(await signRootHash(usr.rootHash, stranger.verity)),
    files: { 'EFI/evil.efi': tinyPe() },
  })
  await assert.rejects(verifyImage(path, trust), (error) => {
    assert.ok(error instanceof Fault)
    assert.equal(error.code, 'integrity')
    assert.match(error.message, /2 of \d+ links .*\n {2}EFI program EFI\/evil\.efi: it is not signed\n {2}root hash signature: /)
    return true
  })
  assert.ok((await verifyImage(good, trust)).length > 12)
})

test('checkImage() believes no manifest beside an image', async () => {
  const path = join(folder, 'listed.raw')
  copyFileSync(good, path)
  const bytes = readFileSync(path)
  const pe = await checkImage(good, trust)
  const digest = /Authenticode (\w+)/.exec(pe.find(({ name }) => name === `EFI program ${UKI}`)!.evidence)![1]!
  const made = await makeUki({
    stub: { bytes: tinyPe() },
    kernel: { bytes: tinyPe({ text: Buffer.from('a kernel') }) },
    initrds: [{ bytes: Buffer.from('an initrd') }],
    osRelease: OS_RELEASE,
    cmdline: `usrhash=${usr.rootHash} quiet`,
    uname: '6.12-tiny',
    signers,
  })
  const image = { name: basename(path), type: 'disk', sizeBytes: bytes.length, sha256: sha256(bytes) }
  const manifest = {
    kernel: '6.12-tiny',
    commandLine: `usrhash=${usr.rootHash} quiet`,
    rootHash: usr.rootHash,
    pcr11: made.pcr11,
    authenticode: { uki: digest },
    certificates: { db: sha256(signers.db.certificate), verity: sha256(signers.verity.certificate) },
    artifacts: [image],
  }
  const check = (change: object) => {
    writeFileSync(join(folder, 'listed.manifest.json'), JSON.stringify({ ...manifest, ...change }))
    return checkImage(path, trust)
  }
  assertBroken(await check({}), {})
  assertBroken(await check({ artifacts: [{ ...image, sha256: sha256('x') }] }), { artifacts: /has SHA-256 \w+, the manifest/ })
  assertBroken(await check({ artifacts: [{ ...image, sizeBytes: 1 }] }), { artifacts: /the manifest says 1/ })
  assertBroken(await check({ artifacts: [] }), { artifacts: /does not name listed\.raw/ })
  const outside = { ...image, name: '../../../etc/passwd' }
  assertBroken(await check({ artifacts: [image, outside] }), { artifacts: /artifact 1 lacks a sound name/ })
  assertBroken(await check({ rootHash: sha256('x') }), { manifest: /^rootHash is / })
  assertBroken(await check({ pcr11: {}, kernel: '6.1' }), { manifest: /kernel is "6\.1".*pcr11 is \{\}/ })
  assertBroken(await check({ certificates: { db: sha256('x') } }), {
    manifest: /certificates\.db is .* certificates\.verity is absent/,
  })
  assertBroken(await check({ authenticode: {} }), { manifest: /authenticode\.uki is absent, which no UKI/ })
})
