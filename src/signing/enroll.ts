/**
 * An image's keys for firmware that does not enrol them by itself: files for its setup menu, for tools and for a stick with
 * systemd-boot. Images enrol themselves where firmware is in setup mode; see `makeEnrolment()`.
 */
import { encodeSignatureLists, type SecureBootVariable, type SignatureList } from '../formats/esl.ts'
import { loadOwner } from './keys.ts'
import { loadSigners } from './load.ts'
import type { MicrosoftChoice } from './microsoft.ts'
import type { Access } from './offline-updates.ts'
import { loadRevocations, revocationLists } from './revocations.ts'
import { enrolmentLists, makeEnrolment } from './secure-boot.ts'
import type { KeyRole, Signer } from './signer.ts'

export interface EnrolOptions extends Access {
  microsoft: readonly MicrosoftChoice[]
  /** Seconds since 1970: firmware takes no update that is older. */
  now: number
}

export interface EnrolmentFiles {
  /** By name: `.cer` (a certificate, DER), `.esl` (signature lists), `.auth` (lists, signed). */
  files: Map<string, Uint8Array>
  /** The same signature lists, by variable. */
  lists: Record<SecureBootVariable, Uint8Array>
  /** Keys that are elsewhere: where there are some, there is no `.auth`. */
  elsewhere: KeyRole[]
}

const ENTERED = ['pk', 'kek', 'db', 'verity'] as const satisfies KeyRole[]

/** Everything there is to enter, in each form that firmware takes. Only the signed one needs private keys. */
export async function enrolmentFiles(directory: string, { now, microsoft, environment }: EnrolOptions): Promise<EnrolmentFiles> {
  const elsewhere = new Set<KeyRole>()
  const signers = await loadSigners(directory, {
    epoch: now,
    ...(environment ? { environment } : {}),
    offline: (role, certificate) => {
      elsewhere.add(role)
      return { certificate, sign: () => Promise.reject(new Error(`${role} signs elsewhere`)) }
    },
  })
  const owner = await loadOwner(directory)
  const options = { owner, time: now, microsoft, revoked: revocationLists(owner, await loadRevocations(directory)) }
  const entries = Object.entries(await enrolmentLists(signers, options)) as [SecureBootVariable, readonly SignatureList[]][]
  const filled = entries.filter(([, lists]) => lists.length > 0)
  const files = new Map<string, Uint8Array>()
  for (const role of ENTERED) for (const [name, certificate] of certificatesOf(role, signers[role])) files.set(name, certificate)
  for (const [name, lists] of filled) files.set(`${name}.esl`, encodeSignatureLists(lists))
  const away = (['pk', 'kek'] as const).filter((role) => elsewhere.has(role))
  if (away.length === 0)
    for (const [name, { auth }] of Object.entries(await makeEnrolment(signers, options))) files.set(`${name}.auth`, auth)
  const lists = Object.fromEntries(entries.map(([name, all]) => [name, encodeSignatureLists(all)]))
  return { files, lists: lists as EnrolmentFiles['lists'], elsewhere: away }
}

/** Of PK there is room for one: the later, where a rotation is open. */
function certificatesOf(role: (typeof ENTERED)[number], { certificate, successor }: Signer): [string, Uint8Array][] {
  if (successor && role === 'pk') return [[`${role}.cer`, successor.certificate]]
  return [
    [`${role}.cer`, certificate],
    ...(successor ? [[`${role}-next.cer`, successor.certificate] as [string, Uint8Array]] : []),
  ]
}
