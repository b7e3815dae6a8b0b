/**
 * Pages for people: one HTML file that needs nothing else, neither network nor script, and reads well in light and dark,
 * on paper and by ear. Whatever is put into it is escaped: only `html` makes markup.
 */

/** Markup that is safe to put into a page. */
export class Html {
  readonly markup: string
  constructor(markup: string) {
    this.markup = markup
  }
}

type Value = Html | string | number | undefined | false | readonly Value[]

/** Markup from a template: values are text, unless they are markup themselves. */
export function html(parts: TemplateStringsArray, ...values: readonly Value[]): Html {
  return new Html(parts.reduce((all, part, i) => all + (i === 0 ? '' : markupOf(values[i - 1])) + part, ''))
}

function markupOf(value: Value): string {
  if (value === undefined || value === false) return ''
  if (value instanceof Html) return value.markup
  if (typeof value === 'string' || typeof value === 'number') return escapeHtml(String(value))
  return value.map(markupOf).join('')
}

const ENTITIES: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' }

/** Text for content and for attributes in quotes. What would turn the direction of text or end it unseen is shown as `�`. */
export const escapeHtml = (text: string): string =>
  text
    .toWellFormed()
    .replace(/[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufffe\uffff]/g, '\ufffd')
    .replace(/[&<>"']/g, (one) => ENTITIES[one]!)

/** What is drawn of a state, in words as well as in colour. */
export type Mark = 'good' | 'bad' | 'unsure'

const SIGNS: Readonly<Record<Mark, Html>> = {
  good: new Html('<path d="M4.5 8.3 7 10.8l4.6-5.3"/>'),
  bad: new Html('<path d="m5.4 5.4 5.2 5.2m0-5.2-5.2 5.2"/>'),
  unsure: new Html('<path d="M6.2 6.3a1.8 1.8 0 1 1 2.5 1.7c-.5.2-.7.5-.7 1m0 2v.1"/>'),
}

/** A round sign of a state, with its name for those who do not see it. */
export const sign = (mark: Mark, label: string): Html =>
  html`<svg class="sign ${mark}" viewBox="0 0 16 16" role="img" aria-label="${label}"><circle cx="8" cy="8" r="7.2"/>${SIGNS[mark]}</svg>`

/** A word in a coloured lozenge. */
export const badge = (mark: Mark, text: string): Html => html`<span class="badge ${mark}">${text}</span>`

export interface Page {
  title: string
  /** Above the title, small. */
  kicker: string
  /** One sentence below it: the verdict. */
  lead: Value
  mark: Mark
  body: Value
  /** At the foot. */
  foot: Value
  /** Rules for this page alone. */
  style?: string
}

/** The whole document. It is XML as well as HTML, so that any tool can read it. */
export const formatPage = ({ title, kicker, lead, mark, body, foot, style = '' }: Page): string =>
  `<!DOCTYPE html>\n${
    html`<html lang="en" xmlns="http://www.w3.org/1999/xhtml">
<head>
<meta charset="utf-8"/>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'"/>
<meta name="viewport" content="width=device-width, initial-scale=1"/>
<meta name="color-scheme" content="light dark"/>
<meta name="generator" content="Bisque"/>
<title>${title}</title>
<style>${new Html(STYLE + style)}</style>
</head>
<body>
<header class="${mark}">
<p class="kicker">${kicker}</p>
<h1>${title}</h1>
<p class="lead">${lead}</p>
</header>
<main>
${body}
</main>
<footer><p>${foot}</p></footer>
</body>
</html>`.markup
  }\n`

const STYLE = `
:root {
  --paper: #fbfaf8; --card: #fff; --ink: #1d2026; --soft: #5c6370; --line: #e4e0d9; --code: #f4f1ec;
  --good: #1a7f4b; --good-soft: #e3f4ea; --bad: #c02b2b; --bad-soft: #fdeaea; --unsure: #946200; --unsure-soft: #fbf1d9;
  --accent: #7a4a2b; --shadow: 0 1px 2px rgb(60 40 20 / .06), 0 4px 16px rgb(60 40 20 / .05);
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #15161a; --card: #1d1f25; --ink: #e8e6e3; --soft: #a0a4ad; --line: #32353d; --code: #262930;
    --good: #5fcf94; --good-soft: #17331f; --bad: #ff8580; --bad-soft: #401c1d; --unsure: #e9bd5b; --unsure-soft: #3a2e12;
    --accent: #d9a27c; --shadow: none;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI", "Noto Sans", sans-serif; }
header, main, footer { max-width: 64rem; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: 2.75rem; padding-bottom: .5rem; }
h1 { font-size: clamp(1.6rem, 4vw, 2.3rem); line-height: 1.15; letter-spacing: -.015em; margin: 0 0 .5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; line-height: 1.3; margin: 0; letter-spacing: -.005em; }
h3 { font-size: .98rem; line-height: 1.35; margin: 1.1rem 0 .3rem; }
p { margin: .45rem 0; }
a { color: inherit; }
a:focus-visible, summary:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; border-radius: 4px; }
.kicker { text-transform: uppercase; letter-spacing: .1em; font-size: .75rem; font-weight: 600; color: var(--accent); margin: 0 0 .4rem; }
.lead { font-size: 1.15rem; margin: 0 0 1rem; }
.soft { color: var(--soft); }
code, pre, .mono { font-family: ui-monospace, "SF Mono", "Cascadia Mono", "DejaVu Sans Mono", Menlo, monospace; font-size: .86em; }
code { background: var(--code); border-radius: 4px; padding: .08em .32em; overflow-wrap: anywhere; }
pre { background: var(--code); border-radius: 8px; padding: .75rem 1rem; margin: .5rem 0; overflow-x: auto; white-space: pre-wrap; overflow-wrap: anywhere; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 1.1rem 1.25rem; margin: 0 0 1rem; box-shadow: var(--shadow); }
.card.bad { border-color: color-mix(in srgb, var(--bad) 55%, var(--line)); }
.sign { width: 1.15em; height: 1.15em; flex: none; vertical-align: -.22em; }
.sign circle { fill: var(--soft); } .sign path { fill: none; stroke: var(--card); stroke-width: 1.8; stroke-linecap: round; stroke-linejoin: round; }
.sign.good circle { fill: var(--good); } .sign.bad circle { fill: var(--bad); } .sign.unsure circle { fill: var(--unsure); }
.badge { display: inline-block; border-radius: 999px; padding: .06em .65em; font-size: .78rem; font-weight: 600; white-space: nowrap; background: var(--code); color: var(--soft); }
.badge.good { background: var(--good-soft); color: var(--good); } .badge.bad { background: var(--bad-soft); color: var(--bad); }
.badge.unsure { background: var(--unsure-soft); color: var(--unsure); }
table { border-collapse: collapse; width: 100%; font-size: .92rem; margin: .5rem 0; }
th, td { text-align: left; vertical-align: top; padding: .4rem .9rem .4rem 0; border-top: 1px solid var(--line); overflow-wrap: anywhere; }
thead th { border-top: 0; font-size: .76rem; font-weight: 600; color: var(--soft); }
tbody th { font-weight: 600; white-space: nowrap; }
.wide { overflow-x: auto; }
.head { display: flex; gap: .75rem; align-items: center; justify-content: space-between; }
.rows { list-style: none; margin: .6rem 0 .4rem; padding: 0; }
.rows > li { display: flex; gap: .65rem; padding: .55rem 0; border-top: 1px solid var(--line); }
.rows > li > div { min-width: 0; flex: 1; overflow-wrap: anywhere; }
.rows .sign { margin-top: .2em; vertical-align: 0; }
.evidence { color: var(--soft); margin: .1rem 0 0; font-size: .93rem; }
details > summary { cursor: pointer; color: var(--soft); font-size: .9rem; }
.problem { background: var(--bad-soft); border-radius: 8px; padding: .55rem .8rem; margin: .4rem 0; overflow-wrap: anywhere; }
.hint { color: var(--soft); font-size: .92rem; }
.hint::before { content: "To mend it: "; font-weight: 600; }
footer { color: var(--soft); font-size: .86rem; padding-top: 1rem; padding-bottom: 3rem; }
@media print {
  :root { --paper: #fff; --card: #fff; --ink: #000; --soft: #444; --line: #bbb; --code: #f3f3f3; --shadow: none; }
  body { font-size: 10.5pt; } header { padding-top: 0; } .card, tr { break-inside: avoid; } details > summary { display: none; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
`
