/**
 * What is said between the build and the process that a PKCS#11 module is loaded into.
 *
 * A request is a line of JSON, `{id, path, ...request}`, and is answered by a line `{id, result}` or `{id, problem}` that
 * starts with `ANSWER`: what a module prints itself is passed over.
 */
export const ANSWER = '\u0001pkcs11 '

/** Which token and object; what is not given matches all. */
export interface Pkcs11Query {
  token?: string
  serial?: string
  manufacturer?: string
  model?: string
  slotId?: number
  /** Label. */
  object?: string
  /** CKA_ID in hexadecimal. */
  id?: string
}

export type Pkcs11Request =
  | { op: 'key'; query: Pkcs11Query; pin?: string }
  | { op: 'certificate'; query: Pkcs11Query; pin?: string }
  | { op: 'sign'; key: number; digestInfo: string }

export interface Pkcs11Key {
  /** What `sign` names it by. */
  key: number
  token: string
  serial: string
  label: string
  /** CKA_ID in hexadecimal. */
  id: string
  /** Big-endian, hexadecimal; empty where the token does not tell. */
  modulus: string
}

/** What went wrong, for the other side to say in its words. */
export interface Pkcs11Problem {
  why:
    | 'module' // it cannot be loaded
    | 'call' // a function failed
    | 'no token'
    | 'several tokens'
    | 'no object'
    | 'several objects'
    | 'not RSA'
    | 'no mechanism'
    | 'no PIN'
    | 'wrong PIN'
    | 'PIN locked'
    | 'last try'
    | 'crash'
    | 'time-out'
  /** Function that failed and the name of its return value, or a message. */
  detail?: string
  /** What there is instead, or what matches. */
  found?: string[]
}

/** A problem on its way to the other side. */
export class Trouble extends Error {
  readonly problem: Pkcs11Problem
  constructor(problem: Pkcs11Problem) {
    super(problem.why)
    this.problem = problem
  }
}
