/** What must not be the same on every machine, nor be read by whoever has the image: private keys and identities. */
import type { Finding } from '../link.ts'
import { allFiles, type SystemFacts } from './facts.ts'
import { type Files, shown, some, textOf } from './files.ts'

const MAX_KEY_FILE_BYTES = 256 << 10
/** All small files are looked into; a hostile image may have any number. */
const MAX_READ_BYTES = 512 << 20
const BLOCK = /-----BEGIN ((?:[A-Z0-9]+ )*PRIVATE KEY)-----([^-]{60,})-----END \1-----/

export function checkSecrets(facts: SystemFacts, { evidence, wrong }: Finding): void {
  const keys: string[] = []
  let read = 0
  for (const files of allFiles(facts)) {
    for (const [path, { type, sizeBytes }] of files.entries) {
      if (type !== 'file' || sizeBytes > MAX_KEY_FILE_BYTES || sizeBytes < 100 || NEVER.test(path)) continue
      read += sizeBytes
      if (read > MAX_READ_BYTES) break
      const bytes = files.bytes(path, MAX_KEY_FILE_BYTES)
      if (bytes && isPrivateKey(bytes)) keys.push(shown(files, path))
    }
  }
  evidence(`no private key in ${Math.round(read / 2 ** 20)} MiB of small files`)
  if (read > MAX_READ_BYTES) wrong('there are more small files than are looked into', 'leave them out')
  if (keys.length > 0)
    wrong(
      `private keys that whoever has the image can use: ${some(keys)}`,
      `remove ${keys[0]!.replace(/ of .*/, '')}, and hold the key for known to everyone`,
    )
}

/** Modules and indexes are many, and hold no text. */
const NEVER = /\.(?:ko(?:\.\w+)?|gz|xz|zst|mo|pyc|bin|png)$|^usr\/share\/(?:man|locale|zoneinfo)\//

/** A whole block in a text: programs that make or read keys have its first line in them. */
function isPrivateKey(bytes: Uint8Array): boolean {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
  if (!buffer.includes(' KEY-----') || buffer.includes(0)) return false
  const body = BLOCK.exec(buffer.toString('latin1'))?.[2]
  return body !== undefined && /^(?:[\w+/=\s]|[A-Za-z-]+: [^\n]*\n)+$/.test(body)
}

/** Identity is made on first boot: one that comes with the image is everybody's. */
export function checkIdentity(facts: SystemFacts, { evidence, wrong }: Finding): void {
  for (const files of allFiles(facts)) {
    for (const path of ['etc/machine-id', 'usr/share/factory/etc/machine-id', 'usr/etc/machine-id', 'usr/lib/machine-id']) {
      const id = textOf(files, path, 4096)?.trim()
      if (id !== undefined && /^[0-9a-f]{32}$/.test(id))
        wrong(`${shown(files, path)} is set: every machine is the same`, `write uninitialized into /${path}, or remove it`)
    }
    for (const path of SEEDS)
      if (hasContent(files, path))
        wrong(`${shown(files, path)} comes with the image: it is no secret on any machine`, `remove /${path}`)
  }
  evidence('made on first boot')
}

// biome-ignore format: table
const SEEDS = ['var', 'usr/share/factory/var'].flatMap((folder) => [
  `${folder}/lib/systemd/random-seed`, `${folder}/lib/systemd/credential.secret`, `${folder}/lib/systemd/tpm2-srk-public-key.pem`,
])

const hasContent = (files: Files, path: string): boolean =>
  (files.entries.get(path)?.sizeBytes ?? 0) > 0 && files.entries.get(path)!.type === 'file'
