/** Repository: where packages come from, and which keys may vouch for them. */
export interface Repository {
  /** Short stable name, used in the lock: `trixie`, `trixie-updates`, `trixie-security`. */
  id: string
  format: 'deb' | 'rpm' | 'alpm'
  /** Base URL without a trailing slash, e.g. `http://deb.debian.org/debian`. */
  url: string
  /** deb: suite under `dists/`. */
  suite: string
  components: readonly string[]
  architecture: string
  /** Armored or binary OpenPGP certificates; only these may sign the metadata. */
  keyring: Uint8Array
  /** Higher wins when several repositories offer a package; apt's default is 500. */
  priority: number
  /** Base URL of a snapshot service, with `{timestamp}` where `20261123T000000Z` goes. */
  snapshotUrl?: string
  /** Accept metadata past its Valid-Until (frozen archives). */
  allowExpired?: boolean
}
