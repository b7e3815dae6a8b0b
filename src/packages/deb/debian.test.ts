import assert from 'node:assert/strict'
import { test } from 'node:test'
import { readKeys } from 'openpgp'
import { type DebianOptions, debianRepositories } from './debian.ts'

const ids = (options: Omit<DebianOptions, 'architecture'>) =>
  debianRepositories({ architecture: 'amd64', ...options }).map((repository) => repository.id)

test('debianRepositories() names what a system of that release would', () => {
  assert.deepEqual(ids({ release: 'trixie' }), ['trixie', 'trixie-updates', 'trixie-security'])
  assert.deepEqual(ids({ release: 'trixie', updates: false, security: false, backports: true }), ['trixie', 'trixie-backports'])
  assert.deepEqual(ids({ release: 'sid' }), ['sid'])
})

test('debianRepositories() takes mirrors and components, and prefers backports to nothing', () => {
  const repositories = debianRepositories({
    release: 'trixie',
    architecture: 'arm64',
    mirror: 'https://mirror.example/debian',
    securityMirror: 'https://mirror.example/security',
    components: ['main', 'non-free-firmware'],
    backports: true,
  })
  assert.deepEqual(
    repositories.map((r) => [r.suite, r.url, r.priority]),
    [
      ['trixie', 'https://mirror.example/debian', 500],
      ['trixie-updates', 'https://mirror.example/debian', 500],
      ['trixie-security', 'https://mirror.example/security', 500],
      ['trixie-backports', 'https://mirror.example/debian', 100],
    ],
  )
  assert.ok(repositories.every((r) => r.architecture === 'arm64' && r.components.length === 2 && r.format === 'deb'))
})

test('debianRepositories() lets the security keys sign the security archive only', async () => {
  const owners = async (keyring: Uint8Array) => {
    const blocks = Buffer.from(keyring)
      .toString()
      .split(/(?=-----BEGIN)/)
    const keys = await Promise.all(blocks.map((armoredKeys) => readKeys({ armoredKeys })))
    return keys.flat().map((key) => key.getUserIDs()[0]!)
  }
  const [trixie, updates, security] = debianRepositories({ release: 'trixie', architecture: 'amd64' })
  const of = (name: RegExp) => (owner: string) => name.test(owner)
  assert.ok((await owners(trixie!.keyring)).every(of(/^Debian (Archive Automatic Signing|Stable Release) Key/)))
  assert.ok((await owners(updates!.keyring)).every(of(/^Debian Archive Automatic Signing Key/)))
  assert.ok((await owners(security!.keyring)).every(of(/^Debian Security Archive Automatic Signing Key/)))
})
