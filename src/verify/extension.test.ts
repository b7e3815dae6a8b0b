import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import fc from 'fast-check'
import { EPOCH, testKeys } from '../../test/keys.ts'
import { tinyDisk, tinyErofs, tinyExtension } from '../../test/tiny-extension.ts'
import { decodeGpt } from '../formats/gpt.ts'
import { startWorkers } from '../run/workers.ts'
import { madeFile } from '../tree/content.ts'
import { loadersOf } from './addons.ts'
import { diskOfFile, openDisk } from './disk.ts'
import { judgeExtension, MAX_ALL_EXTENSION_BYTES } from './extension.ts'
import type { ImageFacts, UkiFacts } from './facts.ts'
import { checkLink, type Link } from './link.ts'
import { FULL_CHAIN } from './trust.ts'

const { signers } = await testKeys()
const { verity: signer, kek: stranger } = signers
const folder = mkdtempSync(join(tmpdir(), 'bisque-extensions-'))
const workers = startWorkers(1)
after(async () => {
  await workers.close()
  rmSync(folder, { recursive: true, force: true })
})

const facts = {
  ...{ architecture: 'x86-64', now: EPOCH, ukis: [] as UkiFacts[] },
  anchor: {
    ...{ db: [], verity: [signer.certificate], pcr: [], from: 'given', chain: FULL_CHAIN, total: true },
    revoked: { digests: new Set(), certificates: [] },
  },
} as unknown as ImageFacts

async function judge(name: string, bytes: Uint8Array, left = { bytes: MAX_ALL_EXTENSION_BYTES }): Promise<Link> {
  const path = join(folder, 'image')
  // As if it were a file in two clusters of a file system.
  const half = Math.floor(bytes.length / 2)
  writeFileSync(path, Buffer.concat([Buffer.alloc(512), bytes.subarray(half), bytes.subarray(0, half)]))
  using disk = openDisk(path)
  const extents = [
    { offset: bytes.length - half, sizeBytes: half },
    { offset: 0, sizeBytes: bytes.length - half },
  ]
  const entry = { path: name, type: 'file' as const, sizeBytes: bytes.length, mtime: 0, extents }
  const links: Link[] = []
  await checkLink(links, 'UKI', name, (finding) =>
    judgeExtension(
      {
        ...{ path: name, partition: 'esp', sizeBytes: bytes.length, isProgram: false, read: () => bytes },
        disk: () => diskOfFile(disk, { offset: 512 }, entry),
      },
      facts,
      left,
      workers,
      finding,
    ),
  )
  return links[0]!
}

const SOUP = 'EFI/Linux/a.efi.extra.d/soup.sysext.raw'
const soup = Buffer.from(await tinyExtension({ signer }))
const partitions = decodeGpt((offset, sizeBytes) => soup.subarray(offset, offset + sizeBytes)).partitions
const [DATA, HASH, SIGNATURE] = partitions.map(({ firstLba }) => firstLba * 512) as [number, number, number]
const flipped = (offset: number): Buffer => {
  const copy = Buffer.from(soup)
  copy[offset]! ^= 4
  return copy
}
const release = (name: string, xattrs: Record<string, string> = {}) => ({
  [`usr/lib/extension-release.d/extension-release.${name}`]: {
    ...madeFile('ID=soup\nVERSION_ID=2\nSYSEXT_LEVEL=1\n', EPOCH),
    xattrs: new Map(Object.entries(xattrs).map(([key, value]) => [key, Buffer.from(value)])),
  },
})
const signedRoot = async (files: Parameters<typeof tinyErofs>[0]) =>
  tinyDisk([{ type: 'root', data: await tinyErofs(files) }], signer)

test('a system extension signed by whom the chain trusts holds, and so does a configuration extension', async () => {
  const link = await judge(SOUP, soup)
  assert.equal(link.problem, undefined)
  assert.match(link.evidence, /^system extension, measured in PCR 13, .*PKCS#7 over the root hash by CN=Test dm-verity/)
  assert.match(link.evidence, /data and its tree hash to [0-9a-f]{64}, extension-release\.soup: ID=_any ARCHITECTURE=x86-64$/)
  const confext = await judge('loader/extensions/soup.confext.raw', await tinyExtension({ kind: 'confext', signer }))
  assert.equal(confext.problem, undefined)
  assert.match(confext.evidence, /^configuration extension, measured in PCR 12, /)
  assert.ok((await judge('loader/extensions/soup.raw', await tinyExtension({ sectorSize: 4096, signer }))).ok)
})

test('an extension that nobody signed, or a stranger, says so', async () => {
  const erofs = await tinyErofs(release('soup'))
  const cases: [string, Uint8Array, RegExp][] = [
    ['a bare file system', erofs, /^nobody signed this system extension: it is a bare file system \(erofs\)/],
    ['no partitions', await tinyExtension({ verity: 'unprotected' }), /^nobody signed .*: it has no root-verity-sig partition$/],
    ['hashes alone', await tinyExtension({ verity: 'hash' }), /^nobody signed .*: it has no root-verity-sig partition$/],
    ['a place for a signature', await tinyExtension({}), /^nobody signed .*: its root-verity-sig partition is empty$/],
    ['a stranger', await tinyExtension({ signer: stranger }), /^its signer is no trusted verity certificate$/],
    ['zeros', Buffer.alloc(4096), /^nobody signed .*: it has neither a partition table nor a file system/],
    ['nothing', Buffer.alloc(0), /^nobody signed .*: it has neither a partition table nor a file system/],
  ]
  for (const [what, bytes, why] of cases) {
    const { problem, hint } = await judge(SOUP, bytes)
    assert.match(problem!, why, what)
    assert.match(hint!, what === 'a stranger' ? /verity key/ : /^build it with Verity=signed and the verity key, or remove EFI\//)
  }
})

test('what was changed in an extension is named', async () => {
  const cases: [string, Uint8Array, RegExp][] = [
    ['its data', flipped(DATA + 50_000), /^Cannot trust .*: its blocks do not match their digests \(1 of \d+ blocks: 12\)$/],
    ['its tree', flipped(HASH + 4096 + 33), /^Cannot trust .*: root hash \w+ does not match/],
    ['its superblock', flipped(HASH + 3), /^Cannot read verity superblock\.signature/],
    ['its signature', flipped(SIGNATURE + 20), /^no root partition has the UUID \S+, the first half of the root hash: there is /],
    ['its table', flipped(512 + 60), /^Cannot trust GPT header at LBA 1: CRC/],
    ['its end', soup.subarray(0, -4096), /^Cannot read GPT header/],
    ['what is behind it', Buffer.concat([soup, Buffer.alloc(512)]), /^the table is for a disk of \d+ bytes, the image has \d+$/],
  ]
  for (const [what, bytes, why] of cases) assert.match((await judge(SOUP, bytes)).problem!, why, what)
})

test('an extension must be what systemd mounts on this machine', async () => {
  const arm = await tinyExtension({ architecture: 'arm64', signer })
  assert.match((await judge(SOUP, arm)).problem!, /must have one partition for x86-64 to mount, root or usr: there is none/)
  const usr = await tinyErofs({ 'lib/extension-release.d/extension-release.soup': madeFile('ID=_any\n', EPOCH) })
  const both = await tinyDisk(
    [
      { type: 'root', data: await tinyErofs(release('soup')) },
      { type: 'usr', data: usr },
    ],
    signer,
  )
  assert.match((await judge(SOUP, both)).problem!, /must have one partition .*: there is root and usr/)
  const alone = await tinyDisk([{ type: 'usr', data: usr }], signer)
  assert.match((await judge(SOUP, alone)).evidence, /extension-release\.soup: ID=_any$/)
  assert.match((await judge('loader/extensions/soup.confext.raw', alone)).problem!, /mount, root: there is none/)
})

test('an extension must bear the name that its release file has, unless that says otherwise', async () => {
  const other = await judge('loader/extensions/bread.raw', soup)
  assert.match(
    other.problem!,
    /no \/usr\/lib\/extension-release\.d\/extension-release\.bread in it.*: there is extension-release\.soup$/,
  )
  assert.equal(other.hint, 'call the file soup.sysext.raw')
  assert.match((await judge('loader/extensions/soup.confext.raw', soup)).problem!, /no \/etc\/.*: there is none$/)
  assert.match(
    (await judge(SOUP, await signedRoot(release('soup.sysext')))).evidence,
    /extension-release\.soup\.sysext: ID=soup VERSION_ID=2 SYSEXT_LEVEL=1$/,
  )
  const lax = release('any', { 'user.extension-release.strict': 'false' })
  assert.ok((await judge(SOUP, await signedRoot(lax))).ok)
  const strict = release('any', { 'user.extension-release.strict': '1' })
  assert.ok(!(await judge(SOUP, await signedRoot(strict))).ok)
  assert.ok(!(await judge(SOUP, await signedRoot({ ...lax, ...release('more', { 'user.extension-release.strict': '0' }) }))).ok)
})

test('what is in a file system that is not read is covered all the same', async () => {
  const data = Buffer.alloc(64 << 10)
  data.write('hsqs')
  const link = await judge(SOUP, await tinyDisk([{ type: 'root', data }], signer))
  assert.equal(link.problem, undefined)
  assert.match(link.evidence, /squashfs: what is in it is covered, and not looked at$/)
})

test('an extension that is too large, or one too many, is not checked and said to be', async () => {
  const links: Link[] = []
  const huge = {
    ...{ path: SOUP, partition: 'esp' as const, sizeBytes: 600 << 20, isProgram: false, read: () => soup },
    disk: () => assert.fail('nobody reads it'),
  }
  const left = { bytes: MAX_ALL_EXTENSION_BYTES }
  await checkLink(links, 'UKI', 'huge', (finding) => judgeExtension(huge, facts, left, workers, finding))
  assert.match(links[0]!.problem!, /^not checked: it has 600\.0 MiB, at most 512\.0 MiB are looked at$/)
  assert.match((await judge(SOUP, soup, { bytes: 1000 })).problem!, /^not checked: .* at most 4\.0 GiB of all are looked at$/)
})

test('judgeExtension() has a verdict for any bytes, and takes no change of what is mounted', async () => {
  const ends = partitions.map(({ lastLba }) => (lastLba + 1) * 512)
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(0, DATA, HASH, SIGNATURE),
      fc.nat(8191),
      fc.integer({ min: 1, max: 255 }),
      async (start, at, bits) => {
        const bytes = Buffer.from(soup)
        bytes[start + at]! ^= bits
        const { ok, problem } = await judge(SOUP, bytes)
        assert.equal(ok, problem === undefined)
        if (start === DATA && start + at < ends[0]!) assert.ok(!ok)
      },
    ),
    { numRuns: 150, seed: 7 },
  )
})

test('loadersOf() knows the folder beside a UKI, whose name has no counter of attempts', () => {
  const ukis = ['EFI/Linux/A.efi', 'EFI/Linux/b+3-1.efi', 'EFI/other/b.efi'].map((path) => ({ path }) as UkiFacts)
  const found = (path: string) => loadersOf(path, ukis).map((one) => one.path)
  assert.deepEqual(found('EFI/Linux/a.efi.extra.d/x.raw'), ['EFI/Linux/A.efi'])
  assert.deepEqual(found('EFI/Linux/b.efi.extra.d/x.raw'), ['EFI/Linux/b+3-1.efi'])
  assert.deepEqual(found('EFI/Linux/b+3-1.efi.extra.d/x.raw'), ['EFI/Linux/b+3-1.efi'])
  assert.deepEqual(found('EFI/Linux/c.efi.extra.d/x.raw'), [])
  assert.equal(found('loader/extensions/x.raw').length, 3)
})
