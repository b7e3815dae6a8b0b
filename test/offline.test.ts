/**
 * Offline signing through the command line: with keys that openssl alone sees, an image has the bytes it has when the build
 * holds the keys. The recipe is of a few files and no packages, and has images of all formats that are signed.
 */
import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { after, test } from 'node:test'
import { hashFile } from '../src/run/hash-file.ts'
import type { KeyRole } from '../src/signing/signer.ts'
import { CACHE } from './baked.ts'
import { testKeys } from './keys.ts'
import { oracle } from './oracle.ts'
import { tinyPe } from './tiny-pe.ts'

const { directory: keys, signers } = await testKeys()
const top = mkdtempSync(join(tmpdir(), 'bisque-offline-'))
after(() => rmSync(top, { recursive: true, force: true }))
const certificates = join(top, 'certificates')
cpSync(keys, certificates, { recursive: true, filter: (path) => !path.endsWith('.key') })

type Files = Readonly<Record<string, string | Uint8Array>>

function write(folder: string, files: Files): void {
  for (const [name, content] of Object.entries(files)) {
    mkdirSync(join(folder, dirname(name)), { recursive: true })
    writeFileSync(join(folder, name), content)
  }
}

const program = (text: string) => tinyPe({ text: Buffer.from(text) })
const OS = 'ID=debian\nVERSION_ID=13\n'
const EFI = 'base/usr/lib/systemd/boot/efi'
const BASE: Files = {
  'base/usr/lib/os-release': OS,
  'base/usr/lib/modules/6.12-tiny/vmlinuz': program('a kernel'),
  [`${EFI}/systemd-bootx64.efi`]: program('a loader'),
  [`${EFI}/linuxx64.efi.stub`]: program('a stub'),
  [`${EFI}/addonx64.efi.stub`]: program('an addon'),
  initrd: 'an initrd',
}
const SIGNED = 'KernelModulesInitrd=no\nInitrds=initrd\n[Validation]\nSecureBoot=yes\nVerity=signed\nSignExpectedPcr=yes\n'

/** A sub-image upon a base tree that lies beside its mkosi.conf. */
const subimage = (name: string, output: string, content: string, base: Files): Files =>
  Object.fromEntries([
    [`mkosi.images/${name}/mkosi.conf`, `[Output]\nOutput=${name}\n${output}\n[Content]\n${content}\nBaseTrees=base\n${SIGNED}`],
    ...Object.entries(base).map(([path, content]) => [`mkosi.images/${name}/${path}`, content]),
  ])

/** The main image has the sysext in its /usr. */
const RECIPE: Files = {
  ...BASE,
  'mkosi.conf': `[Distribution]
Distribution=debian
Release=trixie
[Config]
Dependencies=ext,conf,port,addon,whole,esp
[Output]
Format=disk
ImageId=Tiny
ImageVersion=1
Output=%i_%v
[Content]
Bootable=yes
Bootloader=systemd-boot
BaseTrees=base
ExtraTrees=%O/ext.sysext:/usr/lib/extensions/ext.raw
${SIGNED}SecureBootAutoEnroll=yes
`,
  'mkosi.uki-profiles/rescue.conf': '[UKIProfile]\nProfile=ID=rescue\nCmdline=rescue\nSignExpectedPcr=yes\n',
  'mkosi.repart/00-esp.conf':
    '[Partition]\nType=esp\nFormat=vfat\nCopyFiles=/efi:/\nCopyFiles=/boot:/\nSizeMinBytes=4M\nSizeMaxBytes=4M\n',
  'mkosi.repart/10-usr.conf':
    '[Partition]\nType=usr\nFormat=erofs\nCopyFiles=/usr:/\nVerity=data\nVerityMatchKey=usr\nMinimize=best\n',
  'mkosi.repart/20-verity.conf': '[Partition]\nType=usr-verity\nVerity=hash\nVerityMatchKey=usr\nMinimize=best\n',
  'mkosi.repart/30-signature.conf': '[Partition]\nType=usr-verity-sig\nVerity=signature\nVerityMatchKey=usr\n',
  ...subimage('ext', 'Format=sysext\nOutputExtension=sysext', '', {
    'base/usr/lib/os-release': OS,
    'base/usr/share/ext': 'of the sysext',
  }),
  ...subimage('conf', 'Format=confext', '', { 'base/usr/lib/os-release': OS, 'base/etc/conf': 'of the confext' }),
  ...subimage('port', 'Format=portable', '', { 'base/usr/lib/os-release': OS, 'base/usr/lib/systemd/system/port.service': '' }),
  ...subimage('addon', 'Format=addon', 'KernelCommandLine=quiet', BASE),
  ...subimage('whole', 'Format=uki', 'KernelCommandLine=quiet', BASE),
  ...subimage('esp', 'Format=esp', 'Bootable=yes', BASE),
}

function recipe(files: Files = RECIPE): string {
  const folder = mkdtempSync(join(top, 'recipe-'))
  write(folder, files)
  return folder
}

function bisque(...args: readonly string[]) {
  const argv = [resolve('src/main.ts'), ...args, '--cache', CACHE]
  return spawnSync(process.execPath, argv, { encoding: 'utf8' })
}

function built(recipe: string, output: string): string {
  const { status, stderr } = bisque('build', recipe, '-o', output, '--keys', keys)
  assert.equal(status, 0, stderr)
  return output
}

interface Round {
  finished: boolean
  round: number
  requests: { role: string; purpose: string; image: string; digest: string; command: string }[]
}

/** Prepares or attaches, and answers with the result that programs read. */
function sign(verb: 'prepare' | 'attach', recipe: string, folder: string, output: string): Round & { status: number | null } {
  const at = verb === 'prepare' ? '--to' : '--from'
  const { status, stdout, stderr } = bisque('sign', verb, recipe, at, folder, '-o', output, '--keys', certificates, '--json')
  const last = stdout.trimEnd().split('\n').at(-1)!
  assert.match(last, /"type":"result"/, stdout + stderr)
  return { ...JSON.parse(last), status }
}

const namesOf = (folder: string): string[] => readdirSync(folder).sort()

oracle('openssl', 'signatures made by openssl give the bytes of a build that has the keys, in every format', async (_, judge) => {
  const source = recipe()
  const online = built(source, join(top, 'online'))
  const [offline, folder] = [join(top, 'offline'), join(judge.dir, 'requests')]
  cpSync(keys, join(judge.dir, 'keys'), { recursive: true })

  const rounds: Round[] = [sign('prepare', source, folder, offline)]
  for (;;) {
    assert.deepEqual(existsSync(offline) ? readdirSync(offline) : [], [], 'no artifact before all is signed')
    for (const role of new Set(rounds.at(-1)!.requests.map((request) => request.role)))
      await judge.run(['sh', 'requests/sign.sh', role, `keys/${role}.key`])
    const { status, ...attached } = sign('attach', source, folder, offline)
    assert.equal(status, attached.finished ? 0 : 9)
    if (attached.finished) break
    rounds.push(attached)
    assert.ok(rounds.length < 8, 'it comes to an end')
  }

  assert.deepEqual(namesOf(offline), namesOf(online))
  const differing = namesOf(online).filter((name) => hashFile(join(online, name)) !== hashFile(join(offline, name)))
  assert.deepEqual(differing, [])

  // What holds a signature is asked for after it, and everything else at once. What several images share is asked for once.
  const roundsOf = (image: string, purpose: string) => [
    ...new Set(
      rounds.flatMap(({ round, requests }) =>
        requests.some((one) => one.image === image && one.purpose === purpose) ? [round] : [],
      ),
    ),
  ]
  const asked = new Set(rounds.flatMap(({ requests }) => requests.map(({ image, purpose }) => `${image}: ${purpose}`)))
  assert.deepEqual(
    Object.fromEntries([...asked].sort().map((one) => [one, roundsOf(...(one.split(': ') as [string, string]))])),
    {
      'addon: addon': [1],
      'conf: root hash': [1],
      'esp: EFI program': [1],
      'esp: EFI variable': [1],
      'esp: PCR policy': [2],
      'esp: UKI': [3],
      'esp: boot loader': [1],
      'ext: root hash': [1],
      'main: PCR policy': [2],
      'main: UKI': [3],
      'main: root hash': [2],
      'port: root hash': [1],
      'whole: PCR policy': [2],
      'whole: UKI': [3],
    },
  )
})

/** A UKI by itself: three rounds, of its kernel, its policies, and all of it. */
const UKI: Files = {
  ...BASE,
  'mkosi.conf': `[Distribution]
Distribution=debian
Release=trixie
[Output]
Format=uki
Output=tiny
[Content]
KernelCommandLine=quiet
BaseTrees=base
${SIGNED}`,
}

interface Place {
  source: string
  folder: string
  output: string
}

/** A recipe whose first digest is written, and not signed: made once, and copied. */
function prepared(): Place {
  template ??= prepareOne()
  const source = join(mkdtempSync(join(top, 'copy-')), 'recipe')
  cpSync(template, source, { recursive: true })
  return { source, folder: join(source, 'sign'), output: join(source, 'out') }
}
let template: string | undefined

function prepareOne(): string {
  const source = recipe(UKI)
  const { requests } = sign('prepare', source, join(source, 'sign'), join(source, 'out'))
  assert.deepEqual(
    requests.map(({ role, purpose }) => [role, purpose]),
    [['db', 'EFI program']],
  )
  return source
}

/** Signs all that is asked for, as something else than openssl would. */
async function signAll({ folder }: Place): Promise<void> {
  const { requests } = JSON.parse(readFileSync(join(folder, 'requests.json'), 'utf8'))
  for (const { role, digest, signature, purpose } of requests) {
    const signer = signers[role as KeyRole]
    writeFileSync(join(folder, signature), await signer.sign(Buffer.from(digest, 'hex'), purpose))
  }
}

const attach = ({ source, folder, output }: Place, ...more: readonly string[]) =>
  bisque('sign', 'attach', source, '--from', folder, '-o', output, '--keys', certificates, ...more)

/** What is in a folder, by name. */
const contentsOf = (folder: string): Record<string, string> =>
  Object.fromEntries(namesOf(folder).map((name) => [name, readFileSync(join(folder, name), 'latin1')]))

const filesIn = (folder: string): string[] => (existsSync(folder) ? namesOf(folder) : [])

test('an attach that lacks signatures says which before it builds, and one with wrong ones says what is wrong', async () => {
  const place = prepared()
  const unsigned = attach(place)
  assert.equal(unsigned.status, 9)
  assert.match(
    unsigned.stderr,
    /^error: Cannot attach signatures: of 1, 1 is missing\n {2}1-db-efi-program\.\w{16}\.sig is not there\n/,
  )
  assert.match(unsigned.stderr, /\n {2}.*sign\/sign\.sh db DB_KEY\n$/)

  await signAll(place)
  assert.equal(attach(place).status, 9)
  await signAll(place)
  const [first, second] = namesOf(place.folder).filter((name) => /^2-pcr.*sig$/.test(name)) as [string, string]
  cpSync(join(place.folder, first), join(place.folder, second))
  writeFileSync(join(place.folder, 'more.sig'), 'x')
  const before = contentsOf(place.folder)
  const wrong = attach(place)
  assert.equal(wrong.status, 6)
  assert.match(wrong.stderr, /more\.sig belongs to no request/)
  assert.match(
    wrong.stderr,
    /of 5, 1 is wrong, 4 are right\n {2}2-pcr-pcr-policy\.\w+\.sig is the signature of another digest, 2-pcr-/,
  )
  assert.deepEqual(contentsOf(place.folder), before)
  assert.deepEqual(filesIn(place.output), [])
})

test('requests of another recipe, of other certificates, or of another lock are refused by name', async () => {
  const place = prepared()
  await signAll(place)
  const other = attach(place, '--set', 'KernelCommandLine=debug')
  assert.equal(other.status, 2)
  assert.match(
    other.stderr,
    /they were made from something else\n {2}the recipe: was \w{12}…, is \w{12}…\n {2}\S.* sign prepare .*--to ANOTHER_DIR/,
  )
  const elsewhere = join(top, 'other-certificates')
  cpSync(certificates, elsewhere, { recursive: true })
  cpSync(join(certificates, 'pk.crt'), join(elsewhere, 'db.crt'))
  const { stderr } = bisque('sign', 'prepare', place.source, '--to', place.folder, '-o', place.output, '--keys', elsewhere)
  assert.match(stderr, /made from something else\n {2}the certificates: was/)
  const requests = join(place.folder, 'requests.json')
  writeFileSync(requests, readFileSync(requests, 'utf8').replace(/"lock": "\w+"/, `"lock": "${'0'.repeat(64)}"`))
  assert.match(attach(place).stderr, /made from something else\n {2}its lock: was 000000000000…/)
})

test('a recipe whose files changed between two rounds is not signed any further', async () => {
  const place = prepared()
  await signAll(place)
  writeFileSync(join(place.source, 'base/usr/lib/modules/6.12-tiny/vmlinuz'), program('another'))
  const before = contentsOf(place.folder)
  const { status, stderr } = attach(place)
  assert.equal(status, 6, stderr)
  assert.match(stderr, /does not come to what was signed before: files of the recipe changed.*\n {2}EFI program: .* \(round 1\)/)
  assert.deepEqual(contentsOf(place.folder), before)
})

test('preparing again restores what was lost, keeps signatures, and says what is open', async () => {
  const place = prepared()
  const before = contentsOf(place.folder)
  for (const name of namesOf(place.folder)) if (name !== 'requests.json') rmSync(join(place.folder, name))
  const open = bisque('sign', 'prepare', place.source, '--to', place.folder, '-o', place.output, '--keys', certificates)
  assert.match(open.stdout, /Round 1: one digest to sign/)
  assert.deepEqual(contentsOf(place.folder), before)
  await signAll(place)
  const done = bisque('sign', 'prepare', place.source, '--to', place.folder, '-o', place.output, '--keys', certificates)
  assert.match(done.stdout, /^\nRound 1 in .* is signed\.\n\nNext: {2}.* sign attach /)
})

test('an attach that is interrupted leaves nothing behind, and the next one is none the worse', async () => {
  const place = prepared()
  for (let round = 1; round <= 3; round++) {
    await signAll(place)
    if (round < 3) assert.equal(attach(place).status, 9)
  }
  const before = contentsOf(place.folder)
  const argv = ['sign', 'attach', place.source, '--from', place.folder, '-o', place.output, '--keys', certificates]
  const child = spawn(process.execPath, [resolve('src/main.ts'), ...argv, '--cache', CACHE])
  child.stderr.on('data', (chunk) => {
    if (String(chunk).includes('Make system')) child.kill('SIGTERM')
  })
  const [status] = await once(child, 'close')
  assert.equal(status, 143)
  assert.deepEqual(contentsOf(place.folder), before)
  assert.deepEqual(filesIn(place.output), [])
  assert.equal(attach(place).status, 0)
  assert.deepEqual(filesIn(place.output), ['tiny.efi', 'tiny.initrd', 'tiny.manifest.json', 'tiny.vmlinuz'])
})

test('with all keys here, without certificates, or without requests there is nothing to do offline', () => {
  const source = recipe(UKI)
  const here = bisque('sign', 'prepare', source, '--to', join(source, 'sign'), '--keys', keys)
  assert.deepEqual([here.status, existsSync(join(source, 'sign'))], [2, false])
  assert.match(here.stderr, /every key of this recipe is here\n {2}\S+ build /)
  const none = bisque('sign', 'prepare', source, '--to', join(source, 'sign'))
  assert.equal(none.status, 9)
  assert.match(none.stderr, /there are no keys in .*\/keys/)
  assert.equal(existsSync(join(source, 'keys')), false)
  const early = bisque('sign', 'attach', source, '--from', join(source, 'sign'), '--keys', certificates)
  assert.equal(early.status, 9)
  assert.match(early.stderr, /there are no requests in .*sign\n {2}\S+ sign prepare /)
})
