/**
 * Debian binary packages.
 *
 * Spec:   deb(5), deb-control(5), deb-conffiles(5), deb-triggers(5) — https://manpages.debian.org/trixie/dpkg-dev/deb.5.en.html
 * Oracle: `dpkg-deb --info`, `dpkg-deb --contents`, `dpkg-deb --build`
 * Limits: format 2.0; members compressed with xz, zstd, gzip or not at all (no bzip2, no lzma).
 *
 * A `.deb` is an ar archive: `debian-binary`, `control.tar.*`, `data.tar.*`; members whose names begin with `_` mean nothing.
 */
import { Readable } from 'node:stream'
import { createGunzip, createZstdDecompress } from 'node:zlib'
import { createUnxz, parseFileIndex } from 'node-liblzma'
import { Fault } from '../base/fault.ts'
import { formatSize } from '../base/size.ts'
import { type ArMember, decodeAr } from './ar.ts'
import { field, parseStanza, type Stanza } from './deb822.ts'
import { decodeTar } from './tar.ts'

export type Compression = 'none' | 'gzip' | 'xz' | 'zstd'

export interface Deb {
  fields: Stanza
  /** The files of control.tar by name: `control`, `md5sums`, `postinst`… */
  control: ReadonlyMap<string, { mode: number; bytes: Uint8Array }>
  conffiles: readonly string[]
  triggers: readonly Trigger[]
  data: { compression: Compression; bytes: Uint8Array }
}

export interface Trigger {
  verb: 'interest' | 'activate'
  /** Does whoever activates it wait until it was processed? */
  await: boolean
  /** A name, or an absolute path. */
  name: string
}

const MOST_CONTROL_BYTES = 16 << 20
/** Real packages stay far below this ratio; what lies above is a bomb. */
const MOST_RATIO = 200

/** Reads all but the data, which `dataOf` streams. */
export async function decodeDeb(bytes: Uint8Array): Promise<Deb> {
  const { control, data } = membersOf(bytes)
  const files = await controlFiles(control)
  const text = (name: string) => Buffer.from(files.get(name)?.bytes ?? new Uint8Array(0)).toString()
  if (!files.has('control')) throw new Fault('format', 'Cannot read .deb: control.tar holds no control file')
  return {
    fields: parseControl(text('control')),
    control: files,
    conffiles: parseConffiles(text('conffiles')),
    triggers: parseTriggers(text('triggers')),
    data,
  }
}

/** Finds the data of a package without reading what is before it. */
export const decodeDebData = (bytes: Uint8Array): Deb['data'] => membersOf(bytes).data

function membersOf(bytes: Uint8Array): { control: ArMember; data: Deb['data'] } {
  const members = decodeAr(bytes).filter((member) => !member.name.startsWith('_'))
  const [version, control, data] = members
  if (version?.name !== 'debian-binary') throw new Fault('format', 'Cannot read .deb: its first member is not debian-binary')
  const versionText = Buffer.from(version.data.subarray(0, 64)).toString('latin1')
  if (!/^2\.\d+\n/.test(versionText))
    throw new Fault('format', `Cannot read .deb: format ${JSON.stringify(versionText)} is not 2.x`)
  if (!control?.name.startsWith('control.tar'))
    throw new Fault('format', 'Cannot read .deb: its second member is not control.tar')
  if (!data?.name.startsWith('data.tar')) throw new Fault('format', 'Cannot read .deb: its third member is not data.tar')
  return { control, data: { compression: compressionOf(data, 'data.tar'), bytes: data.data } }
}

/**
 * The uncompressed data.tar. Reads ahead up to `aheadBytes` on a thread of its own, from the moment this is called.
 * More than 200 times the size of the package is refused as a bomb, unless `mostBytes` says what to expect.
 */
export function dataOf(data: Deb['data'], options: { aheadBytes?: number; mostBytes?: number } = {}): AsyncIterable<Uint8Array> {
  const mostBytes = options.mostBytes ?? (64 << 20) + data.bytes.length * MOST_RATIO
  return decompress(data.compression, data.bytes, { mostBytes, aheadBytes: options.aheadBytes ?? 4 << 20 })
}

function decompress(
  compression: Compression,
  bytes: Uint8Array,
  { mostBytes, aheadBytes }: { mostBytes: number; aheadBytes: number },
): AsyncIterable<Uint8Array> {
  const stream = decoder(compression, bytes, aheadBytes)
  let failed: Error | undefined
  let sizeBytes: number | undefined
  try {
    // the streaming decoder does not miss an end that was cut off; the index at the end has the size
    if (compression === 'xz')
      sizeBytes = Number(parseFileIndex(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)).uncompressedSize)
  } catch (error) {
    failed = error as Error
  }
  stream.on('error', (error) => {
    failed = error // may come before anyone reads
  })
  return {
    async *[Symbol.asyncIterator]() {
      if (failed) throw corrupt(compression, failed)
      let size = 0
      try {
        for await (const chunk of stream as AsyncIterable<Uint8Array>) {
          size += chunk.length
          if (size > mostBytes)
            throw new Fault(
              'format',
              `Cannot unpack .deb: it grows beyond ${formatSize(mostBytes)}, from ${formatSize(bytes.length)}`,
            )
          yield chunk
        }
        if (sizeBytes !== undefined && size !== sizeBytes) throw new Error(`${size} bytes, but the index says ${sizeBytes}`)
      } catch (error) {
        throw error instanceof Fault ? error : corrupt(compression, error)
      } finally {
        stream.destroy()
      }
    },
  }
}

const corrupt = (compression: Compression, cause: unknown) =>
  new Fault('format', `Cannot unpack .deb: its ${compression} data is corrupt: ${(cause as Error).message}`, { cause })

/** Fed in slices, so that what one step makes of its input stays small. */
function decoder(compression: Compression, bytes: Uint8Array, highWaterMark: number): Readable {
  const source = Readable.from(slices(bytes, compression === 'xz' ? 64 << 10 : 256 << 10), { objectMode: true })
  if (compression === 'none') return source
  const stream =
    compression === 'xz'
      ? createUnxz({ chunkSize: 1 << 20, memlimit: 256 << 20 }, { readableHighWaterMark: highWaterMark })
      : compression === 'gzip'
        ? createGunzip({ chunkSize: 1 << 20, ...{ readableHighWaterMark: highWaterMark } })
        : createZstdDecompress({ chunkSize: 1 << 20, ...{ readableHighWaterMark: highWaterMark } })
  source.pipe(stream)
  source.on('error', (error) => stream.destroy(error))
  stream.on('close', () => source.destroy())
  return stream as Readable
}

function* slices(bytes: Uint8Array, size: number): Generator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size)
}

function compressionOf(member: ArMember, base: string): Compression {
  const found = ({ '': 'none', '.gz': 'gzip', '.xz': 'xz', '.zst': 'zstd' } as const)[member.name.slice(base.length)]
  if (!found) throw new Fault('format', `Cannot read .deb: compression of ${member.name} is not supported`)
  return found
}

async function controlFiles(member: ArMember): Promise<Deb['control']> {
  const files = new Map<string, { mode: number; bytes: Uint8Array }>()
  const limits = { mostBytes: MOST_CONTROL_BYTES, aheadBytes: 1 << 20 }
  for await (const entry of decodeTar(decompress(compressionOf(member, 'control.tar'), member.data, limits))) {
    const name = entry.path.replace(/^(\.\/)+/, '').replace(/\/$/, '')
    if (entry.type === 'directory' && (name === '' || name === '.')) continue
    if (entry.type !== 'file' || !/^[A-Za-z0-9][A-Za-z0-9._+-]*$/.test(name)) {
      throw new Fault('format', `Cannot read .deb: control.tar holds ${entry.type} ${JSON.stringify(entry.path)}`)
    }
    if (files.has(name)) throw new Fault('format', `Cannot read .deb: control.tar holds ${name} twice`)
    if (entry.sizeBytes > MOST_CONTROL_BYTES) throw new Fault('format', `Cannot read .deb: ${name} has ${entry.sizeBytes} bytes`)
    const bytes = Buffer.alloc(entry.sizeBytes)
    for await (const chunk of entry.content()) bytes.set(chunk.bytes, chunk.offset)
    files.set(name, { mode: entry.mode, bytes })
  }
  return files
}

/** The fields of a control file, which every package has to identify itself. */
function parseControl(text: string): Stanza {
  const fields = parseStanza(text, 'control file')
  for (const name of ['Package', 'Version', 'Architecture']) {
    const value = field(fields, name) ?? ''
    if (!/^[A-Za-z0-9][A-Za-z0-9.+:~-]*$/.test(value) || (name !== 'Version' && value.includes(':'))) {
      throw new Fault('format', `Cannot read control file: ${name} is ${JSON.stringify(value)}`)
    }
  }
  return fields
}

function parseConffiles(text: string): string[] {
  const paths: string[] = []
  for (const line of text.split('\n').map((line) => line.trim())) {
    if (line === '' || line.startsWith('remove-on-upgrade ')) continue
    if (!line.startsWith('/')) throw new Fault('format', `Cannot read conffiles: ${JSON.stringify(line)} is no absolute path`)
    paths.push(line)
  }
  return paths
}

function parseTriggers(text: string): Trigger[] {
  const triggers: Trigger[] = []
  for (const line of text.split('\n').map((line) => line.replace(/#.*/, '').trim())) {
    if (line === '') continue
    const match = /^(interest|activate)(-await|-noawait)?\s+([!-~]+)$/.exec(line)
    const name = match?.[3] ?? ''
    const isSafe = name.startsWith('/') ? !name.split('/').includes('..') : /^[a-z0-9][^/]*$/.test(name)
    if (!match || !isSafe) {
      throw new Fault('format', `Cannot read triggers: ${JSON.stringify(line.slice(0, 80))} is no trigger`)
    }
    triggers.push({ verb: match[1] as Trigger['verb'], await: match[2] !== '-noawait', name })
  }
  return triggers
}
