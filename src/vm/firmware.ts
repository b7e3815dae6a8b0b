/** What a machine's firmware remembers: its Secure Boot keys, in the variables.fd of a state folder. */
import { readFile } from 'node:fs/promises'
import {
  BOOT_SERVICE,
  decodeVariables,
  encodeVariables,
  GLOBAL_VARIABLE,
  IMAGE_SECURITY_DATABASE,
  NON_VOLATILE,
  RUNTIME,
  SECURE_BOOT_ENABLE,
  TIME_AUTHENTICATED,
  type Variable,
} from '../formats/ovmf-vars.ts'

/** Each key variable's signature lists, one after another; see formats/esl. */
export interface FirmwareKeys {
  pk: Uint8Array
  kek: Uint8Array
  db: Uint8Array
  dbx: Uint8Array
}

export interface FirmwareState extends Partial<FirmwareKeys> {
  /** No platform key is enrolled: anyone may write the others. */
  setupMode: boolean
  /** The firmware starts signed programs only. */
  secureBoot: boolean
}

// biome-ignore format: table
const KEYS: readonly [key: keyof FirmwareKeys, name: string, vendor: string][] = [
  ['db',  'db',  IMAGE_SECURITY_DATABASE],
  ['dbx', 'dbx', IMAGE_SECURITY_DATABASE],
  ['kek', 'KEK', GLOBAL_VARIABLE],
  ['pk',  'PK',  GLOBAL_VARIABLE], // the last: it ends setup mode
]

/** Reads the state from a file of variables whose machine has stopped. */
export async function readFirmwareKeys(file: string): Promise<FirmwareState> {
  return firmwareState(await readFile(file))
}

export function firmwareState(flash: Uint8Array): FirmwareState {
  const variables = decodeVariables(flash)
  const find = (name: string, vendor: string) => variables.find((v) => v.name === name && v.vendor === vendor)?.data
  const keys: Partial<FirmwareKeys> = {}
  for (const [key, name, vendor] of KEYS) {
    const data = find(name, vendor)
    if (data && data.length > 0) keys[key] = data
  }
  const setupMode = !keys.pk
  // The firmware turns enforcement on when a platform key arrives, and notes only a user's wish to the contrary.
  return { setupMode, secureBoot: !setupMode && find('SecureBootEnable', SECURE_BOOT_ENABLE)?.[0] !== 0, ...keys }
}

/**
 * A store as if these keys had been enrolled at `time`: its machine enforces Secure Boot from its first start. What else the
 * template holds, such as boot options, stays.
 */
export function enrolledVariables(
  template: Uint8Array,
  keys: Omit<FirmwareKeys, 'dbx'> & Partial<FirmwareKeys>,
  time: Date,
): Uint8Array {
  const attributes = NON_VOLATILE | BOOT_SERVICE | RUNTIME | TIME_AUTHENTICATED
  const enrolled = KEYS.flatMap(([key, name, vendor]): Variable[] => {
    const data = keys[key]
    return data ? [{ name, vendor, attributes, time, data }] : []
  })
  const enable: Variable = {
    name: 'SecureBootEnable',
    vendor: SECURE_BOOT_ENABLE,
    attributes: NON_VOLATILE | BOOT_SERVICE,
    data: Uint8Array.of(1),
  }
  const isOurs = ({ name, vendor }: Variable) =>
    (name === enable.name && vendor === enable.vendor) || KEYS.some(([, key, owner]) => name === key && vendor === owner)
  return encodeVariables(template, [...decodeVariables(template).filter((one) => !isOurs(one)), ...enrolled, enable])
}
