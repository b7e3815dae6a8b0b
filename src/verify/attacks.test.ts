/**
 * What someone may do to an image, and the links that must break, no other: over an image of a few pages, sound in every
 * link, whose keys the tests hold. Here its chain is judged as a build promised it. The baked one is in image.test.ts.
 */
import assert from 'node:assert/strict'
import { copyFileSync, existsSync, readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { test } from 'node:test'
import fc from 'fast-check'
import { EPOCH } from '../../test/keys.ts'
import {
  assemble,
  assertBroken,
  BOOT,
  type Change,
  FALLBACK,
  folder,
  good,
  initrd,
  makeUsr,
  OS_RELEASE,
  owner,
  plainBoot,
  problemsOf,
  signers,
  stranger,
  trust as trustOfAll,
  UKI,
  ukiOf,
  usr,
  withSection,
} from '../../test/tiny-image.ts'
import { tinyPe } from '../../test/tiny-pe.ts'
import { sha256 } from '../base/digest.ts'
import { Fault } from '../base/fault.ts'
import { encodeVeritySignature } from '../formats/verity.ts'
import { openImage } from '../image/edit.ts'
import { signPe } from '../image/efi-program.ts'
import { predictFromEsp } from '../image/measured.ts'
import { makeUki } from '../image/uki.ts'
import { signRootHash } from '../signing/root-hash.ts'
import { makeEnrolment } from '../signing/secure-boot.ts'
import { checkImage, type Link, type Trust, verifyImage } from './image.ts'
import { FULL_CHAIN } from './trust.ts'

const trust: Trust = { ...trustOfAll, chain: FULL_CHAIN }

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
    initrds: [{ bytes: initrd }],
    osRelease: OS_RELEASE,
    cmdline: `usrhash=${usr.rootHash} systemd.verity_usr_options=root-hash-signature=auto quiet`,
    uname: '6.12-tiny',
    signers,
  })
  const image = { name: basename(path), type: 'disk', sizeBytes: bytes.length, sha256: sha256(bytes) }
  const manifest = {
    kernel: '6.12-tiny',
    commandLine: `usrhash=${usr.rootHash} systemd.verity_usr_options=root-hash-signature=auto quiet`,
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
  using disk = openImage(good)
  const esp = new Map([...disk.espFiles().keys()].map((name) => [name.toUpperCase(), name]))
  const read = async (name: string) => (esp.has(name.toUpperCase()) ? disk.readEsp(name) : undefined)
  const pcrs = await predictFromEsp(read, disk.readEsp(UKI))
  assertBroken(await check({ pcrs }), {})
  const lie = { ...pcrs.firmware, enrolled: { ...pcrs.firmware.enrolled, pcr7: sha256('x') } }
  assertBroken(await check({ pcrs: { ...pcrs, firmware: lie } }), { manifest: /^pcrs is / })
  assertBroken(await check({ certificates: { db: sha256('x') } }), {
    manifest: /certificates\.db is .* certificates\.verity is absent/,
  })
  assertBroken(await check({ authenticode: {} }), { manifest: /authenticode\.uki is absent, which no UKI/ })
})
