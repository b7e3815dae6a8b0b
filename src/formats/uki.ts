/**
 * Unified kernel images: which sections there are, in which order they are measured, and how profiles share them.
 *
 * Spec:   UAPI.5 https://uapi-group.org/specifications/specs/unified_kernel_image/; systemd-stub(7); SBAT: shim SBAT.md
 * Oracle: `ukify inspect`, `systemd-measure calculate`
 * Limits: devicetree and firmware sections are ordered, not chosen among (the stub does that by hardware).
 */
import { Fault } from '../base/fault.ts'

/** All sections in the order in which the stub measures them. Never reordered. */
// biome-ignore format: table
export const UKI_SECTIONS = [
  '.linux', '.osrel', '.cmdline', '.initrd', '.ucode', '.splash', '.dtb', '.uname', '.sbat', '.pcrsig', '.pcrpkey',
  '.profile', '.dtbauto', '.hwids', '.efifw',
] as const
export type UkiSectionName = (typeof UKI_SECTIONS)[number]

/** The order in which sections are written, ukify's. `.sbat` takes the place it has in the stub. */
// biome-ignore format: table
export const UKI_FILE_ORDER: readonly UkiSectionName[] = [
  '.osrel', '.cmdline', '.dtb', '.dtbauto', '.hwids', '.uname', '.splash', '.pcrpkey', '.linux', '.initrd', '.efifw', '.ucode',
]

/** Its own signature cannot be measured. */
const UNMEASURED: readonly string[] = ['.pcrsig']

/** The sections the stub extends PCR 11 with, in its order. Of several of a name the first counts; empty ones do not. */
export function measuredSections<S extends { name: string; sizeBytes: number }>(sections: readonly S[]): S[] {
  return UKI_SECTIONS.filter((name) => !UNMEASURED.includes(name)).flatMap((name) => {
    const found = sections.find((section) => section.name === name)
    return found && found.sizeBytes > 0 ? [found] : []
  })
}

/**
 * The effective sections of each profile: the base is everything before the first `.profile`, a profile's own sections
 * come before the base's of the same name. A UKI without profiles is its own profile 0.
 */
export function splitProfiles<S extends { name: string }>(sections: readonly S[]): S[][] {
  const starts = sections.flatMap((section, i) => (section.name === '.profile' ? [i] : []))
  if (starts.length === 0) return [[...sections]]
  if (starts.length > MAX_PROFILES)
    throw new Fault('format', `Cannot read UKI: it has ${starts.length} profiles, at most ${MAX_PROFILES}`)
  const base = sections.slice(0, starts[0])
  return starts.map((start, i) => {
    const own = sections.slice(start, starts[i + 1])
    return [...own, ...base.filter((section) => !own.some(({ name }) => name === section.name))]
  })
}

const MAX_PROFILES = 256

const SBAT_HEADER = 'sbat,1,SBAT Version,sbat,1,https://github.com/rhboot/shim/blob/main/SBAT.md'
/** The generation line of UKIs as such. */
export const UKI_SBAT = `${SBAT_HEADER}\nuki,1,UKI,uki,1,https://uapi-group.org/specifications/specs/unified_kernel_image/\n`
/** The same of addons. */
export const ADDON_SBAT = `${SBAT_HEADER}\nuki-addon,1,UKI Addon,addon,1,https://www.freedesktop.org/software/systemd/man/latest/systemd-stub.html\n`

/**
 * One SBAT text of several: the version line once, then every other line in the order given, so that a revocation of any
 * part (stub, kernel, UKI) reaches the whole. Texts that are not SBAT are refused rather than left out.
 */
export function composeSbat(texts: readonly string[]): string {
  const lines = texts.flatMap((text) => {
    const [first = '', ...rest] = text.replace(/[\0\s]*$/, '').split(/\r?\n/)
    if (!first.startsWith('sbat,'))
      throw new Fault('format', `Cannot read SBAT: it begins with "${first.slice(0, 40)}", not "sbat,"`)
    return rest
  })
  return `${[SBAT_HEADER, ...lines].join('\n')}\n`
}

/** Refuses text the stub would not hand on as it is. */
export function checkUkiTexts(texts: Readonly<Record<string, string>>): void {
  for (const [name, text] of Object.entries(texts)) {
    const bad = /[\0-\x08\x0a-\x1f\x7f]/.exec(text)
    if (bad)
      throw new Fault(
        'recipe',
        `Cannot make UKI: ${name} has control character 0x${bad[0].charCodeAt(0).toString(16)} at ${bad.index}`,
      )
  }
}
