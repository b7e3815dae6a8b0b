/**
 * Tokens of a PKCS#11 module, and sessions with them.
 *
 * Tokens count wrong PINs and lock themselves: one that was refused is not tried again, and the last try is left to people.
 *
 * Spec: PKCS#11 v2.40 base specification
 */
import { listOf, type Module, ulong } from './pkcs11-module.ts'
import { type Pkcs11Problem, type Pkcs11Query, Trouble } from './pkcs11-protocol.ts'

export interface Token {
  slotId: number
  label: string
  manufacturer: string
  model: string
  serial: string
  flags: number
}

export interface Session {
  module: Module
  token: Token
  handle: bigint
  pin: string | undefined
  /** Why login failed, once it has; it is not tried again with the same PIN, as tokens count. */
  refused?: Pkcs11Problem
}

/** The initialised token that is as the query says. */
export function findToken(module: Module, query: Pkcs11Query): Token {
  const tokens = tokensOf(module).filter(({ flags }) => flags & FLAG.initialized)
  const names = ({ label, serial, slotId }: Token) => `token=${label};serial=${serial};slot-id=${slotId}`
  const matching = tokens.filter(
    (token) =>
      (query.token ?? token.label) === token.label &&
      (query.serial ?? token.serial) === token.serial &&
      (query.manufacturer ?? token.manufacturer) === token.manufacturer &&
      (query.model ?? token.model) === token.model &&
      (query.slotId ?? token.slotId) === token.slotId,
  )
  const [token] = matching
  if (token === undefined) throw new Trouble({ why: 'no token', found: tokens.map(names) })
  if (matching.length > 1) throw new Trouble({ why: 'several tokens', found: matching.map(names) })
  return token
}

/** The session with a token; `sessions` has those that are open, by slot. A token is logged in to once. */
export function openSession(module: Module, token: Token, pin: string | undefined, sessions: Map<number, Session>): Session {
  const open = sessions.get(token.slotId)
  if (open !== undefined && open.refused === undefined) return open
  if (open?.refused !== undefined && open.pin === pin) throw new Trouble(open.refused)
  const handle = ulong()
  module.call('C_OpenSession', token.slotId, SERIAL_SESSION, 0, 0, handle)
  const session: Session = { module, token, handle: handle.readBigUInt64LE(), pin }
  sessions.set(token.slotId, session)
  try {
    if (token.flags & FLAG.loginRequired) login(session, 'for the session')
  } catch (error) {
    if (error instanceof Trouble) session.refused = error.problem
    throw error
  }
  return session
}

/** Logs in with the session's PIN, or lets the token ask for it by itself. */
export function login({ module, token, handle, pin }: Session, what: keyof typeof USER_TYPE): void {
  const found = [`token=${token.label};serial=${token.serial}`]
  if (token.flags & FLAG.locked) throw new Trouble({ why: 'PIN locked', found })
  if (token.flags & FLAG.finalTry) throw new Trouble({ why: 'last try', found })
  const asksItself = (token.flags & FLAG.ownPad) !== 0
  if (pin === undefined && !asksItself) throw new Trouble({ why: 'no PIN', found })
  const bytes = Buffer.from(pin ?? '')
  try {
    module.call('C_Login', handle, USER_TYPE[what], asksItself ? 0 : bytes, asksItself ? 0 : bytes.length)
  } catch (error) {
    const { detail } = (error as Trouble).problem
    if (detail?.endsWith('CKR_USER_ALREADY_LOGGED_IN')) return
    if (detail?.endsWith('CKR_PIN_LOCKED')) throw new Trouble({ why: 'PIN locked', found })
    if (/CKR_PIN_(INCORRECT|INVALID|LEN_RANGE)$/.test(detail ?? ''))
      throw new Trouble({ why: 'wrong PIN', detail: detail!, found })
    throw error
  }
}

const SERIAL_SESSION = 4
/** CKU_USER and CKU_CONTEXT_SPECIFIC. */
const USER_TYPE = { 'for the session': 1, 'for this signature': 2 } as const

const TOKEN_INFO_BYTES = 208
const FLAG = { loginRequired: 0x4, ownPad: 0x100, initialized: 0x400, finalTry: 0x20000, locked: 0x40000 } as const

function tokensOf(module: Module): Token[] {
  return listOf((list, count) => module.call('C_GetSlotList', 1, list, count)).flatMap((slotId) => {
    const info = Buffer.alloc(TOKEN_INFO_BYTES)
    try {
      module.call('C_GetTokenInfo', slotId, info)
    } catch {
      return [] // taken out in between
    }
    const text = (from: number, to: number) =>
      info
        .subarray(from, to)
        .toString('utf8')
        .replace(/[ \0]+$/, '')
    const token = { slotId, label: text(0, 32), manufacturer: text(32, 64), model: text(64, 80), serial: text(80, 96) }
    return [{ ...token, flags: Number(info.readBigUInt64LE(96)) }]
  })
}
