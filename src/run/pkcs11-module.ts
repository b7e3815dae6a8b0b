/**
 * PKCS#11 modules: loading one, and calling its functions.
 *
 * Spec:   PKCS#11 v2.40 base specification
 * Limits: 64-bit systems, where CK_ULONG and pointers have eight bytes and structures natural alignment.
 *
 * Every argument of a call is a number of eight bytes or the address of a buffer, so one kind of prototype serves all.
 * C_GetInterface of version 3 is not needed: modules of version 3 answer C_GetFunctionList as well.
 */
import koffi, { type LibraryHandle, type TypeObject } from 'koffi'
import { Trouble } from './pkcs11-protocol.ts'

export interface Module {
  /** Calls a function; what it returns is thrown, unless it is CKR_OK. */
  call(name: keyof typeof FUNCTIONS, ...args: (number | bigint | Buffer)[]): void
  /** Unloaded when nothing refers to it any more. */
  library: LibraryHandle
}

/** RTLD_DEEPBIND: Node exports the symbols of its own OpenSSL, which a module must not take for those of the system's. */
export function loadModule(path: string): Module {
  const library = koffi.load(path, { deep: true })
  const getFunctionList = library.func('unsigned long C_GetFunctionList(uint64_t list)')
  const pointer = Buffer.alloc(8)
  const rv = Number(getFunctionList(addressOf(pointer)))
  const list = pointer.readBigUInt64LE()
  if (rv !== 0 || list === 0n) throw new Trouble({ why: 'module', detail: `C_GetFunctionList: ${nameOf(rv)}` })
  const module: Module = {
    library,
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

/** A CK_ULONG that a function may write to. */
export function ulong(value: number | bigint = 0): Buffer {
  const buffer = Buffer.alloc(8)
  buffer.writeBigUInt64LE(BigInt(value))
  return buffer
}

/** Longest list that is taken from a module. */
export const MAX_COUNT = 4096

/** A list of CK_ULONG that is asked for twice, first for its length. */
export function listOf(ask: (list: Buffer, count: Buffer) => void): number[] {
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

/** The address of a buffer, which is held until the next call is over. */
export function addressOf(buffer: Buffer): bigint {
  if (buffer.length === 0) return 0n
  held.push(buffer)
  return koffi.address(buffer)
}

/** Buffers whose addresses are in use: without a reference their memory could be taken back before the call. */
let held: Buffer[] = []

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

const prototypes = new Map<number, TypeObject>()

function prototype(count: number): TypeObject {
  const made = prototypes.get(count) ?? koffi.proto('unsigned long', Array<string>(count).fill('uint64_t'))
  prototypes.set(count, made)
  return made
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
