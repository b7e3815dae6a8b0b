/**
 * An image that mkosi built from Debian's packages: `bisque verify` says nothing of it but what is true, and finds what is
 * changed in it afterwards, one thing at a time, where it is and nowhere else. All but that thing stays as mkosi made it.
 *
 * MKOSI_OUTPUT  the output folder of any other recipe, built by mkosi with its own keys, to be judged as well
 */
import assert from 'node:assert/strict'
import { copyFileSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { loadTrust } from '../src/cli/verify.ts'
import { decodePe, patchCertificateTable } from '../src/formats/pe.ts'
import { decodeVeritySignature, encodeVeritySignature } from '../src/formats/verity.ts'
import { type EditedImage, editedCopy, openImage } from '../src/image/edit.ts'
import { signPe } from '../src/image/efi-program.ts'
import { run } from '../src/run/process.ts'
import { loadFileSigner } from '../src/signing/file.ts'
import { signRootHash } from '../src/signing/root-hash.ts'
import { makeEnrolment } from '../src/signing/secure-boot.ts'
import type { Signer, Signers } from '../src/signing/signer.ts'
import { checkImage, type Link, type Trust } from '../src/verify/image.ts'
import { EPOCH, testKeys } from './keys.ts'
import { assertProblems, changeUsr, problemsOf } from './mutate.ts'
import { judgeIn } from './oracle.ts'
import { MINIMAL, mkosiIn, noMkosi, sharePackages, writeRecipe } from './peer/mkosi.ts'
import { tinyPe } from './tiny-pe.ts'

/** Many times what it takes: packages may have to be downloaded, and other tests run at the same time. */
const BUILD_MS = 900_000

const RECIPE = {
  ...MINIMAL,
  'mkosi.conf': MINIMAL['mkosi.conf'].replace(/^SplitArtifacts=.*$/m, 'SplitArtifacts='),
  'mkosi.repart/00-esp.conf': MINIMAL['mkosi.repart/00-esp.conf'].replaceAll('512M', '288M'),
  'mkosi.uki-profiles/10-verbose.conf':
    '[UKIProfile]\nProfile=\n        ID=verbose\n        TITLE=Tell more\nCmdline=systemd.log_level=debug\n',
}

/** `UKI` stands for its path, here and in all names of links. */
type Found = Readonly<Record<string, RegExp>>

/** What does not hold in a sound image of this recipe, and why that is so: mkosi puts no policy into an initrd. */
const TRUE_OF_IT: Found = { 'IPE policy of UKI': /^the initrd brings none: whatever root can write, it can run$/ }

/** That these links hold is no matter of having nothing to look at. */
const LOOKED_AT: Found = {
  'enrolment auto': /^PK is CN=mkosi of .*, KEK is CN=mkosi of .*, db is CN=mkosi of /,
  'EFI program EFI/BOOT/BOOTX64.EFI': /systemd-boot .* signed by CN=mkosi of /,
  'EFI program UKI': /systemd-stub .* signed by CN=mkosi of /,
  UKI: /usrhash=[0-9a-f]{64}/,
  'initrd of UKI': /\d{4} paths, .* systemd 25\d/,
  'PCR policies of UKI': /^PCR 11 recomputed for 2 profiles and 4 phase paths/,
  'hash tree': /MiB of data and its tree hash to [0-9a-f]{64}/,
  'usr file system': /^EROFS of .* \d{4,} paths, Minimal 1$/,
  'root hash signature': /^PKCS#7 over the root hash by CN=mkosi of /,
  'kernel modules': /^(\d{4}) of \1 modules carry a signature/,
  'command lines': /^read those of 2 profiles$/,
  'privileged programs': /as distributions ship them: .*\bsu\b/,
}

interface Made {
  uki: string
  /** The one key for everything, as `mkosi genkey` makes it. */
  own: Signers
}

type Edit = (image: EditedImage, made: Made) => void | Promise<void>
type Mutation = [what: string, edit: Edit, found: Found]

const { signers: stranger, directory: strangers } = await testKeys()
const OWNER = '5eed5eed-5eed-4eed-8eed-5eed5eed5eed'
const [FALLBACK, BOOT] = ['EFI/BOOT/BOOTX64.EFI', 'EFI/systemd/systemd-bootx64.efi']
const POLICIES = 'PCR policies of UKI'

const add =
  (path: string, bytes: Uint8Array): Edit =>
  (image) =>
    image.changeEsp({ [path]: bytes })

const flip =
  (type: 'usr' | 'usr-verity', offset: number): Edit =>
  (image) =>
    image.flipBit(image.partition(type), offset, 3)

/** The UKI with other bytes in it, with the signature it has. */
const within =
  (section: string, from: string, to: string): Edit =>
  (image, { uki }) =>
    image.changeEsp({ [uki]: replaced(image.readEsp(uki), section, from, to) })

/** The same by someone who has the key and signs it anew. */
const signedWithin =
  (section: string, from: string, to: string): Edit =>
  async (image, { uki, own }) =>
    image.changeEsp({ [uki]: await signPe(unsigned(replaced(image.readEsp(uki), section, from, to)), own.db) })

/** A signature that somebody made of some root hash, in place of that of its own. */
const signedHash =
  (by: (made: Made) => Signer, of?: string): Edit =>
  async (image, made) => {
    const partition = image.partition('usr-verity-sig')
    const { rootHash } = decodeVeritySignature(image.read(partition))
    const signature = await signRootHash(of ?? rootHash, by(made))
    image.write(partition, 0, encodeVeritySignature({ ...signature, rootHash }))
  }

// biome-ignore format: table
const MUTATIONS: readonly Mutation[] = [
  ['a stranger in db', async (image, { own }) => image.changeEsp({ 'loader/keys/auto/db.auth': (await makeEnrolment({ ...own, db: stranger.db, verity: stranger.verity }, { owner: OWNER, time: EPOCH })).db.auth }), { 'enrolment auto': /db lets in CN=Test Secure Boot/ }],
  ['a systemd-boot signed by a stranger', async (image) => image.changeEsp({ [BOOT]: await signPe(unsigned(image.readEsp(BOOT)), stranger.db) }), { [`EFI program ${BOOT}`]: /CN=Test Secure Boot.* is not a trusted db certificate/ }],
  ['an unsigned shell beside it', add('shellx64.efi', tinyPe()), { 'EFI program shellx64.efi': /not signed/ }],
  ['a credential on the ESP', add('loader/credentials/passwd.cred', Buffer.from('cGxhaW4=')), { 'loose file loader/credentials/passwd.cred': /^nobody signs this credential/ }],
  ['an unsigned UKI', (image, { uki }) => image.changeEsp({ [uki]: unsigned(image.readEsp(uki)) }), { 'EFI program UKI': /not signed/ }],
  ['a UKI signed by a stranger', async (image, { uki }) => image.changeEsp({ [uki]: await signPe(unsigned(image.readEsp(uki)), stranger.db) }), { 'EFI program UKI': /CN=Test Secure Boot.* is not a trusted db certificate/ }],
  ['one letter of its UKI', within('.osrel', 'ID=debian', 'ID=debiax'), { 'EFI program UKI': /the image is not the one that was signed/, 'usr file system': /has ID=debian, .* has ID=debiax/, [POLICIES]: /another state of PCR 11/ }],
  ['another command line, signed with its key', signedWithin('.cmdline', 'console=ttyS0', 'console=ttyS1'), { [POLICIES]: /^profile 0: .*4 policies are for another key or another state of PCR 11$/ }],
  ['another first program, signed with its key', signedWithin('.cmdline', 'console=ttyS0', 'init=/bin/sh '), { 'command lines': /init=\/bin\/sh starts another first program/, [POLICIES]: /profile 0: .*another state of PCR 11/ }],
  ['a hole in its second profile, signed with its key', signedWithin('.cmdline', 'systemd.log_level=debug', 'systemd.debug_shell=tty'), { logins: /profile verbose starts a shell of root/, [POLICIES]: /^profile 1: .*another state of PCR 11/ }],
  ['another signature of a PCR policy', signedWithin('.pcrsig', '"sig": "', '"sig": "////////'), { [POLICIES]: /^profile 0: the signature of the policy for .* does not verify$/ }],
  ['one bit of /usr', flip('usr', 50_000_000), { 'hash tree': /1 of \d+ blocks: 12207/ }],
  ['one bit of the hash tree', flip('usr-verity', 40_000), { 'hash tree': /level 0 of its hash tree is wrong \(1 of \d+ blocks: 5\)/ }],
  ['a root hash signed by a stranger', signedHash(() => stranger.verity), { 'root hash signature': /no trusted verity certificate/ }],
  ['a signature by its key, of another root hash', signedHash(({ own }) => own.verity, '0'.repeat(64)), { 'root hash signature': /does not verify with the certificate/ }],
  ['another UUID of /usr', (image) => void image.changePartition(image.partition('usr'), { guid: OWNER }), { 'usr partitions': /no usr partition has the UUID/, 'hash tree': /not checked/, 'usr file system': /not checked/ }],
  ['bash setuid in a /usr made and signed anew', (image, { uki, own }) => changeUsr(image, uki, own, (files) => files.chmod('bin/bash', 0o4755)), { 'privileged programs': /\/usr\/bin\/bash \(setuid root\)$/ }],
]

/** A stranger's certificates know none of its signatures, and find everything else as sound as its own do. */
const OF_A_STRANGER: Found = {
  'enrolment auto': /./,
  [`EFI program ${FALLBACK}`]: /is not a trusted db certificate/,
  [`EFI program ${BOOT}`]: /is not a trusted db certificate/,
  'EFI program UKI': /is not a trusted db certificate/,
  [POLICIES]: /\.pcrpkey is a key that is not trusted/,
  'root hash signature': /no trusted verity certificate/,
}

describe('an image that mkosi built', { skip: noMkosi }, () => {
  const recipe = mkdtempSync(join(tmpdir(), 'bisque-mkosi-'))
  const image = join(recipe, 'out/Minimal_1.raw')
  let made: Made
  let trust: Trust

  before(async () => {
    writeRecipe(recipe, RECIPE)
    await sharePackages(recipe)
    const { PATH = '' } = process.env
    for (const verb of ['genkey', 'build']) await run(mkosiIn(recipe, verb), { env: { PATH }, timeoutMs: BUILD_MS })
    trust = await loadTrust(recipe)
    const files = { key: join(recipe, 'mkosi.key'), certificate: join(recipe, 'mkosi.crt') }
    const key = await loadFileSigner(files, { epoch: Date.now() / 1000 })
    using built = openImage(image)
    const uki = [...built.espFiles().keys()].find((path) => /^EFI\/Linux\/.*\.efi$/.test(path))!
    made = { uki, own: { pk: key, kek: key, db: key, verity: key, pcr: key } }
  })
  after(() => rmSync(recipe, { recursive: true, force: true }))

  const check = async (path: string, by: Trust | undefined): Promise<Link[]> =>
    (await checkImage(path, by)).map((link) => ({ ...link, name: link.name.replace(made.uki, 'UKI') }))

  for (const [whom, by] of [
    ['the certificate of its maker', () => trust],
    ['the keys it enrols itself', () => undefined],
  ] as const)
    test(`by ${whom}, every link holds but that it has no IPE`, async () => {
      const links = await check(image, by())
      assertProblems(links, TRUE_OF_IT)
      const evidence = Object.fromEntries(links.map((link) => [link.name.replace(/^UKI UKI$/, 'UKI'), link.evidence]))
      for (const [name, what] of Object.entries(LOOKED_AT)) assert.match(evidence[name] ?? 'there is no such link', what, name)
    })

  test('by the certificates of a stranger, nothing of it that is signed holds', async () => {
    assertProblems(await check(image, await loadTrust(strangers)), { ...TRUE_OF_IT, ...OF_A_STRANGER })
  })

  test('[veritysetup] [sbverify] [openssl] find it whole and signed as well', async () => {
    using judge = judgeIn()
    using built = openImage(image)
    const { rootHash, signature } = decodeVeritySignature(built.read(built.partition('usr-verity-sig')))
    const [usr, tree] = [built.read(built.partition('usr')), built.read(built.partition('usr-verity'))]
    for (const [name, bytes] of Object.entries({ usr, tree, rootHash, signature, uki: built.readEsp(made.uki) }))
      writeFileSync(join(judge.dir, name), bytes)
    copyFileSync(join(recipe, 'mkosi.crt'), join(judge.dir, 'crt'))
    await judge.run(['veritysetup', 'verify', 'usr', 'tree', rootHash])
    await judge.run(['sbverify', '--cert', 'crt', 'uki'])
    const verify = ['openssl', 'smime', '-verify', '-binary', '-inform', 'der', '-in', 'signature', '-content', 'rootHash']
    await judge.run([...verify, '-certfile', 'crt', '-nointern', '-noverify'])
  })

  for (const [what, edit, found] of MUTATIONS)
    test(`with ${what}: ${Object.keys(found).join(', ')}`, async (t) => {
      const path = join(recipe, 'mutated.raw')
      t.after(() => rmSync(path, { force: true }))
      await editedCopy(image, path, (copy) => edit(copy, made))
      assertProblems(await check(path, trust), { ...TRUE_OF_IT, ...found })
    })
})

/** A program without its signatures, which lie at its end. */
function unsigned(program: Uint8Array): Uint8Array {
  const pe = decodePe(program)
  const { offset } = pe.certificateTable
  assert.ok(offset > 0, 'it is signed')
  const bare = Buffer.from(program.subarray(0, offset))
  patchCertificateTable(bare, pe, { offset: 0, sizeBytes: 0 })
  return bare
}

/** A program with other words in place of these in the first such section that has them. */
function replaced(program: Uint8Array, section: string, from: string, to: string): Uint8Array {
  const bytes = Buffer.from(program)
  for (const { name, pointerToRawData: at, virtualSize } of decodePe(program).sections) {
    const found = name === section ? bytes.subarray(at, at + virtualSize).indexOf(from) : -1
    if (found < 0) continue
    bytes.write(to, at + found)
    return bytes
  }
  throw new Error(`${section} has no ${from}`)
}

/** Images of others have no IPE either unless they ask for it, and nothing else that does not hold. */
const { MKOSI_OUTPUT: others } = process.env
for (const name of others === undefined ? [] : readdirSync(others))
  if (name.endsWith('.raw') && !/\.(?:usr|root|esp)/.test(name))
    test(`${name}, which mkosi built, raises no alarm but that it has no IPE`, async () => {
      const problems = problemsOf(await checkImage(join(others!, name), undefined))
      assert.deepEqual(
        Object.keys(problems).filter((link) => !link.startsWith('IPE policy of ')),
        [],
        JSON.stringify(problems, null, 2),
      )
    })
