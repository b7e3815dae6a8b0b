/** How long resolving takes from a warm index: in process, as a whole process, and for apt with its warm cache. */
import { execFileSync } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { JUDGES, judgeIn } from '../test/oracle.ts'
import { prepareApt } from '../test/resolver/apt.ts'
import { type ArchiveSuite, loadArchive } from '../test/resolver/archive.ts'

export const name = 'resolve'

export interface Measurement {
  what: string
  openMs: number
  resolveMs: number
  wholeProcessMs: number
  /** The same question to apt-get, when there is one to ask. */
  aptMs?: number
  packages: number
}

// biome-ignore format: table
const QUESTIONS = [
  { what: 'minimal', recommends: false, packages: 'systemd udev dbus login kmod util-linux linux-image-cloud-amd64 systemd-boot systemd-repart systemd-cryptsetup bash coreutils' },
  { what: 'task-gnome-desktop with recommends', recommends: true, packages: 'task-gnome-desktop' },
]
const ROUNDS = 3

export async function run(): Promise<Measurement[]> {
  const folder = mkdtempSync(join(tmpdir(), 'bisque-bench-'))
  try {
    const archive = await loadArchive()
    for (const { repository, compiled } of archive) writeFileSync(join(folder, repository.id), compiled)
    writeFileSync(join(folder, 'repositories'), JSON.stringify(archive.map((suite) => suite.repository)))
    const results: Measurement[] = []
    for (const question of QUESTIONS) {
      const argv = [join(import.meta.dirname, 'resolve-once.ts'), folder, String(question.recommends), question.packages]
      let inside = ''
      const wholeProcessMs = best(() => {
        inside = execFileSync(process.execPath, argv, { encoding: 'utf8' })
      })
      const aptMs = await aptTime(archive, question)
      results.push({ what: question.what, ...JSON.parse(inside), wholeProcessMs, ...(aptMs !== undefined && { aptMs }) })
    }
    return results
  } finally {
    rmSync(folder, { recursive: true })
  }
}

function best(body: () => unknown): number {
  const times = Array.from({ length: ROUNDS }, () => {
    const started = performance.now()
    body()
    return performance.now() - started
  })
  return Math.round(Math.min(...times))
}

async function aptTime(archive: readonly ArchiveSuite[], question: (typeof QUESTIONS)[number]): Promise<number | undefined> {
  if (!existsSync(`${JUDGES}/usr/bin/apt-get`)) return undefined
  using judge = judgeIn()
  prepareApt(judge.dir, archive)
  const recommends = `APT::Install-Recommends=${question.recommends}`
  const ask = ['env', `APT_CONFIG=${judge.dir}/apt.conf`, 'apt-get', '-q', '-y', '--print-uris', '-o', recommends, 'install']
  const times: number[] = []
  for (let round = 0; round <= ROUNDS; round++) {
    const started = performance.now()
    await judge.run([...ask, '?essential', ...question.packages.split(' ')])
    if (round > 0) times.push(performance.now() - started) // the first round builds apt's cache
  }
  return Math.round(Math.min(...times))
}

if (import.meta.main) console.table(await run())
