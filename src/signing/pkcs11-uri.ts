/**
 * The URIs that name keys in tokens: `pkcs11:token=Keys;object=db?module-path=/usr/lib/softhsm/libsofthsm2.so`.
 *
 * Spec:   RFC 7512
 * Limits: attributes of tokens, slots by number, and objects; no `library-*` and vendors' own; `pin-value` is refused.
 */
import { Fault } from '../base/fault.ts'
import type { Pkcs11Query } from '../run/pkcs11.ts'

export interface Pkcs11Uri {
  query: Pkcs11Query
  modulePath?: string
  moduleName?: string
  pinSource?: string
}

const MAX_LENGTH = 4096

// biome-ignore format: table
const PATH_ATTRIBUTES = {
  token: 'token', serial: 'serial', manufacturer: 'manufacturer', model: 'model', 'slot-id': 'slotId', object: 'object', id: 'id', type: 'type',
} as const
const QUERY_ATTRIBUTES = { 'module-path': 'modulePath', 'module-name': 'moduleName', 'pin-source': 'pinSource' } as const

export const isPkcs11Uri = (text: string): boolean => /^pkcs11:/i.test(text)

/** Reads a URI. What it says of a PIN is never repeated. */
export function parsePkcs11Uri(text: string): Pkcs11Uri {
  if (!isPkcs11Uri(text) || text.length > MAX_LENGTH) throw refusal('it is no PKCS#11 URI')
  const [path = '', ...queries] = text.slice('pkcs11:'.length).split('?')
  if (queries.length > 1) throw refusal('it has more than one "?"')
  const found = attributesIn(path, ';', PATH_ATTRIBUTES)
  const options = attributesIn(queries[0] ?? '', '&', QUERY_ATTRIBUTES)
  const type = found.get('type')
  if (type !== undefined && !['private', 'cert'].includes(type.toString()))
    throw refusal(`type=${shown(type)} can neither sign nor vouch, expected private or cert`)
  const slotId = found.get('slotId')?.toString()
  if (slotId !== undefined && !/^\d{1,15}$/.test(slotId)) throw refusal(`slot-id=${slotId.slice(0, 40)} is no number`)
  const id = found.get('id')
  const texts = (['token', 'serial', 'manufacturer', 'model', 'object'] as const).flatMap((name) => {
    const value = found.get(name)
    return value === undefined ? [] : [[name, value.toString()] as const]
  })
  return {
    query: {
      ...Object.fromEntries(texts),
      ...(id === undefined ? {} : { id: id.toString('hex') }),
      ...(slotId === undefined ? {} : { slotId: Number(slotId) }),
    },
    ...Object.fromEntries([...options].map(([name, value]) => [name, value.toString()])),
  }
}

/** The URI as messages show it. */
export function formatPkcs11Uri({ query }: Pkcs11Uri): string {
  const { slotId, id, ...texts } = query
  const parts = [
    ...Object.entries(texts).map(([name, value]) => `${name}=${encodeURIComponent(value as string)}`),
    ...(slotId === undefined ? [] : [`slot-id=${slotId}`]),
    ...(id === undefined ? [] : [`id=${id.replace(/../g, '%$&')}`]),
  ]
  return `pkcs11:${parts.join(';')}`
}

function attributesIn<N extends string>(text: string, separator: string, known: Readonly<Record<string, N>>): Map<N, Buffer> {
  const found = new Map<N, Buffer>()
  for (const part of text === '' ? [] : text.split(separator)) {
    const at = part.indexOf('=')
    const name = at < 0 ? part : part.slice(0, at)
    if (name === 'pin-value')
      throw new Fault(
        'usage',
        'Cannot use a PKCS#11 URI with pin-value: a PIN there is seen in recipes, logs and lists of processes',
        {
          hint: 'pin-source=file:/path/of/a/file/with/the/PIN',
        },
      )
    if (at < 0 || !Object.hasOwn(known, name))
      throw refusal(`"${printable(name)}" is not known, expected ${Object.keys(known).join(', ')}`)
    if (found.has(known[name]!)) throw refusal(`${name} is given twice`)
    found.set(known[name]!, decoded(part.slice(at + 1), name))
  }
  return found
}

/** Bytes of a percent-encoded value; RFC 7512 leaves but few characters to stand for themselves. */
function decoded(text: string, name: string): Buffer {
  if (!/^(?:%[0-9a-f]{2}|[\w\-.~:[\]@!$'()*+,=&/?|])*$/i.test(text)) throw refusal(`the value of ${name} is not percent-encoded`)
  const bytes = text.replace(/%([0-9a-f]{2})/gi, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)))
  return Buffer.from(bytes, 'latin1')
}

const printable = (text: string) => text.replace(/[^\x20-\x7e]/g, '?').slice(0, 60)
const shown = (bytes: Buffer) => printable(bytes.toString('latin1'))

const refusal = (why: string): Fault =>
  new Fault('usage', `Cannot read PKCS#11 URI: ${why}`, {
    hint: 'pkcs11:token=NAME;object=KEY?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/path/of/PIN',
  })
