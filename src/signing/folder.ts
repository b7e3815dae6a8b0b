/** Files and folders that must not be lost or half written, whatever ends the process or the machine. */
import { mkdtemp, open, rename, rm } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { Fault } from '../base/fault.ts'
import { makeFolder } from '../store/store.ts'

/** Writes a file that is not there yet, to the disk. */
export async function writeOnce(path: string, content: string | Uint8Array, mode = 0o644): Promise<void> {
  await using file = await open(path, 'wx', mode)
  await file.chmod(mode)
  await file.writeFile(content)
  await file.sync()
}

/** Puts a file in the place of another, or of none: whoever looks sees one of them whole. */
export async function replaceFile(path: string, content: string | Uint8Array, mode = 0o644): Promise<void> {
  const fresh = join(dirname(path), `.${basename(path)}-${process.pid}`)
  try {
    await rm(fresh, { force: true })
    await writeOnce(fresh, content, mode)
    await rename(fresh, path)
    await syncFolder(dirname(path))
  } finally {
    await rm(fresh, { force: true })
  }
}

export async function syncFolder(directory: string): Promise<void> {
  await using folder = await open(directory, 'r')
  await folder.sync()
}

/** Makes a folder that appears whole or not at all. One that holds something already stays as it is, and `refusal` is thrown. */
export async function writeFolder(target: string, refusal: Fault, fill: (fresh: string) => Promise<void>): Promise<void> {
  const parent = dirname(target)
  await makeFolder(parent)
  const fresh = await mkdtemp(join(parent, `.${basename(target)}-`))
  try {
    await fill(fresh)
    await syncFolder(fresh)
    await rename(fresh, target).catch((cause: NodeJS.ErrnoException) => {
      throw ['ENOTEMPTY', 'EEXIST', 'ENOTDIR'].includes(cause.code ?? '') ? refusal : cause
    })
    await syncFolder(parent)
  } finally {
    await rm(fresh, { recursive: true, force: true })
  }
}

/** What the host refuses, as a Fault that says what could not be done. */
export async function hostFault<T>(what: string, body: () => Promise<T>): Promise<T> {
  try {
    return await body()
  } catch (cause) {
    if (cause instanceof Fault) throw cause
    throw new Fault('host', `Cannot ${what}: ${(cause as Error).message}`, { cause })
  }
}
