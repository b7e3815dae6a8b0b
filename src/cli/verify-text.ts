/** What `bisque verify` prints: links in the order of the boot, then what does not hold and how to mend it. */
import { type Link, STAGES } from '../verify/link.ts'
import type { Verified } from '../verify/page.ts'
import { clean } from './terminal.ts'

export interface Shape {
  color: boolean
  columns: number
}

const WIDEST = 140
const MOST_NAME = 46

export function verifyText(images: readonly Verified[], shape: Shape): string {
  return images.map((image) => imageLines(image, shape).join('\n')).join('\n\n')
}

function imageLines({ path, links, facts }: Verified, { color, columns }: Shape): string[] {
  const width = Math.max(40, Math.min(columns, WIDEST))
  const paint = (code: string, text: string): string => (color ? `\x1b[${code}m${text}\x1b[0m` : text)
  const broken = links.filter(({ ok }) => !ok)
  const nameWidth = Math.min(MOST_NAME, Math.floor(width * 0.42), Math.max(...links.map(({ name }) => name.length)))
  const lines = [paint('1', clean(path))]
  if (facts) lines.push(...wrapped(anchorText(facts.anchor.from), '  ', width))
  for (const stage of STAGES) {
    const own = links.filter((link) => link.stage === stage)
    if (own.length === 0) continue
    lines.push('', paint('1', `  ${stage}`))
    for (const link of own) lines.push(linkLine(link, nameWidth, width, paint))
  }
  if (broken.length > 0)
    lines.push('', paint('1;31', broken.length === 1 ? 'One link does not hold:' : `${broken.length} links do not hold:`))
  for (const { stage, name, problem, hint } of broken) {
    lines.push('', `${paint('31', '✗')} ${paint('1', clean(name))} ${paint('2', `(${stage})`)}`)
    for (const one of (problem ?? '').split('; ')) lines.push(...wrapped(clean(one), '  ', width))
    for (const one of hint?.split('; ') ?? []) lines.push(...wrapped(clean(one), '  → ', width).map((line) => paint('36', line)))
  }
  lines.push('', summaryLine(links, broken.length, paint))
  return lines
}

type Paint = (code: string, text: string) => string

function summaryLine(links: readonly Link[], broken: number, paint: Paint): string {
  const unknown = links.filter(({ ok, evidence }) => ok && /^not known\b/.test(evidence)).length
  const also = unknown === 0 ? '' : `, ${unknown} of them as far as can be known`
  return broken === 0
    ? paint('1;32', `${links.length === 1 ? 'The one link holds' : `All ${links.length} links hold`}${also}`)
    : paint('1;31', `${broken} of ${links.length} links ${broken === 1 ? 'does' : 'do'} not hold`)
}

/** `✓ name   evidence`, cut to the width: all of it is in --json and --html. */
function linkLine({ name, ok, evidence, problem }: Link, nameWidth: number, width: number, paint: Paint): string {
  const mark = ok ? (/^not known\b/.test(evidence) ? paint('33', '?') : paint('32', '✓')) : paint('31', '✗')
  const shownName = cutName(clean(name), nameWidth).padEnd(nameWidth)
  const said = cut(clean(ok ? evidence : (problem ?? '')).replaceAll(/\s+/g, ' '), width - nameWidth - 8)
  return `    ${mark} ${shownName}  ${paint(ok ? '2' : '31', said)}`.trimEnd()
}

const cut = (text: string, width: number): string => (text.length <= width ? text : `${text.slice(0, Math.max(0, width - 1))}…`)

/** Long names differ at both ends: `EFI program …/systemd-bootx64.efi`. */
function cutName(name: string, width: number): string {
  if (name.length <= width) return name
  const head = Math.min(name.lastIndexOf(' ') + 1, Math.floor(width / 2))
  return `${name.slice(0, head)}…${name.slice(name.length - (width - head - 1))}`
}

/** Lines of at most so many characters, broken at spaces. */
function wrapped(text: string, indent: string, width: number): string[] {
  const room = width - indent.length
  const lines: string[] = []
  let line = ''
  for (const word of text.split(/\s+/)) {
    if (line !== '' && line.length + 1 + word.length > room) {
      lines.push(line)
      line = ''
    }
    line = line === '' ? word : `${line} ${word}`
  }
  return [...lines, line].map((one, i) => (i === 0 ? indent : ' '.repeat(indent.length)) + one)
}

function anchorText(from: 'given' | 'image' | 'signatures'): string {
  if (from === 'given') return 'Judged by the certificates given with --trust.'
  if (from === 'image')
    return 'Judged by the keys the image enrols itself: compare their fingerprints, or give yours with --trust.'
  return 'Judged by the certificates its signatures carry: nothing anchors it. Give yours with --trust.'
}
