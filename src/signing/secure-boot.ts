/** The Secure Boot variables that make a machine in setup mode trust an image's keys, as `loader/keys/auto/*.auth`. */
import {
  certificateLists,
  encodeSignatureLists,
  encodeVariableUpdate,
  prepareVariableUpdate,
  SECURE_BOOT_VARIABLES,
  type SecureBootVariable,
  type SignatureList,
} from '../formats/esl.ts'
import { loadMicrosoft, MICROSOFT_OWNER, type MicrosoftChoice } from './microsoft.ts'
import { type Signer, type Signers, signDigest, signersInForce } from './signer.ts'

export interface EnrolmentVariable {
  /** The signature lists of the update: what the variable holds afterwards, unless they are appended. */
  lists: Uint8Array
  /** The signed update, a `.auth` file. */
  auth: Uint8Array
}

export interface Enrolment {
  PK: EnrolmentVariable
  KEK: EnrolmentVariable
  db: EnrolmentVariable
  /** Where something is revoked. */
  dbx?: EnrolmentVariable
}

export interface EnrolmentOptions {
  /** GUID entered beside each certificate. */
  owner: string
  /** Seconds since 1970, which a later update must exceed. */
  time: number
  /** Microsoft's certificates to enter as well. */
  microsoft?: readonly MicrosoftChoice[] | undefined
  /** What must not start although db would let it in. */
  revoked?: readonly SignatureList[] | undefined
}

/**
 * Makes PK, KEK and db, and dbx where something is revoked. The verity certificate goes into db too: the kernel takes db's
 * keys into `.platform`, against which it checks root-hash signatures, and no other list reaches that keyring.
 *
 * While a rotation is open, KEK and db have both certificates of each role, the later ones last, as on a machine that took
 * them by update. PK has room for one: the later, so that a new machine has nothing to change.
 */
export async function makeEnrolment(
  signers: Pick<Signers, 'pk' | 'kek' | 'db' | 'verity'>,
  options: EnrolmentOptions,
): Promise<Enrolment> {
  const pk = signersInForce(signers.pk).at(-1)!
  const lists = await enrolmentLists(signers, options)
  const make = (name: SecureBootVariable, signer: Signer) =>
    signVariable({ name, time: options.time, lists: lists[name] }, signer)
  return {
    PK: await make('PK', pk),
    KEK: await make('KEK', pk),
    db: await make('db', signers.kek),
    ...(lists.dbx.length > 0 ? { dbx: await make('dbx', signers.kek) } : {}),
  }
}

/** What the variables hold then. */
export async function enrolmentLists(
  { pk, kek, db, verity }: Readonly<Record<'pk' | 'kek' | 'db' | 'verity', Pick<Signer, 'certificate' | 'successor'>>>,
  options: Omit<EnrolmentOptions, 'time'>,
): Promise<Record<SecureBootVariable, readonly SignatureList[]>> {
  return {
    PK: certificateLists(options.owner, [(pk.successor ?? pk).certificate]),
    KEK: await trustLists('KEK', [kek], options),
    db: await trustLists('db', [db, verity], options),
    dbx: options.revoked ?? [],
  }
}

/** What a variable holds that lets these signers in, and those of Microsoft's that are asked for. */
export async function trustLists(
  variable: 'db' | 'KEK',
  signers: readonly Pick<Signer, 'certificate' | 'successor'>[],
  { owner, microsoft = [] }: Pick<EnrolmentOptions, 'owner' | 'microsoft'>,
): Promise<SignatureList[]> {
  const own = distinct(signers.map(({ certificate }) => certificate))
  const later = distinct(signers.flatMap(({ successor }) => (successor ? [successor.certificate] : [])))
  return [
    ...certificateLists(owner, own),
    ...certificateLists(MICROSOFT_OWNER, await loadMicrosoft(microsoft, variable)),
    ...certificateLists(
      owner,
      later.filter((one) => !own.some((other) => Buffer.compare(one, other) === 0)),
    ),
  ]
}

export interface VariableChange {
  name: SecureBootVariable
  /** Seconds since 1970. */
  time: number
  lists: readonly SignatureList[]
  /** Adds to what the variable holds, instead of replacing it. */
  append?: boolean
}

/** Signs a change of a variable; `about` tells who signs what it is. */
export async function signVariable(
  { name, time, lists, append = false }: VariableChange,
  signer: Signer,
  about: string = name,
): Promise<EnrolmentVariable> {
  const update = { name, vendor: SECURE_BOOT_VARIABLES[name], time, append, payload: encodeSignatureLists(lists) }
  const prepared = prepareVariableUpdate(update)
  const signature = await signDigest(signer, prepared.digest, 'EFI variable', about)
  return { lists: update.payload, auth: encodeVariableUpdate(update, prepared, { certificate: signer.certificate, signature }) }
}

const distinct = (all: readonly Uint8Array[]) => all.filter((one, i) => all.findIndex((x) => Buffer.compare(x, one) === 0) === i)
