/**
 * Random folders in mkosi's format, read by both.
 *
 * MKOSI names a checkout of mkosi. Values are ones that both take; what is tried is who wins, what is reset, what is passed on
 * to other images, and what conditions see.
 */
import assert from 'node:assert/strict'
import { cpSync, existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { isDeepStrictEqual } from 'node:util'
import fc from 'fast-check'
import { type ImageRecipe, loadRecipe, type Recipe } from '../src/recipe/recipe.ts'
import { ROWS, settingNamed } from '../src/recipe/schema.ts'
import { byName, summaryOf } from '../src/recipe/summary.ts'
import { JUDGES, type Judge, judgeIn } from './oracle.ts'

type Json = Record<string, any>

/** Sections, and assignments that may stand in them. */
const SETTINGS: Readonly<Record<string, readonly string[]>> = {
  Config: ['Profiles=a', 'Profiles=b', 'Profiles=', 'Dependencies=a', 'Dependencies=', 'PassEnvironment=A C'],
  Include: ['Include=mkosi.inc', 'Include=mkosi.inc2.conf', 'Include=mkosi-vm'],
  Distribution: ['Repositories=r1,r2', 'Repositories=', 'Mirror=http://x'],
  Output: [
    ...['ImageId=id%I', 'ImageId=', 'ImageId=Other', 'ImageVersion=1.2', 'ImageVersion=', 'Output=o_%i_%v_%a', 'Output='],
    ...['Format=tar', 'Format=directory', 'Format=', 'Format=uki', 'Format=sysext', 'OutputDirectory=od', 'CompressLevel=9'],
    ...['SplitArtifacts=uki', 'SplitArtifacts=yes', 'SplitArtifacts=', 'CompressOutput=zstd', 'ManifestFormat=json'],
  ],
  Content: [
    ...['Packages=b,a linux-image-amd64', 'Packages=', 'Packages=z\n  y\n  x', 'Packages=%d %r %t', 'VolatilePackages=v'],
    ...['KernelCommandLine=k1  k2', 'KernelCommandLine=', 'KernelCommandLine=%C %P %D %I %O', 'Hostname=h', 'Hostname='],
    ...['Bootable=yes', 'Bootable=no', 'Bootable=', 'Initrds=default', 'Initrds=', 'Initrds=x.img', 'InitrdPackages=ip'],
    ...[
      'InitrdProfiles=lvm',
      'InitrdProfiles=a',
      'InitrdPackages=',
      'WithDocs=no',
      'WithDocs=',
      'RemoveFiles=/a',
      'RemoveFiles=',
    ],
    ...[
      'KernelModules=m -n',
      'KernelModulesInclude=r.x',
      'ExtraTrees=mkosi.conf:/t',
      'PostInstallationScripts=*.sh',
      'Locale=%F',
    ],
    ...['BuildScripts=nothing.sh', 'MakeInitrd=yes', 'MachineId=0123456789abcdef0123456789abcdef', 'SourceDateEpoch=5'],
  ],
  Build: ['Environment=A=1 "B=x y"', 'Environment=', 'Environment=A=2', 'WithNetwork=yes', 'BuildSources=.:here', 'WithTests=no'],
  Validation: ['SecureBoot=yes', 'SignExpectedPcr=no', 'Verity=hash'],
  Runtime: ['CPUs=4', 'RAM=3G', 'RAM='],
}

const CONDITIONS = [
  ...['Format=disk', 'Format=!disk', 'Format=|tar', 'Format=|directory', 'ImageId=id*', 'ImageId=O?her', 'ImageVersion=>1'],
  ...['Bootable=yes', 'Bootable=auto', 'Profiles=a', 'Profiles=!b', 'Profiles=', 'Image=main', 'Image=!main', 'Repositories=r1'],
  ...[
    'Environment=A',
    'Environment=A=1',
    'Architecture=uefi',
    'Distribution=debian',
    'Distribution=|fedora',
    'BuildSources=here',
  ],
  ...['PathExists=mkosi.conf', 'PathExists=!mkosi.extra', 'Release=%r'],
]

const FILES = [
  ...['mkosi.conf', 'mkosi.local.conf', 'mkosi.local/mkosi.conf', 'mkosi.conf.d/a.conf', 'mkosi.conf.d/b/mkosi.conf'],
  ...['mkosi.conf.d/b/mkosi.conf.d/c.conf', 'mkosi.profiles/a.conf', 'mkosi.profiles/b/mkosi.conf', 'mkosi.initrd.conf'],
  ...[
    'mkosi.images/a.conf',
    'mkosi.images/b/mkosi.conf',
    'mkosi.images/b/mkosi.local.conf',
    'mkosi.images/b/mkosi.profiles/a.conf',
  ],
  ...['mkosi.inc/mkosi.conf', 'mkosi.inc/mkosi.profiles/a.conf', 'mkosi.inc2.conf'],
]

/** Files that say something by lying there. */
const NEIGHBOURS = [
  ...[
    'mkosi.extra/',
    'mkosi.conf.d/b/mkosi.extra/',
    'mkosi.version',
    'mkosi.build.d/2',
    'mkosi.build.d/1',
    'mkosi.build',
    'a.sh',
  ],
  ...['mkosi.postinst.chroot', 'mkosi.repart/', 'mkosi.images/b/mkosi.extra/', 'mkosi.images/b/mkosi.version', 'mkosi.env'],
  ...['mkosi.local/mkosi.extra/', 'mkosi.profiles/b/mkosi.skeleton/', 'mkosi.inc/mkosi.extra/', 'mkosi.images/b/b.sh'],
]

const SET = [
  ...['ImageId=cli', 'Packages=clip', 'Packages=', 'Format=directory', 'Bootable=yes', 'KernelCommandLine=q', 'ImageVersion=9'],
  ...['Hostname=', 'Environment=A=cli', 'InitrdPackages=cp', 'Output=clo', 'WithDocs=yes', 'OutputDirectory=/tmp/od'],
]

const assignment = fc
  .constantFrom(...Object.keys(SETTINGS))
  .chain((section) => fc.constantFrom(...SETTINGS[section]!).map((text) => `[${section}]\n${text}\n`))
const conditions = fc
  .tuple(
    fc.constantFrom('Match', 'Match', 'TriggerMatch'),
    fc.array(fc.constantFrom(...CONDITIONS), { minLength: 1, maxLength: 2 }),
  )
  .map(([section, all]) => `[${section}]\n${all.join('\n')}\n`)
const content = fc
  .tuple(fc.array(conditions, { maxLength: 2 }), fc.array(assignment, { maxLength: 5 }))
  .map(([some, all]) => [...some, ...all].join(''))

const folders = fc.record({
  files: fc.uniqueArray(fc.tuple(fc.constantFrom(...FILES), content), { minLength: 1, maxLength: 8, selector: ([name]) => name }),
  neighbours: fc.subarray(NEIGHBOURS),
  profiles: fc.subarray(['a', 'b']),
  set: fc.array(fc.constantFrom(...SET), { maxLength: 3 }).map((some) => ['Distribution=debian', 'Release=sid', ...some]),
})
type Sample = typeof folders extends fc.Arbitrary<infer T> ? T : never

const why = (): string | false => {
  if (!existsSync(process.env['MKOSI'] ?? '')) return 'MKOSI must name a checkout'
  return JUDGES === undefined ? 'npm test prepares the tools' : false
}

test('random folders read as mkosi reads them', { skip: why() }, async () => {
  using judge = judgeIn()
  cpSync(process.env['MKOSI']!, join(judge.dir, 'mkosi'), { recursive: true })
  // Both are asked once for many folders: starting the other takes most of the time.
  for (const sample of fc.sample(folders, { numRuns: Number(process.env['RUNS'] ?? 40), seed: 20260701 })) {
    const folder = join(judge.dir, 'folder')
    rmSync(folder, { recursive: true, force: true })
    writeSample(folder, sample)
    const { profiles, set } = sample
    const theirs = await mkosiImages(judge, folder, sample)
    const ours = await loadRecipe(folder, { profiles, set, anyValue: true, env: {} }).catch((error: Error) => error)
    assert.deepEqual(differences(ours, theirs, folder), [], JSON.stringify(sample, undefined, 1))
  }
})

function writeSample(folder: string, { files, neighbours }: Sample): void {
  const write = (name: string, text: string): void => {
    mkdirSync(join(folder, name.endsWith('/') ? name : dirname(name)), { recursive: true })
    if (!name.endsWith('/')) writeFileSync(join(folder, name), text)
  }
  for (const name of ['mkosi.profiles/a/', 'mkosi.profiles/b/']) write(name, '')
  for (const name of neighbours) write(name, name.endsWith('version') ? '7' : '')
  for (const [name, text] of [['mkosi.conf', ''] as const, ...files]) write(name, text)
}

async function mkosiImages(judge: Judge, folder: string, { profiles, set }: Sample): Promise<Json[] | undefined> {
  const options = [...profiles.map((name) => `--profile=${name}`), ...set.map(optionOf)]
  const python = ['env', `PYTHONPATH=${join(judge.dir, 'mkosi')}`, 'python3', '-m', 'mkosi']
  const outcome = await judge.run([...python, `--directory=${folder}`, '--json', ...options, 'summary'], { allowFailure: true })
  return outcome.exitCode === 0 ? (JSON.parse(outcome.stdout) as { Images: Json[] }).Images : undefined
}

function optionOf(text: string): string {
  const equals = text.indexOf('=')
  const long = text.slice(0, equals).replace(/(?<=[a-z])(?=[A-Z])/g, '-')
  return `--${long.toLowerCase().replace(/packages$/, 'package')}${text.slice(equals)}`
}

function differences(ours: Recipe | Error, theirs: Json[] | undefined, folder: string): string[] {
  if (ours instanceof Error || theirs === undefined) {
    return ours instanceof Error && theirs === undefined ? [] : [`ours ${ours instanceof Error ? ours.message : 'taken'}`]
  }
  const images = [...ours.subimages, ours]
  const byImage = new Map(theirs.map((image) => [String(image['Image']), image]))
  const names = [images.map(({ name }) => name), [...byImage.keys()]].map((some) => some.toSorted().join())
  if (names[0] !== names[1]) return [`images: ours ${names[0]}, theirs ${names[1]}`]
  return images.flatMap((image) => imageDifferences(image, byImage.get(image.name)!, folder))
}

/** Settings in which the two differ for a reason that another test has. */
const ELSEWHERE = ['Seed', 'SectorSize', 'Dependencies', 'Initrds']

function imageDifferences(image: ImageRecipe, theirs: Json, folder: string): string[] {
  const ours: Json = byName(summaryOf(image))
  return Object.entries(theirs).flatMap(([name, value]) => {
    const key = settingNamed(name)
    if (key === undefined || ROWS[key]!.status.is !== 'supported' || ELSEWHERE.includes(name)) return []
    const [x, y] = [ours[name]?.value ?? null, value].map((one) => alike(name, one, image.name, folder))
    return isDeepStrictEqual(x, y) ? [] : [`${image.name}: ${name}: ours ${JSON.stringify(x)}, theirs ${JSON.stringify(y)}`]
  })
}

/** The built-in initrd of each has an order and files of its own. */
function alike(name: string, value: any, image: string, folder: string): unknown {
  if (name === 'OutputDirectory') return value ?? join(folder, 'mkosi.output')
  if (name === 'ExtraTrees' || name === 'PostInstallationScripts') {
    return value.filter((one: any) => !/\/mkosi-initrd\//.test(one.Source ?? one))
  }
  if (image === 'default-initrd' && ['RemoveFiles', 'KernelModules'].includes(name)) {
    return value.map((one: string) => one.replace(/^\/*(?=usr|etc|var|a)/, '/')).sort()
  }
  return value
}
