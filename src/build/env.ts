/** What every stage is handed besides its inputs: where blobs lie, who signs, whom to tell, and what time it is. */
import type { Report } from '../base/report.ts'

export interface Env {
  /** Root of the cache; the store and the work folders lie in it. */
  cache: string
  report: Report
}
