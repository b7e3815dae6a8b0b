/**
 * A running virtual machine: its console, a shell inside it, and its end.
 *
 * The image is never written to, unless it is said to be the machine's own disk. What the machine changes (disk, firmware variables, TPM) lies in a state folder, which is
 * temporary unless `keep` names one: then the next machine started with it goes on where this one stopped.
 * QEMU and swtpm run in sandboxes of the tools tree and die with this process, however it ends.
 */
import { createHash, randomBytes } from 'node:crypto'
import { createReadStream, existsSync } from 'node:fs'
import {
  access,
  chmod,
  constants,
  copyFile,
  mkdir,
  mkdtemp,
  open,
  readFile,
  rm,
  stat,
  truncate,
  writeFile,
} from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Fault } from '../base/fault.ts'
import { alignUp } from '../base/size.ts'
import { encodeEmptyOverlay } from '../formats/qcow2.ts'
import { type Running, said } from '../run/process.ts'
import { type Sandbox, startInSandbox } from '../run/sandbox.ts'
import { type Console, openConsole } from './console.ts'
import { FIRMWARE_VARIABLES, type Machine, qemuCommand, swtpmCommand } from './qemu.ts'
import { connectQmp, type Qmp } from './qmp.ts'
import { type GuestOutcome, type GuestShell, openShell, shellCredentials } from './shell.ts'
import { listen } from './socket.ts'

export interface VmOptions {
  /** A whole disk, as `build` writes it. */
  image: string
  /** An unpacked tree with QEMU, OVMF and swtpm. */
  toolsTree: string
  memoryBytes?: number
  cpus?: number
  /** The image is the machine's own disk and takes what the guest writes, instead of an overlay in the state folder. */
  writable?: boolean
  /** The disk the guest sees is at least this large, so that systemd-repart finds room. */
  diskBytes?: number
  /** KVM where it is there and can run the firmware, unless given. */
  accelerator?: Machine['accelerator']
  cpu?: string
  /** Off, the firmware is one that knows neither keys nor setup mode. */
  secureBoot?: boolean
  /** Without a TPM when false. */
  tpm?: boolean
  /** Folder for the machine's state; made when missing, used again when not. */
  keep?: string
  /** The firmware's variables to start with, instead of the distribution's empty store. Not with a folder kept before. */
  variables?: Uint8Array
  /** System credentials for the guest: name to value. */
  credentials?: Readonly<Record<string, string>>
  /** Added to the kernel's command line by systemd-stub. */
  kernelCommandLine?: string
  /** Ends the machine. */
  signal?: AbortSignal
}

export interface Vm {
  readonly console: Console
  readonly qmp: Qmp
  /** Process that holds QEMU. */
  readonly pid: number
  /** Where disk.qcow2, variables.fd and tpm/ lie, and image.sha256 in one that is kept. */
  readonly stateFolder: string
  /** Waits until the guest has come up and takes commands. A machine in setup mode restarts once before that. */
  waitBoot(timeoutMs: number): Promise<void>
  /** Runs a command as root in the guest. */
  run(command: string, timeoutMs?: number): Promise<GuestOutcome>
  /** Restarts the guest in an orderly way and waits until it has come up again. */
  reboot(timeoutMs: number): Promise<void>
  /** Shuts the guest down in an orderly way; a guest that has not ended by then is killed. */
  powerOff(timeoutMs?: number): Promise<void>
  /** Ends the machine at once and removes what it leaves behind. May be called more than once. */
  kill(): Promise<void>
  /** Fulfilled when QEMU has ended, whoever ended it. */
  readonly ended: Promise<void>
  [Symbol.asyncDispose](): Promise<void>
}

const GIB = 2 ** 30
const SOCKETS = '/run/sockets'
const STATE = '/run/state'
const IMAGE = '/run/image'

export async function startVm(options: VmOptions): Promise<Vm> {
  if (options.accelerator) return startWith(options.accelerator, options)
  const hasKvm = await access('/dev/kvm', constants.R_OK | constants.W_OK).then(
    () => true,
    () => false,
  )
  if (!hasKvm) return startWith('tcg', options)
  try {
    return await startWith('kvm', options)
  } catch (error) {
    // Virtual machines often offer a KVM without the System Management Mode that the firmware keeps its keys with.
    if (!(error instanceof Fault && error.code === 'tool')) throw error
    return startWith('tcg', options)
  }
}

async function startWith(accelerator: Machine['accelerator'], options: VmOptions): Promise<Vm> {
  options.signal?.throwIfAborted()
  const image = resolve(options.image)
  const scratch = await mkdtemp(join(tmpdir(), 'bisque-vm-'))
  const { kill, onKill } = ending()
  onKill(() => rm(scratch, { recursive: true, force: true }))
  let hasStarted = false
  const abort = () => {
    if (hasStarted) void kill() // before that, what follows here looks at the signal itself
  }
  options.signal?.addEventListener('abort', abort, { once: true })
  onKill(() => options.signal?.removeEventListener('abort', abort))
  try {
    const stateFolder = resolve(options.keep ?? join(scratch, 'state'))
    await prepareState(stateFolder, image, options)
    const sockets = join(scratch, 'sockets')
    await mkdir(sockets)
    const sandbox: Sandbox = {
      root: resolve(options.toolsTree),
      tmpfs: ['/run', '/tmp', '/var/tmp'],
      binds: [
        { source: sockets, target: SOCKETS, writable: true },
        { source: stateFolder, target: STATE, writable: true },
        { source: image, target: IMAGE, ...(options.writable ? { writable: true } : {}) },
        ...(accelerator === 'kvm' ? [{ source: '/dev/kvm', target: '/dev/kvm', writable: true }] : []),
      ],
    }
    if (options.tpm !== false) onKill(await startTpm(sandbox, sockets))
    const word = randomBytes(8).toString('hex')
    const machine = machineOf(accelerator, options, smbiosOf(options, word))
    const { qemu, qmp, console, shell } = await startQemu(sandbox, machine, sockets, word, onKill)
    const ended = qemu.ended.then(() => kill())
    ended.catch(() => {}) // seen by whoever awaits it
    if (options.signal?.aborted) throw options.signal.reason
    hasStarted = true
    const control = controls(shell, console, qmp, ended, kill)
    return { console, qmp, pid: qemu.pid, stateFolder, kill, ended, ...control, [Symbol.asyncDispose]: kill }
  } catch (error) {
    await kill()
    throw error
  }
}

/** Undoes what was done, the last thing first, once; what fails does not keep the rest from being undone. */
function ending(): { kill(): Promise<void>; onKill(step: () => unknown): void } {
  const steps: (() => unknown)[] = []
  let ended: Promise<void> | undefined
  const undo = async () => {
    const failures: unknown[] = []
    for (const step of steps.reverse())
      await Promise.resolve()
        .then(step)
        .catch((error: unknown) => failures.push(error))
    if (failures.length > 0) throw failures[0]
  }
  return {
    kill() {
      ended ??= undo()
      return ended
    },
    onKill: (step) => void steps.push(step),
  }
}

/** Starts QEMU and takes its three connections: it makes them before the machine's first instruction. */
async function startQemu(
  sandbox: Sandbox,
  machine: Machine,
  folder: string,
  word: string,
  onKill: (step: () => unknown) => void,
) {
  const sockets = await Promise.all(['qmp', 'console', 'shell'].map((name) => listen(join(folder, name))))
  onKill(() => {
    for (const socket of sockets) socket.close()
  })
  const qemu = startInSandbox(sandbox, qemuCommand(machine))
  onKill(() => qemu.kill(2000))
  const failed = failureOf(qemu, 'QEMU')
  const streams = await Promise.race([Promise.all(sockets.map(({ connected }) => connected)), failed])
  const console = openConsole(streams[1]!)
  const shell = openShell(streams[2]!, word)
  const qmp = await connectQmp(streams[0]!).catch(async (error: unknown) => {
    await Promise.race([failed, sleep(1000)]) // what QEMU said as it ended tells more
    throw error
  })
  return { qemu, qmp, console, shell }
}

/** What one does with a machine that runs. */
function controls(shell: GuestShell, serial: Console, qmp: Qmp, ended: Promise<void>, kill: () => Promise<void>) {
  const waitBoot = async (timeoutMs: number, since = 0) => {
    try {
      await shell.ready(timeoutMs, since)
    } catch (cause) {
      if (!(cause instanceof Fault)) throw cause
      throw new Fault(cause.code, `${cause.message}; the last lines on its console:${serial.lastLines()}`, { cause })
    }
  }
  return {
    waitBoot,
    run: (command: string, timeoutMs = 120_000) => shell.run(command, timeoutMs),
    async reboot(timeoutMs: number) {
      const since = shell.boots
      void shell.run('systemctl reboot', timeoutMs).catch(() => {}) // the answer may never come
      await waitBoot(timeoutMs, since)
    },
    async powerOff(timeoutMs = 60_000) {
      const asked = shell.boots > 0 ? shell.run('systemctl poweroff', timeoutMs) : qmp.execute('system_powerdown')
      asked.catch(() => {}) // the answer may never come
      await Promise.race([ended, sleep(timeoutMs, undefined, { ref: false })])
      await kill()
    },
  }
}

/** Makes the files that hold the machine's state, where they are not there yet. */
async function prepareState(folder: string, image: string, options: VmOptions): Promise<void> {
  const size = (await stat(image).catch((cause: unknown) => missing(`Cannot start ${image}: it does not exist`, cause))).size
  const template = join(options.toolsTree, FIRMWARE_VARIABLES)
  if (!existsSync(template)) missing(`Cannot start a machine: the tools tree ${options.toolsTree} holds no ${FIRMWARE_VARIABLES}`)
  await mkdir(join(folder, 'tpm'), { recursive: true, mode: 0o700 })
  const variables = join(folder, 'variables.fd')
  if (!existsSync(variables)) {
    if (options.variables) await writeFile(variables, options.variables)
    else await copyFile(template, variables)
    await chmod(variables, 0o600)
  }
  if (options.writable) {
    // Grown, never cut: systemd-repart finds room behind the last partition.
    if (size < (options.diskBytes ?? 8 * GIB)) await truncate(image, options.diskBytes ?? 8 * GIB)
    return
  }
  if (options.keep) await bindToImage(folder, image)
  const overlay = join(folder, 'disk.qcow2')
  if (!existsSync(overlay)) {
    const file = await open(overlay, 'wx', 0o600)
    await file
      .writeFile(encodeEmptyOverlay(Math.max(alignUp(size, 512), options.diskBytes ?? 8 * GIB)))
      .finally(() => file.close())
  }
}

/** What a kept disk holds are changes to one image; over another they would be nonsense. */
async function bindToImage(folder: string, image: string): Promise<void> {
  const hash = createHash('sha256')
  for await (const chunk of createReadStream(image, { highWaterMark: 1 << 20 })) hash.update(chunk)
  const digest = hash.digest('hex')
  const note = join(folder, 'image.sha256')
  const known = await readFile(note, 'utf8').catch(() => undefined)
  if (known === undefined) await writeFile(note, `${digest}\n`)
  else if (known.trim() !== digest)
    throw new Fault('usage', `Cannot go on with the machine kept in ${folder}: it was started from another image`, {
      hint: `rm -r ${folder}`,
    })
}

function missing(message: string, cause?: unknown): never {
  throw new Fault('missing', message, { cause })
}

/** Starts swtpm, waits until it listens, and returns how to end it. */
async function startTpm(sandbox: Sandbox, sockets: string): Promise<() => unknown> {
  const tpm = startInSandbox(sandbox, swtpmCommand(join(STATE, 'tpm'), join(SOCKETS, 'tpm')))
  const failed = failureOf(tpm, 'swtpm')
  try {
    for (const deadline = Date.now() + 10_000; !existsSync(join(sockets, 'tpm')); ) {
      if (Date.now() > deadline) throw new Fault('tool', 'Cannot start a machine: swtpm does not listen after 10 s')
      await Promise.race([sleep(10), failed])
    }
  } catch (error) {
    await tpm.kill(1000)
    throw error
  }
  return () => tpm.kill(1000)
}

/** Never fulfilled; rejected with what the program said when it ends. Its output is read all the time, and its end is kept. */
function failureOf(running: Running, name: string): Promise<never> {
  let stderr = ''
  running.stdin.end()
  running.stdout.resume()
  running.stderr.on('data', (chunk: Buffer) => {
    stderr = (stderr + chunk.toString()).slice(-8192)
  })
  const failed = running.ended.then((exitCode): never => {
    throw new Fault('tool', `Cannot start a machine: ${name} ended with exit code ${exitCode}${said('', stderr)}`)
  })
  failed.catch(() => {}) // seen by whoever waits for the machine to start
  return failed
}

function machineOf(accelerator: Machine['accelerator'], options: VmOptions, smbios: readonly string[]): Machine {
  const tpm = options.tpm === false ? {} : { tpm: join(SOCKETS, 'tpm') }
  return {
    accelerator,
    ...(options.cpu ? { cpu: options.cpu } : {}),
    secureBoot: options.secureBoot !== false,
    cpus: options.cpus ?? 2,
    memoryBytes: options.memoryBytes ?? 2 * GIB,
    image: IMAGE,
    ...(options.writable ? {} : { overlay: join(STATE, 'disk.qcow2') }),
    variables: join(STATE, 'variables.fd'),
    sockets: { qmp: join(SOCKETS, 'qmp'), console: join(SOCKETS, 'console'), shell: join(SOCKETS, 'shell'), ...tpm },
    smbios,
  }
}

function smbiosOf(options: VmOptions, word: string): string[] {
  const credentials = Object.entries({ ...shellCredentials(word), ...options.credentials })
  return [
    ...credentials.map(([name, value]) => `io.systemd.credential.binary:${name}=${Buffer.from(value).toString('base64')}`),
    ...(options.kernelCommandLine ? [`io.systemd.stub.kernel-cmdline-extra=${options.kernelCommandLine}`] : []),
  ]
}
