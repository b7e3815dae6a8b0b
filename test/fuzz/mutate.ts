/** Mutations: an input a little different from one that did something new, the same for the same seed. */

/** A small fast generator (sfc32), so that a campaign can be run again from its seed. */
export function randomFrom(seed: number): (below: number) => number {
  let [a, b, c, d] = [0x9e3779b9, 0x243f6a88, seed | 0, 1]
  const next = () => {
    const t = (((a + b) | 0) + d) | 0
    d = (d + 1) | 0
    a = b ^ (b >>> 9)
    b = (c + (c << 3)) | 0
    c = ((c << 21) | (c >>> 11)) + t
    return t >>> 0
  }
  for (let i = 0; i < 15; i++) next()
  return (below) => next() % below
}

type Random = ReturnType<typeof randomFrom>

/** Longer ones are cut: what is slow to read finds little. */
const MOST_BYTES = 256 << 10

/** What lengths, counts and offsets are wrong by. */
const INTERESTING = [0, 1, 2, 7, 8, 15, 16, 31, 32, 63, 64, 127, 128, 255, 256, 511, 512, 4095, 4096, 32767, 32768, 65535, 65536]
const LARGE = [0x7fffffff, 0x80000000, 0xfffffff0, 0xffffffff]

export interface Mutation {
  random: Random
  /** Another input, to take a piece of. */
  other: Uint8Array
  /** Words of the format. */
  words: readonly Uint8Array[]
}

/** One to six changes; the input itself stays as it is. */
export function mutate(input: Uint8Array, mutation: Mutation): Uint8Array {
  const { random } = mutation
  let bytes: Uint8Array = Uint8Array.from(input)
  for (let n = 1 + random(random(4) === 0 ? 6 : 2); n > 0; n--) bytes = CHANGES[random(CHANGES.length)]!(bytes, mutation)
  return bytes.length > MOST_BYTES ? bytes.subarray(0, MOST_BYTES) : bytes
}

type Change = (bytes: Uint8Array, mutation: Mutation) => Uint8Array

const flipBit: Change = (bytes, { random }) => {
  if (bytes.length > 0) bytes[random(bytes.length)]! ^= 1 << random(8)
  return bytes
}

const setByte: Change = (bytes, { random }) => {
  if (bytes.length > 0) bytes[random(bytes.length)] = random(256)
  return bytes
}

/** An integer of 2, 4 or 8 bytes, in either order, that is at the edge of something or near what was there. */
const setInteger: Change = (bytes, { random }) => {
  const width = [2, 4, 8][random(3)]!
  if (bytes.length < width) return bytes
  const at = random(bytes.length - width + 1) & (random(2) === 0 ? ~1 : ~0)
  const view = new DataView(bytes.buffer, bytes.byteOffset)
  const little = random(4) > 0
  if (width === 2) {
    const near = view.getUint16(at, little) + random(9) - 4
    view.setUint16(at, random(2) === 0 ? near : INTERESTING[random(INTERESTING.length)]!, little)
    return bytes
  }
  const choices = [...INTERESTING, ...LARGE, bytes.length, bytes.length - 1, bytes.length + 1, bytes.length - at]
  const value = random(3) === 0 ? view.getUint32(at, little) + random(9) - 4 : choices[random(choices.length)]!
  view.setUint32(little || width === 4 ? at : at + 4, value, little)
  if (width === 8) view.setUint32(little ? at + 4 : at, random(8) === 0 ? LARGE[random(LARGE.length)]! : 0, little)
  return bytes
}

const cut: Change = (bytes, { random }) => bytes.subarray(0, random(bytes.length + 1))

const remove: Change = (bytes, { random }) => {
  const at = random(bytes.length + 1)
  const end = Math.min(bytes.length, at + 1 + random(random(3) === 0 ? 512 : 8))
  return joined(bytes.subarray(0, at), bytes.subarray(end))
}

const insert: Change = (bytes, { random, words }) => {
  const at = random(bytes.length + 1)
  const word = words.length > 0 && random(2) === 0 ? words[random(words.length)]! : filled(1 + random(16), random)
  return joined(bytes.subarray(0, at), word, bytes.subarray(at))
}

/** A word of the format in the place of what was there. */
const overwrite: Change = (bytes, { random, words }) => {
  if (words.length === 0 || bytes.length === 0) return flipBit(bytes, { random, words, other: bytes })
  const at = random(bytes.length)
  bytes.set(words[random(words.length)]!.subarray(0, bytes.length - at), at)
  return bytes
}

const repeat: Change = (bytes, { random }) => {
  const at = random(bytes.length + 1)
  const piece = bytes.subarray(at, at + 1 + random(256))
  return joined(bytes.subarray(0, at), ...Array.from({ length: 2 + random(6) }, () => piece), bytes.subarray(at + piece.length))
}

const splice: Change = (bytes, { random, other }) => {
  const at = random(bytes.length + 1)
  const from = random(other.length + 1)
  return joined(bytes.subarray(0, at), other.subarray(from))
}

const blank: Change = (bytes, { random }) => {
  const at = random(bytes.length + 1)
  return bytes.fill(random(2) === 0 ? 0 : 0xff, at, at + 1 + random(64))
}

const CHANGES: readonly Change[] = [
  flipBit,
  flipBit,
  setByte,
  setInteger,
  setInteger,
  cut,
  remove,
  insert,
  overwrite,
  repeat,
  splice,
  blank,
]

const filled = (length: number, random: Random): Uint8Array => Uint8Array.from({ length }, () => random(256))

function joined(...parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0))
  let at = 0
  for (const part of parts) {
    whole.set(part, at)
    at += part.length
  }
  return whole
}
