/** `bisque keys enroll`: an image's keys for firmware that does not enrol them by itself. */
import { mkdir, readFile } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { Fault } from '../base/fault.ts'
import { type EnrolmentFiles, enrolmentFiles } from '../signing/enroll.ts'
import { hostFault, replaceFile } from '../signing/folder.ts'
import type { MicrosoftChoice } from '../signing/microsoft.ts'
import type { Access } from '../signing/offline-updates.ts'
import type { KeyRole } from '../signing/signer.ts'
import { enrolledVariables } from '../vm/firmware.ts'

export interface KeysEnrollOptions {
  keys: string
  /** Folder for files that firmware takes. */
  to?: string | undefined
  /** File of OVMF's variables, to enter the keys into. */
  ovmf?: string | undefined
  microsoft: readonly MicrosoftChoice[]
}

export interface EnrollResult {
  directory: string
  files: string[]
  ovmf?: string
  elsewhere: KeyRole[]
}

export async function keysEnroll(options: KeysEnrollOptions & Access & { now: number }): Promise<EnrollResult> {
  const { keys: directory, to, ovmf, ...rest } = options
  if (to === undefined && ovmf === undefined)
    throw new Fault('usage', 'Cannot enroll keys: nothing says where', { hint: 'bisque keys enroll --to DIR, or --ovmf FILE' })
  const { files, lists, elsewhere } = await enrolmentFiles(directory, rest)
  const variables = ovmf === undefined ? undefined : await withKeys(ovmf, lists, rest.now)
  const written: string[] = []
  if (to !== undefined) {
    await hostFault(`write to ${to}`, () => mkdir(to, { recursive: true }))
    for (const [name, bytes] of files) {
      await hostFault(`write ${join(to, name)}`, () => replaceFile(join(to, name), bytes))
      written.push(join(to, name))
    }
  }
  if (ovmf !== undefined) await hostFault(`write ${ovmf}`, () => replaceFile(ovmf, variables!))
  return { directory, files: written, ...(ovmf === undefined ? {} : { ovmf }), elsewhere }
}

async function withKeys(path: string, { PK: pk, KEK: kek, db, dbx }: EnrolmentFiles['lists'], now: number): Promise<Uint8Array> {
  const template = await readFile(path).catch((cause: NodeJS.ErrnoException) => {
    throw new Fault(cause.code === 'ENOENT' ? 'missing' : 'host', `Cannot read ${path}: ${cause.message}`, { cause })
  })
  return enrolledVariables(template, { pk, kek, db, ...(dbx.length > 0 ? { dbx } : {}) }, new Date(now * 1000))
}

/** What was written, and who takes it. */
export function enrollLines({ files, ovmf, elsewhere }: EnrollResult): string[] {
  const entered = ovmf === undefined ? [] : [`Entered into ${ovmf}: a machine with it enforces Secure Boot from its first start`]
  const [first] = files
  if (first === undefined) return entered
  const certificates = (role: string) =>
    files
      .map((file) => basename(file))
      .filter((name) => name.startsWith(role) && name.endsWith('.cer'))
      .join(', ')
  const menu = `${certificates('db')}, ${certificates('verity')} into db; ${certificates('kek')} into KEK; last ${certificates('pk')} into PK`
  return [
    `In ${dirname(first)}:`,
    ...(elsewhere.length > 0
      ? [`  no .auth files, as these keys, which sign them, are not here: ${elsewhere.join(', ')}`]
      : ['  .auth  for loader/keys/NAME of an ESP with systemd-boot, which offers to enrol them; for efi-updatevar -f']),
    '  .esl   for virt-fw-vars, sbctl and others',
    `  .cer   for the menu of a firmware: ${menu}`,
    ...entered,
  ]
}
