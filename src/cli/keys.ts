/** `bisque keys generate|show`: makes the keys of an image, and says what is in a folder of them. */
import { generateKeys, type KeyInfo, showKeys } from '../signing/keys.ts'

export interface KeysGenerateOptions {
  /** Folder of the keys. */
  keys: string
  commonName: string
  years: number
  /** Seconds since 1970. */
  now: number
}

export interface KeysResult {
  directory: string
  keys: KeyInfo[]
}

export async function keysGenerate(options: KeysGenerateOptions): Promise<KeysResult> {
  const { keys: directory, ...plan } = options
  return { directory, keys: await generateKeys(directory, plan) }
}

export async function keysShow(options: { keys: string }): Promise<KeysResult> {
  return { directory: options.keys, keys: await showKeys(options.keys) }
}

/** The result for people, one key a line: `db  signs what…` with what identifies the certificate below it. */
export function keysLines({ directory, keys }: KeysResult): string[] {
  const width = Math.max(...keys.map(({ role }) => role.length))
  const indent = ' '.repeat(width + 2)
  return [
    `Keys in ${directory}`,
    ...keys.flatMap((key) => [
      `${key.role.padEnd(width)}  ${key.purpose}`,
      `${indent}${key.subject}, ${day(key.notBefore)} to ${day(key.notAfter)}${key.hasKey ? '' : ', private key not here'}`,
      `${indent}SHA-256 ${key.fingerprint}`,
    ]),
  ]
}

const day = (seconds: number) => new Date(seconds * 1000).toISOString().slice(0, 10)
