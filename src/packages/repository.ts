/** Repository: where packages come from, and which keys may vouch for them. */
export interface Repository {
  /** Short stable name, used in the lock: `trixie`, `trixie-updates`, `trixie-security`. */
  id: string
  format: 'deb' | 'rpm' | 'alpm'
  /** Base URL without a trailing slash, e.g. `http://deb.debian.org/debian`. `file:` and a path beside the recipe for a folder. */
  url: string
  /** deb: suite under `dists/`; a path that ends in `/` is a flat repository. */
  suite: string
  components: readonly string[]
  architecture: string
  /** Armored or binary OpenPGP certificates; only these may sign the metadata. */
  keyring: Uint8Array
  /** Higher wins when several repositories offer a package; apt's default is 500. */
  priority: number
  /** Base URL of a snapshot service, with `{timestamp}` where `20261123T000000Z` goes. */
  snapshotUrl?: string
  /** Folder of packages of this machine, which nobody signs: they are pinned by digest alone. */
  directory?: string
  /** Accept metadata past its Valid-Until (frozen archives). */
  allowExpired?: boolean
}
