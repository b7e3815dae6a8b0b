import assert from 'node:assert/strict'
import { chmodSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { Fault } from '../../base/fault.ts'
import { type LoadOptions, loadRecipe, type Recipe } from '../recipe.ts'
import type { Settings } from '../schema.ts'

/** A folder of files, gone after the test. */
function folder(t: TestContext, files: Record<string, string>): string {
  const directory = mkdtempSync(join(tmpdir(), 'bisque-mkosi-'))
  t.after(() => rmSync(directory, { recursive: true, force: true }))
  for (const [name, text] of Object.entries(files)) {
    if (name.endsWith('/')) {
      mkdirSync(join(directory, name), { recursive: true })
      continue
    }
    mkdirSync(dirname(join(directory, name)), { recursive: true })
    writeFileSync(join(directory, name), text)
  }
  return directory
}

const BASE = '[Distribution]\nRelease=sid\n'
const load = (t: TestContext, files: Record<string, string>, options?: LoadOptions): Promise<Recipe> =>
  loadRecipe(folder(t, { 'mkosi.conf': BASE, ...files }), options)
const settings = async (t: TestContext, files: Record<string, string>, options?: LoadOptions): Promise<Settings> =>
  (await load(t, files, options)).settings

async function faultOf(loading: Promise<unknown>): Promise<Fault> {
  try {
    await loading
  } catch (error) {
    assert.ok(error instanceof Fault, String((error as Error).stack))
    return error
  }
  return assert.fail('was accepted')
}
const problemsOf = async (t: TestContext, files: Record<string, string>, options?: LoadOptions): Promise<string[]> => {
  const [first, ...rest] = (await faultOf(load(t, files, options))).message.split('\n').map((line) => line.trim())
  return rest.length > 0 ? rest : [first!.replace('Cannot read recipe: ', '')]
}
const image = (recipe: Recipe, name: string) => recipe.subimages.find((one) => one.name === name)!

test('values go on in indented lines, lists grow, and an empty value drops what came before', async (t) => {
  const read = await settings(t, {
    'mkosi.conf': `${BASE}
[Content]
Packages=b, a
Packages=
    d   # the last
    # nothing

    c
KernelCommandLine=quiet
KernelCommandLine=
KernelCommandLine=splash "a b"
; a comment of another kind
Hostname=one
Hostname=two
`,
  })
  assert.deepEqual(read.packages, ['a', 'b', 'c', 'd'])
  assert.deepEqual(read.kernelCommandLine, ['splash', '"a', 'b"'])
  assert.equal(read.hostname, 'two')
})

test('every problem of a folder is told at once, with file, line and column', async (t) => {
  const problems = await problemsOf(t, {
    'mkosi.conf': '[Distribution]\nRelease=sid\n\n[Contents]\nPackages=a\n\n[Content]\n  Pakages=b\nBootable=perhaps\nnonsense\n',
    'mkosi.conf.d/10.conf': 'Hostname=x\n[Output\n[]\n[Output]\n=1\nFormat=dsk\n',
    'mkosi.conf.d/20.conf': '[Match]\nDistribution=debain\nFormat=disk\nRootPassword=x\n',
    'mkosi.conf.d/30.conf': '[Match]\nHostname=x\n',
    'mkosi.conf.d/40.conf': '[Build]\nProxyUrl=http://localhost\n[Distribution]\nLocalMirror=http://localhost\n',
  })
  assert.deepEqual(problems, [
    'mkosi.conf:4:1: unknown section [Contents]; did you mean [Content]?',
    'mkosi.conf:8:3: unknown setting "Pakages"; did you mean "Packages"?',
    'mkosi.conf:9:1: Bootable: expected yes, no or auto, got "perhaps"',
    'mkosi.conf:10:1: "nonsense" is not a setting: expected Name=value',
    'mkosi.conf.d/10.conf:1:1: "Hostname=x" stands before the first section',
    'mkosi.conf.d/10.conf:2:1: "[Output" is not a section: expected [Name]',
    'mkosi.conf.d/10.conf:3:1: a section needs a name between its brackets',
    'mkosi.conf.d/10.conf:5:1: "=1" has no name before its "="',
    `mkosi.conf.d/10.conf:6:1: Format: expected one of ${'disk, directory, tar, cpio, uki, esp, oci, sysext, confext, portable, addon, none'}, got "dsk"; did you mean "disk"?`,
    'mkosi.conf.d/20.conf:2:1: Distribution: expected a distribution, got "debain"; did you mean "debian"?',
    'mkosi.conf.d/30.conf:2:1: Hostname cannot be used in [Match]',
    'mkosi.conf.d/40.conf:4:1: LocalMirror: use Mirror= for another server, PackageDirectories= for packages in a folder',
  ])
})

test('a value that cannot be built is refused where it was said, unless any value will do', async (t) => {
  const files = { 'mkosi.conf': '[Distribution]\nDistribution=fedora\nRelease=rawhide\n' }
  assert.match((await problemsOf(t, files)).join(), /mkosi\.conf:2.*Distribution: "fedora" is known but not supported yet/)
  assert.equal((await settings(t, files, { anyValue: true })).distribution as string, 'fedora')
})

test('a secret that is wrong is not repeated in the problem', async (t) => {
  const [problem] = await problemsOf(t, { 'mkosi.conf': `${BASE}[Content]\nRootPassword=hunter2:x\n` })
  assert.match(problem!, /^mkosi\.conf:4:1: RootPassword: expected a password/)
  assert.doesNotMatch(problem!, /hunter2/)
})

test('a setting in the wrong section, under an old name, or without effect is taken and noted', async (t) => {
  const { settings, notes } = await load(t, {
    'mkosi.conf': `${BASE}[Output]\nPackages=a\n[Host]\nQemuSmp=3\n[Build]\n@Incremental=yes\n[Output]\nOutput=x_%v%z\n`,
  })
  assert.deepEqual([settings.packages, settings.cpus, settings.output], [['a'], 3, 'x_'])
  assert.deepEqual(notes, [
    'mkosi.conf:4: Packages belongs in section [Content], not in [Output]',
    'mkosi.conf:5: section [Host] is called [Runtime] now',
    'mkosi.conf:6: QemuSmp is called CPUs now',
    'mkosi.conf:8: the "@" before Incremental means nothing any more',
    'mkosi.conf:8: Incremental is without effect: every stage is cached by its inputs, so there is nothing to switch'.replace(
      'mkosi.conf:8: Incremental',
      'mkosi.conf:8: @Incremental',
    ),
    'mkosi.conf:10: Output: "%v" is left out, because ImageVersion is not set yet',
    'mkosi.conf:10: Output: unknown specifier "%z"; write "%%" for a percent sign',
  ])
})

test('origins name file and line, of lists every place that added', async (t) => {
  const { origins } = await load(t, {
    'mkosi.conf': `${BASE}[Content]\nPackages=a\n`,
    'mkosi.conf.d/more/mkosi.conf': '[Content]\nPackages=b\n',
    'mkosi.extra/': '',
  })
  assert.equal(origins.get('release'), 'mkosi.conf:2')
  assert.equal(origins.get('packages'), 'mkosi.conf:4, mkosi.conf.d/more/mkosi.conf:2')
  assert.equal(origins.get('extraTrees'), 'mkosi.extra')
  assert.equal(origins.get('hostname'), 'default')
})

test('specifiers stand for what the settings are by then', async (t) => {
  const directory = folder(t, {
    'mkosi.conf': `${BASE}[Output]\nOutput=%i\nImageId=Late\nImageVersion=%r1\n[Content]\nHostname=%i-%v-%I-%d-%a-%t-%F-100%%\n`,
    'mkosi.conf.d/sub/mkosi.conf': '[Content]\nKernelCommandLine=%C %P %D %o %O\n',
  })
  const hostname = (await faultOf(loadRecipe(directory))).message
  assert.match(hostname, /Hostname: expected a host name, got "Late-sid1-main-debian-x86-64-disk-ext4-100%"/)
  writeFileSync(join(directory, 'mkosi.conf'), `${BASE}[Output]\nOutput=of%i\nImageId=Late\nImageVersion=%r1\n`)
  const read = (await loadRecipe(directory)).settings
  assert.equal(read.output, 'of')
  const sub = join(directory, 'mkosi.conf.d/sub')
  assert.deepEqual(read.kernelCommandLine, [sub, sub, directory, 'of', join(directory, 'mkosi.output')])
})

test('[Match] sees the settings before it; a later one changes nothing', async (t) => {
  const when = (condition: string) => `[Match]\n${condition}\n[Content]\nPackages=${condition.replace(/[^a-z0-9]+/gi, '-')}\n`
  const { packages } = await settings(t, {
    'mkosi.conf': `${BASE}[Output]\nImageId=Id-1\nImageVersion=1.10\n[Build]\nEnvironment=A=1 B=\n[Distribution]\nRepositories=main\n`,
    'mkosi.conf.d/10.conf': when('Release=sid'),
    'mkosi.conf.d/11.conf': when('Release=!sid'),
    'mkosi.conf.d/12.conf': when('Bootable=auto'),
    'mkosi.conf.d/13.conf': when('Bootable=yes'),
    'mkosi.conf.d/14.conf': '[Content]\nBootable=yes\n',
    'mkosi.conf.d/15.conf': when('Bootable=true'),
    'mkosi.conf.d/16.conf': when('ImageId=I?-[0-9]'),
    'mkosi.conf.d/17.conf': when('ImageId=[!I]*'),
    'mkosi.conf.d/18.conf': when('ImageVersion=>1.9'),
    'mkosi.conf.d/19.conf': when('ImageVersion=1.10'),
    'mkosi.conf.d/20.conf': when('ImageVersion=<1.9'),
    'mkosi.conf.d/21.conf': when('Environment=A=1'),
    'mkosi.conf.d/22.conf': when('Environment=A=2'),
    'mkosi.conf.d/23.conf': when('Environment=B'),
    'mkosi.conf.d/24.conf': when('Environment=constructor'),
    'mkosi.conf.d/25.conf': when('PathExists=../mkosi.conf.d/10.conf'),
    'mkosi.conf.d/26.conf': when('PathExists=mkosi.conf'),
    'mkosi.conf.d/27.conf': when('Architecture=uefi'),
    'mkosi.conf.d/28.conf': when('Format=disk'),
    'mkosi.conf.d/29.conf': when('Image=main'),
    'mkosi.conf.d/30.conf': when('Repositories=main'),
    'mkosi.conf.d/31.conf': when('Profiles='),
    'mkosi.conf.d/32.conf': when('SystemdVersion=>=200'),
    'mkosi.conf.d/33.conf': when('HostArchitecture=!alpha'),
    'mkosi.conf.d/34.conf': when('Format=tar'),
  })
  assert.deepEqual(packages, [
    'Architecture-uefi',
    'Bootable-auto',
    'Bootable-true',
    'Environment-A-1',
    'Environment-B',
    'Format-disk',
    'HostArchitecture-alpha',
    'Image-main',
    'ImageId-I-0-9-',
    'ImageVersion-1-10',
    'ImageVersion-1-9',
    'PathExists-mkosi-conf',
    'Profiles-',
    'Release-sid',
    'Repositories-main',
    'SystemdVersion-200',
  ])
})

test('conditions with | are alternatives, [Match] sections all hold, of [TriggerMatch] sections one', async (t) => {
  const when = (name: string, conditions: string) => `${conditions}\n[Content]\nPackages=${name}\n`
  const { packages } = await settings(t, {
    'mkosi.conf.d/a.conf': when('a', '[Match]\nRelease=|trixie\nRelease=|sid\nFormat=disk'),
    'mkosi.conf.d/b.conf': when('b', '[Match]\nRelease=|trixie\nRelease=|!sid'),
    'mkosi.conf.d/c.conf': when('c', '[Match]\nRelease=sid\n[Match]\nFormat=tar'),
    'mkosi.conf.d/d.conf': when('d', '[TriggerMatch]\nRelease=trixie\n[TriggerMatch]\nRelease=sid\nFormat=disk'),
    'mkosi.conf.d/e.conf': when('e', '[TriggerMatch]\nRelease=trixie\n[TriggerMatch]\nRelease=sid\nFormat=tar'),
    'mkosi.conf.d/f.conf': when('f', '[TriggerMatch]\nRelease=sid\n[Match]\nFormat=tar'),
    // Conditions may stand behind what they are about.
    'mkosi.conf.d/g.conf': '[Content]\nPackages=g\n[Match]\nRelease=trixie\n',
  })
  assert.deepEqual(packages, ['a', 'd'])
})

test('[Assert] that does not hold is a problem of files that apply', async (t) => {
  const problems = await problemsOf(t, {
    'mkosi.conf.d/a.conf': '[Assert]\nRelease=trixie\n',
    'mkosi.conf.d/b.conf': '[Match]\nRelease=trixie\n[Assert]\nFormat=tar\n',
    'mkosi.conf.d/c.conf': '[Assert]\nFormat=|tar\nFormat=|cpio\n',
    'mkosi.conf.d/d.conf': '[TriggerAssert]\nFormat=tar\n[TriggerAssert]\nFormat=disk\n',
    'mkosi.conf.d/e.conf': '[TriggerAssert]\nFormat=tar\n[TriggerAssert]\nFormat=cpio\n',
  })
  assert.deepEqual(problems, [
    'mkosi.conf.d/a.conf:2:1: Release=trixie does not hold, as [Assert] demands',
    'mkosi.conf.d/c.conf:1:1: none of the alternatives of this [Assert] holds',
    'mkosi.conf.d/e.conf:3:1: none of the [TriggerAssert] sections holds',
  ])
})

test('mkosi.conf.d is read in order of names, folders with what lies in them', async (t) => {
  const { packages, extraTrees, hostname } = await settings(t, {
    'mkosi.conf.d/20.conf': '[Content]\nHostname=b\nPackages=two\n',
    'mkosi.conf.d/10/mkosi.conf': '[Content]\nHostname=a\nPackages=one\n',
    'mkosi.conf.d/10/mkosi.extra/': '',
    'mkosi.conf.d/10/mkosi.conf.d/x.conf': '[Content]\nPackages=nested\n',
    'mkosi.conf.d/30.txt': '[Content]\nPackages=no\n',
  })
  assert.deepEqual(packages, ['nested', 'one', 'two'])
  assert.equal(hostname, 'b')
  assert.deepEqual(
    extraTrees.map(({ source }) => source.replace(/.*mkosi\.conf\.d/, 'mkosi.conf.d')),
    ['mkosi.conf.d/10/mkosi.extra'],
  )
})

test('mkosi.local.conf wins over mkosi.conf, the command line over both, and lists of all three add up', async (t) => {
  const files = {
    'mkosi.conf': `${BASE}[Content]\nHostname=conf\nLocale=conf\nPackages=conf\nKeymap=conf\nTimezone=conf\n`,
    'mkosi.local.conf': '[Content]\nHostname=local\nLocale=local\nPackages=local\nKeymap=\n',
    'mkosi.local/mkosi.conf': '[Content]\nTimezone=folder\nLocale=folder\n',
    'mkosi.conf.d/x.conf': '[Match]\nRelease=sid\n[Content]\nHostname=dropin\n',
  }
  const read = await load(t, files, { set: ['Hostname=cli', 'packages=cli'] })
  assert.equal(read.settings.hostname, 'cli')
  // Of the two, the folder is read first, and what is read first is the command line's sooner.
  assert.equal(read.settings.locale, 'folder')
  assert.equal(read.settings.timezone, 'folder')
  assert.equal(read.settings.keymap, undefined)
  assert.deepEqual(read.settings.packages, ['conf', 'local', 'cli'])
  assert.equal(read.origins.get('packages'), 'mkosi.conf:6, mkosi.local.conf:4, --set packages=cli')
  assert.equal((await settings(t, files)).hostname, 'local')
})

test('an empty --set drops what files say of a list, and what is set after it stays', async (t) => {
  const files = { 'mkosi.conf': `${BASE}[Content]\nPackages=a\nHostname=h\n` }
  const read = await settings(t, files, { set: ['Packages=', 'Packages=b', 'Hostname='] })
  assert.deepEqual(read.packages, ['b'])
  assert.equal(read.hostname, undefined)
  assert.deepEqual((await settings(t, files, { set: ['Packages='] })).packages, [])
})

test('profiles are read after mkosi.conf.d, in the order selected; mkosi.local.conf may select them', async (t) => {
  const files = {
    'mkosi.local.conf': '[Config]\nProfiles=two\n',
    'mkosi.profiles/one/mkosi.conf': '[Content]\nHostname=one\nPackages=one\n',
    'mkosi.profiles/two.conf': '[Content]\nHostname=two\nPackages=two\n',
    'mkosi.conf.d/x.conf': '[Match]\nProfiles=one\n[Content]\nHostname=x\nLocale=x\n',
  }
  const read = await load(t, files, { profiles: ['one'] })
  assert.deepEqual(read.profiles, ['two', 'one'])
  assert.deepEqual(read.knownProfiles, ['one', 'two'])
  assert.equal(read.settings.hostname, 'one')
  assert.equal(read.settings.locale, 'x')
  assert.deepEqual((await load(t, files)).profiles, ['two'])
})

test('a missing profile is refused with the nearest; one that conditions ask about needs no files', async (t) => {
  const files = { 'mkosi.profiles/desktop/': '', 'mkosi.conf.d/x.conf': '[Match]\nProfiles=netesp\n[Content]\nPackages=x\n' }
  assert.deepEqual(await problemsOf(t, files, { profiles: ['dekstop'] }), [
    '--profile: unknown profile "dekstop"; did you mean "desktop"?',
  ])
  assert.deepEqual(await problemsOf(t, { 'mkosi.conf': `${BASE}[Config]\nProfiles=x\n` }), [
    'mkosi.conf:4: unknown profile "x" (the recipe has none)',
  ])
  assert.deepEqual(await problemsOf(t, files, { profiles: ['../x'] }), [
    '--profile: unknown profile "../x" (the recipe has desktop, netesp)',
  ])
  assert.deepEqual((await settings(t, files, { profiles: ['netesp'] })).packages, ['x'])
})

test('a folder whose own [Match] does not hold says nothing, and that is noted; profiles are known all the same', async (t) => {
  const { notes, settings } = await load(
    t,
    { 'mkosi.conf': '[Match]\nFormat=tar\n[Content]\nPackages=a\n', 'mkosi.profiles/one/': '', 'mkosi.tools.conf': '' },
    { profiles: ['one'], set: ['Release=sid'] },
  )
  assert.deepEqual(settings.packages, [])
  assert.match(notes.join('\n'), /^mkosi\.conf: its \[Match\] does not hold.*\nmkosi\.tools\.conf is without effect/)
})

test('secrets that everyone can read are noted', async (t) => {
  const directory = folder(t, { 'mkosi.conf': BASE, 'mkosi.key': '', 'mkosi.crt': '', 'mkosi.rootpw': 'x' })
  chmodSync(join(directory, 'mkosi.key'), 0o644)
  chmodSync(join(directory, 'mkosi.crt'), 0o644)
  chmodSync(join(directory, 'mkosi.rootpw'), 0o600)
  const { notes } = await loadRecipe(directory)
  assert.deepEqual(notes, [`mkosi.key: everyone can read it (mode 0644); chmod 600 ${join(directory, 'mkosi.key')}`])
})

test('Include= reads at once, each thing once, with the profiles of folders', async (t) => {
  const { packages, hostname, extraTrees } = await settings(t, {
    'mkosi.conf': `${BASE}[Content]\nHostname=before\n[Include]\nInclude=shared ./shared one.conf\n[Content]\nPackages=after-%i\n`,
    'shared/mkosi.conf': '[Content]\nHostname=included\nPackages=shared\n[Output]\nImageId=Id\n',
    'shared/mkosi.extra/': '',
    'one.conf': '[Content]\nExtraTrees=mkosi.conf:/c\n',
  })
  assert.deepEqual(packages, ['after-Id', 'shared'])
  assert.equal(hostname, 'included')
  assert.deepEqual(
    extraTrees.map(({ target }) => target),
    ['/', '/c'],
  )
})

test('a cycle in Include= ends, also through a link', async (t) => {
  const directory = folder(t, {
    'mkosi.conf': `${BASE}[Include]\nInclude=a\n`,
    'a/mkosi.conf': '[Content]\nPackages=a\n[Include]\nInclude=../b\n',
    'b/mkosi.conf': '[Content]\nPackages=b\n[Include]\nInclude=../a ../c\n',
  })
  symlinkSync('a', join(directory, 'c'))
  assert.deepEqual((await loadRecipe(directory)).settings.packages, ['a', 'b'])
})

test('links that lead back into mkosi.conf.d do not lead on for ever', async (t) => {
  const directory = folder(t, { 'mkosi.conf': BASE, 'mkosi.conf.d/': '' })
  for (const name of ['a', 'b', 'c']) symlinkSync('../..', join(directory, `mkosi.conf.d/${name}`))
  for (const name of ['a', 'b', 'c']) symlinkSync('..', join(directory, name))
  for (const name of ['x', 'y']) symlinkSync('..', join(directory, `mkosi.conf.d/${name}`))
  assert.match((await faultOf(loadRecipe(directory))).message, /more than \d+ configurations|ELOOP/)
})

test('a wildcard takes time in proportion to its length', async (t) => {
  const { packages } = await settings(t, {
    'mkosi.conf': `${BASE}[Output]\nImageId=${'a'.repeat(4000)}\n`,
    'mkosi.conf.d/a.conf': `[Match]\nImageId=${'*a'.repeat(1500)}*b\n[Content]\nPackages=a\n`,
    'mkosi.conf.d/b.conf': `[Match]\nImageId=${'*a'.repeat(1500)}*\n[Content]\nPackages=b\n`,
  })
  assert.deepEqual(packages, ['b'])
})

test('Include= of what is not there, or of what only mkosi has, is refused', async (t) => {
  assert.deepEqual(await problemsOf(t, { 'mkosi.conf': `${BASE}[Include]\nInclude=gone mkosi-tools\n` }), [
    'mkosi.conf:4:1: Include: gone does not exist',
  ])
  assert.match(
    (await problemsOf(t, { 'mkosi.conf': `${BASE}[Include]\nInclude=mkosi-tools\n` }))[0]!,
    /mkosi-tools is not supported/,
  )
})

test('Include=mkosi-vm makes a bootable system with a kernel', async (t) => {
  const { settings, subimages } = await load(t, {
    'mkosi.conf': `${BASE}[Include]\nInclude=mkosi-vm\n[Content]\nPackages=linux-image-amd64\n`,
  })
  assert.equal(settings.bootable, true)
  for (const name of ['linux-image-amd64', 'systemd-boot', 'systemd-sysv', 'systemd']) assert.ok(settings.packages.includes(name))
  assert.deepEqual(
    subimages.map(({ name }) => name),
    ['default-initrd'],
  )
})

test('MinimumVersion= of a newer mkosi is refused, an older one and a commit are fine, the highest is kept', async (t) => {
  const with_ = (text: string) => ({ 'mkosi.conf': `${BASE}[Config]\nMinimumVersion=${text}\n` })
  assert.match((await problemsOf(t, with_('28')))[0]!, /^mkosi\.conf:4:1: MinimumVersion: the recipe is for mkosi 28 or newer/)
  assert.match((await problemsOf(t, with_('27.1')))[0]!, /27\.1 or newer/)
  assert.match((await problemsOf(t, with_('commit:main')))[0]!, /expected "commit:" and a hash/)
  assert.equal((await settings(t, with_('27~devel'))).minimumVersion, '27~devel')
  assert.equal((await settings(t, with_('25.3\nMinimumVersion=24'))).minimumVersion, '25.3')
  assert.equal(
    (await settings(t, with_('commit:0123456789abcdef0123456789abcdef01234567'))).minimumVersion?.slice(0, 7),
    'commit:',
  )
})

test('files beside mkosi.conf set what they are named for', async (t) => {
  const directory = folder(t, {
    'mkosi.conf': `${BASE}[Content]\nExtraTrees=more:/opt\n`,
    'more/': '',
    'mkosi.extra/': '',
    'mkosi.skeleton/': '',
    'mkosi.sandbox/': '',
    'mkosi.repart/': '',
    'mkosi.packages/': '',
    'mkosi.build': '',
    'mkosi.build.chroot': '',
    'mkosi.build.d/20-b': '',
    'mkosi.build.d/10-a.chroot': '',
    'mkosi.postinst.chroot': '',
    'mkosi.version': '7.1\n',
    'mkosi.seed': '5b5bd9a4-5f3b-4d3a-a0f0-1d9e6a8f7a11\n',
    'mkosi.rootpw': 'hashed:$6$x\n',
    'mkosi.key': '',
    'mkosi.crt': '',
    'mkosi.env': 'A=1\n',
    'mkosi.credentials/name': 'v',
  })
  const { settings, origins } = await loadRecipe(directory)
  const at = (name: string) => join(directory, name)
  assert.deepEqual(settings.extraTrees, [
    { source: at('mkosi.extra'), target: '/' },
    { source: at('more'), target: '/opt' },
  ])
  assert.deepEqual(settings.skeletonTrees, [{ source: at('mkosi.skeleton'), target: '/' }])
  assert.deepEqual(settings.sandboxTrees, [{ source: at('mkosi.sandbox'), target: '/' }])
  assert.deepEqual(settings.repartDirectories, [at('mkosi.repart')])
  assert.deepEqual(settings.packageDirectories, [at('mkosi.packages')])
  assert.deepEqual(
    settings.buildScripts,
    ['mkosi.build', 'mkosi.build.chroot', 'mkosi.build.d/10-a.chroot', 'mkosi.build.d/20-b'].map(at),
  )
  assert.deepEqual(settings.postInstallationScripts, [at('mkosi.postinst.chroot')])
  assert.equal(settings.imageVersion, '7.1')
  assert.equal(settings.output, 'image_7.1')
  assert.equal(settings.seed, '5b5bd9a4-5f3b-4d3a-a0f0-1d9e6a8f7a11')
  assert.deepEqual(settings.rootPassword, { value: '$6$x', hashed: true })
  assert.equal(settings.secureBootKey, at('mkosi.key'))
  assert.equal(settings.verityCertificate, at('mkosi.crt'))
  assert.deepEqual(settings.environmentFiles, [at('mkosi.env')])
  assert.deepEqual(settings.credentials, [{ name: 'name', path: at('mkosi.credentials/name') }])
  assert.equal(origins.get('imageVersion'), 'mkosi.version')
})

test('a folder that holds only mkosi.* files is a recipe, and mkosi/ may hold it all', async (t) => {
  const only = folder(t, { 'mkosi.extra/': '', 'mkosi.conf.d/a.conf': BASE })
  assert.equal((await loadRecipe(only)).settings.extraTrees.length, 1)
  const typed = folder(t, { 'mkosi.extra/': '', 'recipe.ts': "export default { release: 'trixie', initrds: [] }" })
  assert.equal((await loadRecipe(typed)).file, join(typed, 'recipe.ts'))
  const below = folder(t, { 'mkosi/mkosi.conf': BASE, 'mkosi/mkosi.extra/': '', 'README.md': '' })
  const recipe = await loadRecipe(below)
  assert.equal(recipe.directory, below)
  assert.equal(recipe.file, join(below, 'mkosi/mkosi.conf'))
  assert.equal(recipe.settings.extraTrees[0]!.source, join(below, 'mkosi/mkosi.extra'))
  assert.equal((await loadRecipe(join(below, 'mkosi/mkosi.conf'))).settings.release, 'sid')
})

test('a file that is a script and not executable is refused', async (t) => {
  assert.match((await problemsOf(t, { 'mkosi.version': '#!/bin/sh\necho 1\n' }))[0]!, /^mkosi\.version: .*not executable/)
})

test('mkosi.uki-profiles/*.conf are boot entries', async (t) => {
  const { unifiedKernelImageProfiles } = await settings(t, {
    'mkosi.uki-profiles/20-b.conf': '[UKIProfile]\nProfile=ID=b\nCmdline=x\n',
    'mkosi.uki-profiles/10-a.conf':
      '[UKIProfile]\nProfile=\n  ID=a\n  TITLE=A thing = one\nCmdline=\n  root=tmpfs\n  quiet rw\nSignExpectedPcr=no\n',
    'mkosi.uki-profiles/README': 'no',
  })
  assert.deepEqual(
    unifiedKernelImageProfiles.map(({ source: _, ...profile }) => profile),
    [
      { profile: { ID: 'a', TITLE: 'A thing = one' }, cmdline: ['root=tmpfs', 'quiet', 'rw'], signExpectedPcr: false },
      { profile: { ID: 'b' }, cmdline: ['x'], signExpectedPcr: true },
    ],
  )
})

test('every problem of a boot entry’s file is told, with its place', async (t) => {
  const problems = await problemsOf(t, {
    'mkosi.uki-profiles/a.conf': '[UKIProfile]\nProfil=ID=a\nSignExpectedPcr=perhaps\n[X]\ny=1\nz\n',
    'mkosi.uki-profiles/b.conf/x': '',
  })
  assert.match(problems.pop()!, /^mkosi\.uki-profiles\/b\.conf: expected a file that is there, of at most 1M/)
  assert.deepEqual(problems, [
    'mkosi.uki-profiles/a.conf:2:1: unknown setting "Profil"; did you mean "Profile"?',
    'mkosi.uki-profiles/a.conf:3:1: SignExpectedPcr: expected yes or no, got "perhaps"',
    'mkosi.uki-profiles/a.conf:4:1: unknown section [X]; expected [UKIProfile]',
    'mkosi.uki-profiles/a.conf:6:1: "z" is not a setting: expected Name=value',
  ])
})

test('sub-images get universal settings, may change inherited ones, and know nothing of local ones', async (t) => {
  const recipe = await load(t, {
    'mkosi.conf': `${BASE}[Output]\nImageId=Main\nImageVersion=2\n[Content]\nPackages=main\nLocale=C\nHostname=h\n[Build]\nWithNetwork=yes\nEnvironment=A=1 B=2\n[Config]\nPassEnvironment=B\n`,
    'mkosi.images/one/mkosi.conf': '[Output]\nFormat=tar\nImageVersion=3\n[Content]\nPackages=one\n',
    'mkosi.images/one/mkosi.extra/': '',
    'mkosi.images/two.conf': '[Match]\nImage=two\n[Output]\nFormat=directory\n',
    'mkosi.images/never.conf': '[Match]\nRelease=trixie\n[Output]\nFormat=directory\n',
    'mkosi.images/README': '',
  })
  assert.deepEqual(
    recipe.subimages.map(({ name }) => name),
    ['one', 'two'],
  )
  const { settings: one } = image(recipe, 'one')
  assert.deepEqual([one.release, one.withNetwork, one.imageId, one.imageVersion], ['sid', true, 'Main', '3'])
  assert.deepEqual([one.packages, one.locale, one.hostname], [['one'], undefined, undefined])
  assert.deepEqual(one.environment, { B: '2' })
  assert.equal(one.output, 'one_3')
  assert.equal(one.extraTrees.length, 1)
  assert.equal(image(recipe, 'two').settings.output, 'two_2')
})

test('what only the main image can set is refused in others', async (t) => {
  assert.deepEqual(
    await problemsOf(t, {
      'mkosi.images/one.conf': '[Distribution]\nRelease=trixie\n[Runtime]\nCPUs=1\n[Content]\nInitrdPackages=x\n',
    }),
    [
      'mkosi.images/one.conf:2:1: Release: only the main image can set it, and this is the image one',
      'mkosi.images/one.conf:4:1: CPUs: only the main image can set it, and this is the image one',
      'mkosi.images/one.conf:6:1: InitrdPackages: only the main image can set it, and this is the image one',
    ],
  )
})

test('Dependencies= orders images and leaves out what nothing depends on', async (t) => {
  const files = {
    'mkosi.images/a.conf': '[Config]\nDependencies=c\n',
    'mkosi.images/b.conf': '[Content]\nLocale=C\n',
    'mkosi.images/c.conf': '[Content]\nLocale=C\n',
  }
  const names = async (more: string) =>
    (await load(t, { ...files, 'mkosi.conf': `${BASE}${more}` })).subimages.map(({ name }) => name)
  assert.deepEqual(await names(''), ['c', 'a', 'b'])
  assert.deepEqual(await names('[Config]\nDependencies=a\n'), ['c', 'a'])
  assert.deepEqual(await names('[Config]\nDependencies=\n'), [])
})

test('a cycle in Dependencies= and an image that is not there are refused by name', async (t) => {
  const files = {
    'mkosi.images/a.conf': '[Config]\nDependencies=b\n',
    'mkosi.images/b.conf': '[Config]\nDependencies=c\n',
    'mkosi.images/c.conf': '[Config]\nDependencies=b\n',
  }
  assert.match((await faultOf(load(t, files))).message, /depend on each other in a circle: b → c → b/)
  assert.match(
    (await faultOf(load(t, { 'mkosi.conf': `${BASE}[Config]\nDependencies=x\n` }))).message,
    /the image main depends on "x", and no sub-image of that name applies \(the recipe has none\)/,
  )
})

test('an image that boots depends on the default initrd, which takes what the main image says of it', async (t) => {
  const recipe = await load(t, {
    'mkosi.conf': `${BASE}[Content]\nPackages=linux-image-amd64\nInitrdPackages=vim\nInitrdProfiles=lvm,network\nInitrdVolatilePackages=udev\nHostname=h\nLocale=de_DE.UTF-8\n[Output]\nImageId=Id\n`,
    'mkosi.initrd.conf': '[Content]\nPackages=emacs\nRemoveFiles=/x\n',
  })
  const { settings, profiles } = image(recipe, 'default-initrd')
  assert.deepEqual(profiles, ['lvm', 'network'])
  for (const name of ['vim', 'emacs', 'lvm2', 'systemd-resolved', 'systemd', 'kmod', 'libfdisk1']) {
    assert.ok(settings.packages.includes(name), name)
  }
  assert.deepEqual(settings.volatilePackages, ['udev'])
  assert.deepEqual([settings.format, settings.makeInitrd, settings.output, settings.bootable], ['cpio', true, 'initrd', false])
  assert.deepEqual([settings.hostname, settings.locale, settings.release], ['h', 'C.UTF-8', 'sid'])
  assert.equal(settings.removeFiles[0], '/x')
  assert.ok(settings.kernelModules.includes('dm-verity'))
  assert.equal(settings.postInstallationScripts.length, 1)
})

test('there is no default initrd where nothing boots, or where another is named', async (t) => {
  const names = async (conf: string) => (await load(t, { 'mkosi.conf': BASE + conf })).subimages.map(({ name }) => name)
  assert.deepEqual(await names(''), [])
  assert.deepEqual(await names('[Content]\nPackages=linux-image-amd64\nBootable=no\n'), [])
  assert.deepEqual(await names('[Content]\nBootable=yes\nInitrds=my.img\n'), [])
  assert.deepEqual(await names('[Content]\nBootable=yes\nInitrds=default my.img\n'), ['default-initrd'])
  assert.deepEqual(await names('[Content]\nPackages=linux-image-amd64\n[Output]\nFormat=tar\n'), ['default-initrd'])
  assert.deepEqual(await names('[Content]\nPackages=linux-image-amd64\n[Output]\nFormat=sysext\n'), [])
})

test('settings of Bisque may stand in mkosi’s files', async (t) => {
  const read = await settings(t, { 'mkosi.local.conf': '[Bisque]\nAllowExpired=yes\n' })
  assert.equal(read.allowExpired, true)
  assert.equal(read.hermeticUsr, false)
})

test('a file that cannot be read as a configuration is refused', async (t) => {
  const is = (directory: string) => faultOf(loadRecipe(directory)).then(({ message }) => message)
  assert.match(await is(folder(t, { 'mkosi.conf/': '' })), /mkosi\.conf: it is not a file/)
  assert.match(await is(folder(t, { 'mkosi.conf': '#'.repeat((4 << 20) + 1) })), /mkosi\.conf: it has 4194305 bytes/)
  const directory = folder(t, { 'mkosi.conf': BASE, 'mkosi.conf.d/': '' })
  symlinkSync('nowhere', join(directory, 'mkosi.conf.d/a.conf'))
  assert.equal((await loadRecipe(directory)).settings.release, 'sid')
})
