/**
 * Reading cpio archives as their bytes come, in memory that does not grow with them: headers are looked at, and of contents
 * only what is asked for is kept. The format and its limits are cpio.ts's.
 */
import { Fault } from '../base/fault.ts'
import { CPIO_HEADER, CPIO_TRAILER, type CpioEntry, decodeCpioHeader } from './cpio.ts'

export interface CpioSink {
  /** Whether the content of an entry is wanted, in memory. */
  wants(entry: CpioEntry): boolean
  entry(entry: CpioEntry, content: Uint8Array | undefined): void
}

export interface CpioStream {
  /** Gives back how many bytes it took: all of them, unless what follows an archive is neither zeros nor another one. */
  push(chunk: Uint8Array): number
  /** Whether an archive has begun and not ended. */
  readonly open: boolean
}

/** `0`, which every magic begins with. */
const FIRST_DIGIT = 0x30

const padding = (n: number): number => -n & 3

/** Takes archives that follow each other, with zeros between them. */
export function readCpioStream(sink: CpioSink): CpioStream {
  let state: 'between' | 'header' | 'name' | 'content' | 'padding' = 'between'
  let open = false
  let position = 0
  /** Of what is being collected: how many bytes, and those that came so far. */
  let wanted = 0
  let parts: Uint8Array[] = []
  let kept = true
  let header: ReturnType<typeof decodeCpioHeader> | undefined
  let entry: CpioEntry | undefined

  const collect = (next: typeof state, sizeBytes: number, keep = true) => {
    state = next
    wanted = sizeBytes
    parts = []
    kept = keep
  }
  const done = () => {
    const bytes = kept ? Buffer.concat(parts) : undefined
    if (state === 'header') {
      header = decodeCpioHeader(bytes!, position - CPIO_HEADER)
      collect('name', header.nameSize + padding(CPIO_HEADER + header.nameSize))
    } else if (state === 'name') {
      const name = bytes!.subarray(0, header!.nameSize)
      if (name.indexOf(0) !== name.length - 1)
        throw new Fault('format', `Cannot read cpio entry before offset ${position}: the name does not end at its 0`)
      entry = { ...header!.entry, name: name.toString('utf8', 0, name.length - 1) }
      if (entry.name === CPIO_TRAILER) {
        open = false
        state = 'between'
      } else collect('content', entry.sizeBytes, sink.wants(entry))
    } else if (state === 'content') {
      sink.entry(entry!, bytes)
      collect('padding', padding(entry!.sizeBytes), false)
    } else collect('header', CPIO_HEADER)
  }

  return {
    get open() {
      return open
    },
    push(chunk) {
      for (let at = 0; at < chunk.length; ) {
        if (state === 'between') {
          if (chunk[at] === 0) {
            at++
            position++
            continue
          }
          if (chunk[at] !== FIRST_DIGIT) return at
          open = true
          collect('header', CPIO_HEADER)
        }
        const piece = chunk.subarray(at, at + wanted)
        if (kept) parts.push(piece)
        at += piece.length
        position += piece.length
        wanted -= piece.length
        while (wanted === 0 && open) done()
      }
      return chunk.length
    },
  }
}
