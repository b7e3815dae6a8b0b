/** Hashing 120 MiB into a dm-verity tree and checking it, against `veritysetup format` and `veritysetup verify`. */
import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { verifyVerity, writeVerity } from '../src/image/verity.ts'
import { best, timePeer } from './peer.ts'

export const name = 'verity'

const MEBIBYTES = 120

export async function run(): Promise<void> {
  const dir = mkdtempSync(join(tmpdir(), 'bisque-bench-'))
  try {
    const [data, hash, theirs] = [join(dir, 'data'), join(dir, 'hash'), join(dir, 'theirs')]
    fill(data)
    const salt = new Uint8Array(32).fill(0xaa)
    const options = { salt, uuid: '11111111-2222-3333-4444-555566667777' }
    const { rootHash } = await writeVerity(data, hash, options)
    const format = await best(() => writeVerity(data, hash, options))
    const verify = await best(() => verifyVerity(data, hash, rootHash))
    const rate = (ms: number) => `${Math.round(ms)} ms (${Math.round((MEBIBYTES * 1.048576e3) / ms)} MB/s)`
    console.log(`verity: ${MEBIBYTES} MiB\n  format ${rate(format)}, verify ${rate(verify)}`)
    const peerFormat = timePeer('veritysetup', ['format', `--salt=${Buffer.from(salt).toString('hex')}`, data, theirs])
    const peerVerify = timePeer('veritysetup', ['verify', data, hash, rootHash])
    if (peerFormat === undefined || peerVerify === undefined) return
    const ratio = `format ×${(format / peerFormat).toFixed(2)}, verify ×${(verify / peerVerify).toFixed(2)}`
    console.log(`  veritysetup: format ${rate(peerFormat)}, verify ${rate(peerVerify)}; ${ratio}`)
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }
}

function fill(path: string): void {
  const mebibyte = new Uint32Array(1 << 18)
  const fd = openSync(path, 'w')
  for (let n = 0; n < MEBIBYTES; n++) {
    for (let i = 0; i < mebibyte.length; i++) mebibyte[i] = Math.imul(i + n, 2654435761)
    writeSync(fd, mebibyte)
  }
  closeSync(fd)
}
