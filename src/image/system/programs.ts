/**
 * What systemd's own programs do to a finished root: accounts, volatile files, presets, the hardware database, answers
 * for the first boot; and depmod and locale-gen, which packages bring.
 *
 * They run in the sandbox: the image's own where it has them, else those of a tools tree. Without either the step is left
 * out and said so, as mkosi does. Source: mkosi(1), "Execution flow"; sysusers.d(5), tmpfiles.d(5), systemd.preset(5).
 */
import { existsSync, lstatSync, readFileSync, rmSync } from 'node:fs'
import { chmod, mkdir, rm, rmdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Fault } from '../../base/fault.ts'
import type { Report } from '../../base/report.ts'
import { makeDirectoryInside, resolveInside } from '../../run/inside.ts'
import { type Outcome, said } from '../../run/process.ts'
import { runInSandbox } from '../../run/sandbox.ts'

export interface Installed {
  /** The image's root on disk. */
  root: string
  /** A tools tree that has systemd's programs, for images that do not. */
  tools?: string | undefined
  /** Seconds since 1970. */
  epoch: number
  env?: Readonly<Record<string, string>>
}

const INSIDE = '/buildroot'
const FOLDERS = ['usr/bin', 'usr/sbin', 'usr/lib/systemd', 'bin', 'sbin']

/** Makes the accounts that sysusers.d asks for. */
export const runSysusers = (image: Installed, report: Report): Promise<boolean> =>
  systemdStep('systemd-sysusers', 'Make system accounts', image, report, [['--root=/buildroot']])

/** Makes the files that tmpfiles.d asks for, outside what is mounted anew at every boot. */
export const runTmpfiles = (image: Installed, report: Report): Promise<boolean> =>
  systemdStep('systemd-tmpfiles', 'Make volatile files', image, report, [TMPFILES], [0, 65, 73])

const TMPFILES = [
  ...['--root=/buildroot', '--boot', '--create', '--remove'],
  ...['/tmp', '/var/tmp', '/run', '/proc', '/sys', '/dev'].map((path) => `--exclude-prefix=${path}`),
]

/** Enables and disables units as presets say, for the system and for all users. */
export const runPresets = (image: Installed, report: Report): Promise<boolean> =>
  systemdStep('systemctl', 'Apply presets', image, report, [
    ['--root=/buildroot', 'preset-all'],
    ['--root=/buildroot', '--global', 'preset-all'],
  ])

/** Compiles the hardware database into /usr. */
export async function runHwdb(image: Installed, report: Report): Promise<void> {
  await systemdStep('systemd-hwdb', 'Compile hardware database', image, report, [
    ['--root=/buildroot', '--usr', '--strict', 'update'],
  ])
  if (existsSync(inside(image.root, '/usr/lib/udev/hwdb.bin'))) rmSync(inside(image.root, '/etc/udev/hwdb.bin'), { force: true })
}

export interface FirstBoot {
  locale?: string | undefined
  localeMessages?: string | undefined
  keymap?: string | undefined
  timezone?: string | undefined
  hostname?: string | undefined
  /** crypt(3) hash; empty lets root log in without a password. */
  rootPasswordHash?: string | undefined
  rootShell?: string | undefined
  /** Keep the answers below /usr too, for systems that make the rest anew. */
  credentials: boolean
}

/** Answers what systemd-firstboot would ask on the console. */
export async function runFirstboot(answers: FirstBoot, image: Installed, report: Report): Promise<void> {
  // systemd-firstboot before 258 refuses the question marks that stand for digits of the machine's id
  if (answers.hostname !== undefined) await writeInside(image.root, 'etc/hostname', `${answers.hostname}\n`)
  const rows: [option: string, credential: string, value: string | undefined][] = [
    ['--locale', 'firstboot.locale', answers.locale],
    ['--locale-messages', 'firstboot.locale-messages', answers.localeMessages],
    ['--keymap', 'firstboot.keymap', answers.keymap],
    ['--timezone', 'firstboot.timezone', answers.timezone],
    ['--root-password-hashed', 'passwd.hashed-password.root', answers.rootPasswordHash],
    ['--root-shell', 'passwd.shell.root', answers.rootShell],
  ]
  const given = rows.filter(([, , value]) => value !== undefined)
  const options = given.flatMap(([option, , value]) => [option, value!])
  const argv = ['--root=/buildroot', '--force', ...options]
  const ran =
    given.length === 0
      ? answers.hostname !== undefined
      : await systemdStep('systemd-firstboot', 'Apply first boot settings', image, report, [argv])
  if (!ran || !answers.credentials) return
  const store = makeDirectoryInside(image.root, '/usr/lib/credstore')
  for (const [, credential, value] of given) {
    const path = join(store, credential)
    rmSync(path, { force: true })
    await writeFile(path, value!, { mode: credential.includes('password') ? 0o600 : 0o644 })
  }
}

/** Generates the locales that /etc/locale.gen names. */
export async function runLocaleGen(image: Installed, report: Report): Promise<void> {
  const path = inside(image.root, '/etc/locale.gen')
  const wanted =
    existsSync(path) &&
    readFileSync(path, 'utf8')
      .split('\n')
      .some((line) => /^\s*[^#\s]/.test(line))
  if (wanted) await report.step('Generate locales', () => runInImage(image, ['locale-gen']))
}

/** Writes the index of a kernel's modules. */
export const runDepmod = (kernel: string, image: Installed, report: Report): Promise<void> =>
  report.step(`Index modules of ${kernel}`, () => runInImage(image, ['depmod', '--all', kernel]).then(() => {}))

/** Runs a program of the image with the image as its whole world. Exit codes other than 0 and `accepted` are a Fault. */
export async function runInImage(image: Installed, argv: readonly string[], accepted: readonly number[] = []): Promise<Outcome> {
  return runOn(image.root, image, argv, [0, ...accepted])
}

async function systemdStep(
  program: string,
  name: string,
  image: Installed,
  report: Report,
  runs: readonly (readonly string[])[],
  accepted: readonly number[] = [0],
): Promise<boolean> {
  const world = [image.root, ...(image.tools === undefined ? [] : [image.tools])].find((root) => programIn(root, program))
  if (world === undefined) {
    report.tell({ type: 'note', level: 'info', message: `${program} is not in the image: skipped "${name}"` })
    return false
  }
  await report.step(name, async () => {
    for (const argv of runs) await runOn(world, image, [programIn(world, program)!, ...argv], accepted)
  })
  return true
}

/** Where a root has a program. */
export function programIn(root: string, name: string): string | undefined {
  const folder = FOLDERS.find((folder) => lstatSync(inside(root, `/${folder}/${name}`), { throwIfNoEntry: false }))
  return folder === undefined ? undefined : `/${folder}/${name}`
}

const inside = (root: string, path: string): string => `${root}/${resolveInside(root, path, { followLast: true })}`

async function runOn(world: string, image: Installed, argv: readonly string[], accepted: readonly number[]): Promise<Outcome> {
  const log: Buffer[] = []
  const outcome = await withoutNewFolders(image.root, () =>
    runInSandbox(
      {
        root: world,
        writable: world === image.root,
        tmpfs: ['/tmp', '/run'],
        env: {
          ...{ SYSTEMD_OFFLINE: '1', SYSTEMD_TMPFILES_FORCE_SUBVOL: '0', SYSTEMD_IN_CHROOT: '1', PATH: SYSTEMD_PATH },
          SOURCE_DATE_EPOCH: String(image.epoch),
          ...image.env,
        },
        binds: [{ source: image.root, target: INSIDE, writable: true }],
      },
      argv,
      { allowFailure: true, onOutput: (bytes) => log.push(bytes) },
    ),
  )
  if (accepted.includes(outcome.exitCode)) return outcome
  const name = argv[0]!.split('/').at(-1)
  throw new Fault(
    'tool',
    `Cannot finish the image: ${name} ended with exit code ${outcome.exitCode}${said(Buffer.concat(log).toString(), '')}`,
  )
}

const SYSTEMD_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/systemd'

/** Takes away again the mount points that a sandbox had to make in an image. */
export async function withoutNewFolders<T>(root: string, body: () => Promise<T>, more: readonly string[] = []): Promise<T> {
  const absent = [INSIDE, '/proc', '/dev', '/tmp', '/run', ...more].filter(
    (path) => !lstatSync(inside(root, path), { throwIfNoEntry: false }),
  )
  try {
    return await body()
  } finally {
    for (const path of absent) await rmdir(inside(root, path)).catch(() => removeEmpty(inside(root, path)))
  }
}

/** A file that was made to be mounted over is empty. */
async function removeEmpty(path: string): Promise<void> {
  const stat = lstatSync(path, { throwIfNoEntry: false })
  if (stat?.isFile() && stat.size === 0) await rm(path)
}

/** Writes a file of the image anew, with the folders above it. */
export async function writeInside(root: string, path: string, text: string | Uint8Array, mode = 0o644): Promise<void> {
  const at = `${root}/${resolveInside(root, `/${path}`)}`
  await mkdir(join(at, '..'), { recursive: true, mode: 0o755 })
  rmSync(at, { force: true })
  await writeFile(at, text, { flag: 'wx' })
  await chmod(at, mode)
}
