/**
 * SHA-512 crypt, the `$6$` password hash of /etc/shadow.
 *
 * Spec:   "Unix crypt using SHA-256 and SHA-512", Ulrich Drepper — https://www.akkadia.org/drepper/SHA-crypt.txt
 * Oracle: `openssl passwd -6 -salt SALT PASSWORD`
 * Limits: the default of 5000 rounds only; makes hashes, does not check them.
 */
import { hash } from 'node:crypto'
import { Fault } from '../base/fault.ts'

const ROUNDS = 5000
const SIZE = 64
const ALPHABET = './0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'

/** Hashes a password with a salt of at most 16 characters; the result goes into /etc/shadow as it is. */
export function crypt(password: string, salt: string): string {
  if (!/^[./0-9A-Za-z]{1,16}$/.test(salt)) throw new Fault('usage', `Cannot use salt "${salt}": expected 1 to 16 of ./0-9A-Za-z`)
  const key = Buffer.from(password)
  const grain = Buffer.from(salt)

  const alternate = sha512([key, grain, key])
  const bits: Uint8Array[] = []
  for (let n = key.length; n > 0; n >>= 1) bits.push(n & 1 ? alternate : key)
  let digest = sha512([key, grain, stretched(alternate, key.length), ...bits])

  const p = stretched(sha512(Array(key.length).fill(key)), key.length)
  const s = stretched(sha512(Array(16 + digest[0]!).fill(grain)), grain.length)
  for (let round = 0; round < ROUNDS; round++) {
    const odd = round % 2 === 1
    digest = sha512([odd ? p : digest, ...(round % 3 ? [s] : []), ...(round % 7 ? [p] : []), odd ? digest : p])
  }
  return `$6$${salt}$${text(digest)}`
}

const sha512 = (parts: readonly Uint8Array[]): Buffer => hash('sha512', Buffer.concat(parts), 'buffer')

/** `length` bytes made of `bytes` over and over. */
const stretched = (bytes: Uint8Array, length: number): Buffer =>
  Buffer.concat(Array(Math.ceil(length / bytes.length)).fill(bytes)).subarray(0, length)

/** Step 22: three bytes to four characters, the bytes taken in an order of their own. */
function text(digest: Uint8Array): string {
  let result = ''
  for (let i = 0; i < 21; i++) {
    const order = [i, i + 21, i + 42]
    const [a, b, c] = [0, 1, 2].map((k) => digest[order[(k + i) % 3]!]!)
    result += characters((a! << 16) | (b! << 8) | c!, 4)
  }
  return result + characters(digest[SIZE - 1]!, 2)
}

function characters(value: number, count: number): string {
  let result = ''
  for (let i = 0; i < count; i++, value >>= 6) result += ALPHABET[value & 63]
  return result
}
