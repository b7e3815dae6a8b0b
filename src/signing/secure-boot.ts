/** The Secure Boot variables that make a machine in setup mode trust an image's keys, as `loader/keys/auto/*.auth`. */
import {
  certificateLists,
  encodeSignatureLists,
  encodeVariableUpdate,
  prepareVariableUpdate,
  SECURE_BOOT_VARIABLES,
  type VariableUpdate,
} from '../formats/esl.ts'
import { type Signer, type Signers, signDigest } from './signer.ts'

export interface EnrolmentVariable {
  /** What the variable holds afterwards: its signature lists. */
  lists: Uint8Array
  /** The signed update, a `.auth` file. */
  auth: Uint8Array
}

export interface Enrolment {
  PK: EnrolmentVariable
  KEK: EnrolmentVariable
  db: EnrolmentVariable
}

/**
 * Makes PK, KEK and db. `owner` is the GUID entered beside each certificate; `time` (seconds since 1970) the one that a
 * later update must exceed. The verity certificate goes into db too: the kernel takes db's keys into `.platform`, against
 * which it checks root-hash signatures, and no other list reaches that keyring.
 */
export async function makeEnrolment(
  signers: Pick<Signers, 'pk' | 'kek' | 'db' | 'verity'>,
  options: { owner: string; time: number },
): Promise<Enrolment> {
  const { pk, kek, db, verity } = signers
  const make = (name: keyof Enrolment, certificates: readonly Uint8Array[], signer: Signer) =>
    signVariable({ name, vendor: SECURE_BOOT_VARIABLES[name], time: options.time, payload: listsOf(certificates) }, signer)
  const listsOf = (certificates: readonly Uint8Array[]) => encodeSignatureLists(certificateLists(options.owner, certificates))
  return {
    PK: await make('PK', [pk.certificate], pk),
    KEK: await make('KEK', [kek.certificate], pk),
    db: await make('db', distinct([db.certificate, verity.certificate]), kek),
  }
}

async function signVariable(update: VariableUpdate, signer: Signer): Promise<EnrolmentVariable> {
  const prepared = prepareVariableUpdate(update)
  const signature = await signDigest(signer, prepared.digest, 'EFI variable', update.name)
  return { lists: update.payload, auth: encodeVariableUpdate(update, prepared, { certificate: signer.certificate, signature }) }
}

const distinct = (all: readonly Uint8Array[]) => all.filter((one, i) => all.findIndex((x) => Buffer.compare(x, one) === 0) === i)
