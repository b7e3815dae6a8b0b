import assert from 'node:assert/strict'
import { Fault } from '../src/base/fault.ts'
import type { DebPackage } from '../src/packages/deb/index.ts'
import { resolveDebian } from '../src/packages/deb/resolve.ts'
import { oracle } from './oracle.ts'
import { type AptAnswer, askApt } from './resolver/apt.ts'
import { type ArchiveSuite, loadArchive } from './resolver/archive.ts'
import { checkSets } from './resolver/dose.ts'
import { type Question, questions } from './resolver/questions.ts'

type OurAnswer = { set: DebPackage[] } | { refusal: string }

oracle('apt-get', 'resolveDebian() chooses the packages that apt chooses', async (t, judge) => {
  const archive = await loadArchive()
  const asked = questions()
  const started = performance.now()
  const ours = asked.map((question) => answer(archive, question))
  const answered = performance.now()
  const apts = await askApt(judge, archive, asked)

  const judged = performance.now()
  const isSolved = (a: OurAnswer | AptAnswer) => !('refusal' in a)
  const verdicts = asked.flatMap((q, i) =>
    isSolved(ours[i]!) === isSolved(apts[i]!) ? [] : [`${titleOf(q)}\n${refusalOf(ours[i]!, apts[i]!)}`],
  )
  const differences = asked.flatMap((q, i) => {
    const difference = differenceOf(ours[i]!, apts[i]!)
    return difference === '' ? [] : [`${titleOf(q)}: ${difference}`]
  })
  const sets = ours.flatMap((a) => ('set' in a ? [a.set] : []))
  const invalid = (await checkSets(judge, sets)).filter((finding) => finding !== '')

  const same = asked.length - verdicts.length - differences.length
  t.diagnostic(`${asked.length} questions, ${sets.length} of them solvable, ${same} with the same answer`)
  t.diagnostic(
    `Bisque took ${Math.round((answered - started) / asked.length)} ms a question, apt ${Math.round((judged - answered) / asked.length)} ms (two at a time)`,
  )
  for (const difference of differences) t.diagnostic(difference)
  assert.deepEqual(invalid, [], 'dose-debcheck finds every set complete and free of conflicts')
  assert.deepEqual(verdicts, [], 'the same verdict for every question')
  assert.ok(differences.length <= asked.length * 0.03, `${differences.length} sets differ from apt's:\n${differences.join('\n')}`)
})

function answer(archive: readonly ArchiveSuite[], { packages, recommends }: Question): OurAnswer {
  try {
    const resolved = resolveDebian(archive, { packages, recommends, architecture: 'amd64' })
    return {
      set: resolved.packages.map((p) => {
        const { index } = archive.find((suite) => suite.repository.id === p.repository)!
        return index
          .versions(p.name)
          .map(index.record)
          .find((r) => r.version === p.version)!
      }),
    }
  } catch (error) {
    if (error instanceof Fault && error.code === 'resolve') return { refusal: error.message }
    throw error
  }
}

const titleOf = ({ packages, recommends }: Question) => `[${packages.join(' ')}]${recommends ? ' with recommends' : ''}`

function refusalOf(our: OurAnswer, apt: AptAnswer): string {
  if ('refusal' in our) return `only we refuse: ${our.refusal}`
  return 'refusal' in apt ? `only apt refuses: ${apt.refusal}` : ''
}

function differenceOf(our: OurAnswer, apt: AptAnswer): string {
  if ('refusal' in our || 'refusal' in apt) return ''
  const short = (filename: string) => filename.replace(/.*\//, '').replace(/_[^_]*$/, '')
  const mine = new Set(our.set.map((p) => p.filename))
  const theirs = new Set(apt.filenames)
  const extra = [...mine.difference(theirs)].map((f) => `+${short(f)}`)
  const missing = [...theirs.difference(mine)].map((f) => `-${short(f)}`)
  return [...extra, ...missing].join(' ')
}
