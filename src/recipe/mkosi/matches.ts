/**
 * Conditions: whether the `[Match]` sections of a file hold, and its `[Assert]` sections.
 *
 * Spec: mkosi(1), "[Match] Section". Within a section every condition must hold; conditions marked with `|` are alternatives of
 * which one is enough; `!` turns one around. Of several `[TriggerMatch]` sections one must hold, of other sections all.
 */
import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import { Fault } from '../../base/fault.ts'
import { nearest } from '../../base/nearest.ts'
import { wildcard } from '../../base/wildcard.ts'
import type { TreeSource } from '../file-type.ts'
import { type Key, ROWS } from '../schema.ts'
import { shown } from '../type.ts'
import { nativeArchitecture, SYSTEMD_VERSION } from './host.ts'
import type { IniEntry, IniSection } from './ini.ts'
import { SETTING_BY_NAME } from './names.ts'
import { expand, type FileAt, problemIn } from './place.ts'
import { current, type Reading } from './state.ts'
import { fulfils } from './version.ts'

/** Does the file apply? Problems of conditions count as conditions that do not hold. */
export function matches(reading: Reading, at: FileAt, sections: readonly IniSection[]): boolean {
  let triggered: boolean | undefined
  for (const section of sections) {
    if (section.name !== 'Match' && section.name !== 'TriggerMatch') continue
    noteProfiles(reading, section)
    const holds = sectionHolds(reading, at, section).failed === undefined
    if (section.name === 'Match' && !holds) return false
    if (section.name === 'TriggerMatch') triggered = (triggered ?? false) || holds
  }
  return triggered !== false
}

/** Tells what a file that applies demands in vain. */
export function checkAsserts(reading: Reading, at: FileAt, sections: readonly IniSection[]): void {
  let triggered: boolean | undefined
  let last: IniSection | undefined
  for (const section of sections) {
    if (section.name === 'TriggerAssert') {
      triggered = (triggered ?? false) || sectionHolds(reading, at, section).failed === undefined
      last = section
    }
    if (section.name !== 'Assert') continue
    const { failed } = sectionHolds(reading, at, section)
    if (failed === 'alternatives') problemIn(reading, at, section, 'none of the alternatives of this [Assert] holds')
    else if (failed) problemIn(reading, at, failed, `${failed.name}=${failed.value} does not hold, as [Assert] demands`)
  }
  if (triggered === false) problemIn(reading, at, last!, 'none of the [TriggerAssert] sections holds')
}

/** The condition that fails, or `alternatives` when each of those does. */
function sectionHolds(reading: Reading, at: FileAt, section: IniSection): { failed?: IniEntry | 'alternatives' } {
  let alternatives: boolean | undefined
  for (const entry of section.entries) {
    const [, trigger, not, rest] = /^(\|?)(!?)(.*)$/s.exec(entry.value)!
    const result = conditionHolds(reading, at, section.name, entry, rest!) !== (not === '!')
    if (trigger === '|') alternatives = (alternatives ?? false) || result
    else if (!result) return { failed: entry }
  }
  return alternatives === false ? { failed: 'alternatives' } : {}
}

function conditionHolds(reading: Reading, at: FileAt, section: string, entry: IniEntry, text: string): boolean {
  const wanted = expand(reading, at, entry, text)
  const own = CONDITIONS[entry.name]
  try {
    if (own) return own(wanted, reading, at)
    const key = SETTING_BY_NAME.get(entry.name)
    const row = key && ROWS[key]!
    if (!row?.match) {
      const names = [...Object.keys(CONDITIONS), ...[...SETTING_BY_NAME].filter(([, k]) => ROWS[k]!.match).map(([name]) => name)]
      const near = nearest(entry.name, names)
      const why = row ? `${entry.name} cannot be used in [${section}]` : `unknown condition "${entry.name}" in [${section}]`
      problemIn(reading, at, entry, near && near !== entry.name ? `${why}; did you mean "${near}"?` : why)
      return false
    }
    if (row.scope === 'main' && reading.image !== 'main') {
      problemIn(reading, at, entry, `${entry.name} can be asked about in the main image only`)
      return false
    }
    return settingMatches(reading, key!, row.match, wanted)
  } catch (error) {
    if (!(error instanceof Fault)) throw error
    problemIn(reading, at, entry, `${entry.name}: ${error.message}`)
    return false
  }
}

/** Conditions that are about no setting. */
const CONDITIONS: Readonly<Record<string, (wanted: string, reading: Reading, at: FileAt) => boolean>> = {
  PathExists: (wanted, _, at) => wanted !== '' && !wanted.includes('\0') && existsSync(resolve(at.directory, wanted)),
  SystemdVersion: (wanted) => wanted !== '' && fulfils(SYSTEMD_VERSION, wanted),
  HostArchitecture: (wanted) => oneOf(wanted, ARCHITECTURES, 'an architecture') === nativeArchitecture(),
  Image: (wanted, reading) => wanted === reading.image,
}

function settingMatches(reading: Reading, key: Key, kind: string, wanted: string): boolean {
  if (key in NAMES) oneOf(wanted, NAMES[key]!.names, NAMES[key]!.what)
  const { value } = current(reading, key)
  if (value === undefined) return false
  if (kind === 'element') {
    const list = value as readonly unknown[]
    return wanted === '' ? list.length === 0 : list.map(String).includes(wanted)
  }
  if (kind === 'version') return fulfils(String(value), wanted)
  if (kind === 'glob') return wildcard(wanted)(String(value))
  if (kind === 'pair') {
    const [name, ...rest] = wanted.split('=')
    const found = Object.hasOwn(value as object, name!) ? (value as Record<string, string>)[name!] : undefined
    return rest.length === 0 ? found !== undefined : found === rest.join('=')
  }
  if (kind === 'target') {
    const target = wanted.replace(/^\/+/, '')
    return (value as readonly TreeSource[]).some(
      (tree) => tree.target !== undefined && tree.target.replace(/^\/+/, '') === target,
    )
  }
  if (kind === 'architecture' && wanted === 'uefi') return UEFI.includes(String(value))
  return sameValue(key, wanted, value)
}

/** `yes` is what `true` is, and `x86_64` what `x86-64` is. */
function sameValue(key: Key, wanted: string, value: unknown): boolean {
  if (wanted === String(value)) return true
  if (key in NAMES || typeof value === 'string') return false
  return ROWS[key]!.type.parse(wanted, { directory: '/', env: {} }) === value
}

function oneOf(text: string, names: readonly string[], what: string): string {
  if (names.includes(text)) return text
  const near = nearest(text, names)
  throw new Fault('recipe', `expected ${what}, got ${shown(text)}${near ? `; did you mean "${near}"?` : ''}`)
}

const words = (text: string): readonly string[] => text.split(' ')

const DISTRIBUTIONS = words(
  'fedora debian kali ubuntu postmarketos arch opensuse mageia centos rhel rhel-ubi openmandriva rocky alma azure custom',
)
const ARCHITECTURES = words(
  'alpha arc arm arm64 ia64 loongarch64 mips-le mips64-le parisc ppc ppc64 ppc64-le riscv32 riscv64 s390 s390x tilegx x86 x86-64',
)
const UEFI = words('x86-64 x86 arm64 arm riscv64 loongarch64')
const FORMATS = words('confext cpio directory disk esp none portable sysext tar uki oci addon')

/** Settings whose conditions name one of a few things, more than those Bisque makes. */
const NAMES: Readonly<Record<string, { names: readonly string[]; what: string }>> = {
  distribution: { names: DISTRIBUTIONS, what: 'a distribution' },
  toolsTreeDistribution: { names: DISTRIBUTIONS, what: 'a distribution' },
  architecture: { names: [...ARCHITECTURES, 'uefi'], what: 'an architecture' },
  format: { names: FORMATS, what: 'a format' },
}

/** A name that a condition asks about is a profile that the recipe knows, even when no file is for it. */
function noteProfiles(reading: Reading, section: IniSection): void {
  for (const entry of section.entries) {
    if (SETTING_BY_NAME.get(entry.name) !== 'profiles') continue
    const name = entry.value.replace(/^\|?!?/, '')
    if (name !== '') reading.folder.knownProfiles.add(name)
  }
}
