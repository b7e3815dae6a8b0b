/** The process that a PKCS#11 module is loaded into: it may crash or hang there without harm. */
import { writeSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { findKey, type PrivateKey, sign } from './pkcs11-key.ts'
import { loadModule, type Module } from './pkcs11-module.ts'
import { findCertificate } from './pkcs11-object.ts'
import { ANSWER, type Pkcs11Key, type Pkcs11Request, Trouble } from './pkcs11-protocol.ts'
import { findToken, openSession, type Session } from './pkcs11-token.ts'

/** Serves requests until standard input ends. */
export async function serve(): Promise<void> {
  let opened: Opened | undefined
  for await (const line of createInterface({ input: process.stdin })) {
    const { id, path, ...request } = JSON.parse(line) as { id: number; path: string } & Pkcs11Request
    let answer: object
    try {
      opened ??= { module: loadModule(path), sessions: new Map(), keys: [] }
      answer = { id, result: handle(opened, request) }
    } catch (error) {
      answer = { id, problem: error instanceof Trouble ? error.problem : { why: 'module', detail: (error as Error).message } }
    }
    writeSync(1, `\n${ANSWER}${JSON.stringify(answer)}\n`)
  }
}

/** What later requests come back to. */
interface Opened {
  module: Module
  /** By slot. */
  sessions: Map<number, Session>
  keys: PrivateKey[]
}

function handle({ module, sessions, keys }: Opened, request: Pkcs11Request): object {
  if (request.op === 'sign') {
    const key = keys[request.key]
    if (key === undefined) throw new Trouble({ why: 'call', detail: 'no such key' })
    return { signature: sign(key, Buffer.from(request.digestInfo, 'hex')).toString('hex') }
  }
  const session = openSession(module, findToken(module, request.query), request.pin, sessions)
  if (request.op === 'certificate') return { certificate: findCertificate(session, request.query).toString('base64') }
  const key = findKey(session, request.query)
  const { label: token, serial } = session.token
  const { label, id, modulus } = key
  return { key: keys.push(key) - 1, token, serial, label, id, modulus: modulus.toString('hex') } satisfies Pkcs11Key
}
