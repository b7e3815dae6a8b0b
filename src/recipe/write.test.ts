import assert from 'node:assert/strict'
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { type TestContext, test } from 'node:test'
import fc from 'fast-check'
import { folders, writeSample } from '../../test/random-folders.ts'
import { type LoadOptions, loadRecipe, type Recipe } from './recipe.ts'
import { ROWS } from './schema.ts'
import { NOT_WRITTEN, writeRecipe } from './write.ts'

/** A folder of files, gone after the test. */
function folder(t: TestContext, files: Record<string, string> = {}): string {
  const directory = mkdtempSync(join(tmpdir(), 'bisque-write-'))
  t.after(() => rmSync(directory, { recursive: true, force: true }))
  for (const [name, text] of Object.entries(files)) {
    if (name.endsWith('/')) mkdirSync(join(directory, name), { recursive: true })
    else {
      mkdirSync(dirname(join(directory, name)), { recursive: true })
      writeFileSync(join(directory, name), text)
    }
  }
  return directory
}

/** What a folder says, said by a recipe.ts in another folder, is the same for every image. */
async function roundTrip(t: TestContext, from: string, options: LoadOptions = {}): Promise<{ text: string; notes: string[] }> {
  const theirs = await loadRecipe(from, options)
  const to = folder(t)
  const written = writeRecipe(theirs, to)
  writeFileSync(join(to, 'recipe.ts'), written.text)
  const ours = await loadRecipe(to, { env: {} })
  assert.deepEqual(comparable(ours), comparable(theirs))
  return written
}

/** Settings of each image that it could have otherwise. */
const comparable = (recipe: Recipe) =>
  [...recipe.subimages, recipe].map(({ name, settings }) => {
    const meant = Object.entries(settings).filter(([key]) => {
      const { scope } = ROWS[key]!
      return (
        !(NOT_WRITTEN as readonly string[]).includes(key) && (name === 'main' || !['main', 'tools', 'initrd'].includes(scope))
      )
    })
    // In which order packages are named decides nothing.
    const inOrder = meant.map(([key, value]) => [key, ROWS[key]!.type.order ? (value as string[]).toSorted() : value])
    return [name, Object.fromEntries(inOrder)]
  })

const BASE = '[Distribution]\nRelease=sid\n'

test('writeRecipe() says the same of every kind of setting', async (t) => {
  const { text } = await roundTrip(
    t,
    folder(t, {
      'mkosi.conf': `${BASE}Repositories=contrib,non-free
[Output]
ImageId=Id
OutputMode=0640
SplitArtifacts=yes
[Content]
Packages=a linux-image-amd64
KernelCommandLine=100%% "q" '%i'
RootPassword=100%%x
RemoveFiles=/a/* b
KernelModules=a -b
KernelModulesExclude=c.*d
ExtraTrees=one two:/opt/x
Autologin=yes
[Build]
Environment=A=1 "B=x y" C=%%
BuildSources=one:there
[Runtime]
RAM=1G
Credentials=a=b
[Bisque]
AllowExpired=yes
`,
      'mkosi.extra/': '',
      'mkosi.postinst.chroot': '',
      'mkosi.repart/': '',
      'mkosi.uki-profiles/a.conf': '[UKIProfile]\nProfile=ID=a\n',
      'one/': '',
    }),
  )
  assert.match(text, /outputMode: '0640'/)
  assert.match(text, /kernelCommandLine: \['100%%', '"q"', '\\'Id\\''\]/)
  assert.match(text, /rootPassword: '100%x'/)
  assert.match(text, /ram: '1G'/)
  assert.doesNotMatch(text, /distribution|autoEnroll|undefined/)
})

test('writeRecipe() takes away what recipe.ts would have by default', async (t) => {
  const { text } = await roundTrip(t, folder(t, { 'mkosi.conf': BASE }))
  assert.match(text, /imageId: null/)
})

test('writeRecipe() says what sub-images and the default initrd have of their own', async (t) => {
  const { text } = await roundTrip(
    t,
    folder(t, {
      'mkosi.conf': `${BASE}[Output]\nImageId=Id\nImageVersion=2\n[Content]\nPackages=linux-image-amd64\nInitrdPackages=vim\nInitrdProfiles=lvm\nHostname=h\n[Build]\nEnvironment=A=1 B=2\n[Config]\nPassEnvironment=B\n`,
      'mkosi.images/b-base/mkosi.conf':
        '[Output]\nFormat=directory\nImageVersion=\n[Content]\nPackages=x\n[Build]\nEnvironment=C=3\n',
      'mkosi.images/a.conf':
        '[Config]\nDependencies=b-base\n[Output]\nFormat=sysext\nImageVersion=3\n[Content]\nHostname=own\nKeymap=us\n',
      'mkosi.initrd.conf':
        '[Content]\nPackages=emacs\nRemoveFiles=/x /y\nKernelModules=z\nExtraTrees=tree:/t\nHostname=other\n[Build]\nEnvironment=D=4\n',
      'tree/': '',
    }),
  )
  assert.match(text, /initrd: \{/)
  assert.match(text, /packages: \['emacs'\]/)
  assert.match(text, /'b-base': \{/)
  assert.match(text, /imageVersion: null/)
})

test('writeRecipe() folds profiles and --set in, and says so', async (t) => {
  const from = folder(t, {
    'mkosi.conf': `${BASE}[Content]\nPackages=a\n`,
    'mkosi.profiles/one.conf': '[Content]\nPackages=b\nLocale=C\nRootPassword=x\n',
    'mkosi.profiles/two.conf': '[Content]\nPackages=c\n',
    'mkosi.finalize': '',
  })
  const { text, notes } = await roundTrip(t, from, { profiles: ['one'], set: ['Hostname=h'] })
  assert.match(text, /packages: \['a', 'b'\]/)
  assert.match(text, /hostname: 'h'/)
  assert.deepEqual(notes, [
    'rootPassword stands in recipe.ts as it is',
    'scripts that ask for $PROFILES find none: the profiles are part of the recipe',
    'profile one: part of the recipe now',
    'not in the recipe: profile two',
  ])
})

test('writeRecipe() writes a recipe.ts as well', async (t) => {
  const from = folder(t, {
    'recipe.ts': `export default { release: 'trixie', packages: ['a'], images: { x: { format: 'tar', packages: ['b'] } }, initrd: { packages: ['c'] } }`,
  })
  await roundTrip(t, from)
})

test('writeRecipe() says the same of any folder', async (t) => {
  for (const sample of fc.sample(folders, { numRuns: 60, seed: 20260701 })) {
    const from = folder(t)
    writeSample(from, sample)
    const options = { profiles: sample.profiles, set: sample.set }
    const refused = await loadRecipe(from, options).then(
      () => false,
      () => true,
    )
    if (!refused) await roundTrip(t, from, options)
  }
})

const PARTICLEOS = process.env['PARTICLEOS'] ?? ''

test('writeRecipe() says the same of ParticleOS', {
  skip: existsSync(PARTICLEOS) ? false : 'PARTICLEOS must name a checkout',
}, async (t) => {
  for (const profiles of [
    [],
    ['desktop', 'gnome'],
    ['desktop', 'kde', 'obs-sysupdate'],
    ['netesp', 'obs-repos'],
    ['flathub', 'sway'],
  ]) {
    await roundTrip(t, PARTICLEOS, { profiles, set: ['Distribution=debian', 'Release=sid'] })
  }
})
