/**
 * Plants the corpus: small sound inputs of every decoder, from our own writers and the field's tools. Public parts only.
 *
 * Run by hand when a target is added: `node test/fuzz/grow.ts [TARGET…]`. What campaigns found is beside it in the corpus.
 */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gzipSync, zstdCompressSync } from 'node:zlib'
import { xzSync } from 'node-liblzma'
import { sha256 } from '../../src/base/digest.ts'
import { Report } from '../../src/base/report.ts'
import { encodeAr } from '../../src/formats/ar.ts'
import { attachSignature, prepareEmbedded, prepareWithAttributes } from '../../src/formats/cms.ts'
import { octetString } from '../../src/formats/der.ts'
import { EVENT_TYPES, encodeFirmwareLog, encodeTaggedData, encodeVariableData } from '../../src/formats/event-log.ts'
import { encodeGpt, type Gpt } from '../../src/formats/gpt.ts'
import { encodeVariables, GLOBAL_VARIABLE } from '../../src/formats/ovmf-vars.ts'
import { formatPcrSignatures } from '../../src/formats/pcr.ts'
import { encodeSwap } from '../../src/formats/swap.ts'
import { encodeTar } from '../../src/formats/tar.ts'
import { encodeVerity, encodeVeritySignature } from '../../src/formats/verity.ts'
import { signPe } from '../../src/image/efi-program.ts'
import { writeErofs } from '../../src/image/erofs.ts'
import { makeInitrd } from '../../src/image/initrd.ts'
import { makeUki } from '../../src/image/uki.ts'
import { formatRequests } from '../../src/signing/offline-requests.ts'
import { signPcrPolicies } from '../../src/signing/pcr.ts'
import { signRootHash } from '../../src/signing/root-hash.ts'
import { makeEnrolment } from '../../src/signing/secure-boot.ts'
import { madeDirectory, madeFile, madeSymlink } from '../../src/tree/content.ts'
import { treeOf } from '../../src/tree/tree.ts'
import { debOf } from '../deb.ts'
import { emptyVariables } from '../firmware-volume.ts'
import { kernelModule } from '../kernel-module.ts'
import { EPOCH, testKeys } from '../keys.ts'
import { judgeIn } from '../oracle.ts'
import { tinyPe } from '../tiny-pe.ts'
import { corpusOf } from './campaign.ts'
import { GPT_SECTORS } from './targets.ts'

const { signers } = await testKeys()
const GUID = '5eed5eed-5eed-4eed-8eed-5eed5eed5eed'
const text = (value: string) => Buffer.from(value)
const firstOf = (path: string, bytes: number) => readFileSync(path).subarray(0, bytes)

const tree = treeOf(
  [
    [
      'bin/sh',
      {
        ...madeFile(Buffer.alloc(20_000, 'a shell '), EPOCH, 0o755),
        xattrs: new Map([['security.capability', Buffer.alloc(20, 1)]]),
      },
    ],
    ['lib/os-release', madeFile('ID=tiny\n', EPOCH)],
    ['lib/link', madeSymlink('os-release', EPOCH)],
  ],
  madeDirectory(EPOCH),
)
const files = [
  { path: './', type: 'directory' as const },
  { path: `./${'long/'.repeat(30)}name`, bytes: text('long') },
  { path: './etc/x', bytes: text('x'), mode: 0o4755, xattrs: new Map([['user.x', Buffer.from([0, 1, 2])]]) },
  { path: './link', type: 'symlink' as const, target: 'etc/x' },
]
const tar = encodeTar(files)
const deb = (name: string, data: Uint8Array) =>
  encodeAr([
    { name: 'debian-binary', data: text('2.0\n') },
    {
      name: 'control.tar.gz',
      data: gzipSync(
        encodeTar([
          { path: './control', bytes: text(CONTROL) },
          { path: './conffiles', bytes: text('/etc/x\n') },
        ]),
      ),
    },
    { name, data },
  ])
const CONTROL =
  'Package: tiny\nVersion: 1.0-1\nArchitecture: all\nMaintainer: A <a@example.org>\nDescription: small\n folded\n .\n'
const uki = await makeUki({
  stub: { bytes: tinyPe({ sizeOfHeaders: 0x1000 }) },
  kernel: { bytes: tinyPe({ text: text('a kernel') }) },
  initrds: [{ bytes: text('an initrd') }],
  osRelease: 'ID=tiny\n',
  cmdline: `usrhash=${'ab'.repeat(32)} quiet`,
  uname: '6.12-tiny',
  signers,
})
const enrolment = await makeEnrolment(signers, { owner: GUID, time: EPOCH })
const gpt: Gpt = {
  sectorSize: 512,
  diskGuid: GUID,
  sectors: GPT_SECTORS,
  partitions: [1, 2].map((n) => ({
    type: 'c12a7328-f81f-11d2-ba4b-00a0c93ec93b',
    guid: GUID.replace('5eed', `000${n}`),
    firstLba: 2044 + n * 4,
    lastLba: 2046 + n * 4,
    attributes: 0n,
    name: `part${n}`,
  })),
}

/** Both copies of a table, without the disk between them. */
function tables(): Uint8Array {
  const { primary, backup } = encodeGpt(gpt)
  return Buffer.concat([primary, backup])
}

async function erofs(compression: 'none' | 'zstd'): Promise<Uint8Array> {
  const path = join(tmpdir(), `bisque-corpus-${process.pid}-${compression}.erofs`)
  await writeErofs(tree, path, { uuid: GUID, label: 'tiny', compression, workers: 1 }, new Report(() => {}))
  const bytes = readFileSync(path)
  rmSync(path)
  return bytes
}

async function fat(bits: 12 | 16, kib: number): Promise<Uint8Array> {
  using judge = judgeIn()
  writeFileSync(`${judge.dir}/a-long-name.txt`, 'hello')
  await judge.run([
    'sh',
    '-c',
    `truncate -s ${kib}K f && mkfs.vfat -F${bits} -s1 -n TINY f && mmd -i f ::EFI ::EFI/BOOT && mcopy -i f a-long-name.txt ::EFI/BOOT/`,
  ])
  return firstOf(`${judge.dir}/f`, 48 << 10)
}

const policies = await signPcrPolicies([{ bank: 'sha256', pcr: Buffer.alloc(32, 1) }], signers.pcr)
const cms = async (prepared: ReturnType<typeof prepareEmbedded>) =>
  attachSignature(prepared, signers.db.certificate, await signers.db.sign(prepared.digest, 'IPE policy'))

const event = (type: number, data: Uint8Array, pcr = 4) => ({ pcr, type, digests: { sha256: Buffer.alloc(32, pcr) }, data })
const log = encodeFirmwareLog({
  banks: ['sha256'],
  events: [
    event(EVENT_TYPES.EV_SEPARATOR, Buffer.alloc(4)),
    event(EVENT_TYPES.EV_EVENT_TAG, encodeTaggedData(0x13aed6db, text('1')), 12),
    event(EVENT_TYPES.EV_EFI_VARIABLE_DRIVER_CONFIG, encodeVariableData({ vendor: GUID, name: 'PK', data: Uint8Array.of(1) }), 7),
  ],
})
const requests = formatRequests({
  inputs: { bisque: '0.1.0', recipe: sha256('r'), lock: sha256('l'), certificates: sha256('c'), epoch: EPOCH },
  requests: [{ round: 1, role: 'db', purpose: 'boot loader', image: 'main', digest: sha256('d'), certificate: sha256('x') }],
})
const record = (pcr: number) =>
  `\x1e${JSON.stringify({ pcr, digests: [{ hashAlg: 'sha256', digest: 'ab'.repeat(32) }], content_type: 'systemd', content: { string: 'enter-initrd', bootId: 'ab'.repeat(16), timestamp: 1, eventType: 'phase' } })}\n`
const ipe = `policy_name=tiny policy_version=0.0.1
# all from the volume
DEFAULT action=DENY
DEFAULT op=EXECUTE action=DENY
op=EXECUTE boot_verified=TRUE dmverity_signature=TRUE action=ALLOW
op=KMODULE dmverity_roothash=sha256:${'ab'.repeat(32)} action=ALLOW
`
/** A version 4 public key packet and a user id, as `gpg --export` begins. */
const keyring = Buffer.concat([
  Buffer.from([0x99, 0, 13, 4, 1, 2, 3, 4, 1, 0, 8, 0xff, 0, 3, 1, 0]),
  Buffer.from([0xb4, 3]),
  text('abc'),
])

const sealed: string[] = Object.values(
  JSON.parse(readFileSync(new URL('../../src/formats/testdata/credentials.json', import.meta.url), 'utf8')),
)

const SEEDS: Record<string, () => (Uint8Array | Promise<Uint8Array>)[]> = {
  ar: () => [debOf('tiny', '1'), encodeAr([])],
  authenticode: () => [signPe(tinyPe({ sizeOfHeaders: 0x400 }), signers.db)],
  cms: () => [
    cms(prepareEmbedded(text('policy_name=a policy_version=0.0.1\n'))),
    cms(prepareWithAttributes('1.2.840.113549.1.7.1', octetString(text('x')), EPOCH)),
  ],
  cpio: () => [makeInitrd(tree, { compression: 'none' })],
  credential: () => sealed.map((one) => Buffer.from(one, 'base64')),
  deb: () => [
    debOf('tiny', '1', {}, { 'usr/x': 'x' }),
    deb('data.tar.gz', gzipSync(tar)),
    deb('data.tar.xz', xzSync(Buffer.from(tar))),
    deb('data.tar.zst', zstdCompressSync(tar)),
  ],
  deb822: () => [text(CONTROL), text(`${CONTROL}\n# a comment\n${CONTROL}`)],
  der: () => [signers.db.certificate, cms(prepareEmbedded(text('x')))],
  elf: () => [
    kernelModule([
      ['license', 'GPL'],
      ['depends', 'a,b'],
    ]),
    kernelModule([['license', 'GPL']], 32),
  ],
  erofs: () => [erofs('none'), erofs('zstd')],
  esl: () => [enrolment.db.lists, enrolment.PK.lists],
  fat: () => [fat(12, 64), fat(16, 2_400)],
  gpt: () => [tables()],
  ini: () => [text('[Match]\nDistribution=|debian\n\n[Content]\nPackages=\n  a\n  b # c\n; d\nBootable=yes\n')],
  lock: () => [
    firstOf('examples/minimal/bisque.lock', 6_000).subarray(
      0,
      firstOf('examples/minimal/bisque.lock', 6_000).lastIndexOf(10) + 1,
    ),
  ],
  'os-release': () => [text(`ID=debian\nPRETTY_NAME="Debian \\"13\\" $x"\n# c\nVERSION_ID='13'\n`)],
  passwd: () => [text('root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1::/:/usr/sbin/nologin\n'), text('root:x:0:\nadm:x:4:a,b\n')],
  'pcr-signatures': () => [text(formatPcrSignatures(policies))],
  pe: () => [tinyPe({ sizeOfHeaders: 0x400 }), uki.bytes],
  preferences: () => [
    text('Package: *\nPin: release a=trixie, n=x\nPin-Priority: 900\n\nPackage: a b\nPin: version 1.*\nPin-Priority: -1\n'),
  ],
  release: () => [
    text(
      `Origin: Debian\nSuite: stable\nCodename: trixie\nDate: Sat, 15 Nov 2025 10:00:00 UTC\nValid-Until: Sat, 22 Nov 2025 10:00:00 UTC\nArchitectures: all amd64\nComponents: main contrib\nSHA256:\n ${'ab'.repeat(32)} 1234 main/binary-amd64/Packages.xz\n`,
    ),
  ],
  'signature-partition': () => [
    signRootHash(sha256('x'), signers.verity).then((s) => Buffer.from(encodeVeritySignature(s)).subarray(0, 4096)),
  ],
  sources: () => [
    text(
      'Types: deb\nURIs: http://deb.debian.org/debian\nSuites: trixie trixie-updates\nComponents: main\nSigned-By: /usr/share/keyrings/debian.gpg\n',
    ),
  ],
  swap: () => [Buffer.from(encodeSwap({ uuid: GUID, label: 'swap', sizeBytes: 1 << 20 }))],
  tar: () => [tar],
  'variable-update': () => [enrolment.PK.auth, enrolment.db.auth],
  variables: () => [
    encodeVariables(emptyVariables(), [
      { name: 'PK', vendor: GLOBAL_VARIABLE, attributes: 0x27, time: new Date(EPOCH * 1000), data: enrolment.PK.lists },
      { name: 'A', vendor: GLOBAL_VARIABLE, attributes: 3, data: Uint8Array.of(1) },
    ]),
  ],
  verity: () => [encodeVerity({ uuid: GUID, dataBlocks: 1000, salt: Buffer.alloc(32, 7) })],
  'event-log': () => [log],
  initrd: () => [
    makeInitrd(tree, { compression: 'zstd' }),
    ...['gz', 'xz'].map((c) => makeInitrd(tree, { compression: c as 'gz' })),
  ],
  'ipe-policy': () => [text(ipe)],
  keyring: () => [keyring],
  'pkcs11-uri': () => [
    text('pkcs11:token=My%20Token;object=db;id=%01%02;type=private?module-path=/usr/lib/x.so&pin-source=file:/etc/pin'),
  ],
  revocations: () => [text(JSON.stringify([{ name: 'a', on: '2026-01-01', program: sha256('p') }]))],
  'sign-requests': () => [text(requests)],
  unit: () => [text('[Unit]\nDescription=a \\\n  b\n# c\n[Service]\nExecStart=/bin/sh -c "x"\n')],
  'userspace-log': () => [text(record(11) + record(15))],
  x509: () => [signers.pk.certificate, signers.pcr.certificate],
}

const wanted = process.argv.slice(2)
for (const [target, seeds] of Object.entries(SEEDS)) {
  if (wanted.length > 0 && !wanted.includes(target)) continue
  mkdirSync(corpusOf(target), { recursive: true })
  for (const [i, seed] of (await Promise.all(seeds())).entries()) writeFileSync(`${corpusOf(target)}/seed-${i + 1}`, seed)
}
