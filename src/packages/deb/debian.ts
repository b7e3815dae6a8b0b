/** Debian's own archives, each with the keys that may sign it and nobody else's. */
import { readFileSync } from 'node:fs'
import type { Repository } from '../repository.ts'

export interface DebianOptions {
  /** Codename (`trixie`, `forky`, `sid`) or suite (`stable`, `testing`, `unstable`). */
  release: string
  architecture: string
  mirror?: string
  securityMirror?: string
  components?: readonly string[]
  updates?: boolean
  security?: boolean
  backports?: boolean
}

export const DEBIAN_MIRROR = 'http://deb.debian.org/debian'
export const DEBIAN_SECURITY_MIRROR = 'http://security.debian.org/debian-security'
const SNAPSHOT = 'https://snapshot.debian.org/archive/debian/{timestamp}'
const SECURITY_SNAPSHOT = 'https://snapshot.debian.org/archive/debian-security/{timestamp}'

/** From the package debian-archive-keyring 2025.1; a suite is signed by the keys of the release before, too. */
const ARCHIVE_KEYS = ['bookworm-automatic', 'trixie-automatic']
const STABLE_KEYS = ['bookworm-stable', 'trixie-stable']
const SECURITY_KEYS = ['bookworm-security-automatic', 'trixie-security-automatic']

/** The repositories of a Debian release, as `sources.list` on such a system would name them. */
export function debianRepositories(options: DebianOptions): Repository[] {
  const { release } = options
  const moving = ['sid', 'unstable', 'experimental', 'rc-buggy'].includes(release)
  const shared = { format: 'deb', components: options.components ?? ['main'], architecture: options.architecture } as const
  const archive = (suite: string, priority: number): Repository => ({
    ...shared,
    id: suite,
    url: options.mirror ?? DEBIAN_MIRROR,
    suite,
    keyring: keyring(suite === release ? [...ARCHIVE_KEYS, ...STABLE_KEYS] : ARCHIVE_KEYS),
    priority,
    snapshotUrl: SNAPSHOT,
  })
  const repositories = [archive(release, 500)]
  if (options.updates ?? !moving) repositories.push(archive(`${release}-updates`, 500))
  if (options.security ?? !moving) {
    repositories.push({
      ...shared,
      id: `${release}-security`,
      url: options.securityMirror ?? DEBIAN_SECURITY_MIRROR,
      suite: `${release}-security`,
      keyring: keyring(SECURITY_KEYS),
      priority: 500,
      snapshotUrl: SECURITY_SNAPSHOT,
    })
  }
  if (options.backports ?? false) repositories.push(archive(`${release}-backports`, 100))
  return repositories
}

/** The keys of all of Debian's archives. */
export const debianKeyring = (): Uint8Array => keyring([...ARCHIVE_KEYS, ...STABLE_KEYS, ...SECURITY_KEYS])

const keyring = (names: readonly string[]): Uint8Array =>
  Buffer.concat(names.map((name) => readFileSync(new URL(`keys/debian-${name}.asc`, import.meta.url))))
