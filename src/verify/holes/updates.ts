/** systemd-sysupdate: what an update must be signed by, and how it comes. */
import { createHash } from 'node:crypto'
import type { Finding } from '../link.ts'
import type { SystemFacts } from './facts.ts'
import { configFiles, configFolders, type Files, parseUnit, shown } from './files.ts'

const KEYRINGS = ['etc/systemd/import-pubring', 'usr/share/factory/etc/systemd/import-pubring', 'usr/lib/systemd/import-pubring']
const MAX_KEYRING_BYTES = 4 << 20

export function checkUpdates({ files }: SystemFacts, { evidence, wrong }: Finding): void {
  if (!files) {
    evidence('not known: the file system cannot be read')
    return
  }
  const transfers = transfersOf(files)
  if (transfers.length === 0) {
    evidence('no transfers: the system does not update itself')
    return
  }
  const keys = keysOf(files)
  const remote = transfers.filter(({ remote }) => remote)
  for (const { path, verify, address } of remote) {
    if (!verify)
      wrong(
        `${shown(files, path)}: Verify=no takes whatever ${address || 'its source'} says`,
        'remove Verify=no, and put the key of SHA256SUMS.gpg into /usr/lib/systemd/import-pubring.pgp',
      )
    if (/^http:/i.test(address))
      evidence(`${path.slice(path.lastIndexOf('/') + 1)} comes over plain http: only the signature guards it`)
  }
  if (remote.some(({ verify }) => verify) && keys.length === 0)
    wrong(
      'updates must be signed, and there is no keyring to check them by',
      'put the key of SHA256SUMS.gpg into /usr/lib/systemd/import-pubring.pgp',
    )
  const local = transfers.length - remote.length
  evidence(`${transfers.length} transfers${local > 0 ? `, ${local} from local files` : ''}`)
  if (keys.length > 0) evidence(`signed by ${keys.join(' or ')}`)
}

interface Transfer {
  path: string
  remote: boolean
  verify: boolean
  address: string
}

function transfersOf(files: Files): Transfer[] {
  const components = configFolders('').flatMap((folder) =>
    files.names(folder.replace(/\/$/, '')).filter((name) => /^sysupdate(?:\..+)?\.d$/.test(name)),
  )
  return [...new Set(['sysupdate.d', ...components])].flatMap((name) =>
    [...configFiles(files, configFolders(name), '.transfer'), ...configFiles(files, configFolders(name), '.conf')].flatMap(
      ({ path, text }): Transfer[] => {
        const lines = parseUnit(text)
        const value = (section: string, key: string) =>
          lines.findLast((one) => one.section === section && one.key === key)?.value ?? ''
        if (value('Source', 'Type') === '') return []
        return [
          {
            path,
            remote: value('Source', 'Type').startsWith('url-'),
            verify: !/^(?:0|n|no|f|false|off)$/i.test(value('Transfer', 'Verify')),
            address: value('Source', 'Path'),
          },
        ]
      },
    ),
  )
}

/** Fingerprints of the keys that count; the first keyring that is there does. */
function keysOf(files: Files): string[] {
  for (const name of KEYRINGS) {
    for (const suffix of ['.pgp', '.gpg']) {
      const bytes = files.bytes(`${name}${suffix}`, MAX_KEYRING_BYTES)
      if (bytes) return fingerprints(bytes)
    }
  }
  return []
}

/** Of the primary keys in a binary keyring (RFC 9580, 4.2 and 5.5.4). */
export function fingerprints(bytes: Uint8Array): string[] {
  // Lengths may be read beyond the end; what they say is held against it.
  const buffer = Buffer.concat([bytes, Buffer.alloc(6)])
  const found: string[] = []
  for (let at = 0; at < bytes.length; ) {
    const packet = packetAt(buffer, at)
    if (!packet || packet.end > bytes.length) break
    if (packet.tag === 6) found.push(fingerprintOf(packet.body))
    at = packet.end
  }
  return found
}

function fingerprintOf(body: Buffer): string {
  const head = Buffer.alloc(body[0] === 4 ? 3 : 5)
  head[0] = body[0] === 4 ? 0x99 : 0x9b
  if (body[0] === 4) head.writeUInt16BE(body.length & 0xffff, 1)
  else head.writeUInt32BE(body.length, 1)
  return createHash(body[0] === 4 ? 'sha1' : 'sha256')
    .update(head)
    .update(body)
    .digest('hex')
    .toUpperCase()
}

function packetAt(buffer: Buffer, at: number): { tag: number; body: Buffer; end: number } | undefined {
  const first = buffer[at]!
  if ((first & 0x80) === 0) return undefined
  const isNew = (first & 0x40) !== 0
  const [length, header] = isNew ? newLength(buffer, at + 1) : oldLength(buffer, at + 1, first & 3)
  const start = at + 1 + header
  if (length === undefined || start + length > buffer.length) return undefined
  return { tag: isNew ? first & 0x3f : (first >> 2) & 0xf, body: buffer.subarray(start, start + length), end: start + length }
}

function newLength(buffer: Buffer, at: number): [number | undefined, number] {
  const first = buffer[at]!
  if (first < 192) return [first, 1]
  if (first < 224) return [((first - 192) << 8) + buffer[at + 1]! + 192, 2]
  return first === 255 ? [buffer.readUInt32BE(at + 1), 5] : [undefined, 1]
}

const oldLength = (buffer: Buffer, at: number, kind: number): [number | undefined, number] =>
  kind === 0
    ? [buffer[at]!, 1]
    : kind === 1
      ? [buffer.readUInt16BE(at), 2]
      : kind === 2
        ? [buffer.readUInt32BE(at), 4]
        : [undefined, 0]
