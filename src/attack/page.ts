/** The page of an attacked image: every case, who refused it, and the text that shows it. */
import { badge, formatPage, type Html, html, type Mark, sign } from '../base/page.ts'
import type { Attacked } from './attack.ts'
import { type CaseResult, GROUPS, isHole, type Verdict } from './case.ts'

export interface AttackedImage extends Attacked {
  image: string
  now: Date
  /** Whom the page says it is from: `Bisque 0.3`. */
  program: string
}

const SAYS: Readonly<Record<Verdict, { mark: Mark | undefined; text: string }>> = {
  refused: { mark: 'good', text: 'refused' },
  'not refused': { mark: 'bad', text: 'not refused' },
  'refused by another': { mark: 'bad', text: 'refused by another' },
  'not seen': { mark: 'bad', text: 'refusal not seen' },
  outside: { mark: 'unsure', text: 'nobody can refuse it' },
  'needs keys': { mark: undefined, text: 'needs --keys' },
  'not applicable': { mark: undefined, text: 'not applicable' },
}

export function attackPage({ image, now, program, results, machine, cleanMs, ms }: AttackedImage): string {
  const holes = results.filter(isHole)
  const refused = results.filter(({ verdict }) => verdict === 'refused')
  const groups = Object.entries(GROUPS).map(([group, title]) => ({ title, own: results.filter((one) => one.group === group) }))
  const sound = holes.length === 0
  return formatPage({
    title: image.split('/').at(-1)!,
    kicker: 'Attacked',
    mark: sound ? 'good' : 'bad',
    lead: html`${sign(sound ? 'good' : 'bad', sound ? 'no hole' : 'holes')} ${refused.length} of ${results.length} attacks were seen to be refused${
      sound ? '.' : html`, <strong>${holes.length} ${holes.length === 1 ? 'was' : 'were'} not</strong>.`
    }`,
    body: html`
<section class="card"><p>First the image was booted as it is: its keys were enrolled, and it came up in ${seconds(cleanMs)}.
Then each attack was made on a copy of it, or inside that machine. IPE policy: ${machine.ipe ? html`<code>${machine.ipe}</code>, ${machine.enforcing ? 'enforced' : 'not enforced'}` : 'none'}.
Root: ${machine.tpmRoot ? 'encrypted, opened by the TPM' : 'in memory'}. Lockdown: <code>${machine.lockdown}</code>.</p></section>
${groups.filter(({ own }) => own.length > 0).map(({ title, own }) => groupCard(title, own))}`,
    foot: html`Attacked with ${program} on ${now.toISOString().slice(0, 10)}, in ${seconds(ms)}. A refusal counts where it was seen, by whom it must be; a machine that merely stays silent does not.`,
    style: '.case { display: flex; gap: .6rem; align-items: baseline; } .case .who { margin-left: auto; text-align: right; }',
  })
}

const seconds = (ms: number): string => (ms < 90_000 ? `${(ms / 1000).toFixed(0)} s` : `${(ms / 60_000).toFixed(1)} min`)

function groupCard(title: string, results: readonly CaseResult[]): Html {
  return html`<section class="card${results.some(isHole) ? ' bad' : ''}"><h2>${title}</h2>
<div class="wide"><table><thead><tr><th scope="col">Case</th><th scope="col">What is done</th><th scope="col">Who must refuse</th><th scope="col">Outcome</th><th scope="col">Seen</th></tr></thead>
<tbody>${results.map(row)}</tbody></table></div></section>`
}

function row({ name, does, by, verdict, refusedBy, evidence, ms }: CaseResult): Html {
  const { mark, text } = SAYS[verdict]
  const outcome = mark ? badge(mark, verdict === 'refused' ? `by ${refusedBy}` : text) : html`<span class="badge">${text}</span>`
  return html`<tr><th scope="row">${name}</th><td>${does}</td><td>${by}</td><td>${outcome}${
    ms > 0 && html`<br/><span class="soft">${seconds(ms)}</span>`
  }</td><td>${verdict === 'refused' ? html`<code>${evidence}</code>` : evidence}</td></tr>`
}
