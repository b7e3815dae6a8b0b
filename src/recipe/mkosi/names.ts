/** The settings by every name that mkosi's files may give them. */
import { KEYS, type Key, mkosiName, ROWS } from '../schema.ts'

export const SETTING_BY_NAME: ReadonlyMap<string, Key> = new Map(
  KEYS.flatMap((key) => [mkosiName(key), ...(ROWS[key]!.formerly ?? [])].map((name) => [name, key] as const)),
)

/** Sections that settings are in, and those that say something else. */
export const SECTIONS: ReadonlySet<string> = new Set([...KEYS.map((key) => ROWS[key]!.section), 'Host'])
export const CONDITION_SECTIONS: ReadonlySet<string> = new Set(['Match', 'TriggerMatch', 'Assert', 'TriggerAssert'])
