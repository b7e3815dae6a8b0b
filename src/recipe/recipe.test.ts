import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { Fault } from '../base/fault.ts'
import { type LoadOptions, loadRecipe, type Recipe, requestDigest } from './recipe.ts'

/** A folder of files, gone after the test. */
function folder(t: TestContext, files: Record<string, string>): string {
  const directory = mkdtempSync(join(tmpdir(), 'bisque-recipe-'))
  t.after(() => rmSync(directory, { recursive: true, force: true }))
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(join(directory, name, '..'), { recursive: true })
    writeFileSync(join(directory, name), text)
  }
  return directory
}

const recipe = (body: string): string => `import { defineRecipe } from 'bisque'\nexport default defineRecipe({\n${body}\n})\n`
const load = (t: TestContext, body: string, options?: LoadOptions): Promise<Recipe> =>
  loadRecipe(folder(t, { 'recipe.ts': recipe(body) }), options)

async function faultOf(loading: Promise<unknown>): Promise<Fault> {
  try {
    await loading
  } catch (error) {
    assert.ok(error instanceof Fault, String((error as Error).stack))
    return error
  }
  return assert.fail('was accepted')
}
const problemsOf = async (loading: Promise<unknown>): Promise<string[]> =>
  (await faultOf(loading)).message.split('\n').map((line) => line.trim())

test('loadRecipe() reads a folder outside of this package, fills in defaults and remembers origins', async (t) => {
  const directory = folder(t, { 'recipe.ts': recipe("  release: 'trixie',\n  imageId: 'Tiny', imageVersion: '3',") })
  const { settings, origins, file, profiles } = await loadRecipe(directory)
  assert.equal(file, join(directory, 'recipe.ts'))
  assert.deepEqual(profiles, [])
  assert.equal(settings.release, 'trixie')
  assert.equal(settings.distribution, 'debian')
  assert.equal(settings.output, 'Tiny_3_x86-64')
  assert.equal(settings.outputDirectory, join(directory, 'out'))
  assert.equal(settings.hostname, undefined)
  assert.deepEqual(settings.packages, [])
  assert.equal(origins.get('release'), 'recipe.ts:3:3')
  assert.equal(origins.get('imageVersion'), 'recipe.ts:4:20')
  assert.equal(origins.get('packages'), 'default')
})

test('loadRecipe() reads a file of any name that imports its neighbours, and reads it anew when it changed', async (t) => {
  const directory = folder(t, {
    'server.ts':
      "import { defineRecipe, type RecipeInput } from 'bisque'\nimport { common } from './lib/common.ts'\nexport default defineRecipe({ ...common, hostname: 'a' } satisfies RecipeInput)",
    'lib/common.ts': "export const common = { release: 'trixie' as const, packages: ['systemd'] }",
  })
  const file = join(directory, 'server.ts')
  assert.equal((await loadRecipe(file)).settings.hostname, 'a')
  writeFileSync(file, recipe("release: 'sid', hostname: 'b'"))
  assert.equal((await loadRecipe(file)).settings.hostname, 'b')
})

test('all problems are reported at once, each with its place', async (t) => {
  const body = `  relaese: 'trixie',
  packages: ['systemd', 5],
  format: 'dsk',
  bootable: 'yes', Hostname: 'x',
  kernelCommandLine: 'quiet',
  ssh: 'always',
  profiles: {
    desktop: { hostnam: 'x' },
    server: { withDocs: 3 },
  },`
  const fault = await faultOf(load(t, body, { set: ['KernelComandLine=quiet', 'SectorSize=1000', 'Verity'] }))
  assert.equal(fault.code, 'recipe')
  assert.deepEqual(
    fault.message.split('\n').map((line) => line.trim()),
    [
      'Cannot read recipe, 12 problems:',
      'recipe.ts: release is not set: expected a release name such as "trixie"',
      'recipe.ts:3:3: unknown setting "relaese"; did you mean "release"?',
      'recipe.ts:4:3: packages: expected strings in the list, got 5',
      'recipe.ts:5:3: format: expected one of disk, directory, tar, cpio, uki, esp, oci, sysext, confext, portable, addon, none, got "dsk"; did you mean "disk"?',
      'recipe.ts:6:3: bootable: expected true, false or "auto", got "yes"',
      'recipe.ts:6:20: settings are in camelCase here: write "hostname", not "Hostname"',
      'recipe.ts:7:3: kernelCommandLine: expected a list of strings, got "quiet"',
      'recipe.ts:8:3: ssh: "always" is known but not supported yet; supported: auto, runtime, never',
      'recipe.ts:10:16: profile desktop: unknown setting "hostnam"; did you mean "hostname"?',
      'recipe.ts:11:15: profile server: withDocs: expected true or false, got 3',
      '--set KernelComandLine=quiet: unknown setting "KernelComandLine"; did you mean "KernelCommandLine"?',
      '--set Verity: expected KEY=VALUE',
      '--set SectorSize=1000: sectorSize: expected one of 512, 4096, got "1000"',
    ].map((line, i) => (i === 0 ? 'Cannot read recipe, 13 problems:' : line)),
  )
})

test('a single problem is one line', async (t) => {
  assert.deepEqual(await problemsOf(load(t, "  release: 'trixie',\n  compressOutput: 'lz4',")), [
    'Cannot read recipe: recipe.ts:4:3: compressOutput: "lz4" is known but not supported yet; supported: none, zstd, xz, gz',
  ])
})

test('profiles are merged in the order given: lists grow, values are replaced, an empty element drops what came before', async (t) => {
  const body = `  release: 'trixie', packages: ['a'], hostname: 'base', environment: { A: '1', B: '1' },
  profiles: {
    one: { packages: ['b'], hostname: 'one', environment: { B: '2' } },
    two: { packages: ['c'], hostname: 'two' },
    bare: { packages: ['', 'd'] },
  },`
  const forward = await load(t, body, { profiles: ['one', 'two'] })
  assert.deepEqual(forward.settings.packages, ['a', 'b', 'c'])
  assert.equal(forward.settings.hostname, 'two')
  assert.deepEqual(forward.settings.environment, { A: '1', B: '2' })
  assert.deepEqual(forward.settings.profiles, ['one', 'two'])
  assert.equal(forward.origins.get('packages'), 'recipe.ts:3:22, profile one (recipe.ts:5:12), profile two (recipe.ts:6:12)')
  assert.equal(forward.origins.get('hostname'), 'profile two (recipe.ts:6:29)')
  const backward = await load(t, body, { profiles: ['two', 'one', 'two'] })
  assert.deepEqual(backward.settings.packages, ['a', 'c', 'b'])
  assert.deepEqual((await load(t, body, { profiles: ['one', 'bare'] })).settings.packages, ['d'])
  assert.deepEqual((await load(t, body, { set: ['Profiles=two'] })).settings.packages, ['a', 'c'])
  assert.deepEqual(forward.knownProfiles, ['one', 'two', 'bare'])
})

test('an unknown profile names the nearest', async (t) => {
  const body = "  release: 'trixie',\n  profiles: { desktop: {} },"
  assert.deepEqual(await problemsOf(load(t, body, { profiles: ['destkop'] })), [
    'Cannot read recipe: --profile: unknown profile "destkop"; did you mean "desktop"?',
  ])
  assert.match(
    (await faultOf(load(t, "release: 'sid'", { profiles: ['x'] }))).message,
    /unknown profile "x" \(the recipe has none\)/,
  )
  assert.match((await faultOf(load(t, "release: 'sid'", { profiles: ['toString'] }))).message, /unknown profile/)
})

test('--set comes last, takes both spellings, adds to lists, and an empty value resets', async (t) => {
  const body = "  release: 'trixie', packages: ['a'], kernelCommandLine: ['quiet'], hostname: 'x',"
  const { settings, origins } = await load(t, body, {
    set: [
      'Packages=b c',
      'kernelCommandLine=',
      'KernelCommandLine=ro console=ttyS0',
      'Hostname=',
      'WithDocs=no',
      'CompressOutput=yes',
    ],
  })
  assert.deepEqual(settings.packages, ['a', 'b', 'c'])
  assert.deepEqual(settings.kernelCommandLine, ['ro', 'console=ttyS0'])
  assert.equal(settings.hostname, undefined)
  assert.equal(settings.withDocs, false)
  assert.equal(settings.compressOutput, 'zstd')
  assert.equal(origins.get('packages'), 'recipe.ts:3:22, --set Packages=b c')
})

test('specifiers stand for other settings, in any order, wherever those come from', async (t) => {
  const body =
    "  output: '%i_%v-%a%%', imageId: '%d-os', release: 'trixie', kernelCommandLine: ['root=%r', 'dir=%P'], hostname: '%F',"
  const { settings, directory } = await load(t, body, { set: ['ImageVersion=7'] })
  assert.equal(settings.imageId, 'debian-os')
  assert.equal(settings.output, 'debian-os_7-x86-64%')
  assert.deepEqual(settings.kernelCommandLine, ['root=trixie', `dir=${directory}`])
  assert.equal(settings.hostname, 'ext4')
})

test('an unknown specifier and one that refers to itself are refused', async (t) => {
  assert.deepEqual(await problemsOf(load(t, "  release: 'trixie',\n  output: '%q',")), [
    'Cannot read recipe: recipe.ts:4:3: output: unknown specifier "%q"; write "%%" for a percent sign',
  ])
  const problems = await problemsOf(load(t, "  release: 'trixie',\n  imageId: '%v',\n  imageVersion: '%i',"))
  assert.match(
    problems.join('\n'),
    /refers to itself through specifiers: ImageVersion → ImageId → ImageVersion|ImageId → ImageVersion → ImageId/,
  )
})

test('paths count from the recipe, and a password has no specifiers', async (t) => {
  const { settings, directory } = await load(
    t,
    "  release: 'trixie', extraTrees: ['tree', { source: 'etc', target: '/usr/lib' }], finalizeScripts: ['./finalize.sh'], rootPassword: '100%i',",
    { set: ['OutputDirectory=../elsewhere'] },
  )
  assert.deepEqual(settings.extraTrees, [
    { source: join(directory, 'tree'), target: '/' },
    { source: join(directory, 'etc'), target: '/usr/lib' },
  ])
  assert.deepEqual(settings.finalizeScripts, [join(directory, 'finalize.sh')])
  assert.deepEqual(settings.rootPassword, { value: '100%i', hashed: false })
  assert.equal(settings.outputDirectory, join(directory, '..', 'elsewhere'))
})

test('settings without effect are accepted and noted with the reason', async (t) => {
  const { notes, settings } = await load(t, "  release: 'trixie',\n  incremental: true,")
  assert.deepEqual(notes, [
    'recipe.ts:4:3: incremental is without effect: every stage is cached by its inputs, so there is nothing to switch',
  ])
  assert.ok(!('incremental' in settings))
})

test('SOURCE_DATE_EPOCH of the environment yields to the recipe', async (t) => {
  const env = { SOURCE_DATE_EPOCH: '1700000000' }
  const { settings, origins } = await load(t, "release: 'trixie'", { env })
  assert.equal(settings.sourceDateEpoch, 1700000000)
  assert.equal(origins.get('sourceDateEpoch'), 'environment SOURCE_DATE_EPOCH')
  assert.equal((await load(t, "release: 'trixie', sourceDateEpoch: 5", { env })).settings.sourceDateEpoch, 5)
})

test('a syntax error names file, line and column', async (t) => {
  const directory = folder(t, { 'recipe.ts': "export default {\n  release: 'a' 'b',\n}\n" })
  assert.match((await faultOf(loadRecipe(directory))).message, /^Cannot read recipe: \S*recipe\.ts:2:16: Expected ','/)
})

test('an error that V8 gives no place for still names the file', async (t) => {
  const directory = folder(t, { 'recipe.ts': 'const a = 1\nconst a = 2\nexport default {}\n' })
  assert.match(
    (await faultOf(loadRecipe(directory))).message,
    /^Cannot read recipe: \S*recipe\.ts: Identifier 'a' has already been declared$/,
  )
})

test('an exception in a recipe, or in what it imports, names file and line', async (t) => {
  const own = folder(t, { 'recipe.ts': "function f(): never {\n  throw new Error('no network')\n}\nexport default f()\n" })
  assert.match((await faultOf(loadRecipe(own))).message, /^Cannot read recipe: \S*recipe\.ts:2:9: no network$/)
  const imported = folder(t, { 'recipe.ts': "import './lib.ts'\nexport default {}\n", 'lib.ts': '\n\n(undefined as any).x\n' })
  assert.match((await faultOf(loadRecipe(imported))).message, /lib\.ts:3:\d+: Cannot read properties of undefined/)
  const missing = folder(t, { 'recipe.ts': "import './gone.ts'\nexport default {}\n" })
  assert.match((await faultOf(loadRecipe(missing))).message, /Cannot find module '.*gone\.ts' imported from .*recipe\.ts/)
})

test('what is not a recipe is refused with what to do', async (t) => {
  const empty = await faultOf(loadRecipe(folder(t, {})))
  assert.equal(empty.code, 'missing')
  assert.match(empty.hint!, /^bisque init /)
  assert.equal((await faultOf(loadRecipe('/nonexistent/recipe'))).code, 'missing')
  assert.match(
    (await faultOf(loadRecipe(folder(t, { 'mkosi.conf': '', 'recipe.ts': 'export default {}' })))).message,
    /there are two, .*recipe\.ts and .*mkosi\.conf; name the one that is meant/,
  )
  assert.match((await faultOf(loadRecipe(folder(t, { 'recipe.ts': 'export const a = 1' })))).message, /exports no default/)
  assert.match(
    (await faultOf(loadRecipe(folder(t, { 'recipe.ts': 'export default [1]' })))).message,
    /must export an object, it exports \[1\]/,
  )
  assert.match(
    (await faultOf(load(t, "release: 'sid', profiles: ['a']"))).message,
    /profiles: expected an object of profiles by name, got \["a"\]/,
  )
})

test('images are sub-images: what holds for all they get, what is inherited they may change, the rest is their own', async (t) => {
  const { subimages, settings } = await load(
    t,
    `  release: 'trixie', imageId: 'Main', imageVersion: '2', packages: ['a'], withNetwork: true, initrds: [],
  environment: { A: '1', B: '2' }, passEnvironment: ['B'],
  images: {
    base: { format: 'directory', packages: ['b'], hostname: '%i-%I', imageVersion: null, environment: { C: '3' } },
    top: { format: 'sysext', dependencies: ['base'], imageVersion: '3' },
  },`,
  )
  assert.equal(settings.output, 'Main_2_x86-64')
  assert.deepEqual(
    subimages.map(({ name }) => name),
    ['base', 'top'],
  )
  const [base, top] = subimages.map((image) => image.settings)
  assert.deepEqual([base!.release, base!.withNetwork, base!.packages], ['trixie', true, ['b']])
  assert.deepEqual([base!.imageId, base!.imageVersion, top!.imageVersion], ['Main', undefined, '3'])
  assert.deepEqual([base!.output, top!.output], ['base_x86-64', 'top_3_x86-64'])
  assert.equal(base!.hostname, 'Main-base')
  assert.deepEqual(base!.environment, { B: '2', C: '3' })
  assert.equal(subimages[0]!.origins.get('release'), 'recipe.ts:3:3')
  assert.equal(subimages[0]!.origins.get('packages'), 'image base (recipe.ts:6:34)')
})

test('images and initrd tell their problems with their places', async (t) => {
  const problems = await problemsOf(
    load(
      t,
      `  release: 'trixie',
  images: {
    a: { release: 'sid', bootable: 'perhaps', pakages: [] },
    main: {},
    b: 3,
  },
  initrd: { cpus: 2, hostname: 7 },`,
    ),
  )
  assert.deepEqual(problems.slice(1), [
    'recipe.ts:5:10: image a: release: only the main image can set it, and this is the image a',
    'recipe.ts:5:26: image a: bootable: expected true, false or "auto", got "perhaps"',
    'recipe.ts:5:47: image a: unknown setting "pakages"; did you mean "packages"?',
    'recipe.ts:6:5: image main: expected a name of letters, digits, ".", "_" and "-" that is not taken',
    'recipe.ts:7:5: image b: expected an object of settings, got 3',
    'recipe.ts:9:13: initrd: cpus: only the main image can set it, and this is the image default-initrd',
    'recipe.ts:9:22: initrd: hostname: expected a host name, got 7',
  ])
})

test('images that depend on each other in a circle are refused by name', async (t) => {
  const fault = await faultOf(load(t, "release: 'sid', images: { a: { dependencies: ['b'] }, b: { dependencies: ['a'] } }"))
  assert.match(fault.message, /in a circle: a → b → a/)
})

test('the default initrd has what it always has, and what the recipe says of it', async (t) => {
  const { subimages } = await load(
    t,
    "  release: 'trixie', hostname: 'h', initrdPackages: ['vim'], initrdProfiles: ['lvm'],\n  initrd: { packages: ['emacs'], environment: { A: '%r' } },",
  )
  assert.deepEqual(
    subimages.map(({ name }) => name),
    ['default-initrd'],
  )
  const { settings, origins } = subimages[0]!
  for (const name of ['vim', 'emacs', 'lvm2', 'systemd', 'kmod']) assert.ok(settings.packages.includes(name), name)
  assert.deepEqual([settings.format, settings.makeInitrd, settings.hostname, settings.hermeticUsr], ['cpio', true, 'h', false])
  assert.deepEqual(settings.environment, { A: 'trixie' })
  assert.match(origins.get('packages')!, /^recipe\.ts:3:37, initrd \(recipe\.ts:4:13\), built-in mkosi-initrd\/mkosi\.conf:\d+/)
  assert.deepEqual((await load(t, "release: 'sid', initrds: ['my.img']")).subimages, [])
})

test('null takes away a default, and is refused where there must be a value', async (t) => {
  assert.equal((await load(t, "release: 'sid', imageId: null, initrds: []")).settings.imageId, undefined)
  assert.match((await faultOf(load(t, 'release: null'))).message, /release: expected a release name such as "trixie", got null/)
  assert.match(
    (await faultOf(load(t, "release: 'sid', packages: null"))).message,
    /packages: expected a list of strings, got null/,
  )
})

test('requestDigest() follows what decides the packages and nothing else', async (t) => {
  const digest = async (body: string) => requestDigest(await load(t, `  release: 'trixie', ${body}`))
  const base = await digest("packages: ['a', 'b']")
  assert.equal(await digest("packages: ['b', 'a', 'a']"), base)
  assert.equal(
    await digest("packages: ['a', 'b'], hostname: 'x', kernelCommandLine: ['quiet'], mirror: 'http://mirror.example/debian'"),
    base,
  )
  for (const other of [
    "packages: ['a']",
    "packages: ['a', 'b'], withRecommends: true",
    "packages: ['a', 'b'], initrdPackages: ['c']",
  ])
    assert.notEqual(await digest(other), base)
})

test('defineRecipe() rejects wrong settings in the type checker', async () => {
  const { defineRecipe } = await import('./recipe.ts')
  // @ts-expect-error: a typo
  defineRecipe({ pakages: [] })
  // @ts-expect-error: a value of another type
  defineRecipe({ packages: 'systemd' })
  // @ts-expect-error: a setting that is not supported yet
  defineRecipe({ devicetrees: ['x'] })
  assert.deepEqual(
    defineRecipe({ release: 'trixie', compressOutput: true, sectorSize: 4096, profiles: { a: { packages: ['x'] } } }),
    {
      release: 'trixie',
      compressOutput: true,
      sectorSize: 4096,
      profiles: { a: { packages: ['x'] } },
    },
  )
})

test('loadRecipe() refuses what a hermetic /usr has no place for, by name', async (t) => {
  const body = "release: 'trixie', hermeticUsr: true, format: 'tar', autologin: true, kernelModules: ['erofs'], ssh: 'never',"
  const problems = await problemsOf(load(t, body))
  assert.deepEqual(
    problems
      .slice(1)
      .map((problem) => /(\w+): (?:it is for disks, and the format is tar|without effect where)/.exec(problem)?.[1]),
    ['hermeticUsr', 'autologin', 'kernelModules'],
  )
  assert.equal((await load(t, "release: 'trixie', hermeticUsr: false, format: 'tar', autologin: true,")).settings.autologin, true)
})

test('root: tpm2 names all it lacks, and what it is sealed to must be signed', async (t) => {
  assert.equal((await load(t, "release: 'trixie', root: 'tpm2',")).settings.root, 'tpm2')
  assert.equal((await load(t, "release: 'trixie',")).settings.root, 'memory')
  const without = "secureBoot: false, signExpectedPcr: false, kernelCommandLine: ['root=LABEL=x'],"
  for (const [body, lacks] of [
    [without, 'secureBoot: true, signExpectedPcr: true, a kernelCommandLine without root='],
    ["initrds: ['my.cpio'],", "'default' among initrds"],
    ['hermeticUsr: false,', 'hermeticUsr: true'],
  ])
    await assert.rejects(load(t, `release: 'trixie', root: 'tpm2', ${body}`), (error: Error) =>
      error.message.includes(`root: tpm2 needs ${lacks}`),
    )
})
