/**
 * Running programs that a recipe brings along for the time it is read: `mkosi.version`, `mkosi.bump`, configure scripts.
 *
 * mkosi runs them as the caller. A recipe may be a stranger's, and asking what it would make must be safe; so here they run
 * in a sandbox that has the host's programs and the recipe's folder, both read-only, and neither a network, nor the home
 * folders, nor the caller's environment.
 */
import { existsSync, lstatSync, mkdirSync, mkdtempSync, readlinkSync, rmSync, statSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { Fault } from '../../base/fault.ts'
import { runInSandbox } from '../../run/sandbox.ts'

export interface Execution {
  /** The program's path. */
  file: string
  /** Where it starts. */
  workdir: string
  /** The recipe's folder; with it the whole repository is seen that it lies in. */
  directory: string
  input?: string
  env?: Readonly<Record<string, string>>
}

/** What the program prints. */
export async function execute({ file, workdir, directory, input, env = {} }: Execution): Promise<string> {
  const root = mkdtempSync(join(tmpdir(), 'bisque-root-'))
  try {
    const seen = repositoryOf(directory)
    const outside = [file, workdir].find((path) => path !== seen && !path.startsWith(`${seen}/`))
    if (outside !== undefined)
      throw new Fault('recipe', `${outside} lies outside of ${seen}, which is all that programs of the recipe see`)
    const binds = [...hostPrograms(root), { source: seen, target: seen }]
    const sandbox = {
      root,
      binds,
      tmpfs: ['/tmp', '/run'].filter((path) => !`${seen}/`.startsWith(`${path}/`)),
      workdir,
      env: { ...GIT, ...env },
    }
    const options = { timeoutMs: 60_000, outputBytes: 16 << 20, ...(input === undefined ? {} : { input }) }
    return (await runInSandbox(sandbox, [file], options)).stdout
  } finally {
    rmSync(root, { recursive: true, force: true })
  }
}

export const isExecutable = (file: string): boolean => {
  const stat = statSync(file, { throwIfNoEntry: false })
  return stat?.isFile() === true && (stat.mode & 0o111) !== 0
}

/** Whoever owns the repository: the sandbox shows it under other ids. */
const GIT = { GIT_CONFIG_COUNT: '1', GIT_CONFIG_KEY_0: 'safe.directory', GIT_CONFIG_VALUE_0: '*' }

/** The nearest folder upwards that holds a git repository, for programs that ask it for a version. */
function repositoryOf(directory: string): string {
  for (let folder = directory; folder !== '/'; folder = dirname(folder)) if (existsSync(join(folder, '.git'))) return folder
  return directory
}

/** The host's programs and the few files of /etc that they do not run without. */
function hostPrograms(root: string): { source: string; target: string }[] {
  const binds: { source: string; target: string }[] = []
  for (const path of ['/usr', '/bin', '/sbin', '/lib', '/lib32', '/lib64', ...ETC]) {
    const stat = lstatSync(path, { throwIfNoEntry: false })
    if (!stat) continue
    mkdirSync(join(root, dirname(path)), { recursive: true })
    if (stat.isSymbolicLink() && !path.startsWith('/etc/')) symlinkSync(readlinkSync(path), join(root, path))
    else if (existsSync(path)) binds.push({ source: path, target: path })
  }
  return binds
}

const ETC = ['alternatives', 'ld.so.cache', 'passwd', 'group', 'localtime'].map((name) => `/etc/${name}`)
