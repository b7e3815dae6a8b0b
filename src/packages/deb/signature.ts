/**
 * What a Debian archive signed: InRelease (clear-signed) or Release with Release.gpg.
 *
 * Spec:   RFC 9580 §7 (cleartext signature framework), apt-secure(8)
 * Oracle: `gpgv --keyring KEYRING InRelease`
 * Limits: the cleartext framework is read strictly: one message, nothing around it, only `Hash:` headers. The caller is
 *         handed the very text that was verified, so nothing outside it can be mistaken for signed.
 *
 * One good signature by a key of the keyring is enough (Signed-By); archives sign with the keys of several releases.
 */
import * as openpgp from 'openpgp'
import { Fault } from '../../base/fault.ts'

export interface Trust {
  /** Armored or binary OpenPGP certificates. */
  keyring: Uint8Array
  now: Date
  /** Accept keys that expired after they signed (frozen archives). */
  allowExpired?: boolean
  /** Names the repository and file in a Fault. */
  source: string
}

/** Clocks that disagree by less than this are taken to agree. */
export const CLOCK_TOLERANCE_MS = 15 * 60_000

/** The signed text of an InRelease file. */
export async function openInRelease(inRelease: Uint8Array, trust: Trust): Promise<string> {
  const { text, signature } = splitCleartext(Buffer.from(inRelease).toString('utf8'), trust.source)
  const message = await openpgp.createMessage({ text })
  await requireGood(message, await readSignature({ armoredSignature: signature }, trust), [openpgp.enums.signature.text], trust)
  return text
}

/** The text of a Release file whose signature lies beside it. */
export async function openRelease(release: Uint8Array, signature: Uint8Array, trust: Trust): Promise<string> {
  const message = await openpgp.createMessage({ binary: release })
  const armored = Buffer.from(signature).toString('latin1')
  const read = armored.startsWith('-----BEGIN ') ? { armoredSignature: armored } : { binarySignature: signature }
  const { binary, text } = openpgp.enums.signature
  await requireGood(message, await readSignature(read, trust), [binary, text], trust)
  return Buffer.from(release).toString('utf8')
}

const BEGIN_MESSAGE = '-----BEGIN PGP SIGNED MESSAGE-----'
const BEGIN_SIGNATURE = '-----BEGIN PGP SIGNATURE-----'
const END_SIGNATURE = '-----END PGP SIGNATURE-----'

/** Takes a clear-signed file apart: the text in the form that was signed, and the armored signature. */
export function splitCleartext(file: string, source: string): { text: string; signature: string } {
  const lines = file.split('\n').map((line) => line.replace(/[ \t\r]+$/, ''))
  const refuse = (line: number, why: string) => new Fault('integrity', `Cannot trust ${source}: line ${line + 1}: ${why}`)
  if (lines[0] !== BEGIN_MESSAGE) throw refuse(0, `expected ${BEGIN_MESSAGE}`)
  let at = 1
  for (; lines[at] !== ''; at++) {
    if (!/^Hash: [A-Za-z0-9, -]+$/.test(lines[at] ?? '')) throw refuse(at, 'expected a Hash: header or a blank line')
  }
  const body: string[] = []
  for (at++; lines[at] !== BEGIN_SIGNATURE; at++) {
    const line = lines[at]
    if (line === undefined) throw refuse(at, `the file ends without ${BEGIN_SIGNATURE}`)
    if (line.startsWith('-') && !line.startsWith('- ')) throw refuse(at, 'a dash that is not escaped')
    body.push(line.startsWith('- ') ? line.slice(2) : line)
  }
  const end = lines.indexOf(END_SIGNATURE, at)
  if (end < 0) throw refuse(lines.length - 1, `the file ends without ${END_SIGNATURE}`)
  const stray = lines.findIndex((line, i) => i > end && line !== '')
  if (stray >= 0) throw refuse(stray, 'text after the signature')
  return { text: body.join('\n'), signature: `${lines.slice(at, end + 1).join('\n')}\n` }
}

/** More signatures than any archive makes. */
const MAX_SIGNATURES = 16

async function readSignature(
  input: { armoredSignature: string } | { binarySignature: Uint8Array },
  trust: Trust,
): Promise<openpgp.Signature> {
  try {
    return await openpgp.readSignature(input as { armoredSignature: string })
  } catch (cause) {
    throw new Fault('integrity', `Cannot trust ${trust.source}: its signature is unreadable: ${(cause as Error).message}`, {
      cause,
    })
  }
}

async function requireGood(
  message: openpgp.Message<string> | openpgp.Message<Uint8Array>,
  signature: openpgp.Signature,
  types: readonly number[],
  trust: Trust,
): Promise<void> {
  const packets = signature.packets
  if (packets.length === 0) throw new Fault('integrity', `Cannot trust ${trust.source}: it is not signed`)
  if (packets.length > MAX_SIGNATURES)
    throw new Fault('integrity', `Cannot trust ${trust.source}: ${packets.length} signatures, expected at most ${MAX_SIGNATURES}`)
  if (packets.some((packet) => packet.signatureType === null || !types.includes(packet.signatureType)))
    throw new Fault(
      'integrity',
      `Cannot trust ${trust.source}: a signature of type ${packets[0]!.signatureType}, expected a document's`,
    )
  const keys = await readKeyring(trust)
  const date = new Date(trust.now.getTime() + CLOCK_TOLERANCE_MS)
  const { signatures } = await openpgp.verify({
    message: message as openpgp.Message<string>,
    signature,
    verificationKeys: keys,
    date,
    config: CONFIG,
  })
  const reasons: string[] = []
  for (const candidate of signatures) {
    const refused = await whyNot(candidate, keys, trust)
    if (refused === undefined) return
    reasons.push(`key ${candidate.keyID.toHex().toUpperCase()}: ${refused}`)
  }
  throw new Fault('integrity', `Cannot trust ${trust.source}: no signature is good: ${reasons.join('; ')}`, {
    hint: `expected one by ${keys.map((key) => key.getFingerprint().toUpperCase()).join(' or ')}`,
  })
}

const { md5, ripemd, sha1 } = openpgp.enums.hash
const CONFIG = { rejectHashAlgorithms: new Set([md5, ripemd]), rejectMessageHashAlgorithms: new Set([md5, ripemd, sha1]) }

/** Why a signature does not count; `undefined` when it does. */
async function whyNot(
  candidate: { keyID: openpgp.KeyID; verified: Promise<true> },
  keys: readonly openpgp.PublicKey[],
  trust: Trust,
): Promise<string | undefined> {
  const key = keys.find((key) => key.getKeys(candidate.keyID).length > 0)
  if (!key) return 'not in the keyring'
  try {
    await candidate.verified
    if (!trust.allowExpired) await key.getSigningKey(candidate.keyID, trust.now, undefined, { ...openpgp.config, ...CONFIG })
    return undefined
  } catch (error) {
    return (error as Error).message
  }
}

/** Every certificate of a keyring: binary, or armored blocks one after another. */
async function readKeyring(trust: Trust): Promise<openpgp.PublicKey[]> {
  const text = Buffer.from(trust.keyring).toString('latin1')
  const blocks = text.match(/-----BEGIN PGP PUBLIC KEY BLOCK-----[\s\S]*?-----END PGP PUBLIC KEY BLOCK-----/g)
  try {
    const keys = blocks
      ? (await Promise.all(blocks.map((armoredKeys) => openpgp.readKeys({ armoredKeys })))).flat()
      : await openpgp.readKeys({ binaryKeys: trust.keyring })
    if (keys.length === 0) throw new Error('it holds no key')
    return keys
  } catch (cause) {
    throw new Fault('recipe', `Cannot use the keyring of ${trust.source}: ${(cause as Error).message}`, { cause })
  }
}

/** Several keyrings, binary or armored, as one. */
export function joinKeyrings(keyrings: readonly Uint8Array[]): Uint8Array {
  const armored = keyrings.map((keyring) =>
    Buffer.from(keyring).toString('latin1').includes('-----BEGIN PGP')
      ? Buffer.from(keyring)
      : Buffer.from(openpgp.armor(openpgp.enums.armor.publicKey, keyring) as unknown as string),
  )
  return Buffer.concat(armored.flatMap((bytes) => [bytes, Buffer.from('\n')]))
}
