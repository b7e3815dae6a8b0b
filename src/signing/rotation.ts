/** A rotation that is open: which keys are to take over, and since when. */

import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { dayOf } from '../base/day.ts'
import { Fault } from '../base/fault.ts'
import { readSmall } from './certificate.ts'
import { writeOnce } from './folder.ts'
import { NEXT_FOLDER } from './load.ts'
import { KEY_ROLES, type KeyRole } from './signer.ts'
import { nextNumber } from './updates.ts'

const ROTATION_FILE = 'rotation.json'

export interface Rotation {
  /** Of its updates. */
  number: number
  roles: KeyRole[]
  /** Seconds since 1970. */
  opened: number
}

/** The rotation whose new keys are in this folder. */
export async function rotationIn(folder: string): Promise<Rotation> {
  const path = join(folder, ROTATION_FILE)
  const text = await readSmall(path, { secret: false, kind: 'rotation' })
  try {
    const { number, roles, opened } = JSON.parse(text) as Rotation
    const known = Array.isArray(roles) && roles.every((role) => KEY_ROLES.includes(role))
    if (known && Number.isSafeInteger(number) && number > 0 && Number.isSafeInteger(opened)) return { number, roles, opened }
  } catch (cause) {
    throw new Fault('format', `Cannot read ${path}: ${(cause as Error).message}`, { cause })
  }
  throw new Fault('format', `Cannot read ${path}: it is no rotation`)
}

export const writeRotation = (folder: string, rotation: Rotation): Promise<void> =>
  writeOnce(join(folder, ROTATION_FILE), `${JSON.stringify(rotation)}\n`)

/** The number of a rotation that is open is taken, whether its updates are written or still wait for signatures. */
export async function freeNumber(directory: string): Promise<number> {
  const next = join(directory, NEXT_FOLDER)
  const open = existsSync(next) ? (await rotationIn(next)).number : 0
  return Math.max(await nextNumber(directory), open + 1)
}

export const alreadyOpen = (directory: string, { roles, opened }: Rotation) =>
  new Fault('usage', `Cannot rotate keys in ${directory}: a rotation of ${roles.join(', ')} is open since ${dayOf(opened)}`, {
    hint: `When all machines have taken its updates: bisque keys rotate --finish --keys ${directory}`,
  })

export const interrupted = (directory: string) =>
  new Fault('usage', `Cannot change keys in ${directory}: the end of a rotation was interrupted`, {
    hint: `bisque keys rotate --finish --keys ${directory}`,
  })
