/**
 * apt as a judge: the same Packages files, one apt-get per question. As mkosi does it, the essential packages with all they
 * need are installed first, into an empty dpkg database, and what is asked for comes upon them.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Judge } from '../oracle.ts'
import type { ArchiveSuite } from './archive.ts'
import type { Question } from './questions.ts'

/** What apt would install, as paths of package files below the archive; or that it refuses, and what it says. */
export type AptAnswer = { filenames: string[] } | { refusal: string }

/** Two at a time; each process maps the binary cache which the first one made. */
const ASK = `
export APT_CONFIG=$PWD/apt.conf
ask() {
  recommends=$(cat questions/$1.recommends)
  xargs apt-get -q -y --allow-downgrades --print-uris -o Dir::State::status=$PWD/status.$recommends -o Dir::Cache=$PWD/cache.$recommends \
    -o APT::Install-Recommends=$recommends install < questions/$1 > $1.out 2> $1.err
  echo $? > $1.exit
}
for first in $(seq $1 2 $2); do
  ask $first & [ $((first + 1)) -gt $2 ] || ask $((first + 1)) & wait
done
`

export async function askApt(
  judge: Judge,
  suites: readonly ArchiveSuite[],
  questions: readonly Question[],
): Promise<AptAnswer[]> {
  prepareApt(judge.dir, suites)
  mkdirSync(join(judge.dir, 'questions'))
  const base = [false, true].map((recommends) => ({ packages: ['?essential'], recommends }))
  const all: Question[] = [...base, ...questions]
  all.forEach(({ packages, recommends }, i) => {
    writeFileSync(join(judge.dir, 'questions', `${i}`), packages.map((p) => `'${p}'\n`).join(''))
    writeFileSync(join(judge.dir, 'questions', `${i}.recommends`), String(recommends))
  })
  for (const { recommends } of base) {
    mkdirSync(join(judge.dir, `cache.${recommends}/archives/partial`), { recursive: true })
    writeFileSync(join(judge.dir, `status.${recommends}`), '')
  }
  await judge.run(['sh', '-c', ASK, 'sh', '0', '1'])
  const there = base.map((_, i) => answerOf(judge.dir, i))
  for (const [i, { recommends }] of base.entries())
    writeFileSync(join(judge.dir, `status.${recommends}`), statusOf(suites, there[i]!))
  await judge.run(['sh', '-c', ASK, 'sh', '2', String(all.length - 1)])
  return questions.map(({ recommends }, i) => {
    const answer = answerOf(judge.dir, i + base.length)
    const installed = there[Number(recommends)]!
    if ('refusal' in answer || 'refusal' in installed) return answer
    // A version that was asked for takes the place of the one that was there.
    const byName = new Map(
      [...installed.filenames, ...answer.filenames].map((filename) => [filename.replace(/.*\/|_.*/g, ''), filename]),
    )
    return { filenames: [...byName.values()].sort() }
  })
}

function answerOf(dir: string, i: number): AptAnswer {
  const read = (kind: string) => readFileSync(join(dir, `${i}.${kind}`), 'utf8')
  if (read('exit').trim() !== '0') return { refusal: `${read('out')}${read('err')}` }
  const filenames = [...read('out').matchAll(/^'http:\/\/archive\/debian\/([^']+)'/gm)].map((m) => decodeURIComponent(m[1]!))
  return { filenames: filenames.sort() }
}

/** dpkg's database with these packages installed. */
function statusOf(suites: readonly ArchiveSuite[], answer: AptAnswer): string {
  if ('refusal' in answer) throw new Error(answer.refusal)
  const wanted = new Set(answer.filenames)
  const stanzas = suites.flatMap(({ packages }) =>
    Buffer.from(packages)
      .toString()
      .split('\n\n')
      .filter((stanza) => wanted.has(/^Filename: (.*)$/m.exec(stanza)?.[1] ?? '')),
  )
  return stanzas.map((stanza) => `${stanza.trim().replace(/^Version:/m, 'Status: install ok installed\nVersion:')}\n`).join('\n')
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
