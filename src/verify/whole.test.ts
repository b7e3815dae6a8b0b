/** What is judged where an image is judged as a whole: initrds, IPE, addons, what lies on the ESP, whom the image enrols. */
import assert from 'node:assert/strict'
import { X509Certificate } from 'node:crypto'
import { copyFileSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import fc from 'fast-check'
import { EPOCH } from '../../test/keys.ts'
import { tinyExtension } from '../../test/tiny-extension.ts'
import {
  assemble,
  assertBroken,
  BOOT,
  type Change,
  CMDLINE,
  FALLBACK,
  folder,
  good,
  type InitrdChange,
  IPE_POLICY,
  initrd,
  initrdOf,
  makeUsr,
  OS_RELEASE,
  SEED,
  signers,
  stranger,
  trust,
  UKI,
  uki,
  ukiOf,
  usr,
  withSection,
} from '../../test/tiny-image.ts'
import { tinyPe } from '../../test/tiny-pe.ts'
import { encodeVeritySignature, verityPartitionUuids } from '../formats/verity.ts'
import { makeAddon } from '../image/addon.ts'
import { planDisk, writeDisk } from '../image/disk.ts'
import { signRootHash } from '../signing/root-hash.ts'
import { madeFile, madeSymlink } from '../tree/content.ts'
import { inspectImage, type Link, type Trust } from './image.ts'

/** Kernel and system of the tiny image are none; what is said of them is their own tests' matter. */
const CORE = ['firmware', 'boot loader', 'UKI', 'measured boot', 'verity', 'policy', 'artifacts']
const coreOf = (links: readonly Link[]) => links.filter(({ stage }) => CORE.includes(stage))

async function inspect(change: Change, by: Trust | undefined = trust, now = EPOCH) {
  const path = join(folder, 'whole.raw')
  await assemble(path, change)
  const { links, facts } = await inspectImage(path, { trust: by, now })
  return { links: coreOf(links), facts }
}

const withUki = async (change: Parameters<typeof ukiOf>[0]): Promise<Change> => ({ files: { [UKI]: await ukiOf(change) } })
const withInitrd = async (change: InitrdChange): Promise<Change> => withUki({ initrds: [{ bytes: await initrdOf(change) }] })
const text = (value: string) => Buffer.from(value)
const INITRD = `initrd of ${UKI}`
const IPE = `IPE policy of ${UKI}`
const EXTRA = `${UKI}.extra.d`
const addon = (input: { cmdline: string; uname?: string }, signer = signers.db) =>
  makeAddon({ stub: { bytes: tinyPe() }, signer, ...input })
const root = await makeUsr('root', OS_RELEASE, 'usr/')
const rootCommandLine = `roothash=${root.rootHash} systemd.verity_root_options=root-hash-signature=auto`
const next = await makeUsr('next', OS_RELEASE.replace('VERSION=1', 'VERSION=2'))
const nextUuids = verityPartitionUuids(next.rootHash)
/** Version 2 in the other slot of a disk in use, and an empty place for the next signature. */
const slotB: NonNullable<Change['more']> = [
  { type: 'usr-verity-sig', content: encodeVeritySignature(await signRootHash(next.rootHash, signers.verity)) },
  { type: 'usr-verity-sig', content: Buffer.alloc(16384) },
  { type: 'usr-verity', guid: nextUuids.hash, content: readFileSync(next.hash) },
  { type: 'usr', guid: nextUuids.data, content: readFileSync(next.data) },
]
const replaced = (bytes: Uint8Array, from: string, to: string) => {
  const copy = Buffer.from(bytes)
  copy.write(to, copy.indexOf(from))
  return copy
}
const slotBWith = (from: string, to: string): NonNullable<Change['more']> =>
  slotB.map((one) => (one.type === 'usr' ? { ...one, content: replaced(one.content, from, to) } : one))
const nextUki = await ukiOf({
  cmdline: CMDLINE.replace(usr.rootHash, next.rootHash),
  osRelease: OS_RELEASE.replace('VERSION=1', 'VERSION=2'),
})
const started = (magic: Uint8Array, at = 0) => {
  const bytes = Buffer.alloc(1 << 20)
  bytes.set(magic, at)
  return bytes
}
const sealed: Record<string, string> = JSON.parse(
  readFileSync(new URL('../formats/testdata/credentials.json', import.meta.url), 'utf8'),
)
const soup = await tinyExtension({ signer: signers.verity })
const strangeSoup = await tinyExtension({ signer: stranger.verity })
const opened = IPE_POLICY.replace('DEFAULT action=DENY', 'DEFAULT action=ALLOW')

// biome-ignore format: table
const CASES: [string, Change | Promise<Change>, Record<string, RegExp>][] = [
  ['nothing', {}, {}],
  ['an initrd that is no archive', withSection('.initrd', (b) => b.fill(0x41)).then((bytes) => ({ files: { [UKI]: bytes } })),
    { [INITRD]: /no archive and no compression/, [IPE]: /not checked/, [`PCR policies of ${UKI}`]: /no policy/ }],
  ['an initrd without init', withInitrd({ files: { init: undefined } }), { [INITRD]: /no \/init/ }],
  ['an initrd with a shell for init', withInitrd({ files: { init: madeFile('#!/bin/sh', EPOCH, 0o755) } }), { [INITRD]: /\/init is \/init, not systemd/ }],
  ['an initrd that is not told from a system', withInitrd({ files: { 'etc/initrd-release': undefined } }), { [INITRD]: /no \/etc\/initrd-release/ }],
  ['an initrd whose release leads nowhere', withInitrd({ files: { 'etc/initrd-release': madeSymlink('nowhere', EPOCH) } }), { [INITRD]: /no \/etc\/initrd-release/ }],
  ['an initrd without veritysetup', withInitrd({ files: { 'usr/lib/systemd/systemd-veritysetup': undefined } }), { [INITRD]: /no systemd-veritysetup:/ }],
  ['an initrd without its generator', withInitrd({ files: { 'usr/lib/systemd/system-generators/systemd-veritysetup-generator': undefined } }),
    { [INITRD]: /no systemd-veritysetup-generator/ }],
  ['a systemd too old to find the signature', withInitrd({ files: { 'usr/lib/systemd/libsystemd-shared-258.so': undefined, 'usr/lib/systemd/libsystemd-shared-257.so': madeFile('', EPOCH) } }),
    { [IPE]: /nothing shows it to the kernel/ }],
  ['a command line that shows no signature', withUki({ cmdline: `usrhash=${usr.rootHash}` }), { [IPE]: /nothing shows it to the kernel/ }],
  ['no IPE policy', withInitrd({ files: { 'usr/lib/ipe/Tiny.p7b': undefined } }), { [IPE]: /the initrd brings none/ }],
  ['an IPE policy by a stranger', withInitrd({ policySigner: stranger.verity }), { [IPE]: /its signer is in neither db/ }],
  ['an IPE policy that is no signature', withInitrd({ files: { 'usr/lib/ipe/Tiny.p7b': madeFile('junk', EPOCH) } }), { [IPE]: /Tiny\.p7b: Cannot read/ }],
  ['an IPE policy under another name', withInitrd({ policyName: 'Other' }), { [IPE]: /which PID 1 looks for as Tiny\.p7b/ }],
  ['an IPE policy that allows everything', withInitrd({ policy: opened }), { [IPE]: /allows EXECUTE of anything.*allows KMODULE of anything/ }],
  ['an IPE policy with a mistake', withInitrd({ policy: `${IPE_POLICY}op=RUN action=ALLOW\n` }), { [IPE]: /Tiny\.p7b:6:\d+: / }],
  ['an IPE policy under which nothing runs', withInitrd({ policy: IPE_POLICY.replace('dmverity_signature=TRUE action=ALLOW', 'dmverity_signature=TRUE action=DENY') }),
    { [IPE]: /lets nothing of \/usr run/ }],
  ['no guard', withInitrd({ files: { 'usr/lib/systemd/system/sysinit.target.requires/guard.service': undefined } }), { [IPE]: /nothing stops the boot/ }],
  ['ipe.enforce=0', withUki({ cmdline: `${CMDLINE} ipe.enforce=0` }), { [IPE]: /ipe\.enforce=0 of the command line lets IPE only watch/ }],
  ['a .uname of another kernel', withUki({ uname: '6.1-other' }), { 'usr file system': /\/usr\/lib\/modules has 6\.12-tiny, \.uname of .* is 6\.1-other/ }],
  ['a kernel that is no program', withSection('.linux', (b) => b.fill(0, 0, 2)).then((bytes) => ({ files: { [UKI]: bytes } })),
    { [`UKI ${UKI}`]: /\.linux is no program that the stub starts/, [`PCR policies of ${UKI}`]: /no policy/ }],
  ['an unsigned addon', makeAddon({ stub: { bytes: tinyPe() }, cmdline: 'debug' }).then((bytes) => ({ files: { [`${EXTRA}/x.addon.efi`]: bytes } })),
    { [`EFI program ${EXTRA}/x.addon.efi`]: /not signed/, [`addon ${EXTRA}/x.addon.efi`]: /nobody trusted signed it/ }],
  ['an addon by a stranger', addon({ cmdline: 'debug' }, stranger.db).then((bytes) => ({ files: { 'loader/addons/x.addon.efi': bytes } })),
    { 'EFI program loader/addons/x.addon.efi': /not a trusted db certificate/, 'addon loader/addons/x.addon.efi': /nobody trusted signed it/ }],
  ['an addon of ours', addon({ cmdline: 'debug' }).then((bytes) => ({ files: { [`${EXTRA}/x.addon.efi`]: bytes } })), {}],
  ['an addon of ours that takes IPE away', addon({ cmdline: 'ipe.enforce=0' }).then((bytes) => ({ files: { 'loader/addons/x.addon.efi': bytes } })),
    { [IPE]: /ipe\.enforce=0 of the addon loader\/addons\/x\.addon\.efi/ }],
  ['a credential that is none', { files: { [`${EXTRA}/root.cred`]: text('c2VhbGVk') } },
    { [`loose file ${EXTRA}/root.cred`]: /^nobody signs this credential, and it is none that systemd opens: Cannot read credential header.* PCR 12 measures it$/ }],
  ['a credential of another kind', { files: { [`${EXTRA}/root.cred`]: text(Buffer.alloc(64, 1).fill(0, 24).toString('base64')) } },
    { [`loose file ${EXTRA}/root.cred`]: /a kind of key that is not known here \((?:01){16}\)/ }],
  ['a credential sealed with no key', { files: { 'loader/credentials/x.cred': text(sealed['null']!) } },
    { 'loose file loader/credentials/x.cred': /^this credential is sealed with no key at all: .* PCR 12 measures it$/ }],
  ['a credential of a machine', { files: { 'loader/credentials/x.cred': text(sealed['host']!) } },
    { 'loose file loader/credentials/x.cred': /it is sealed with the host key of a machine, and systemd takes it there/ }],
  ['a credential of a TPM', { files: { 'loader/credentials/x.cred': text(sealed['tpm2']!) } },
    { 'loose file loader/credentials/x.cred': /sealed with the TPM of a machine, bound to the values of PCR 7\+14, and systemd takes it there/ }],
  ['a credential of a TPM for signed policies', { files: { 'loader/credentials/x.cred': text(sealed['host+tpm2-with-public-key']!) } },
    { 'loose file loader/credentials/x.cred': /the host key of a machine and the TPM of a machine, bound to the values of PCR 7\+14 and a signed policy for PCR 11/ }],
  ['a credential that begins like a program', { files: { 'loader/credentials/x.cred': text('MZ') } },
    { 'EFI program loader/credentials/x.cred': /./, 'loose file loader/credentials/x.cred': /none that systemd opens/ }],
  ['a system extension that is none', { files: { 'loader/extensions/x.sysext.raw': text('x') } },
    { 'loose file loader/extensions/x.sysext.raw': /^nobody signed this system extension/ }],
  ['a system extension of ours', { files: { [`${EXTRA}/soup.sysext.raw`]: soup, 'loader/extensions/soup.raw': soup } }, {}],
  ['a configuration extension of ours', tinyExtension({ kind: 'confext', signer: signers.verity }).then((bytes) => ({ files: { [`${EXTRA}/soup.confext.raw`]: bytes } })), {}],
  ['a system extension of a stranger', { files: { [`${EXTRA}/soup.raw`]: strangeSoup } }, { [`loose file ${EXTRA}/soup.raw`]: /^its signer is no trusted verity certificate$/ }],
  ['a system extension of ours with a bit changed', { files: { 'loader/extensions/soup.raw': replaced(soup, 'a spoon', 'a sp0on') } },
    { 'loose file loader/extensions/soup.raw': /its blocks do not match their digests \(1 of \d+ blocks: \d+\)/ }],
  ['a boot entry with a command line', { files: { 'loader/entries/a.conf': text(`linux /${BOOT}\noptions init=/bin/sh\n`) } }, { 'boot entry loader/entries/a.conf': /a command line that nobody signs: init=\/bin\/sh/ }],
  ['a boot entry with an initrd', { files: { 'loader/entries/a.conf': text(`linux /${UKI}\ninitrd /evil.img\n`), 'evil.img': text('x') } }, { 'boot entry loader/entries/a.conf': /adds the initrd \/evil\.img/ }],
  ['a boot entry of a UKI', { files: { 'loader/entries/a.conf': text(`title A\nuki /${UKI}\noptions init=/bin/sh\n`) } }, {}],
  ['a boot entry that leads nowhere', { files: { 'loader/entries/a.conf': text('efi /EFI/none.efi\n') } }, { 'boot entry loader/entries/a.conf': /EFI\/none\.efi is not there/ }],
  ['no boot loader', { files: { [FALLBACK]: undefined, [BOOT]: undefined } }, { 'systemd-boot': /no sound EFI\/BOOT/ }],
  ['a root under verity', withUki({ cmdline: rootCommandLine }).then((change) => ({ ...change, usr: root, verity: 'root' })), {}],
  ['a root under verity, and another one mounted', withUki({ cmdline: `${rootCommandLine} root=/dev/sda3` }).then((change) => ({ ...change, usr: root, verity: 'root' })),
    { [`UKI ${UKI}`]: /mounts root=\/dev\/sda3/ }],
  ['another /usr mounted', withUki({ cmdline: `${CMDLINE} mount.usr=/dev/sda3` }), { [`UKI ${UKI}`]: /mounts mount\.usr=\/dev\/sda3/ }],
  ['two slots', { more: slotB, files: { 'EFI/Linux/Tiny_2.efi': nextUki } }, {}],
  ['a slot that no UKI pins', { more: slotB }, {}],
  ['two slots, one changed', { more: slotBWith('shell', 'SHELL'), files: { 'EFI/Linux/Tiny_2.efi': nextUki } }, { 'hash tree': /do not match/ }],
  ['an encrypted root', { more: [{ type: 'root', content: started(Buffer.from('LUKS\xba\xbe', 'latin1')) }] }, {}],
  ['a root that anybody can write', { more: [{ type: 'root', content: started(Buffer.of(0x53, 0xef), 1080) }] }, { 'other partitions': /neither encrypted nor under verity/ }],
  ['data of the machine', { more: [{ type: 'home', content: started(Buffer.of(0x53, 0xef), 1080) }, { type: 'swap', content: Buffer.alloc(4096) }] }, {}],
  ['a second ESP', { more: [{ type: 'esp', content: Buffer.alloc(1 << 20) }] }, { 'partition table': /more than one ESP/, ESP: /Cannot read FAT/ }],
  ['a UKI that firmware starts by itself', { files: { [FALLBACK]: uki, [BOOT]: undefined } }, {}],
]

for (const [what, change, expected] of CASES) {
  test(`inspectImage() of ${what} finds ${Object.keys(expected).join(', ') || 'nothing'}`, async () => {
    const { links } = await inspect(await change)
    assertBroken(links, expected)
    for (const { problem, stage } of links) assert.ok(problem === undefined || stage !== undefined)
  })
}

test('inspectImage() without trust goes by what the image enrols, and says so', async () => {
  const { links, facts } = await inspect({}, undefined as never)
  assert.equal(facts.anchor.from, 'given', 'a default argument stands in')
  const path = join(folder, 'enrolled.raw')
  copyFileSync(good, path)
  const own = await inspectImage(path, { now: EPOCH })
  assertBroken(coreOf(own.links), {})
  assert.equal(own.facts.anchor.from, 'image')
  assert.match(own.links.find(({ name }) => name === 'trust anchor')!.evidence, /enrols itself: db is CN=.* sha256:[0-9a-f]{64}/)
  assert.ok(links.length > 12)
  rmSync(path)
})

test('an extension by a certificate of verity.d in the initrd holds where the image itself says whom to trust', async () => {
  const path = join(folder, 'own.raw')
  const pem = new X509Certificate(stranger.verity.certificate).toString()
  const change = await withInitrd({ files: { 'etc/verity.d/soup.crt': madeFile(pem, EPOCH) } })
  await assemble(path, { files: { ...change.files, [`${EXTRA}/soup.raw`]: strangeSoup } })
  const own = await inspectImage(path, { now: EPOCH })
  assertBroken(coreOf(own.links), {})
  assert.match(
    own.links.find(({ name }) => name.endsWith('soup.raw'))!.evidence,
    /verified by systemd with a certificate of verity\.d/,
  )
  const given = await inspectImage(path, { trust, now: EPOCH })
  assertBroken(coreOf(given.links), { [`loose file ${EXTRA}/soup.raw`]: /no trusted verity certificate/ })
  rmSync(path)
})

test('inspectImage() of what no chain was made for says so in one link for each thing', async () => {
  const path = join(folder, 'plain.raw')
  const content = started(Buffer.of(0x53, 0xef), 1080)
  const plan = planDisk([{ type: 'root', sizeBytes: content.length }], { seed: SEED, architecture: 'x86-64' })
  await writeDisk(path, plan, [{ bytes: content }])
  const { links } = await inspectImage(path, { now: EPOCH })
  const broken = coreOf(links).filter(({ ok }) => !ok)
  assert.deepEqual(
    broken.map(({ name }) => name),
    ['ESP', 'trust anchor', 'systemd-boot', 'UKI', 'verity', 'other partitions'],
  )
  rmSync(path)
})

test('inspectImage() of an image that enrols nothing and is not said whom to trust has no anchor', async () => {
  const path = join(folder, 'loose.raw')
  const none = {
    'loader/keys/auto/PK.auth': undefined,
    'loader/keys/auto/KEK.auth': undefined,
    'loader/keys/auto/db.auth': undefined,
  }
  await assemble(path, { files: none })
  const { links, facts } = await inspectImage(path, { now: EPOCH })
  assert.equal(facts.anchor.from, 'signatures')
  const broken = coreOf(links).filter(({ ok }) => !ok)
  assert.deepEqual(
    broken.map(({ name }) => name),
    ['trust anchor', 'root hash signature', IPE],
  )
  assert.match(broken[0]!.hint!, /--trust DIR/)
  rmSync(path)
})

test('inspectImage() tells certificates that have expired, and of those that end soon', async () => {
  const late = await inspect({}, trust, EPOCH + 20 * 365 * 86_400)
  assert.match(late.links.find(({ name }) => name === 'enrolment auto')!.problem!, /expired/)
  const soon = await inspect({}, trust, EPOCH + (10 * 365 + 2 - 30) * 86_400)
  const enrolment = soon.links.find(({ name }) => name === 'enrolment auto')!
  assert.ok(enrolment.ok)
  assert.match(enrolment.evidence, /note: .* expires \d{4}-\d\d-\d\d, in \d+ days/)
})

test('inspectImage() tells what an image consists of', async () => {
  const { facts } = await inspect({})
  assert.deepEqual(facts.programs.map(({ kind, trusted }) => [kind, trusted]).sort(), [
    ['UKI', true],
    ['program', true],
    ['program', true],
  ])
  const [profile] = facts.ukis[0]!.profiles
  assert.equal(profile!.verity, 'usr')
  assert.equal(profile!.initrd!.systemdVersion, '258')
  assert.deepEqual(
    profile!.initrd!.ipePolicies.map(({ name, version, trusted }) => [name, version, trusted]),
    [['Tiny', '1.0.0', true]],
  )
  const [tree] = facts.trees
  assert.deepEqual([tree!.sound, tree!.signedForKernel, tree!.fileSystem, tree!.ukis], [true, true, 'erofs', [UKI]])
})

test('an initrd is read in each compression, and archives behind each other are one', async () => {
  for (const compression of ['none', 'zstd', 'xz', 'gz'] as const) {
    const first = await initrdOf({ compression })
    const second = await initrdOf({ compression, files: { 'usr/lib/more': madeFile('more', EPOCH) } })
    const { links, facts } = await inspect(await withUki({ initrds: [{ bytes: first }, { bytes: second }] }))
    assertBroken(links, {})
    assert.ok(facts.ukis[0]!.profiles[0]!.initrd!.files.entries.has('usr/lib/more'), compression)
  }
})

test('inspectImage() has a verdict for any initrd, and throws for none', async () => {
  await fc.assert(
    fc.asyncProperty(fc.nat(initrd.length - 1), fc.uint8Array({ minLength: 1, maxLength: 4 }), async (at, value) => {
      const bytes = Uint8Array.from(initrd)
      bytes.set(value.subarray(0, bytes.length - at), at)
      const { links } = await inspect(await withUki({ initrds: [{ bytes }] }))
      for (const { ok, problem, name } of links) assert.equal(ok, problem === undefined, name)
    }),
    { numRuns: 20, seed: 7 },
  )
})
