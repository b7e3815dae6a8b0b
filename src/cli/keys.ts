/** `bisque keys generate|show|rotate|revoke`: makes the keys of an image, says what is in a folder of them, and changes them. */

import { join } from 'node:path'
import { dayOf } from '../base/day.ts'
import { Fault } from '../base/fault.ts'
import { generateKeys, type KeyPlan } from '../signing/keys.ts'
import type { MicrosoftChoice } from '../signing/microsoft.ts'
import type { SigningRound } from '../signing/offline-folder.ts'
import type { Access, WrittenUpdates } from '../signing/offline-updates.ts'
import type { Revocation } from '../signing/revocations.ts'
import { revoke } from '../signing/revoke.ts'
import { finishRotation, openRotation, ROTATED_BY_DEFAULT, type Rotated } from '../signing/rotate.ts'
import { type KeyFolder, type KeyInfo, showKeys } from '../signing/show.ts'
import type { KeyRole } from '../signing/signer.ts'
import { TAKE_SCRIPT, UPDATES_FOLDER } from '../signing/updates.ts'
import { revocationsOf } from './revoked.ts'
import { roundLines } from './round.ts'

export interface KeysGenerateOptions extends KeyPlan {
  /** Folder of the keys. */
  keys: string
}

export interface KeysResult extends KeyFolder {
  directory: string
}

export async function keysGenerate(options: KeysGenerateOptions): Promise<KeysResult> {
  const { keys: directory, ...plan } = options
  await generateKeys(directory, plan)
  return keysShow({ keys: directory, now: plan.now })
}

export async function keysShow({ keys: directory, now }: { keys: string; now: number }): Promise<KeysResult> {
  return { directory, ...(await showKeys(directory, now)) }
}

export interface KeysRotateOptions extends Access {
  keys: string
  roles: readonly KeyRole[]
  finish: boolean
  from?: string | undefined
  commonName?: string | undefined
  years: number
  microsoft: readonly MicrosoftChoice[]
  /** Seconds since 1970. */
  now: number
}

export interface RotateResult extends Rotated {
  directory: string
  finished: boolean
  /** Microsoft's certificates that machines keep. */
  microsoft: readonly MicrosoftChoice[]
}

export async function keysRotate({
  keys: directory,
  finish,
  roles,
  microsoft,
  ...options
}: KeysRotateOptions): Promise<RotateResult> {
  if (finish && (roles.length > 0 || options.from !== undefined))
    throw new Fault(
      'usage',
      'Cannot finish a rotation of other keys than it was opened for: --finish takes no ROLE and no --from',
      {
        hint: `bisque keys rotate --finish --keys ${directory}`,
      },
    )
  if (!finish && microsoft.length > 0)
    throw new Fault('usage', 'Cannot open a rotation with --microsoft-certificates: machines keep what they have until --finish')
  const rotated = finish
    ? await finishRotation(directory, { ...options, microsoft })
    : await openRotation(directory, { ...options, roles: roles.length > 0 ? roles : ROTATED_BY_DEFAULT })
  return { directory, finished: finish && !rotated.wanted, microsoft, ...rotated }
}

export interface RevokeResult extends WrittenUpdates {
  directory: string
  revoked: Revocation[]
}

export async function keysRevoke({
  keys: directory,
  files,
  now,
  ...access
}: Access & { keys: string; files: readonly string[]; now: number }): Promise<RevokeResult> {
  const { fresh, ...written } = await revoke(directory, await revocationsOf(files, now), { now, ...access })
  return { directory, revoked: fresh, ...written }
}

/** What a folder holds, for people: one key after another, with what identifies the certificate below it. */
export function keysLines({ directory, keys, rotation, wanted, previous, revoked }: KeysResult): string[] {
  return [
    `Keys in ${directory}`,
    ...keys.flatMap(keyLines),
    ...(rotation
      ? [
          '',
          rotation.state === 'open'
            ? 'A rotation is open: images are signed for machines that trust these keys, or those above'
            : 'The end of a rotation was interrupted: nothing is signed until bisque keys rotate --finish has run again',
          ...rotation.keys.flatMap(keyLines),
        ]
      : []),
    ...(wanted
      ? ['', `Signatures are wanted for ${wanted.updates}, in ${wanted.folder}: sign them, and run again what asked for them`]
      : []),
    ...previous.flatMap(({ folder, keys }) => ['', `Previous keys, in ${folder}`, ...keys.flatMap(keyLines)]),
    ...(revoked > 0 ? ['', `Revoked: ${revoked} ${revoked === 1 ? 'program or certificate' : 'programs and certificates'}`] : []),
  ]
}

const ROLE_WIDTH = 6
const INDENT = ' '.repeat(ROLE_WIDTH + 2)

function keyLines(key: KeyInfo): string[] {
  return [
    `${key.role.padEnd(ROLE_WIDTH)}  ${key.purpose}`,
    `${INDENT}${key.subject}, ${dayOf(key.notBefore)} to ${dayOf(key.notAfter)}: ${leftOf(key)}`,
    `${INDENT}${WHERE[key.backend]}`,
    `${INDENT}SHA-256 ${key.fingerprint}`,
  ]
}

const WHERE: Readonly<Record<KeyInfo['backend'], string>> = {
  file: 'private key in a file',
  pkcs11: 'private key in a PKCS#11 token',
  https: 'private key with a remote signer',
  'certificate only': 'private key not here',
}

function leftOf({ state, daysLeft }: KeyInfo): string {
  if (state === 'expired') return 'EXPIRED'
  return `${daysLeft} days left${state === 'ends soon' ? ', ROTATE SOON' : ''}`
}

/** How to go on where signatures are wanted: the same command as it would be typed again, and whether to colour. */
export interface Again {
  command: string
  color: boolean
}

/** What was done, and what is to be done next. */
export function rotateLines(result: RotateResult, again: Again, isFinish = result.finished): string[] {
  const { directory, roles, finished, microsoft, updates, wanted } = result
  const opened = `Opened: images are signed with the old keys and the new (${roles.join(', ')})`
  if (wanted && isFinish) return wantedLines('The rotation stays open until its last updates are signed', wanted, again)
  if (wanted) return [opened, ...wantedLines('There are updates for machines to be signed', wanted, again)]
  const take = join(directory, UPDATES_FOLDER, TAKE_SCRIPT)
  const files = updates.length > 0 ? [`Updates for machines that run: ${updates.join(', ')}`] : []
  const pcr = roles.includes('pcr')
  if (finished)
    return [
      `Finished: images are signed with the new keys alone (${roles.join(', ')})`,
      ...files,
      ...(updates.length > 0
        ? [
            `They replace db and KEK: of Microsoft's certificates, machines keep ${microsoft.join(', ') || 'none (see --microsoft-certificates)'}`,
            `Next: build and release; install it on every machine, and run ${take} there`,
            `Last, and only if no image of before need ever start again: ${take} dbx`,
          ]
        : []),
    ]
  return [
    opened,
    ...files,
    ...(updates.length > 0 ? [`Next: run ${take} on every machine, and build and release`] : ['Next: build and release']),
    ...(pcr ? [`On every machine that runs that release, before the end: ${take} seal`] : []),
    `When all have: bisque keys rotate --finish --keys ${directory}`,
  ]
}

export function revokeLines({ directory, revoked, updates, wanted }: RevokeResult, again: Again): string[] {
  if (revoked.length === 0) return ['All of it is revoked already']
  if (wanted) return wantedLines('Nothing is revoked until the update for machines is signed', wanted, again)
  return [
    ...revoked.map((one) => `Revoked ${one.name}${'program' in one ? `, Authenticode ${one.program}` : ''}`),
    ...updates.map((folder) => `Update for machines that run: ${folder}`),
    `Next: run ${join(directory, UPDATES_FOLDER, TAKE_SCRIPT)} dbx on every machine that starts something else already`,
  ]
}

const wantedLines = (what: string, wanted: SigningRound, { command, color }: Again): string[] => [
  `${what}, by keys that are not here`,
  '',
  ...roundLines(wanted, command, color),
]
