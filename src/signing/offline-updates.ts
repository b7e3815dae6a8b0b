/**
 * Updates of firmware variables, signed by keys that are here or elsewhere. Where one is elsewhere nothing is written but what
 * is to be signed, into `sign/` of the folder of keys; the same command, run again, takes the signatures and writes the updates.
 */
import { existsSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { type Sha256, sha256 } from '../base/digest.ts'
import { Fault } from '../base/fault.ts'
import { type LoadOptions, loadSigner } from './load.ts'
import { type AskedKey, keyOf, nextRound, type OfflineSigners, offlineSigners } from './offline.ts'
import { loadRequests, readSignatures, type SigningRound, writeRequests } from './offline-folder.ts'
import {
  describe,
  isForUpdates,
  keyName,
  type SigningRequest,
  type SigningRequests,
  signatureName,
  type UpdateInputs,
} from './offline-requests.ts'
import { signCommand } from './offline-script.ts'
import type { KeyRole, Signer } from './signer.ts'
import { type SignedUpdate, signUpdates, UPDATES_FOLDER, type UpdateChange, writeTakeScript, writeUpdates } from './updates.ts'

/** Within the folder of keys; there while signatures are wanted. */
export const SIGN_FOLDER = 'sign'

/** What of the environment signers need. */
export type Access = Pick<LoadOptions, 'environment'>

/** A folder of updates to be written. */
export interface UpdatePlan {
  name: string
  changes: readonly UpdateChange[]
}

/** What updates are made with. */
export interface UpdateSigners {
  /** Seconds since 1970. */
  time: number
  /** Of a folder of keys; `successor` where it is that of keys that take over. */
  load(folder: string, role: KeyRole, successor?: true): Promise<Signer>
}

export interface WrittenUpdates {
  /** Folders that were written. */
  updates: string[]
  /** Signatures that must be there first: nothing was written. */
  wanted?: SigningRound
}

export interface UpdateOptions extends Access {
  /** The last folder of what is written, by which requests are told apart. */
  what: string
  /** Seconds since 1970. */
  now: number
}

/** Updates are signed whether or not certificates have expired: that is when they are needed, and firmware does not look. */
const ANY_TIME = 0

/** Makes, signs and writes folders of updates, all of them or none. Those that are there already stay as they are. */
export async function makeUpdates(
  directory: string,
  { what, now, environment }: UpdateOptions,
  plan: (signers: UpdateSigners) => Promise<UpdatePlan[]>,
): Promise<WrittenUpdates> {
  const known = await pendingFor(directory, what)
  const signatures = new Map<AskedKey, Uint8Array>()
  const offline = offlineSigners(signatures)
  const time = known?.inputs.epoch ?? now
  const certificates = new Set<Sha256>()
  const load: UpdateSigners['load'] = async (folder, role, successor) => {
    const signer = await loadSigner(folder, role, {
      epoch: ANY_TIME,
      ...(environment ? { environment } : {}),
      offline: (_, certificate) => offline.signer(certificate, { role, ...(successor ? { successor } : {}) }),
    })
    certificates.add(sha256(signer.certificate))
    return signer
  }
  const folders = (await plan({ time, load })).filter(({ changes }) => changes.length > 0)
  const isWritten = ({ name }: UpdatePlan) => existsSync(join(directory, UPDATES_FOLDER, name))
  const updates: string[] = []
  if (!folders.every(isWritten)) {
    if (known) await takeSignatures(directory, known, offline, signatures)
    const signed: { name: string; files: SignedUpdate[] }[] = []
    for (const { name, changes } of folders) signed.push({ name, files: await signUpdates(changes, time) })
    // A key that was elsewhere may be here by now: what was asked of it is signed already.
    const isHere = ({ certificate }: SigningRequest) => certificates.has(certificate) && !offline.certificates().has(certificate)
    const before = known?.requests.filter((request) => !isHere(request)) ?? []
    refuseOther(directory, before, offline)
    if (offline.missing().length > 0) return { updates, wanted: await ask(directory, { what, time, before }, offline) }
    for (const { name, files } of signed) {
      const folder = await writeUpdates(directory, name, files)
      if (folder !== undefined) updates.push(folder)
    }
  }
  await writeTakeScript(directory)
  if (known) await rm(join(directory, SIGN_FOLDER), { recursive: true })
  return { updates }
}

/** What signatures are wanted for, if any are. */
export async function pendingUpdates(directory: string): Promise<SigningRequests<UpdateInputs> | undefined> {
  const folder = join(directory, SIGN_FOLDER)
  const known = await loadRequests(folder)
  if (known === undefined) return undefined
  if (!isForUpdates(known))
    throw new Fault('usage', `Cannot use ${folder}: its requests are for an image`, { hint: 'Move it away' })
  return known
}

/** What was asked for these updates before, if anything. Requests for others are in the way, unless those are written. */
export async function pendingFor(directory: string, what: string): Promise<SigningRequests<UpdateInputs> | undefined> {
  const known = await pendingUpdates(directory)
  if (known === undefined || known.inputs.updates === what) return known
  const folder = join(directory, SIGN_FOLDER)
  if (!existsSync(join(directory, UPDATES_FOLDER, known.inputs.updates)))
    throw new Fault(
      'usage',
      `Cannot make updates ${what}: signatures for ${known.inputs.updates} are still wanted, in ${folder}`,
      {
        hint: `Sign those, and run again the command that asked for them; or give them up: rm -r ${folder}`,
      },
    )
  await rm(folder, { recursive: true })
  return undefined
}

/** Hands right signatures to the signers. A Fault where one is wrong. */
async function takeSignatures(
  directory: string,
  known: SigningRequests<UpdateInputs>,
  offline: OfflineSigners,
  signatures: Map<AskedKey, Uint8Array>,
): Promise<void> {
  const folder = join(directory, SIGN_FOLDER)
  const { good, wrong } = await readSignatures(folder, known.requests, offline.certificates())
  if (wrong.length > 0) {
    const lines = wrong.map(({ request, why }) => `  ${signatureName(request)} ${why}`)
    const names = [...new Set(wrong.map(({ request }) => keyName(request)))]
    throw new Fault(
      'integrity',
      [`Cannot take the signatures in ${folder}: ${wrong.length} of them are wrong`, ...lines].join('\n'),
      {
        hint: names.map((name) => signCommand(folder, name)).join('\n'),
      },
    )
  }
  for (const [key, signature] of good) signatures.set(key, signature)
}

/** What was asked for before must be what these updates come to as well. */
function refuseOther(directory: string, before: readonly SigningRequest[], offline: OfflineSigners): void {
  const asked = new Set(offline.asked().map(keyOf))
  const gone = before.filter((request) => !asked.has(keyOf(request)))
  if (gone.length === 0) return
  const folder = join(directory, SIGN_FOLDER)
  const lines = gone.map((request) => `  ${describe(request)}`)
  throw new Fault('usage', [`Cannot use the requests in ${folder}: they were made for something else`, ...lines].join('\n'), {
    hint: `Run the command that asked for them as it was; or give them up: rm -r ${folder}`,
  })
}

interface Asking {
  what: string
  time: number
  /** What was asked for already. */
  before: readonly SigningRequest[]
}

/** Writes what is to be signed, or renews what of it may be lost. */
async function ask(directory: string, { what, time, before }: Asking, offline: OfflineSigners): Promise<SigningRound> {
  const folder = join(directory, SIGN_FOLDER)
  const missing = new Set(offline.missing().map(keyOf))
  const asked = new Set(before.map(keyOf))
  const more = nextRound(offline.missing(), () => false).filter((one) => !asked.has(keyOf(one)))
  const requests = [...before, ...more.map((one): SigningRequest => ({ round: 1, ...one }))]
  await writeRequests(folder, { inputs: { updates: what, epoch: time }, requests }, offline.certificates())
  return { folder, round: 1, requests, open: requests.filter((request) => missing.has(keyOf(request))) }
}
