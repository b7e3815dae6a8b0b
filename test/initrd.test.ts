/** The baked example's initrd, taken out of its UKI and judged by cpio, zstd and modprobe. */
import assert from 'node:assert/strict'
import {
  copyFileSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { cpioSize } from '../src/formats/cpio.ts'
import { baked, bakedManifest, notBaked } from './baked.ts'
import { type Judge, oracle } from './oracle.ts'

const judged: typeof oracle = (tool, name, body) =>
  notBaked ? test(`[${tool}] ${name}`, { skip: notBaked }, () => {}) : oracle(tool, name, body)

const ZSTD = 0xfd2fb528

/** Where the zstd frame at `start` ends. Spec: RFC 8878 3.1.1. */
function frameEnd(bytes: Buffer, start: number): number {
  const descriptor = bytes[start + 4]!
  const single = (descriptor & 0x20) !== 0
  const contentSize = [single ? 1 : 0, 2, 4, 8][descriptor >> 6]!
  let at = start + 5 + (single ? 0 : 1) + [0, 1, 2, 4][descriptor & 3]! + contentSize
  for (let last = false; !last; ) {
    const header = bytes.readUIntLE(at, 3)
    last = (header & 1) === 1
    at += 3 + (((header >> 1) & 3) === 1 ? 1 : header >> 3)
  }
  return at + (descriptor & 4 ? 4 : 0)
}

/** Unpacks the UKI's initrd as the kernel does: one archive after the other into `root`. Answers with how many there were. */
async function unpack(judge: Judge): Promise<{ compressed: number; plain: number }> {
  copyFileSync(baked('.efi'), join(judge.dir, 'uki.efi'))
  await judge.run(['objcopy', '--dump-section', '.initrd=initrd', 'uki.efi', 'rest.efi'])
  const initrd = readFileSync(join(judge.dir, 'initrd'))
  mkdirSync(join(judge.dir, 'root'))
  const extract = async (name: string) => {
    // A regular file may come again, as the kernel lets it: the later one counts.
    await judge.run([
      'sh',
      '-c',
      'cd root && cpio --extract --make-directories --preserve-modification-time -u < "../$1"',
      'sh',
      name,
    ])
  }
  const count = { compressed: 0, plain: 0 }
  let at = 0
  while (at + 4 <= initrd.length && initrd.readUInt32LE(at) === ZSTD) {
    const end = frameEnd(initrd, at)
    writeFileSync(join(judge.dir, 'part.zst'), initrd.subarray(at, end))
    await judge.run(['zstd', '--decompress', '--quiet', '--force', 'part.zst', '-o', 'part.cpio'])
    await extract('part.cpio')
    count.compressed++
    at = end
    while (at < initrd.length && initrd[at] === 0) at++
  }
  while (at < initrd.length) {
    assert.equal(initrd.toString('latin1', at, at + 6), '070701')
    assert.equal(at % 4, 0, 'an uncompressed archive begins on four bytes')
    const end = at + cpioSize(initrd.subarray(at))
    writeFileSync(join(judge.dir, 'plain.cpio'), initrd.subarray(at, end))
    await extract('plain.cpio')
    count.plain++
    at = end
    while (at < initrd.length && initrd[at] === 0) at++
  }
  return count
}

judged('cpio', 'the initrd is a row of whole archives that hold what PID 1 needs', async (_t, judge) => {
  const { compressed, plain } = await unpack(judge)
  assert.ok(compressed > 0)
  assert.ok(plain > 0)
  const root = join(judge.dir, 'root')
  const inRoot = (path: string) => join(root, path)
  const program = (path: string) => (lstatSync(inRoot(path)).mode & 0o111) === 0o111
  assert.ok(program('init'))
  assert.match(readFileSync(inRoot('init'), 'utf8'), /^exec \/usr\/lib\/systemd\/systemd/m)
  for (const path of ['systemd', 'systemd-veritysetup', 'system-generators/systemd-veritysetup-generator'])
    assert.ok(program(`usr/lib/systemd/${path}`), path)
  assert.equal(readlinkSync(inRoot('etc/initrd-release')), '/etc/os-release')
  assert.match(readFileSync(inRoot('usr/lib/os-release'), 'utf8'), /^ID=debian$/m)
  assert.ok(program('usr/lib/bisque/usr-signature'))
  assert.match(
    readFileSync(inRoot('usr/lib/systemd/system/bisque-usr-signature.service'), 'utf8'),
    /^ExecStart=\/usr\/lib\/bisque\/usr-signature$/m,
  )
  assert.ok(existsSync(inRoot('usr/lib/systemd/system/systemd-veritysetup@usr.service.d/50-bisque-signature.conf')))
  assert.equal(readFileSync(inRoot('etc/hostname'), 'utf8'), 'minimal\n')
  assert.equal(readFileSync(inRoot('etc/machine-id'), 'utf8'), 'uninitialized\n')
  const { epoch } = bakedManifest()
  for (const entry of readdirSync(root, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name)
    // What a directory says is when it was last unpacked into.
    // A link such as /var/run would lead out of the tree.
    if (!realpathSync(entry.parentPath).startsWith(realpathSync(root))) continue
    if (entry.isFile()) assert.ok(lstatSync(path).mtimeMs <= epoch * 1000, path)
  }
})

judged('modprobe', 'the initrd has the modules that find /usr, and every module that a module of it needs', async (_t, judge) => {
  await unpack(judge)
  const { kernel } = bakedManifest()
  // A dependency that is not there is left out with exit code 0; only standard error tells.
  const insmods = async (names: readonly string[]) => {
    const argv = ['modprobe', '-d', `${judge.dir}/root/usr`, '-S', kernel, '--show-depends', '--all', ...names]
    const { stdout, stderr } = await judge.run(argv)
    assert.equal(stderr, '')
    return [...stdout.matchAll(/^insmod .*\/([^/]+)\.ko(?:\.\w+)? /gm)].map((match) => match[1])
  }
  const forUsr = await insmods(['dm-verity', 'erofs', 'virtio_blk', 'virtio_pci'])
  for (const name of ['dm-mod', 'dm-bufio', 'dm-verity', 'erofs', 'virtio_blk'])
    assert.ok(forUsr.includes(name), `${name}: ${forUsr}`)
  const modules = readdirSync(join(judge.dir, 'root/usr/lib/modules', kernel), { recursive: true, encoding: 'utf8' })
    .map((path) => /([^/]+)\.ko(?:\.\w+)?$/.exec(path)?.[1])
    .filter((name) => name !== undefined)
  assert.ok(modules.length > 20, `${modules.length}`)
  // Of a module itself modprobe does not look whether it is there.
  assert.deepEqual(
    forUsr.filter((name) => !modules.includes(name!)),
    [],
  )
  const loadable = new Set(await insmods(modules))
  assert.deepEqual([...loadable].sort(), modules.sort())
})
