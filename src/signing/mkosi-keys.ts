/** The keys of an mkosi folder: a key and a certificate for each purpose, often one `mkosi.key` and `mkosi.crt` for all. */
import { Fault } from '../base/fault.ts'
import { loadFileSigner } from './file.ts'
import { allOrFault } from './load.ts'
import type { Signer, Signers } from './signer.ts'

/** Paths as the settings of these names have them. */
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

export interface MkosiKeyOptions {
  /** The image's time, which certificates must not have expired at. */
  epoch: number
  /** What the image cannot do without. */
  needs: readonly Purpose[]
}

/**
 * Loads the keys there are. The Secure Boot key is platform key, key exchange key and signature database key in one, as
 * mkosi has it. All that is wrong is reported at once: keys that are needed and missing, and those that cannot be used.
 */
export async function loadMkosiSigners(keys: MkosiKeys, options: MkosiKeyOptions): Promise<MkosiSigners> {
  const loaded = new Map<string, Promise<Signer>>()
  const [db, verity, pcr] = await allOrFault(PURPOSES.map((purpose) => loadPair(purpose, keys, options, loaded)))
  return { ...(db ? { pk: db, kek: db, db } : {}), ...(verity ? { verity } : {}), ...(pcr ? { pcr } : {}) }
}

async function loadPair(
  purpose: Purpose,
  keys: MkosiKeys,
  { epoch, needs }: MkosiKeyOptions,
  loaded: Map<string, Promise<Signer>>,
): Promise<Signer | undefined> {
  const [key, certificate] = [keys[`${purpose}Key`], keys[`${purpose}Certificate`]]
  const sources = [keys[`${purpose}KeySource`], keys[`${purpose}CertificateSource`]]
  const [keyName, certificateName] = [settingOf(`${purpose}Key`), settingOf(`${purpose}Certificate`)]
  const elsewhere = [...sources, key, certificate].find((one) => one !== undefined && /^(?:pkcs11|engine|provider):/.test(one))
  if (elsewhere !== undefined) {
    throw new Fault('usage', `Cannot sign with ${elsewhere}: keys outside of files are not supported yet`, {
      hint: `${keyName}=mkosi.key`,
    })
  }
  if (key === undefined || certificate === undefined) {
    if (!needs.includes(purpose)) return undefined
    const missing = [...(key === undefined ? [keyName] : []), ...(certificate === undefined ? [certificateName] : [])]
    throw new Fault(
      'missing',
      `Cannot sign for ${WHAT[purpose]}: ${missing.join(' and ')} ${missing.length > 1 ? 'are' : 'is'} not set`,
      {
        hint: 'openssl req -new -x509 -newkey rsa:4096 -nodes -subj /CN=mkosi -days 3650 -keyout mkosi.key -out mkosi.crt',
      },
    )
  }
  const pair = `${key}\0${certificate}`
  const signer = loaded.get(pair) ?? loadFileSigner({ key, certificate }, { epoch })
  loaded.set(pair, signer)
  return signer
}

const WHAT: Readonly<Record<Purpose, string>> = {
  secureBoot: 'Secure Boot',
  verity: 'dm-verity',
  signExpectedPcr: 'PCR policies',
}

const settingOf = (key: string): string => `${key[0]!.toUpperCase()}${key.slice(1)}`
