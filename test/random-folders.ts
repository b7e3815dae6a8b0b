/** Folders in mkosi's format that make sense line by line: what is random is which lines there are, and where. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import fc from 'fast-check'

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
    ...['KernelCommandLine=k1  k2', 'KernelCommandLine=', 'KernelCommandLine=%C %P %D %I', 'Hostname=h', 'Hostname='],
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

export const folders = fc.record({
  files: fc.uniqueArray(fc.tuple(fc.constantFrom(...FILES), content), { minLength: 1, maxLength: 8, selector: ([name]) => name }),
  neighbours: fc.subarray(NEIGHBOURS),
  profiles: fc.subarray(['a', 'b']),
  set: fc.array(fc.constantFrom(...SET), { maxLength: 3 }).map((some) => ['Distribution=debian', 'Release=sid', ...some]),
})
export type Sample = typeof folders extends fc.Arbitrary<infer T> ? T : never

/** Puts the files of a sample where they belong. */
export function writeSample(folder: string, { files, neighbours }: Sample): void {
  const write = (name: string, text: string): void => {
    mkdirSync(join(folder, name.endsWith('/') ? name : dirname(name)), { recursive: true })
    if (!name.endsWith('/')) writeFileSync(join(folder, name), text)
  }
  for (const name of ['mkosi.profiles/a/', 'mkosi.profiles/b/']) write(name, '')
  for (const name of neighbours) write(name, name.endsWith('version') ? '7' : '')
  for (const [name, text] of [['mkosi.conf', ''] as const, ...files]) write(name, text)
}
