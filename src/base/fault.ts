/** The one error a caller may meet. Anything else thrown is a bug in this program. */
export class Fault extends Error {
  override readonly name = 'Fault'
  readonly code: FaultCode
  readonly hint: string | undefined

  constructor(code: FaultCode, message: string, options: { hint?: string; cause?: unknown } = {}) {
    super(message, { cause: options.cause })
    this.code = code
    this.hint = options.hint
  }
}

/** Every code, with what the outside world sees. Adding a code means adding a row. */
// biome-ignore format: table
export const FAULTS = {
  usage:     { exit: 2, http: 400 }, // the command line or request is wrong
  recipe:    { exit: 3, http: 422 }, // the recipe is wrong
  resolve:   { exit: 4, http: 422 }, // no set of packages satisfies the recipe
  fetch:     { exit: 5, http: 502 }, // a remote did not give us what we asked for
  integrity: { exit: 6, http: 502 }, // bytes do not match their digest or signature
  format:    { exit: 7, http: 422 }, // bytes are not in the format they claim to be
  tool:      { exit: 8, http: 500 }, // an external program failed
  missing:   { exit: 9, http: 404 }, // the thing named does not exist
  host:      { exit: 10, http: 503 }, // this machine lacks something: space, a permission, a kernel feature
} as const satisfies Record<string, { exit: number; http: number }>

export type FaultCode = keyof typeof FAULTS
