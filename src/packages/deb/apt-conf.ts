/**
 * apt's configuration, as far as it says anything about packages.
 *
 * Spec:   apt.conf(5)
 * Oracle: `apt-config dump`
 * Limits: no `#include`, no `#clear`.
 */
import { Fault } from '../../base/fault.ts'

/** Every option with its value, in order, under its full name: `Acquire::Check-Valid-Until` → `false`. */
export function parseAptConf(text: string, path: string): [name: string, value: string][] {
  const found: [string, string][] = []
  const scopes: string[] = []
  let name = ''
  for (const { token, line } of tokens(text, path)) {
    if (token === '{') {
      scopes.push(name)
      name = ''
    } else if (token === '}') {
      if (scopes.length === 0) throw misprint(path, line, 'there is nothing to close')
      scopes.pop()
    } else if (token === ';') {
      name = ''
    } else if (token.startsWith('"')) {
      found.push([[...scopes, name].filter((part) => part !== '').join('::'), token.slice(1, -1)])
    } else if (name !== '') {
      // A value may stand without quotes.
      found.push([[...scopes, name].join('::'), token])
    } else name = token
    if (scopes.length > 100) throw misprint(path, line, 'more than 100 blocks within each other')
  }
  if (scopes.length > 0) throw misprint(path, text.split('\n').length, `${scopes.at(-1)} { is not closed`)
  return found
}

function* tokens(text: string, path: string): Iterable<{ token: string; line: number }> {
  const pattern = /\s+|\/\/[^\n]*|\/\*[\s\S]*?\*\/|#[^\n]*|("[^"\n]*"|[{};]|[^\s{};"]+)/y
  for (let line = 1; pattern.lastIndex < text.length; ) {
    const at = pattern.lastIndex
    const match = pattern.exec(text)
    if (!match) throw misprint(path, line, `${JSON.stringify(text.slice(at, at + 20))} is not understood`)
    if (match[1] !== undefined) yield { token: match[1], line }
    for (const c of match[0]) if (c === '\n') line++
  }
}

const misprint = (path: string, line: number, why: string) => new Fault('recipe', `Cannot read ${path}:${line}: ${why}`)
