import assert from 'node:assert/strict'
import { createHash, verify } from 'node:crypto'
import { cpSync, readFileSync, writeFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { gzipSync } from 'node:zlib'
import { EPOCH, testKeys } from '../../test/keys.ts'
import { type Judge, oracle } from '../../test/oracle.ts'
import { tinyPe } from '../../test/tiny-pe.ts'
import { Fault } from '../base/fault.ts'
import { checkAuthenticode } from '../formats/authenticode.ts'
import { type PcrBank, PHASE_PATHS, parsePcrSignatures, policyDigest } from '../formats/pcr.ts'
import { decodePe, NX_COMPAT, sectionContent } from '../formats/pe.ts'
import { publicKeyOf } from '../formats/x509.ts'
import { makeUki, type UkiInput } from './uki.ts'
import { type UkiProfile, ukiProfiles } from './uki-profiles.ts'

const STUB = '/usr/lib/systemd/boot/efi/linuxx64.efi.stub'
const { directory, signers } = await testKeys()
const INPUT: UkiInput = {
  stub: { bytes: tinyPe() },
  kernel: { bytes: tinyPe({ text: Buffer.from('a kernel') }) },
  initrds: [{ bytes: Buffer.from('first') }, { bytes: Buffer.from('second archive') }],
  microcode: { bytes: Buffer.from('microcode') },
  osRelease: 'ID=acme\nPRETTY_NAME="Acme OS"\n',
  cmdline: 'quiet usrhash=00',
  uname: '6.12.1-acme',
  splash: { bytes: Buffer.from('BM') },
  signers,
}

const RESCUE: UkiProfile = { id: 'rescue', text: 'ID=rescue\nTITLE="Rescue"\n', cmdline: 'rescue', signed: true }

const sectionsOf = (image: Uint8Array) =>
  decodePe(image).sections.map(
    (section) => [section.name, Buffer.from(sectionContent(image, section)).toString('latin1')] as const,
  )

test('makeUki() gives a signed image with every section in ukify order', async () => {
  const uki = await makeUki(INPUT)
  assert.deepEqual(checkAuthenticode(uki.bytes)[0]!.problems, [])
  const sections = sectionsOf(uki.bytes)
  assert.deepEqual(
    sections.map(([name]) => name),
    ['.text', '.sbat', '.osrel', '.cmdline', '.uname', '.splash', '.pcrpkey', '.linux', '.initrd', '.ucode', '.pcrsig'],
  )
  const byName = Object.fromEntries(sections)
  assert.equal(byName['.initrd'], 'first\0\0\0second archive\0\0')
  assert.equal(`${Buffer.from(uki.initrd)}`, byName['.initrd'])
  assert.equal(byName['.cmdline'], INPUT.cmdline)
  assert.match(byName['.sbat']!, /^sbat,1[^\n]+\ntiny,1[^\n]+\ntiny,1[^\n]+\nuki,1[^\n]+\n$/)
  assert.match(byName['.pcrpkey']!, /^-----BEGIN PUBLIC KEY-----/)
})

test('makeUki() signs the policy of every phase and bank it predicts', async () => {
  const banks: PcrBank[] = ['sha256', 'sha384']
  const uki = await makeUki({ ...INPUT, banks })
  const policies = parsePcrSignatures(Object.fromEntries(sectionsOf(uki.bytes))['.pcrsig']!)
  assert.deepEqual(
    policies.map(({ policy }) => Buffer.from(policy).toString('hex')),
    banks.flatMap((bank) =>
      PHASE_PATHS.map((path) => policyDigest(bank, Buffer.from(uki.pcr11[path]![bank]!, 'hex')).toString('hex')),
    ),
  )
})

test('makeUki() signs a policy for the initrd alone where the stub is of systemd 262 or later, behind all others', async () => {
  const policiesWith = async (version: string) => {
    const stub = tinyPe({ text: Buffer.from(`#### LoaderInfo: systemd-stub ${version} ####`) })
    stub.write('.sdmagic', stub.indexOf('.text\0'))
    const uki = await makeUki({ ...INPUT, stub: { bytes: stub }, profiles: [RESCUE], banks: ['sha256', 'sha384'] })
    return sectionsOf(uki.bytes).flatMap(([name, text]) => (name === '.pcrsig' ? [text] : []))
  }
  for (const text of await policiesWith('261.2')) assert.doesNotMatch(text, /"ref"/)
  const texts = await policiesWith('262~rc1')
  assert.equal(texts.length, 2)
  const key = publicKeyOf(signers.pcr.certificate)
  for (const text of texts) {
    const policies = parsePcrSignatures(text)
    assert.match(text, /"pkfp":"[0-9a-f]{64}","ref":"initrd","pol"/)
    for (const bank of ['sha256', 'sha384']) {
      const own = policies.filter((policy) => policy.bank === bank)
      assert.deepEqual(
        own.map(({ reference }) => reference),
        [...PHASE_PATHS.map(() => undefined), 'initrd'],
      )
      assert.deepEqual(own[0]!.policy, own.at(-1)!.policy) // both are for `enter-initrd`
      for (const { policy, reference, signature } of own) {
        const meant = reference === undefined ? [] : [createHash('sha256').update('initrd').digest()]
        assert.ok(verify('sha256', Buffer.concat([policy, ...meant]), key, signature))
      }
    }
  }
})

test('the same input gives the same UKI, from memory or from files', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'bisque-uki-'))
  t.after(() => rm(folder, { recursive: true }))
  const stored = (name: string, content: UkiInput['stub']) => {
    writeFileSync(join(folder, name), (content as { bytes: Uint8Array }).bytes)
    return { path: join(folder, name) }
  }
  const fromFiles = await makeUki({
    ...INPUT,
    stub: stored('stub', INPUT.stub),
    kernel: stored('kernel', INPUT.kernel),
    initrds: INPUT.initrds.map((content, i) => stored(`initrd${i}`, content)),
  })
  const first = await makeUki(INPUT)
  assert.deepEqual(Buffer.from(fromFiles.bytes), Buffer.from(first.bytes))
  assert.notDeepEqual(Buffer.from((await makeUki({ ...INPUT, signingTime: EPOCH })).bytes), Buffer.from(first.bytes))
})

test('a kernel without NX_COMPAT takes it from the UKI', async () => {
  const nx = async (nxCompat: boolean) =>
    decodePe((await makeUki({ ...INPUT, kernel: { bytes: tinyPe({ nxCompat }) } })).bytes).dllCharacteristics & NX_COMPAT
  assert.equal(await nx(true), NX_COMPAT)
  assert.equal(await nx(false), 0)
})

test('makeUki() refuses a kernel, stub or text it cannot use', async () => {
  const refused: [Partial<UkiInput>, RegExp][] = [
    [{ kernel: { bytes: Buffer.from('not PE at all') } }, /Cannot read DOS header/],
    [{ kernel: { bytes: Buffer.from([0x1f, 0x8b, 8]) } }, /the kernel does not decompress/],
    [{ kernel: { path: '/nonexistent/vmlinuz' } }, /Cannot make UKI: ENOENT/],
    [{ stub: { bytes: tinyPe().subarray(0, 0x800) } }, /headers end at 4096, the file at 2048/],
    [{ stub: { bytes: (await makeUki(INPUT)).bytes } }, /Cannot add sections to stub: it is signed already/],
    [{ sbat: `sbat,1\n${'x'.repeat(512)}\n` }, /Cannot replace section \.sbat: the new content has \d+ bytes, 512 fit/],
    [{ cmdline: 'a\nb' }, /cmdline has control character 0xa at 1/],
    [{ banks: [] }, /PCR banks "" must be some of sha1, sha256/],
    [{ profiles: [RESCUE, RESCUE] }, /two profiles with ID rescue/],
  ]
  for (const [change, why] of refused)
    await assert.rejects(makeUki({ ...INPUT, ...change }), (e) => e instanceof Fault && why.test(e.message), String(why))
})

test('makeUki() refuses a signer whose signature does not verify', async () => {
  for (const role of ['db', 'pcr'] as const) {
    const wrong = { ...signers, [role]: { certificate: signers[role].certificate, sign: signers.pk.sign } }
    await assert.rejects(makeUki({ ...INPUT, signers: wrong }), (e) => e instanceof Fault && e.code === 'integrity')
  }
})

/** Writes a kernel and initrd for both of us into the judge's folder, and the keys. */
async function prepare(judge: Judge): Promise<UkiInput> {
  cpSync(directory, judge.dir, { recursive: true })
  await judge.run(['cp', STUB, 'stub'])
  const stub = { path: join(judge.dir, 'stub') }
  const kernel = { bytes: tinyPe({ text: Buffer.from('a kernel') }) }
  for (const [name, bytes] of [
    ['linux', kernel.bytes],
    ['initrd1', Buffer.alloc(3001, 1)],
    ['initrd2', Buffer.alloc(2002, 2)],
    ['ucode', Buffer.alloc(512, 3)],
  ] as const)
    writeFileSync(join(judge.dir, name), bytes)
  const initrds = ['initrd1', 'initrd2'].map((name) => ({ path: join(judge.dir, name) }))
  return { ...INPUT, stub, kernel, initrds, microcode: { path: join(judge.dir, 'ucode') } }
}

// biome-ignore format: table
const UKIFY = [
  'ukify', 'build', '--stub=stub', '--linux=linux', '--initrd=initrd1', '--initrd=initrd2', '--microcode=ucode',
  `--os-release=${INPUT.osRelease}`, `--cmdline=${INPUT.cmdline}`, `--uname=${INPUT.uname}`,
]
// biome-ignore format: table
const SIGN_PCRS = [
  '--pcr-private-key=pcr.key', '--pcr-public-key=pcr.pub', '--pcr-banks=sha256', `--phases=${PHASE_PATHS.join(' ')}`,
]

/** Sections, with the differences there may be: ukify ends .sbat with a NUL and writes other spaces into JSON. */
const comparable = (image: Uint8Array) =>
  sectionsOf(image).map(([name, text]) => [
    name,
    name === '.sbat' ? text.replace(/\0$/, '') : name === '.pcrsig' ? parsePcrSignatures(text) : text,
  ])

oracle('ukify', 'ukify makes the same sections and headers of the same input', async (_t, judge) => {
  const { splash: _, ...input } = await prepare(judge)
  await judge.run(['openssl', 'pkey', '-in', 'pcr.key', '-pubout', '-out', 'pcr.pub'])
  await judge.run([...UKIFY, '--output=theirs.efi', ...SIGN_PCRS])
  const theirs = readFileSync(join(judge.dir, 'theirs.efi'))
  const ours = (await makeUki(input)).bytes
  // The .sbat text is measured, so with another end of it there are other policies: only their number can be compared.
  const withoutPolicies = (image: Uint8Array) =>
    comparable(image).map(([name, text]) => [name, name === '.pcrsig' ? text!.length : text])
  assert.deepEqual(withoutPolicies(ours), withoutPolicies(theirs))
  const {
    at: _at,
    certificateTable: _table,
    checkSum: _sum,
    sections: _sections,
    sizeOfImage: _size,
    ...headers
  } = decodePe(ours)
  for (const [name, value] of Object.entries(headers)) assert.equal(value, (decodePe(theirs) as never)[name], name)
  const places = (image: Uint8Array) =>
    decodePe(image)
      .sections.filter(({ name }) => !['.sbat', '.pcrsig'].includes(name))
      .map((section) => Object.values(section).join())
  assert.deepEqual(places(ours), places(theirs))
})

oracle('ukify', 'ukify inspects our UKI, sbverify verifies it, systemd-measure predicts the same PCR 11', async (_t, judge) => {
  const input = await prepare(judge)
  const uki = await makeUki(input)
  writeFileSync(join(judge.dir, 'ours.efi'), uki.bytes)
  await judge.run(['sbverify', '--cert', 'db.crt', 'ours.efi'])
  assert.match(
    (await judge.run(['osslsigncode', 'verify', '-in', 'ours.efi', '-CAfile', 'db.crt'])).stdout,
    /Signature verification: ok/,
  )
  const inspected = JSON.parse((await judge.run(['ukify', 'inspect', 'ours.efi', '--json=short'])).stdout)
  assert.equal(inspected['.osrel'].text, INPUT.osRelease)
  assert.equal(inspected['.uname'].text, INPUT.uname)
  for (const { name, sizeBytes } of uki.sections) assert.equal(inspected[name].size, sizeBytes, name)

  const names = uki.sections.map(({ name }) => name).filter((name) => name !== '.pcrsig')
  for (const name of names) await judge.run(['objcopy', '-O', 'binary', `--only-section=${name}`, 'ours.efi', `section${name}`])
  const inputs = names.map((name) => `--${name.slice(1)}=section${name}`)
  const { stdout } = await judge.run(['systemd-measure', 'calculate', '--json=short', '--bank=sha256', ...inputs])
  for (const { phase, hash } of JSON.parse(stdout).sha256) assert.equal(uki.pcr11[phase]!.sha256, hash, phase)
})

/** What a distribution with profiles of its own has: bare and quoted values, and profiles that nothing is unsealed for. */
const PROFILES = [
  { profile: { ID: 'live', TITLE: 'Live System' }, cmdline: ['root=tmpfs', 'rw'], signExpectedPcr: false },
  { profile: { ID: 'emergency', TITLE: 'Emergency [CAUTION!]' }, cmdline: ['emergency'], signExpectedPcr: true },
  { profile: { ID: 'factory-reset' }, cmdline: ['systemd.factory_reset=1'], signExpectedPcr: true },
]

/** Profiles as ukify takes them: made by it, of texts we did not make. */
async function theirProfiles(judge: Judge): Promise<string[]> {
  const texts = ['ID=live\nTITLE="Live System"\n', 'ID=emergency\nTITLE="Emergency [CAUTION!]"\n', 'ID="factory-reset"\n']
  for (const [i, { cmdline }] of PROFILES.entries()) {
    const words = [INPUT.cmdline, ...cmdline].join(' ')
    const stub = '--stub=/usr/lib/systemd/boot/efi/addonx64.efi.stub'
    await judge.run(['ukify', 'build', stub, `--profile=${texts[i]}`, `--cmdline=${words}`, `--output=p${i}.efi`])
  }
  return PROFILES.map((_, i) => `--join-profile=p${i}.efi`)
}

oracle('ukify', 'ukify joins profiles as we do', async (_t, judge) => {
  const { splash: _, ...input } = await prepare(judge)
  const sbat = 'sbat,1\nacme,1\n'
  await judge.run(['openssl', 'pkey', '-in', 'pcr.key', '-pubout', '-out', 'pcr.pub'])
  const profiles = await theirProfiles(judge)
  await judge.run([...UKIFY, `--sbat=${sbat}`, ...profiles, '--output=theirs.efi', ...SIGN_PCRS])
  const all = PROFILES.map((profile) => ({ ...profile, signExpectedPcr: true }))
  const ours = await makeUki({ ...input, sbat, profiles: ukiProfiles(all, [INPUT.cmdline]) })
  const names = (image: Uint8Array) => sectionsOf(image).map(([name, text]) => [name, /sbat|pcrsig/.test(name) ? '' : text])
  assert.deepEqual(names(ours.bytes), names(readFileSync(join(judge.dir, 'theirs.efi'))))
})

oracle(
  'ukify',
  'systemd-measure predicts the PCR 11 of every profile; profiles that are not to be have no policies',
  async (_t, judge) => {
    const uki = await makeUki({ ...(await prepare(judge)), profiles: ukiProfiles(PROFILES, [INPUT.cmdline]) })
    assert.deepEqual(
      uki.profiles.map(({ id }) => id),
      ['main', 'live', 'emergency', 'factory-reset'],
    )
    assert.deepEqual(uki.pcr11, uki.profiles[0]!.pcr11)
    // Split by hand: all before the first .profile is shared.
    const sections = sectionsOf(uki.bytes).filter(([name]) => !/text|rodata|^.data|sdmagic|reloc/.test(name))
    const starts = sections.flatMap(([name], i) => (name === '.profile' ? [i] : []))
    const own = starts.map((start, i) => sections.slice(start, starts[i + 1]))
    assert.deepEqual(
      own.map((part) => part.some(([name]) => name === '.pcrsig')),
      [true, false, true, true],
    )
    for (const [i, part] of own.entries()) {
      const effective = new Map([...sections.slice(0, starts[0]), ...part].filter(([name]) => name !== '.pcrsig'))
      for (const [name, text] of effective) writeFileSync(join(judge.dir, `section${name}`), text, 'latin1')
      const inputs = [...effective.keys()].map((name) => `--${name.slice(1)}=section${name}`)
      const { stdout } = await judge.run(['systemd-measure', 'calculate', '--json=short', '--bank=sha256', ...inputs])
      const { pcr11 } = uki.profiles[i]!
      for (const { phase, hash } of JSON.parse(stdout).sha256) assert.equal(pcr11[phase]!.sha256, hash, `${i} ${phase}`)
      const signatures = part.find(([name]) => name === '.pcrsig')?.[1]
      const policies = signatures === undefined ? [] : parsePcrSignatures(signatures)
      const expected = PHASE_PATHS.map((phase) =>
        policyDigest('sha256', Buffer.from(pcr11[phase]!.sha256!, 'hex')).toString('hex'),
      )
      assert.deepEqual(
        policies.map(({ policy }) => Buffer.from(policy).toString('hex')),
        signatures === undefined ? [] : expected,
      )
    }
    writeFileSync(join(judge.dir, 'ours.efi'), uki.bytes)
    await judge.run(['sbverify', '--cert', 'db.crt', 'ours.efi'])
    const { stdout } = await judge.run(['ukify', 'inspect', 'ours.efi', '--section=.profile:text'])
    assert.match(stdout, /ID=main/)
  },
)

test('makeUki() makes a UKI that nobody signed, without policies', async () => {
  const uki = await makeUki({ ...INPUT, signers: {}, profiles: ukiProfiles(PROFILES, []) })
  assert.deepEqual(decodePe(uki.bytes).certificateTable, { offset: 0, sizeBytes: 0 })
  assert.ok(!sectionsOf(uki.bytes).some(([name]) => name.startsWith('.pcr')))
  assert.equal(uki.profiles.length, 4)
})

test('makeUki() puts microcode before the initrds of a stub that has no place for it, and refuses it profiles', async () => {
  const stub = tinyPe({ text: Buffer.from('#### LoaderInfo: systemd-stub 252.38 ####') })
  stub.write('.sdmagic', stub.indexOf('.text\0'))
  const { bytes } = await makeUki({ ...INPUT, stub: { bytes: stub } })
  const sections = new Map(sectionsOf(bytes))
  assert.ok(!sections.has('.ucode'))
  assert.match(sections.get('.initrd')!, /^microcode\0*first\0*second archive/)
  await assert.rejects(
    makeUki({ ...INPUT, stub: { bytes: stub }, profiles: [RESCUE] }),
    /profiles need systemd-stub 257 or newer, the image has 252/,
  )
})

test('makeUki() signs the kernel inside where it is to, and takes one that is compressed', async () => {
  const { bytes, kernel } = await makeUki({
    ...INPUT,
    kernel: { bytes: gzipSync(tinyPe({ text: Buffer.from('a kernel') })) },
    signKernel: true,
  })
  assert.deepEqual(checkAuthenticode(kernel)[0]!.problems, [])
  const inside = decodePe(bytes).sections.find(({ name }) => name === '.linux')!
  assert.ok(Buffer.from(sectionContent(bytes, inside)).equals(kernel))
})
