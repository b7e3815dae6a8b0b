/**
 * When certificates end. Neither firmware nor the kernel looks at it, so machines go on starting what was signed in time;
 * Bisque refuses to sign with what has expired, and says so early enough for a rotation, whose window takes as long as the
 * slowest machine.
 */
import { dayOf } from '../base/day.ts'
import { readCertificate } from '../formats/x509.ts'

/** Time enough for a release, and for the machines to take it. */
export const WARNING_DAYS = 90
const DAY_SECONDS = 86_400

export interface Expiry {
  /** Seconds since 1970. */
  notAfter: number
  /** Whole days; negative when it is over. */
  daysLeft: number
  state: 'valid' | 'ends soon' | 'expired'
}

/** How a certificate (DER) stands at `now`, in seconds since 1970. */
export function expiryOf(certificate: Uint8Array, now: number, warningDays = WARNING_DAYS): Expiry {
  const notAfter = readCertificate(certificate).validToDate.getTime() / 1000
  const daysLeft = Math.floor((notAfter - now) / DAY_SECONDS)
  return { notAfter, daysLeft, state: notAfter < now ? 'expired' : daysLeft < warningDays ? 'ends soon' : 'valid' }
}

/** What to warn of: one line for each certificate that has ended or ends within `warningDays`, the soonest first. */
export function expiryWarnings(
  certificates: readonly { name: string; certificate: Uint8Array }[],
  now: number,
  warningDays = WARNING_DAYS,
): string[] {
  return certificates
    .map(({ name, certificate }) => ({ name, ...expiryOf(certificate, now, warningDays) }))
    .filter(({ state }) => state !== 'valid')
    .sort((a, b) => a.notAfter - b.notAfter)
    .map(({ name, notAfter, daysLeft, state }) => {
      const day = dayOf(notAfter)
      return state === 'expired' ? `${name}: expired ${day}` : `${name}: expires ${day}, in ${daysLeft} days`
    })
}
