/** The page of an attacked image: every case, who refused it, and the text that shows it. */
import { badge, formatPage, type Html, html, type Mark, sign } from '../base/page.ts'
import { drawRings, RINGS_STYLE } from '../base/rings.ts'
import type { Attacked } from './attack.ts'
import { type CaseResult, GROUPS, type Group, isHole, type Verdict } from './case.ts'

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
  const groups = (Object.keys(GROUPS) as Group[])
    .map((group) => ({ group, own: results.filter((one) => one.group === group) }))
    .filter(({ own }) => own.length > 0)
  const sound = holes.length === 0
  return formatPage({
    title: image.split('/').at(-1)!,
    kicker: 'Attacked',
    mark: sound ? 'good' : 'bad',
    lead: html`${sign(sound ? 'good' : 'bad', sound ? 'no hole' : 'holes')} ${refused.length} of ${results.length} attacks were seen to be refused${
      sound ? '.' : html`, <strong>${holes.length} ${holes.length === 1 ? 'was' : 'were'} not</strong>.`
    }`,
    body: html`
<figure class="chain"><div class="wide">${drawGroups(groups)}</div></figure>
<section class="card"><p>First the image was booted as it is: its keys were enrolled, and it came up in ${seconds(cleanMs)}.
Then each attack was made on a copy of it, or inside that machine. IPE policy: ${machine.ipe ? html`<code>${machine.ipe}</code>, ${machine.enforcing ? 'enforced' : 'not enforced'}` : 'none'}.
Root: ${machine.tpmRoot ? 'encrypted, opened by the TPM' : 'in memory'}. Lockdown: <code>${machine.lockdown}</code>.</p></section>
${groups.map(groupCard)}`,
    foot: html`Attacked with ${program} on ${now.toISOString().slice(0, 10)}, in ${seconds(ms)}. A refusal counts where it was seen, by whom it must be; a machine that merely stays silent does not.`,
    style: STYLE + RINGS_STYLE,
  })
}

const seconds = (ms: number): string =>
  ms < 90_000 ? `${(ms / 1000).toFixed(ms < 10_000 ? 1 : 0)} s` : `${(ms / 60_000).toFixed(1)} min`

interface GroupResults {
  group: Group
  own: readonly CaseResult[]
}

const RING_LABELS: Readonly<Record<Group, string>> = {
  firmware: 'Firmware',
  esp: 'ESP',
  usr: '/usr',
  tpm: 'TPM',
  running: 'Running',
}

const drawGroups = (groups: readonly GroupResults[]): Html =>
  drawRings(
    'What was attacked, in the order of the boot.',
    groups.map(({ group, own }) => ({
      label: RING_LABELS[group],
      href: `#${group}`,
      count: own.filter(({ verdict }) => verdict === 'refused').length + own.filter(isHole).length,
      broken: own.filter(isHole).length,
      words: { whole: 'refused', broken: 'not refused' },
    })),
  )

function groupCard({ group, own }: GroupResults): Html {
  const holes = own.filter(isHole).length
  const refused = own.filter(({ verdict }) => verdict === 'refused').length
  return html`<section class="card${holes > 0 && ' bad'}" id="${group}"><div class="head"><h2>${GROUPS[group]}</h2>${badge(
    holes > 0 ? 'bad' : 'good',
    holes > 0 ? `${holes} not refused` : `${refused} refused`,
  )}</div><ul class="rows">${own.map(row)}</ul></section>`
}

function row({ name, does, by, verdict, refusedBy, evidence, ms }: CaseResult): Html {
  const { mark, text } = SAYS[verdict]
  const outcome =
    verdict === 'refused'
      ? badge('good', `refused by ${refusedBy}`)
      : mark
        ? badge(mark, text)
        : html`<span class="badge">${text}</span>`
  const isHoleHere = isHole({ verdict })
  return html`<li>${sign(mark ?? 'unsure', text)}<div><div class="case"><strong>${does}</strong>${outcome}</div>
<p class="evidence"><code>${name}</code>${ms > 0 && html` · ${seconds(ms)}`}${isHoleHere && html` · must be refused by ${by}`}</p>
${
  isHoleHere
    ? html`<p class="problem">${evidence}</p>`
    : verdict === 'refused'
      ? html`<p class="seen mono">${evidence}</p>`
      : html`<p class="evidence">${evidence}</p>`
}</div></li>`
}

const STYLE = `
.case { display: flex; flex-wrap: wrap; gap: .2rem .75rem; align-items: baseline; justify-content: space-between; }
.seen { color: var(--soft); margin: .3rem 0 0; overflow-wrap: anywhere; }
`
