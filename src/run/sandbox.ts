/**
 * Running a program with a directory as its whole world.
 *
 * The program gets mount, pid, ipc, uts and (unless asked otherwise) network namespaces of its own, `root` as `/`, and
 * beside that only `/proc`, a small `/dev` and what is bound. When this process is not root, a user namespace that
 * maps one id is added: enough for tools; an install needs the many ids of `enterNamespace()` around it.
 *
 * Done with util-linux and a short shell script, not with system calls from a Node process: that takes 30 ms where
 * starting Node and loading an FFI takes 90, and a build enters many sandboxes. The new root is moved over `/` and entered
 * with chroot, as switch_root does (pivot_root would leave no place from which the host's `umount` could run), and
 * CAP_SYS_ADMIN is gone from then on, so that nothing inside can lift it off again. The host's tree lies below it,
 * without a path that leads there.
 */
import { lstatSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { Fault } from '../base/fault.ts'
import { makeDirectoryInside, resolveInside } from './inside.ts'
import { failure, type Outcome, type Running, type RunOptions, run, runInTerminal, SYSTEM_PATH, start } from './process.ts'

export interface Sandbox {
  /** The directory that becomes `/`. Mount points missing in it are created. */
  root: string
  /** May the program write to `root`? */
  writable?: boolean
  /** Host files and directories to be seen inside, with the mounts below them. */
  binds?: readonly { source: string; target: string; writable?: boolean }[]
  /**
   * Host directories whose changes go to `upper` (on the same file system as the empty `work`) and never to `source`.
   * Where the kernel cannot do that they are seen read-only.
   */
  overlays?: readonly { source: string; target: string; upper: string; work: string }[]
  /** Other systems to enter with chroot: each at `target` with `/proc`, `/dev`, fresh `/tmp` and `/run`, and this one's `shared`. */
  chroots?: readonly { root: string; target: string; shared: readonly string[] }[]
  /** Directories to be empty, writable and forgotten, e.g. `/tmp`. */
  tmpfs?: readonly string[]
  /** Leaves the program in this process's network. */
  network?: boolean
  hostname?: string
  /** The program's environment, over `PATH`, `HOME`, `LANG`, `TERM` and `container`. */
  env?: Readonly<Record<string, string>>
  /** Where inside the program starts; `/` unless given. */
  workdir?: string
}

/** Runs a program inside to its end; see `run`. */
export async function runInSandbox(
  sandbox: Sandbox,
  argv: readonly string[],
  options: Omit<RunOptions, 'cwd' | 'env'> = {},
): Promise<Outcome> {
  const outcome = await run(sandboxed(sandbox, argv), { ...options, env: OUTER_ENV, allowFailure: true })
  checkSetUp(outcome)
  if (outcome.exitCode !== 0 && !options.allowFailure) throw failure(argv, outcome)
  return outcome
}

/** Runs a program inside that has the terminal; see `runInTerminal`. */
export const runInSandboxTerminal = (sandbox: Sandbox, argv: readonly string[]): Promise<number> =>
  runInTerminal(sandboxed(sandbox, argv), OUTER_ENV)

/** Starts a program inside that runs alongside this one; see `start`. SIGTERM of `kill` reaches the program itself. */
export function startInSandbox(sandbox: Sandbox, argv: readonly string[]): Running {
  const running = start(sandboxed(sandbox, argv), { env: OUTER_ENV })
  const kill = async (graceMs = 5000) => {
    const timer = setTimeout(() => void running.kill(0), graceMs)
    for (const pid of childrenOf(running.pid)) {
      try {
        process.kill(pid, 'SIGTERM')
      } catch {
        // ended in between
      }
    }
    try {
      return await running.ended
    } finally {
      clearTimeout(timer)
    }
  }
  return { ...running, kill }
}

/** The host's programs that set up the sandbox must find each other, and nothing else of the host matters. */
const OUTER_ENV = { PATH: SYSTEM_PATH, LC_ALL: 'C' }
const SET_UP_FAILED = 125

function checkSetUp(outcome: Outcome): void {
  const why = /^bisque-sandbox: (.*)$/m.exec(outcome.stderr)?.[1]
  if (outcome.exitCode === SET_UP_FAILED && why) {
    throw new Fault('host', `Cannot set up a sandbox: ${why}\n${outcome.stderr.trim()}`, { hint: 'bisque doctor' })
  }
  if (/^unshare: unshare failed/m.test(outcome.stderr)) {
    throw new Fault('host', `Cannot set up a sandbox: ${outcome.stderr.trim()}`, { hint: 'bisque doctor' })
  }
}

/** The command line that runs `argv` in the sandbox. Every value travels as an argument; the script has none in its text. */
function sandboxed(sandbox: Sandbox, argv: readonly string[]): string[] {
  const root = sandbox.root.replace(/(?<=.)\/+$/, '')
  const isRoot = process.getuid?.() === 0
  const tmpfs = (sandbox.tmpfs ?? []).map((target) => inside(root, target))
  const fresh = ['/proc', '/dev', ...tmpfs.map((path) => path.slice(root.length))]
  for (const target of ['/proc', '/dev', ...(sandbox.tmpfs ?? [])]) makeDirectoryInside(root, target)
  return [
    ...['unshare', ...(isRoot ? [] : ['--user', '--map-root-user']), '--mount', '--propagation', 'private'],
    ...['--pid', '--fork', '--kill-child', '--ipc', '--uts', ...(sandbox.network ? [] : ['--net'])],
    ...['--', '/bin/sh', '-c', SCRIPT, 'sandbox', root],
    ...(sandbox.writable ? [] : ['ro', root, mountFlags(root)]),
    ...['proc', inside(root, '/proc'), 'dev', inside(root, '/dev')],
    ...tmpfs.flatMap((target) => ['tmpfs', target]),
    ...(sandbox.overlays ?? []).flatMap((overlay) => overlaySteps(root, fresh, overlay)),
    ...(sandbox.binds ?? []).flatMap((bind) => bindSteps(root, fresh, bind)),
    ...(sandbox.chroots ?? []).flatMap((chroot) => chrootSteps(root, chroot)),
    ...['host', sandbox.hostname ?? 'localhost', '--'],
    ...environment(sandbox.env),
    ...['chroot', '.'],
    ...(sandbox.workdir ? ['/bin/sh', '-c', 'cd "$1" && shift && unset OLDPWD && exec "$@"', 'sh', sandbox.workdir] : []),
    ...argv,
  ]
}

function environment(env: Readonly<Record<string, string>> = {}): string[] {
  const all = { PATH: SYSTEM_PATH, HOME: '/root', LANG: 'C.UTF-8', TERM: 'dumb', container: 'bisque', ...env }
  return Object.entries(all).map(([name, value]) => `${name}=${value}`)
}

const inside = (root: string, target: string) => `${root}/${resolveInside(root, target, { followLast: true })}`

function bindSteps(
  root: string,
  fresh: readonly string[],
  bind: { source: string; target: string; writable?: boolean },
): string[] {
  const stat = statSync(bind.source, { throwIfNoEntry: false })
  if (!stat) throw new Fault('missing', `Cannot bind ${bind.source} into a sandbox: it does not exist`)
  const target = inside(root, bind.target)
  const isFresh = fresh.some((path) => target.startsWith(`${root}${path}/`))
  if (!isFresh) makeMountPoint(target, stat.isDirectory())
  return [
    ...(isFresh ? [stat.isDirectory() ? 'mkdir' : 'touch', target] : []),
    ...['bind', bind.source, target],
    ...(bind.writable ? [] : ['ro', target, mountFlags(bind.source)]),
  ]
}

/** The text of mount options knows no `,` and overlayfs no `:` or `\\` in a name; such a place is seen read-only. */
function overlaySteps(
  root: string,
  fresh: readonly string[],
  { source, target, upper, work }: { source: string; target: string; upper: string; work: string },
): string[] {
  const readOnly = bindSteps(root, fresh, { source, target })
  if (/[,:\\]/.test(source + upper + work)) return readOnly
  const at = inside(root, target)
  const options = `lowerdir=${source},upperdir=${upper},workdir=${work}`
  const [place, rest] = readOnly[0] === 'bind' ? [[], readOnly] : [readOnly.slice(0, 2), readOnly.slice(2)]
  return [...place, 'overlay', at, options, source, rest.at(-1)!]
}

function chrootSteps(root: string, chroot: { root: string; target: string; shared: readonly string[] }): string[] {
  for (const path of ['/proc', '/dev', '/tmp', '/run', ...chroot.shared]) makeDirectoryInside(chroot.root, path)
  const at = inside(root, chroot.target)
  makeMountPoint(at, true)
  const within = (path: string) => `${at}/${resolveInside(chroot.root, path, { followLast: true })}`
  return [
    ...['bind', chroot.root, at, 'proc', within('/proc'), 'dev', within('/dev')],
    ...['tmpfs', within('/tmp'), 'tmpfs', within('/run')],
    ...chroot.shared.flatMap((path) => ['bind', inside(root, path), within(path)]),
  ]
}

/** `target` has been resolved inside the root, so no link of the root leads these calls astray. */
function makeMountPoint(target: string, isDirectory: boolean): void {
  if (lstatSync(target, { throwIfNoEntry: false })) return
  mkdirSync(isDirectory ? target : dirname(target), { recursive: true, mode: 0o755 })
  if (!isDirectory) writeFileSync(target, '')
}

/** Flags of the mount that holds a path. In a user namespace a remount may not lose them. */
function mountFlags(path: string): string {
  let best = { target: '', flags: '' }
  for (const line of readFileSync('/proc/self/mountinfo', 'utf8').split('\n')) {
    const [, , , , escaped = '', flags = ''] = line.split(' ')
    const target = escaped.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)))
    const holds = path === target || path.startsWith(target === '/' ? '/' : `${target}/`)
    if (target !== '' && holds && target.length >= best.target.length) best = { target, flags }
  }
  const kept = best.flags.split(',').filter((flag) => /^(nosuid|nodev|noexec|noatime|nodiratime|relatime)$/.test(flag))
  return ['remount', 'bind', 'ro', ...kept].join(',')
}

/** Capabilities packages' scripts and tools need. Not among them: sys_admin, mknod, sys_module, sys_rawio, net_admin. */
const CAPABILITIES =
  'chown,dac_override,dac_read_search,fowner,fsetid,kill,setgid,setuid,setpcap,setfcap,net_bind_service,sys_chroot,audit_write'
    .split(',')
    .map((name) => `,+${name}`)
    .join('')

/**
 * Arguments: the root, then steps, `--`, and the program after its environment. Runs as first process of the namespaces.
 * `/bin/sh` of the host reads it; what needs a program costs a millisecond each.
 */
const SCRIPT = `
umask 022
fail() { echo "bisque-sandbox: cannot $1" >&2; exit ${SET_UP_FAILED}; }
root=$1; shift
mount -n --rbind "$root" "$root" || fail "bind $root"
while [ "$1" != -- ]; do
  case $1 in
    ro) mount -n -o "$3" "$2" || fail "make $2 read-only"; shift 3;;
    bind) mount -n --rbind "$2" "$3" || fail "bind $2"; shift 3;;
    overlay)
      mount -n -t overlay -o "$3" overlay "$2" 2>/dev/null || mount -n -t overlay -o "userxattr,$3" overlay "$2" 2>/dev/null ||
        { mount -n --rbind "$4" "$2" && mount -n -o "$5" "$2"; } || fail "lay $2 over $4"
      shift 5;;
    mkdir) mkdir -p "$2" || fail "create $2"; shift 2;;
    touch) [ -e "$2" ] || { mkdir -p "\${2%/*}" && : > "$2"; } || fail "create $2"; shift 2;;
    proc) mount -n -t proc -o nosuid,nodev,noexec proc "$2" || fail "mount /proc"; shift 2;;
    tmpfs) mount -n -t tmpfs -o nosuid,nodev,mode=1777 tmpfs "$2" || fail "mount $2"
      case $2 in */run) chmod 755 "$2" && mkdir -m 1777 "$2/lock" || fail "prepare $2";; esac
      shift 2;;
    dev) mount -n -t tmpfs -o nosuid,mode=755 tmpfs "$2" || fail "mount /dev"
      mkdir "$2/pts" && mkdir -m 1777 "$2/shm" || fail "prepare /dev"
      for node in null zero full random urandom tty; do
        : > "$2/$node" && mount -n --bind "/dev/$node" "$2/$node" || fail "bind /dev/$node"
      done
      mount -n -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$2/pts" 2>/dev/null ||
        mount -n -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$2/pts" || fail "mount /dev/pts"
      ln -s pts/ptmx "$2/ptmx" && ln -s /proc/self/fd "$2/fd" && ln -s /proc/self/fd/0 "$2/stdin" &&
        ln -s /proc/self/fd/1 "$2/stdout" && ln -s /proc/self/fd/2 "$2/stderr" || fail "prepare /dev"
      shift 2;;
    host) hostname "$2" 2>/dev/null; shift 2;;
    *) fail "understand $1";;
  esac
done
shift
ulimit -c 0
ulimit -S -n 4096 2>/dev/null
cd "$root" && mount -n --move . / || fail "enter $root"
exec setpriv --pdeathsig KILL --no-new-privs --inh-caps -all --bounding-set -all${CAPABILITIES} -- env -i "$@"
`

/** The processes a process started: \`unshare\` has one, the program. */
function childrenOf(pid: number): number[] {
  try {
    return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').filter(Boolean).map(Number)
  } catch {
    return []
  }
}
