/**
 * Random folders in mkosi's format with settings of every kind: layers, conditions, includes, profiles, sub-images and resets, read by both.
 *
 * MKOSI names a checkout of mkosi. SEED and FOLDERS choose others and more than the few hundred of every run.
 */
import assert from 'node:assert/strict'
import { mkdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import fc from 'fast-check'
import { ROWS, settingNamed } from '../src/recipe/schema.ts'
import { type Case, differencesIn, missing } from './mkosi-peer.ts'
import { judgeIn } from './oracle.ts'
import { folders, writeSample } from './random-folders.ts'

const SEED = Number(process.env['SEED'] ?? 1)
const FOLDERS = Number(process.env['FOLDERS'] ?? 200)

test('random folders of many settings read as mkosi reads them', { skip: missing() }, async () => {
  using judge = judgeIn()
  const chance = new Chance(SEED)
  const cases = Array.from({ length: FOLDERS }, (_, i) => randomCase(chance, join(judge.dir, `folder-${i}`)))
  const differences = await differencesIn(judge, cases)
  assert.deepEqual(differences.slice(0, 5), [], `${differences.length} differences with SEED=${SEED}`)
})

test('random folders of many files read as mkosi reads them', { skip: missing() }, async () => {
  using judge = judgeIn()
  const cases = fc.sample(folders, { numRuns: FOLDERS, seed: SEED }).map((sample, i) => {
    const folder = join(judge.dir, `folder-${i}`)
    writeSample(folder, sample)
    return { folder, profiles: sample.profiles, set: sample.set }
  })
  const differences = await differencesIn(judge, cases)
  assert.deepEqual(differences.slice(0, 5), [], `${differences.length} differences with SEED=${SEED}`)
})

/** Numbers that look random and are the same for a seed. */
class Chance {
  #state: number
  constructor(seed: number) {
    this.#state = seed * 2654435761
  }
  number(): number {
    this.#state = (Math.imul(this.#state ^ (this.#state >>> 15), 0x2c1b3c6d) + 0x9e3779b9) | 0
    return ((this.#state ^ (this.#state >>> 13)) >>> 0) / 2 ** 32
  }
  is(probability: number): boolean {
    return this.number() < probability
  }
  one<T>(of: readonly T[]): T {
    return of[Math.floor(this.number() * of.length)]!
  }
}

const words = (text: string): string[] => text.split('|')

/** Settings with values to choose from; the empty one resets. */
const VALUES: Readonly<Record<string, readonly string[]>> = {
  Packages: words('a|b c|linux-image-x||z,y|(c)|%d-x|/p.deb'),
  VolatilePackages: words('v|linux-image-v|'),
  InitrdPackages: words('ip||%r'),
  InitrdProfiles: words('lvm|raid||lvm,raid'),
  Hostname: words('h1||h%v|h-%I'),
  KernelCommandLine: words('k1|k2 k3||%o'),
  Environment: words('A=1|B=2 A=3||C="x y"'),
  PassEnvironment: words('A|A B|'),
  ImageId: words('id|id-%d||other'),
  ImageVersion: words('1|2.1||3'),
  Output: words('o|o_%v||%i-%a'),
  Format: words('disk|directory|tar|uki|esp|cpio|sysext|'),
  Bootable: words('yes|no|auto|'),
  SplitArtifacts: words('uki|yes|no|partitions,tar||roothash'),
  // Without an empty one: in mkosi.local.conf it makes mkosi settle on a release before it knows the distribution.
  CompressOutput: words('yes|no|xz'),
  SecureBoot: words('yes|no|'),
  Verity: words('yes|hash|no|'),
  SignExpectedPcr: words('yes|auto|'),
  KernelModules: words('m1|-m2|default|'),
  KernelModulesInclude: words('r1||default'),
  KernelModulesExclude: words('x1|'),
  FirmwareFiles: words('fw|'),
  ExtraTrees: words('t1|t2:/d||%C/x|%D/y|%P/z'),
  RemoveFiles: words('/a|b|'),
  Release: words('trixie|sid|testing|'),
  Repositories: words('contrib|main,non-free|'),
  Mirror: words('http://m|'),
  OutputDirectory: words('out|out2'),
  Locale: words('C.UTF-8|'),
  Timezone: words('UTC|Europe/Berlin|'),
  RootPassword: words('pw|hashed:x|'),
  WithDocs: words('yes|no|'),
  WithNetwork: words('yes|no|'),
  CompressLevel: words('3|9|'),
  SectorSize: words('512|4096|'),
  RepartDirectories: words('.|'),
  Overlay: words('yes|no'),
  CPUs: words('2|'),
  RAM: words('1G|3000|'),
  Credentials: words('a=1|b=2 c=3|'),
  BuildSources: words('.|.:src|'),
  SourceDateEpoch: words('5|'),
  Initrds: words('default|x.cpio|'),
  Splash: words('/s.bmp|'),
  UnifiedKernelImages: words('yes|no|'),
  KernelInitrdModules: words('i1|default|'),
  OciLabels: words('A=1|B|'),
}

const CONDITIONS: Readonly<Record<string, readonly string[]>> = {
  Distribution: words('debian|fedora|arch'),
  Release: words('trixie|sid|testing|rawhide'),
  Architecture: words('x86-64|arm64|uefi'),
  Repositories: words('contrib|main|'),
  ImageId: words('id*|other|*|i[a-d]*'),
  ImageVersion: words('>=2|<2|1|==2.1|!=1'),
  Bootable: words('yes|auto|no'),
  Format: words('disk|tar|uki'),
  Profiles: words('p1|p2|'),
  Environment: words('A|A=1|B=2'),
  PathExists: words('mkosi.conf|nothing'),
  Image: words('main|s1|default-initrd'),
  BuildSources: words('src|/src'),
}

/** What may be given after `--set`; there, an empty `SplitArtifacts=` or `Release=` is a mistake of mkosi's. */
const SET = words('Packages|Hostname|KernelCommandLine|Environment|ImageId|ImageVersion|Bootable|InitrdPackages|WithDocs|RAM')

function randomCase(chance: Chance, folder: string): Case {
  writeFolder(chance, folder, 'main', 0)
  write(join(folder, 'inc1.conf'), configuration(chance, 's1', 1, false))
  writeFolder(chance, join(folder, 'inc2'), 's1', 2)
  for (const name of ['s1', 's2']) {
    if (chance.is(0.4)) writeFolder(chance, join(folder, 'mkosi.images', name), name, chance.one([0, 1]))
    else if (chance.is(0.3)) write(join(folder, `mkosi.images/${name}.conf`), configuration(chance, name, 1))
  }
  if (chance.is(0.2)) write(join(folder, 'mkosi.initrd.conf'), configuration(chance, 'default-initrd', 1, false))
  const set = Array.from({ length: chance.is(0.4) ? 2 : 0 }, () => {
    const name = chance.one(SET)
    return `${name}=${chance.one(VALUES[name]!).replaceAll('%', '')}`
  })
  return { folder, profiles: chance.is(0.3) ? [chance.one(['p1', 'p2'])] : [], set }
}

function writeFolder(chance: Chance, folder: string, image: string, depth: number): void {
  write(join(folder, 'mkosi.conf'), configuration(chance, image, depth))
  for (let i = 0; depth < 2 && i < chance.one([0, 0, 1, 2]); i++) {
    const name = join(folder, 'mkosi.conf.d', `${i}${chance.one(['a', 'b'])}`)
    if (chance.is(0.6)) write(`${name}.conf`, configuration(chance, image, depth + 1))
    else writeFolder(chance, name, image, depth + 1)
  }
  if (chance.is(0.2)) write(join(folder, 'mkosi.extra/file'), 'x')
  if (chance.is(0.1)) write(join(folder, 'mkosi.version'), chance.one(['7\n', '8.1']))
  if (depth > 0) return
  for (const name of ['p1', 'p2']) {
    write(join(folder, `mkosi.profiles/${name}.conf`), configuration(chance, image, 1, false))
    if (chance.is(0.2)) writeFolder(chance, join(folder, 'mkosi.profiles', name), image, 1)
  }
  // What a sub-image's local file includes, mkosi includes in those after it as well.
  if (chance.is(0.25)) write(join(folder, 'mkosi.local.conf'), configuration(chance, image, 1, image === 'main'))
}

function configuration(chance: Chance, image: string, depth: number, includes = true): string {
  const lines: string[] = depth > 0 && chance.is(0.5) ? conditions(chance) : []
  if (image === 'main' && depth === 0) {
    lines.push('[Distribution]', `Distribution=${chance.one(['debian', 'debian', 'fedora', 'arch'])}`)
    if (chance.is(0.3)) lines.push(`Architecture=${chance.one(['x86-64', 'arm64'])}`)
    if (chance.is(0.5)) lines.push('[Config]', `Profiles=${chance.one(words('p1|p2|p1,p2|'))}`)
  }
  for (let left = chance.one([1, 2, 3, 5, 8]); left > 0; left--) lines.push(...setting(chance, image, Object.keys(VALUES)))
  if (includes && chance.is(0.25)) {
    lines.push('[Include]', `Include=%D/${chance.one(['inc1.conf', 'inc2'])}`)
    lines.push(...setting(chance, image, ['Packages', 'Hostname', 'KernelCommandLine']))
  }
  return `${lines.join('\n')}\n`
}

function setting(chance: Chance, image: string, names: readonly string[]): string[] {
  const name = chance.one(names)
  const { section, scope } = ROWS[settingNamed(name)!]!
  if (image !== 'main' && ['main', 'initrd', 'tools', 'multiversal', 'universal'].includes(scope)) return []
  const lines = [`[${section}]`, `${name}=${chance.one(VALUES[name]!)}`]
  return chance.is(0.15) ? [...lines, `${name}=${chance.one(VALUES[name]!)}`] : lines
}

function conditions(chance: Chance): string[] {
  return Array.from({ length: chance.one([1, 1, 2]) }).flatMap(() => {
    const lines = Array.from({ length: chance.one([1, 1, 2, 3]) }, () => {
      const name = chance.one(Object.keys(CONDITIONS))
      return `${name}=${chance.one(['', '', '', '|', '!', '|!'])}${chance.one(CONDITIONS[name]!)}`
    })
    return [`[${chance.one(['Match', 'Match', 'TriggerMatch'])}]`, ...lines]
  })
}

function write(file: string, text: string): void {
  mkdirSync(dirname(file), { recursive: true })
  writeFileSync(file, text)
}
