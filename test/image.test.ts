/**
 * The baked example, judged by the tools of the field: partition table, file systems, hash tree, signatures, UKI, PCRs.
 */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import {
  copyFileSync,
  createReadStream,
  createWriteStream,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  readSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { type TestContext, test } from 'node:test'
import { decodeErofs, type Erofs } from '../src/formats/erofs-decode.ts'
import { hashFile } from '../src/run/hash-file.ts'
import { readXattrs } from '../src/run/xattr.ts'
import { BAKED, baked, bakedManifest, CACHE, notBaked } from './baked.ts'
import { type Judge, oracle } from './oracle.ts'

const KEYS = 'examples/minimal/keys'
const PHASES = ['enter-initrd', 'leave-initrd', 'sysinit', 'ready']

/** An oracle over the image; skipped, visibly, where it is not baked. */
function judged(tool: string, name: string, body: (t: TestContext, judge: Judge) => Promise<void>): void {
  if (notBaked) test(`[${tool}] ${name}`, { skip: notBaked }, () => {})
  else oracle(tool, name, body)
}

interface Slice {
  type: string
  name: string
  uuid: string
  start: number
  size: number
}

/** The partitions as sfdisk sees them; offsets in bytes. */
async function partitions(judge: Judge): Promise<Slice[]> {
  disk(judge)
  const { partitiontable } = JSON.parse((await judge.run(['sfdisk', '--json', 'disk.raw'])).stdout)
  assert.equal(partitiontable.label, 'gpt')
  return partitiontable.partitions.map((p: Slice) => ({
    ...p,
    uuid: p.uuid.toLowerCase(),
    start: p.start * 512,
    size: p.size * 512,
  }))
}

/** The disk image in the judge's folder, its holes kept. */
function disk(judge: Judge): string {
  const path = join(judge.dir, 'disk.raw')
  execFileSync('cp', ['--sparse=always', '--reflink=auto', baked('.raw'), path])
  return path
}

async function cut(judge: Judge, slice: Slice, name: string): Promise<string> {
  const path = join(judge.dir, name)
  const range = { start: slice.start, end: slice.start + slice.size - 1 }
  await pipeline(createReadStream(baked('.raw'), range), createWriteStream(path))
  return path
}

const artifact = (type: string): string => {
  const found = bakedManifest().artifacts.find(({ partition }) => partition?.type === type)
  return join(BAKED, found!.name)
}

const bring = (judge: Judge, path: string, name: string): void => copyFileSync(path, join(judge.dir, name))

judged('sgdisk', 'the partition table is whole, and its GUIDs are the root hash', async (_t, judge) => {
  const slices = await partitions(judge)
  assert.match((await judge.run(['sgdisk', '--verify', 'disk.raw'])).stdout, /No problems found/)
  assert.deepEqual(
    slices.map((slice) => slice.name),
    ['esp', 'Minimal_1_verity_sig', 'Minimal_1_verity', 'Minimal_1'],
  )
  const { rootHash } = bakedManifest()
  assert.equal((slices[3]!.uuid + slices[2]!.uuid).replaceAll('-', ''), rootHash)
})

judged(
  'systemd-repart',
  'systemd-repart finds each partition of its definitions there, unchanged; systemd-dissect an image it would use',
  async (_t, judge) => {
    const slices = await partitions(judge)
    mkdirSync(join(judge.dir, 'definitions'))
    for (const [i, type] of ['esp', 'usr-verity-sig', 'usr-verity', 'usr'].entries()) {
      const size = `SizeMinBytes=${slices[i]!.size}\nSizeMaxBytes=${slices[i]!.size}\n`
      writeFileSync(join(judge.dir, `definitions/${i}.conf`), `[Partition]\nType=${type}\nLabel=${slices[i]!.name}\n${size}`)
    }
    const { stdout } = await judge.run([
      'systemd-repart',
      '--dry-run=yes',
      '--json=short',
      '--definitions=definitions',
      '--offline=yes',
      '--sector-size=512',
      'disk.raw',
    ])
    await judge.run(['systemd-dissect', '--validate', 'disk.raw'])
    const seen: { type: string; label: string; activity: string }[] = JSON.parse(stdout)
    assert.deepEqual(
      seen.map(({ type, label, activity }) => [type, label, activity]),
      slices.map((slice, i) => [['esp', 'usr-x86-64-verity-sig', 'usr-x86-64-verity', 'usr-x86-64'][i], slice.name, 'unchanged']),
    )
  },
)

judged('systemd-dissect', 'systemd-dissect finds a /usr with a signature, and no root', async (_t, judge) => {
  disk(judge)
  const validate = (policy: string) =>
    judge.run(['systemd-dissect', '--validate', `--image-policy=${policy}`, 'disk.raw'], { allowFailure: true })
  assert.equal((await validate('usr=signed:esp=unprotected:=ignore')).exitCode, 0)
  for (const other of ['root=signed:=ignore', 'usr=encrypted:=ignore', 'usr=absent:=ignore'])
    assert.notEqual((await validate(other)).exitCode, 0, other)
})

judged(
  'fsck.vfat',
  'the ESP is a sound FAT that holds what firmware and systemd-boot look for, and nothing else',
  async (_t, judge) => {
    const [esp] = await partitions(judge)
    await cut(judge, esp!, 'esp')
    await judge.run(['fsck.vfat', '-n', 'esp'])
    const listed = (await judge.run(['mdir', '-/', '-b', '-i', 'esp', '::'])).stdout.trim().split('\n')
    assert.deepEqual(listed.filter((path) => !path.endsWith('/')).sort(), [
      '::/EFI/BOOT/BOOTX64.EFI',
      '::/EFI/Linux/Minimal_1_x86-64.efi',
      '::/EFI/systemd/systemd-bootx64.efi',
      '::/loader/entries.srel',
      '::/loader/keys/auto/KEK.auth',
      '::/loader/keys/auto/PK.auth',
      '::/loader/keys/auto/db.auth',
      '::/loader/loader.conf',
    ])
    await judge.run(['mcopy', '-n', '-i', 'esp', '::/EFI/Linux/Minimal_1_x86-64.efi', 'uki.efi'])
    assert.equal(hashFile(join(judge.dir, 'uki.efi')), hashFile(baked('.efi')))
  },
)

judged('sbverify', 'the UKI and both copies of systemd-boot are signed by the db key, and by no other', async (_t, judge) => {
  const [esp] = await partitions(judge)
  await cut(judge, esp!, 'esp')
  for (const name of ['db', 'pcr']) bring(judge, join(KEYS, `${name}.crt`), `${name}.crt`)
  for (const path of ['EFI/Linux/Minimal_1_x86-64.efi', 'EFI/BOOT/BOOTX64.EFI', 'EFI/systemd/systemd-bootx64.efi']) {
    await judge.run(['mcopy', '-n', '-o', '-i', 'esp', `::/${path}`, 'program.efi'])
    await judge.run(['sbverify', '--cert', 'db.crt', 'program.efi'])
    const other = await judge.run(['sbverify', '--cert', 'pcr.crt', 'program.efi'], { allowFailure: true })
    assert.notEqual(other.exitCode, 0, path)
  }
})

judged('sig-list-to-certs', 'the enrolment files hold our certificates, db the verity one as well', async (_t, judge) => {
  const [esp] = await partitions(judge)
  await cut(judge, esp!, 'esp')
  const der = (role: string) =>
    Buffer.from(readFileSync(join(KEYS, `${role}.crt`), 'utf8').replace(/-----[^-]+-----|\s/g, ''), 'base64')
  for (const [variable, roles] of Object.entries({ PK: ['pk'], KEK: ['kek'], db: ['db', 'verity'] })) {
    await judge.run(['mcopy', '-n', '-i', 'esp', `::/loader/keys/auto/${variable}.auth`, `${variable}.auth`])
    // The payload follows 16 bytes of time and a WIN_CERTIFICATE that begins with its own length.
    const auth = readFileSync(join(judge.dir, `${variable}.auth`))
    writeFileSync(join(judge.dir, `${variable}.esl`), auth.subarray(16 + auth.readUInt32LE(16)))
    await judge.run(['sig-list-to-certs', `${variable}.esl`, variable])
    const certificates = roles.map((_, i) => readFileSync(join(judge.dir, `${variable}-${i}.der`)))
    assert.deepEqual(certificates, roles.map(der))
  }
})

judged('veritysetup', 'the hash tree covers every block of /usr up to the root hash of the manifest', async (_t, judge) => {
  bring(judge, artifact('usr-x86-64'), 'usr')
  bring(judge, artifact('usr-x86-64-verity'), 'verity')
  const { rootHash } = bakedManifest()
  await judge.run(['veritysetup', 'verify', 'usr', 'verity', rootHash])
  const wrong = await judge.run(
    ['veritysetup', 'verify', 'usr', 'verity', rootHash.replace(/^./, (c) => (c === '0' ? '1' : '0'))],
    { allowFailure: true },
  )
  assert.notEqual(wrong.exitCode, 0)
  const { stdout } = await judge.run(['veritysetup', 'dump', 'verity'])
  assert.match(stdout, /^Hash type:\s+1$/m)
  assert.match(stdout, /^Hash algorithm:\s+sha256$/m)
  assert.equal(Number(/^Data blocks:\s+(\d+)$/m.exec(stdout)![1]) * 4096, statSync(join(judge.dir, 'usr')).size)
})

judged('openssl', 'the signature partition signs the root hash with the verity key, and with no other', async (_t, judge) => {
  const { rootHash } = bakedManifest()
  const signature = JSON.parse(readFileSync(artifact('usr-x86-64-verity-sig'), 'utf8'))
  assert.deepEqual(Object.keys(signature), ['rootHash', 'certificateFingerprint', 'signature'])
  assert.equal(signature.rootHash, rootHash)
  assert.equal(signature.certificateFingerprint, bakedManifest().certificates['verity'])
  writeFileSync(join(judge.dir, 'sig.der'), Buffer.from(signature.signature, 'base64'))
  writeFileSync(join(judge.dir, 'roothash'), rootHash)
  for (const name of ['verity', 'pk']) bring(judge, join(KEYS, `${name}.crt`), `${name}.crt`)
  const verify = (certificate: string) =>
    judge.run(
      [
        'openssl',
        'cms',
        '-verify',
        '-binary',
        '-inform',
        'der',
        '-in',
        'sig.der',
        '-content',
        'roothash',
        '-certfile',
        certificate,
      ].concat('-nointern', '-noverify', '-out', '/dev/null'),
      { allowFailure: true },
    )
  assert.equal((await verify('verity.crt')).exitCode, 0)
  assert.notEqual((await verify('pk.crt')).exitCode, 0)
})

/** The UKI's sections as files beside it. */
async function sections(judge: Judge): Promise<Map<string, string>> {
  bring(judge, baked('.efi'), 'uki.efi')
  const { stdout } = await judge.run(['ukify', 'inspect', 'uki.efi', '--json=short', '--all'])
  const found = new Map<string, string>()
  for (const name of Object.keys(JSON.parse(stdout))) {
    const file = name.slice(1)
    await judge.run(['objcopy', '-O', 'binary', `--dump-section`, `${name}=${file}`, 'uki.efi', '/dev/null'], {
      allowFailure: true,
    })
    const size = JSON.parse(stdout)[name].size
    const bytes = readFileSync(join(judge.dir, file)).subarray(0, size)
    writeFileSync(join(judge.dir, file), bytes)
    found.set(name, file)
  }
  return found
}

judged('systemd-measure', 'PCR 11 of the manifest is what systemd-measure calculates for each phase', async (_t, judge) => {
  const files = await sections(judge)
  const given = ['linux', 'osrel', 'cmdline', 'initrd', 'ucode', 'uname', 'sbat', 'pcrpkey'].filter((name) =>
    files.has(`.${name}`),
  )
  assert.ok(given.length >= 7, given.join(' '))
  const argv = ['systemd-measure', 'calculate', '--bank=sha256', '--json=short', ...given.map((name) => `--${name}=${name}`)]
  const paths = PHASES.map((_, i) => PHASES.slice(0, i + 1).join(':'))
  const { stdout } = await judge.run([...argv, ...paths.map((path) => `--phase=${path}`)])
  const calculated = JSON.parse(stdout).sha256 as { phase: string; pcr: number; hash: string }[]
  const { pcr11, rootHash } = bakedManifest()
  assert.deepEqual(Object.fromEntries(calculated.map(({ phase, hash }) => [phase, { sha256: hash }])), pcr11)
  assert.match(readFileSync(join(judge.dir, 'cmdline'), 'utf8'), new RegExp(`(?:^| )usrhash=${rootHash}(?: |$)`))
  assert.match(readFileSync(join(judge.dir, 'osrel'), 'utf8'), /^IMAGE_ID="Minimal"$/m)
})

judged('openssl', 'every PCR policy of the UKI is signed by the pcr key that .pcrpkey holds', async (_t, judge) => {
  await sections(judge)
  const policies = JSON.parse(readFileSync(join(judge.dir, 'pcrsig'), 'utf8')).sha256 as {
    pol: string
    sig: string
    pcrs: number[]
  }[]
  assert.equal(policies.length, PHASES.length)
  for (const { pol, sig, pcrs } of policies) {
    assert.deepEqual(pcrs, [11])
    writeFileSync(join(judge.dir, 'pol'), Buffer.from(pol, 'hex'))
    writeFileSync(join(judge.dir, 'sig'), Buffer.from(sig, 'base64'))
    await judge.run(['openssl', 'dgst', '-sha256', '-verify', 'pcrpkey', '-signature', 'sig', 'pol'])
  }
  bring(judge, join(KEYS, 'pcr.crt'), 'pcr.crt')
  const ours = await judge.run(['openssl', 'x509', '-in', 'pcr.crt', '-pubkey', '-noout'])
  assert.equal(readFileSync(join(judge.dir, 'pcrpkey'), 'utf8').trim(), ours.stdout.trim())
})

judged('fsck.erofs', 'fsck.erofs finds /usr sound', async (_t, judge) => {
  bring(judge, artifact('usr-x86-64'), 'usr')
  await judge.run(['fsck.erofs', 'usr'])
  assert.match((await judge.run(['dump.erofs', '-s', 'usr'])).stdout, /Filesystem magic number:\s+0xE0F5E1E2/i)
})

judged('sfdisk', 'partitions are the split artifacts, and the manifest tells the truth about all of them', async (_t, judge) => {
  const slices = await partitions(judge)
  for (const [i, type] of ['usr-x86-64-verity-sig', 'usr-x86-64-verity', 'usr-x86-64'].entries()) {
    const slice = readFileSync(await cut(judge, slices[i + 1]!, 'slice'))
    const split = readFileSync(artifact(type))
    assert.ok(slice.subarray(0, split.length).equals(split), type)
    assert.ok(
      slice.subarray(split.length).every((byte) => byte === 0),
      type,
    )
  }
  for (const { name, sizeBytes, sha256 } of bakedManifest().artifacts) {
    const path = join(BAKED, name)
    assert.deepEqual([statSync(path).size, hashFile(path)], [sizeBytes, sha256], name)
  }
  const named = bakedManifest().artifacts.map(({ name }) => name)
  assert.deepEqual(readdirSync(BAKED).sort(), [...named, 'Minimal_1_x86-64.manifest.json'].sort())
})

test('no private key, whole or in part, is in what a bake leaves behind', { skip: notBaked }, () => {
  const keys = readdirSync(KEYS)
    .filter((name) => name.endsWith('.key'))
    .map((name) => readFileSync(join(KEYS, name), 'utf8'))
  assert.equal(keys.length, 5)
  // The 13th line of an RSA key's PEM lies in its first prime: as DER and as base64.
  const needles = keys.flatMap((pem) => {
    const line = pem.split('\n')[13]!
    assert.equal(line.length, 64)
    return [Buffer.from(line, 'base64'), Buffer.from(line)]
  })
  // What the lock pins is somebody else's, byte for byte.
  const lock = readFileSync('examples/minimal/bisque.lock', 'utf8')
  const cached = ['store', 'work', 'partial']
    .map((name) => join(CACHE, name))
    .filter((folder) => existsSync(folder))
    .flatMap((folder) => readdirSync(folder, { recursive: true, withFileTypes: true }))
    .filter((entry) => entry.isFile() && !lock.includes(basename(entry.parentPath) + entry.name))
    .map((entry) => join(entry.parentPath, entry.name))
  for (const path of [...readdirSync(BAKED).map((name) => join(BAKED, name)), ...cached]) {
    const bytes = readFileSync(path)
    for (const needle of needles) assert.equal(bytes.indexOf(needle), -1, path)
    assert.equal(bytes.indexOf('-----BEGIN PRIVATE KEY-----\nMII'), -1, path)
  }
})

function ours(): Erofs {
  const path = artifact('usr-x86-64')
  const fd = openSync(path, 'r')
  return decodeErofs((offset, length) => {
    const bytes = Buffer.alloc(length)
    readSync(fd, bytes, 0, length, offset)
    return bytes
  }, statSync(path).size)
}

test('the modes and owners in /usr are those of a sound system', { skip: notBaked }, () => {
  const { inodes } = ours()
  const su = inodes.get('bin/su')!
  assert.deepEqual([su.mode, su.uid, su.gid], [0o4755, 0, 0])
  for (const [path, inode] of inodes) {
    if (inode.type !== 'symlink') assert.equal(inode.mode & 0o002, 0, `${path} is writable for everyone`)
    assert.ok(inode.mtime <= bakedManifest().epoch, path)
    assert.equal(inode.uid, 0, path)
  }
  const setuid = [...inodes].filter(([, inode]) => inode.type === 'file' && inode.mode & 0o6000).map(([path]) => path)
  assert.deepEqual(setuid.sort(), [
    'bin/chage',
    'bin/chfn',
    'bin/chsh',
    'bin/expiry',
    'bin/gpasswd',
    'bin/mount',
    'bin/newgrp',
    'bin/passwd',
    'bin/su',
    'bin/umount',
    'lib/dbus-1.0/dbus-daemon-launch-helper',
    'sbin/unix_chkpwd',
  ])
})

/** That a folder holds every file of /usr as our reader sees it. Owners can only be set by root. */
function assertTree(at: string, { owners }: { owners: boolean }): void {
  const erofs = ours()
  let listed = 0
  for (const [path, inode] of erofs.inodes) {
    const file = join(at, path)
    const stat = lstatSync(file)
    const owner = owners ? [inode.uid, inode.gid] : [stat.uid, stat.gid]
    assert.deepEqual(
      [stat.mode, stat.uid, stat.gid, stat.mtimeMs],
      [TYPE[inode.type] | inode.mode, ...owner, inode.mtime * 1000],
      path,
    )
    assert.deepEqual(readXattrs(file), new Map(inode.xattrs), path)
    if (inode.type === 'symlink') assert.equal(readlinkSync(file), Buffer.concat([...erofs.contents(inode)]).toString())
    if (inode.type === 'file') assert.ok(readFileSync(file).equals(Buffer.concat([...erofs.contents(inode)])), path)
    if (inode.type === 'directory') listed += readdirSync(file).length
  }
  assert.equal(listed, erofs.inodes.size - 1, `${at} holds other files than our reader lists`)
}

const TYPE = {
  file: 0o100000,
  directory: 0o040000,
  symlink: 0o120000,
  character: 0o020000,
  block: 0o060000,
  fifo: 0o010000,
  socket: 0o140000,
}

judged('fsck.erofs', 'fsck.erofs extracts every file of /usr as our reader sees it', async (_t, judge) => {
  bring(judge, artifact('usr-x86-64'), 'usr')
  const owners = process.getuid?.() === 0
  await judge.run([
    'fsck.erofs',
    '--extract=tree',
    '--xattrs',
    '--preserve-perms',
    ...(owners ? ['--preserve-owner'] : []),
    'usr',
  ])
  assertTree(join(judge.dir, 'tree'), { owners })
})

const cannotMount = process.getuid?.() !== 0 ? 'only root can mount' : notBaked

test('the kernel mounts /usr and sees every file as our reader does', { skip: cannotMount }, (t) => {
  const at = mkdtempSync(join(tmpdir(), 'bisque-mount-'))
  t.after(() => rmSync(at, { recursive: true, force: true }))
  execFileSync('mount', ['-t', 'erofs', '-o', 'loop,ro', artifact('usr-x86-64'), at])
  try {
    assertTree(at, { owners: true })
  } finally {
    execFileSync('umount', [at])
  }
})
