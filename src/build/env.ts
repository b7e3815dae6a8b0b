/** What every stage is handed besides its inputs: where blobs lie, whom to tell, what time it is, how to reach the network. */
import type { Report } from '../base/report.ts'
import type { Network } from '../packages/http.ts'
import type { Store } from '../store/store.ts'

export interface Env {
  /** Root of the cache: the store, tools trees and work folders lie in it. */
  cache: string
  store: Store
  report: Report
  /** The moment repositories' metadata must be valid at. Never enters an image. */
  now: Date
  /** Use what is cached and nothing else. */
  offline: boolean
  network?: Partial<Network>
  /** The caller's environment, for the modules of tokens that hold keys. */
  environment?: Readonly<Record<string, string | undefined>>
}
