/** What a folder of keys holds, for people: certificates, how long they last, where their keys are, what is changing. */
import { existsSync } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { loadCertificate, readSmall } from './certificate.ts'
import { type Expiry, expiryOf } from './expiry.ts'
import { ROLE_PURPOSES } from './keys.ts'
import { FINISHING_FOLDER, NEXT_FOLDER, requireFolder } from './load.ts'
import { pendingUpdates, SIGN_FOLDER } from './offline-updates.ts'
import { loadRevocations } from './revocations.ts'
import { KEY_ROLES, type KeyRole } from './signer.ts'
import { PREVIOUS_FOLDER } from './updates.ts'

/** Where a private key is: here, in a token, with a service, or somewhere this folder does not know. */
export type Backend = 'file' | 'pkcs11' | 'https' | 'certificate only'

export interface KeyInfo extends Expiry {
  role: KeyRole
  purpose: string
  subject: string
  /** SHA-256 of the certificate's DER. */
  fingerprint: string
  /** Seconds since 1970. */
  notBefore: number
  backend: Backend
}

export interface KeyFolder {
  keys: KeyInfo[]
  /** Of a rotation that is open, or whose end was interrupted: the keys that take over. */
  rotation?: { state: 'open' | 'interrupted'; keys: KeyInfo[] }
  /** Updates of firmware variables that wait for signatures by keys elsewhere, and the folder with what is to be signed. */
  wanted?: { updates: string; folder: string }
  /** Keys of ended rotations, the latest first, with the folder each set is in. */
  previous: { folder: string; keys: KeyInfo[] }[]
  /** How many images and certificates are revoked. */
  revoked: number
}

/** What a folder of keys holds at `now`, in seconds since 1970. Private keys are not opened. */
export async function showKeys(directory: string, now: number): Promise<KeyFolder> {
  await requireFolder(directory)
  const rotating = [NEXT_FOLDER, FINISHING_FOLDER].find((name) => existsSync(join(directory, name)))
  const ended = await readdir(join(directory, PREVIOUS_FOLDER)).catch(() => [])
  const previous = ended.sort().reverse()
  const pending = await pendingUpdates(directory)
  return {
    keys: await infosIn(directory, KEY_ROLES, now),
    ...(rotating === undefined
      ? {}
      : {
          rotation: {
            state: rotating === NEXT_FOLDER ? ('open' as const) : ('interrupted' as const),
            keys: await infosIn(join(directory, rotating), rolesIn(join(directory, rotating)), now),
          },
        }),
    ...(pending ? { wanted: { updates: pending.inputs.updates, folder: join(directory, SIGN_FOLDER) } } : {}),
    previous: await Promise.all(
      previous.map(async (name) => {
        const folder = join(directory, PREVIOUS_FOLDER, name)
        return { folder, keys: await infosIn(folder, rolesIn(folder), now) }
      }),
    ),
    revoked: (await loadRevocations(directory)).length,
  }
}

/** The roles that a folder has certificates for. */
const rolesIn = (directory: string): KeyRole[] => KEY_ROLES.filter((role) => existsSync(join(directory, `${role}.crt`)))

const infosIn = (directory: string, roles: readonly KeyRole[], now: number): Promise<KeyInfo[]> =>
  Promise.all(
    roles.map(async (role) => {
      const certificate = await loadCertificate(join(directory, `${role}.crt`))
      return {
        role,
        purpose: ROLE_PURPOSES[role].purpose,
        subject: certificate.subject.replaceAll('\n', ', '),
        fingerprint: certificate.fingerprint256.replaceAll(':', '').toLowerCase(),
        notBefore: certificate.validFromDate.getTime() / 1000,
        ...expiryOf(certificate.raw, now),
        backend: await backendOf(directory, role),
      }
    }),
  )

async function backendOf(directory: string, role: KeyRole): Promise<Backend> {
  if (existsSync(join(directory, `${role}.key`))) return 'file'
  const address = join(directory, `${role}.signer`)
  if (!existsSync(address)) return 'certificate only'
  return /^\s*pkcs11:/m.test(await readSmall(address, { secret: false, kind: 'signer' })) ? 'pkcs11' : 'https'
}
