/** An image's settings under mkosi's names and in the form of `mkosi --json summary`, so that the two can be compared. */

import type { Credential, TreeSource } from './file-type.ts'
import type { ImageRecipe } from './recipe.ts'
import { KEYS, type Key, mkosiName, ROWS } from './schema.ts'
import { feature, type Password } from './type.ts'
import type { UkiProfile } from './uki-profile.ts'

export interface Summary {
  /** As JSON has it. */
  value: unknown
  /** Where the value came from. */
  origin: string
}

/** Every supported setting by mkosi's name. Secrets are not told: `(secret)` stands for what is set. */
export function summaryOf({ settings, origins }: Pick<ImageRecipe, 'settings' | 'origins'>): Map<Key, Summary> {
  const values = settings as unknown as Readonly<Record<string, unknown>>
  const shown = KEYS.filter((key) => key in values)
  return new Map(shown.map((key) => [key, { value: jsonOf(key, values[key]), origin: origins.get(key) ?? 'default' }]))
}

/** The summary as an object with mkosi's names. */
export const byName = (summary: ReadonlyMap<Key, Summary>): Record<string, Summary> =>
  Object.fromEntries([...summary].map(([key, value]) => [mkosiName(key), value]))

function jsonOf(key: Key, value: unknown): unknown {
  if (value === undefined) return null
  const own = OWN_FORMS[key]
  if (own) return own(value)
  if (ROWS[key]!.secret) return '(secret)'
  if (ROWS[key]!.type.expected === feature.expected) return value === true ? 'enabled' : value === false ? 'disabled' : value
  if (Array.isArray(value) && value.every(isTree)) return value.map(treeForm)
  return value
}

const sourceForm = (source: string): unknown => {
  const [Type, ...rest] = source.split(':')
  return { Type, Source: rest.join(':') }
}

/** Settings that mkosi shows in a form of their own. */
const OWN_FORMS: { readonly [K in Key]?: (value: any) => unknown } = {
  unifiedKernelImageProfiles: (profiles: readonly UkiProfile[]) =>
    profiles.map(({ profile, cmdline, signExpectedPcr }) => ({
      Profile: profile,
      Cmdline: cmdline,
      SignExpectedPcr: signExpectedPcr,
    })),
  credentials: (credentials: readonly Credential[]) =>
    credentials.map((one) =>
      'path' in one ? { Name: one.name, Value: null, Path: one.path } : { Name: one.name, Value: '(secret)', Path: null },
    ),
  secureBootKeySource: sourceForm,
  secureBootCertificateSource: sourceForm,
  verityKeySource: sourceForm,
  verityCertificateSource: sourceForm,
  signExpectedPcrKeySource: sourceForm,
  signExpectedPcrCertificateSource: sourceForm,
  rootPassword: ({ hashed }: Password) => ['(secret)', hashed],
}

const isTree = (value: unknown): value is TreeSource =>
  typeof value === 'object' && value !== null && 'source' in value && 'target' in value

/** A tree that goes to the root has no target in mkosi. */
const treeForm = ({ source, target }: TreeSource): unknown => ({
  Source: source,
  Target: target === '/' || target === '' ? null : target,
})
