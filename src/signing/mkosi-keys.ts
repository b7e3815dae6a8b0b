/** The keys of an mkosi folder: a key and a certificate for each purpose, often one `mkosi.key` and `mkosi.crt` for all. */
import { Fault } from '../base/fault.ts'
import { loadCertificate } from './certificate.ts'
import { loadFileSigner, requireUsable } from './file.ts'
import { allOrFault, type LoadOptions } from './load.ts'
import { loadPkcs11Signer, openTokens, type Tokens } from './pkcs11.ts'
import { isPkcs11Uri } from './pkcs11-uri.ts'
import type { KeyRole, Signer, Signers } from './signer.ts'

/** Paths, or URIs of tokens, as the settings of these names have them. */
export interface MkosiKeys {
  secureBootKey?: string | undefined
  secureBootKeySource?: string | undefined
  secureBootCertificate?: string | undefined
  secureBootCertificateSource?: string | undefined
  verityKey?: string | undefined
  verityKeySource?: string | undefined
  verityCertificate?: string | undefined
  verityCertificateSource?: string | undefined
  signExpectedPcrKey?: string | undefined
  signExpectedPcrKeySource?: string | undefined
  signExpectedPcrCertificate?: string | undefined
  signExpectedPcrCertificateSource?: string | undefined
}

/** What an image is signed with: those of its keys that there are. */
export type MkosiSigners = Partial<Signers>

/** mkosi enters certificates under this GUID. */
export const MKOSI_OWNER = '00000000-0000-0000-0000-000000000000'

const PURPOSES = ['secureBoot', 'verity', 'signExpectedPcr'] as const
type Purpose = (typeof PURPOSES)[number]

export interface MkosiKeyOptions extends Pick<LoadOptions, 'environment' | 'tokens' | 'offline'> {
  /** The image's time, which certificates must not have expired at. */
  epoch: number
  /** What the image cannot do without. */
  needs: readonly Purpose[]
  /** Where relative paths in URIs start from. */
  directory: string
}

/**
 * Loads the keys there are, from files or tokens. The Secure Boot key is platform key, key exchange key and signature
 * database key in one, as mkosi has it. All that is wrong is reported at once: keys that are needed and missing, and those
 * that cannot be used.
 */
export async function loadMkosiSigners(keys: MkosiKeys, options: MkosiKeyOptions): Promise<MkosiSigners> {
  const tokens = options.tokens ?? openTokens(options.environment)
  const loaded = new Map<string, Promise<Signer>>()
  const load = (purpose: Purpose) => loadPair(purpose, keys, { ...options, tokens }, loaded)
  try {
    const [db, verity, pcr] = await allOrFault(PURPOSES.map(load))
    return { ...(db ? { pk: db, kek: db, db } : {}), ...(verity ? { verity } : {}), ...(pcr ? { pcr } : {}) }
  } catch (error) {
    if (!options.tokens) await tokens.close()
    throw error
  }
}

async function loadPair(
  purpose: Purpose,
  keys: MkosiKeys,
  options: MkosiKeyOptions & { tokens: Tokens },
  loaded: Map<string, Promise<Signer>>,
): Promise<Signer | undefined> {
  const [key, certificate] = [keys[`${purpose}Key`], keys[`${purpose}Certificate`]]
  const [keyName, certificateName] = [settingOf(`${purpose}Key`), settingOf(`${purpose}Certificate`)]
  const inToken = key !== undefined && isPkcs11Uri(key)
  const { offline } = options
  if (offline !== undefined && key === undefined && certificate !== undefined && !isPkcs11Uri(certificate)) {
    const shared = loaded.get(certificate) ?? loadOffline(certificate, ROLES[purpose], { ...options, offline })
    loaded.set(certificate, shared)
    return shared
  }
  if (key === undefined || (certificate === undefined && !inToken)) {
    if (!options.needs.includes(purpose)) return undefined
    const missing = [...(key === undefined ? [keyName] : []), ...(certificate === undefined ? [certificateName] : [])]
    throw new Fault(
      'missing',
      `Cannot sign for ${WHAT[purpose]}: ${missing.join(' and ')} ${missing.length > 1 ? 'are' : 'is'} not set`,
      {
        hint: 'openssl req -new -x509 -newkey rsa:4096 -nodes -subj /CN=mkosi -days 3650 -keyout mkosi.key -out mkosi.crt',
      },
    )
  }
  checkSource(keyName, key, keys[`${purpose}KeySource`])
  if (certificate !== undefined) checkSource(certificateName, certificate, keys[`${purpose}CertificateSource`])
  const pair = `${key}\0${certificate}`
  const sharing = PURPOSES.filter((one) => `${keys[`${one}Key`]}\0${keys[`${one}Certificate`]}` === pair)
  const signer = loaded.get(pair) ?? loadPlace(key, certificate, { ...options, roles: sharing.flatMap((one) => ROLES[one]) })
  loaded.set(pair, signer)
  return signer
}

/** A signer whose key is elsewhere. */
async function loadOffline(
  path: string,
  roles: readonly KeyRole[],
  { epoch, offline }: MkosiKeyOptions & Required<Pick<MkosiKeyOptions, 'offline'>>,
): Promise<Signer> {
  const { raw } = await loadCertificate(path)
  requireUsable(path, raw, { epoch, roles })
  return offline(roles.at(-1)!, raw)
}

async function loadPlace(
  key: string,
  certificate: string | undefined,
  options: MkosiKeyOptions & { tokens: Tokens; roles: readonly KeyRole[] },
): Promise<Signer> {
  const use = { epoch: options.epoch, roles: options.roles }
  const uri = certificate !== undefined && isPkcs11Uri(certificate) ? certificate : undefined
  if (isPkcs11Uri(key)) {
    const place = { uri: key, certificate: uri ? undefined : certificate, certificateUri: uri, directory: options.directory }
    return loadPkcs11Signer(place, use, options.tokens)
  }
  if (certificate === undefined || uri !== undefined)
    throw new Fault('usage', `Cannot sign with ${key}: its certificate is in a token, expected a file`)
  return loadFileSigner({ key, certificate }, use)
}

/** mkosi says by a second setting that a value is a URI; which it is can be seen of the value. */
function checkSource(setting: string, value: string, source = 'file'): void {
  if (source === 'file' || isPkcs11Uri(value)) return
  if (/^(engine|provider):pkcs11$/.test(source))
    throw new Fault('usage', `Cannot sign with ${value}: ${setting}Source=${source} needs a PKCS#11 URI`, {
      hint: `${setting}=pkcs11:token=NAME;object=KEY`,
    })
  throw new Fault('usage', `Cannot sign with ${source}: ${setting}Source= must be file or provider:pkcs11`, {
    hint: `${setting}Source=provider:pkcs11`,
  })
}

const ROLES: Readonly<Record<Purpose, readonly KeyRole[]>> = {
  secureBoot: ['pk', 'kek', 'db'],
  verity: ['verity'],
  signExpectedPcr: ['pcr'],
}

const WHAT: Readonly<Record<Purpose, string>> = {
  secureBoot: 'Secure Boot',
  verity: 'dm-verity',
  signExpectedPcr: 'PCR policies',
}

const settingOf = (key: string): string => `${key[0]!.toUpperCase()}${key.slice(1)}`
