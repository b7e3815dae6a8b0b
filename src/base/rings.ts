/** A chain of rings for a page: how many things hold in each of its stages; a ring that does not hold gapes. */
import { type Html, html } from './page.ts'

export interface Ring {
  label: string
  /** Where it leads on the page. */
  href: string
  /** How many things there are, and how many of them are broken. */
  count: number
  broken: number
  /** What those that are whole do, and those that are broken: `hold`, `do not hold`. */
  words: { whole: string; broken: string }
}

const CELL = 98
const RING = { width: 106, height: 46, top: 14 }

/** The upper halves go over the ring before, the lower ones over the ring behind, so that they interlock. */
export function drawRings(about: string, rings: readonly Ring[]): Html {
  const width = rings.length * CELL + RING.width - CELL + 12
  const placed = rings.map((ring, i) => ({ ...ring, x: 6 + i * CELL, said: sayRing(ring) }))
  const half = (path: (x: number, gap: boolean) => string, { x, broken }: (typeof placed)[number]) => {
    const d = path(x, broken > 0)
    return html`<path class="edge" d="${d}"/><path class="ring ${broken > 0 ? 'bad' : 'good'}" d="${d}"/>`
  }
  const label = `${about} ${placed.map(({ said }) => said).join('; ')}`
  return html`<svg viewBox="0 0 ${width} 108" role="img" aria-label="${label}" style="min-width:${Math.min(width, 720)}px;max-width:${width}px">
${placed.map((ring) => half(upper, ring))}${placed.toReversed().map((ring) => half(lower, ring))}
${placed.map(
  ({ label, href, count, broken, x, said }) => html`<a href="${href}"><title>${said}</title>
<text class="count ${broken > 0 ? 'bad' : 'good'}" x="${x + RING.width / 2}" y="${RING.top + RING.height / 2 + 5}">${broken > 0 ? `${broken} of ${count}` : count}</text>
<text class="label" x="${x + RING.width / 2}" y="${RING.top + RING.height + 28}">${label}</text></a>`,
)}</svg>`
}

const sayRing = ({ label, count, broken, words }: Ring): string =>
  `${label}: ${broken === 0 ? `${count} ${words.whole}` : `${broken} of ${count} ${words.broken}`}`

const R = RING.height / 2
const MID = RING.top + R

/** From the left end over the top to the right end; a broken ring gapes. */
function upper(x: number, gap: boolean): string {
  const [left, right, top] = [x + 4, x + RING.width - 4, RING.top]
  const centre = (left + right) / 2
  const start = `M${left} ${MID}A${R} ${R} 0 0 1 ${left + R} ${top}`
  return gap
    ? `${start}H${centre - 15}M${centre + 15} ${top}H${right - R}A${R} ${R} 0 0 1 ${right} ${MID}`
    : `${start}H${right - R}A${R} ${R} 0 0 1 ${right} ${MID}`
}

function lower(x: number): string {
  const [left, right, bottom] = [x + 4, x + RING.width - 4, RING.top + RING.height]
  return `M${left} ${MID}A${R} ${R} 0 0 0 ${left + R} ${bottom}H${right - R}A${R} ${R} 0 0 0 ${right} ${MID}`
}

export const RINGS_STYLE = `
figure.chain { margin: 1.25rem 0 1.5rem; }
.chain svg { display: block; width: 100%; height: auto; }
.edge { fill: none; stroke: var(--paper); stroke-width: 13; }
.ring { fill: none; stroke-width: 8; stroke-linecap: round; }
.ring.good { stroke: var(--good); } .ring.bad { stroke: var(--bad); }
.chain text { text-anchor: middle; font: 600 13px system-ui, sans-serif; fill: var(--soft); }
.chain text.count { font-size: 15px; } .chain text.count.good { fill: var(--good); } .chain text.count.bad { fill: var(--bad); }
.chain a { text-decoration: none; } .chain a:hover .label { fill: var(--ink); }
`
