/**
 * `bisque vm`: boots an image under Secure Boot firmware, with its console here, or headless to wait and run commands.
 *
 * With `--run` what is printed is what the commands print, and the console only shows in a Fault. Without, it is the console.
 */
import { existsSync, readFileSync } from 'node:fs'
import { readdir, stat } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { Fault } from '../base/fault.ts'
import { toolsTree } from '../build/tools.ts'
import { loadRecipe } from '../recipe/recipe.ts'
import { startVm, type Vm } from '../vm/vm.ts'
import { type Outcome, openEnv, type Session } from './session.ts'
import { program } from './shown.ts'
import type { VmOptions } from './verbs/vm.ts'

export async function runVm(options: VmOptions, session: Session): Promise<Outcome> {
  const { image, ...wished } = await findMachine(options.image, session)
  const tools = await toolsTree('vm', await openEnv(session))
  const interactive = !options.headless && !session.json && options.commands.length === 0 && options.waitFor === undefined
  if (interactive && !process.stdin.isTTY)
    throw new Fault('usage', 'Cannot open the console here: standard input is no terminal', { hint: 'bisque vm --headless' })
  const waitFor = options.waitFor === undefined ? undefined : patternOf(options.waitFor)
  const vm = await session.report.step('Start machine', () =>
    startVm({
      image,
      toolsTree: tools,
      secureBoot: !options.noSecureBoot,
      signal: session.signal,
      ...defined({
        memoryBytes: options.memoryBytes ?? wished.memoryBytes,
        cpus: options.cpus ?? wished.cpus,
        diskBytes: wished.diskBytes,
      }),
      ...(options.keep ? { keep: `${image.replace(/\.raw$/, '')}.vm` } : {}),
      credentials: { ...(interactive ? OWNED : UNATTENDED), ...wished.credentials },
      kernelCommandLine: (wished.kernelCommandLine ?? []).join(' '),
    }),
  )
  try {
    if (interactive) {
      await attach(vm)
      return { result: { image } }
    }
    return await runHeadless(vm, { ...options, image, waitFor }, session)
  } finally {
    await vm.kill()
  }
}

/** Who starts a machine owns it: root's console needs no password. */
const OWNED = { 'agetty.autologin': 'root', 'login.noauth': 'yes' }

/**
 * Without a console, nobody answers a first boot's questions. Not by a word on the command line: that is measured, and what
 * was sealed in one kind of start would stay locked in the other.
 */
const UNATTENDED = { 'systemd.unit-dropin.systemd-firstboot.service': '[Unit]\nConditionPathExists=!/\n' }

/** An image, and what its recipe says of the machine to start it in. */
interface Machine {
  image: string
  memoryBytes?: number | undefined
  cpus?: number | undefined
  diskBytes?: number | undefined
  credentials?: Readonly<Record<string, string>>
  kernelCommandLine?: readonly string[]
}

/** A disk image, a folder with one, or a recipe that has been baked: then its [Runtime] settings hold. */
async function findMachine(path: string, session: Session): Promise<Machine> {
  if (!isRecipe(path)) return { image: await findImage(path) }
  const { settings } = await loadRecipe(path, { env: session.environment })
  const image = join(settings.outputDirectory, `${settings.output}.raw`)
  if (!existsSync(image))
    throw new Fault('missing', `Cannot start ${path}: ${image} is not there yet`, { hint: `${program()} build ${path}` })
  return {
    image,
    memoryBytes: settings.ram,
    cpus: settings.cpus === 0 ? availableParallelism() : settings.cpus,
    diskBytes: settings.runtimeSize,
    credentials: Object.fromEntries(
      settings.credentials.map((c) => [c.name, 'value' in c ? c.value : readFileSync(c.path, 'utf8')]),
    ),
    kernelCommandLine: settings.kernelCommandLineExtra,
  }
}

const isRecipe = (path: string): boolean => ['recipe.ts', 'mkosi.conf'].some((name) => existsSync(join(path, name)))

const defined = <T extends object>(values: T): { [K in keyof T]: Exclude<T[K], undefined> } =>
  Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as never

interface Errand {
  image: string
  waitFor: RegExp | undefined
  commands: readonly string[]
  timeoutSeconds: number
  keep: boolean
}

/** Waits for what was asked for, runs the commands up to the first that fails, and takes its exit code. */
async function runHeadless(vm: Vm, errand: Errand, session: Session): Promise<Outcome> {
  const { image, waitFor, commands, timeoutSeconds } = errand
  const deadline = Date.now() + timeoutSeconds * 1000
  const leftMs = () => Math.max(1, deadline - Date.now())
  if (commands.length === 0 && !session.json) vm.console.onOutput((bytes) => void process.stdout.write(bytes))

  const done: { command: string; exitCode: number; output: string }[] = []
  if (waitFor) await vm.console.waitFor(waitFor, leftMs())
  if (commands.length > 0) await session.report.step('Boot', () => vm.waitBoot(leftMs()))
  for (const command of commands) {
    const { exitCode, output } = await session.report.step(`Run ${command}`, () => vm.run(command, leftMs()))
    done.push({ command, exitCode, output })
    if (!session.json) process.stdout.write(output)
    if (exitCode !== 0) break
  }
  if (!waitFor && commands.length === 0) await untilEnded(vm, timeoutSeconds, leftMs())
  if (errand.keep) await session.report.step('Power off', () => vm.powerOff())
  return { result: { image, commands: done }, exitCode: done.at(-1)?.exitCode ?? 0 }
}

async function untilEnded(vm: Vm, timeoutSeconds: number, leftMs: number): Promise<void> {
  const over = new AbortController()
  const late = sleep(leftMs, 'late', { signal: over.signal }).catch(() => 'ended')
  const first = await Promise.race([vm.ended, late])
  over.abort()
  if (first === 'late')
    throw new Fault('tool', `Cannot wait for the machine to end: it still runs after ${timeoutSeconds} s`, {
      hint: 'bisque vm --headless --timeout 900',
    })
}

const CTRL_RIGHT_BRACKET = 0x1d

/** Joins this terminal and the console, until the machine ends or Ctrl-] is pressed. */
async function attach(vm: Vm): Promise<void> {
  process.stderr.write('The console is below. Ctrl-] ends the machine.\n')
  const stop = vm.console.onOutput((bytes) => void process.stdout.write(bytes))
  process.stdin.setRawMode(true)
  try {
    await Promise.race([vm.ended, forward(process.stdin, vm)])
  } finally {
    stop()
    process.stdin.setRawMode(false)
    process.stdin.removeAllListeners('data').pause()
    process.stdout.write('\x1b[0m\x1b[?25h\r\n') // colour and cursor as they should be
  }
}

/** Types what comes from the terminal, up to Ctrl-]. */
const forward = (terminal: Readable, vm: Vm): Promise<void> =>
  new Promise((resolve) => {
    terminal.on('end', resolve)
    terminal.on('data', (bytes: Buffer) => {
      const at = bytes.indexOf(CTRL_RIGHT_BRACKET)
      vm.console.write(at < 0 ? bytes : bytes.subarray(0, at))
      if (at >= 0) resolve()
    })
  })

/** The disk image itself, or the one in a folder. Split artifacts are named after their partition and are no disks. */
export async function findImage(path: string): Promise<string> {
  const found = await stat(path).catch(() => undefined)
  if (!found) throw new Fault('missing', `Cannot start ${path}: it does not exist`, { hint: 'bisque build' })
  if (!found.isDirectory()) return path
  const images = (await readdir(path)).filter((name) => name.endsWith('.raw') && !/\.(?:usr|root|esp)\b/.test(name)).sort()
  if (images.length === 1) return join(path, images[0]!)
  const why = images.length === 0 ? 'no image lies there' : `several images lie there (${images.join(', ')})`
  throw new Fault('missing', `Cannot start an image from ${path}: ${why}`, {
    hint: images.length === 0 ? 'bisque build' : `bisque vm ${join(path, images.at(-1)!)}`,
  })
}

function patternOf(text: string): RegExp {
  try {
    return new RegExp(text, 'm')
  } catch (cause) {
    throw new Fault('usage', `Cannot wait for "${text}": ${(cause as Error).message}`, { cause })
  }
}
