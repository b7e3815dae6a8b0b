/** dose-debcheck as a judge: is a set of packages complete and free of conflicts in itself? */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { DebPackage } from '../../src/packages/deb/index.ts'
import type { Judge } from '../oracle.ts'

// biome-ignore format: table
const FIELDS = [
  ['Package', 'name'], ['Version', 'version'], ['Architecture', 'architecture'], ['Multi-Arch', 'multiArch'],
  ['Pre-Depends', 'preDepends'], ['Depends', 'depends'], ['Conflicts', 'conflicts'], ['Breaks', 'breaks'],
  ['Provides', 'provides'],
] as const

/** For each set, what dose-debcheck finds wrong with having all of it installed together; empty when nothing is. */
export async function checkSets(judge: Judge, sets: readonly (readonly DebPackage[])[]): Promise<string[]> {
  mkdirSync(join(judge.dir, 'sets'))
  sets.forEach((set, i) => {
    const all = set.map((p) => `${p.name} (= ${p.version})`).join(', ')
    const stanzas = set.map((p) => FIELDS.flatMap(([field, key]) => (p[key] === '' ? [] : [`${field}: ${p[key]}\n`])).join(''))
    const whole = `Package: the-whole-set\nVersion: 1\nArchitecture: amd64\nDepends: ${all}\n`
    writeFileSync(join(judge.dir, 'sets', `${i}`), [...stanzas, whole].join('\n'))
  })
  const script = `for n in $(seq 0 ${sets.length - 1}); do
    dose-debcheck --explain --failures --deb-native-arch=amd64 --checkonly=the-whole-set:amd64 $PWD/sets/$n > sets/$n.out 2>&1
    echo $? > sets/$n.exit
  done`
  await judge.run(['sh', '-c', script])
  return sets.map((_, i) => {
    const ok = readFileSync(join(judge.dir, 'sets', `${i}.exit`), 'utf8').trim() === '0'
    return ok ? '' : readFileSync(join(judge.dir, 'sets', `${i}.out`), 'utf8')
  })
}
