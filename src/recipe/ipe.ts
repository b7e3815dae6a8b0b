/** `IpePolicy=`: what a recipe changes about the IPE policy that is made for it, or a policy of its own as a file. */
import { readFileSync, statSync } from 'node:fs'
import { Fault } from '../base/fault.ts'
import {
  formatIpePolicy,
  formatIpeProblem,
  IPE_ACTIONS,
  IPE_OPERATIONS,
  type IpeAction,
  type IpeOperation,
  type IpeProperty,
  type IpeRule,
  lintIpePolicy,
  parseIpeVersion,
} from '../formats/ipe-policy.ts'
import { path } from './file-type.ts'
import { refuse, scalar, type Type } from './type.ts'

/** A rule as recipe.ts has it; all that is asked must hold. Without anything asked it always matches. */
export interface IpeRuleInput {
  /** What is done with the file. */
  op: IpeOperation | readonly IpeOperation[]
  /** The file is of the initrd. */
  bootVerified?: boolean
  /** It lies on a dm-verity volume whose root hash a key signed that the kernel trusts. */
  dmveritySignature?: boolean
  /** It lies on the dm-verity volume with this root hash: `sha256:…`. */
  dmverityRoothash?: string
  /** It has this fs-verity digest: `sha256:…`. */
  fsverityDigest?: string
  /** It has an fs-verity signature of a key that the kernel trusts. */
  fsveritySignature?: boolean
  action: IpeAction
}

export interface IpePolicyInput {
  /** Name of the policy; by default the image's. */
  name?: string
  /** `1.0.0`, the default. While a machine runs it takes no lower version than it has. */
  version?: string
  /** Rules before those that are made: the first that matches decides. */
  rules?: readonly IpeRuleInput[]
}

/** After loading: rules for the policy that is made, or the whole text. */
export interface IpePolicySettings {
  name?: string
  version?: string
  rules: readonly IpeRule[]
  /** The text of a policy that is taken as it is. */
  text?: string
  /** The file it was read from. */
  source?: string
}

/** In text the path of a policy; in TypeScript also what to change about the one that is made. */
export const ipePolicy: Type<IpePolicySettings, undefined, string | IpePolicyInput> = {
  ...scalar('a path, or an object with name, version and rules', (value, place) => {
    if (typeof value === 'string') return readPolicy(path.check(value, place))
    if (value === null || typeof value !== 'object' || Array.isArray(value)) return undefined
    return readInput(value as Record<string, unknown>)
  }),
  parse: (text, place) => readPolicy(path.parse(text, place)),
}

/** Refused with all that the kernel would refuse, each with its place in the file. */
function readPolicy(file: string): IpePolicySettings {
  const stat = statSync(file, { throwIfNoEntry: false })
  if (!stat?.isFile() || stat.size > 1 << 20) refuse('a file that is there, of at most 1M', file)
  const text = readFileSync(file, 'utf8')
  const errors = lintIpePolicy(text).filter(({ severity }) => severity === 'error')
  if (errors.length > 0) throw new Fault('recipe', errors.map((problem) => formatIpeProblem(problem, file)).join('; '))
  return { rules: [], text, source: file }
}

const KEYS = ['name', 'version', 'rules', 'text', 'source']

function readInput(input: Record<string, unknown>): IpePolicySettings {
  const { name, version, rules = [], text, source } = input as Partial<IpePolicyInput & IpePolicySettings>
  for (const key of Object.keys(input)) if (!KEYS.includes(key)) refuse('name, version or rules', key)
  if (text !== undefined) return { rules: [], text, ...(source === undefined ? {} : { source }) }
  for (const one of [name, version]) if (one !== undefined && typeof one !== 'string') refuse('a string', one)
  if (!Array.isArray(rules)) return refuse('a list of rules', rules)
  const read = {
    ...(name === undefined ? {} : { name }),
    ...(version === undefined ? {} : { version }),
    rules: rules.flatMap(readRule),
  }
  // What cannot be written is no policy: names, versions and digests are judged as the kernel judges them.
  formatIpePolicy({
    name: name ?? 'image',
    version: parseIpeVersion(version ?? '1.0.0'),
    defaultAction: 'DENY',
    defaults: {},
    rules: read.rules,
  })
  return read
}

const SWITCHES = {
  bootVerified: 'boot_verified',
  dmveritySignature: 'dmverity_signature',
  fsveritySignature: 'fsverity_signature',
} as const
const DIGESTS = { dmverityRoothash: 'dmverity_roothash', fsverityDigest: 'fsverity_digest' } as const

function readRule(input: unknown): IpeRule[] {
  if (input === null || typeof input !== 'object') return refuse('a rule: { op, action, … }', input)
  // As loaded before: a profile of the recipe is evaluated again.
  if ('operation' in input) return [input as IpeRule]
  const { op, action, ...asked } = input as Record<string, unknown>
  const operations = (Array.isArray(op) ? op : [op]).map(
    (one) => IPE_OPERATIONS.find((known) => known === one) ?? refuse(`op: one of ${IPE_OPERATIONS.join(', ')}`, one),
  )
  const decided = IPE_ACTIONS.find((known) => known === action) ?? refuse('action: ALLOW or DENY', action)
  const properties = Object.entries(asked).flatMap(([key, value]): IpeProperty[] => {
    if (value === undefined) return []
    const name = Object.hasOwn(SWITCHES, key) ? SWITCHES[key as keyof typeof SWITCHES] : undefined
    if (name) return typeof value === 'boolean' ? [{ name, value }] : refuse(`${key}: true or false`, value)
    const digest = Object.hasOwn(DIGESTS, key) ? DIGESTS[key as keyof typeof DIGESTS] : undefined
    if (digest === undefined) return refuse(`one of ${[...Object.keys(SWITCHES), ...Object.keys(DIGESTS)].join(', ')}`, key)
    return typeof value === 'string' && /^[a-z0-9-]+:(?:[0-9a-fA-F]{2})+$/.test(value)
      ? [{ name: digest, value }]
      : refuse(`${key}: a digest such as "sha256:…"`, value)
  })
  return operations.map((operation) => ({ operation: operation as IpeOperation, properties, action: decided as IpeAction }))
}
