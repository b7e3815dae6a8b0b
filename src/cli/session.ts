/** What every verb is handed, and what it gives back. */
import type { Report } from '../base/report.ts'
import type { Env } from '../build/env.ts'
import type { Network } from '../packages/http.ts'

export interface Session {
  report: Report
  /** Root of the cache. */
  cache: string
  /** The caller's environment. */
  environment: Readonly<Record<string, string | undefined>>
  /** Aborted by Ctrl-C. Who listens gets a moment to end; without listeners the process ends at once. */
  signal: AbortSignal
  /** Whether to colour what is printed at the end. */
  color: boolean
  /** Takes away what is drawn on the terminal, before something else prints there. */
  leaveTerminal(): void
  /** Whether a person reads along: an interactive verb may take over the terminal. */
  json: boolean
}

export interface Outcome {
  /** The last line of `--json`. */
  result: Readonly<Record<string, unknown>>
  /** What a person sees at the end. */
  text?: string
  exitCode?: number
}

export type Run<Options> = (options: Options, session: Session) => Promise<Outcome>

/** What stages need, with the store opened. */
export async function openEnv({ cache, report, environment }: Session, { offline = false } = {}): Promise<Env> {
  const { openStore } = await import('../store/store.ts')
  return { cache, store: await openStore(cache), report, now: new Date(), offline, network: proxies(environment), environment }
}

/** The proxies curl and apt would use. Upper-case HTTP_PROXY is left out: a web server's client could set it. */
function proxies(environment: Session['environment']): Partial<Network> {
  const { http_proxy, https_proxy, HTTPS_PROXY, no_proxy, NO_PROXY } = environment
  const found = { httpProxy: http_proxy, httpsProxy: https_proxy ?? HTTPS_PROXY, noProxy: no_proxy ?? NO_PROXY }
  return Object.fromEntries(Object.entries(found).filter(([, value]) => value))
}
