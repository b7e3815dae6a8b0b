/**
 * The signers of an image, each from what the folder of keys holds for its role: the key (`ROLE.key`), the address of where
 * it is kept (`ROLE.signer`: `pkcs11:…` or `https://…`), or the certificate alone, for keys that sign elsewhere, later.
 */
import { existsSync } from 'node:fs'
import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { Fault } from '../base/fault.ts'
import { loadCertificate, readSmall } from './certificate.ts'
import { loadFileSigner, requireUsable } from './file.ts'
import { loadPkcs11Signer, openTokens, type Tokens } from './pkcs11.ts'
import { isPkcs11Uri } from './pkcs11-uri.ts'
import type { RemoteLimits } from './remote.ts'
import { KEY_ROLES, type KeyRole, type Signer, type Signers } from './signer.ts'

export interface LoadOptions {
  /** The image's time, seconds since 1970: certificates must not have expired then. */
  epoch: number
  /** The caller's environment: for PKCS#11 modules, and for their PIN (`BISQUE_PIN`). */
  environment?: Readonly<Record<string, string | undefined>>
  /** Tokens that are open already. */
  tokens?: Tokens
  /** How long remote signers are waited for. */
  remote?: Partial<RemoteLimits>
  /** Signs for the roles of which the folder holds the certificate alone. Without it, such a role is refused. */
  offline?: (role: KeyRole, certificate: Uint8Array, successor?: true) => Signer
}

/** Folder of the keys that are to take over, for some of the roles; there while a rotation is open. */
export const NEXT_FOLDER = 'next'
/** What it is called while its keys are put into their places. */
export const FINISHING_FOLDER = 'finishing'

/** The signers of an image made at `epoch`. All that is wrong with them is reported at once. */
export async function loadSigners(directory: string, options: LoadOptions): Promise<Signers> {
  await requireFolder(directory)
  if (existsSync(join(directory, FINISHING_FOLDER)))
    throw new Fault('usage', `Cannot load keys of ${directory}: the end of a rotation was interrupted`, {
      hint: `bisque keys rotate --finish --keys ${directory}`,
    })
  const tokens = options.tokens ?? openTokens(options.environment)
  try {
    const loaded = await allOrFault(KEY_ROLES.map((role) => withSuccessor(directory, role, { ...options, tokens })))
    return Object.fromEntries(KEY_ROLES.map((role, i) => [role, loaded[i]!])) as unknown as Signers
  } catch (error) {
    if (!options.tokens) await tokens.close()
    throw error
  }
}

async function withSuccessor(directory: string, role: KeyRole, options: LoadOptions): Promise<Signer> {
  const next = join(directory, NEXT_FOLDER)
  if (!existsSync(join(next, `${role}.crt`))) return loadSigner(directory, role, options)
  const { offline, ...rest } = options
  const asSuccessor: LoadOptions = offline ? { ...rest, offline: (role, raw) => offline(role, raw, true) } : rest
  const [signer, successor] = await allOrFault([loadSigner(directory, role, options), loadSigner(next, role, asSuccessor)])
  return { ...signer!, successor: successor! }
}

/** The signer of one role. */
export async function loadSigner(directory: string, role: KeyRole, options: LoadOptions): Promise<Signer> {
  const file = (end: string) => join(directory, `${role}.${end}`)
  const [certificate, key, address] = [file('crt'), file('key'), file('signer')]
  const use = { epoch: options.epoch, roles: [role] }
  if (existsSync(key) && existsSync(address))
    throw new Fault('usage', `Cannot load the ${role} key: both ${key} and ${address} are there, expected one of them`)
  if (existsSync(key)) return loadFileSigner({ key, certificate }, use)
  if (existsSync(address)) return await loadAddressed(directory, role, await addressIn(address), options)
  if (!existsSync(certificate)) return loadFileSigner({ key, certificate }, use)
  if (options.offline === undefined)
    throw new Fault('missing', `Cannot read key ${key}: there is no such file, only its certificate`, {
      hint: 'bisque sign prepare --to DIR',
    })
  const { raw } = await loadCertificate(certificate)
  requireUsable(certificate, raw, use)
  return options.offline(role, raw)
}

async function loadAddressed(directory: string, role: KeyRole, address: string, options: LoadOptions): Promise<Signer> {
  /** What a role has of its own, or all roles of the folder share. */
  const beside = (end: string) => [join(directory, `${role}.${end}`), join(directory, `signer.${end}`)]
  const own = join(directory, `${role}.crt`)
  const certificate = existsSync(own) ? own : undefined
  const use = { epoch: options.epoch, roles: [role] }
  if (isPkcs11Uri(address)) {
    const tokens = options.tokens ?? openTokens(options.environment)
    return loadPkcs11Signer({ uri: address, certificate, pinFiles: beside('pin'), directory }, use, tokens)
  }
  if (/^https?:/i.test(address)) {
    const { loadRemoteSigner } = await import('./remote.ts')
    const there = (end: string) => beside(end).find((path) => existsSync(path))
    const [clientCertificate, clientKey] = [there('client.crt'), there('client.key')]
    const client = clientCertificate && clientKey ? { certificate: clientCertificate, key: clientKey } : undefined
    const access = { directory, token: there('token'), authorities: there('ca.crt'), client }
    return loadRemoteSigner({ address, role, certificate, access }, use, options.remote)
  }
  throw new Fault('usage', `Cannot sign with ${join(directory, `${role}.signer`)}: it names neither pkcs11:… nor https://…`)
}

/** The one line of a `.signer` file. */
async function addressIn(path: string): Promise<string> {
  const lines = (await readSmall(path, { secret: false, kind: 'signer' })).split('\n').map((line) => line.trim())
  const [address, ...more] = lines.filter((line) => line !== '' && !line.startsWith('#'))
  if (address === undefined || more.length > 0)
    throw new Fault(
      'format',
      `Cannot read signer ${path}: expected one line, such as pkcs11:token=NAME;object=KEY or https://HOST/PATH`,
    )
  return address
}

/** What all of these come to, or one Fault that says what is wrong with each that failed. */
export async function allOrFault<T>(promises: readonly Promise<T>[]): Promise<T[]> {
  const results = await Promise.allSettled(promises)
  const faults = results.flatMap((result) => (result.status === 'rejected' ? [result.reason as unknown] : []))
  const bug = faults.find((fault) => !(fault instanceof Fault))
  if (bug) throw bug
  const [first] = faults as Fault[]
  if (first === undefined) return results.map((result) => (result as PromiseFulfilledResult<T>).value)
  const message = [...new Set((faults as Fault[]).map((fault) => fault.message))].join('\n')
  const hint = (faults as Fault[]).find((fault) => fault.hint !== undefined)?.hint
  throw new Fault(first.code, message, hint === undefined ? {} : { hint })
}

export async function requireFolder(directory: string): Promise<void> {
  const found = await stat(directory).catch(() => undefined)
  if (!found?.isDirectory())
    throw new Fault('missing', `Cannot load keys: there is no folder ${directory}`, {
      hint: `bisque keys generate --keys ${directory}`,
    })
}
