/** apt as a judge: the same Packages files, an empty dpkg database, one apt-get per question. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Judge } from '../oracle.ts'
import type { ArchiveSuite } from './archive.ts'
import type { Question } from './questions.ts'

/** What apt would install, as paths of package files below the archive; or that it refuses, and what it says. */
export type AptAnswer = { filenames: string[] } | { refusal: string }

/** Two at a time; each process maps the binary cache which the first one made. */
const ASK = `
ask() { xargs apt-get -q -y --print-uris -o APT::Install-Recommends=$(cat questions/$1.recommends) install < questions/$1 > $1.out 2> $1.err; echo $? > $1.exit; }
export APT_CONFIG=$PWD/apt.conf
ask 0
for first in $(seq 1 2 $(cat questions/last)); do
  ask $first & [ ! -e questions/$((first + 1)) ] || ask $((first + 1)) & wait
done
`

export async function askApt(
  judge: Judge,
  suites: readonly ArchiveSuite[],
  questions: readonly Question[],
): Promise<AptAnswer[]> {
  prepareApt(judge.dir, suites)
  mkdirSync(join(judge.dir, 'questions'))
  questions.forEach(({ packages, recommends }, i) => {
    writeFileSync(join(judge.dir, 'questions', `${i}`), ['?essential', ...packages].map((p) => `'${p}'\n`).join(''))
    writeFileSync(join(judge.dir, 'questions', `${i}.recommends`), String(recommends))
  })
  writeFileSync(join(judge.dir, 'questions', 'last'), String(questions.length - 1))
  await judge.run(['sh', '-c', ASK])
  return questions.map((_, i) => {
    const read = (kind: string) => readFileSync(join(judge.dir, `${i}.${kind}`), 'utf8')
    if (read('exit').trim() !== '0') return { refusal: `${read('out')}${read('err')}` }
    const filenames = [...read('out').matchAll(/^'http:\/\/archive\/debian\/([^']+)'/gm)].map((m) => decodeURIComponent(m[1]!))
    return { filenames: filenames.sort() }
  })
}

/** A world of apt's own: lists as if downloaded, nothing installed. */
export function prepareApt(dir: string, suites: readonly ArchiveSuite[]): void {
  for (const folder of ['state/lists/partial', 'cache/archives/partial', 'etc/preferences.d', 'etc/apt.conf.d', 'log'])
    mkdirSync(join(dir, folder), { recursive: true })
  writeFileSync(join(dir, 'status'), '')
  const places = { '': dir, State: 'state', 'State::status': 'status', Cache: 'cache', Etc: 'etc', Log: 'log' }
  const config = Object.entries(places).map(
    ([key, place]) => `Dir${key && '::'}${key} "${place === dir ? dir : join(dir, place)}";\n`,
  )
  writeFileSync(
    join(dir, 'apt.conf'),
    `${config.join('')}Debug::NoLocking "1";\nAPT::Architecture "amd64";\nAPT::Architectures { "amd64"; };\npkgCacheGen::ForceEssential ",";\n`,
  )
  for (const { repository, packages, release } of suites) {
    const base = join(dir, 'state/lists', `archive_debian_dists_${repository.suite}_`)
    writeFileSync(`${base}main_binary-amd64_Packages`, packages)
    writeFileSync(`${base}InRelease`, release)
  }
  const lines = suites.map(({ repository }) => `deb [trusted=yes] http://archive/debian ${repository.suite} main\n`)
  writeFileSync(join(dir, 'etc/sources.list'), lines.join(''))
}
