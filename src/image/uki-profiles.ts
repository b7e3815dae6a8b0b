/**
 * UKI profiles: the choices one UKI offers in the boot menu, each with a command line of its own.
 *
 * A UKI that has any also has a first one, which is booted unless another is chosen. Whether a profile's PCR policies are
 * signed decides what may be booted with it: without a policy nothing that is sealed to one is unsealed.
 */
import { Fault } from '../base/fault.ts'
import { checkUkiTexts } from '../formats/uki.ts'

export interface UkiProfile {
  /** The text of `.profile`: assignments such as `ID=live`. */
  text: string
  id: string
  cmdline: string
  /** Whether its PCR policies are signed. */
  signed: boolean
}

/** A profile as a recipe has it. */
export interface UkiProfileSettings {
  /** The assignments of `.profile`; `ID` there must be. */
  profile: Readonly<Record<string, string>>
  /** Words behind those of the UKI's own command line. */
  cmdline: readonly string[]
  signExpectedPcr: boolean
}

/** The profile that is booted by default, as ukify makes it where none is given. */
export const MAIN_PROFILE = { id: 'main', text: 'ID=main' } as const

/** Profiles after the default one; the UKI's command line comes before each's words. */
export function ukiProfiles(settings: readonly UkiProfileSettings[], cmdline: readonly string[]): UkiProfile[] {
  const profiles = settings.map(
    (one): UkiProfile => ({
      id: one.profile['ID'] ?? '',
      text: formatProfile(one.profile),
      cmdline: [...cmdline, ...one.cmdline].join(' '),
      signed: one.signExpectedPcr,
    }),
  )
  checkProfiles(profiles)
  return profiles
}

/** Text as an env-file: values of letters and digits bare, all others quoted. */
export function formatProfile(profile: Readonly<Record<string, string>>): string {
  const lines = Object.entries(profile).map(([name, value]) => {
    if (!/^[A-Z][A-Z0-9_]*$/.test(name))
      throw new Fault('recipe', `Cannot make UKI profile: "${name}" is no name of capital letters, digits and _`)
    if (/["\\\n\r\0]/.test(value))
      throw new Fault('recipe', `Cannot make UKI profile: ${name} has a character that a quoted value cannot hold`)
    return `${name}=${/^[\p{L}\p{N}]*$/u.test(value) ? value : `"${value}"`}\n`
  })
  return lines.join('')
}

/** Refuses profiles that could not be told apart, or whose texts the stub would not hand on as they are. */
export function checkProfiles(profiles: readonly UkiProfile[]): void {
  const problems: string[] = []
  for (const [i, { id, cmdline }] of profiles.entries()) {
    if (!/^[\w.-]+$/.test(id)) problems.push(`profile ID "${id}" must be letters, digits, _ . -`)
    else if (id === MAIN_PROFILE.id) problems.push(`profile ID "${id}" is that of the default profile`)
    else if (profiles.findIndex((other) => other.id === id) !== i) problems.push(`there are two profiles with ID ${id}`)
    checkUkiTexts({ [`command line of profile ${id}`]: cmdline })
  }
  if (problems.length > 0) throw new Fault('recipe', `Cannot make UKI: ${problems.join('; ')}`)
}
