/**
 * IPE policy: the text by which the kernel decides what may be executed, loaded as a module, as firmware or by kexec.
 *
 * Spec: Linux 6.12 security/ipe/{policy_parser,digest,policy,fs}.c; Documentation/admin-guide/LSM/ipe.rst
 * Oracle: the kernel alone; there is no other linter. `cat policy.p7b >/sys/kernel/security/ipe/new_policy`
 * Limits: text, not its signature; columns count UTF-16 code units; what a kernel was built to evaluate is not known here.
 */
import { Fault } from '../base/fault.ts'
import { nearest } from '../base/nearest.ts'

export const IPE_OPERATIONS = ['EXECUTE', 'FIRMWARE', 'KMODULE', 'KEXEC_IMAGE', 'KEXEC_INITRAMFS', 'POLICY', 'X509_CERT'] as const
export type IpeOperation = (typeof IPE_OPERATIONS)[number]

export const IPE_ACTIONS = ['ALLOW', 'DENY'] as const
export type IpeAction = (typeof IPE_ACTIONS)[number]

/** What a rule asks of a file: a switch that is so or not, or one digest. */
export const IPE_SWITCHES = ['boot_verified', 'dmverity_signature', 'fsverity_signature'] as const
export const IPE_DIGESTS = ['dmverity_roothash', 'fsverity_digest'] as const
export type IpeSwitch = (typeof IPE_SWITCHES)[number]
export type IpeDigest = (typeof IPE_DIGESTS)[number]

export type IpeProperty = { name: IpeSwitch; value: boolean } | { name: IpeDigest; value: string }

export interface IpeRule {
  operation: IpeOperation
  /** All of them must hold; a rule without any always matches. */
  properties: readonly IpeProperty[]
  action: IpeAction
}

export interface IpePolicy {
  name: string
  version: readonly [major: number, minor: number, revision: number]
  /** For operations without a default of their own, and for such as the kernel has no name for. */
  defaultAction?: IpeAction
  defaults: Readonly<Partial<Record<IpeOperation, IpeAction>>>
  /** Of each operation the first that matches decides. */
  rules: readonly IpeRule[]
}

/** A place in the text, both counted from 1. The kernel refuses a policy with an error; what a warning says has no effect, or a surprising one. */
export interface IpeProblem {
  line: number
  column: number
  severity: 'error' | 'warning'
  message: string
}

export const formatIpeProblem = ({ line, column, severity, message }: IpeProblem, file = 'policy'): string =>
  `${file}:${line}:${column}: ${severity === 'warning' ? 'warning: ' : ''}${message}`

/** The policy as text; a Fault with every problem where the kernel would refuse it. */
export function parseIpePolicy(text: string, file = 'policy'): IpePolicy {
  const { policy, problems } = read(text)
  if (policy !== undefined) return toPolicy(policy)
  const errors = problems.filter(({ severity }) => severity === 'error').map((problem) => formatIpeProblem(problem, file))
  throw new Fault('format', `Cannot read IPE policy: ${errors.join('\n')}`)
}

/** Every problem of a policy's text, in the order of the text. */
export function lintIpePolicy(text: string): IpeProblem[] {
  const { policy, problems } = read(text)
  const all = policy === undefined ? problems : [...problems, ...effectless(policy)]
  return all.sort((a, b) => a.line - b.line || a.column - b.column)
}

/** The text of a policy: the header, the defaults, and the rules in their order. */
export function formatIpePolicy(policy: IpePolicy): string {
  const { name, version, defaultAction, defaults, rules } = policy
  const lines = [`policy_name=${name} policy_version=${version.join('.')}`]
  if (defaultAction !== undefined) lines.push(`DEFAULT action=${defaultAction}`)
  for (const operation of IPE_OPERATIONS) {
    if (defaults[operation] !== undefined) lines.push(`DEFAULT op=${operation} action=${defaults[operation]}`)
  }
  for (const rule of rules) lines.push(formatIpeRule(rule))
  const text = `${lines.join('\n')}\n`
  const problem = read(text).problems.find(({ severity }) => severity === 'error')
  if (problem) throw new Fault('format', `Cannot write IPE policy: ${formatIpeProblem(problem)}`)
  return text
}

export function formatIpeRule({ operation, properties, action }: IpeRule): string {
  return [`op=${operation}`, ...properties.map(formatProperty), `action=${action}`].join(' ')
}

const formatProperty = ({ name, value }: IpeProperty): string =>
  `${name}=${typeof value === 'boolean' ? String(value).toUpperCase() : value}`

/** What the kernel knows of a file it is asked about. What is not named is not so: anonymous memory has none of it. */
export interface IpeFacts {
  boot_verified?: boolean
  dmverity_roothash?: string
  dmverity_signature?: boolean
  fsverity_digest?: string
  fsverity_signature?: boolean
}

/** What the kernel decides by a policy that enforces, and by which rule; without one it was a default. */
export function decideIpe(
  policy: IpePolicy,
  operation: IpeOperation,
  facts: IpeFacts,
): { action: IpeAction; rule?: IpeRule | undefined } {
  const holds = ({ name, value }: IpeProperty): boolean =>
    typeof value === 'boolean' ? (facts[name as IpeSwitch] ?? false) === value : sameDigest(facts[name as IpeDigest], value)
  const rule = policy.rules.find((one) => one.operation === operation && one.properties.every(holds))
  return { action: rule?.action ?? policy.defaults[operation] ?? policy.defaultAction ?? 'DENY', rule }
}

/** Algorithms by name, digests by their bytes. */
const sameDigest = (a: string | undefined, b: string): boolean => a !== undefined && normalDigest(a) === normalDigest(b)
const normalDigest = (digest: string): string => digest.replace(/:.*/, (hex) => hex.toLowerCase())

/** `1.2.3` as numbers. */
export function parseIpeVersion(text: string): [major: number, minor: number, revision: number] {
  const numbers = text.split('.').map((part) => (/^\d{1,5}$/.test(part) ? Number(part) : Number.NaN))
  if (numbers.length === 3 && numbers.every((n) => n <= 65535)) return numbers as [number, number, number]
  throw new Fault(
    'format',
    `expected a version such as "1.0.0", each part at most 65535, got ${JSON.stringify(text.slice(0, 40))}`,
  )
}

// ── Reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────

interface Place {
  line: number
  column: number
}
interface Token extends Place {
  text: string
}
interface ReadRule extends IpeRule, Place {
  /** Where each property is written. */
  places: readonly Token[]
}
interface ReadDefault extends Place {
  action: IpeAction
}
/** A policy whose parts know their places. */
interface Read {
  name: string
  version: [number, number, number]
  global: ReadDefault | undefined
  defaults: Map<IpeOperation, ReadDefault>
  rules: ReadRule[]
}

const toPolicy = ({ name, version, global, defaults, rules }: Read): IpePolicy => ({
  name,
  version,
  ...(global ? { defaultAction: global.action } : {}),
  defaults: Object.fromEntries([...defaults].map(([operation, { action }]) => [operation, action])),
  rules: rules.map(({ operation, properties, action }) => ({ operation, properties, action })),
})

/** As the kernel reads it, but past the first error. There is no policy where there is one. */
function read(text: string): { policy?: Read; problems: IpeProblem[] } {
  const problems: IpeProblem[] = []
  const tell = (severity: IpeProblem['severity']) => (at: Place, message: string) =>
    void problems.push({ line: at.line, column: at.column, severity, message })
  const say: Say = { error: tell('error'), warning: tell('warning') }
  const result: Read = { name: '', version: [0, 0, 0], global: undefined, defaults: new Map(), rules: [] }
  let hasHeader = false
  const { lines, end } = linesOf(text, say)
  for (const tokens of lines) {
    if (hasHeader) readRule(tokens, result, say)
    else readHeader(tokens, result, say)
    hasHeader = true
  }
  if (!hasHeader) say.error({ line: 1, column: 1 }, 'no policy; it begins with: policy_name=NAME policy_version=0.0.0')
  else checkDefaults(result, end, say)
  return problems.some(({ severity }) => severity === 'error') ? { problems } : { policy: result, problems }
}

interface Say {
  error(at: Place, message: string): void
  warning(at: Place, message: string): void
}

/** Lines that have tokens, and where the text ends. A line ends with \n or \r, and counts once for both. */
function linesOf(text: string, say: Say): { lines: Token[][]; end: Place } {
  const nul = text.indexOf('\0')
  const seen = nul < 0 ? text : text.slice(0, nul)
  const lines: Token[][] = []
  let line = 0
  let last = ''
  for (const raw of seen.split(/\r\n|\n|\r/)) {
    line++
    last = raw
    const tokens = [
      ...raw
        .replace(/#.*$/s, '')
        .replace(/[ \t\v\f]+$/, '')
        .matchAll(/[^ \t]+/g),
    ]
    if (tokens.length > 0) lines.push(tokens.map(({ 0: text, index }) => ({ text, line, column: index + 1 })))
  }
  const end = { line, column: last.length + 1 }
  if (nul >= 0) say.warning(end, 'the kernel reads no further than this zero byte')
  return { lines, end }
}

function readHeader(tokens: readonly Token[], into: Read, { error, warning }: Say): void {
  const expected = ['policy_name', 'policy_version'] as const
  for (const [i, name] of expected.entries()) {
    const token = tokens[i]
    if (token === undefined) {
      const after = tokens.at(-1)!
      error(endOf(after), `${name}= is missing; the first line is: policy_name=NAME policy_version=0.0.0`)
    } else if (!token.text.startsWith(`${name}=`)) {
      error(token, `expected ${name}=, got "${shown(token.text)}"${hint(token.text.split('=')[0]!, [name])}`)
    } else if (name === 'policy_name') into.name = readName(token, error)
    else into.version = readVersion(token, { error, warning })
  }
  const more = tokens[2]
  if (more) error(more, `nothing may follow policy_version= on its line, got "${shown(more.text)}"`)
}

/** It becomes the name of a folder below /sys/kernel/security/ipe/policies. */
function readName(token: Token, error: Say['error']): string {
  const name = token.text.slice('policy_name='.length)
  const at = { ...token, column: token.column + 'policy_name='.length }
  if (name === '') error(at, 'the policy has no name')
  else if (name.includes('/') || name === '.' || name === '..') error(at, `"${shown(name)}" is no name for a folder`)
  else if (Buffer.byteLength(name) > 255) error(at, `the name has ${Buffer.byteLength(name)} bytes, at most 255 fit`)
  return name
}

function readVersion(token: Token, { error, warning }: Say): [number, number, number] {
  const start = token.column + 'policy_version='.length
  const parts = token.text.slice('policy_version='.length).split('.')
  if (parts.length !== 3) {
    error({ ...token, column: start }, `expected three numbers such as 1.0.0, got "${shown(parts.join('.'))}"`)
    return [0, 0, 0]
  }
  let column = start
  const numbers = parts.map((part) => {
    const at = { line: token.line, column }
    column += part.length + 1
    const number = /^\+?[0-9]+$/.test(part) ? Number(part) : Number.NaN
    if (Number.isNaN(number)) error(at, `expected a number, got "${shown(part)}"`)
    else if (number > 65535) error(at, `${shown(part)} is too large; each part of a version is at most 65535`)
    else if (String(number) !== part) warning(at, `"${shown(part)}" is read as ${number}`)
    return number
  })
  return [numbers[0]!, numbers[1]!, numbers[2]!]
}

function readRule(tokens: readonly Token[], into: Read, say: Say): void {
  const { error } = say
  const [first, last] = [tokens[0]!, tokens.at(-1)!]
  const isDefault = first.text === 'DEFAULT' && tokens.length > 1
  const action = readAction(last, error)
  const middle = tokens.slice(isDefault ? 1 : 0, -1)
  const op = middle[0]
  if (op === undefined && !isDefault) {
    if (action !== undefined) error(first, 'a rule names its operation first: op=EXECUTE … action=ALLOW')
    return
  }
  const operation = op && readOperation(op, isDefault, error)
  const rest = middle.slice(1)
  if (isDefault) {
    if (rest[0]) error(rest[0], `a DEFAULT takes no properties, got "${shown(rest[0].text)}"`)
    else if (action !== undefined && (op === undefined || operation !== undefined))
      addDefault(operation, { action, line: first.line, column: first.column }, into, error)
    return
  }
  const properties = rest.map((token) => readProperty(token, say))
  if (operation === undefined || action === undefined || properties.includes(undefined)) return
  const rule = { operation, properties: properties as IpeProperty[], action, places: rest }
  into.rules.push({ ...rule, line: first.line, column: first.column })
}

function addDefault(operation: IpeOperation | undefined, one: ReadDefault, into: Read, error: Say['error']): void {
  const before = operation === undefined ? into.global : into.defaults.get(operation)
  const what = operation === undefined ? 'DEFAULT' : `DEFAULT op=${operation}`
  if (before) error(one, `there is a ${what} already, in line ${before.line}`)
  else if (operation === undefined) into.global = one
  else into.defaults.set(operation, one)
}

function readOperation(token: Token, isDefault: boolean, error: Say['error']): IpeOperation | undefined {
  const known = IPE_OPERATIONS.find((operation) => token.text === `op=${operation}`)
  if (known) return known
  if (token.text.startsWith('op=')) {
    const name = token.text.slice(3)
    error({ ...token, column: token.column + 3 }, `unknown operation "${shown(name)}"${hint(name, IPE_OPERATIONS)}`)
  } else {
    const words = isDefault ? ['op', 'action'] : ['op', 'DEFAULT', 'action']
    const near = hint(token.text.split('=')[0]!, words)
    error(token, `expected ${isDefault ? 'op= or action=' : 'op= or DEFAULT'}, got "${shown(token.text)}"${near}`)
  }
  return undefined
}

function readAction(token: Token, error: Say['error']): IpeAction | undefined {
  const known = IPE_ACTIONS.find((action) => token.text === `action=${action}`)
  if (known) return known
  if (token.text.startsWith('action=')) {
    const name = token.text.slice(7)
    error(
      { ...token, column: token.column + 7 },
      `unknown action "${shown(name)}"${hint(name, IPE_ACTIONS)}; it is ALLOW or DENY`,
    )
  } else error(endOf(token), `the line must end with action=ALLOW or action=DENY, it ends with "${shown(token.text)}"`)
  return undefined
}

const PROPERTIES = [...IPE_SWITCHES, ...IPE_DIGESTS]

function readProperty(token: Token, { error, warning }: Say): IpeProperty | undefined {
  const equals = token.text.indexOf('=')
  const name = equals < 0 ? token.text : token.text.slice(0, equals)
  const value = equals < 0 ? '' : token.text.slice(equals + 1)
  const at = { line: token.line, column: token.column + equals + 1 }
  const isSwitch = IPE_SWITCHES.find((one) => one === name)
  const isDigest = IPE_DIGESTS.find((one) => one === name)
  if (equals < 0 || (!isSwitch && !isDigest)) {
    if (name === 'op') error(token, 'a rule has one operation')
    else if (name === 'action') error(token, 'action= ends the line')
    else error(token, `unknown property "${shown(name)}"${hint(name, PROPERTIES)}`)
  } else if (isSwitch) {
    if (value === 'TRUE' || value === 'FALSE') return { name: isSwitch, value: value === 'TRUE' }
    error(at, `${name}= is TRUE or FALSE, got "${shown(value)}"`)
  } else if (isDigest) {
    const [, algorithm, hex] = /^([^:]*):(.*)$/s.exec(value) ?? []
    if (algorithm === undefined || hex === undefined) error(at, `expected ALGORITHM:HEX such as sha256:…, got "${shown(value)}"`)
    else if (!/^(?:[0-9a-fA-F]{2})*$/.test(hex))
      error({ ...at, column: at.column + algorithm.length + 1 }, `"${shown(hex)}" is not a row of hexadecimal bytes`)
    else {
      checkDigest(at, algorithm, hex, warning)
      return { name: isDigest, value }
    }
  }
  return undefined
}

/** Digests that the kernel takes but never meets. */
function checkDigest(at: Place, algorithm: string, hex: string, warning: Say['warning']): void {
  const bytes = DIGEST_BYTES[algorithm]
  if (bytes === undefined) {
    warning(at, `no file has a digest "${shown(algorithm)}"${hint(algorithm, Object.keys(DIGEST_BYTES))}`)
  } else if (hex.length !== bytes * 2) {
    warning(
      { ...at, column: at.column + algorithm.length + 1 },
      `a ${algorithm} digest has ${bytes} bytes, this has ${hex.length / 2}`,
    )
  }
}
const DIGEST_BYTES: Readonly<Record<string, number>> = { sha1: 20, sha256: 32, sha384: 48, sha512: 64 }

function checkDefaults({ global, defaults }: Read, end: Place, { error }: Say): void {
  if (global) return
  const without = IPE_OPERATIONS.filter((operation) => !defaults.has(operation))
  if (without.length === 0) return
  const all = without.length === IPE_OPERATIONS.length
  error(end, `no default for ${all ? 'any operation' : without.join(', ')}; add: DEFAULT action=DENY`)
}

const endOf = ({ line, column, text }: Token): Place => ({ line, column: column + text.length })
const shown = (text: string): string => JSON.stringify(text.length > 40 ? `${text.slice(0, 39)}…` : text).slice(1, -1)
const hint = (word: string, known: readonly string[]): string => {
  const near = word.length > 40 ? undefined : nearest(word, known)
  return near === undefined ? '' : `; did you mean "${near}"?`
}

// ── What a policy says in vain ───────────────────────────────────────────────────────────────────────────────────────

/** More rules than this are not compared with each other. */
const MOST_COMPARED = 2000

function effectless({ global, defaults, rules }: Read): IpeProblem[] {
  const problems: IpeProblem[] = []
  const warn = ({ line, column }: Place, message: string) => void problems.push({ line, column, severity: 'warning', message })
  for (const one of defaults.values())
    if (global?.action === one.action) warn(one, `without effect: ${one.action} is the default of all operations`)
  for (const operation of IPE_OPERATIONS) {
    const own = rules.filter((rule) => rule.operation === operation)
    const fallback = (defaults.get(operation) ?? global)!
    if (own.length > MOST_COMPARED) continue
    for (const [i, rule] of own.entries()) {
      if (isDead(rule, own.slice(0, i), warn)) continue
      const next =
        own.slice(i + 1).find((later) => covers(later, rule) || (later.action !== rule.action && overlap(later, rule))) ??
        fallback
      if (next.action === rule.action)
        warn(rule, `without effect: line ${next.line} would ${rule.action === 'ALLOW' ? 'allow' : 'deny'} it all the same`)
    }
  }
  const execute = rules.filter((rule) => rule.operation === 'EXECUTE')
  const fallback = (defaults.get('EXECUTE') ?? global)!
  if (fallback.action === 'DENY' && !execute.some(({ action }) => action === 'ALLOW'))
    warn(fallback, 'nothing may be executed: no rule allows op=EXECUTE')
  if (fallback.action === 'ALLOW' && !execute.some(({ action }) => action === 'DENY'))
    warn(fallback, 'everything may be executed: no rule denies op=EXECUTE')
  return problems
}

/** Whether a rule is never reached, or can never match. */
function isDead(rule: ReadRule, before: readonly ReadRule[], warn: (at: Place, message: string) => void): boolean {
  const clash = contradiction(rule)
  const shadow = before.find((earlier) => !contradiction(earlier) && covers(earlier, rule))
  if (clash) warn(clash, `never matches: ${shown(clash.text)} contradicts what the rule asked before`)
  else if (shadow) warn(rule, `never reached: line ${shadow.line} matches first`)
  return clash !== undefined || shadow !== undefined
}

const key = ({ name, value }: IpeProperty): string => `${name}=${typeof value === 'string' ? normalDigest(value) : value}`

/** Whether `a` matches whatever `b` matches. */
const covers = (a: IpeRule, b: IpeRule): boolean => {
  const asked = new Set(b.properties.map(key))
  return a.properties.every((property) => asked.has(key(property)))
}

/** Whether a file could match both. */
const overlap = (a: IpeRule, b: IpeRule): boolean => clashOf([...a.properties, ...b.properties]) < 0

const contradiction = (rule: ReadRule): Token | undefined => rule.places[clashOf(rule.properties)]

/** Index of the first property that no file has beside those before it. */
function clashOf(properties: readonly IpeProperty[]): number {
  const asked = new Map<string, string>()
  return properties.findIndex((property) => {
    const before = asked.get(property.name)
    asked.set(property.name, key(property))
    return before !== undefined && before !== key(property)
  })
}
