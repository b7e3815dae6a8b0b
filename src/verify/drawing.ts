/** The drawing of a chain: its stages as rings, and what hangs on what from the keys in firmware to what may run. */
import { type Html, html, type Mark, sign } from '../base/page.ts'
import { drawRings, RINGS_STYLE } from '../base/rings.ts'
import { formatSize } from '../base/size.ts'
import type { ImageFacts, ProgramFacts, TreeFacts, UkiFacts } from './facts.ts'
import type { Link, Stage } from './link.ts'
import { nameOf } from './trust.ts'

export const brokenOf = (links: readonly Link[]): Link[] => links.filter(({ ok }) => !ok)
export const fileName = (path: string): string => path.slice(path.lastIndexOf('/') + 1)

export const LABELS: Readonly<Record<Stage, string>> = {
  ...{ firmware: 'Firmware', 'boot loader': 'Boot loader', UKI: 'UKI', 'measured boot': 'Measured boot', verity: 'Verity' },
  ...{ policy: 'Policy', kernel: 'Kernel', system: 'System', updates: 'Updates', artifacts: 'Artifacts' },
}

export interface StageLinks {
  stage: Stage
  links: readonly Link[]
}

/** The stages as a chain; each leads to its card. */
export const drawChain = (stages: readonly StageLinks[], index: number): Html =>
  drawRings(
    'The chain, in the order of the boot.',
    stages.map(({ stage, links }) => ({
      label: LABELS[stage],
      href: `#i${index}-${idOf(stage)}`,
      count: links.length,
      broken: brokenOf(links).length,
      words: { whole: 'hold', broken: 'do not hold' },
    })),
  )

export const idOf = (stage: Stage): string => stage.replaceAll(' ', '-')

// ——— What hangs on what ———

interface Step {
  mark: Mark
  title: string
  body: Html
  /** What it does to the next one. */
  next?: string
}

export function drawFlow(facts: ImageFacts, links: readonly Link[]): Html {
  const markOf = (...stages: Stage[]): Mark => (links.some(({ stage, ok }) => !ok && stages.includes(stage)) ? 'bad' : 'good')
  const policies = facts.ukis.flatMap(({ profiles }) => profiles.flatMap(({ initrd }) => initrd?.ipePolicies ?? []))
  const policy = policies[0]
  const steps: Step[] = [
    {
      ...{ mark: markOf('firmware'), title: 'Keys in firmware', next: 'let firmware start only what db signs' },
      body: html`${facts.anchor.db.map((one) => html`<span class="fact">db ${named(one)}</span>`)}`,
    },
    ...bootLoaders(facts.programs, markOf('boot loader')),
    ...facts.ukis.map((uki) => ukiStep(uki, facts.programs, markOf('UKI', 'measured boot'))),
    ...facts.trees.map((tree) => treeStep(tree, markOf('verity'), policy !== undefined)),
    {
      ...{
        mark: policy ? markOf('policy', 'kernel') : ('unsure' as const),
        title: policy ? 'IPE in the kernel' : 'No IPE policy',
        next: policy ? 'lets run only what verity signs and the initrd brought' : 'so that whatever root writes may run',
      },
      body: policy
        ? html`<span class="fact">${policy.name ?? policy.path} ${policy.version ?? ''}</span>${policy.signers.map((one) => html`<span class="fact">signed by ${named(one)}</span>`)}`
        : html``,
    },
    {
      mark: markOf('system', 'updates'),
      title: 'The system',
      body: html`<span class="fact">${brokenOf(links.filter(({ stage }) => stage === 'system')).length || 'no'} known holes</span>`,
    },
  ]
  return html`<ol class="flow">${steps.map(
    ({ mark, title, body, next }) =>
      html`<li class="${mark}"><div class="node">${sign(mark, mark === 'good' ? 'holds' : mark === 'bad' ? 'broken' : 'not there')}<div><strong>${title}</strong>${body}</div></div>${
        next &&
        html`<p class="then"><svg viewBox="0 0 14 26" aria-hidden="true"><path d="M7 0v20m-5-5 5 6 5-6"/></svg>${next}</p>`
      }</li>`,
  )}</ol>`
}

function bootLoaders(programs: readonly ProgramFacts[], mark: Mark): Step[] {
  const found = programs.filter(({ kind }) => kind === 'systemd-boot')
  if (found.length === 0) return []
  const digests = new Map(found.map((one) => [one.digest, one]))
  const body = [...digests.values()].map(
    (one) =>
      html`<span class="fact">${one.version ?? one.path} <code>${one.digest.slice(0, 16)}…</code></span>${one.signers.map((by) => html`<span class="fact">signed by ${named(by)}</span>`)}`,
  )
  return [{ mark, title: 'systemd-boot', body: html`${body}`, next: 'starts' }]
}

function ukiStep(uki: UkiFacts, programs: readonly ProgramFacts[], mark: Mark): Step {
  const signers = programs.find(({ path, digest }) => path === uki.path && digest === uki.digest)?.signers ?? []
  return {
    ...{
      mark,
      title: `UKI ${fileName(uki.path)}`,
      next: uki.rootHash === undefined ? 'boots' : 'pins on its signed command line the root hash',
    },
    body: html`<span class="fact">Linux ${uki.uname}${uki.profiles.length > 1 && `, ${uki.profiles.length} profiles: ${uki.profiles.map(({ id, number }) => id || String(number)).join(', ')}`}</span>
<span class="fact">Authenticode <code>${uki.digest.slice(0, 16)}…</code></span>${signers.map((one) => html`<span class="fact">signed by ${named(one)}</span>`)}`,
  }
}

function treeStep(tree: TreeFacts, mark: Mark, hasPolicy: boolean): Step {
  return {
    ...{
      mark,
      title: `/${tree.verity === 'usr' ? 'usr' : ''} under dm-verity`,
      next: hasPolicy ? 'is vouched for by its signature to' : 'is what the kernel mounts',
    },
    body: html`<span class="fact">root hash <code>${tree.rootHash}</code></span><span class="fact">${tree.fileSystem}, ${formatSize(tree.partition.sizeBytes)}, ${tree.sound ? 'every block matches' : 'not every block matches'}</span>
${tree.signers.map((one) => html`<span class="fact">signed by ${named(one)}</span>`)}`,
  }
}

const named = (certificate: Uint8Array): string => {
  try {
    return nameOf(certificate)
  } catch {
    return 'a certificate that cannot be read'
  }
}

export const DRAWING_STYLE = `${RINGS_STYLE}
.flow { list-style: none; margin: .8rem 0 0; padding: 0; }
.flow .node { display: flex; gap: .7rem; border: 1px solid var(--line); border-left: 4px solid var(--good); border-radius: 8px; padding: .6rem .9rem; background: var(--paper); }
.flow .bad .node { border-left-color: var(--bad); } .flow .unsure .node { border-left-color: var(--unsure); }
.flow .node > div { min-width: 0; overflow-wrap: anywhere; } .flow .sign { margin-top: .2em; vertical-align: 0; }
.fact { display: block; font-size: .9rem; color: var(--soft); }
.then { display: flex; gap: .7rem; align-items: center; margin: .15rem 0 .15rem .95rem; font-size: .9rem; color: var(--soft); }
.then svg { width: 14px; height: 26px; flex: none; } .then path { fill: none; stroke: var(--good); stroke-width: 2.2; stroke-linecap: round; stroke-linejoin: round; }
.bad > .then path { stroke: var(--bad); stroke-dasharray: 3 4; } .unsure > .then path { stroke: var(--unsure); }
`
