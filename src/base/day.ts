/** The day of a moment in seconds since 1970, in UTC: `2026-11-23`. */
export const dayOf = (seconds: number): string => new Date(seconds * 1000).toISOString().slice(0, 10)
