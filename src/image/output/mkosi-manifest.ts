/**
 * `NAME.manifest` in mkosi's format: the packages of an image and their sizes, for tools that read what mkosi writes.
 *
 * Spec:   mkosi(1), `ManifestFormat=json`; https://systemd.io/COREDUMP_PACKAGE_METADATA (keys of a package)
 * Limits: Debian's packages; no `changelog`, for which the changelogs of all source packages would be fetched
 */

export interface InstalledPackage {
  name: string
  version: string
  architecture: string
  /** Of the source package, for the order of packages of one name. */
  source: string
  /** Space its files take, by its own word. */
  sizeBytes: number
}

export interface MkosiManifest {
  name: string
  distribution: string
  architecture: string
  format: string
  version?: string | undefined
  release: string
  packages: readonly InstalledPackage[]
  /** What the release file of an extension says. */
  extension: ReadonlyMap<string, string>
}

export function formatMkosiManifest(manifest: MkosiManifest): string {
  const { name, distribution, architecture, format, version, release, packages, extension } = manifest
  const value = {
    manifest_version: 1,
    config: { name, distribution, architecture, output_format: format, ...(version === undefined ? {} : { version }), release },
    packages: packages.toSorted(inOrder).map((p) => ({
      type: 'deb',
      name: p.name,
      version: p.version,
      architecture: p.architecture,
      size: p.sizeBytes,
    })),
    extension: Object.fromEntries(extension),
  }
  return JSON.stringify(value, null, 2).replace(/[\x7f-\uffff]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`)
}

/** By name; packages of one name by their source, version and architecture. */
function inOrder(a: InstalledPackage, b: InstalledPackage): number {
  for (const key of ['name', 'source', 'version', 'architecture'] as const) if (a[key] !== b[key]) return a[key] < b[key] ? -1 : 1
  return 0
}
