/**
 * Signers whose keys are in tokens: smart cards, hardware security modules, SoftHSM. The key never leaves its token; what
 * goes in is a digest. A token is logged in to once, and a PIN that it refuses is not tried again: tokens lock themselves.
 */
import { existsSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { Fault } from '../base/fault.ts'
import { digestInfo, publicKeyOf, readCertificate } from '../formats/x509.ts'
import { openPkcs11, type Pkcs11Module, type Pkcs11Options, type Pkcs11Problem, type Pkcs11Query } from '../run/pkcs11.ts'
import { loadCertificate, readSmall } from './certificate.ts'
import { requireUsable, type SignerUse } from './file.ts'
import { formatPkcs11Uri, type Pkcs11Uri, parsePkcs11Uri } from './pkcs11-uri.ts'
import type { Signer } from './signer.ts'

/** The modules that are loaded, each once, for all keys in its tokens. */
export interface Tokens {
  module(path: string): Pkcs11Module
  readonly environment: Readonly<Record<string, string | undefined>>
  close(): Promise<void>
}

export const PIN_VARIABLE = 'BISQUE_PIN'

export function openTokens(
  environment: Readonly<Record<string, string | undefined>> = {},
  options: Omit<Pkcs11Options, 'env'> = {},
): Tokens {
  const modules = new Map<string, Pkcs11Module>()
  const { [PIN_VARIABLE]: _, ...others } = environment
  const env = Object.fromEntries(Object.entries(others).filter((one): one is [string, string] => one[1] !== undefined))
  return {
    environment,
    module(path) {
      const module = modules.get(path) ?? openPkcs11(path, { ...options, env })
      modules.set(path, module)
      return module
    },
    async close() {
      await Promise.all([...modules.values()].map((module) => module.close()))
    },
  }
}

export interface Pkcs11KeyPlace {
  uri: string
  /** PEM file of the certificate. Where there is none, it is taken from the token. */
  certificate: string | undefined
  /** URI of the certificate, where it is in the token and not beside the key. */
  certificateUri?: string | undefined
  /** Files that hold the PIN where the URI does not say; those that are there. */
  pinFiles?: readonly string[]
  /** What a relative path of the URI starts from. */
  directory: string
}

/** Finds the key in its token, logs in, and refuses one that does not fit its certificate or cannot sign. */
export async function loadPkcs11Signer(place: Pkcs11KeyPlace, use: SignerUse, tokens: Tokens): Promise<Signer> {
  const uri = parsePkcs11Uri(place.uri)
  const name = formatPkcs11Uri(uri)
  const path = moduleOf(uri, name)
  const module = tokens.module(path)
  const told = { name, module: path, pinFile: place.pinFiles?.at(-1) ?? join(place.directory, 'signer.pin') }
  const pin = await pinOf(uri, place, tokens)
  const { result: key, problem } = await module.ask({ op: 'key', query: uri.query, ...pin })
  if (problem) throw faultOf(problem, told)
  const certificate = await certificateOf(place, { ...uri.query, ...(key.id ? { id: key.id } : {}) }, module, pin, told)
  requireUsable(certificate.from, certificate.der, use)
  if (key.modulus !== '' && key.modulus !== modulusOf(certificate.der))
    throw new Fault('usage', `Cannot sign with ${name}: it is not the key of certificate ${certificate.from}`, {
      hint: `pkcs11-tool --module ${path} --list-objects`,
    })
  return {
    certificate: certificate.der,
    async sign(digest) {
      if (digest.length !== 32) throw new Error(`a SHA-256 digest has 32 bytes, not ${digest.length}`)
      const info = Buffer.from(digestInfo(digest)).toString('hex')
      const { result, problem } = await module.ask({ op: 'sign', key: key.key, digestInfo: info })
      if (problem) throw faultOf(problem, { ...told, signing: true })
      return Buffer.from(result.signature, 'hex')
    },
  }
}

async function certificateOf(
  place: Pkcs11KeyPlace,
  byKey: Pkcs11Query,
  module: Pkcs11Module,
  pin: { pin?: string },
  told: Told,
): Promise<{ der: Uint8Array; from: string }> {
  const { certificate: file, certificateUri } = place
  if (file !== undefined) return { der: (await loadCertificate(file)).raw, from: file }
  const named = certificateUri === undefined ? undefined : parsePkcs11Uri(certificateUri)
  const { object: _, ...withoutLabel } = byKey
  const query = named?.query ?? (byKey.id === undefined ? byKey : withoutLabel)
  const from = named ? formatPkcs11Uri(named) : `beside ${told.name}`
  const { result, problem } = await module.ask({ op: 'certificate', query, ...pin })
  if (problem) throw faultOf(problem, { ...told, name: from, what: 'certificate' })
  return { der: readCertificate(Buffer.from(result.certificate, 'base64')).raw, from }
}

function modulusOf(certificate: Uint8Array): string {
  const key = publicKeyOf(certificate).export({ format: 'jwk' })
  return Buffer.from(key.n ?? '', 'base64url').toString('hex')
}

// ── Modules and PINs ─────────────────────────────────────────────────────────────────────────────────────────────────

const TRIPLET = process.arch === 'arm64' ? 'aarch64-linux-gnu' : 'x86_64-linux-gnu'
// biome-ignore format: list
const MODULE_FOLDERS = [
  `/usr/lib/${TRIPLET}/pkcs11`, `/usr/lib/${TRIPLET}`, '/usr/lib/pkcs11', '/usr/lib/softhsm', '/usr/lib64/pkcs11', '/usr/lib64', '/usr/lib',
  '/usr/local/lib',
]
/** Offers the tokens of all modules that the system is configured for. */
const PROXY = 'p11-kit-proxy'

function moduleOf({ modulePath, moduleName = PROXY }: Pkcs11Uri, name: string): string {
  if (modulePath !== undefined) {
    if (modulePath.startsWith('/')) return modulePath
    throw new Fault('usage', `Cannot sign with ${name}: module-path ${modulePath} is no absolute path`)
  }
  if (!/^[\w.+-]+$/.test(moduleName)) throw new Fault('usage', `Cannot sign with ${name}: module-name is no name of a module`)
  const places = MODULE_FOLDERS.flatMap((folder) => [`${folder}/${moduleName}.so`, `${folder}/lib${moduleName}.so`])
  const found = places.find((path) => existsSync(path))
  if (found !== undefined) return found
  throw new Fault(
    'host',
    `Cannot sign with ${name}: there is no PKCS#11 module ${moduleName}.so in ${MODULE_FOLDERS.join(', ')}`,
    {
      hint:
        moduleName === PROXY
          ? 'sudo apt install libp11-kit0, or add ?module-path=/path/of/module.so'
          : 'add ?module-path=/path/of/module.so',
    },
  )
}

/** The PIN: of the URI's source, of a file beside the key, or of the environment. */
async function pinOf({ pinSource }: Pkcs11Uri, place: Pkcs11KeyPlace, { environment }: Tokens): Promise<{ pin?: string }> {
  const variable = pinSource === undefined ? PIN_VARIABLE : /^env:(\w+)$/.exec(pinSource)?.[1]
  const file =
    pinSource === undefined ? place.pinFiles?.find((path) => existsSync(path)) : variable ? undefined : fileOf(pinSource, place)
  if (file !== undefined) return { pin: (await readSmall(file, { secret: true, kind: 'PIN' })).replace(/\r?\n$/, '') }
  const pin = variable === undefined ? undefined : environment[variable]
  return pin === undefined ? {} : { pin }
}

/** The file that a URI says its PIN is in. */
export function pinFileOf(uri: string, directory: string): string | undefined {
  const { pinSource } = parsePkcs11Uri(uri)
  return pinSource === undefined || pinSource.startsWith('env:') ? undefined : fileOf(pinSource, { directory })
}

function fileOf(source: string, { directory }: Pick<Pkcs11KeyPlace, 'directory'>): string {
  if (source.startsWith('|')) throw new Fault('usage', 'Cannot take a PIN from a program: pin-source must be a file or env:NAME')
  // file:path, file:/path and file:///path; the URI as a whole has been decoded.
  return resolve(directory, source.replace(/^file:(\/\/(?=\/))?/, ''))
}

// ── Faults ───────────────────────────────────────────────────────────────────────────────────────────────────────────

interface Told {
  name: string
  module: string
  pinFile: string
  what?: 'key' | 'certificate'
  signing?: boolean
}

/** Return values that say: what was there is there no more. */
const GONE =
  /CKR_(DEVICE_REMOVED|DEVICE_ERROR|TOKEN_NOT_PRESENT|TOKEN_NOT_RECOGNIZED|SESSION_HANDLE_INVALID|SESSION_CLOSED|OBJECT_HANDLE_INVALID|KEY_HANDLE_INVALID|USER_NOT_LOGGED_IN|SLOT_ID_INVALID)$/

function faultOf({ why, detail = '', found = [] }: Pkcs11Problem, told: Told): Fault {
  const { name, module, pinFile, what = 'key', signing } = told
  const tool = `pkcs11-tool --module ${module}`
  const there = found.length > 0 ? `; there is: ${found.map(printable).join(', ')}` : '; there is none'
  const of = printable(found[0] ?? '')
  const say = (code: ConstructorParameters<typeof Fault>[0], message: string, hint: string) =>
    new Fault(code, `Cannot sign with ${name}: ${message}`, { hint })
  switch (why) {
    case 'module':
      return say('host', `the PKCS#11 module ${module} cannot be loaded: ${printable(detail)}`, `ls -l ${module}`)
    case 'no token':
      return say('missing', `no token is as the URI says${there}`, `${tool} --list-token-slots`)
    case 'several tokens':
      return say('usage', `several tokens are as the URI says: ${found.map(printable).join(', ')}`, 'add ;serial=… to the URI')
    case 'no object':
      return say(
        'missing',
        `the token has no ${what === 'key' ? 'private key' : 'certificate'} like that${there}`,
        `${tool} --login --list-objects`,
      )
    case 'several objects':
      return say(
        'usage',
        `several objects of the token are as the URI says: ${found.map(printable).join(', ')}`,
        'add ;id=%… to the URI',
      )
    case 'not RSA':
      return say(
        'usage',
        `it is a key of type ${detail}, firmware needs RSA of 2048 bits or more`,
        `${tool} --login --keypairgen --key-type rsa:3072`,
      )
    case 'no mechanism':
      return say(
        'usage',
        `the token signs no digests: it offers neither CKM_RSA_PKCS nor CKM_RSA_X_509`,
        `${tool} --list-mechanisms`,
      )
    case 'no PIN':
      return say(
        'usage',
        `the token (${of}) wants a PIN, and none is given`,
        `install -m 600 /dev/stdin ${pinFile}, or set ${PIN_VARIABLE}`,
      )
    case 'wrong PIN':
      return say(
        'usage',
        `the token (${of}) refuses the PIN (${detail.split(' ').at(-1)}). It was tried once: a few wrong tries lock a token`,
        `correct ${pinFile} before you try again`,
      )
    case 'PIN locked':
      return say('host', `the token (${of}) is locked after too many wrong PINs`, `${tool} --login --login-type so --init-pin`)
    case 'last try':
      return say(
        'host',
        `the token (${of}) would be locked by one more wrong PIN, and that is not risked here`,
        `${tool} --login --list-objects`,
      )
    case 'crash':
      return say('tool', `the PKCS#11 module ${module} ended its process (${printable(detail)})`, `${tool} --login --test`)
    case 'time-out':
      return say(
        'tool',
        `the PKCS#11 module ${module} did not answer for ${detail}`,
        'is the token waiting to be touched, or its reader gone?',
      )
    case 'call':
      if (signing && GONE.test(detail))
        return say('host', `the token was removed meanwhile (${detail})`, 'put the token back and build again')
      return say('tool', `the PKCS#11 module ${module} failed: ${printable(detail)}`, `${tool} --login --test`)
  }
}

const printable = (text: string) => text.replace(/[\x00-\x1f\x7f-\x9f]/g, '?').slice(0, 300)
