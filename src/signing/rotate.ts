/**
 * Changing keys while machines run on them.
 *
 * A rotation is *opened*: new keys wait in `next/`, the old ones stay where they are and stay in force. Until it is finished,
 * what is built starts on machines that trust either (see `Signer.successor`), and machines take the updates that make
 * them trust both. *Finishing* puts the new keys in the old ones' place, moves those to `previous/`, and writes the updates
 * that take the trust in them back.
 *
 * Each of the two appears by one rename. Finishing goes through `finishing/`: where it is interrupted, nothing is signed
 * until it is run again, and goes on where it stopped. No private key is ever removed.
 */

import { existsSync } from 'node:fs'
import { readFile, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { dayOf } from '../base/day.ts'
import { Fault } from '../base/fault.ts'
import { certificateLists, type SignatureList } from '../formats/esl.ts'
import { loadCertificate } from './certificate.ts'
import { hostFault, syncFolder, writeFolder, writeOnce } from './folder.ts'
import { type KeyPlan, loadOwner, ROLE_PURPOSES, writePairs } from './keys.ts'
import { FINISHING_FOLDER, loadSigner, NEXT_FOLDER, requireFolder } from './load.ts'
import type { MicrosoftChoice } from './microsoft.ts'
import { type Access, makeUpdates, pendingFor, type WrittenUpdates } from './offline-updates.ts'
import { addRevocations, type Revocation, revocationLists } from './revocations.ts'
import { alreadyOpen, interrupted, type Rotation, rotationIn, writeRotation } from './rotation.ts'
import { trustLists } from './secure-boot.ts'
import { KEY_ROLES, type KeyRole } from './signer.ts'
import { nextNumber, PREVIOUS_FOLDER, UPDATES_FOLDER, type UpdateChange } from './updates.ts'

/**
 * What is rotated unless roles are named: the keys that sign images. PK and KEK sign a few updates in their life and are
 * best left alone; secrets are sealed to the PCR key, so that each machine must seal them anew before a rotation is finished.
 */
export const ROTATED_BY_DEFAULT: readonly KeyRole[] = ['db', 'verity']

export interface RotationPlan extends Omit<KeyPlan, 'commonName'>, Access {
  roles: readonly KeyRole[]
  /** Whose keys they are; as the old certificates say, unless given. */
  commonName?: string | undefined
  /** Folder with the new certificates, and keys or signers, where they are not to be made here. */
  from?: string | undefined
}

export type Rotated = Rotation & WrittenUpdates

/** Opens a rotation, or completes the opening of one that was interrupted. */
export async function openRotation(directory: string, plan: RotationPlan): Promise<Rotated> {
  await requireFolder(directory)
  if (existsSync(join(directory, FINISHING_FOLDER))) throw interrupted(directory)
  const next = join(directory, NEXT_FOLDER)
  if (existsSync(next)) {
    const open = await rotationIn(next)
    const written = await writeOpening(directory, open, plan)
    if (written.updates.length === 0 && !written.wanted) throw alreadyOpen(directory, open)
    return { ...open, ...written }
  }
  const roles = KEY_ROLES.filter((role) => plan.roles.includes(role))
  const rotation: Rotation = { number: await nextNumber(directory), roles, opened: plan.now }
  await pendingFor(directory, openingName(rotation))
  await hostFault(`rotate keys in ${directory}`, () =>
    writeFolder(next, alreadyOpen(directory, rotation), async (fresh) => {
      if (plan.from === undefined) await makePairs(directory, fresh, roles, plan)
      else for (const role of roles) await copyKey(plan.from, fresh, role)
      for (const role of roles) await requireAnother(directory, fresh, role, plan)
      await writeRotation(fresh, rotation)
    }),
  )
  return { ...rotation, ...(await writeOpening(directory, rotation, plan)) }
}

export interface FinishPlan extends Access {
  /** Seconds since 1970. */
  now: number
  /** Microsoft's certificates that machines are to keep. Whatever else they have besides ours is gone afterwards. */
  microsoft: readonly MicrosoftChoice[]
}

/**
 * Finishes a rotation: from here on images are signed with the new keys alone. Goes on where it was interrupted. Where
 * signatures are wanted first, the rotation stays open.
 */
export async function finishRotation(directory: string, plan: FinishPlan): Promise<Rotated> {
  await requireFolder(directory)
  const [next, finishing] = [join(directory, NEXT_FOLDER), join(directory, FINISHING_FOLDER)]
  let written: WrittenUpdates = { updates: [] }
  if (existsSync(next)) {
    const open = await rotationIn(next)
    requireOpened(directory, open)
    written = await writeFinish(directory, open, plan)
    if (written.wanted) return { ...open, ...written }
    await rename(next, finishing)
    await syncFolder(directory)
  }
  if (!existsSync(finishing))
    throw new Fault('usage', `Cannot finish a rotation in ${directory}: none is open`, {
      hint: `bisque keys rotate --keys ${directory}`,
    })
  const rotation = await rotationIn(finishing)
  await hostFault(`finish the rotation in ${directory}`, () => putInPlace(directory, rotation, dayOf(plan.now)))
  return { ...rotation, ...written }
}

const openingName = ({ number }: Rotation) => `${number}-open`

/** Whether machines have something to take: secrets that are sealed to the PCR key are sealed anew there. */
const changesVariables = ({ roles }: Rotation) => roles.some((role) => role !== 'pcr')

/** Makes machines trust the new keys beside the old: all is signed by what they trust now, so the order does not matter. */
async function writeOpening(directory: string, rotation: Rotation, access: Access): Promise<WrittenUpdates> {
  const { roles, opened } = rotation
  const owner = await loadOwner(directory)
  const coming = async (of: readonly KeyRole[]): Promise<SignatureList[]> =>
    certificateLists(owner, distinct(await Promise.all(of.map((role) => certificateIn(join(directory, NEXT_FOLDER), role)))))
  const inForce = (role: KeyRole) => certificateIn(directory, role)
  const db = roles.filter((role) => role === 'db' || role === 'verity')
  const name = openingName(rotation)
  return makeUpdates(directory, { ...access, what: name, now: opened }, async ({ load }) => {
    const signer = (role: KeyRole) => load(directory, role)
    const changes: UpdateChange[] = []
    if (db.length > 0)
      changes.push({
        name: 'db',
        append: true,
        lists: await coming(db),
        signer: await signer('kek'),
        ifHolds: await inForce('db'),
      })
    if (roles.includes('kek'))
      changes.push({
        name: 'KEK',
        append: true,
        lists: await coming(['kek']),
        signer: await signer('pk'),
        ifHolds: await inForce('kek'),
      })
    if (roles.includes('pk'))
      changes.push({ name: 'PK', lists: await coming(['pk']), signer: await signer('pk'), ifHolds: await inForce('pk') })
    return [{ name, changes }]
  })
}

/** Machines that never came to trust the new keys would start nothing after the end. */
function requireOpened(directory: string, rotation: Rotation): void {
  if (!changesVariables(rotation) || existsSync(join(directory, UPDATES_FOLDER, openingName(rotation)))) return
  throw new Fault('usage', `Cannot finish the rotation in ${directory}: its updates for machines are not there yet`, {
    hint: `bisque keys rotate --keys ${directory}`,
  })
}

/** Takes trust in the old keys back: what machines trusted beside it is replaced, signed by the new keys where there are some. */
async function writeFinish(directory: string, { number, roles, opened }: Rotation, plan: FinishPlan): Promise<WrittenUpdates> {
  const { microsoft } = plan
  const owner = await loadOwner(directory)
  const isNew = (role: KeyRole) => roles.includes(role)
  const folderOf = (role: KeyRole) => (isNew(role) ? join(directory, NEXT_FOLDER) : directory)
  const holder = async (role: KeyRole) => ({ certificate: await certificateIn(folderOf(role), role) })
  const [old] = roles.filter((role) => role === 'db' || role === 'verity')
  const name = `${number}-finish`
  const now = Math.max(plan.now, opened + 1)
  return makeUpdates(directory, { ...accessOf(plan), what: name, now }, async ({ time, load }) => {
    const signer = (role: KeyRole) => load(folderOf(role), role, isNew(role) || undefined)
    const changes: UpdateChange[] = []
    if (old !== undefined) {
      const lists = await trustLists('db', [await holder('db'), await holder('verity')], { owner, microsoft })
      changes.push({ name: 'db', lists, signer: await signer('kek'), ifHolds: await certificateIn(directory, old) })
    }
    if (roles.includes('kek')) {
      const lists = await trustLists('KEK', [await holder('kek')], { owner, microsoft })
      changes.push({ name: 'KEK', lists, signer: await signer('pk'), ifHolds: await certificateIn(directory, 'kek') })
    }
    const revoked = revocationLists(owner, await outgoing(directory, roles, dayOf(time)))
    const revoking: UpdateChange[] =
      revoked.length > 0 ? [{ name: 'dbx', append: true, lists: revoked, signer: await signer('kek') }] : []
    return [
      { name, changes },
      { name: `${number}-revoke`, changes: revoking },
    ]
  })
}

/** The certificates of roles that sign what starts, as revocations: an old image must not be a way back. */
async function outgoing(directory: string, roles: readonly KeyRole[], on: string): Promise<Revocation[]> {
  const signing = roles.filter((role) => role === 'db' || role === 'verity')
  return Promise.all(
    signing.map(async (role) => {
      const { raw, subject } = await loadCertificate(join(directory, `${role}.crt`))
      return { name: subject.replaceAll('\n', ', '), on, certificate: raw.toString('base64') }
    }),
  )
}

/** Each step leaves what the next run recognizes; a role is done when its new certificate, the last file, has gone in. */
async function putInPlace(directory: string, { number, roles, opened }: Rotation, today: string): Promise<void> {
  const finishing = join(directory, FINISHING_FOLDER)
  const kept = join(directory, PREVIOUS_FOLDER, `${number}-${dayOf(opened)}`)
  if (!existsSync(kept)) {
    const refusal = new Fault('usage', `Cannot keep the old keys: ${kept} is there already`)
    await writeFolder(kept, refusal, async (fresh) => {
      for (const role of roles) await copyKey(directory, fresh, role)
    })
  }
  await addRevocations(directory, await outgoing(kept, roles, today))
  for (const role of roles) {
    if (!existsSync(join(finishing, `${role}.crt`))) continue
    for (const end of KEY_ENDS) {
      const [from, to] = [join(finishing, `${role}.${end}`), join(directory, `${role}.${end}`)]
      if (existsSync(from)) await rename(from, to)
      else if (await isSame(to, join(kept, `${role}.${end}`))) await rm(to) // the new key is kept in another way
    }
  }
  await syncFolder(directory)
  const done = join(directory, `.${number}-finished`)
  await rename(finishing, done)
  await syncFolder(directory)
  await rm(done, { recursive: true })
}

/** Files that a role may have in a folder of keys; the certificate last. */
const KEY_ENDS = ['key', 'signer', 'crt'] as const

async function copyKey(from: string, to: string, role: KeyRole): Promise<void> {
  for (const end of KEY_ENDS) {
    const bytes = await readFile(join(from, `${role}.${end}`)).catch((cause: NodeJS.ErrnoException) => {
      if (cause.code === 'ENOENT' && end !== 'crt') return undefined
      throw new Fault('missing', `Cannot read the new ${role} certificate: ${cause.message}`, { cause })
    })
    if (bytes) await writeOnce(join(to, `${role}.${end}`), bytes, end === 'key' ? 0o600 : 0o644)
  }
}

/** New keys are made in files: a key that is kept better is not replaced by one. */
async function makePairs(directory: string, fresh: string, roles: readonly KeyRole[], plan: RotationPlan): Promise<void> {
  const elsewhere = roles.filter((role) => !existsSync(join(directory, `${role}.key`)))
  if (elsewhere.length > 0)
    throw new Fault('usage', `Cannot make new keys for ${elsewhere.join(', ')}: the present ones are not in files`, {
      hint: `Make keys where you keep them, and name a folder with the new ROLE.crt, and ROLE.signer unless they sign elsewhere: bisque keys rotate ${roles.join(' ')} --from DIR`,
    })
  for (const role of roles) {
    const commonName = plan.commonName ?? (await commonNameIn(directory, role))
    await writePairs(fresh, [role], { commonName, now: plan.now, years: plan.years })
  }
}

/** Whose keys they are, as the present certificate says. */
async function commonNameIn(directory: string, role: KeyRole): Promise<string> {
  const { subject } = await loadCertificate(join(directory, `${role}.crt`))
  const [, name = ''] = /^CN=(.*)$/m.exec(subject) ?? []
  return (name.endsWith(` ${ROLE_PURPOSES[role].title}`) ? name.slice(0, -ROLE_PURPOSES[role].title.length - 1) : name).slice(
    0,
    46,
  )
}

/** A successor must be usable, and another than the one in force. */
async function requireAnother(directory: string, fresh: string, role: KeyRole, plan: RotationPlan): Promise<void> {
  const successor = await loadSigner(fresh, role, {
    epoch: plan.now,
    ...accessOf(plan),
    offline: (_, certificate) => ({ certificate, sign: () => Promise.reject(new Error('signs elsewhere')) }),
  })
  if (Buffer.compare(successor.certificate, await certificateIn(directory, role)) === 0)
    throw new Fault('usage', `Cannot rotate ${role}: the new certificate is the one in force`)
}

const certificateIn = async (directory: string, role: KeyRole): Promise<Uint8Array> =>
  (await loadCertificate(join(directory, `${role}.crt`))).raw

async function isSame(path: string, other: string): Promise<boolean> {
  const [a, b] = await Promise.all([path, other].map((one) => readFile(one).catch(() => undefined)))
  return a !== undefined && b !== undefined && a.equals(b)
}

const accessOf = ({ environment }: Access): Access => (environment ? { environment } : {})

const distinct = (all: readonly Uint8Array[]) => all.filter((one, i) => all.findIndex((x) => Buffer.compare(x, one) === 0) === i)
