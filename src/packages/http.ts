/** The wire under downloads: one reply of an HTTP(S) server or of the file system, watched for stalls. */
import { createReadStream } from 'node:fs'
import { stat } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { Agent, type Dispatcher, EnvHttpProxyAgent, errors } from 'undici'
import { Fault } from '../base/fault.ts'

/** How the network is used. The edge fills in the proxies from the environment. */
export interface Network {
  httpProxy?: string
  httpsProxy?: string
  noProxy?: string
  /** A connection that brings nothing for this long is given up. */
  stallTimeoutMs: number
  /** A reply slower than this on average is given up, once it had a minute more than that. */
  minBytesPerSecond: number
  graceMs: number
  /** Attempts after the first one; those that brought a good part do not count. */
  retries: number
  /** Wait before the second attempt; doubled each time. */
  backoffMs: number
  /** Files at a time. */
  parallel: number
}

export const DEFAULT_NETWORK: Network = {
  stallTimeoutMs: 30_000,
  minBytesPerSecond: 4096,
  graceMs: 60_000,
  retries: 4,
  backoffMs: 500,
  parallel: 8,
}

const MAX_REDIRECTS = 5

/** Something between us and the bytes that another attempt may overcome. Never leaves this folder. */
export class Interruption extends Error {}

export interface Reply {
  status: number
  /** Where the reply came from, after redirects. */
  url: string
  header(name: string): string | undefined
  contentLength: number | undefined
  body: AsyncIterable<Uint8Array>
  /** Lets go of the body; the connection serves again if little of it was left. */
  discard(): Promise<void>
}

export interface Wire {
  network: Network
  /** Aborted when the work as a whole has failed: what is under way ends, nothing is tried again. */
  ending: AbortController
  open(url: string, headers: Record<string, string>, signal: AbortSignal): Promise<Reply>
}

/** Runs `body` with connections that are closed when it is done. */
export async function withWire<T>(options: Partial<Network> | undefined, body: (wire: Wire) => Promise<T>): Promise<T> {
  const network = { ...DEFAULT_NETWORK, ...options }
  const agent = agentFor(network)
  try {
    return await body({
      network,
      ending: new AbortController(),
      open: (url, headers, signal) => (url.startsWith('file:') ? openFile(url, headers) : openHttp(agent, url, headers, signal)),
    })
  } finally {
    await agent.destroy()
  }
}

function agentFor(network: Network): Dispatcher {
  const options = {
    connections: network.parallel,
    pipelining: 1,
    headersTimeout: 0, // the watchdog is stricter
    bodyTimeout: 0,
    connect: { timeout: network.stallTimeoutMs },
  }
  if (!network.httpProxy && !network.httpsProxy) return new Agent(options)
  return new EnvHttpProxyAgent({
    ...options,
    httpProxy: network.httpProxy ?? '', // an absent one would be read from the environment
    httpsProxy: network.httpsProxy ?? '',
    noProxy: network.noProxy ?? '',
    proxyTunnel: false, // many proxies allow CONNECT to port 443 only; https is tunnelled anyway
  })
}

async function openHttp(agent: Dispatcher, url: string, headers: Record<string, string>, signal: AbortSignal): Promise<Reply> {
  let at = parsed(url, url)
  for (let hops = 0; hops <= MAX_REDIRECTS; hops++) {
    const reply = await request(agent, at, headers, signal)
    const location = [301, 302, 303, 307, 308].includes(reply.status) ? reply.header('location') : undefined
    if (location === undefined) return reply
    await reply.discard()
    const next = parsed(location, url, at)
    if (at.protocol === 'https:' && next.protocol !== 'https:')
      throw new Fault('fetch', `Cannot fetch ${shown(url)}: it redirects from https to ${shown(next.href)}`)
    at = next
  }
  throw new Fault('fetch', `Cannot fetch ${shown(url)}: more than ${MAX_REDIRECTS} redirects`)
}

function parsed(text: string, url: string, base?: URL): URL {
  const found = URL.parse(text, base?.href)
  if (!found || !/^https?:$/.test(found.protocol))
    throw new Fault(
      'fetch',
      `Cannot fetch ${shown(url)}: ${base ? 'it redirects to' : 'its URL is'} "${text}", expected http or https`,
    )
  return found
}

async function request(agent: Dispatcher, url: URL, headers: Record<string, string>, signal: AbortSignal): Promise<Reply> {
  const got = await agent
    .request({
      origin: url.origin,
      path: url.pathname + url.search,
      method: 'GET',
      headers: { ...credentials(url), ...headers, 'accept-encoding': 'identity', 'user-agent': 'bisque' },
      signal,
    })
    .catch((error) => Promise.reject(interrupted(error, signal, shown(url.href))))
  const header = (name: string) => {
    const value = got.headers[name]
    return Array.isArray(value) ? value[0] : value
  }
  const length = header('content-length')
  return {
    status: got.statusCode,
    url: `${url.origin}${url.pathname}${url.search}`,
    header,
    contentLength: length !== undefined && /^\d{1,15}$/.test(length) ? Number(length) : undefined,
    body: got.body,
    async discard() {
      await got.body.dump({ limit: 1 << 16, signal }).catch(() => {})
    },
  }
}

/** A URL as people may see it: without the name and password in it. */
export const shown = (url: string): string => url.replace(/^([a-z]+:\/\/)[^/@]*@/i, '$1')

function credentials(url: URL): Record<string, string> {
  if (url.username === '') return {}
  const pair = `${decodeURIComponent(url.username)}:${decodeURIComponent(url.password)}`
  return { authorization: `Basic ${Buffer.from(pair).toString('base64')}` }
}

/** A local mirror answers like a server that resumes. */
async function openFile(url: string, headers: Record<string, string>): Promise<Reply> {
  const file = pathOf(url)
  const info = await stat(file).catch(() => undefined)
  const start = Number(/^bytes=(\d+)-$/.exec(headers['range'] ?? '')?.[1] ?? 0)
  const size = info?.isFile() ? info.size : 0
  const status = !info?.isFile() ? 404 : start === 0 ? 200 : start < size ? 206 : 416
  const range = status === 206 ? `bytes ${start}-${size - 1}/${size}` : undefined
  return {
    status,
    url,
    header: (name) => (name === 'content-range' ? range : undefined),
    contentLength: size - start,
    body: status === 200 || status === 206 ? createReadStream(file, { start }) : emptyBody(),
    discard: async () => {},
  }
}

function pathOf(url: string): string {
  try {
    return fileURLToPath(url)
  } catch (cause) {
    throw new Fault('fetch', `Cannot read ${url}: ${(cause as Error).message}`, { cause })
  }
}

async function* emptyBody(): AsyncGenerator<Uint8Array> {}

export interface Watchdog {
  signal: AbortSignal
  /** Passes a body on, and turns what breaks it into an Interruption. */
  guard(body: AsyncIterable<Uint8Array>): AsyncIterable<Uint8Array>
  stop(): void
}

/** Gives up on a reply that stalls, or that would trickle on for much longer than `sizeBytes` can take. */
export function watchdog({ network, ending }: Wire, sizeBytes: number): Watchdog {
  const control = new AbortController()
  const signal = AbortSignal.any([control.signal, ending.signal])
  const bark = (why: string) => control.abort(new Interruption(why))
  const stalled = () => bark(`nothing arrived for ${network.stallTimeoutMs / 1000} s`)
  const slow = () => bark(`it arrives more slowly than ${network.minBytesPerSecond} bytes/s`)
  let stall = setTimeout(stalled, network.stallTimeoutMs)
  const trickle = setTimeout(slow, Math.min(network.graceMs + (sizeBytes / network.minBytesPerSecond) * 1000, 0x7fff_ffff))
  return {
    signal,
    async *guard(body) {
      try {
        for await (const chunk of body) {
          clearTimeout(stall)
          yield chunk
          stall = setTimeout(stalled, network.stallTimeoutMs)
        }
      } catch (error) {
        throw interrupted(error, signal, 'the rest of a reply')
      }
    },
    stop() {
      clearTimeout(stall)
      clearTimeout(trickle)
    },
  }
}

/** Certificates that do not hold are final; every other trouble on the wire may pass. */
function interrupted(error: unknown, signal: AbortSignal, what: string): unknown {
  if (error instanceof Fault || error instanceof Interruption) return error
  if (signal.aborted) return signal.reason
  const { code, message } = (error ?? {}) as NodeJS.ErrnoException
  if (/CERT|SSL|TLS/.test(code ?? '')) return new Fault('fetch', `Cannot fetch ${what}: ${message} (${code})`, { cause: error })
  const known = error instanceof errors.UndiciError || (code !== undefined && /^(E[A-Z_]+|UND_ERR_.*|HPE_.*)$/.test(code))
  return known ? new Interruption(message || code || 'the connection failed', { cause: error }) : error
}
