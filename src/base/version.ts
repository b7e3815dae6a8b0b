/**
 * The order of versions of kernels, images and systemd.
 *
 * Spec: https://uapi-group.org/specifications/specs/version_format_specification/
 */

/** Less than, equal to or greater than 0 as `a` is older than, the same as or newer than `b`. */
export function compareVersions(a: string, b: string): number {
  let [x, y] = [a, b]
  for (;;) {
    ;[x, y] = [meaningful(x), meaningful(y)]
    if (x[0] !== '~' && y[0] !== '~' && (x === '' || y === '')) return x.length - y.length
    const mark = MARKS.find((one) => x[0] === one || y[0] === one)
    if (mark !== undefined) {
      if (x[0] !== y[0]) return x[0] === mark ? -1 : 1
      ;[x, y] = [x.slice(1), y.slice(1)]
      continue
    }
    const [digitsOfX, digitsOfY] = [prefix(x, /^\d+/), prefix(y, /^\d+/)]
    const numeric = digitsOfX !== '' || digitsOfY !== ''
    const [p, q] = numeric ? [digitsOfX, digitsOfY] : [prefix(x, /^[A-Za-z]+/), prefix(y, /^[A-Za-z]+/)]
    const order = numeric ? compareNumbers(p, q) : compareText(p, q)
    if (order !== 0) return order
    ;[x, y] = [x.slice(p.length), y.slice(q.length)]
  }
}

/** What has one of these where the other has none is the older one; the first counts most. */
const MARKS = ['~', '-', '^', '.']

/** Without characters that merely separate. */
const meaningful = (text: string): string => text.replace(/^[^A-Za-z0-9~^.-]+/, '')
const prefix = (text: string, pattern: RegExp): string => pattern.exec(text)?.[0] ?? ''

function compareNumbers(a: string, b: string): number {
  const [m, n] = [a.replace(/^0+/, ''), b.replace(/^0+/, '')]
  return m.length - n.length || compareText(m, n)
}

const compareText = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0)
