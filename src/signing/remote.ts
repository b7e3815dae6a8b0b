/**
 * A signer on another machine, over HTTPS. The protocol (docs/signing.md) has two requests:
 *
 *   GET  ADDRESS/certificates/ROLE                                    → { "certificate": PEM }
 *   POST ADDRESS/sign  { role, algorithm, digest, purpose, about? }   → { "signature": base64 }
 *
 * The same request has the same answer, so one that got lost is repeated: after failures of the connection and of the
 * server (5xx), never after a refusal (4xx). Nothing that comes back is believed: certificates are compared with the one
 * at hand, and signatures are checked before anything is made of them.
 */
import { X509Certificate } from 'node:crypto'
import { join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import type { Agent } from 'undici'
import { sha256 } from '../base/digest.ts'
import { Fault } from '../base/fault.ts'
import { loadCertificate, parseCertificate, readPem, readSmall } from './certificate.ts'
import { requireUsable, type SignerUse } from './file.ts'
import type { KeyRole, Signer } from './signer.ts'

export const ALGORITHM = 'rsa-pkcs1-v1_5-sha256'

export interface RemotePlace {
  /** `https://…`, without a name, a password, a query. */
  address: string
  role: KeyRole
  /** PEM file of the certificate, with which the service's is compared. Without it, the service's is taken. */
  certificate: string | undefined
  /** Files that say how to reach the service, where they are there. */
  access: RemoteAccess
}

export interface RemoteAccess {
  /** Holds the bearer token. */
  token?: string | undefined
  /** PEM certificates of the authorities that may vouch for the service: no others may. */
  authorities?: string | undefined
  /** PEM certificate and key of ours. */
  client?: { certificate: string; key: string } | undefined
  /** Folder where these files would be, for hints. */
  directory: string
}

export interface RemoteLimits {
  /** From a request to the end of its answer. */
  timeoutMs: number
  /** The first one and those after it. */
  attempts: number
  /** Wait before the second attempt; doubled each time. */
  backoffMs: number
}

const LIMITS: RemoteLimits = { timeoutMs: 30_000, attempts: 4, backoffMs: 500 }
const MAX_ANSWER_BYTES = 64 << 10

/** Asks the service for the certificate of this role, and refuses one that does not fit. */
export async function loadRemoteSigner(place: RemotePlace, use: SignerUse, limits: Partial<RemoteLimits> = {}): Promise<Signer> {
  const service = await openService(place, { ...LIMITS, ...limits })
  const { role, certificate: file } = place
  const own = file === undefined ? undefined : await loadCertificate(file)
  const { certificate: told } = await service.ask('GET', `certificates/${role}`)
  if (typeof told !== 'string') throw service.fault('format', 'its answer has no certificate', curl(service.base))
  const theirs = parseCertificate(told, `of ${service.name}`)
  if (own !== undefined && !own.raw.equals(theirs.raw))
    throw service.fault(
      'integrity',
      `its certificate for ${role} (sha256 ${sha256(theirs.raw).slice(0, 16)}…) is not the one in ${file} (sha256 ${sha256(own.raw).slice(0, 16)}…)`,
      `openssl x509 -in ${file} -noout -fingerprint -sha256`,
    )
  requireUsable(file ?? `the certificate for ${role} of ${service.name}`, theirs.raw, use)
  return {
    certificate: theirs.raw,
    async sign(digest, purpose, about) {
      if (digest.length !== 32) throw new Error(`a SHA-256 digest has 32 bytes, not ${digest.length}`)
      const request = {
        role,
        algorithm: ALGORITHM,
        digest: Buffer.from(digest).toString('hex'),
        purpose,
        ...(about ? { about } : {}),
      }
      const { signature } = await service.ask('POST', 'sign', request)
      if (typeof signature === 'string' && /^[A-Za-z0-9+/]+={0,2}$/.test(signature)) return Buffer.from(signature, 'base64')
      throw service.fault('format', 'its answer has no signature in base64', curl(service.base))
    },
  }
}

// ── The wire ─────────────────────────────────────────────────────────────────────────────────────────────────────────

interface Service {
  base: string
  name: string
  ask(method: 'GET' | 'POST', path: string, body?: object): Promise<Record<string, unknown>>
  fault(code: ConstructorParameters<typeof Fault>[0], why: string, hint: string, cause?: unknown): Fault
}

async function openService({ address, access }: RemotePlace, limits: RemoteLimits): Promise<Service> {
  const base = addressOf(address)
  const { Agent, request } = await import('undici')
  const { timeoutMs } = limits
  const secret = access.token === undefined ? undefined : await tokenIn(access.token)
  const agent: Agent = new Agent({
    connect: { timeout: Math.min(timeoutMs, 10_000), ...(await tlsOf(access)) },
    headersTimeout: timeoutMs,
    bodyTimeout: timeoutMs,
    connections: 4,
  })
  const service: Service = {
    base,
    name: base,
    fault: (code, why, hint, cause) =>
      new Fault(code, `Cannot sign with ${base}: ${secret ? why.replaceAll(secret, '(token)') : why}`, { hint, cause }),
    async ask(method, path, body) {
      const text = body && JSON.stringify(body)
      const headers = {
        accept: 'application/json',
        ...(secret ? { authorization: `Bearer ${secret}` } : {}),
        ...(text ? { 'content-type': 'application/json', 'idempotency-key': sha256(text) } : {}),
      }
      for (let attempt = 1; ; attempt++) {
        const answer = await attemptOf(async () => {
          const signal = AbortSignal.timeout(timeoutMs)
          const reply = await request(`${base}/${path}`, {
            method,
            headers,
            dispatcher: agent,
            signal,
            ...(text ? { body: text } : {}),
          })
          return { status: reply.statusCode, text: await bounded(reply.body) }
        })
        const again = 'error' in answer ? !isRefusal(answer.error) : answer.status >= 500
        if (again && attempt < limits.attempts) await wait(limits.backoffMs * 2 ** (attempt - 1))
        else if ('error' in answer) throw unreached(service, answer.error, { attempt, access, timeoutMs })
        else return answerIn(service, answer, access, attempt)
      }
    },
  }
  return service
}

type Attempt = { status: number; text: string } | { error: Error }

const attemptOf = (body: () => Promise<{ status: number; text: string }>): Promise<Attempt> =>
  body().catch((error: Error) => ({ error }))

class TooLong extends Error {}

async function bounded(body: AsyncIterable<Uint8Array> & { destroy(): unknown }): Promise<string> {
  const chunks: Uint8Array[] = []
  let size = 0
  for await (const chunk of body) {
    size += chunk.length
    if (size > MAX_ANSWER_BYTES) {
      body.destroy()
      throw new TooLong(`its answer is longer than ${MAX_ANSWER_BYTES} bytes`)
    }
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString('utf8')
}

/** The object in an answer that says yes. */
function answerIn(
  service: Service,
  { status, text }: { status: number; text: string },
  access: RemoteAccess,
  attempts: number,
): Record<string, unknown> {
  const parsed = parsedAs(text)
  if (status === 200 && parsed !== undefined) return parsed
  if (status === 200)
    throw service.fault('format', `its answer is no JSON object: ${JSON.stringify(text.slice(0, 80))}`, curl(service.base))
  const told = typeof parsed?.['error'] === 'string' ? `: ${printable(parsed['error'])}` : ''
  if (status >= 300 && status < 400)
    throw service.fault(
      'usage',
      `it redirects (HTTP ${status}), which signers do not follow`,
      'Write the address it redirects to into the .signer file',
    )
  if (status === 401 || status === 403)
    throw service.fault(
      'usage',
      `it refuses us (HTTP ${status})${told}`,
      `install -m 600 /dev/stdin ${access.token ?? join(access.directory, 'signer.token')}`,
    )
  const tries = status >= 500 ? `, after ${attempts} attempts` : ''
  throw service.fault('fetch', `HTTP ${status}${told}${tries}`, curl(service.base))
}

function parsedAs(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : undefined
  } catch {
    return undefined
  }
}

// ── Failures of the connection ───────────────────────────────────────────────────────────────────────────────────────

const UNTRUSTED = /^(DEPTH_ZERO_|SELF_SIGNED_|UNABLE_TO_|CERT_|ERR_TLS_CERT|INVALID_CA|HOSTNAME_MISMATCH)/
const WANTS_CLIENT =
  /ALERT_(CERTIFICATE_REQUIRED|UNKNOWN_CA|BAD_CERTIFICATE|HANDSHAKE_FAILURE|UNSUPPORTED_CERTIFICATE|CERTIFICATE_UNKNOWN)/

/** A code, or a name where there is only the number of old. */
function codeOf(error: Error): string {
  const { code } = error as NodeJS.ErrnoException
  return typeof code === 'string' ? code : error.name
}

/** Whether another attempt would come to the same. */
const isRefusal = (error: Error): boolean =>
  error instanceof TooLong || UNTRUSTED.test(codeOf(error)) || WANTS_CLIENT.test(codeOf(error))

function unreached(service: Service, error: Error, about: { attempt: number; access: RemoteAccess; timeoutMs: number }): Fault {
  const { attempt, access, timeoutMs } = about
  const code = codeOf(error)
  const { hostname, port } = new URL(service.base)
  const inFolder = (name: string) => join(access.directory, name)
  const show = `openssl s_client -connect ${hostname}:${port || 443} -showcerts </dev/null`
  if (error instanceof TooLong) return service.fault('format', error.message, curl(service.base))
  if (UNTRUSTED.test(code)) {
    const who = access.authorities
      ? `the authorities in ${access.authorities} do not vouch for it`
      : 'its certificate is not trusted'
    return service.fault('integrity', `${who} (${code})`, `${show}, and its authority into ${inFolder('signer.ca.crt')}`, error)
  }
  if (WANTS_CLIENT.test(code)) {
    const ours = access.client ? `it refuses our certificate ${access.client.certificate}` : 'it wants a certificate of ours'
    return service.fault(
      'usage',
      `${ours} (${code})`,
      `Put ours into ${inFolder('signer.client.crt')} and ${inFolder('signer.client.key')}`,
      error,
    )
  }
  const slow = /TIMEOUT|TimeoutError|AbortError/i.test(code)
  if (/UND_ERR_SOCKET|ECONNRESET|EPIPE/.test(code) && access.client === undefined) {
    const why = `it ends the connection without an answer (${code}), ${attempt} attempts`
    return service.fault(
      'fetch',
      why,
      `${curl(service.base)}; where it wants a certificate of ours, put it into ${inFolder('signer.client.crt')}`,
      error,
    )
  }
  const why = slow ? `it did not answer within ${timeoutMs / 1000} s` : `no connection (${code})`
  return service.fault('fetch', `${why}, ${attempt} attempts`, curl(service.base), error)
}

const curl = (base: string) => `curl -v ${base}/certificates/db`

// ── What is set up beforehand ────────────────────────────────────────────────────────────────────────────────────────

function addressOf(address: string): string {
  const url = URL.parse(address)
  const refuse = (why: string, hint: string) => new Fault('usage', `Cannot sign with a remote signer: ${why}`, { hint })
  if (url?.protocol === 'http:')
    throw refuse(`${url.host} would be asked without encryption`, address.replace(/^http:/i, 'https:'))
  if (url?.protocol !== 'https:') throw refuse('its address is no https:// URL', 'https://signer.example/keys')
  if (url.username !== '' || url.password !== '')
    throw refuse('its address has a name or password in it, which would be seen in logs', `https://${url.host}${url.pathname}`)
  if (url.search !== '' || url.hash !== '') throw refuse('its address has a query', `https://${url.host}${url.pathname}`)
  return `https://${url.host}${url.pathname.replace(/\/+$/, '')}`
}

async function tokenIn(path: string): Promise<string> {
  const token = (await readSmall(path, { secret: true, kind: 'token' })).trim()
  if (/^[\x21-\x7e]{1,4096}$/.test(token)) return token
  throw new Fault('format', `Cannot read token ${path}: expected one line of printable characters`)
}

async function tlsOf({ authorities, client }: RemoteAccess): Promise<object> {
  if (authorities !== undefined) checkAuthorities(await readPem(authorities, { secret: false }), authorities)
  return {
    ...(authorities === undefined ? {} : { ca: await readPem(authorities, { secret: false }) }),
    ...(client === undefined
      ? {}
      : { cert: await readPem(client.certificate, { secret: false }), key: await readPem(client.key, { secret: true }) }),
  }
}

/** A file without certificates would stand for no authority at all, or for all. */
function checkAuthorities(text: string, path: string): void {
  const found = text.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? []
  try {
    if (found.length === 0) throw new Error('it holds no PEM certificate')
    for (const pem of found) new X509Certificate(pem)
  } catch (cause) {
    throw new Fault('format', `Cannot read authorities ${path}: ${(cause as Error).message}`, { cause })
  }
}

const printable = (text: string) => text.replace(/[\x00-\x1f\x7f-\x9f]/g, '?').slice(0, 200)
