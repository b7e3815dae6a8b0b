/** The keys a build signs with: those it is given, those the recipe names, or ones made beside it on first use. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { Fault } from '../base/fault.ts'
import type { SignatureList } from '../formats/esl.ts'
import { publicKeyOf, readCertificate } from '../formats/x509.ts'
import type { Recipe } from '../recipe/recipe.ts'
import { expiryWarnings } from '../signing/expiry.ts'
import { generateKeys, loadOwner } from '../signing/keys.ts'
import { type LoadOptions, loadSigners } from '../signing/load.ts'
import { loadMkosiSigners, MKOSI_OWNER, type MkosiKeyOptions, type MkosiKeys } from '../signing/mkosi-keys.ts'
import { type OfflineSigners, SignaturesMissing } from '../signing/offline.ts'
import { pinFileOf } from '../signing/pkcs11.ts'
import { isPkcs11Uri } from '../signing/pkcs11-uri.ts'
import { loadRevocations, revocationLists } from '../signing/revocations.ts'
import { KEY_ROLES, type Signer, type Signers, signersInForce } from '../signing/signer.ts'
import type { Trust } from '../verify/image.ts'
import type { Env } from './env.ts'

export interface Signing {
  /** Files and folders that hold private keys: no script may see them. */
  secrets: readonly string[]
  /** Of what signs root hashes, a PEM file or its text, where no setting of the recipe names such a file. */
  verityCertificate?: string | Uint8Array
  signers: Signers
  /** GUID under which the certificates are entered into firmware. */
  owner: string
  /** What firmware is told to refuse, whoever signed it. */
  revoked?: readonly SignatureList[]
  /** Signs for the roles whose keys are not here; nothing that was made while it lacked a signature may be kept. */
  offline?: OfflineSigners | undefined
}

/** The keys of a build. With `offline`, a certificate is enough; without it, and without keys, new ones are made. */
export async function keysFor(recipe: Recipe, given: string | undefined, env: Env, offline?: OfflineSigners): Promise<Signing> {
  const now = Math.floor(env.now.getTime() / 1000)
  const named = given === undefined ? keysNamedBy(recipe) : {}
  if (Object.values(named).some((path) => path !== undefined)) return loadNamed(recipe, named, { now, env, offline })
  const directory = given ?? join(recipe.directory, 'keys')
  if (!existsSync(directory)) {
    if (given !== undefined || offline !== undefined) {
      throw new Fault('missing', `Cannot sign: there are no keys in ${directory}`, {
        hint: `bisque keys generate --keys ${directory}`,
      })
    }
    await env.report.step('Generate keys', async (report) => {
      await generateKeys(directory, { commonName: recipe.settings.imageId ?? 'image', now, years: 10 })
      report.tell({ type: 'note', level: 'info', message: `new signing keys in ${directory}: keep them secret, and keep them` })
    })
  }
  const owner = await loadOwner(directory)
  const signers = await loadSigners(directory, {
    epoch: now,
    ...(env.environment ? { environment: env.environment } : {}),
    ...signingOffline(offline),
  })
  const file = join(directory, 'verity.crt')
  const signing: Signing = {
    secrets: [directory],
    verityCertificate: existsSync(file) ? file : pemOf(signers.verity),
    signers,
    owner,
    revoked: revocationLists(owner, await loadRevocations(directory)),
    offline,
  }
  warnOfExpiry(signing.signers, now, env, `bisque keys rotate --keys ${directory}`)
  return signing
}

const pemOf = ({ certificate }: Signer): Uint8Array => Buffer.from(readCertificate(certificate).toString())

/** Says early that certificates end; a build with one that has ended is refused before. */
function warnOfExpiry(signers: Signers, now: number, { report }: Env, hint: string): void {
  const named = KEY_ROLES.flatMap((role) => {
    const { certificate, successor } = signers[role]
    // What is about to be replaced may end.
    return successor ? [{ name: `${role} (next)`, certificate: successor.certificate }] : [{ name: role, certificate }]
  })
  const warnings = expiryWarnings(named, now)
  if (warnings.length > 0)
    report.tell({ type: 'note', level: 'warning', message: `certificates end soon: ${warnings.join('; ')}; ${hint}` })
}

function signingOffline(signers: OfflineSigners | undefined): Pick<LoadOptions, 'offline'> {
  if (signers === undefined) return {}
  return {
    offline: (role, certificate, successor) => signers.signer(certificate, { role, ...(successor ? { successor } : {}) }),
  }
}

/** The same signing, for one image of the recipe. */
export const signingFor = (signing: Signing, image: string): Signing =>
  signing.offline === undefined ? signing : { ...signing, signers: signing.offline.within(signing.signers, image) }

/** Ends a build once it has asked for every signature that it can ask for now, if it did not get all of them. */
export function requireSignatures({ offline }: Signing): void {
  if (offline !== undefined && offline.missing().length > 0) throw new SignaturesMissing()
}

/** The settings of mkosi that name keys: mkosi.key and mkosi.crt stand for all of them. */
function keysNamedBy({ settings }: Recipe): MkosiKeys {
  const { secureBootKey, secureBootCertificate, verityKey, verityCertificate } = settings
  const { signExpectedPcrKey, signExpectedPcrCertificate } = settings
  return {
    secureBootKey,
    secureBootCertificate,
    verityKey,
    verityCertificate,
    signExpectedPcrKey,
    signExpectedPcrCertificate,
  }
}

async function loadNamed(
  { settings, directory }: Recipe,
  named: MkosiKeys,
  { now, env, offline }: { now: number; env: Env; offline: OfflineSigners | undefined },
): Promise<Signing> {
  const needs: MkosiKeyOptions['needs'] = [
    ...(settings.secureBoot ? (['secureBoot'] as const) : []),
    ...(settings.verity === 'signed' ? (['verity'] as const) : []),
    ...(settings.signExpectedPcr === true ? (['signExpectedPcr'] as const) : []),
  ]
  const { secureBootKeySource, verityKeySource, signExpectedPcrKeySource } = settings
  const { secureBootCertificateSource, verityCertificateSource, signExpectedPcrCertificateSource } = settings
  const sources = {
    ...{ secureBootKeySource, verityKeySource, signExpectedPcrKeySource },
    ...{ secureBootCertificateSource, verityCertificateSource, signExpectedPcrCertificateSource },
  }
  const { environment } = env
  const options = { epoch: now, needs, directory, ...(environment ? { environment } : {}), ...signingOffline(offline) }
  const loaded = await loadMkosiSigners({ ...named, ...sources }, options)
  const [any] = Object.values(loaded)
  if (any === undefined)
    throw new Fault('missing', 'Cannot sign: of a key and its certificate only one is named', { hint: `set both, or neither` })
  // A role without a key of its own is one that nothing is signed for.
  const signers = Object.fromEntries(KEY_ROLES.map((role) => [role, loaded[role] ?? any])) as unknown as Signers
  const keys = Object.entries(named).flatMap(([name, path]) => (path !== undefined && name.endsWith('Key') ? [path] : []))
  const secrets = keys.flatMap((key) => (isPkcs11Uri(key) ? (pinFileOf(key, directory) ?? []) : key))
  warnOfExpiry(signers, now, env, 'make new ones, and enrol them before')
  const inToken = loaded.verity !== undefined && (named.verityCertificate === undefined || isPkcs11Uri(named.verityCertificate))
  return {
    ...{ secrets: [...new Set(secrets)], signers, owner: MKOSI_OWNER, offline },
    ...(inToken ? { verityCertificate: pemOf(signers.verity) } : {}),
  }
}

/** Whom an image signed so must trust: these keys, and no others. PK holds one certificate, the later. */
export function trustOf({ signers: { pk, kek, db, verity, pcr } }: Signing): Trust {
  const both = (signer: Signer) => signersInForce(signer).map(({ certificate }) => certificate)
  return {
    pk: [signersInForce(pk).at(-1)!.certificate],
    kek: both(kek),
    db: both(db),
    verity: both(verity),
    pcr: both(pcr).map(publicKeyOf),
  }
}
