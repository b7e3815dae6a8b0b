/**
 * The process that a PKCS#11 module is loaded into: it may crash or hang there without harm. It is asked by lines of JSON on
 * standard input and answers by lines on standard output that start with `ANSWER`; what a module prints itself is passed over.
 *
 * Spec:   PKCS#11 v2.40 base specification
 * Limits: 64-bit systems, where CK_ULONG and pointers have eight bytes and structures natural alignment; RSA keys.
 *
 * Every argument of a call is a number of eight bytes or the address of a buffer, so one kind of prototype serves all.
 * C_GetInterface of version 3 is not needed: modules of version 3 answer C_GetFunctionList as well.
 */
import { writeSync } from 'node:fs'
import { createInterface } from 'node:readline'
import koffi, { type LibraryHandle, type TypeObject } from 'koffi'

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

/** Serves requests until standard input ends. */
export async function serve(): Promise<void> {
  let module: Module | undefined
  for await (const line of createInterface({ input: process.stdin })) {
    const { id, path, ...request } = JSON.parse(line) as { id: number; path: string } & Pkcs11Request
    let answer: object
    try {
      module ??= loadModule(path)
      answer = { id, result: handle(module, request) }
    } catch (error) {
      answer = { id, problem: error instanceof Trouble ? error.problem : { why: 'module', detail: (error as Error).message } }
    }
    writeSync(1, `\n${ANSWER}${JSON.stringify(answer)}\n`)
  }
}

class Trouble extends Error {
  readonly problem: Pkcs11Problem
  constructor(problem: Pkcs11Problem) {
    super(problem.why)
    this.problem = problem
  }
}

function handle(module: Module, request: Pkcs11Request): object {
  if (request.op === 'sign') return { signature: sign(module, request.key, Buffer.from(request.digestInfo, 'hex')) }
  const token = findToken(module, request.query)
  const session = openSession(module, token, request.pin)
  if (request.op === 'certificate') return { certificate: findCertificate(module, session, request.query) }
  return findKey(module, session, request.query)
}

// ── Calls ────────────────────────────────────────────────────────────────────────────────────────────────────────────

interface Module {
  call(name: keyof typeof FUNCTIONS, ...args: (number | bigint | Buffer)[]): void
  /** Unloaded when nothing refers to it any more. */
  library: LibraryHandle
  sessions: Map<number, Session>
  keys: PrivateKey[]
}

interface Session {
  token: Token
  handle: bigint
  pin: string | undefined
  /** Why login failed, once it has; it is not tried again with the same PIN, as tokens count. */
  refused?: Pkcs11Problem
}

interface PrivateKey {
  session: Session
  handle: bigint
  mechanism: number
  modulusBytes: number
  /** The token wants its PIN for every signature. */
  asksAlways: boolean
}

/** Place in CK_FUNCTION_LIST and number of arguments. */
// biome-ignore format: table
const FUNCTIONS = {
  C_Initialize:        [0, 1],
  C_GetSlotList:       [4, 3],
  C_GetTokenInfo:      [6, 2],
  C_GetMechanismList:  [7, 3],
  C_OpenSession:       [12, 5],
  C_Login:             [18, 4],
  C_GetAttributeValue: [24, 4],
  C_FindObjectsInit:   [26, 3],
  C_FindObjects:       [27, 4],
  C_FindObjectsFinal:  [28, 1],
  C_SignInit:          [42, 3],
  C_Sign:              [43, 5],
} as const

/** RTLD_DEEPBIND: Node exports the symbols of its own OpenSSL, which a module must not take for those of the system's. */
function loadModule(path: string): Module {
  const library = koffi.load(path, { deep: true })
  const getFunctionList = library.func('unsigned long C_GetFunctionList(uint64_t list)')
  const pointer = Buffer.alloc(8)
  const rv = Number(getFunctionList(addressOf(pointer)))
  const list = pointer.readBigUInt64LE()
  if (rv !== 0 || list === 0n) throw new Trouble({ why: 'module', detail: `C_GetFunctionList: ${nameOf(rv)}` })
  const module: Module = {
    library,
    sessions: new Map(),
    keys: [],
    call(name, ...args) {
      const [index, count] = FUNCTIONS[name]
      const address = BigInt(koffi.decode(list, 8 + 8 * index, 'uint64_t') as number | bigint)
      if (address === 0n || args.length !== count) throw new Trouble({ why: 'call', detail: `${name}: not there` })
      const numbers = args.map((arg) => (Buffer.isBuffer(arg) ? addressOf(arg) : BigInt(arg)))
      const rv = Number(koffi.call(address, prototype(count), ...numbers))
      held = []
      if (rv !== 0) throw new Trouble({ why: 'call', detail: `${name}: ${nameOf(rv)}` })
    },
  }
  module.call('C_Initialize', 0)
  return module
}

const prototypes = new Map<number, TypeObject>()

function prototype(count: number): TypeObject {
  const made = prototypes.get(count) ?? koffi.proto('unsigned long', Array<string>(count).fill('uint64_t'))
  prototypes.set(count, made)
  return made
}

/** Buffers whose addresses are in use: without a reference their memory could be taken back before the call. */
let held: Buffer[] = []

function addressOf(buffer: Buffer): bigint {
  if (buffer.length === 0) return 0n
  held.push(buffer)
  return koffi.address(buffer)
}

/** Longest lists and values that are taken from a module. */
const MAX_COUNT = 4096
const MAX_VALUE_BYTES = 1 << 16

function ulong(value: number | bigint = 0): Buffer {
  const buffer = Buffer.alloc(8)
  buffer.writeBigUInt64LE(BigInt(value))
  return buffer
}

/** A list of CK_ULONG that is asked for twice, first for its length. */
function listOf(ask: (list: Buffer, count: Buffer) => void): number[] {
  const count = ulong()
  ask(Buffer.alloc(0), count)
  const length = Number(count.readBigUInt64LE())
  if (length > MAX_COUNT) throw new Trouble({ why: 'call', detail: `a list of ${length}` })
  if (length === 0) return []
  const list = Buffer.alloc(8 * length)
  ask(list, count)
  const taken = Math.min(length, Number(count.readBigUInt64LE()))
  return Array.from({ length: taken }, (_, i) => Number(list.readBigUInt64LE(8 * i)))
}

// ── Tokens ───────────────────────────────────────────────────────────────────────────────────────────────────────────

interface Token {
  slotId: number
  label: string
  manufacturer: string
  model: string
  serial: string
  flags: number
}

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

function findToken(module: Module, query: Pkcs11Query): Token {
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

function openSession(module: Module, token: Token, pin: string | undefined): Session {
  const open = module.sessions.get(token.slotId)
  if (open !== undefined && open.refused === undefined) return open
  if (open?.refused !== undefined && open.pin === pin) throw new Trouble(open.refused)
  const handle = ulong()
  const SERIAL_SESSION = 4
  module.call('C_OpenSession', token.slotId, SERIAL_SESSION, 0, 0, handle)
  const session: Session = { token, handle: handle.readBigUInt64LE(), pin }
  module.sessions.set(token.slotId, session)
  try {
    if (token.flags & FLAG.loginRequired) login(module, session, USER)
  } catch (error) {
    if (error instanceof Trouble) session.refused = error.problem
    throw error
  }
  return session
}

const USER = 1
const FOR_THIS_SIGNATURE = 2

function login(module: Module, { token, handle, pin }: Session, who: number): void {
  const found = [`token=${token.label};serial=${token.serial}`]
  if (token.flags & FLAG.locked) throw new Trouble({ why: 'PIN locked', found })
  if (token.flags & FLAG.finalTry) throw new Trouble({ why: 'last try', found })
  const asksItself = (token.flags & FLAG.ownPad) !== 0
  if (pin === undefined && !asksItself) throw new Trouble({ why: 'no PIN', found })
  const bytes = Buffer.from(pin ?? '')
  try {
    module.call('C_Login', handle, who, asksItself ? 0 : bytes, asksItself ? 0 : bytes.length)
  } catch (error) {
    const { detail } = (error as Trouble).problem
    if (detail?.endsWith('CKR_USER_ALREADY_LOGGED_IN')) return
    if (detail?.endsWith('CKR_PIN_LOCKED')) throw new Trouble({ why: 'PIN locked', found })
    if (/CKR_PIN_(INCORRECT|INVALID|LEN_RANGE)$/.test(detail ?? ''))
      throw new Trouble({ why: 'wrong PIN', detail: detail!, found })
    throw error
  }
}

// ── Objects ──────────────────────────────────────────────────────────────────────────────────────────────────────────

const CLASS = { certificate: 1, publicKey: 2, privateKey: 3 } as const
// biome-ignore format: table
const ATTRIBUTE = {
  class: 0, token: 1, label: 3, value: 0x11, certificateType: 0x80, keyType: 0x100, id: 0x102, modulus: 0x120, alwaysAuthenticate: 0x202,
} as const
const KEY_TYPE_RSA = 0
const X509 = 0
const UNAVAILABLE = 0xffff_ffff_ffff_ffffn

/** CK_ATTRIBUTE: type, address and length of the value. */
function template(attributes: readonly (readonly [type: number, value: Buffer])[]): Buffer {
  const bytes = Buffer.alloc(24 * attributes.length)
  for (const [i, [type, value]] of attributes.entries()) {
    bytes.writeBigUInt64LE(BigInt(type), 24 * i)
    bytes.writeBigUInt64LE(addressOf(value), 24 * i + 8)
    bytes.writeBigUInt64LE(BigInt(value.length), 24 * i + 16)
  }
  return bytes
}

function findObjects(module: Module, session: Session, kind: keyof typeof CLASS, query: Pkcs11Query): bigint[] {
  const wanted: [number, Buffer][] = [[ATTRIBUTE.class, ulong(CLASS[kind])]]
  if (query.object !== undefined) wanted.push([ATTRIBUTE.label, Buffer.from(query.object)])
  if (query.id !== undefined) wanted.push([ATTRIBUTE.id, Buffer.from(query.id, 'hex')])
  const attributes = template(wanted)
  module.call('C_FindObjectsInit', session.handle, attributes, wanted.length)
  const found: bigint[] = []
  try {
    const [list, count] = [Buffer.alloc(8 * 64), ulong()]
    do {
      module.call('C_FindObjects', session.handle, list, 64, count)
      const length = Math.min(64, Number(count.readBigUInt64LE()))
      for (let i = 0; i < length; i++) found.push(list.readBigUInt64LE(8 * i))
    } while (count.readBigUInt64LE() > 0n && found.length < MAX_COUNT)
  } finally {
    module.call('C_FindObjectsFinal', session.handle)
  }
  return found
}

/** The value of an attribute; empty where there is none, or it is not told. */
function attributeOf(module: Module, session: Session, object: bigint, type: number): Buffer {
  const asked = template([[type, Buffer.alloc(0)]])
  try {
    module.call('C_GetAttributeValue', session.handle, object, asked, 1)
    const length = asked.readBigUInt64LE(16)
    if (length === UNAVAILABLE || length === 0n || length > MAX_VALUE_BYTES) return Buffer.alloc(0)
    const value = Buffer.alloc(Number(length))
    asked.writeBigUInt64LE(addressOf(value), 8)
    module.call('C_GetAttributeValue', session.handle, object, asked, 1)
    return value.subarray(0, Math.min(value.length, Number(asked.readBigUInt64LE(16))))
  } catch {
    return Buffer.alloc(0)
  }
}

const labelOf = (module: Module, session: Session, object: bigint) =>
  attributeOf(module, session, object, ATTRIBUTE.label).toString('utf8')
const idOf = (module: Module, session: Session, object: bigint) =>
  attributeOf(module, session, object, ATTRIBUTE.id).toString('hex')

function theOne(module: Module, session: Session, kind: keyof typeof CLASS, query: Pkcs11Query): bigint {
  const nameOf = (object: bigint) => {
    const [label, id] = [labelOf(module, session, object), idOf(module, session, object)]
    return `object=${label}${id ? `;id=${id.replace(/../g, '%$&')}` : ''}`
  }
  const names = (objects: readonly bigint[]) => objects.slice(0, 32).map(nameOf).sort()
  const matching = findObjects(module, session, kind, query)
  const [one] = matching
  if (one === undefined) throw new Trouble({ why: 'no object', found: names(findObjects(module, session, kind, {})) })
  if (matching.length > 1) throw new Trouble({ why: 'several objects', found: names(matching) })
  return one
}

function findKey(module: Module, session: Session, query: Pkcs11Query): Pkcs11Key {
  const handle = theOne(module, session, 'privateKey', query)
  const type = attributeOf(module, session, handle, ATTRIBUTE.keyType)
  if (type.length === 8 && Number(type.readBigUInt64LE()) !== KEY_TYPE_RSA)
    throw new Trouble({ why: 'not RSA', detail: KEY_TYPES[Number(type.readBigUInt64LE())] ?? `type ${type.readBigUInt64LE()}` })
  const [label, id] = [labelOf(module, session, handle), idOf(module, session, handle)]
  const modulus = modulusOf(module, session, handle, id)
  const asksAlways = attributeOf(module, session, handle, ATTRIBUTE.alwaysAuthenticate)[0] === 1
  const modulusBytes = modulus.length
  const mechanism = mechanismOf(module, session.token)
  module.keys.push({ session, handle, mechanism, modulusBytes, asksAlways })
  const { label: token, serial } = session.token
  return { key: module.keys.length - 1, token, serial, label, id, modulus: modulus.toString('hex') }
}

const KEY_TYPES: Record<number, string> = { 1: 'DSA', 2: 'DH', 3: 'EC', 16: 'a generic secret', 31: 'AES', 64: 'Edwards EC' }

/** Tokens that do not tell it of the private key tell it of the public key. */
function modulusOf(module: Module, session: Session, key: bigint, id: string): Buffer {
  let modulus = attributeOf(module, session, key, ATTRIBUTE.modulus)
  const [publicKey, more] = modulus.length === 0 && id !== '' ? findObjects(module, session, 'publicKey', { id }) : []
  if (publicKey !== undefined && more === undefined) modulus = attributeOf(module, session, publicKey, ATTRIBUTE.modulus)
  const start = modulus.findIndex((byte) => byte !== 0)
  return start < 0 ? Buffer.alloc(0) : modulus.subarray(start)
}

function findCertificate(module: Module, session: Session, query: Pkcs11Query): string {
  const handle = theOne(module, session, 'certificate', query)
  const type = attributeOf(module, session, handle, ATTRIBUTE.certificateType)
  if (type.length === 8 && Number(type.readBigUInt64LE()) !== X509) throw new Trouble({ why: 'no object', found: [] })
  return attributeOf(module, session, handle, ATTRIBUTE.value).toString('base64')
}

// ── Signing ──────────────────────────────────────────────────────────────────────────────────────────────────────────

/** Signs what it is given; the one that hashes too is of no use, as signers see digests. */
const RSA_PKCS = 1
/** RSA without padding, which is then done here. */
const RSA_RAW = 3

function mechanismOf(module: Module, { slotId }: Token): number {
  const offered = listOf((list, count) => module.call('C_GetMechanismList', slotId, list, count))
  const mechanism = [RSA_PKCS, RSA_RAW].find((one) => offered.includes(one))
  if (mechanism === undefined)
    throw new Trouble({ why: 'no mechanism', found: offered.slice(0, 64).map((one) => `0x${one.toString(16)}`) })
  return mechanism
}

function sign(module: Module, number: number, digestInfo: Buffer): string {
  const key = module.keys[number]
  if (key === undefined) throw new Trouble({ why: 'call', detail: 'no such key' })
  const { session, handle, mechanism } = key
  const data = mechanism === RSA_RAW ? padded(digestInfo, key.modulusBytes) : digestInfo
  // CK_MECHANISM: mechanism, address and length of its parameter.
  const chosen = Buffer.concat([ulong(mechanism), ulong(), ulong()])
  module.call('C_SignInit', session.handle, chosen, handle)
  if (key.asksAlways) login(module, session, FOR_THIS_SIGNATURE)
  const [signature, length] = [Buffer.alloc(4096), ulong(4096)]
  module.call('C_Sign', session.handle, data, data.length, signature, length)
  return signature.subarray(0, Math.min(signature.length, Number(length.readBigUInt64LE()))).toString('hex')
}

/** EMSA-PKCS1-v1_5 (RFC 8017 §9.2). */
function padded(digestInfo: Buffer, sizeBytes: number): Buffer {
  const fill = sizeBytes - digestInfo.length - 3
  if (fill < 8) throw new Trouble({ why: 'call', detail: `a modulus of ${sizeBytes} bytes` })
  return Buffer.concat([Uint8Array.of(0, 1), Buffer.alloc(fill, 0xff), Uint8Array.of(0), digestInfo])
}

// biome-ignore format: table
const RETURN_VALUES: Record<number, string> = {
  1: 'CKR_CANCEL', 2: 'CKR_HOST_MEMORY', 3: 'CKR_SLOT_ID_INVALID', 5: 'CKR_GENERAL_ERROR', 6: 'CKR_FUNCTION_FAILED',
  7: 'CKR_ARGUMENTS_BAD', 18: 'CKR_ATTRIBUTE_TYPE_INVALID', 19: 'CKR_ATTRIBUTE_VALUE_INVALID', 32: 'CKR_DATA_INVALID',
  33: 'CKR_DATA_LEN_RANGE', 48: 'CKR_DEVICE_ERROR', 49: 'CKR_DEVICE_MEMORY', 50: 'CKR_DEVICE_REMOVED', 80: 'CKR_FUNCTION_CANCELED',
  84: 'CKR_FUNCTION_NOT_SUPPORTED', 96: 'CKR_KEY_HANDLE_INVALID', 98: 'CKR_KEY_SIZE_RANGE', 99: 'CKR_KEY_TYPE_INCONSISTENT',
  104: 'CKR_KEY_FUNCTION_NOT_PERMITTED', 112: 'CKR_MECHANISM_INVALID', 130: 'CKR_OBJECT_HANDLE_INVALID', 144: 'CKR_OPERATION_ACTIVE',
  145: 'CKR_OPERATION_NOT_INITIALIZED', 160: 'CKR_PIN_INCORRECT', 161: 'CKR_PIN_INVALID', 162: 'CKR_PIN_LEN_RANGE', 163: 'CKR_PIN_EXPIRED',
  164: 'CKR_PIN_LOCKED', 176: 'CKR_SESSION_CLOSED', 177: 'CKR_SESSION_COUNT', 179: 'CKR_SESSION_HANDLE_INVALID', 224: 'CKR_TOKEN_NOT_PRESENT',
  225: 'CKR_TOKEN_NOT_RECOGNIZED', 256: 'CKR_USER_ALREADY_LOGGED_IN', 257: 'CKR_USER_NOT_LOGGED_IN', 258: 'CKR_USER_PIN_NOT_INITIALIZED',
  336: 'CKR_BUFFER_TOO_SMALL', 400: 'CKR_CRYPTOKI_NOT_INITIALIZED',
}

const nameOf = (rv: number): string => RETURN_VALUES[rv] ?? `CK_RV 0x${rv.toString(16)}`
