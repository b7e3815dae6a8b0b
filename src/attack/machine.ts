/** The machines of an attack: a disk of their own, the keys of the image in their firmware, and a watch over what they print. */
import { cp, mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { decodeVariables, encodeVariables } from '../formats/ovmf-vars.ts'
import { copyImage, type EditedImage, openImage } from '../image/edit.ts'
import { enrolledVariables } from '../vm/firmware.ts'
import { FIRMWARE_VARIABLES } from '../vm/qemu.ts'
import { startVm, type Vm } from '../vm/vm.ts'
import type { MachineChange } from './case.ts'
import type { Subject } from './kit.ts'

export interface Lab {
  subject: Subject
  toolsTree: string
  /** Scratch; the caller removes it. */
  folder: string
  signal: AbortSignal | undefined
  /** How long a machine may take to come up. */
  bootMs: number
  diskBytes: number
  /** Where to keep what each machine printed, if anywhere. */
  logs?: string
}

/** A machine's disk and what it remembers, apart from any process. */
export interface Remains {
  disk: string
  /** variables.fd and tpm/ lie here. */
  state: string
}

/**
 * Kernel and services speak on the console, so that what refuses is heard even where nobody can log in: audit records, too, of
 * which the kernel prints ten in five seconds unless told otherwise. A slow host is no refusal: what waits for a device waits
 * for long. Every machine has these words, or what is sealed to them would not open.
 */
const SPEAK = [
  'console=ttyS0 loglevel=6 sysctl.kernel.printk_ratelimit=0 systemd.firstboot=no systemd.journald.forward_to_console=1 systemd.journald.max_level_console=notice',
  'systemd.default_device_timeout_sec=900 systemd.default_timeout_start_sec=900',
].join(' ')

/** A copy of a disk, and state to go with it: from a machine before, or as new. */
export async function prepare(
  lab: Lab,
  name: string,
  from: { disk: string; state?: string },
  edit?: (image: EditedImage) => void | Promise<void>,
): Promise<Remains> {
  const folder = join(lab.folder, name)
  await mkdir(folder, { recursive: true })
  const remains = { disk: join(folder, 'disk.raw'), state: join(folder, 'state') }
  await copyImage(from.disk, remains.disk)
  if (from.state) await cp(from.state, remains.state, { recursive: true })
  if (edit) {
    using image = openImage(remains.disk)
    await edit(image)
  }
  return remains
}

export const discard = (lab: Lab, name: string): Promise<void> => rm(join(lab.folder, name), { recursive: true, force: true })

/** Writes down what a machine printed, where that is wanted. */
export async function keepLog(lab: Lab, name: string, vm: Vm): Promise<void> {
  if (lab.logs === undefined) return
  await mkdir(lab.logs, { recursive: true })
  const { console: serial } = vm
  await writeFile(join(lab.logs, `${name}.log`), serial.text)
}

/** Starts it; `setup` leaves the firmware without keys, so that systemd-boot enrols them. */
export async function power(lab: Lab, remains: Remains, change: MachineChange & { setup?: boolean } = {}): Promise<Vm> {
  const { keys, secureBoot = true, freshTpm, setup, kernelCommandLine } = change
  if (freshTpm) await rm(join(remains.state, 'tpm'), { recursive: true, force: true })
  if (keys || !secureBoot) await rm(join(remains.state, 'variables.fd'), { force: true })
  const template = await readFile(join(lab.toolsTree, FIRMWARE_VARIABLES))
  // The time of enrolment is compared with later updates only: any before now will do.
  const on = enrolledVariables(template, keys ?? lab.subject.enrols, ENROLLED)
  const enrolled = setup ? {} : { variables: secureBoot ? on : switchedOff(template, on) }
  return startVm({
    image: remains.disk,
    writable: true,
    keep: remains.state,
    toolsTree: lab.toolsTree,
    cpus: 1,
    diskBytes: lab.diskBytes,
    kernelCommandLine: [SPEAK, ...(kernelCommandLine ? [kernelCommandLine] : [])].join(' '),
    ...enrolled,
    ...(lab.signal ? { signal: lab.signal } : {}),
  })
}

/** What the firmware's own menu does: the keys stay, and nothing is asked for a signature. Without keys they would be enrolled again. */
const switchedOff = (template: Uint8Array, flash: Uint8Array): Uint8Array =>
  encodeVariables(
    template,
    decodeVariables(flash).map((one) => (one.name === 'SecureBootEnable' ? { ...one, data: Uint8Array.of(0) } : one)),
  )

const ENROLLED = new Date(Date.UTC(2026, 0, 1))

export interface Watched {
  /** What it printed that was waited for. */
  refused?: string
  /** Whether it came up. */
  up: boolean
  /** What it said when there was no way on. */
  ended?: string
}

export interface Watch {
  refused: RegExp
  ended?: RegExp
  /** Coming up does not end the watch by itself. */
  mayComeUp?: boolean
}

const LOOK_MS = 250
/** What was refused does not go on: within this time a machine would show that it does. */
const SETTLE_MS = 8000
/** A machine that cannot go on has said why by then, or will not. */
const SILENT_MS = 30_000

/** Watches the console until the machine was refused and cannot go on, or came up, or the time is over. */
export async function watch(lab: Lab, vm: Vm, { refused, ended, mayComeUp }: Watch): Promise<Watched> {
  let up = false
  let over = false
  vm.waitBoot(lab.bootMs).then(
    () => {
      up = true
    },
    () => {
      over = true
    },
  )
  let refusedAt: number | undefined
  let endedAt: number | undefined
  for (;;) {
    lab.signal?.throwIfAborted()
    const { text } = vm.console
    const [sign, end] = [lineWith(text, refused), ended && lineWith(text, ended)]
    if (sign !== undefined) refusedAt ??= Date.now()
    if (end !== undefined) endedAt ??= Date.now()
    const settled = refusedAt !== undefined && Date.now() - refusedAt > SETTLE_MS
    const silent = endedAt !== undefined && Date.now() - endedAt > SILENT_MS
    const found = { ...(sign === undefined ? {} : { refused: sign }), ...(end === undefined ? {} : { ended: end }), up }
    if (sign !== undefined && (ended ? end !== undefined : settled)) return found
    if (sign !== undefined && mayComeUp) return found
    if (up || over || silent) return found
    await sleep(LOOK_MS)
  }
}

/** The whole line that holds the match, without the frames of a menu that was drawn before it. */
export function lineWith(text: string, pattern: RegExp): string | undefined {
  const match = new RegExp(pattern.source, pattern.flags.replace(/[gy]/g, '')).exec(text)
  if (!match) return undefined
  const start = text.lastIndexOf('\n', match.index) + 1
  const end = text.indexOf('\n', match.index + match[0].length)
  const before = text.slice(Math.max(start, match.index - 200), match.index).replace(/^.*[\u2500-\u257f]{2,}/, '')
  return `${before}${text.slice(match.index, end < 0 ? undefined : end)}`.trim().slice(0, 300)
}
