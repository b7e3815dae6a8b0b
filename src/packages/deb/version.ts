/**
 * Debian version numbers: `[epoch:]upstream[-revision]`, ordered as dpkg orders them.
 *
 * Spec:   deb-version(7), Debian Policy §5.6.12
 * Oracle: `dpkg --compare-versions`
 */
import { Fault } from '../../base/fault.ts'

export interface DebVersion {
  epoch: number
  upstream: string
  /** Empty when there is none, which orders as `0` does. */
  revision: string
}

export type Operator = '<<' | '<=' | '=' | '>=' | '>>'

export function parseVersion(text: string): DebVersion {
  const match = /^(?:(\d{1,9}):)?(\d[A-Za-z0-9.+~:-]*)$/.exec(text)
  const rest = match?.[2] ?? ''
  const dash = rest.lastIndexOf('-')
  const upstream = dash < 0 ? rest : rest.slice(0, dash)
  const revision = dash < 0 ? '' : rest.slice(dash + 1)
  if (
    !match ||
    upstream === '' ||
    (dash >= 0 && revision === '') ||
    revision.includes(':') ||
    (match[1] === undefined && upstream.includes(':'))
  ) {
    throw new Fault(
      'format',
      `Cannot read version ${JSON.stringify(text)}: expected [epoch:]upstream[-revision], starting with a digit`,
    )
  }
  return { epoch: Number(match[1] ?? 0), upstream, revision }
}

export const formatVersion = (v: DebVersion): string =>
  `${v.epoch > 0 ? `${v.epoch}:` : ''}${v.upstream}${v.revision === '' ? '' : `-${v.revision}`}`

/** Negative, zero or positive, as dpkg sees `a` before, equal to or after `b`. Takes any text, valid or not. */
export function compareVersions(a: string, b: string): number {
  if (a === b) return 0
  const colonA = a.indexOf(':')
  const colonB = b.indexOf(':')
  const epochs = (Number(a.slice(0, Math.max(0, colonA))) || 0) - (Number(b.slice(0, Math.max(0, colonB))) || 0)
  if (epochs !== 0) return epochs
  const dashA = a.lastIndexOf('-')
  const dashB = b.lastIndexOf('-')
  const endA = dashA <= colonA ? a.length : dashA
  const endB = dashB <= colonB ? b.length : dashB
  return compareParts(a, colonA + 1, endA, b, colonB + 1, endB) || compareParts(a, endA + 1, a.length, b, endB + 1, b.length)
}

export function satisfies(version: string, operator: Operator, wanted: string): boolean {
  const order = compareVersions(version, wanted)
  if (operator === '>=') return order >= 0
  if (operator === '=') return order === 0
  if (operator === '<<') return order < 0
  return operator === '<=' ? order <= 0 : order > 0
}

/** Runs of non-digits by weight, then runs of digits by value, in turn: dpkg's `verrevcmp`. */
function compareParts(a: string, i: number, endA: number, b: string, j: number, endB: number): number {
  while (i < endA || j < endB) {
    while ((i < endA && !isDigit(a.charCodeAt(i))) || (j < endB && !isDigit(b.charCodeAt(j)))) {
      const difference = weight(i < endA ? a.charCodeAt(i) : 0) - weight(j < endB ? b.charCodeAt(j) : 0)
      if (difference !== 0) return difference
      i++
      j++
    }
    while (i < endA && a.charCodeAt(i) === ZERO) i++
    while (j < endB && b.charCodeAt(j) === ZERO) j++
    let first = 0
    while (i < endA && j < endB && isDigit(a.charCodeAt(i)) && isDigit(b.charCodeAt(j))) {
      if (first === 0) first = a.charCodeAt(i) - b.charCodeAt(j)
      i++
      j++
    }
    if (i < endA && isDigit(a.charCodeAt(i))) return 1
    if (j < endB && isDigit(b.charCodeAt(j))) return -1
    if (first !== 0) return first
  }
  return 0
}

const ZERO = 48
const TILDE = 126
const isDigit = (c: number) => c >= ZERO && c <= 57
const isLetter = (c: number) => (c >= 65 && c <= 90) || (c >= 97 && c <= 122)

/** A tilde sorts before the end, the end and digits before letters, letters before all else. */
function weight(c: number): number {
  if (c === 0 || isDigit(c)) return 0
  if (c === TILDE) return -1
  return isLetter(c) ? c : c + 256
}
