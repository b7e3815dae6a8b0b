/** An attack as data: what is done, who must refuse it, and the sign by which one sees that this party did. */
import type { EditedImage } from '../image/edit.ts'
import type { FirmwareKeys } from '../vm/firmware.ts'
import type { Kit } from './kit.ts'

/** Who stands guard, in the order of the boot. */
export const REFUSERS = ['firmware', 'systemd-boot', 'systemd-stub', 'kernel', 'dm-verity', 'IPE', 'TPM', 'systemd'] as const
export type Refuser = (typeof REFUSERS)[number]

export const GROUPS = {
  firmware: 'What firmware starts',
  esp: 'What lies beside it on the ESP',
  usr: '/usr and its hash tree',
  tpm: 'Secrets sealed to the TPM',
  running: 'The running machine',
} as const
export type Group = keyof typeof GROUPS

export interface Case {
  name: string
  group: Group
  /** What is done, so that it follows "refuses". */
  does: string
  /** Who must refuse it; where several do in turn, the first that may. */
  by: Refuser
  /** How the refusal is seen, for people. */
  sign: string
  /** Whether it takes the image's own keys to make. */
  keys?: true
  /** Why nobody could refuse it: then it is shown, and no hole of this image. */
  outside?: string
  /** Why it means nothing for this machine, if so. */
  inapplicable?(machine: MachineFacts, kit: Kit): string | undefined
  attack: Attack
}

export type Attack = BootAttack | BesideAttack | RunningAttack | LiveAttack

/** The machine is started from a disk that was tampered with, and must not come up. */
export interface BootAttack {
  kind: 'boot'
  /** The disk as it was baked, or as the clean machine left it, with that machine's TPM. */
  from?: 'baked' | 'settled'
  edit?(image: EditedImage, kit: Kit): void | Promise<void>
  machine?(kit: Kit): MachineChange | Promise<MachineChange>
  /** Printed on the console by who refuses. */
  refused: RegExp
  /** Printed when there is no way on; without it, the machine is given a few seconds to come up all the same. */
  ended?: RegExp
  /** A refusal of a part: the rest of the machine may come up. */
  mayComeUp?: boolean
}

/** What is special about the machine itself. */
export interface MachineChange {
  keys?: FirmwareKeys | Omit<FirmwareKeys, 'dbx'>
  secureBoot?: boolean
  /** A TPM that has never seen this disk. */
  freshTpm?: boolean
  kernelCommandLine?: string
}

/** Something laid beside what is signed. All of these share one boot, which must come up without them. */
export interface BesideAttack {
  kind: 'beside'
  files(image: EditedImage, kit: Kit): Record<string, Uint8Array> | Promise<Record<string, Uint8Array>>
  kernelCommandLine?(kit: Kit): string
  /** Run in the machine once it is up. */
  look: string
  /** What of its output, or of the console, shows the refusal, and what that it worked. */
  refused: RegExp
  worked: RegExp
}

/** A command of root in the clean machine. */
export interface RunningAttack {
  kind: 'running'
  command: string | ((kit: Kit, machine: MachineFacts) => string)
  refused: RegExp
  worked: RegExp
}

/** The disk is changed below the running machine. */
export interface LiveAttack {
  kind: 'live'
  /** Brought into view before, so that what follows reads the disk again. */
  command: string | ((kit: Kit, machine: MachineFacts) => string)
  /** Changes the disk, and gives back how to undo that. */
  edit(image: EditedImage, kit: Kit): () => void
  refused: RegExp
  worked: RegExp
}

/** What the clean machine turned out to be. */
export interface MachineFacts {
  /** Active IPE policy, and whether it is enforced. */
  ipe: string | undefined
  enforcing: boolean
  /** `/` lies on an encrypted partition that the TPM unlocks. */
  tpmRoot: boolean
  lockdown: string
}

export type Verdict = 'refused' | 'not refused' | 'refused by another' | 'not seen' | 'outside' | 'needs keys' | 'not applicable'

export interface CaseResult {
  name: string
  group: Group
  does: string
  by: Refuser
  verdict: Verdict
  /** Who refused it, where someone did. */
  refusedBy?: Refuser
  /** The text that shows it, or why there is none. */
  evidence: string
  ms: number
}

/** An attack that nobody was seen to refuse, or not the one who must. */
export const isHole = ({ verdict }: Pick<CaseResult, 'verdict'>): boolean =>
  verdict === 'not refused' || verdict === 'refused by another' || verdict === 'not seen'
