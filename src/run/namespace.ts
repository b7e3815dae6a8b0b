/**
 * The namespace a build runs in, and what a host must offer for it.
 *
 * A build starts itself again inside a user and a mount namespace of its own. Seen from inside it is root with many ids, so
 * it can give files their real owners, and mounts nobody else sees. As an ordinary user the ids come from /etc/subuid
 * and /etc/subgid through newuidmap and newgidmap; root maps every id it has to itself, so that the same code runs.
 * Where root may have no user namespaces (some containers) a mount namespace alone has to do.
 *
 * The map must be written from outside, after the namespace was made and before the program starts in it: a shell waits
 * in between, on descriptor 3. (unshare's own --map-auto is younger than some hosts.)
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { accessSync, constants, existsSync, readFileSync, writeFileSync } from 'node:fs'
import { userInfo } from 'node:os'
import type { Duplex } from 'node:stream'
import { Fault } from '../base/fault.ts'
import { exitCodeOf, keepDescriptors, run, SYSTEM_PATH } from './process.ts'

/** Set in the environment of the inner process, to how it was made: `user` or `mount`. */
export const NAMESPACE_VARIABLE = 'BISQUE_NAMESPACE'

/**
 * Runs `argv` (a full command line) in the namespace with this process's standard streams, and answers with its exit code.
 * Signals that ask this process to end are passed on, once; the inner process decides. If either is killed, so is the other.
 */
export async function enterNamespace(
  argv: readonly string[],
  options: { env: Readonly<Record<string, string>> },
): Promise<number> {
  const isRoot = process.getuid?.() === 0
  const user = await enterWith(argv, options.env, isRoot, true)
  if (typeof user === 'number') return user
  if (!isRoot) throw await refusal(user.why)
  const mount = await enterWith(argv, options.env, isRoot, false)
  if (typeof mount === 'number') return mount
  throw await refusal(mount.why)
}

export interface HostProblem {
  name: string
  ok: boolean
  /** What was found. */
  detail: string
  /** A command that mends it; empty where all is well. */
  mend: string
}

/** Everything `enterNamespace` and the sandbox need from the host, each with the command that mends it. */
export async function hostProblems(): Promise<HostProblem[]> {
  const isRoot = process.getuid?.() === 0
  const { username, uid } = userInfo()
  const found: HostProblem[] = []
  const check = (name: string, ok: boolean, detail: string, mend: string) =>
    void found.push({ name, ok, detail, mend: ok ? '' : mend })
  for (const tool of ['unshare', 'setpriv', 'mount', 'chroot']) {
    const at = programAt(tool)
    check(
      tool,
      at !== undefined,
      at ?? 'not installed',
      `sudo apt install ${tool === 'chroot' ? 'coreutils' : tool === 'mount' ? 'mount' : 'util-linux'}`,
    )
  }
  const most = setting('/proc/sys/user/max_user_namespaces')
  check(
    'user namespaces',
    most !== '0',
    most === undefined ? 'not limited' : `at most ${most}`,
    'sudo sysctl -w user.max_user_namespaces=15000',
  )
  if (!isRoot) {
    const clone = setting('/proc/sys/kernel/unprivileged_userns_clone')
    check(
      'user namespaces for users',
      clone !== '0',
      clone === '0' ? 'forbidden' : 'allowed',
      'sudo sysctl -w kernel.unprivileged_userns_clone=1',
    )
    const apparmor = setting('/proc/sys/kernel/apparmor_restrict_unprivileged_userns')
    check(
      'AppArmor',
      apparmor !== '1',
      apparmor === '1' ? 'restricts user namespaces' : 'does not restrict user namespaces',
      'sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0',
    )
    for (const [tool, file] of [
      ['newuidmap', '/etc/subuid'],
      ['newgidmap', '/etc/subgid'],
    ] as const) {
      const at = programAt(tool)
      check(tool, at !== undefined, at ?? 'not installed', 'sudo apt install uidmap')
      const range = subordinateIds(file, username, uid)
      const option = file === '/etc/subuid' ? '--add-subuids' : '--add-subgids'
      check(
        file,
        range !== undefined,
        range ? `${range.count} ids from ${range.start}` : `no 65536 ids for ${username}`,
        `sudo usermod ${option} 100000-165535 ${username}`,
      )
    }
  }
  const probe = await probeMount(isRoot)
  check(
    'mount namespace',
    probe === '',
    probe === '' ? 'works' : probe,
    isRoot ? 'docker run --privileged …' : 'sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0',
  )
  return found
}

/** Ids a user may hand out in namespaces of their own: the first range of at least 65536. */
export function subordinateIds(file: string, user: string, uid: number): { start: number; count: number } | undefined {
  for (const line of readText(file).split('\n')) {
    const match = /^([^:]+):(\d{1,10}):(\d{1,10})$/.exec(line.trim())
    if (!match || (match[1] !== user && match[1] !== `${uid}`)) continue
    const [start, count] = [Number(match[2]), Number(match[3])]
    if (count >= 65536) return { start, count }
  }
  return undefined
}

/** Tries one way in. The answer is the exit code of the program, or why the namespace could not be made. */
async function enterWith(
  argv: readonly string[],
  env: Readonly<Record<string, string>>,
  isRoot: boolean,
  isUser: boolean,
): Promise<number | { why: string }> {
  keepDescriptors()
  const unshare = ['unshare', ...(isUser ? ['--user'] : []), '--mount', '--propagation', 'slave', '--']
  const child = spawn(
    'setpriv',
    ['--pdeathsig', 'KILL', '--', 'sh', '-c', OUTER, 'sh', ...unshare, 'sh', '-c', INNER, 'sh', ...argv],
    {
      env: { PATH: SYSTEM_PATH, ...env, [NAMESPACE_VARIABLE]: isUser ? 'user' : 'mount' },
      stdio: ['inherit', 'inherit', 'inherit', 'pipe'],
      detached: true,
    },
  )
  const ended = new Promise<number>((resolve, reject) => {
    child.on('error', (cause) =>
      reject(new Fault('host', `Cannot enter a namespace: ${cause.message}`, { hint: 'sudo apt install util-linux', cause })),
    )
    child.on('exit', (code, signal) => resolve(exitCodeOf(code, signal)))
  })
  const gate = child.stdio[3] as Duplex
  gate.on('error', () => {})
  let told = ''
  const ready = new Promise<boolean>((resolve) => {
    gate.on('data', (bytes: Buffer) => {
      told += bytes
      if (/^ready$/m.test(told)) resolve(true)
    })
  })
  if (!(await Promise.race([ready, ended.then(() => false)]))) return { why: told.trim() }
  const unmapped = isUser ? await mapIds(child.pid!, isRoot) : ''
  if (unmapped !== '') {
    gate.end('stop\n')
    await ended
    return { why: unmapped }
  }
  gate.end('go\n')
  return await passingSignals(child, ended)
}

/** What unshare complains about goes the way of the gate; the program gets the standard streams as they are. */
const OUTER = 'exec 4>&2 2>&3; exec "$@"'

/**
 * Having been mapped, the shell gets its rights with its next program; the wish to die with the parent is stated anew.
 * What is made inside becomes part of an image: its modes must not follow the caller's umask.
 */
const INNER =
  'umask 022; echo ready >&3; read -r go <&3; [ "$go" = go ] || exit 1; exec setpriv --pdeathsig KILL -- "$@" 2>&4 3>&- 4>&-'

async function passingSignals(child: ChildProcess, ended: Promise<number>): Promise<number> {
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT', 'SIGWINCH'] as const
  const pass = (signal: NodeJS.Signals) => void child.kill(signal)
  for (const signal of signals) process.on(signal, pass)
  try {
    return await ended
  } finally {
    for (const signal of signals) process.off(signal, pass)
  }
}

/** Writes the id maps of a process that waits in a new user namespace. Empty when it worked. */
async function mapIds(pid: number, isRoot: boolean): Promise<string> {
  try {
    if (isRoot) {
      for (const map of ['uid_map', 'gid_map'])
        writeFileSync(`/proc/${pid}/${map}`, identity(readFileSync(`/proc/self/${map}`, 'utf8')))
      return ''
    }
    const { username, uid, gid } = userInfo()
    for (const [tool, file, own] of [
      ['newuidmap', '/etc/subuid', uid],
      ['newgidmap', '/etc/subgid', gid],
    ] as const) {
      const range = subordinateIds(file, username, uid)
      if (!range) return `${file} gives ${username} no 65536 ids`
      await run([tool, `${pid}`, '0', `${own}`, '1', '1', `${range.start}`, `${range.count}`])
    }
    return ''
  } catch (error) {
    return (error as Error).message
  }
}

/** Every id there is, mapped to itself. */
const identity = (map: string): string =>
  map
    .trim()
    .split('\n')
    .map((line) => line.trim().split(/\s+/))
    .map(([inside, , count]) => `${inside} ${inside} ${count}\n`)
    .join('')

async function refusal(why: string): Promise<Fault> {
  const wrong = (await hostProblems()).filter((problem) => !problem.ok)
  const details = wrong.map((problem) => `\n  ${problem.name}: ${problem.detail}`).join('')
  const hint = [...new Set(wrong.map((problem) => problem.mend))].join(' && ') || 'bisque doctor'
  return new Fault('host', `Cannot enter a namespace: ${why || 'the host does not allow it'}${details}`, { hint })
}

async function probeMount(isRoot: boolean): Promise<string> {
  const ways = isRoot ? [['--user', '--map-root-user'], []] : [['--user', '--map-root-user']]
  let why = ''
  for (const way of ways) {
    try {
      const argv = ['unshare', ...way, '--mount', 'mount', '-t', 'tmpfs', 'tmpfs', '/tmp']
      const outcome = await run(argv, { allowFailure: true, timeoutMs: 10_000, env: { LC_ALL: 'C' } })
      if (outcome.exitCode === 0) return ''
      why = outcome.stderr.trim().split('\n')[0] || `exit code ${outcome.exitCode}`
    } catch (error) {
      why = (error as Error).message
    }
  }
  return why
}

function programAt(name: string): string | undefined {
  return SYSTEM_PATH.split(':')
    .map((folder) => `${folder}/${name}`)
    .find((path) => {
      try {
        accessSync(path, constants.X_OK)
        return true
      } catch {
        return false
      }
    })
}

const setting = (path: string): string | undefined => (existsSync(path) ? readText(path).trim() : undefined)

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}
