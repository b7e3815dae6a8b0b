/**
 * A finished image with one fault at a time: each is found by `bisque verify`, in the link that is named here and with the
 * words that say what it is, and nothing else is said to be broken. What nothing is wrong with raises no alarm.
 */
import assert from 'node:assert/strict'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { loadTrust } from '../src/cli/verify.ts'
import { encodeVeritySignature } from '../src/formats/verity.ts'
import { makeAddon } from '../src/image/addon.ts'
import { type EditedImage, editedCopy } from '../src/image/edit.ts'
import { signPe } from '../src/image/efi-program.ts'
import { signIpePolicy } from '../src/signing/ipe.ts'
import { loadSigners } from '../src/signing/load.ts'
import { signRootHash } from '../src/signing/root-hash.ts'
import { makeEnrolment } from '../src/signing/secure-boot.ts'
import { checkImage } from '../src/verify/image.ts'
import { baked, notBaked, particle } from './baked.ts'
import { EPOCH, testKeys } from './keys.ts'
import {
  assertProblems,
  changeUsr,
  type Overlay,
  problemsOf,
  type UsrFiles,
  ukiInput,
  ukiWith,
  ukiWithReference,
} from './mutate.ts'
import { tinyExtension } from './tiny-extension.ts'
import { tinyPe } from './tiny-pe.ts'

const KEYS = 'examples/minimal/keys'
/** `MUTATED_IMAGE=FILE`: another bake of examples/minimal. */
const IMAGE = process.env['MUTATED_IMAGE'] ?? baked('.raw')
const UKI = 'EFI/Linux/Minimal_1_x86-64.efi'
const [FALLBACK, BOOT] = ['EFI/BOOT/BOOTX64.EFI', 'EFI/systemd/systemd-bootx64.efi']
const PROGRAM = `EFI program ${UKI}`
const INITRD = `initrd of ${UKI}`
const POLICIES = `PCR policies of ${UKI}`
const IPE = `IPE policy of ${UKI}`
const SOUP = `${UKI}.extra.d/soup.sysext.raw`

const folder = mkdtempSync(join(tmpdir(), 'bisque-mutations-'))
after(() => rmSync(folder, { recursive: true, force: true }))

type Edit = (image: EditedImage) => void | Promise<void>
type Mutation = [what: string, edit: Edit, broken: Record<string, RegExp>]

const own = notBaked === false ? await loadSigners(KEYS, { epoch: EPOCH }) : undefined!
const trust = notBaked === false ? await loadTrust(KEYS) : undefined
const { signers: stranger } = await testKeys()

const onEsp =
  (
    files: (image: EditedImage) => Record<string, Uint8Array | undefined> | Promise<Record<string, Uint8Array | undefined>>,
  ): Edit =>
  async (image) =>
    image.changeEsp(await files(image))

const withUki =
  (change: (image: EditedImage) => Parameters<typeof ukiWith>[2] | Promise<Parameters<typeof ukiWith>[2]>): Edit =>
  async (image) =>
    image.changeEsp({ [UKI]: await ukiWith(image.readEsp(UKI), own, await change(image)) })

/** More words at the end of the command line, measured and signed as they should be. */
const words = (text: string): Edit => withUki((image) => ({ cmdline: `${ukiInput(image.readEsp(UKI), own).cmdline} ${text}` }))
const replaced = (from: RegExp, to: string): Edit =>
  withUki((image) => ({ cmdline: ukiInput(image.readEsp(UKI), own).cmdline.replace(from, to) }))
const policies =
  (change: (text: string) => string): Edit =>
  async (image) =>
    image.changeEsp({ [UKI]: await ukiWithReference(image.readEsp(UKI), own, change) })
/** `.pcrsig` in which the last signature is another one's. */
function damaged(text: string): string {
  const { sha256 } = JSON.parse(text)
  return JSON.stringify({ sha256: [...sha256.slice(0, -1), { ...sha256.at(-1), sig: sha256[0].sig }] })
}
const initrd = (overlay: Overlay): Edit => withUki(() => ({ overlay }))
const usr =
  (change: (files: UsrFiles) => void): Edit =>
  (image) =>
    changeUsr(image, UKI, own, change)
const flip =
  (type: 'usr' | 'usr-verity' | 'usr-verity-sig' | 'esp', offset: number): Edit =>
  (image) =>
    image.flipBit(image.partition(type), offset, 3)

const enrolled = (name: 'PK' | 'KEK' | 'db', signers: Parameters<typeof makeEnrolment>[0]): Edit =>
  onEsp(async () => ({
    [`loader/keys/auto/${name}.auth`]: (await makeEnrolment(signers, { owner: OWNER, time: EPOCH }))[name].auth,
  }))

const OWNER = '5eed5eed-5eed-4eed-8eed-5eed5eed5eed'
/** What follows: nothing says which tree to look at; nothing of /usr runs. */
const UNPINNED = Object.fromEntries(
  ['usr partitions', 'hash tree', 'usr file system', 'root hash signature'].map((name) => [name, /not checked/]),
)
const UNSIGNED_FOR_IPE = /no certificate the kernel knows signed it: nothing of \/usr runs/
const PLAIN_EXT4 = Buffer.alloc(8192)
PLAIN_EXT4.writeUInt16LE(0xef53, 1080)
const UNIT = 'usr/lib/systemd/system'
const policy = (text: string, signer = own.verity) => signIpePolicy(text, signer)
const POLICY_PATH = 'usr/lib/ipe/Minimal.p7b'
const OPEN_POLICY = 'policy_name=Minimal policy_version=1.0.0\nDEFAULT action=ALLOW\n'
const PEM = `-----BEGIN PRIVATE KEY-----\n${`${'QUJD'.repeat(16)}\n`.repeat(3)}-----END PRIVATE KEY-----\n`

// biome-ignore format: table
const MUTATIONS: readonly Mutation[] = [
  // Firmware
  ['db signed by nobody we know', enrolled('db', { ...own, kek: stranger.kek }), { 'enrolment auto': /db is not signed by KEK/ }],
  ['a stranger in db', enrolled('db', { ...own, db: stranger.db }), { 'enrolment auto': /db lets in CN=Test Secure Boot.*db lacks/s }],
  ['another KEK', enrolled('KEK', { ...own, pk: stranger.pk, kek: stranger.kek }), { 'enrolment auto': /KEK is not signed by PK/ }],
  ['no db to enrol', onEsp(() => ({ 'loader/keys/auto/db.auth': undefined })), { 'enrolment auto': /there is no db/ }],
  ['a root that is not encrypted', (image) => void image.addPartition({ type: 'root', label: 'root', guid: OWNER, bytes: PLAIN_EXT4 }), { 'other partitions': /root .*ext4.* is neither encrypted nor under verity/ }],
  // Boot loader
  ['an unsigned systemd-boot', onEsp(() => ({ [FALLBACK]: tinyPe() })), { [`EFI program ${FALLBACK}`]: /not signed/, 'systemd-boot': /./ }],
  ['a systemd-boot signed by a stranger', onEsp(async () => ({ [BOOT]: await signPe(tinyPe(), stranger.db) })), { [`EFI program ${BOOT}`]: /CN=Test Secure Boot.* is not a trusted db certificate/, 'systemd-boot': /different/ }],
  ['an unsigned program beside it', onEsp(() => ({ 'EFI/tools/shell.efi': tinyPe() })), { 'EFI program EFI/tools/shell.efi': /not signed/ }],
  ['a loader entry with a command line', onEsp(() => ({ 'loader/entries/a.conf': Buffer.from(`title x\nlinux /${BOOT}\noptions init=/bin/sh\n`) })), { 'boot entry loader/entries/a.conf': /command line that nobody signs/ }],
  ['a credential on the ESP', onEsp(() => ({ 'loader/credentials/passwd.cred': Buffer.from('cGxhaW4=') })), { 'loose file loader/credentials/passwd.cred': /./ }],
  ['a system extension on the ESP', onEsp(() => ({ [`${UKI}.extra.d/a.sysext.raw`]: Buffer.alloc(4096) })), { [`loose file ${UKI}.extra.d/a.sysext.raw`]: /./ }],
  ['a system extension signed like /usr', onEsp(async () => ({ [SOUP]: await tinyExtension({ signer: own.verity }) })), {}],
  ['a configuration extension signed like /usr', onEsp(async () => ({ 'loader/extensions/soup.confext.raw': await tinyExtension({ kind: 'confext', signer: own.verity }) })), {}],
  ['a system extension in which a bit changed', onEsp(async () => ({ [SOUP]: oneBit(await tinyExtension({ signer: own.verity })) })), { [`loose file ${SOUP}`]: /its blocks do not match their digests \(1 of \d+ blocks/ }],
  ['a system extension of a stranger', onEsp(async () => ({ [SOUP]: await tinyExtension({ signer: stranger.verity }) })), { [`loose file ${SOUP}`]: /^its signer is no trusted verity certificate$/ }],
  ['a system extension without a signature', onEsp(async () => ({ [SOUP]: await tinyExtension({ verity: 'hash' }) })), { [`loose file ${SOUP}`]: /^nobody signed this system extension: it has no root-verity-sig partition$/ }],
  ['an addon signed by a stranger', onEsp(async () => ({ [`${UKI}.extra.d/a.addon.efi`]: await addon(stranger.db) })), { [`addon ${UKI}.extra.d/a.addon.efi`]: /nobody trusted signed it/, [`EFI program ${UKI}.extra.d/a.addon.efi`]: /does not count/ }],
  // UKI
  ['an unsigned UKI', withUki(() => ({ signers: { pcr: own.pcr } })), { [PROGRAM]: /not signed/ }],
  ['a UKI signed by a stranger', withUki(() => ({ signers: { ...own, db: stranger.db } })), { [PROGRAM]: /CN=Test Secure Boot .* is not a trusted db certificate/ }],
  ['no root hash on the command line', replaced(/usrhash=\w+ /, ''), { [`UKI ${UKI}`]: /no usrhash=/, ...UNPINNED }],
  ['two root hashes on the command line', words(`usrhash=${'0'.repeat(64)}`), { [`UKI ${UKI}`]: /expected one root hash/, ...UNPINNED }],
  ['another version in .osrel', withUki((image) => ({ osRelease: ukiInput(image.readEsp(UKI), own).osRelease.replace(/IMAGE_VERSION=.*/, 'IMAGE_VERSION="9"') })), { 'usr file system': /IMAGE_VERSION=1.*IMAGE_VERSION=9/ }],
  ['an initrd that is none', withUki(() => ({ initrds: [{ bytes: Buffer.from('no archive at all') }] })), { [INITRD]: /./, [IPE]: /not checked/ }],
  // Measured boot
  ['PCR policies of a stranger', withUki(() => ({ signers: { ...own, pcr: stranger.pcr } })), { [POLICIES]: /\.pcrpkey is a key that is not trusted/ }],
  ['a policy for the initrd alone', policies((text) => text), {}],
  ['a wrong signature of the policy for the initrd alone', policies(damaged), { [POLICIES]: /^the signature of the policy for sha256 at enter-initrd and "initrd" alone does not verify$/ }],
  ['a policy for the initrd alone before the others', policies((text) => JSON.stringify({ sha256: JSON.parse(text).sha256.toReversed() })), { [POLICIES]: /does not come behind one without a reference/ }],
  ['no PCR policies', withUki(() => ({ signers: { db: own.db } })), { [`UKI ${UKI}`]: /there is no \.pcrsig/ }],
  // Verity
  ['one bit of /usr', flip('usr', 50_000_000), { 'hash tree': /1 of \d+ blocks: 12207/ }],
  ['one bit of the hash tree', flip('usr-verity', 40_000), { 'hash tree': /./ }],
  ['one bit of the verity superblock', flip('usr-verity', 90), { 'hash tree': /root hash \w+ does not match/ }],
  ['a root hash signed by a stranger', async (image) => image.write(image.partition('usr-verity-sig'), 0, encodeVeritySignature(await signRootHash(hashOf(image), stranger.verity))), { 'root hash signature': /no trusted verity certificate/, [IPE]: UNSIGNED_FOR_IPE }],
  ['no signature of the root hash', (image) => image.write(image.partition('usr-verity-sig'), 0, Buffer.alloc(16384)), { 'root hash signature': /./, [IPE]: UNSIGNED_FOR_IPE }],
  ['another UUID of /usr', (image) => void image.changePartition(image.partition('usr'), { guid: OWNER }), { 'usr partitions': /no usr partition has the UUID/, 'hash tree': /not checked/, 'usr file system': /not checked/ }],
  // Policy
  ['IPE that only watches', replaced(/ipe\.enforce=1/, 'ipe.enforce=0'), { [IPE]: /ipe\.enforce=0 of the command line lets IPE only watch/ }],
  ['a policy of a stranger', async (image) => initrd({ [POLICY_PATH]: await policy(OPEN_POLICY.replace('ALLOW', 'DENY'), stranger.verity) })(image), { [IPE]: /neither in db|in neither db/ }],
  ['a policy that allows all', async (image) => initrd({ [POLICY_PATH]: await policy(OPEN_POLICY) })(image), { [IPE]: /allows EXECUTE of anything/ }],
  ['a policy with a rule the kernel refuses', async (image) => initrd({ [POLICY_PATH]: await policy(`${OPEN_POLICY}op=RUN action=DENY\n`) })(image), { [IPE]: /RUN/ }],
  ['no guard that insists on the policy', initrd({ [`${UNIT}/bisque-ipe.service`]: '[Service]\nExecStart=/bin/true\n' }), { [IPE]: /nothing stops the boot/ }],
  // Kernel
  ['security modules without IPE', words('lsm=lockdown,yama'), { 'kernel and IPE': /IPE does not start, the list of security modules is lockdown,yama/ }],
  ['a kernel module without a signature', usr((files) => files.damage(/^lib\/modules\/.*\/drivers\/md\/dm-unstripe\.ko/)), { 'kernel modules': /without a signature: .*dm-unstripe/ }],
  ['an unsigned module in the initrd', initrd({ 'usr/lib/modules/6.12/kernel/evil.ko': '\x7fELF nothing' }), { 'kernel modules': /evil\.ko of the initrd/ }],
  // System
  ['another first program', words('init=/bin/sh'), { 'command lines': /init=\/bin\/sh starts another first program/ }],
  ['corruption that is let pass', replaced(/systemd\.verity_usr_options=/, 'systemd.verity_usr_options=ignore-corruption,'), { 'command lines': /goes on with blocks that do not match/ }],
  ['an open image policy', words('systemd.image_policy=usr=verity+unprotected'), { 'image policies': /takes an unprotected usr/ }],
  ['a shell for debugging', words('systemd.debug_shell=1'), { logins: /starts a shell of root/ }],
  ['a password on the command line', words('systemd.set_credential=passwd.plaintext-password.root:root'), { accounts: /sets the password of root/ }],
  ['root without a password', usr((files) => files.write('lib/credstore/passwd.hashed-password.root', '')), { accounts: /root has no password/ }],
  ['bash setuid', usr((files) => files.chmod('bin/bash', 0o4755)), { 'privileged programs': /\/usr\/bin\/bash \(setuid root, of bash\)/ }],
  ['a library everyone may write', usr((files) => files.chmod('lib/os-release', 0o666)), { 'file modes': /everyone may write \/usr\/lib\/os-release/ }],
  ['core dumps to a program outside /usr', usr((files) => files.write('lib/sysctl.d/50-pid-max.conf', 'kernel.core_pattern=|/tmp/x\n')), { 'kernel settings': /core_pattern = \|\/tmp\/x runs a program/ }],
  ['CAP_MAC_ADMIN left to root', async (image) => { await usr((files) => files.write('lib/systemd/system.conf.d/50-bisque-ipe.conf', '[Manager]\n'))(image); await initrd({ 'usr/lib/systemd/system.conf.d/50-bisque-ipe.conf': '[Manager]\n' })(image) }, { 'IPE off switch': /root may switch IPE off/ }],
  ['a stranger who may sign images', initrd({ 'etc/verity.d/x.crt': new Uint8Array() }), { 'certificates for images': /verity\.d\/x\.crt of the initrd lets/ }],
  ['a private key', initrd({ 'etc/x.pem': PEM }), { 'private keys': /\/etc\/x\.pem of the initrd/ }],
  ['a rescue shell that asks for nothing', initrd({ [`${UNIT}/systemd-fsck-root.service.d/x.conf`]: '[Service]\nEnvironment=SYSTEMD_SULOGIN_FORCE=1\n', [`${UNIT}/systemd-fsck-root.service`]: '[Service]\nExecStart=/bin/true\n' }), { logins: /SYSTEMD_SULOGIN_FORCE/ }],
  ['a fixed machine id', initrd({ 'etc/machine-id': `${'ab'.repeat(16)}\n` }), { identity: /every machine is the same/ }],
]

const addon = (signer: typeof own.db) => makeAddon({ stub: { bytes: tinyPe() }, cmdline: 'quiet', signer })

function oneBit(extension: Uint8Array): Uint8Array {
  const at = Buffer.from(extension).indexOf('a spoon of soup')
  return extension.with(at, extension[at]! ^ 1)
}

const hashOf = (image: EditedImage): string => /usrhash=(\w+)/.exec(ukiInput(image.readEsp(UKI), own).cmdline)![1]!

for (const [what, edit, expected] of MUTATIONS) {
  test(`an image with ${what}: ${Object.keys(expected).join(', ')}`, { skip: notBaked }, async (t) => {
    const path = join(folder, 'mutated.raw')
    t.after(() => rmSync(path, { force: true }))
    await editedCopy(IMAGE, path, edit)
    assertProblems(await checkImage(path, trust), expected)
  })
}

test('images with nothing wrong raise no alarm, by given keys and by their own', { skip: notBaked }, async () => {
  assert.deepEqual(problemsOf(await checkImage(IMAGE, trust)), {})
  assert.deepEqual(problemsOf(await checkImage(IMAGE, undefined)), {})
})

/** Images in mkosi's format have no IPE unless they ask for it, which is a hole, and said to be one; nothing else is. */
const noParticle = existsSync(particle('.raw')) ? false : 'examples/particle is not baked'
test('a small ParticleOS raises no alarm but that it has no IPE', { skip: notBaked || noParticle }, async () => {
  const problems = problemsOf(await checkImage(particle('.raw'), undefined))
  assert.deepEqual(
    Object.keys(problems).filter((name) => !name.startsWith('IPE policy of ')),
    [],
    JSON.stringify(problems, null, 2),
  )
})
